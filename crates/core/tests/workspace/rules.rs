//! Rules of workspaces, one by one.

use cortex_core::error::Code;
use cortex_core::event::EventKind;
use cortex_core::files::path::FilePath;
use cortex_core::id::{LockEpoch, NodeId, Revision};
use cortex_core::limits;
use cortex_core::sync::{self, Rule};
use cortex_core::workspace::{
    Command, Decided, MemberState, Mode, Planning, Role, Rules, Source, Step, Waits, clash, next,
};

use super::rows::{ADA, NOW, Rows, halt, halt_id, member, root, tree, whole};

fn hub() -> Rows {
    Rows::new(Mode::HubPrimary, tree(0))
}

fn observed(rows: &mut Rows, number: u8, seen: u8) -> Decided {
    let news = rows.member(number).expect("a member").news;
    let told = Command::Observed { member: member(number), root: Some(root(number)), tree: tree(seen), news };
    rows.decide(told).expect("it is a member")
}

fn planning(rows: &Rows, number: u8) -> Planning {
    match next(&rows.ws, rows.member(number).expect("a member"), true) {
        Step::Merge(planning) | Step::Apply(planning) => planning,
        other => panic!("{other:?}"),
    }
}

fn step(rows: &Rows, number: u8) -> Step {
    next(&rows.ws, rows.member(number).expect("a member"), true)
}

fn state(rows: &Rows, number: u8) -> MemberState {
    rows.member(number).expect("a member").state(&rows.ws)
}

fn kinds(decided: &Decided) -> Vec<EventKind> {
    decided.events.iter().map(|event| event.kind).collect()
}

fn commit(expect: u64, number: u8, lock: Option<LockEpoch>) -> Command {
    let (source, by, note) = (Source::Edit, ADA.to_owned(), String::new());
    Command::Commit { complete: whole(tree(number)), expect: Revision(expect), source, by, note, lock }
}

fn lock(rows: &mut Rows) -> LockEpoch {
    rows.decide(Command::Lock { holder: ADA.to_owned(), ttl_ms: 60_000 }).expect("free");
    rows.ws.epoch
}

#[test]
fn of_two_edits_of_one_head_the_second_is_told_where_the_head_is() {
    let mut rows = hub();
    let first = commit(1, 1, None);
    let decided = rows.decide(first).expect("the first");
    assert_eq!(kinds(&decided), [EventKind::WorkspaceRevision]);
    assert_eq!(decided.events[0].detail.as_deref(), Some("2 edit"));
    let refusal = rows.decide(commit(1, 2, None)).expect_err("the second");
    assert_eq!(refusal.code, Code::Conflict);
    assert!(refusal.details.contains(&("head", "2".to_owned())));
    assert_eq!(rows.ws.head, Revision(2));
}

#[test]
fn a_restore_is_a_new_revision_with_an_old_tree() {
    let mut rows = hub();
    rows.edit(tree(1)).expect("edited");
    let of = rows.revisions[0].clone();
    let (complete, by) = (whole(of.tree), ADA.to_owned());
    rows.decide(Command::Restore { of, complete, by, lock: None }).expect("restored");
    assert_eq!((rows.ws.head, rows.ws.tree), (Revision(3), tree(0)));
    assert_eq!(rows.revisions[2].note, "revision 1");
    let again = Command::Restore {
        of: rows.revisions[0].clone(),
        complete: whole(tree(0)),
        by: ADA.to_owned(),
        lock: None,
    };
    assert_eq!(rows.decide(again).expect("it is so already").revision, None);
}

#[test]
fn a_revision_of_another_workspace_or_without_its_tree_is_not_restored() {
    let mut rows = hub();
    rows.edit(tree(1)).expect("edited");
    let own = rows.revisions[0].clone();
    let other = cortex_core::id::WorkspaceId::mint(2, &[2; 10]);
    for (of, given) in [
        (cortex_core::workspace::RevisionRow { workspace: other, ..own.clone() }, tree(0)),
        (cortex_core::workspace::RevisionRow { n: Revision(9), ..own.clone() }, tree(0)),
        (own, tree(1)),
    ] {
        let restore = Command::Restore { of, complete: whole(given), by: ADA.to_owned(), lock: None };
        assert_eq!(rows.decide(restore).expect_err("no").code, Code::NotFound);
    }
}

