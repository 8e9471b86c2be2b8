//! The decision, command by command and state by state.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::{Backoff, Owner, TaskSpec, TaskState, Work};
use super::*;
use crate::id::{RunId, TaskId, UserId};
use crate::limits::{EXCLUDED_NODES_MAX, PROGRESS_EVENT_MS};
use crate::run::RunSpec;

fn spec() -> TaskSpec {
    let backoff = Backoff { initial_ms: 100, jitter_percent: 0, ..Backoff::default() };
    let run = RunSpec { argv: vec!["true".into()], ..RunSpec::default() };
    TaskSpec { backoff, ..TaskSpec::new(Work::Command(run)) }
}

fn task(spec: TaskSpec) -> Task {
    let new = Task {
        id: TaskId::mint(1, &[1; 10]),
        spec: Arc::new(spec),
        owner: Owner { token: None, user: Some(UserId::mint(1, &[2; 10])) },
        caller: "user:ada".into(),
        idempotency_key: None,
        traceparent: None,
        schedule: None,
        priority: Priority::DEFAULT,
        state: TaskState::Scheduled,
        attempt: Attempt(0),
        tries: 0,
        parked: false,
        waits_for: 0,
        submitted_at: WallTime(10),
        due_at: None,
        ready_at: None,
        expires_at: None,
        lease: None,
        progress: None,
        excluded: BTreeSet::new(),
        ended_at: None,
        result: None,
        cancelled_by: None,
        steps: 0,
    };
    submitted(new, WallTime(10)).task
}

fn node(number: u8) -> NodeId {
    NodeId::mint(1, &[number; 10])
}

fn holder() -> Holder {
    Holder::Node { node: node(1), run: RunId::mint(1, &[3; 10]) }
}

fn result(code: i32) -> TaskResult {
    TaskResult { code: Some(code), ..TaskResult::default() }
}

fn fail(attempt: u64) -> Command {
    Command::Fail { attempt: Attempt(attempt), result: result(1), is_final: false, chance: 0 }
}

pub(in crate::pool) fn then(task: &Task, command: Command) -> Task {
    decide(task, command.clone(), WallTime(1_000)).unwrap_or_else(|why| panic!("{command:?}: {why}")).task
}

/// A task that waits for its first claim.
pub(in crate::pool) fn ready() -> Task {
    task(spec())
}

fn leased() -> Task {
    then(&task(spec()), Command::Claim(holder()))
}

/// A task in each state.
fn each() -> Vec<Task> {
    let ready = task(spec());
    let scheduled = Task { state: TaskState::Scheduled, due_at: Some(WallTime(5_000)), ..ready.clone() };
    let held = leased();
    let done = then(&held, Command::Finish { attempt: Attempt(1), result: result(0) });
    let last = Command::Fail { attempt: Attempt(1), result: result(1), is_final: true, chance: 0 };
    let dead = then(&held, last);
    let cancelled = then(&ready, Command::Cancel { by: "a".into() });
    let expired = then(&ready, Command::Expire);
    vec![scheduled, ready, held, done, dead, cancelled, expired]
}

