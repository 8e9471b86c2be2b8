//! Ended runs go when they are too old or too many, and their output with them.
//!
//! The file goes first, then the row. A crash in between leaves a row whose output is told as lost
//! and which the next look removes; the other way round it would leave a file that nobody knows of,
//! to be found only by comparing every file with the store.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::RunId;
use cortex_core::retention::{Due, Kept};
use cortex_store::{StoreExt as _, Tx};
use tokio_util::sync::CancellationToken;

use super::{Runs, STORE_DEADLINE};
use crate::service::write_refusal;

/// Runs that go at once.
const BATCH: usize = 256;
/// Wait when runs are due that cannot go yet: their last output is on its way to the disk.
const SOON: Duration = Duration::from_secs(10);

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// So many went; there may be more.
    Removed(usize),
    /// Nothing is left to do for this long, or until this many have ended.
    Idle(Duration, u64),
}

impl Runs {
    /// Keeps the ended runs within `kept` until `shutdown`. Sleeps until the next one is due.
    ///
    /// # Errors
    /// What store or disk say; what did not go is looked at again.
    pub async fn run_retention(&self, kept: Kept, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            let head = self.context.bus.head();
            let Looked::Idle(wait, room) = self.retain(kept, &shutdown).await? else { continue };
            self.context.sleep_until_due(head, (wait, room), &shutdown).await;
        }
        Ok(())
    }

    /// Removes what is beyond `kept`, batch by batch, until `stop`.
    ///
    /// # Errors
    /// What store or disk say.
    pub async fn retain(&self, kept: Kept, stop: &CancellationToken) -> Result<Looked, Refusal> {
        // Once for all batches: a count takes as long as there are runs.
        let mut ended = self.context.view(|view| view.ended_count()).await?;
        let mut removed = 0;
        loop {
            match self.remove_batch(kept, ended).await? {
                Looked::Removed(gone) => {
                    removed += gone;
                    ended = ended.saturating_sub(gone as u64);
                }
                // Others have ended in the meantime.
                Looked::Idle(..) if removed > 0 => return Ok(Looked::Removed(removed)),
                idle @ Looked::Idle(..) => return Ok(idle),
            }
            if stop.is_cancelled() {
                return Ok(Looked::Removed(removed));
            }
        }
    }

    async fn remove_batch(&self, kept: Kept, ended: u64) -> Result<Looked, Refusal> {
        let oldest = self.context.view(|view| view.ended_runs(BATCH)).await?;
        let due = match kept.due(ended, oldest, self.context.clock.both()) {
            Due::Now(due) => due,
            Due::Later { wait_ms, room } => return Ok(Looked::Idle(Duration::from_millis(wait_ms), room)),
        };
        let free: Vec<RunId> = due.into_iter().filter(|run| self.mesh.live(*run).is_none()).collect();
        if free.is_empty() {
            return Ok(Looked::Idle(SOON, u64::MAX));
        }
        self.logs.remove(&free).await?;
        let work = move |tx: &mut dyn Tx| Ok(tx.remove_runs(&free)?);
        let gone = self.context.store.write(STORE_DEADLINE, work).await.map_err(write_refusal)?;
        tracing::debug!(gone, "ended runs were removed");
        if gone == 0 {
            return Ok(Looked::Idle(SOON, u64::MAX));
        }
        Ok(Looked::Removed(gone))
    }
}