#[test]
fn a_follower_commits_nothing_and_a_workspace_with_a_lead_takes_nothing_of_the_hub() {
    for (mode, role) in [(Mode::HubPrimary, Role::Follower), (Mode::NodePrimary, Role::Follower)] {
        let mut rows = Rows::new(mode, tree(0));
        rows.attach(1, role).expect("attached");
        observed(&mut rows, 1, 1);
        let plan = planning(&rows, 1);
        let source =
            Source::Member { id: member(1), planning: Box::new(plan), agreed: whole(tree(1)), conflicts: 0 };
        let command = match commit(1, 1, None) {
            Command::Commit { complete, expect, by, note, lock, .. } => {
                Command::Commit { complete, expect, source, by, note, lock }
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(rows.decide(command).expect_err("never").code, Code::InvalidArgument);
        assert!(!plan.mode.writes(sync::End::Hub));
    }
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    assert_eq!(rows.edit(tree(1)).expect_err("its lead's alone").code, Code::InvalidArgument);
}

#[test]
fn a_lead_is_never_written() {
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    rows.attach(1, Role::Lead).expect("attached");
    observed(&mut rows, 1, 1);
    assert_eq!(step(&rows, 1), Step::Send);
    rows.decide(Command::Received { member: member(1), complete: whole(tree(1)) }).expect("sent");
    let plan = planning(&rows, 1);
    assert_eq!(plan.mode, sync::Mode::FromNode);
    let (agreed, tree) = (whole(tree(1)), tree(0));
    let begin = Command::Begin { member: member(1), planning: plan };
    assert_eq!(rows.decide(begin).expect_err("never").code, Code::Conflict);
    let applied = Command::Applied { member: member(1), planning: plan, tree, agreed, conflicts: 0 };
    assert_eq!(rows.decide(applied).expect_err("never").code, Code::Conflict);
}

#[test]
fn what_a_commit_took_over_is_agreed_on_before_the_node_was_written() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
    observed(&mut rows, 1, 1);
    rows.decide(Command::Received { member: member(1), complete: whole(tree(1)) }).expect("sent");
    // The hub's side had changes of its own, so the new head is what neither had.
    let merged = Command::Commit {
        complete: whole(tree(3)),
        expect: planning(&rows, 1).to,
        source: Source::Member {
            id: member(1),
            planning: Box::new(planning(&rows, 1)),
            agreed: whole(tree(1)),
            conflicts: 0,
        },
        by: "node:build-2".to_owned(),
        note: String::new(),
        lock: None,
    };
    rows.decide(merged).expect("planned");
    let plan = planning(&rows, 1);
    assert_eq!((plan.hub, plan.node, plan.agreed), (tree(3), tree(1), Some(tree(1))), "a change of the hub");
}

#[test]
fn modes_have_their_roles_and_one_lead() {
    for (mode, role, fits) in [
        (Mode::HubPrimary, Role::Peer, true),
        (Mode::HubPrimary, Role::Follower, true),
        (Mode::HubPrimary, Role::Lead, false),
        (Mode::NodePrimary, Role::Lead, true),
        (Mode::NodePrimary, Role::Follower, true),
        (Mode::NodePrimary, Role::Peer, false),
    ] {
        assert_eq!(Rows::new(mode, tree(0)).attach(1, role).is_ok(), fits, "{mode:?} {role:?}");
    }
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    rows.attach(1, Role::Lead).expect("the lead");
    assert_eq!(rows.attach(2, Role::Lead).expect_err("a second").code, Code::Conflict);
}

#[test]
fn folders_of_members_do_not_lie_in_one_another() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
    let node = NodeId::mint(1, &[1; 10]);
    for (path, is_clash) in [
        ("/srv/مستندات", true),
        ("/srv/مستندات/a", true),
        ("/srv", true),
        ("/", true),
        ("/srv/مستندات2", false),
        ("/srv/other", false),
    ] {
        let path = FilePath::parse(path).expect("a path");
        assert_eq!(clash(node, &path, &rows.members).is_some(), is_clash, "{path:?}");
        assert!(clash(NodeId::mint(1, &[2; 10]), &path, &rows.members).is_none(), "on another node");
        let by = ADA.to_owned();
        let command = Command::Attach { id: member(2), node, path, role: Role::Peer, by };
        let code = rows.clone().decide(command).err().map(|refusal| refusal.code);
        assert_eq!(code, is_clash.then_some(Code::Conflict));
    }
}

