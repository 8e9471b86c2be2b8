//! Use cases of the work pool: submit, look, steer; what nodes and other workers are given; and what
//! happens by the clock.
//!
//! Everything about tasks is decided in one transaction by `core::pool::desk`, over a table that tells
//! the board what was committed.

mod claims;
mod control;
mod deal;
mod explain;
mod nodes;
mod owners;
mod pauses;
mod reports;
pub mod retention;
mod schedules;
mod settle;
mod stats;
mod timers;
mod words;

use std::collections::BTreeSet;
use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::TaskId;
use cortex_core::limits::{IDEMPOTENCY_KEY_BYTES_MAX, PAGE_ITEMS_MAX, SUBMIT_TASKS_MAX};
use cortex_core::pool::desk::{self, New, Submitted, not_found};
use cortex_core::pool::quota::Room;
use cortex_core::pool::{Evidence, Owner, Priority, Step, Task, TaskSpec, Work};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::{Code, Refusal};
use cortex_store::{TaskFilter, Tx, WriteError};
use tokio::time::Instant;

use super::{Caller, Context};
use crate::board::Board;
use crate::clock::new_task_id;
use crate::mesh::Mesh;

pub use claims::Given;
pub use explain::Explained;
pub use reports::Report;
pub(crate) use reports::had;
pub use schedules::NewSchedule;
pub(crate) use settle::{came_late, settle};
pub use stats::{Kept, NodeShare, Stats};
pub(crate) use words::words;

/// Pages of tasks that one answer looks through for a caller that sees few of them.
const FOREIGN_PAGES_MAX: usize = 10;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    context: Context,
    board: Board,
    mesh: Mesh,
}

/// A task to be submitted.
#[derive(Clone, Debug)]
pub struct Submit {
    /// What.
    pub spec: TaskSpec,
    /// How soon.
    pub priority: Priority,
    /// The caller's key.
    pub key: Option<String>,
    /// W3C traceparent.
    pub traceparent: Option<String>,
    /// Not before then.
    pub due_at: Option<WallTime>,
}

/// A task with its story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Story {
    /// The task.
    pub task: Task,
    /// Its timeline, oldest first.
    pub steps: Vec<Step>,
    /// Reports that came too late.
    pub evidence: Vec<Evidence>,
}

impl Pool {
    /// The use cases over these.
    pub fn new(context: Context, mesh: Mesh) -> Self {
        Self { board: context.board.clone(), context, mesh }
    }

    /// Keeps tasks, in one commit. Each is answered on its own, in the order of the request.
    ///
    /// # Errors
    /// `too_large` for too many at once, `store_unavailable`; of single ones what
    /// [`desk::submit`] says, `invalid_argument`, `forbidden` and `quota`; `rate_limited` for a party that
    /// submits more at once than its share.
    pub async fn submit(
        &self,
        caller: &Caller,
        tasks: Vec<Submit>,
    ) -> Result<Vec<Result<Submitted, Refusal>>, Refusal> {
        caller.anywhere(Right::TasksSubmit)?;
        if tasks.is_empty() || tasks.len() > SUBMIT_TASKS_MAX {
            let message = format!("{} tasks at once; it must be 1 to {SUBMIT_TASKS_MAX}.", tasks.len());
            return Err(Refusal::new(Code::TooLarge, message).hint("Submit them in parts."));
        }
        let _share = self.board.shares().take(owner_of(caller).party(), tasks.len()).await?;
        let now = self.context.clock.wall();
        // Of tasks that are equal otherwise the lower id goes first: theirs are in the order of the request.
        let ids: BTreeSet<TaskId> = tasks.iter().map(|_| new_task_id(&self.context.clock)).collect();
        let checked: Vec<Result<New, Refusal>> =
            tasks.into_iter().zip(ids).map(|(task, id)| self.check(caller, task, id)).collect();
        let (pool, caller) = (self.clone(), caller.clone());
        let work = move |tx: &mut dyn Tx| {
            pool.context.still(&caller)?.anywhere(Right::TasksSubmit)?;
            let mut room = room(tx, &pool.board, owner_of(&caller))?;
            let put = |new| put(&pool.board, tx, new, &mut room, now);
            let submitted = checked.into_iter().map(put).collect::<Result<Vec<_>, WriteError>>()?;
            let new = submitted.iter().filter_map(|one| match one {
                Ok(Submitted::New(task)) => Some(task),
                Ok(Submitted::Known(_)) | Err(_) => None,
            });
            pool.hand_out(tx, new)?;
            Ok(submitted)
        };
        let submitted = self.context.commit(work, |_| ()).await;
        fail::fail_point!("hub::after_submit");
        submitted
    }

    fn check(&self, caller: &Caller, task: Submit, id: TaskId) -> Result<New, Refusal> {
        task.spec.check()?;
        if task.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
            let message = format!("The idempotency key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        may_have(caller, task.priority)?;
        Ok(New {
            id,
            spec: Arc::new(task.spec),
            priority: task.priority,
            owner: owner_of(caller),
            caller: caller.actor(),
            key: task.key,
            traceparent: task.traceparent,
            schedule: None,
            due_at: task.due_at,
        })
    }

    /// A task that the caller sees.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn get(&self, caller: &Caller, id: TaskId) -> Result<Task, Refusal> {
        let found = self.context.view(move |view| view.task(id)).await?;
        found.filter(|task| sees(caller, task)).ok_or_else(|| not_found(id))
    }

