//! The pace of one transfer, as its caller bounds it.

use std::time::Duration;

use cortex_core::limits::CARRY_DATA_BYTES_MAX;
use tokio::time::Instant;

/// Shortest piece, bytes.
const PIECE_BYTES_MIN: u64 = 1_024;

/// Bytes per second.
#[derive(Debug)]
pub(crate) struct Pace {
    /// `None`: as fast as it goes.
    rate: Option<u64>,
    /// When the next piece may go.
    next: Instant,
}

impl Pace {
    /// At most so many bytes per second, above 0.
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.filter(|rate| *rate > 0), next: Instant::now() }
    }

    /// Bytes that go at once: at a slow pace less, so that a piece is on its way for a moment only.
    pub(crate) fn piece(&self) -> usize {
        let most = CARRY_DATA_BYTES_MAX;
        let of = |rate: u64| usize::try_from((rate / 4).max(PIECE_BYTES_MIN)).unwrap_or(most).min(most);
        self.rate.map_or(most, of)
    }

    /// Waits until so many bytes may go.
    pub(crate) async fn take(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        tokio::time::sleep_until(self.next).await;
        let takes = Duration::from_secs_f64(bytes as f64 / rate as f64);
        // What was not used before is not saved up.
        self.next = self.next.max(Instant::now()) + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_bytes_go_in_a_second_also_after_a_rest() {
        let mut pace = Pace::new(Some(100_000));
        assert_eq!(pace.piece(), 25_000);
        let began = Instant::now();
        for _ in 0..9 {
            pace.take(25_000).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(2));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        for _ in 0..5 {
            pace.take(25_000).await;
        }
        assert_eq!(began.elapsed(), Duration::from_secs(1), "nothing was saved up");
        let mut free = Pace::new(None);
        free.take(usize::MAX).await;
        assert_eq!((free.piece(), Pace::new(Some(1)).piece()), (CARRY_DATA_BYTES_MAX, 1_024));
    }
}
