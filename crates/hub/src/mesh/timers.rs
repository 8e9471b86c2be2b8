//! What the mesh does by the clock: graces that end, take-over windows, `last_seen` written
//! behind. Each sleeps until its next moment; nothing ticks.

use std::collections::BTreeMap;
use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::NodeId;
use cortex_core::limits::STORE_MS_MAX;
use cortex_core::time::{Timestamp, WallTime};
use cortex_store::StoreExt;
use tokio_util::sync::CancellationToken;

use super::{Mesh, lock};
use crate::service::write_refusal;

/// Nodes in one write of `last_seen`.
const SEEN_BATCH_MAX: usize = 1_000;

impl Mesh {
    /// Serves the timers of all nodes until `shutdown`. One of these must run.
    ///
    /// # Errors
    /// None; the type is that of a worker.
    pub async fn run_timers(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        loop {
            let next = self.next_timer();
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(self.inner.context.clock.instant(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = self.inner.timers_changed.notified() => {}
                () = sleep => self.fire_timers(),
            }
        }
    }

    /// Writes when nodes were last heard: those that are here, and those that left since the last
    /// call. An observation, to be called once a minute.
    ///
    /// # Errors
    /// `store_unavailable`; the next call writes it anew.
    pub async fn flush_last_seen(&self) -> Result<(), Refusal> {
        let left = std::mem::take(&mut *lock(&self.inner.left));
        let written = self.write_last_seen(left.clone()).await;
        if written.is_err() {
            let mut newer = lock(&self.inner.left);
            for (node, heard) in left {
                newer.entry(node).or_insert(heard);
            }
        }
        written
    }

    async fn write_last_seen(&self, mut seen: BTreeMap<NodeId, Timestamp>) -> Result<(), Refusal> {
        seen.extend(lock(&self.inner.present).links.iter().map(|(node, link)| (*node, link.heard())));
        let (now, wall) = (self.inner.context.clock.now(), self.inner.context.clock.wall());
        let rows: Vec<(NodeId, WallTime)> =
            seen.iter().map(|(node, heard)| (*node, ago(wall, now.ms_since(*heard)))).collect();
        for batch in rows.chunks(SEEN_BATCH_MAX) {
            let batch = batch.to_vec();
            let written = self.inner.context.store.write(Duration::from_millis(STORE_MS_MAX), move |tx| {
                tx.observe_nodes(&batch)?;
                Ok(())
            });
            written.await.map_err(write_refusal)?;
        }
        Ok(())
    }

    fn next_timer(&self) -> Option<Timestamp> {
        let graces = lock(&self.inner.timers).first().map(|(at, _)| *at);
        let takeovers = lock(&self.inner.present).registry.poll_timeout().map(|(at, _)| at);
        graces.into_iter().chain(takeovers).min()
    }

    fn fire_timers(&self) {
        let now = self.inner.context.clock.now();
        lock(&self.inner.present).registry.handle_timeout(now);
        let due: Vec<NodeId> =
            lock(&self.inner.timers).iter().take_while(|(at, _)| *at <= now).map(|(_, node)| *node).collect();
        for node in due {
            self.inner.with_slot(node, |slot, state| {
                state.runs.handle_timeout(now);
                state.files.machine.handle_timeout(now);
                self.inner.act(slot, state);
            });
        }
    }
}

fn ago(wall: WallTime, ms: u64) -> WallTime {
    WallTime(wall.0.saturating_sub_unsigned(ms))
}
