//! Workers that are no nodes: they claim payloads by kind over the API, and report by the number of
//! their attempt. The same fence holds on them.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::{Attempt, TaskId, TokenId};
use cortex_core::limits::{
    CLAIM_TASKS_MAX, CLAIM_WAIT_MS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, PROGRESS_NOTE_BYTES_MAX,
    RESULT_BYTES_MAX, TASK_TEXT_BYTES_MAX,
};
use cortex_core::lock::Locks;
use cortex_core::pool::desk::{self, Take, not_found};
use cortex_core::pool::lane::{LaneKey, Lanes, unlocked};
use cortex_core::pool::{Holder, Kind, Lost, Said, Step, StepKind, Task, TaskResult};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{PoolRead, Read, StoreError, Tx, WriteError};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Pool;
use super::owners::{Owners, let_in_again};
use crate::board::Board;
use crate::clock::random;
use crate::service::Caller;
use crate::service::outcome::write_surely;

/// Kinds that one claim asks for.
const KINDS_MAX: usize = 16;

/// What a claim gave. What nobody takes out of it, since the worker went away while the claim was
/// stored, is given back at once; what was taken out and never arrived is left to its lease.
pub struct Given {
    pool: Pool,
    runtime: Handle,
    holder: Holder,
    tasks: Vec<Task>,
    /// The claim was committed: before, there is nothing to give back.
    is_kept: Cell<bool>,
}

impl Given {
    /// The tasks, for the answer to the worker.
    #[must_use]
    pub fn take(mut self) -> Vec<Task> {
        std::mem::take(&mut self.tasks)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let tasks = std::mem::take(&mut self.tasks);
        if !tasks.is_empty() && self.is_kept.get() {
            // The thread may be the store's. When the hub is ending, nothing of it is done, and the leases
            // end by themselves after its restart.
            let _runtime = self.runtime.enter();
            let pool = self.pool.clone();
            drop(self.pool.mesh.spawn(async move { pool.give_back(tasks).await }));
        }
    }
}

/// What a worker says of its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The work is done.
    Done(TaskResult),
    /// It failed; whether trying again would not help.
    Failed(TaskResult, bool),
    /// The worker gives it back.
    GivenBack,
}

impl Pool {
    /// Up to `max` payloads of these kinds; waits for the first as long as `wait_ms` when there is
    /// none. Needs `pool:work`.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`, `unauthenticated` when the token ended meanwhile,
    /// `store_unavailable`.
    pub async fn claim(
        &self,
        caller: &Caller,
        kinds: Vec<Kind>,
        max: usize,
        wait_ms: u64,
    ) -> Result<Given, Refusal> {
        caller.anywhere(Right::PoolWork)?;
        check(&kinds, max, wait_ms)?;
        let asking = self.board.ask(kinds.iter().map(|kind| kind.as_str().to_owned()).collect());
        let until = Instant::now() + Duration::from_millis(wait_ms);
        let mut seen = self.context.directory.principals();
        loop {
            // Before the look, so that what changes during it is looked at again.
            seen.borrow_and_update();
            let given = self.claim_all(caller, &kinds, max).await?;
            if !given.is_empty() {
                asking.pass_on();
                return Ok(given);
            }
            tokio::select! {
                () = asking.woken() => {}
                () = let_in_again(&self.context, &mut seen) => {}
                () = tokio::time::sleep_until(until) => return Ok(given),
            }
        }
    }

    /// Claims until something was given or nothing is left: one claim passes over so many tasks and no more.
    async fn claim_all(&self, caller: &Caller, kinds: &[Kind], max: usize) -> Result<Given, Refusal> {
        loop {
            let lanes = self.payloads(kinds);
            if lanes.is_empty() {
                return Ok(self.given(caller));
            }
            let given = self.claim_of(caller, lanes, max).await?;
            if !given.is_empty() {
                return Ok(given);
            }
        }
    }

    fn payloads(&self, kinds: &[Kind]) -> Lanes {
        let mut owners = Owners::new(&self.context, self.context.clock.wall());
        let pauses = self.board.pauses();
        let stands = |key: &LaneKey| pauses.iter().any(|pause| pause.part.holds_lane(key));
        let ready = self.board.ready().into_iter();
        let ready = ready.filter(|(_, key)| kinds.contains(&key.kind) && !stands(key));
        ready.filter(|(_, key)| owners.get(key.owner).is_ok()).collect()
    }

    /// None so far.
    fn given(&self, caller: &Caller) -> Given {
        let holder = Holder::Worker { token: caller.token.id };
        let (pool, runtime) = (self.clone(), Handle::current());
        Given { pool, runtime, holder, tasks: Vec::new(), is_kept: Cell::new(false) }
    }

