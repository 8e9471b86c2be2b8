//! A story of the pool with everything that is written of tasks, a transaction each. To extend a lease
//! is not among it: nothing is written for that.

use std::sync::Arc;

use cortex_core::id::{Attempt, LaneId, RunId, TaskId, TokenId, UserId};
use cortex_core::name::{Name, Selector};
use cortex_core::pool::desk::{self, New, Report, Submitted, Take};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::order::Turns;
use cortex_core::pool::{
    Backoff, Concurrency, Holder, Kind, Lost, Owner, Priority, Task, TaskResult, TaskSpec, TaskState, Work,
};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_store::{Tx, WriteError};

use crate::support::node_id;

/// A concurrency key with room for one.
pub(crate) const KEY: &str = "db";

/// A step, and what it is.
pub(crate) type Telling = (&'static str, fn(&mut dyn Tx) -> Result<(), WriteError>);

/// The story.
pub(crate) const STORY: &[Telling] = &[
    ("submit a command with a key", |tx| submit(tx, 1, command()?)),
    ("submit two payloads at once", |tx| [2, 3].into_iter().try_for_each(|n| submit(tx, n, payload()?))),
    ("submit what comes after another", |tx| {
        submit(tx, 4, TaskSpec { after: vec![task_id(1)], ..command()? })
    }),
    ("submit two that want one key", |tx| [5, 6].into_iter().try_for_each(|n| submit(tx, n, keyed()?))),
    ("a node claims, and one is parked", |tx| claim(tx, node, &[1, 5])),
    ("a worker claims two", |tx| claim(tx, worker, &[2, 3])),
    ("finish", |tx| report(tx, 2, 1, worker, Report::Done(result(1)))),
    ("fail", |tx| report(tx, 3, 1, worker, Report::Failed { result: result(3), is_final: false, chance: 0 })),
    ("its wait is over", |tx| desk::wake(tx, task_id(3), LATER.plus_ms(60_000)).map(drop)),
    ("claim again", |tx| claim(tx, worker, &[3])),
    ("a stale finish", |tx| refused(tx, 3, 1, worker, Report::Done(result(9)))),
    ("give back", |tx| report(tx, 3, 2, worker, Report::GivenBack)),
    ("bump", |tx| {
        let urgent = Priority::new(8)?;
        desk::bump(tx, task_id(3), "user:ada".to_owned(), urgent, LATER).map(drop)
    }),
    ("claim a third time", |tx| claim(tx, worker, &[3])),
    ("a lease ends", |tx| lose(tx, 3, 3, Lost::Expired)),
    ("claim a fourth time", |tx| claim(tx, worker, &[3])),
    ("finish the fourth", |tx| report(tx, 3, 4, worker, Report::Done(result(0)))),
    ("a node is gone", |tx| lose(tx, 1, 1, Lost::NodeGone)),
    ("the task goes out again", |tx| claim(tx, node, &[1])),
    ("the lost run's end comes late", |tx| {
        desk::keep_late(tx, task_id(1), Attempt(1), node(task_id(1), 1), result(7), LATER)
    }),
    ("finish, and another may start", |tx| report(tx, 1, 2, node, Report::Done(result(0)))),
    ("cancel one that waits", |tx| cancel(tx, 4)),
    ("retry it", |tx| desk::retry(tx, task_id(4), "user:ada".to_owned(), LATER).map(drop)),
    ("it goes out", |tx| claim(tx, node, &[4])),
    ("cancel one that runs", |tx| cancel(tx, 4)),
    ("its process has ended", |tx| report(tx, 4, 1, node, Report::Cancelled(result(143)))),
    ("finish, and the key has room", |tx| report(tx, 5, 1, node, Report::Done(result(0)))),
    ("the parked one goes out", |tx| claim(tx, node, &[6])),
    ("it is denied", |tx| {
        report(tx, 6, 1, node, Report::Denied { node: node_id(1), why: "rule 2".to_owned() })
    }),
    ("submit what must start soon", |tx| {
        submit(tx, 7, TaskSpec { start_within_ms: Some(1_000), ..payload()? })
    }),
    ("it does not", |tx| desk::expire(tx, task_id(7), false, LATER).map(drop)),
    ("a worker says that it is hopeless", |tx| {
        submit(tx, 8, payload()?)?;
        claim(tx, worker, &[8])?;
        report(tx, 8, 1, worker, Report::Failed { result: result(3), is_final: true, chance: 0 })
    }),
    ("old ones are removed", |tx| {
        let removed = tx.remove_tasks(&[task_id(2), task_id(6), task_id(7)])?;
        assert_eq!(removed, 2, "one of them is open");
        Ok(())
    }),
];

const NOW: WallTime = WallTime(1_000);
/// When the rest of the story happens.
const LATER: WallTime = WallTime(10_000_000);

fn task_id(number: u64) -> TaskId {
    TaskId::mint(number, &[4; 10])
}

fn node(task: TaskId, attempt: u64) -> Holder {
    let number = (1..99).find(|number| task_id(*number) == task).expect("one of the story");
    Holder::Node { node: node_id(1), run: RunId::mint(100 * number + attempt, &[7; 10]) }
}

fn worker(_: TaskId, _: u64) -> Holder {
    Holder::Worker { token: TokenId::mint(1, &[8; 10]) }
}

fn result(code: i32) -> TaskResult {
    TaskResult { code: Some(code), output: vec![0, 0xff], ..TaskResult::default() }
}

fn command() -> Result<TaskSpec, WriteError> {
    let run = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
    Ok(TaskSpec { selector: Selector::parse("os=linux")?, ..TaskSpec::new(Work::Command(run)) })
}

fn keyed() -> Result<TaskSpec, WriteError> {
    Ok(TaskSpec { concurrency: Some(Concurrency { key: KEY.to_owned(), limit: 1 }), ..command()? })
}

fn payload() -> Result<TaskSpec, WriteError> {
    let kind = Name::parse("resize").and_then(Kind::payload)?;
    let work = Work::Payload { kind, bytes: vec![1, 2, 3] };
    Ok(TaskSpec { attempts_max: 9, backoff: Backoff::default(), ..TaskSpec::new(work) })
}

fn submit(tx: &mut dyn Tx, number: u64, spec: TaskSpec) -> Result<(), WriteError> {
    let new = New {
        id: task_id(number),
        spec: Arc::new(spec),
        priority: Priority::new(5)?,
        owner: Owner { token: None, user: Some(UserId::mint(1, &[1; 10])) },
        caller: "user:ada".to_owned(),
        key: Some(format!("key-{number}")),
        traceparent: None,
        schedule: None,
        due_at: None,
    };
    let submitted = desk::submit(tx, new, NOW)?;
    assert!(matches!(submitted, Submitted::New(_)), "what was refused is not there: {submitted:?}");
    Ok(())
}

/// Claims all that is ready of the holder's kind, which must be these.
fn claim(tx: &mut dyn Tx, who: fn(TaskId, u64) -> Holder, expected: &[u64]) -> Result<(), WriteError> {
    let is_node = who(task_id(1), 1).node().is_some();
    let lanes = tx.lanes()?.into_iter().map(|(id, key)| (id, Arc::new(key)));
    let lanes: Vec<(LaneId, Arc<LaneKey>)> =
        lanes.filter(|(_, key)| key.kind.is_command() == is_node).collect();
    let mut take = |task: &Task| Take::By(who(task.id, task.attempt.next().0));
    let taken = desk::claim(tx, &lanes, &mut Turns::default(), expected.len() + 1, LATER, &mut take)?;
    let ids: Vec<TaskId> = taken.iter().map(|task| task.id).collect();
    assert_eq!(ids, expected.iter().map(|number| task_id(*number)).collect::<Vec<_>>());
    Ok(())
}

fn report(
    tx: &mut dyn Tx,
    number: u64,
    attempt: u64,
    who: fn(TaskId, u64) -> Holder,
    report: Report,
) -> Result<(), WriteError> {
    let id = task_id(number);
    Ok(desk::report(tx, id, Attempt(attempt), who(id, attempt), report, LATER)?.map(drop)?)
}

/// A report that is refused, and kept as evidence.
fn refused(
    tx: &mut dyn Tx,
    number: u64,
    attempt: u64,
    who: fn(TaskId, u64) -> Holder,
    report: Report,
) -> Result<(), WriteError> {
    let id = task_id(number);
    let answer = desk::report(tx, id, Attempt(attempt), who(id, attempt), report, LATER)?;
    assert!(answer.is_err(), "a stale report was taken: {answer:?}");
    Ok(())
}

fn lose(tx: &mut dyn Tx, number: u64, attempt: u64, how: Lost) -> Result<(), WriteError> {
    let lost = desk::lose(tx, task_id(number), Attempt(attempt), how, LATER)?;
    assert!(lost.is_some_and(|task| task.state == TaskState::Ready), "it had that lease");
    Ok(())
}

fn cancel(tx: &mut dyn Tx, number: u64) -> Result<(), WriteError> {
    desk::cancel(tx, task_id(number), "user:ada".to_owned(), LATER).map(drop)
}
