//! Workers that are no nodes: they claim payloads by kind over the API, and report by the number of
//! their attempt. The same fence holds on them.

use std::time::Duration;

use cortex_core::id::{Attempt, TaskId};
use cortex_core::limits::{CLAIM_TASKS_MAX, CLAIM_WAIT_MS_MAX, RESULT_BYTES_MAX, TASK_TEXT_BYTES_MAX};
use cortex_core::lock::Locks;
use cortex_core::pool::desk::{self, Take, not_found};
use cortex_core::pool::lane::{Lanes, unlocked};
use cortex_core::pool::{Holder, Kind, Task, TaskResult};
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use cortex_store::{PoolRead, Tx};
use tokio::time::Instant;

use super::Pool;
use super::owners::Owners;
use crate::clock::random;
use crate::service::Caller;

/// Kinds that one claim asks for.
const KINDS_MAX: usize = 16;

/// What a claim gave.
pub type Given = Vec<Task>;

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
        loop {
            let lanes = self.payloads(&kinds);
            if !lanes.is_empty() {
                let given = self.claim_of(caller, lanes, max).await?;
                if !given.is_empty() {
                    asking.pass_on();
                    return Ok(given);
                }
            }
            tokio::select! {
                () = asking.woken() => {}
                () = tokio::time::sleep_until(until) => return Ok(Vec::new()),
            }
        }
    }

    fn payloads(&self, kinds: &[Kind]) -> Lanes {
        let mut owners = Owners::new(&self.context, self.context.clock.wall());
        let ready = self.board.ready().into_iter().filter(|(_, key)| kinds.contains(&key.kind));
        ready.filter(|(_, key)| owners.get(key.owner).is_ok()).collect()
    }

    async fn claim_of(&self, caller: &Caller, lanes: Lanes, max: usize) -> Result<Given, Refusal> {
        let (now, context, caller) = (self.context.clock.wall(), self.context.clone(), caller.clone());
        let asked = lanes.clone();
        let work = move |tx: &mut dyn Tx| {
            context.still(&caller)?.anywhere(Right::PoolWork)?;
            let lanes = unlocked(&lanes, &Locks::new(tx.locks()?), now);
            let mut turns = context.board.turns();
            let mut take = |_: &Task| Take::By(Holder::Worker { token: caller.token.id });
            desk::claim(&mut context.board.over(tx), &lanes, &mut turns, max, now, &mut take)
        };
        let claimed = self.context.commit(work, |_| ()).await;
        if claimed.is_err() {
            self.board.not_claimed(asked);
        }
        claimed
    }

    /// The worker is still at it: its lease has its whole length again. Nothing is written: after a
    /// restart of the hub it has that anyway.
    ///
    /// # Errors
    /// `forbidden`, `stale_attempt`.
    pub fn extend(&self, caller: &Caller, id: TaskId, attempt: Attempt) -> Result<(), Refusal> {
        caller.anywhere(Right::PoolWork)?;
        self.board.extend(id, attempt, Holder::Worker { token: caller.token.id }, None)
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
        caller.anywhere(Right::PoolWork)?;
        let report = bounded(report)?;
        let (now, board, token) = (self.context.clock.wall(), self.board.clone(), caller.token.id);
        let holder = Holder::Worker { token };
        let work = move |tx: &mut dyn Tx| {
            let task = PoolRead::task(tx, id)?.filter(|task| !task.spec.work.kind().is_command());
            let task = task.ok_or_else(|| not_found(id))?;
            let of_others = task.attempt == attempt && task.lease.is_some_and(|lease| lease.holder != holder);
            if of_others || attempt == Attempt(0) || attempt > task.attempt {
                return Err(not_found(id).into());
            }
            desk::report(&mut board.over(tx), id, attempt, holder, report, now)
        };
        self.context.commit(work, |_| ()).await?
    }
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
