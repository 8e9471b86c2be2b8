//! What a safety rule stopped, and who lets it pass.

use cortex_core::error::Code;
use cortex_core::event::EventKind;
use cortex_core::sync::Rule;
use cortex_core::workspace::{Command, MemberState, Planning, Role, Source, Step, Waits};

use super::rows::{
    ADA, halt, halt_id, hub_with, kinds, member, observed, planning, received, root, state, step, tree, whole,
};

#[test]
fn only_a_person_with_its_own_id_ends_a_halt() {
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    let decided = rows
        .decide(Command::Halt { member: member(1), planning: plan, halt: halt(7, Rule::Deletes) })
        .expect("halted");
    assert_eq!(kinds(&decided), [EventKind::SyncHalted]);
    let told = decided.events[0].detail.clone().expect("a detail");
    assert!(told.contains(&halt_id(7).to_string()) && told.contains("deletes 30/40"), "{told}");
    assert_eq!(step(&rows, 1), Step::Stopped(halt_id(7)));
    observed(&mut rows, 1, 0);
    rows.edit(tree(3)).expect("edited");
    assert_eq!(state(&rows, 1), MemberState::Halted, "neither news nor a new head");
    let resync = Command::Resync { member: member(1), repair: false, by: ADA.to_owned() };
    let refusal = rows.decide(resync).expect_err("halted");
    assert_eq!(refusal.code, Code::SyncHalted);
    assert!(refusal.details.contains(&("halt", halt_id(7).to_string())));
    let accept = |number| Command::Accept { member: member(1), halt: halt_id(number), by: ADA.to_owned() };
    assert_eq!(rows.decide(accept(8)).expect_err("another").code, Code::Conflict);
    rows.decide(accept(7)).expect("its own");
    assert_eq!(planning(&rows, 1).accepted, Some(halt_id(7)));
    assert_eq!(rows.decide(accept(7)).expect_err("not halted").code, Code::Conflict);
}

#[test]
fn a_halt_that_nobody_can_let_pass_lasts_until_the_folder_is_back() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 0);
    rows.edit(tree(1)).expect("edited");
    let plan = planning(&rows, 1);
    let decided = rows
        .decide(Command::Halt { member: member(1), planning: plan, halt: halt(7, Rule::RootGone) })
        .expect("told");
    assert_eq!(kinds(&decided), [EventKind::MemberState]);
    assert_eq!((step(&rows, 1), state(&rows, 1)), (Step::Wait(Waits::Folder), MemberState::Unavailable));
    observed(&mut rows, 1, 0);
    assert_eq!(state(&rows, 1), MemberState::Syncing);
}

#[test]
fn sync_02_another_folder_at_the_path_of_a_member_is_not_its_folder_emptied() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 0);
    let own = root(1);
    for other in [
        cortex_core::workspace::RootIdentity { marker: [9; 32], ..own },
        cortex_core::workspace::RootIdentity { dev: 9, ..own },
        cortex_core::workspace::RootIdentity { ino: 9, ..own },
    ] {
        let told = Command::Observed { member: member(1), root: Some(other), tree: tree(5), news: 0 };
        rows.decide(told).expect("told");
        assert_eq!(state(&rows, 1), MemberState::Unavailable);
        let sent = received(5);
        assert_eq!(rows.decide(sent).expect_err("not of the member").code, Code::Conflict);
        observed(&mut rows, 1, 0);
        assert_eq!(state(&rows, 1), MemberState::InSync);
    }
}

#[test]
fn a_halt_that_is_let_pass_when_nothing_is_left_to_do_leaves_no_pass_behind() {
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    rows.decide(Command::Halt { member: member(1), planning: plan, halt: halt(7, Rule::Deletes) })
        .expect("halted");
    rows.edit(tree(1)).expect("the head becomes what the node has");
    assert_eq!(state(&rows, 1), MemberState::Halted, "a person still has to say so");
    rows.decide(Command::Accept { member: member(1), halt: halt_id(7), by: ADA.to_owned() })
        .expect("its own");
    let row = rows.member(1).expect("a member");
    assert_eq!((row.state(&rows.ws), row.accepted), (MemberState::InSync, None));
}

#[test]
fn a_revision_after_an_accepted_halt_is_told_from_an_ordinary_one() {
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 1);
    rows.decide(received(1)).expect("sent");
    let plan = planning(&rows, 1);
    rows.decide(Command::Halt { member: member(1), planning: plan, halt: halt(1, Rule::Deletes) })
        .expect("halted");
    let by_member = |planning: Planning, number| Command::Commit {
        complete: whole(tree(number)),
        expect: planning.to,
        source: Source::Member {
            id: member(1),
            planning: Box::new(planning),
            agreed: whole(tree(1)),
            conflicts: 2,
        },
        by: "node:build-2".to_owned(),
        note: String::new(),
        lock: None,
    };
    assert_eq!(rows.decide(by_member(plan, 1)).expect_err("halted").code, Code::SyncHalted);
    rows.decide(Command::Accept { member: member(1), halt: halt_id(1), by: ADA.to_owned() })
        .expect("its own");
    let plan = planning(&rows, 1);
    rows.decide(by_member(plan, 1)).expect("let pass");
    assert_eq!(rows.member(1).expect("a member").accepted, None, "for one plan");
    assert_eq!(state(&rows, 1), MemberState::Conflict, "in sync, and somebody has to look");
    observed(&mut rows, 1, 2);
    rows.decide(received(2)).expect("sent");
    let plan = planning(&rows, 1);
    rows.decide(by_member(plan, 2)).expect("the next");
    let told: Vec<&str> = rows.revisions.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(told, ["import", "resync", "sync"]);
}
