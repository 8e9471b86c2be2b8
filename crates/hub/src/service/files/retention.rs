//! What came of an operation goes when it is too old, or when there are too many, and its key with it.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::OpId;
use cortex_core::limits::{FILE_OPS_KEPT_MAX, FILE_OPS_KEPT_MS, RUNS_AGE_AFTER_MS};
use cortex_core::retention::Kept;
use cortex_core::time::WallTime;
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
        loop {
            let look = |view: &dyn cortex_store::Read| {
                Ok((view.ended_file_op_count()?, view.ended_file_ops(BATCH)?))
            };
            let (ended, oldest) = self.context.view(look).await?;
            let clocks = self.context.clock.both();
            let ends: Vec<WallTime> = oldest.iter().map(|(_, end)| *end).collect();
            let due = kept.beyond(ended, &ends, clocks);
            if due == 0 || stop.is_cancelled() {
                let wait = Duration::from_millis(kept.wait_ms(ends.first().copied(), clocks));
                return Ok((wait, kept.room(ended)));
            }
            let ids: Vec<OpId> = oldest.into_iter().take(due).map(|(id, _)| id).collect();
            let work = move |tx: &mut dyn Tx| Ok(tx.remove_file_ops(&ids)?);
            self.context.commit(work, |_| ()).await?;
        }
    }
}
