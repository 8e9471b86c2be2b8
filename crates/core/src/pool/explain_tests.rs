//! A situation for each reason.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Concurrency, Kind, Owner, Priority, TaskSpec, Work};
use super::*;
use crate::id::{Attempt, UserId};
use crate::name::Name;
use crate::run::RunSpec;

fn task(change: impl FnOnce(&mut TaskSpec)) -> Task {
    let run = RunSpec { argv: vec!["true".into()], ..RunSpec::default() };
    let mut spec = TaskSpec::new(Work::Command(run));
    change(&mut spec);
    Task {
        id: id(1),
        spec: Arc::new(spec),
        owner: Owner { token: None, user: Some(UserId::mint(1, &[2; 10])) },
        caller: "user:ada".into(),
        idempotency_key: None,
        traceparent: None,
        schedule: None,
        priority: Priority::DEFAULT,
        state: TaskState::Ready,
        attempt: Attempt(0),
        tries: 0,
        parked: false,
        waits_for: 0,
        submitted_at: WallTime(10),
        due_at: None,
        ready_at: Some(WallTime(10)),
        expires_at: None,
        lease: None,
        progress: None,
        excluded: BTreeSet::new(),
        ended_at: None,
        result: None,
        cancelled_by: None,
        steps: 0,
    }
}

fn id(number: u8) -> TaskId {
    TaskId::mint(1, &[number; 10])
}

fn node(name: &str, labels: &[(&str, &str)]) -> NodeFacts {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    NodeFacts {
        name: name.into(),
        labels,
        is_online: true,
        owner_may: true,
        slots: 2,
        ..NodeFacts::default()
    }
}

fn with(nodes: Vec<NodeFacts>) -> Facts {
    Facts { nodes, ..Facts::default() }
}

fn names(reasons: &[Reason]) -> Vec<&'static str> {
    reasons.iter().map(Reason::as_str).collect()
}

#[test]
fn each_reason_of_a_node_is_told_and_one_node_that_is_free_ends_them() {
    let plain = task(|_| {});
    let n = || node("n1", &[]);
    for (node, reason) in [
        (NodeFacts { owner_may: false, ..n() }, "owner_may_not"),
        (NodeFacts { denied_by: Some("exec.allow".into()), ..n() }, "denied"),
        (NodeFacts { is_online: false, ..n() }, "offline"),
        (NodeFacts { paused_by: Some("user:ada".into()), ..n() }, "node_paused"),
        (NodeFacts { slots: 0, ..n() }, "no_slots"),
        (NodeFacts { busy: 2, ..n() }, "busy"),
        (n(), "next"),
    ] {
        assert_eq!(names(&explain(&plain, &with(vec![node.clone()]))), [reason]);
        assert_eq!(names(&explain(&plain, &with(vec![node, n()]))), ["next"], "{reason}, and one is free");
    }
    let mixed =
        vec![NodeFacts { is_online: false, ..node("a", &[]) }, NodeFacts { busy: 2, ..node("b", &[]) }];
    assert_eq!(
        explain(&plain, &with(mixed)),
        [Reason::Offline(vec!["a".into()]), Reason::Busy(vec!["b".into()])]
    );
}

#[test]
fn who_denied_it_is_named_with_the_rule() {
    let denier = NodeFacts { denied_by: Some("exec.allow".into()), ..node("a", &[]) };
    let reasons = explain(&task(|_| {}), &with(vec![denier]));
    assert_eq!(reasons, [Reason::Denied(vec![("a".into(), "exec.allow".into())])]);
}

#[test]
fn the_nearest_node_is_named_with_what_it_lacks() {
    let wanted = task(|spec| spec.selector = Selector::parse("os=linux,gpu=a100").expect("a selector"));
    let nodes = vec![node("a", &[]), node("b", &[("os", "linux"), ("gpu", "t4")])];
    let reasons = explain(&wanted, &with(nodes));
    let [Reason::NoNodeWith { nearest, .. }] = reasons.as_slice() else { panic!("{reasons:?}") };
    assert_eq!(*nearest, Some(("b".into(), "gpu=a100".into())));
    assert_eq!(names(&explain(&wanted, &Facts::default())), ["no_node"]);
}

#[test]
fn a_scheduled_task_names_its_time_and_the_tasks_before_it() {
    let timed = Task { state: TaskState::Scheduled, due_at: Some(WallTime(99)), ..task(|_| {}) };
    assert_eq!(explain(&timed, &Facts::default()), [Reason::ScheduledFor(WallTime(99))]);
    let failed = Task { tries: 2, ..timed.clone() };
    assert_eq!(explain(&failed, &Facts::default()), [Reason::AfterFailure { at: WallTime(99), tries: 2 }]);
    let facts = Facts { dependencies: vec![(id(2), TaskState::Dead)], ..Facts::default() };
    assert_eq!(names(&explain(&timed, &facts)), ["dependency", "scheduled"]);
    let failed_before = Task { tries: 2, ..timed.clone() };
    assert_eq!(names(&explain(&failed_before, &facts)), ["dependency", "after_failure"]);
    // A time that has come holds nothing up; alone it is named until the hub has looked at it.
    let later = Facts { now: WallTime(99), ..facts };
    assert_eq!(names(&explain(&timed, &later)), ["dependency"]);
    let alone = Facts { now: WallTime(100), ..Facts::default() };
    assert_eq!(names(&explain(&timed, &alone)), ["scheduled"]);
}

#[test]
fn keys_pauses_owners_and_missing_workers_are_told() {
    let keyed = task(|spec| spec.concurrency = Some(Concurrency { key: "db".into(), limit: 1 }));
    let facts = Facts {
        working: 1,
        pauses: vec![PauseFacts { what: "kind:command".into(), by: "user:bob".into() }],
        owner_stopped: Some("locked".into()),
        ..with(vec![node("n1", &[])])
    };
    assert_eq!(names(&explain(&keyed, &facts)), ["owner_stopped", "paused", "key_full"]);
    let kind = Kind::payload(Name::parse("resize").expect("a name")).expect("a kind");
    let payload = task(|spec| spec.work = Work::Payload { kind, bytes: vec![] });
    assert_eq!(explain(&payload, &Facts::default()), [Reason::NoWorker("resize".into())]);
    assert_eq!(names(&explain(&payload, &Facts { workers: 1, ..Facts::default() })), ["next"]);
}

#[test]
fn a_task_that_does_not_wait_says_so() {
    for state in
        TaskState::ALL.iter().filter(|state| !matches!(state, TaskState::Ready | TaskState::Scheduled))
    {
        let task = Task { state: *state, ..task(|_| {}) };
        assert_eq!(explain(&task, &Facts::default()), [Reason::NotWaiting(*state)]);
    }
}
