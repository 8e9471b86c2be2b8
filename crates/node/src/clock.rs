//! The two clocks of a node. The only place that reads them.

use std::time::{Duration, Instant, SystemTime};

use cortex_core::time::{Timestamp, WallTime};

/// Monotonic time since the node's start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Begins at zero.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// This moment.
    pub(crate) fn now(self) -> Timestamp {
        Timestamp(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment at which `at` has surely come: timestamps are cut to the millisecond.
    pub(crate) fn instant(self, at: Timestamp) -> tokio::time::Instant {
        // Thirty years from now stands for a moment that never comes.
        let ms = at.0.min(1_000_000_000_000);
        tokio::time::Instant::from_std(self.origin + Duration::from_millis(ms))
    }
}

/// The wall clock, for what has a date: certificates and grants.
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