#[test]
fn under_a_lock_its_holder_writes_and_others_are_told_who_that_is() {
    let mut rows = hub();
    let epoch = lock(&mut rows);
    let refusal = rows.decide(commit(1, 1, None)).expect_err("locked");
    assert_eq!(refusal.code, Code::Locked);
    assert!(refusal.details.contains(&("holder", ADA.to_owned())));
    rows.decide(commit(1, 1, Some(epoch))).expect("the holder");
    rows.decide(Command::Expire { epoch }).expect("ended");
    assert_eq!(rows.decide(commit(2, 2, Some(epoch))).expect_err("ended").code, Code::StaleEpoch);
    let newer = lock(&mut rows);
    assert!(newer > epoch);
    for command in [Command::Extend { epoch }, Command::Unlock { epoch }, Command::Expire { epoch }] {
        assert_eq!(rows.decide(command).expect_err("of the first lock").code, Code::StaleEpoch);
    }
    let again = Command::Lock { holder: ADA.to_owned(), ttl_ms: 60_000 };
    assert_eq!(rows.decide(again).expect_err("it is held").code, Code::Locked);
}

#[test]
fn a_lock_has_a_time_within_its_bounds() {
    for (ttl_ms, is_fine) in [
        (0, false),
        (limits::WORKSPACE_LOCK_MS_MIN - 1, false),
        (limits::WORKSPACE_LOCK_MS_MIN, true),
        (limits::WORKSPACE_LOCK_MS_MAX, true),
        (limits::WORKSPACE_LOCK_MS_MAX + 1, false),
    ] {
        let asked = hub().decide(Command::Lock { holder: ADA.to_owned(), ttl_ms });
        assert_eq!(asked.is_ok(), is_fine, "{ttl_ms}");
    }
}

#[test]
fn a_jump_of_the_wall_clock_neither_ends_a_lock_nor_moves_its_shown_end_back() {
    let mut rows = hub();
    let epoch = lock(&mut rows);
    let until = rows.ws.lock.as_ref().expect("held").until;
    rows.now.0 += 10_000_000_000;
    assert_eq!(rows.decide(commit(1, 1, None)).expect_err("held").code, Code::Locked);
    rows.now.0 -= 20_000_000_000;
    rows.decide(Command::Extend { epoch }).expect("held");
    assert_eq!(rows.ws.lock.as_ref().expect("held").until, until);
}

#[test]
fn what_a_peer_changes_under_a_lock_waits_for_its_end_and_then_becomes_a_revision() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
    observed(&mut rows, 1, 0);
    let epoch = lock(&mut rows);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    assert!(!plan.mode.writes(sync::End::Hub));
    let settled = Command::Settled { member: member(1), planning: plan, agreed: whole(tree(0)) };
    let decided = rows.decide(settled).expect("nothing to do");
    assert_eq!((state(&rows, 1), kinds(&decided)), (MemberState::Drifted, vec![EventKind::DriftFound]));
    rows.decide(Command::Unlock { epoch }).expect("unlocked");
    assert_eq!(step(&rows, 1), Step::Send);
    rows.decide(Command::Received { member: member(1), complete: whole(tree(1)) }).expect("sent");
    assert_eq!(planning(&rows, 1).mode, sync::Mode::Merge);
}

#[test]
fn a_plan_that_was_made_under_a_lock_settles_nothing_after_it() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
    let epoch = lock(&mut rows);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    rows.decide(Command::Unlock { epoch }).expect("unlocked");
    let settled = Command::Settled { member: member(1), planning: plan, agreed: whole(tree(0)) };
    assert_eq!(rows.decide(settled).expect_err("too late").code, Code::Conflict);
    assert_eq!(step(&rows, 1), Step::Send);
}

#[test]
fn a_lead_under_a_lock_waits_and_shows_what_differs() {
    let mut rows = Rows::new(Mode::NodePrimary, tree(0));
    rows.attach(1, Role::Lead).expect("attached");
    observed(&mut rows, 1, 0);
    lock(&mut rows);
    assert_eq!(kinds(&observed(&mut rows, 1, 1)), [EventKind::DriftFound]);
    assert_eq!((step(&rows, 1), state(&rows, 1)), (Step::Wait(Waits::Lock), MemberState::Drifted));
}