#[test]
fn every_command_in_every_state() {
    use TaskState::{Cancelled, Dead, Done, Expired, Leased, Ready, Scheduled};
    let states: Vec<TaskState> = each().iter().map(|task| task.state).collect();
    assert_eq!(states, TaskState::ALL);
    let attempt = Attempt(1);
    let rows: Vec<(Command, [Option<TaskState>; 7])> = vec![
        (Command::Wake { dependency: false }, [Some(Scheduled), None, None, None, None, None, None]),
        (Command::Park(true), [None, Some(Ready), None, None, None, None, None]),
        (Command::Claim(holder()), [None, Some(Leased), None, None, None, None, None]),
        (
            Command::Progress { attempt, said: Said::default() },
            [None, None, Some(Leased), None, None, None, None],
        ),
        (Command::Finish { attempt, result: result(0) }, [None, None, Some(Done), None, None, None, None]),
        (fail(1), [None, None, Some(Scheduled), None, None, None, None]),
        (Command::Lose { attempt, how: Lost::Expired }, [None, None, Some(Ready), None, None, None, None]),
        (
            Command::Exclude { node: node(1), why: "exec.allow".into() },
            [None, Some(Ready), Some(Ready), None, None, None, None],
        ),
        (
            Command::Cancel { by: "a".into() },
            [Some(Cancelled), Some(Cancelled), Some(Leased), None, None, Some(Cancelled), None],
        ),
        (
            Command::Cancelled { attempt, result: result(1) },
            [None, None, Some(Cancelled), None, None, None, None],
        ),
        (Command::Expire, [None, Some(Expired), None, None, None, None, None]),
        (Command::Postpone, [None, Some(Ready), None, None, None, None, None]),
        (
            Command::Retry { by: "a".into(), waits_for: 0 },
            [None, None, None, None, Some(Ready), Some(Ready), Some(Ready)],
        ),
        (
            Command::Bump { by: "a".into(), priority: Priority::URGENT },
            [Some(Scheduled), Some(Ready), Some(Leased), None, None, None, None],
        ),
    ];
    let _all = [Dead];
    for (command, expected) in rows {
        for (task, expected) in each().iter().zip(expected) {
            let after = decide(task, command.clone(), WallTime(1_000));
            let is = after.as_ref().map(|decided| decided.task.state).ok();
            assert_eq!(is, expected, "{:?} {command:?}: {after:?}", task.state);
            if let Err(refusal) = after {
                assert!(matches!(refusal.code, Code::Conflict | Code::StaleAttempt), "{refusal:?}");
            }
        }
    }
}

#[test]
fn only_the_present_attempt_is_heard() {
    let second = then(
        &then(&leased(), Command::Lose { attempt: Attempt(1), how: Lost::Expired }),
        Command::Claim(holder()),
    );
    assert_eq!(second.attempt, Attempt(2));
    for attempt in [0, 1, 3, u64::MAX].map(Attempt) {
        for command in [
            Command::Finish { attempt, result: result(0) },
            Command::Fail { attempt, result: result(0), is_final: false, chance: 0 },
            Command::Cancelled { attempt, result: result(0) },
            Command::Lose { attempt, how: Lost::NodeGone },
            Command::Progress { attempt, said: Said::default() },
        ] {
            let refusal = decide(&second, command, WallTime(1_000)).expect_err("stale");
            assert_eq!(refusal.code, Code::StaleAttempt);
            assert_eq!(refusal.details, [("attempt", "2".to_owned())]);
        }
    }
    assert_eq!(
        then(&second, Command::Finish { attempt: Attempt(2), result: result(0) }).state,
        TaskState::Done
    );
}

fn said(done: u64) -> Said {
    Said { done, total: Some(10), note: Some("page".to_owned()) }
}

#[test]
fn progress_is_the_newest_word_of_the_present_attempt_and_no_step() {
    let held = leased();
    let progress = |task: &Task, done| Command::Progress { attempt: task.attempt, said: said(done) };
    let third = then(&then(&held, progress(&held, 5)), progress(&held, 3));
    assert_eq!(
        third.progress.as_ref().map(|progress| progress.said.clone()),
        Some(said(3)),
        "also backwards"
    );
    assert_eq!((third.steps, third.lease), (held.steps, held.lease));
    let dead =
        then(&third, Command::Fail { attempt: Attempt(1), result: result(1), is_final: true, chance: 0 });
    assert_eq!(dead.progress, third.progress, "how far it came");
    let lost = then(&third, Command::Lose { attempt: Attempt(1), how: Lost::Expired });
    assert_eq!(then(&lost, Command::Claim(holder())).progress, None, "another attempt begins anew");
}

#[test]
fn progress_is_told_at_once_and_then_seldom() {
    let mut task = leased();
    let every = PROGRESS_EVENT_MS as i64;
    for (at, is_told) in
        [(0, true), (1, false), (every - 1, false), (every, true), (every + 1, false), (every - 1, true)]
    {
        let command = Command::Progress { attempt: Attempt(1), said: Said { done: at as u64, ..said(0) } };
        let decided = decide(&task, command, WallTime(at)).expect("its own");
        let told: Vec<_> = decided.events.iter().map(|event| (event.kind, event.detail.clone())).collect();
        let expected = (EventKind::TaskProgress, Some(format!("{at}/10")));
        assert_eq!(told, if is_told { vec![expected] } else { vec![] }, "at {at}");
        assert_eq!(decided.task.progress.as_ref().map(|it| it.at), Some(WallTime(at)), "kept all the same");
        task = decided.task;
    }
}

