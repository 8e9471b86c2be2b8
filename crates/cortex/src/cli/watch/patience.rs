//! How long a broken stream is tried again: for as long as the configuration allows since it last
//! gave something, with growing waits.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// First wait before another try.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait before another try.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What is left of it.
pub(crate) struct Patience {
    max: Duration,
    until: Instant,
    wait: Duration,
}

impl Patience {
    pub(crate) fn new(max: Duration) -> Self {
        Self { max, until: Instant::now() + max, wait: WAIT_MIN }
    }

    /// Waits before another try; `false` when there is to be none. The stream `progressed` when
    /// the last one gave something.
    pub(crate) async fn wait(&mut self, progressed: bool) -> bool {
        if progressed {
            *self = Self::new(self.max);
        }
        if Instant::now() + self.wait > self.until {
            return false;
        }
        sleep(self.wait).await;
        self.wait = (self.wait * 2).min(WAIT_MAX);
        true
    }
}
