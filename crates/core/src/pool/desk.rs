//! What the pool does with tasks, each in one transaction over a [`Table`]: it decides by
//! [`decide`], and carries on what one task's change means for others: room for a concurrency key,
//! tasks that wait for one that is done. Hub and simulator call it over their stores. Never here:
//! clocks, nodes, links; rights and policies are the caller's, by `take`.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decide::{stale, stale_step, submitted};
use super::lane::LaneKey;
use super::order::{Turns, first};
use super::{
    Command, Decided, Evidence, Holder, Lost, Owner, Priority, Said, Table, Task, TaskResult, TaskSpec,
    TaskState, decide,
};
use crate::error::{Code, Refusal};
use crate::id::{Attempt, LaneId, NodeId, ScheduleId, TaskId};
use crate::limits::{CLAIM_PASSED_MAX, STEPS_MAX};
use crate::time::WallTime;

/// A task to be submitted. Its spec was checked.
#[derive(Clone, Debug)]
pub struct New {
    /// A fresh id.
    pub id: TaskId,
    /// What.
    pub spec: Arc<TaskSpec>,
    /// How soon.
    pub priority: Priority,
    /// Whose.
    pub owner: Owner,
    /// Who asks.
    pub caller: String,
    /// The owner's key.
    pub key: Option<String>,
    /// W3C traceparent.
    pub traceparent: Option<String>,
    /// The schedule that makes it.
    pub schedule: Option<ScheduleId>,
    /// Not before then.
    pub due_at: Option<WallTime>,
}

/// What became of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// A new task.
    New(Task),
    /// The task of an earlier submission with this key.
    Known(Task),
}

/// Keeps a new task.
///
/// # Errors
/// `conflict` when the key was used for something else; `not_found` for a task to wait for that the
/// owner does not have.
pub fn submit<T: Table + ?Sized>(table: &mut T, new: New, now: WallTime) -> Result<Submitted, T::Error> {
    if let Some(key) = &new.key
        && let Some(known) = table.task_by_key(new.owner, key)?
    {
        if known.spec == new.spec && known.schedule == new.schedule {
            return Ok(Submitted::Known(known));
        }
        let message = format!("The idempotency key was used for another task, {}.", known.id);
        return Err(Refusal::new(Code::Conflict, message).hint("Use a new key for a new task.").into());
    }
    let waits_for = undone(table, &new.spec.after, new.owner)?;
    let task = Task {
        id: new.id,
        spec: new.spec,
        owner: new.owner,
        caller: new.caller,
        idempotency_key: new.key,
        traceparent: new.traceparent,
        schedule: new.schedule,
        priority: new.priority,
        state: TaskState::Scheduled,
        attempt: Attempt(0),
        tries: 0,
        parked: false,
        waits_for,
        submitted_at: now,
        due_at: new.due_at,
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
    let decided = submitted(task, now);
    table.put(&decided)?;
    Ok(Submitted::New(decided.task))
}

/// How many of these tasks, each once, are not done.
fn undone<T: Table + ?Sized>(table: &T, after: &[TaskId], owner: Owner) -> Result<u32, T::Error> {
    let mut count = 0;
    for id in after.iter().collect::<BTreeSet<_>>() {
        let task = table.task(*id)?.filter(|task| task.owner.party() == owner.party());
        let task = task.ok_or_else(|| not_found(*id))?;
        count += u32::from(task.state != TaskState::Done);
    }
    Ok(count)
}

/// What the caller of [`claim`] says to a task that is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Take {
    /// It is for this one.
    By(Holder),
    /// This node must not have it.
    Exclude {
        /// Which node.
        node: NodeId,
        /// Why, for people.
        why: String,
    },
    /// No more.
    Stop,
}

/// Hands out up to `limit` tasks of these lanes, in their order. `take` is asked for each. The turns of a
/// claim that is not kept are to be given back: [`Turns::give_back`].
pub fn claim<T: Table + ?Sized>(
    table: &mut T,
    lanes: &[(LaneId, Arc<LaneKey>)],
    turns: &mut Turns,
    limit: usize,
    now: WallTime,
    take: &mut dyn FnMut(&Task) -> Take,
) -> Result<Vec<Task>, T::Error> {
    let ids: Vec<LaneId> = lanes.iter().map(|(id, _)| *id).collect();
    let keys: BTreeMap<LaneId, &LaneKey> = lanes.iter().map(|(id, key)| (*id, &**key)).collect();
    let mut heads = table.heads(&ids)?;
    let (mut taken, mut passed) = (Vec::new(), 0);
    turns.begin();
    while taken.len() < limit && passed <= CLAIM_PASSED_MAX {
        let known = heads.iter().filter_map(|head| Some((*keys.get(&head.lane)?, head)));
        let Some(next) = first(known, turns, now).copied() else { break };
        heads.retain(|head| head.lane != next.lane);
        let Some(task) = table.task(next.task)? else { break };
        let command = if is_full(table, &task)? {
            Command::Park(true)
        } else {
            match take(&task) {
                Take::By(holder) => Command::Claim(holder),
                Take::Exclude { node, why } => Command::Exclude { node, why },
                Take::Stop => break,
            }
        };
        let decided = change(table, &task, command, now)?;
        if decided.state == TaskState::Leased {
            turns.took(decided.owner);
            taken.push(decided);
        } else {
            passed += 1;
        }
        heads.extend(table.heads(&[next.lane])?);
    }
    Ok(taken)
}

