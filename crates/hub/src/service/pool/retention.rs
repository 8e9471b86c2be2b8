//! Ended tasks go when they are too old or too many, with their timelines and what came too late. One that
//! others still wait for stays: they would wait for ever.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::TaskId;
use cortex_core::limits::{RUNS_AGE_AFTER_MS, TASKS_KEPT_MAX, TASKS_KEPT_MS};
use cortex_core::retention::{Due, Kept};
use cortex_core::time::WallTime;
use cortex_store::{Read, StoreError, Tx};
use tokio_util::sync::CancellationToken;

use super::Pool;

/// Tasks that go at once.
const BATCH: usize = 256;
/// Wait when what is due cannot go yet.
const SOON: Duration = Duration::from_secs(600);

/// How long ended tasks are kept.
pub const KEPT: Kept = Kept { ms: TASKS_KEPT_MS, max: TASKS_KEPT_MAX, age_after_ms: RUNS_AGE_AFTER_MS };

impl Pool {
    /// Keeps the ended tasks within `kept` until `shutdown`. Sleeps until the next one is due.
    ///
    /// # Errors
    /// What the store says; what did not go is looked at again.
    pub async fn run_retention(&self, kept: Kept, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            let head = self.context.bus.head();
            let due = self.retain(kept, &shutdown).await?;
            self.context.sleep_until_due(head, due, &shutdown).await;
        }
        Ok(())
    }

    /// Removes what is beyond `kept`, until `stop`. Returns how long nothing more is due, and how many may
    /// end until then.
    ///
    /// # Errors
    /// What the store says.
    pub async fn retain(&self, kept: Kept, stop: &CancellationToken) -> Result<(Duration, u64), Refusal> {
        while !stop.is_cancelled() {
            let (ended, oldest) = self.context.view(oldest).await?;
            let ids = match kept.due(ended, oldest, self.context.clock.both()) {
                Due::Now(ids) => ids,
                Due::Later { wait_ms, room } => return Ok((Duration::from_millis(wait_ms), room)),
            };
            let work = move |tx: &mut dyn Tx| {
                let mut free = Vec::new();
                for id in ids {
                    if tx.waiting_for(id)?.is_empty() {
                        free.push(id);
                    }
                }
                Ok(tx.remove_tasks(&free)?)
            };
            if self.context.commit(work, |_| ()).await? == 0 {
                return Ok((SOON, u64::MAX));
            }
        }
        Ok((Duration::ZERO, 0))
    }
}

/// How many tasks have ended, and those that ended first.
fn oldest(view: &dyn Read) -> Result<(u64, Vec<(TaskId, WallTime)>), StoreError> {
    let counts = view.task_counts()?;
    let ended = counts.iter().filter(|(state, _)| state.is_final()).map(|(_, count)| count).sum();
    Ok((ended, view.ended_tasks(BATCH)?))
}
