//! What a follower changes by itself, and the end of it.

use cortex_core::error::Code;
use cortex_core::event::EventKind;
use cortex_core::sync;
use cortex_core::workspace::{Command, MemberState, Role, Step};

use super::rows::{
    ADA, applied, hub_with, kinds, member, observed, planning, settled, state, step, tree, whole,
};

#[test]
fn drift_is_told_when_it_is_found_once_and_when_it_ends() {
    let mut rows = hub_with(Role::Follower);
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
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 1);
    rows.decide(settled(planning(&rows, 1), 0)).expect("settled");
    let decided = rows.edit(tree(1)).expect("edited");
    assert!(kinds(&decided).contains(&EventKind::DriftCleared));
    assert_eq!(rows.member(1).expect("a member").agreed, Some(tree(1)));
}

#[test]
fn repair_is_asked_of_the_next_plan_of_a_follower_and_of_no_other() {
    let mut rows = hub_with(Role::Follower);
    rows.attach(2, Role::Peer).expect("attached");
    let resync = |number| Command::Resync { member: member(number), repair: true, by: ADA.to_owned() };
    assert_eq!(rows.decide(resync(2)).expect_err("a peer").code, Code::InvalidArgument);
    observed(&mut rows, 1, 1);
    rows.decide(settled(planning(&rows, 1), 0)).expect("settled");
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
    let mut rows = hub_with(Role::Follower);
    observed(&mut rows, 1, 1);
    rows.decide(settled(planning(&rows, 1), 0)).expect("settled");
    rows.edit(tree(2)).expect("edited");
    let plan = planning(&rows, 1);
    rows.decide(Command::Begin { member: member(1), planning: plan }).expect("planned");
    rows.decide(Command::Resync { member: member(1), repair: true, by: ADA.to_owned() }).expect("asked");
    rows.decide(applied(plan, 1, 0)).expect("no step of it could be done");
    observed(&mut rows, 1, 1);
    assert_eq!(state(&rows, 1), MemberState::Syncing, "whoever waits for the repair is not told of drift");
    assert_eq!(planning(&rows, 1).mode, sync::Mode::FromHub { repair: true });
}