fn is_full<T: Table + ?Sized>(table: &T, task: &Task) -> Result<bool, T::Error> {
    let Some(concurrency) = &task.spec.concurrency else { return Ok(false) };
    Ok(table.working(&concurrency.key)? >= concurrency.limit)
}

/// What a worker says of its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The work is done.
    Done(TaskResult),
    /// It failed.
    Failed {
        /// What came of it.
        result: TaskResult,
        /// Trying again would not help.
        is_final: bool,
        /// Any number, for the wait before the next try.
        chance: u64,
    },
    /// The worker ended it, as somebody asked.
    Cancelled(TaskResult),
    /// The worker gives it back.
    GivenBack,
    /// A node's policy denied it.
    Denied {
        /// Which node.
        node: NodeId,
        /// Why, for people.
        why: String,
    },
}

/// Takes a report in. One of an attempt that is not the present one is kept as evidence, and is the
/// inner refusal: the transaction must be kept then.
///
/// # Errors
/// `not_found`.
pub fn report<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    attempt: Attempt,
    holder: Holder,
    report: Report,
    now: WallTime,
) -> Result<Result<Task, Refusal>, T::Error> {
    let task = table.task(id)?.ok_or_else(|| not_found(id))?;
    report_on(table, task, attempt, holder, report, now)
}

/// Takes a report in, see [`report`], of a task as it is in this transaction.
///
/// # Errors
/// What the table says.
pub fn report_on<T: Table + ?Sized>(
    table: &mut T,
    task: Task,
    attempt: Attempt,
    holder: Holder,
    report: Report,
    now: WallTime,
) -> Result<Result<Task, Refusal>, T::Error> {
    if is_repeated(&task, attempt, &report) {
        return Ok(Ok(task));
    }
    if !has(&task, attempt, holder) {
        return keep_evidence(table, task, attempt, holder, report, now).map(Err);
    }
    let command = match report {
        Report::Done(result) => Command::Finish { attempt, result },
        Report::Failed { result, is_final, chance } => Command::Fail { attempt, result, is_final, chance },
        Report::Cancelled(result) => Command::Cancelled { attempt, result },
        Report::GivenBack => Command::Lose { attempt, how: Lost::GivenBack },
        Report::Denied { node, why } => Command::Exclude { node, why },
    };
    change(table, &task, command, now).map(Ok)
}

/// Whether this is the present attempt of a task, and its holder.
pub fn has(task: &Task, attempt: Attempt, holder: Holder) -> bool {
    task.attempt == attempt && task.lease.is_some_and(|lease| lease.holder == holder)
}

/// Keeps how far an attempt is. One that is over leaves nothing: how far it came is of no use.
///
/// # Errors
/// `not_found`; `stale_attempt` when this holder does not have it.
pub fn progress<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    attempt: Attempt,
    holder: Holder,
    said: Said,
    now: WallTime,
) -> Result<Task, T::Error> {
    let task = table.task(id)?.ok_or_else(|| not_found(id))?;
    if task.lease.is_none_or(|lease| lease.holder != holder) {
        return Err(stale(&task, attempt).into());
    }
    change(table, &task, Command::Progress { attempt, said }, now)
}

/// Keeps what an attempt brought that was over when nobody had heard of its end. Nothing when it is not
/// over, or the task is gone.
pub fn keep_late<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    attempt: Attempt,
    holder: Holder,
    result: TaskResult,
    now: WallTime,
) -> Result<(), T::Error> {
    let is_over =
        |task: &Task| task.attempt != attempt || task.lease.is_none_or(|lease| lease.holder != holder);
    let Some(task) = table.task(id)?.filter(is_over) else { return Ok(()) };
    keep_evidence(table, task, attempt, holder, Report::Done(result), now).map(drop)
}

/// Whether the answer to this very report was lost: the task is done by this attempt, with this result.
fn is_repeated(task: &Task, attempt: Attempt, report: &Report) -> bool {
    let Report::Done(result) = report else { return false };
    task.state == TaskState::Done && task.attempt == attempt && task.result.as_ref() == Some(result)
}

/// Keeps a report of an attempt that this holder may have had. Who never had it is told the same.
fn keep_evidence<T: Table + ?Sized>(
    table: &mut T,
    mut task: Task,
    attempt: Attempt,
    holder: Holder,
    report: Report,
    now: WallTime,
) -> Result<Refusal, T::Error> {
    let refusal = stale(&task, attempt);
    let result = match report {
        Report::Done(result) | Report::Failed { result, .. } | Report::Cancelled(result) => result,
        Report::GivenBack | Report::Denied { .. } => return Ok(refusal),
    };
    table.put_evidence(task.id, &Evidence { at: now, attempt, holder, result })?;
    let (step, event) = stale_step(&task, attempt, holder, now);
    let steps = if task.steps < STEPS_MAX { vec![step] } else { Vec::new() };
    task.steps = task.steps.saturating_add(u32::from(!steps.is_empty()));
    table.put(&Decided { task, steps, events: vec![event] })?;
    Ok(refusal)
}

