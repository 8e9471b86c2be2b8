//! What came of an operation goes when it is too old, or when there are too many, and its key with it.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::limits::{FILE_OPS_KEPT_MAX, FILE_OPS_KEPT_MS, RUNS_AGE_AFTER_MS};
use cortex_core::retention::{Due, Kept};
use cortex_store::Tx;
use tokio_util::sync::CancellationToken;

use super::Files;

/// Operations that go at once.
const BATCH: usize = 256;

/// How long ended operations are kept.
pub const KEPT: Kept = Kept { ms: FILE_OPS_KEPT_MS, max: FILE_OPS_KEPT_MAX, age_after_ms: RUNS_AGE_AFTER_MS };

impl Files {
    /// Keeps the ended operations within `kept` until `shutdown`. Sleeps until the next one is due.
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
            let look = |view: &dyn cortex_store::Read| {
                Ok((view.ended_file_op_count()?, view.ended_file_ops(BATCH)?))
            };
            let (ended, oldest) = self.context.view(look).await?;
            let ids = match kept.due(ended, oldest, self.context.clock.both()) {
                Due::Now(ids) => ids,
                Due::Later { wait_ms, room } => return Ok((Duration::from_millis(wait_ms), room)),
            };
            let work = move |tx: &mut dyn Tx| Ok(tx.remove_file_ops(&ids)?);
            self.context.commit(work, |_| ()).await?;
        }
        Ok((Duration::ZERO, 0))
    }
}
