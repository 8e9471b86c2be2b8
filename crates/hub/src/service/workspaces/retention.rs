//! What the history of a workspace comes to: of what is old, or beyond the number that is kept, the last
//! revision of each day stays. A workspace that was removed goes with its history when that is as old.

use std::collections::BTreeSet;
use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::{Revision, WorkspaceId};
use cortex_core::workspace::history::Kept;
use cortex_store::Tx;
use tokio_util::sync::CancellationToken;

use super::Workspaces;

/// Between two looks. A workspace may have as many revisions more as are made within it.
const EVERY: Duration = Duration::from_secs(600);
/// Revisions, or workspaces, that go in one transaction.
const BATCH: usize = 256;

impl Workspaces {
    /// Keeps all histories within `kept` until `shutdown`.
    ///
    /// # Errors
    /// What the store says; what did not go is looked at again.
    pub async fn run_history(&self, kept: Kept, shutdown: CancellationToken) -> Result<(), Refusal> {
        while !shutdown.is_cancelled() {
            let gone = self.thin(kept, &shutdown).await?;
            if gone > 0 {
                tracing::info!(gone, "revisions of workspaces were thinned out");
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = shutdown.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Removes what is beyond `kept`, until `stop`, and returns how many revisions that were. None that the
    /// row of a member names, and no head.
    ///
    /// # Errors
    /// What the store says.
    pub async fn thin(&self, kept: Kept, stop: &CancellationToken) -> Result<usize, Refusal> {
        let context = &self.0.context;
        let ids = self.0.roster().ids();
        let mut gone = 0;
        for id in ids {
            let rows = context.view(move |view| view.revision_times(id)).await?;
            let beyond = kept.beyond(&rows, context.clock.both());
            for batch in beyond.chunks(BATCH) {
                if stop.is_cancelled() {
                    return Ok(gone);
                }
                let batch = batch.to_vec();
                let work = move |tx: &mut dyn Tx| Ok(remove(tx, id, batch)?);
                gone += context.commit(work, |_| ()).await?;
            }
        }
        let removed = context.view(|view| view.removed_workspaces(BATCH)).await?;
        for (id, at) in removed {
            if stop.is_cancelled() || !kept.is_over(at, context.clock.both()) {
                break;
            }
            context.commit(move |tx: &mut dyn Tx| Ok(tx.remove_workspace(id)?), |_| ()).await?;
        }
        Ok(gone)
    }
}

/// Those that a member names stay, as the rows of this transaction say.
fn remove(
    tx: &mut dyn Tx,
    id: WorkspaceId,
    mut beyond: Vec<Revision>,
) -> Result<usize, cortex_store::StoreError> {
    let members = tx.members_of(id)?;
    let named: BTreeSet<Revision> = members.iter().flat_map(|member| member.revisions()).collect();
    beyond.retain(|n| !named.contains(n));
    tx.remove_revisions(id, &beyond)
}
