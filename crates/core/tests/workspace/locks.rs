//! The lock of a workspace, one rule by one.

use cortex_core::error::Code;
use cortex_core::event::EventKind;
use cortex_core::limits;
use cortex_core::sync;
use cortex_core::workspace::{Command, MemberState, Mode, Role, Step, Waits};

use super::rows::{
    ADA, Rows, commit, hub, hub_with, kinds, lock, observed, planning, received, settled, state, step, tree,
};

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
    let mut rows = hub_with(Role::Peer);
    observed(&mut rows, 1, 0);
    let epoch = lock(&mut rows);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    assert!(!plan.mode.writes(sync::End::Hub));
    let settled = settled(plan, 0);
    let decided = rows.decide(settled).expect("nothing to do");
    assert_eq!((state(&rows, 1), kinds(&decided)), (MemberState::Drifted, vec![EventKind::DriftFound]));
    rows.decide(Command::Unlock { epoch }).expect("unlocked");
    assert_eq!(step(&rows, 1), Step::Send);
    rows.decide(received(1)).expect("sent");
    assert_eq!(planning(&rows, 1).mode, sync::Mode::Merge);
}

#[test]
fn a_plan_that_was_made_under_a_lock_settles_nothing_after_it() {
    let mut rows = hub_with(Role::Peer);
    let epoch = lock(&mut rows);
    observed(&mut rows, 1, 1);
    let plan = planning(&rows, 1);
    rows.decide(Command::Unlock { epoch }).expect("unlocked");
    let settled = settled(plan, 0);
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
