//! What workers that are no nodes say of their attempts, by the number of each: the fence on nodes holds
//! on them.

use cortex_core::id::{Attempt, TaskId, TokenId};
use cortex_core::limits::{
    CLAIM_TASKS_MAX, LEASE_MS_MAX, LEASE_MS_MIN, PROGRESS_NOTE_BYTES_MAX, RESULT_BYTES_MAX,
    TASK_TEXT_BYTES_MAX,
};
use cortex_core::pool::desk::{self, not_found};
use cortex_core::pool::{Holder, Said, Step, StepKind, Task, TaskResult};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{PoolRead, Read, StoreError, Tx, WriteError};

use super::Pool;
use crate::board::Board;
use crate::clock::random;
use crate::service::Caller;

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
pub(crate) fn had<R: PoolRead + ?Sized>(
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