    /// A worker that goes away meanwhile leaves no lease behind: see [`Given`].
    async fn claim_of(&self, caller: &Caller, lanes: Lanes, max: usize) -> Result<Given, Refusal> {
        let (now, context, caller) = (self.context.clock.wall(), self.context.clone(), caller.clone());
        let mut given = self.given(&caller);
        let work = move |tx: &mut dyn Tx| {
            context.still(&caller)?.anywhere(Right::PoolWork)?;
            let lanes = unlocked(&lanes, &Locks::new(tx.locks()?), now);
            let mut take = |_: &Task| Take::By(given.holder);
            given.tasks = context.board.over(tx).claim(&lanes, max, now, &mut take)?;
            Ok(given)
        };
        let given = self.context.commit(work, |given: &Given| given.is_kept.set(true)).await?;
        if !given.is_empty() {
            fail::fail_point!("hub::after_worker_claim");
        }
        Ok(given)
    }

    /// Tried until it is stored: nobody else would do it, and the leases may be long ones.
    async fn give_back(&self, tasks: Vec<Task>) {
        let attempts: Arc<[(TaskId, Attempt)]> = tasks.iter().map(|task| (task.id, task.attempt)).collect();
        let (store, stop) = (&self.context.store, self.mesh.stopping());
        let given = write_surely(store, &stop, "what a worker that went away had claimed", || {
            let (attempts, board, now) =
                (Arc::clone(&attempts), self.board.clone(), self.context.clock.wall());
            move |tx: &mut dyn Tx| {
                let table = &mut board.over(tx);
                attempts.iter().try_for_each(|(id, attempt)| {
                    desk::lose(table, *id, *attempt, Lost::GivenBack, now).map(drop)
                })
            }
        });
        if given.await.is_none() {
            tracing::warn!("tasks whose worker went away wait for the end of their leases");
        }
    }

