//! What workers that remove what has ended have in common: how long they sleep.

use std::time::Duration;

use cortex_core::id::Seq;
use tokio_util::sync::CancellationToken;

use super::Context;

/// Once there is no room for more, events between two looks: each end is one at least. So many may be
/// kept beyond the bound.
const LOOK_EVERY: u64 = 10_000;

impl Context {
    /// Sleeps until what was looked at when the log's head was `head` is due: for `wait`, or until `room`
    /// more may have ended, or until `shutdown`.
    pub(super) async fn sleep_until_due(
        &self,
        head: Seq,
        (wait, room): (Duration, u64),
        shutdown: &CancellationToken,
    ) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.bus.reached(Seq(head.0.saturating_add(room.max(LOOK_EVERY)))) => {}
            () = shutdown.cancelled() => {}
        }
    }
}
