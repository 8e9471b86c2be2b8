//! What happens in the pool by the clock: leases end, due tasks become ready, what did not start in
//! its time expires. Sleeps until the next of these.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::{Attempt, TaskId};
use cortex_core::pool::Lost;
use cortex_core::pool::room::sleep_ms;
use cortex_core::pool::{Holder, Task, desk};
use cortex_core::time::Timestamp;
use cortex_store::{PoolRead, Read, Tx};
use tokio_util::sync::CancellationToken;

use super::Pool;

/// Tasks of one transaction.
const BATCH: usize = 256;
/// Wait after the store failed.
const RETRY: Duration = Duration::from_secs(1);

impl Pool {
    /// Serves the clock until `shutdown`. One of these must run.
    ///
    /// # Errors
    /// None: what the store could not do is tried again.
    pub async fn run_timers(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            // What comes while this looks is told, and looked at again.
            self.board.plan_timers(Timestamp(u64::MAX));
            let wait = match self.serve_timers().await {
                Ok(wait) => wait,
                Err(refusal) => {
                    tracing::error!(%refusal, "what is due in the pool waits on");
                    RETRY
                }
            };
            let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            self.board.plan_timers(self.context.clock.now().plus_ms(ms));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.board.timer_change() => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Does what is due, and says how long nothing more is.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn serve_timers(&self) -> Result<Duration, Refusal> {
        for (task, attempt) in self.board.ended_leases() {
            self.end_lease(task, attempt).await?;
        }
        while self.wake_due().await? == BATCH {}
        while self.expire_due().await? == BATCH {}
        while self.tick_due().await? > 0 {}
        self.drain_due().await?;
        self.until_next().await
    }

    /// A lease that nobody extended: the task is for others, and a node that comes back with it is told
    /// to end it.
    async fn end_lease(&self, id: TaskId, attempt: Attempt) -> Result<(), Refusal> {
        let (board, now) = (self.board.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let holder = PoolRead::task(tx, id)?.and_then(|task| task.lease).map(|lease| lease.holder);
            let lost = desk::lose(&mut board.over(tx), id, attempt, Lost::Expired, now)?;
            Ok(lost.and(holder))
        };
        fail::fail_point!("hub::before_end_lease");
        let holder = self.context.commit(work, |_| ()).await?;
        fail::fail_point!("hub::after_end_lease");
        if let Some(Holder::Node { node, run }) = holder {
            self.mesh.give_up(node, run, "The lease of its task ended; the task was given to others.");
        }
        Ok(())
    }

    async fn wake_due(&self) -> Result<usize, Refusal> {
        let now = self.context.clock.wall();
        let due = self.context.view(move |view| view.tasks_due(now, BATCH)).await?;
        self.each(due, move |table, id| desk::wake(table, id, now).map(drop)).await
    }

    async fn expire_due(&self) -> Result<usize, Refusal> {
        let now = self.context.clock.wall();
        let due = self.context.view(move |view| view.tasks_expiring(now, BATCH)).await?;
        let nodes = self.context.directory.nodes();
        let could = move |task: &Task| {
            !task.spec.work.kind().is_command()
                || nodes.iter().any(|node| task.lane().suits(node.id, &node.labels))
        };
        self.each(due, move |table, id| {
            let Some(task) = PoolRead::task(table.tx, id)? else { return Ok(()) };
            desk::expire(table, id, !could(&task), now).map(drop)
        })
        .await
    }

    /// Does this with each, in one transaction.
    async fn each(
        &self,
        ids: Vec<TaskId>,
        work: impl Fn(&mut crate::board::Noted<'_>, TaskId) -> Result<(), cortex_store::WriteError>
        + Send
        + 'static,
    ) -> Result<usize, Refusal> {
        let count = ids.len();
        if count == 0 {
            return Ok(0);
        }
        let board = self.board.clone();
        let all = move |tx: &mut dyn Tx| {
            let table = &mut board.over(tx);
            ids.into_iter().try_for_each(|id| work(table, id))
        };
        fail::fail_point!("hub::before_due");
        self.context.commit(all, |()| ()).await?;
        fail::fail_point!("hub::after_due");
        Ok(count)
    }

    async fn until_next(&self) -> Result<Duration, Refusal> {
        let read = |view: &dyn Read| Ok([view.next_due()?, view.next_expiry()?, view.next_tick()?]);
        let stored = self.context.view(read).await?;
        let (wall, now) = (self.context.clock.wall(), self.context.clock.now());
        let by_wall = stored.into_iter().flatten().chain(self.board.next_drain());
        Ok(Duration::from_millis(sleep_ms(by_wall, wall, self.board.next_lease(), now)))
    }
}