#[test]
fn an_attempt_that_kills_its_worker_counts_and_one_that_is_given_back_does_not() {
    for (how, counts) in [(Lost::Expired, 1), (Lost::NodeGone, 1), (Lost::GivenBack, 0), (Lost::Drained, 0)] {
        let back = then(&leased(), Command::Lose { attempt: Attempt(1), how });
        assert_eq!((back.state, back.tries, back.lease), (TaskState::Ready, counts, None), "{how:?}");
    }
    let mut poison = task(spec());
    for attempt in 1..=3 {
        assert_eq!(poison.state, TaskState::Ready, "before attempt {attempt}");
        poison = then(&poison, Command::Claim(holder()));
        poison = then(&poison, Command::Lose { attempt: Attempt(attempt), how: Lost::NodeGone });
    }
    assert_eq!((poison.state, poison.tries), (TaskState::Dead, 3));
    let again = then(&poison, Command::Retry { by: "a".into(), waits_for: 0 });
    assert_eq!(
        (again.state, again.tries, again.attempt),
        (TaskState::Ready, 0, Attempt(3)),
        "numbers only grow"
    );
}

#[test]
fn a_failure_waits_longer_each_time_and_keeps_the_age_of_the_task() {
    let first = task(spec());
    let failed = then(&then(&first, Command::Claim(holder())), fail(1));
    assert_eq!((failed.state, failed.due_at), (TaskState::Scheduled, Some(WallTime(1_100))));
    let early =
        decide(&failed, Command::Wake { dependency: false }, WallTime(1_099)).expect("it may be asked");
    assert_eq!(early.task, failed, "not yet");
    let woken = decide(&failed, Command::Wake { dependency: false }, WallTime(1_100)).expect("due").task;
    assert_eq!((woken.state, woken.ready_at), (TaskState::Ready, first.ready_at));
    let second = then(&then(&woken, Command::Claim(holder())), fail(2));
    assert_eq!(second.due_at, Some(WallTime(1_200)));
}

#[test]
fn a_cancel_of_a_task_that_is_worked_on_waits_for_its_worker() {
    let asked = then(&leased(), Command::Cancel { by: "user:ada".into() });
    assert_eq!((asked.state, asked.cancelled_by.as_deref()), (TaskState::Leased, Some("user:ada")));
    let twice = decide(&asked, Command::Cancel { by: "user:bob".into() }, WallTime(2_000)).expect("it may");
    assert_eq!((twice.task, twice.steps, twice.events), (asked.clone(), vec![], vec![]));
    for command in [
        Command::Cancelled { attempt: Attempt(1), result: result(1) },
        fail(1),
        Command::Lose { attempt: Attempt(1), how: Lost::Expired },
    ] {
        assert_eq!(then(&asked, command.clone()).state, TaskState::Cancelled, "{command:?}");
    }
    let finished = then(&asked, Command::Finish { attempt: Attempt(1), result: result(0) });
    assert_eq!(finished.state, TaskState::Done, "it was done before it heard");
}

#[test]
fn the_time_to_start_runs_from_the_first_readiness_until_the_first_claim() {
    let timed = |ms| TaskSpec { start_within_ms: Some(ms), ..spec() };
    let ready = task(timed(50));
    assert_eq!(ready.expires_at, Some(WallTime(60)));
    let back = then(
        &then(&ready, Command::Claim(holder())),
        Command::Lose { attempt: Attempt(1), how: Lost::Expired },
    );
    assert_eq!((back.state, back.expires_at), (TaskState::Ready, None), "it has started once");
    let postponed = then(&ready, Command::Postpone);
    assert_eq!((postponed.state, postponed.expires_at), (TaskState::Ready, Some(WallTime(1_050))));
    let later = Task {
        state: TaskState::Scheduled,
        due_at: Some(WallTime(900)),
        ready_at: None,
        expires_at: None,
        ..ready
    };
    assert_eq!(then(&later, Command::Wake { dependency: false }).expires_at, Some(WallTime(1_050)));
}