#[test]
fn drift_is_told_when_it_is_found_once_and_when_it_ends() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
    assert_eq!(kinds(&observed(&mut rows, 1, 0)), [EventKind::MemberState]);
    assert_eq!(kinds(&observed(&mut rows, 1, 1)), [] as [EventKind; 0], "nobody has planned yet");
    for (round, expected) in [(1, vec![EventKind::DriftFound]), (2, vec![])] {
        let agreed = whole(rows.ws.tree);
        let settled = Command::Settled { member: member(1), planning: planning(&rows, 1), agreed };
        assert_eq!(kinds(&rows.decide(settled).expect("settled")), expected);
        assert_eq!((state(&rows, 1), step(&rows, 1)), (MemberState::Drifted, Step::Nothing));
        rows.edit(tree(10 + round)).expect("edited");
        assert_eq!(state(&rows, 1), MemberState::Syncing);
    }
    let decided = observed(&mut rows, 1, 12);
    assert_eq!(kinds(&decided), [EventKind::DriftCleared, EventKind::MemberState]);
    assert_eq!(rows.member(1).expect("a member").drift_since, None);
}

#[test]
fn drift_that_becomes_the_head_is_over() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
    observed(&mut rows, 1, 1);
    let settled =
        Command::Settled { member: member(1), planning: planning(&rows, 1), agreed: whole(tree(0)) };
    rows.decide(settled).expect("settled");
    let decided = rows.edit(tree(1)).expect("edited");
    assert!(kinds(&decided).contains(&EventKind::DriftCleared));
    assert_eq!(rows.member(1).expect("a member").agreed, Some(tree(1)));
}

#[test]
fn repair_is_asked_of_the_next_plan_of_a_follower_and_of_no_other() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
    rows.attach(2, Role::Peer).expect("attached");
    let resync = |number| Command::Resync { member: member(number), repair: true, by: ADA.to_owned() };
    assert_eq!(rows.decide(resync(2)).expect_err("a peer").code, Code::InvalidArgument);
    observed(&mut rows, 1, 1);
    let settled =
        Command::Settled { member: member(1), planning: planning(&rows, 1), agreed: whole(tree(0)) };
    rows.decide(settled).expect("settled");
    rows.decide(resync(1)).expect("asked");
    assert_eq!(step(&rows, 1), Step::Scan);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    assert_eq!(plan.mode, sync::Mode::FromHub { repair: true });
    rows.decide(Command::Begin { member: member(1), planning: plan }).expect("planned");
    let agreed = whole(tree(0));
    let applied = Command::Applied { member: member(1), planning: plan, tree: tree(5), agreed, conflicts: 1 };
    let decided = rows.decide(applied).expect("done");
    assert!(kinds(&decided).contains(&EventKind::SyncConflict));
    assert_eq!(planning(&rows, 1).mode, sync::Mode::FromHub { repair: false }, "once");
}

#[test]
fn a_repair_that_is_asked_for_while_another_plan_ends_is_seen_to_go_on() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
    observed(&mut rows, 1, 1);
    let settled =
        Command::Settled { member: member(1), planning: planning(&rows, 1), agreed: whole(tree(0)) };
    rows.decide(settled).expect("settled");
    rows.edit(tree(2)).expect("edited");
    let plan = planning(&rows, 1);
    rows.decide(Command::Begin { member: member(1), planning: plan }).expect("planned");
    rows.decide(Command::Resync { member: member(1), repair: true, by: ADA.to_owned() }).expect("asked");
    let agreed = whole(tree(0));
    let applied = Command::Applied { member: member(1), planning: plan, tree: tree(1), agreed, conflicts: 0 };
    rows.decide(applied).expect("no step of it could be done");
    observed(&mut rows, 1, 1);
    assert_eq!(state(&rows, 1), MemberState::Syncing, "whoever waits for the repair is not told of drift");
    assert_eq!(planning(&rows, 1).mode, sync::Mode::FromHub { repair: true });
}

