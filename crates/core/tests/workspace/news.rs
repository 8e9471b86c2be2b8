//! What is seen of a folder while something else goes on with it.

use cortex_core::error::Code;
use cortex_core::id::Revision;
use cortex_core::limits;
use cortex_core::sync::{self, Rule};
use cortex_core::workspace::{Command, MemberState, Role, Rules, Step, Waits, next};

use super::rows::{
    ADA, Rows, applied, halt, hub_with, member, observed, planning, received, root, state, step, tree, whole,
};

#[test]
fn a_look_that_began_before_somebody_asked_for_one_is_followed_by_another() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 0);
    let asks = |rows: &mut Rows| {
        let resync = Command::Resync { member: member(1), repair: false, by: ADA.to_owned() };
        rows.decide(resync).expect("asked");
        rows.member(1).expect("a member").news
    };
    let tells = |rows: &mut Rows, seen: u8, news: u64| {
        let root = Some(root(1));
        let told = Command::Observed { member: member(1), root, tree: tree(seen), news };
        rows.decide(told).expect("told");
    };
    let first = asks(&mut rows);
    // Nothing was seen in between, and it is another question all the same.
    let second = asks(&mut rows);
    assert_ne!(first, second);
    tells(&mut rows, 1, first);
    assert_eq!(step(&rows, 1), Step::Scan, "what was changed before the second may not be in it");
    let third = rows.member(1).expect("a member").news;
    tells(&mut rows, 2, third);
    assert_ne!(step(&rows, 1), Step::Scan);
}

#[test]
fn what_was_sent_beside_other_news_is_taken_over_and_then_the_folder_is_looked_at_again() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 1);
    rows.decide(received(2)).expect("sent");
    let plan = planning(&rows, 1);
    assert_eq!((plan.node, plan.mode), (tree(2), sync::Mode::Merge));
    observed(&mut rows, 1, 3);
    assert_eq!(planning(&rows, 1), plan, "whatever is seen since");
    rows.decide(Command::Merged { member: member(1), planning: plan, agreed: whole(tree(2)) })
        .expect("planned");
    assert_eq!(planning(&rows, 1).agreed, Some(tree(2)), "it gets the head before it is asked again");
}

#[test]
fn what_was_applied_beside_other_news_is_looked_at_again() {
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 2);
    let plan = planning(&rows, 1);
    rows.decide(Command::Begin { member: member(1), planning: plan }).expect("planned");
    // Away and back again: the same tree, and yet nobody knows what came after what.
    observed(&mut rows, 1, 3);
    observed(&mut rows, 1, 2);
    rows.decide(applied(plan, 0, 0)).expect("it was done");
    assert_eq!((step(&rows, 1), state(&rows, 1)), (Step::Scan, MemberState::Syncing));
}

#[test]
fn a_node_that_is_being_written_gets_the_whole_of_that_revision_before_a_newer_one() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 0);
    rows.edit(tree(1)).expect("edited");
    let plan = planning(&rows, 1);
    rows.decide(Command::Begin { member: member(1), planning: plan }).expect("planned");
    rows.edit(tree(2)).expect("edited");
    observed(&mut rows, 1, 9);
    assert_eq!(
        (planning(&rows, 1).to, planning(&rows, 1).hub, planning(&rows, 1).agreed),
        (Revision(2), tree(1), Some(tree(0))),
        "half of what is there is the sync's own"
    );
    observed(&mut rows, 1, 2);
    assert_eq!(planning(&rows, 1).hub, tree(1), "also when it seems to have the head");
    let agreed = whole(tree(1));
    let plan = planning(&rows, 1);
    let applied = Command::Applied { member: member(1), planning: plan, tree: tree(1), agreed, conflicts: 0 };
    rows.decide(applied).expect("it was done");
    assert_eq!(planning(&rows, 1).to, Revision(3));
}

#[test]
fn what_nobody_has_begun_was_not_done() {
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 1);
    let planning = planning(&rows, 1);
    let applied =
        |agreed| Command::Applied { member: member(1), planning, tree: tree(0), agreed, conflicts: 0 };
    assert_eq!(rows.decide(applied(whole(tree(0)))).expect_err("not begun").code, Code::Conflict);
    rows.decide(Command::Begin { member: member(1), planning }).expect("planned");
    rows.decide(Command::Begin { member: member(1), planning }).expect("again, after a crash");
    rows.decide(applied(whole(tree(0)))).expect("done");
    assert_eq!(rows.decide(applied(whole(tree(0)))).expect_err("it has ended").code, Code::Conflict);
}

#[test]
fn other_rules_have_every_member_looked_at_again() {
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 0);
    let change = |exclude: Vec<String>| Command::Change {
        rules: Some(Rules { exclude, ..Rules::default() }),
        bytes_max: None,
        by: ADA.to_owned(),
        lock: None,
    };
    rows.decide(change(Vec::new())).expect("the same rules");
    assert_eq!(state(&rows, 1), MemberState::InSync);
    rows.decide(change(vec!["target/".to_owned()])).expect("others");
    assert_eq!((step(&rows, 1), state(&rows, 1)), (Step::Scan, MemberState::Syncing));
    for (exclude, code) in [
        (vec!["a".to_owned(); limits::WORKSPACE_EXCLUDES_MAX + 1], Code::TooLarge),
        (vec!["a".repeat(limits::WORKSPACE_EXCLUDE_BYTES_MAX + 1)], Code::TooLarge),
        (vec![String::new()], Code::InvalidArgument),
        (vec!["a\nb".to_owned()], Code::InvalidArgument),
    ] {
        assert_eq!(rows.decide(change(exclude)).expect_err("no pattern").code, code);
    }
}

#[test]
fn a_member_that_is_away_is_shown_so_unless_it_is_halted_and_waits() {
    let mut rows = hub_with(Role::Follower);
    assert_eq!(state(&rows, 1), MemberState::Joining);
    observed(&mut rows, 1, 1);
    let row = rows.member(1).expect("a member");
    assert_eq!(row.shown(&rows.ws, false), MemberState::Offline);
    assert_eq!(row.shown(&rows.ws, true), MemberState::Syncing);
    assert_eq!(next(&rows.ws, row, false), Step::Wait(Waits::Node));
    let planning = planning(&rows, 1);
    rows.decide(Command::Halt { member: member(1), planning, halt: halt(1, Rule::Deletes) }).expect("halted");
    let row = rows.member(1).expect("a member");
    assert_eq!(row.shown(&rows.ws, false), MemberState::Halted);
}
