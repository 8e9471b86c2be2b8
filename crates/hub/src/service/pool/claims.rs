//! Claims of workers that are no nodes: payloads by kind, over the API. Who waits leaves its claim to
//! whoever makes something ready, and what nobody takes out of a claim is given back.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::{Attempt, LaneId, TaskId};
use cortex_core::limits::{CLAIM_TASKS_MAX, CLAIM_WAIT_MS_MAX};
use cortex_core::lock::Locks;
use cortex_core::pool::desk::{self, Take};
use cortex_core::pool::lane::{LaneKey, Lanes, unlocked};
use cortex_core::pool::{Holder, Kind, Lost, Task, TaskState};
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use cortex_store::{PoolRead, Tx, WriteError};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Pool;
use super::owners::{Owners, let_in_again};
use crate::board::{Asking, LeftClaim};
use crate::service::outcome::write_surely;
use crate::service::{Caller, STORE_DEADLINE};

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
            if Instant::now() >= until {
                return Ok(given);
            }
            let (left, mut handed) = self.leave(&asking, caller, &kinds, max);
            tokio::select! {
                biased;
                handed = &mut handed => match handed {
                    Ok(given) => return Ok(got(given)),
                    Err(_) => continue,
                },
                () = asking.woken() => {}
                () = let_in_again(&self.context, &mut seen) => {}
                () = tokio::time::sleep_until(until) => {}
            }
            // What somebody's transaction is about to give is waited for.
            if !left.take_back()
                && let Ok(Ok(given)) = tokio::time::timeout(STORE_DEADLINE, handed).await
            {
                return Ok(got(given));
            }
        }
    }

    /// Leaves the claim for whoever makes a payload of these kinds ready: what it is given comes with the
    /// commit of that. Nothing comes when that is not committed, or there was nothing for this caller.
    fn leave<'a>(
        &self,
        asking: &'a Asking,
        caller: &Caller,
        kinds: &[Kind],
        max: usize,
    ) -> (LeftClaim<'a>, oneshot::Receiver<Given>) {
        let (tell, told) = oneshot::channel();
        let (pool, caller, kinds, given) = (self.clone(), caller.clone(), kinds.to_vec(), self.given(caller));
        let claim = move |tx: &mut dyn Tx, fresh: &Lanes| {
            let is_able = pool.context.still(&caller).and_then(|caller| caller.anywhere(Right::PoolWork));
            if is_able.is_err() {
                // Who waits asks again, and is told so.
                return Ok(None);
            }
            let given = pool.fill(tx, given, &pool.payloads(&kinds, fresh), max)?;
            let taken = given.tasks.len();
            if taken > 0 {
                tx.after_commit(Box::new(move || {
                    given.is_kept.set(true);
                    drop(tell.send(given));
                }));
            }
            Ok(Some(taken))
        };
        (asking.leave(Box::new(claim)), told)
    }

    /// Carries out claims that waiting workers left, for tasks that this transaction makes ready.
    pub(super) fn hand_out<'t>(
        &self,
        tx: &mut dyn Tx,
        ready: impl IntoIterator<Item = &'t Task>,
    ) -> Result<(), WriteError> {
        let (mut fresh, mut waits) = (BTreeMap::new(), BTreeMap::new());
        for task in ready {
            let kind = task.spec.work.kind();
            if task.state != TaskState::Ready || kind.is_command() || self.board.asking(kind.as_str()) == 0 {
                continue;
            }
            *waits.entry(kind).or_insert(0_usize) += 1;
            let key = task.lane();
            if let Some(lane) = PoolRead::lane(tx, &key)? {
                fresh.insert(lane, Arc::new(key));
            }
        }
        let fresh: Lanes = fresh.into_iter().collect();
        let mut room = CLAIM_TASKS_MAX;
        for (kind, mut count) in waits {
            while count > 0
                && room > 0
                && let Some(claim) = self.board.left_claim(kind.as_str())
            {
                let Some(taken) = claim(tx, &fresh)? else { continue };
                if taken == 0 {
                    // What is left cannot be had, such as of a key that is full: the others go on waiting.
                    break;
                }
                (count, room) = (count.saturating_sub(taken), room.saturating_sub(taken));
            }
        }
        Ok(())
    }

    /// Claims until something was given or nothing is left: one claim passes over so many tasks and no more.
    async fn claim_all(&self, caller: &Caller, kinds: &[Kind], max: usize) -> Result<Given, Refusal> {
        loop {
            let lanes = self.payloads(kinds, &Lanes::new());
            if lanes.is_empty() {
                return Ok(self.given(caller));
            }
            let given = self.claim_of(caller, lanes, max).await?;
            if !given.is_empty() {
                return Ok(given);
            }
        }
    }

    /// Lanes of these kinds of which something may be handed out, and those of `fresh`.
    fn payloads(&self, kinds: &[Kind], fresh: &Lanes) -> Lanes {
        let mut owners = Owners::new(&self.context, self.context.clock.wall());
        let pauses = self.board.pauses();
        let stands = |key: &LaneKey| pauses.iter().any(|pause| pause.part.holds_lane(key));
        let mut lanes = self.board.ready();
        let known: BTreeSet<LaneId> = lanes.iter().map(|(id, _)| *id).collect();
        lanes.extend(fresh.iter().filter(|(id, _)| !known.contains(id)).cloned());
        lanes.retain(|(_, key)| kinds.contains(&key.kind) && !stands(key) && owners.get(key.owner).is_ok());
        lanes
    }

    /// None so far.
    fn given(&self, caller: &Caller) -> Given {
        let holder = Holder::Worker { token: caller.token.id };
        let (pool, runtime) = (self.clone(), Handle::current());
        Given { pool, runtime, holder, tasks: Vec::new(), is_kept: Cell::new(false) }
    }

    /// A worker that goes away meanwhile leaves no lease behind: see [`Given`].
    async fn claim_of(&self, caller: &Caller, lanes: Lanes, max: usize) -> Result<Given, Refusal> {
        let (pool, caller, given) = (self.clone(), caller.clone(), self.given(caller));
        let work = move |tx: &mut dyn Tx| {
            pool.context.still(&caller)?.anywhere(Right::PoolWork)?;
            pool.fill(tx, given, &lanes, max)
        };
        Ok(got(self.context.commit(work, |given: &Given| given.is_kept.set(true)).await?))
    }

    /// Claims up to `max` tasks of these lanes.
    fn fill(
        &self,
        tx: &mut dyn Tx,
        mut given: Given,
        lanes: &Lanes,
        max: usize,
    ) -> Result<Given, WriteError> {
        let now = self.context.clock.wall();
        let lanes = unlocked(lanes, &Locks::new(tx.locks()?), now);
        let mut take = |_: &Task| Take::By(given.holder);
        given.tasks = self.board.over(tx).claim(&lanes, max, now, &mut take)?;
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
}

/// What is committed, on its way to the worker.
fn got(given: Given) -> Given {
    if !given.is_empty() {
        fail::fail_point!("hub::after_worker_claim");
    }
    given
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