    /// A task with its timeline and what came too late.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn story(&self, caller: &Caller, id: TaskId) -> Result<Story, Refusal> {
        let read = move |view: &dyn cortex_store::Read| {
            let Some(task) = view.task(id)? else { return Ok(None) };
            Ok(Some(Story { task, steps: view.task_steps(id)?, evidence: view.task_evidence(id)? }))
        };
        let found = self.context.view(read).await?;
        found.filter(|story| sees(caller, &story.task)).ok_or_else(|| not_found(id))
    }

    /// The same once its timeline has more than `after` steps or it has ended, or when `until` has come.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn story_after(
        &self,
        caller: &Caller,
        id: TaskId,
        after: u32,
        until: Instant,
    ) -> Result<Story, Refusal> {
        // Before the first look, so that nothing is missed between two.
        let mut watched = self.board.watch(id);
        loop {
            let story = self.story(caller, id).await?;
            if story.task.steps > after || story.task.state.is_final() {
                return Ok(story);
            }
            tokio::select! {
                () = watched.changed() => {}
                () = tokio::time::sleep_until(until) => return Ok(story),
            }
        }
    }

    /// Tasks that the caller sees, newest first, and where the next page begins. Of an AI client a page may
    /// have fewer than `limit` and not be the last.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(
        &self,
        caller: &Caller,
        mut filter: TaskFilter,
        limit: usize,
    ) -> Result<(Vec<Task>, Option<TaskId>), Refusal> {
        let is_client = caller.token.kind == TokenKind::Client;
        if !caller.everywhere(Right::TasksRead) || is_client {
            filter.party = Some(owner_of(caller).party());
        }
        // An AI client does not see all of its person's.
        let size = if is_client { PAGE_ITEMS_MAX } else { limit + 1 };
        let mut seen = Vec::new();
        for _ in 0..FOREIGN_PAGES_MAX {
            let asked = filter.clone();
            let found = self.context.view(move |view| view.tasks(&asked, size)).await?;
            let is_last = found.len() < size;
            filter.before = found.last().map(|task| task.id);
            seen.extend(found.into_iter().filter(|task| sees(caller, task)));
            if seen.len() > limit {
                seen.truncate(limit);
                let next = seen.last().map(|task| task.id);
                return Ok((seen, next));
            }
            if is_last {
                return Ok((seen, None));
            }
        }
        Ok((seen, filter.before))
    }
}

/// The room that a party has.
fn room(tx: &dyn Tx, board: &Board, owner: Owner) -> Result<Room, WriteError> {
    Ok(board.quota().beside(tx.open_tasks(Some(owner.party()))?, tx.open_tasks(None)?))
}

fn put(
    board: &Board,
    tx: &mut dyn Tx,
    new: Result<New, Refusal>,
    room: &mut Room,
    now: WallTime,
) -> Result<Result<Submitted, Refusal>, WriteError> {
    let new = match new {
        Ok(new) => new,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = room.check()
        && !is_known(tx, &new)?
    {
        return Ok(Err(refusal));
    }
    let argv = match &new.spec.work {
        Work::Command(run) => run.argv.clone(),
        Work::Payload { .. } => Vec::new(),
    };
    let row = AuditRow {
        argv,
        token: new.owner.token,
        detail: Some(format!("task {}", new.id)),
        ..AuditRow::new(now, new.caller.clone(), "task.submit", Outcome::Allowed)
    };
    match desk::submit(&mut board.over(tx), new, now) {
        Ok(Submitted::New(task)) => {
            room.took();
            tx.append_audit(&row)?;
            Ok(Ok(Submitted::New(task)))
        }
        Ok(known) => Ok(Ok(known)),
        // Nothing was put then.
        Err(WriteError::Refused(refusal)) => Ok(Err(refusal)),
        Err(error) => Err(error),
    }
}

/// Whether an earlier submission had its key: it takes no room.
fn is_known(tx: &dyn Tx, new: &New) -> Result<bool, WriteError> {
    let Some(key) = &new.key else { return Ok(false) };
    Ok(tx.task_by_key(new.owner, key)?.is_some())
}

/// Whose a task is that this caller submits. A person's session ends before the work does.
pub(crate) fn owner_of(caller: &Caller) -> Owner {
    let is_session = caller.token.kind == TokenKind::Session && caller.token.user.is_some();
    Owner { token: (!is_session).then_some(caller.token.id), user: caller.token.user }
}

pub(crate) fn is_own(caller: &Caller, task: &Task) -> bool {
    let own = owner_of(caller);
    match caller.token.kind {
        // An AI client sees what it submitted itself, and not what its person did.
        TokenKind::Client => task.owner == own,
        TokenKind::Api | TokenKind::Session => task.owner.party() == own.party(),
    }
}

fn sees(caller: &Caller, task: &Task) -> bool {
    let sees_all = caller.token.kind != TokenKind::Client && caller.everywhere(Right::TasksRead);
    sees_all || is_own(caller, task)
}

/// Refuses the priority that is the administration's.
fn may_have(caller: &Caller, priority: Priority) -> Result<(), Refusal> {
    if priority == Priority::URGENT && !caller.everywhere(Right::PoolAdmin) {
        let message = format!("`{}` may give priorities up to 8; 9 is for administrators.", caller.actor());
        return Err(Refusal::new(Code::Forbidden, message).hint("Choose a priority of 0 to 8."));
    }
    Ok(())
}