/// Ends a lease without a report. `None` when that attempt is over already.
pub fn lose<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    attempt: Attempt,
    how: Lost,
    now: WallTime,
) -> Result<Option<Task>, T::Error> {
    let Some(task) = table.task(id)?.filter(|task| task.attempt == attempt && task.lease.is_some()) else {
        return Ok(None);
    };
    change(table, &task, Command::Lose { attempt, how }, now).map(Some)
}

/// Asks for a task's end. Of one that is worked on the caller tells the worker.
///
/// # Errors
/// `not_found`; `conflict` when it has ended.
pub fn cancel<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    by: String,
    now: WallTime,
) -> Result<Task, T::Error> {
    let task = table.task(id)?.ok_or_else(|| not_found(id))?;
    change(table, &task, Command::Cancel { by }, now)
}

/// Has a task that came to nothing tried again.
///
/// # Errors
/// `not_found`; `conflict` when it is done or has not ended.
pub fn retry<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    by: String,
    now: WallTime,
) -> Result<Task, T::Error> {
    let task = table.task(id)?.ok_or_else(|| not_found(id))?;
    let waits_for = undone(table, &task.spec.after, task.owner)?;
    change(table, &task, Command::Retry { by, waits_for }, now)
}

/// Changes a task's priority.
///
/// # Errors
/// `not_found`; `conflict` when it has ended.
pub fn bump<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    by: String,
    priority: Priority,
    now: WallTime,
) -> Result<Task, T::Error> {
    let task = table.task(id)?.ok_or_else(|| not_found(id))?;
    change(table, &task, Command::Bump { by, priority }, now)
}

/// Wakes a task whose time has come; nothing when it is not scheduled any more.
pub fn wake<T: Table + ?Sized>(table: &mut T, id: TaskId, now: WallTime) -> Result<Option<Task>, T::Error> {
    let Some(task) = table.task(id)?.filter(|task| task.state == TaskState::Scheduled) else {
        return Ok(None);
    };
    change(table, &task, Command::Wake { dependency: false }, now).map(Some)
}

/// The time to start of a task is over; `may_wait` says that no node could have had it. Nothing when
/// it has started, or has more time again.
pub fn expire<T: Table + ?Sized>(
    table: &mut T,
    id: TaskId,
    may_wait: bool,
    now: WallTime,
) -> Result<Option<Task>, T::Error> {
    let is_due = |task: &Task| task.state == TaskState::Ready && task.expires_at.is_some_and(|at| at <= now);
    let Some(task) = table.task(id)?.filter(is_due) else { return Ok(None) };
    let command = if may_wait && task.spec.start_within_pauses { Command::Postpone } else { Command::Expire };
    change(table, &task, command, now).map(Some)
}

/// Decides, keeps it, and carries on what it means for others.
fn change<T: Table + ?Sized>(
    table: &mut T,
    before: &Task,
    command: Command,
    now: WallTime,
) -> Result<Task, T::Error> {
    let decided = decide(before, command, now)?;
    if decided.task != *before {
        table.put(&decided)?;
    }
    let after = decided.task;
    if after.state == TaskState::Done && before.state != TaskState::Done {
        for id in table.waiting_for(after.id)? {
            let Some(waiter) = table.task(id)? else { continue };
            let woken = decide(&waiter, Command::Wake { dependency: true }, now)?;
            table.put(&woken)?;
        }
    }
    let stood = |task: &Task| match task.state {
        TaskState::Leased => true,
        TaskState::Ready => !task.parked,
        TaskState::Scheduled
        | TaskState::Done
        | TaskState::Dead
        | TaskState::Cancelled
        | TaskState::Expired => false,
    };
    // It had the key, or stood for it in its lane, and does so no more, or in another lane.
    let gave_way = before.state == TaskState::Leased && after.state != TaskState::Leased;
    let went = (before.priority, &before.excluded) != (after.priority, &after.excluded);
    if let Some(concurrency) = &after.spec.concurrency
        && (gave_way || (stood(before) && !after.parked && (went || !stood(&after))))
    {
        let_others_stand(table, &concurrency.key, now)?;
    }
    Ok(after)
}

/// A concurrency key has room, or may have: of each lane, and in it of each limit, the next task that
/// waits for it stands for it again. One that finds it full is parked again by the claim that comes to it.
fn let_others_stand<T: Table + ?Sized>(table: &mut T, key: &str, now: WallTime) -> Result<(), T::Error> {
    for id in table.parked(key)? {
        let Some(task) = table.task(id)? else { continue };
        table.put(&decide(&task, Command::Park(false), now)?)?;
    }
    Ok(())
}

/// The refusal of a task that is not there, or is not the caller's.
pub fn not_found(id: TaskId) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no task {id}."))
        .hint("List the tasks with `cortex task ls` and use one of those ids.")
}