#[test]
fn only_a_person_with_its_own_id_ends_a_halt() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
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
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
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
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
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
        let sent = Command::Received { member: member(1), complete: whole(tree(5)) };
        assert_eq!(rows.decide(sent).expect_err("not of the member").code, Code::Conflict);
        observed(&mut rows, 1, 0);
        assert_eq!(state(&rows, 1), MemberState::InSync);
    }
}

#[test]
fn a_look_that_began_before_somebody_asked_for_one_is_followed_by_another() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
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
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
    observed(&mut rows, 1, 1);
    rows.decide(Command::Received { member: member(1), complete: whole(tree(2)) }).expect("sent");
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
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
    observed(&mut rows, 1, 2);
    let plan = planning(&rows, 1);
    rows.decide(Command::Begin { member: member(1), planning: plan }).expect("planned");
    // Away and back again: the same tree, and yet nobody knows what came after what.
    observed(&mut rows, 1, 3);
    observed(&mut rows, 1, 2);
    let agreed = whole(tree(0));
    let applied = Command::Applied { member: member(1), planning: plan, tree: tree(0), agreed, conflicts: 0 };
    rows.decide(applied).expect("it was done");
    assert_eq!((step(&rows, 1), state(&rows, 1)), (Step::Scan, MemberState::Syncing));
}

#[test]
fn a_node_that_is_being_written_gets_the_whole_of_that_revision_before_a_newer_one() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
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
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
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
fn a_halt_that_is_let_pass_when_nothing_is_left_to_do_leaves_no_pass_behind() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
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
fn other_rules_have_every_member_looked_at_again() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
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
fn a_tree_or_a_note_beyond_its_bound_is_no_revision() {
    let mut rows = hub();
    let with = |files, bytes, note: String| Command::Commit {
        complete: cortex_core::workspace::Complete::walked_in_the_chunk_store(tree(1), files, bytes),
        expect: Revision(1),
        source: Source::Import,
        by: ADA.to_owned(),
        note,
        lock: None,
    };
    for (command, code) in [
        (with(1, 1_001, String::new()), Code::Quota),
        (with(limits::TREE_ENTRIES_MAX + 1, 1, String::new()), Code::TooLarge),
        (with(1, 1, "a".repeat(limits::REVISION_NOTE_BYTES_MAX + 1)), Code::TooLarge),
    ] {
        assert_eq!(rows.decide(command).expect_err("beyond").code, code);
    }
    rows.decide(with(1, 1_000, "a".repeat(limits::REVISION_NOTE_BYTES_MAX))).expect("within");
}

#[test]
fn a_member_that_is_away_is_shown_so_unless_it_is_halted_and_waits() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
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

#[test]
fn a_removed_workspace_has_no_members_no_lock_and_no_wave() {
    let mut rows = hub();
    rows.attach(1, Role::Follower).expect("attached");
    let row = rows.member(1).expect("a member").clone();
    let epoch = lock(&mut rows);
    let remove = |lock| Command::Remove { by: ADA.to_owned(), lock };
    assert_eq!(rows.decide(remove(None)).expect_err("locked").code, Code::Locked);
    let decided = rows.decide(remove(Some(epoch))).expect("removed");
    assert_eq!(kinds(&decided), [EventKind::WorkspaceUnlocked, EventKind::WorkspaceRemoved]);
    assert_eq!(decided.gone, [member(1)]);
    assert!(rows.members.is_empty() && rows.ws.lock.is_none() && rows.ws.removed_at == Some(NOW));
    assert_eq!(next(&rows.ws, &row, true), Step::Nothing);
    assert_eq!(rows.attach(2, Role::Follower).expect_err("it is gone").code, Code::NotFound);
}

#[test]
fn a_revision_after_an_accepted_halt_is_told_from_an_ordinary_one() {
    let mut rows = hub();
    rows.attach(1, Role::Peer).expect("attached");
    observed(&mut rows, 1, 1);
    rows.decide(Command::Received { member: member(1), complete: whole(tree(1)) }).expect("sent");
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
    rows.decide(Command::Received { member: member(1), complete: whole(tree(2)) }).expect("sent");
    let plan = planning(&rows, 1);
    rows.decide(by_member(plan, 2)).expect("the next");
    let told: Vec<&str> = rows.revisions.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(told, ["import", "resync", "sync"]);
}