#[test]
fn a_task_that_waits_for_others_is_ready_after_the_last() {
    let two = Task { state: TaskState::Scheduled, waits_for: 2, ready_at: None, ..task(spec()) };
    let one = then(&two, Command::Wake { dependency: true });
    assert_eq!((one.state, one.waits_for), (TaskState::Scheduled, 1));
    assert_eq!(
        then(&one, Command::Wake { dependency: false }).state,
        TaskState::Scheduled,
        "time alone is not enough"
    );
    assert_eq!(then(&one, Command::Wake { dependency: true }).state, TaskState::Ready);
}

#[test]
fn a_task_that_every_node_denies_is_dead() {
    let mut denied = task(spec());
    for number in 0..=EXCLUDED_NODES_MAX as u8 {
        assert_eq!(denied.state, TaskState::Ready, "after {number}");
        denied = then(&denied, Command::Exclude { node: node(number), why: "exec.allow".into() });
    }
    assert_eq!(denied.state, TaskState::Dead);
    let held = then(&leased(), Command::Exclude { node: node(1), why: "exec.allow".into() });
    assert_eq!((held.state, held.tries), (TaskState::Ready, 0));
    assert!(
        !held.lane().suits(node(1), &Default::default()) && held.lane().suits(node(2), &Default::default())
    );
}

#[test]
fn steps_and_events_tell_who_and_where() {
    let decided = decide(&task(spec()), Command::Claim(holder()), WallTime(1_000)).expect("ready");
    let (step, event) = (&decided.steps[0], &decided.events[0]);
    assert_eq!((step.kind, step.attempt, step.node), (StepKind::Leased, Attempt(1), holder().node()));
    assert_eq!(
        (event.kind, event.run, event.detail.as_deref()),
        (EventKind::TaskLeased, holder().run(), Some("1"))
    );
    let message = TaskResult { message: Some("secret of the work".into()), ..result(1) };
    let failed = Command::Fail { attempt: Attempt(1), result: message, is_final: true, chance: 0 };
    let failed = decide(&decided.task, failed, WallTime(1_001)).expect("held");
    assert_eq!(failed.steps[0].detail.as_deref(), Some("secret of the work"));
    assert!(failed.events.iter().all(|event| event.detail.as_deref() == Some("1")));
}

#[test]
fn a_timeline_has_a_bound() {
    let mut task = task(spec());
    for round in 0..2_000 {
        let priority = Priority::new(round as u8 % 2).expect("a priority");
        task = then(&task, Command::Bump { by: "a".into(), priority });
    }
    assert_eq!(task.steps, crate::limits::STEPS_MAX);
}

#[test]
fn a_waiting_task_that_nodes_denied_is_offered_to_them_again_and_no_other_is() {
    let retry = || Command::Retry { by: "a".into(), waits_for: 0 };
    let ready = task(spec());
    assert!(decide(&ready, retry(), WallTime(20)).is_err(), "nobody denied it");
    let denied = then(&ready, Command::Exclude { node: node(1), why: "exec.allow".into() });
    let parked = then(&denied, Command::Park(true));
    let again = decide(&parked, retry(), WallTime(20)).expect("offered again");
    assert!(again.task.excluded.is_empty() && !again.task.parked);
    assert_eq!((again.task.state, again.task.tries), (TaskState::Ready, 0));
    assert_eq!(again.steps.iter().map(|step| step.kind).collect::<Vec<_>>(), [StepKind::Retried]);
}

#[test]
fn a_claim_by_a_worker_names_its_token_in_the_timeline() {
    let token = crate::id::TokenId::mint(1, &[4; 10]);
    let claimed =
        decide(&task(spec()), Command::Claim(Holder::Worker { token }), WallTime(20)).expect("claimed");
    assert_eq!(claimed.steps[0].actor, Some(token.to_string()));
    assert_eq!(claimed.events[0].actor, None, "the event log names actors by name");
    let by_node = decide(&task(spec()), Command::Claim(holder()), WallTime(20)).expect("claimed");
    assert_eq!(by_node.steps[0].actor, None);
}