    /// The worker is still at it: its lease has its whole length again, or the one that is given. That
    /// alone is written nowhere: after a restart of the hub it has the length of its task anyway. How far
    /// it is, when it says so, is kept. Says whether somebody asks for the task's end.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument` for a length out of bounds, `too_large` for a note that is too long,
    /// `not_found` for what this worker never had, `stale_attempt` when the attempt is over.
    pub async fn extend(
        &self,
        caller: &Caller,
        id: TaskId,
        attempt: Attempt,
        ms: Option<u64>,
        said: Option<Said>,
    ) -> Result<bool, Refusal> {
        caller.anywhere(Right::PoolWork)?;
        if ms.is_some_and(|ms| !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&ms)) {
            let message = format!("A lease has {LEASE_MS_MIN} to {LEASE_MS_MAX} milliseconds.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        let note = said.as_ref().and_then(|said| said.note.as_ref());
        if note.is_some_and(|note| note.len() > PROGRESS_NOTE_BYTES_MAX) {
            let message = format!("A note on progress has at most {PROGRESS_NOTE_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::TooLarge, message).hint("Say less, or write it to a log."));
        }
        let token = caller.token.id;
        let extended = self.board.extend(id, attempt, Holder::Worker { token }, ms);
        if let Some(said) = said.filter(|_| extended.is_ok()) {
            return self.keep_progress(id, attempt, token, said).await;
        }
        let look = move |view: &dyn Read| {
            let task = view.task(id)?;
            let had = task.is_some() && had(view, id, attempt, token)?;
            Ok(task.filter(|_| had))
        };
        let task = self.context.view(look).await?.ok_or_else(|| not_found(id))?;
        extended.inspect_err(|_| self.board.refused_stale())?;
        Ok(task.cancelled_by.is_some())
    }

    /// Keeps how far an attempt is that has its lease, and says whether somebody asks for its end.
    async fn keep_progress(
        &self,
        id: TaskId,
        attempt: Attempt,
        token: TokenId,
        said: Said,
    ) -> Result<bool, Refusal> {
        let (now, board, holder) = (self.context.clock.wall(), self.board.clone(), Holder::Worker { token });
        let work = move |tx: &mut dyn Tx| desk::progress(&mut board.over(tx), id, attempt, holder, said, now);
        Ok(self.context.commit(work, |_| ()).await?.cancelled_by.is_some())
    }

    /// Takes a worker's report.
    ///
    /// # Errors
    /// `forbidden`, `too_large`, `not_found` for what this worker cannot have, `stale_attempt` when
    /// the attempt is over: what it brought is kept as evidence then.
    pub async fn report(
        &self,
        caller: &Caller,
        id: TaskId,
        attempt: Attempt,
        report: Report,
    ) -> Result<Task, Refusal> {
        let mut answers = self.reports(caller, vec![(id, attempt, report)]).await?;
        answers.pop().ok_or_else(|| Refusal::new(Code::Internal, "A report was not answered."))?
    }

    /// Takes reports of a worker in one transaction. Each is answered on its own, in their order, as
    /// [`Pool::report`] does.
    ///
    /// # Errors
    /// `forbidden`; `invalid_argument` for none or more than [`CLAIM_TASKS_MAX`]; `too_large` for one of
    /// them, when none was taken; `store_unavailable`.
    pub async fn reports(
        &self,
        caller: &Caller,
        reports: Vec<(TaskId, Attempt, Report)>,
    ) -> Result<Vec<Result<Task, Refusal>>, Refusal> {
        caller.anywhere(Right::PoolWork)?;
        if reports.is_empty() || reports.len() > CLAIM_TASKS_MAX {
            let message = format!("1 to {CLAIM_TASKS_MAX} reports are taken at once.");
            return Err(Refusal::new(Code::InvalidArgument, message).hint("Send the others after it."));
        }
        let bound = |(id, attempt, report)| Ok((id, attempt, bounded(report)?));
        let reports = reports.into_iter().map(bound).collect::<Result<Vec<_>, Refusal>>()?;
        let (now, board, token) = (self.context.clock.wall(), self.board.clone(), caller.token.id);
        let work = move |tx: &mut dyn Tx| {
            let take = |(id, attempt, report)| take(tx, &board, token, (id, attempt, report), now);
            reports.into_iter().map(take).collect::<Result<Vec<_>, WriteError>>()
        };
        fail::fail_point!("hub::before_report");
        let reported = self.context.commit(work, |_| ()).await;
        fail::fail_point!("hub::after_report");
        reported
    }
}

/// One report. What this worker never had is refused as not there, and nothing is written.
fn take(
    tx: &mut dyn Tx,
    board: &Board,
    token: TokenId,
    (id, attempt, report): (TaskId, Attempt, desk::Report),
    now: WallTime,
) -> Result<Result<Task, Refusal>, WriteError> {
    let holder = Holder::Worker { token };
    let Some(task) = PoolRead::task(tx, id)? else { return Ok(Err(not_found(id))) };
    if !desk::has(&task, attempt, holder) && !had(tx, id, attempt, token)? {
        return Ok(Err(not_found(id)));
    }
    let gives_back = report == desk::Report::GivenBack;
    let taken = desk::report_on(&mut board.over(tx), task, attempt, holder, report, now)?;
    if gives_back && taken.is_err() {
        // Nothing is kept of it that would be counted.
        let board = board.clone();
        tx.after_commit(Box::new(move || board.refused_stale()));
    }
    Ok(taken)
}

/// Whether a worker with this token was ever given this attempt. To whom it was not, the task is not there
/// (ABUSE 64).
fn had<R: PoolRead + ?Sized>(
    view: &R,
    id: TaskId,
    attempt: Attempt,
    token: TokenId,
) -> Result<bool, StoreError> {
    let token = token.to_string();
    let is_it = |step: &Step| {
        step.kind == StepKind::Leased && step.attempt == attempt && step.actor.as_deref() == Some(&token)
    };
    Ok(view.task_steps(id)?.iter().any(is_it))
}

fn check(kinds: &[Kind], max: usize, wait_ms: u64) -> Result<(), Refusal> {
    if kinds.is_empty() || kinds.len() > KINDS_MAX || kinds.iter().any(Kind::is_command) {
        let message = format!("A claim names 1 to {KINDS_MAX} kinds of payloads.");
        return Err(Refusal::new(Code::InvalidArgument, message)
            .hint("Name the kinds that this worker understands; commands are for nodes."));
    }
    if max == 0 || max > CLAIM_TASKS_MAX || wait_ms > CLAIM_WAIT_MS_MAX {
        let message =
            format!("A claim takes 1 to {CLAIM_TASKS_MAX} tasks and waits at most {CLAIM_WAIT_MS_MAX} ms.");
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(())
}

fn bounded(report: Report) -> Result<desk::Report, Refusal> {
    let check = |result: TaskResult| {
        let text = result.message.as_ref().map_or(0, String::len);
        if result.output.len() > RESULT_BYTES_MAX || text > TASK_TEXT_BYTES_MAX {
            let message = format!(
                "A result has at most {RESULT_BYTES_MAX} bytes, and its message {TASK_TEXT_BYTES_MAX}."
            );
            return Err(
                Refusal::new(Code::TooLarge, message).hint("Put the data elsewhere, and report where it is.")
            );
        }
        Ok(result)
    };
    Ok(match report {
        Report::Done(result) => desk::Report::Done(check(result)?),
        Report::Failed(result, is_final) => {
            let chance = u64::from_le_bytes(random());
            desk::Report::Failed { result: check(result)?, is_final, chance }
        }
        Report::GivenBack => desk::Report::GivenBack,
    })
}
