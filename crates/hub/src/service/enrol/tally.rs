//! How many refused joins the audit log takes: each has its row up to a bound per minute, and one
//! row stands for the rest of the minute. Whoever has many addresses must not fill the log.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cortex_core::limits::{JOIN_FAILURES_WINDOW_MS, JOIN_REFUSALS_AUDITED_MAX};
use cortex_core::time::Timestamp;
use tokio::sync::Notify;

/// The current minute.
#[derive(Debug, Default)]
pub(super) struct Tally {
    minute: Mutex<Minute>,
    /// A minute has refusals without a row.
    over: Notify,
}

#[derive(Debug, Default)]
struct Minute {
    since: Timestamp,
    rows: usize,
    more: u64,
}

impl Tally {
    /// Counts a refusal: whether it has a row of its own.
    pub(super) fn count(&self, now: Timestamp) -> bool {
        let mut minute = self.lock();
        if minute.since.plus_ms(JOIN_FAILURES_WINDOW_MS) <= now && minute.more == 0 {
            *minute = Minute { since: now, ..Minute::default() };
        }
        if minute.rows < JOIN_REFUSALS_AUDITED_MAX {
            minute.rows += 1;
            return true;
        }
        minute.more = minute.more.saturating_add(1);
        self.over.notify_one();
        false
    }

    /// Waits for a minute with refusals that have no row, and says when it ends.
    pub(super) async fn over(&self) -> Timestamp {
        self.over.notified().await;
        self.lock().since.plus_ms(JOIN_FAILURES_WINDOW_MS)
    }

    /// Ends the minute: how many had no row.
    pub(super) fn end(&self, now: Timestamp) -> u64 {
        let ended = std::mem::replace(&mut *self.lock(), Minute { since: now, ..Minute::default() });
        ended.more
    }

    fn lock(&self) -> MutexGuard<'_, Minute> {
        self.minute.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_a_bounded_number_of_rows_and_a_count_of_the_rest() {
        let tally = Tally::default();
        let rows = (0..5_000).filter(|_| tally.count(Timestamp(7))).count();
        assert_eq!(rows, JOIN_REFUSALS_AUDITED_MAX);
        assert_eq!(tally.end(Timestamp(60_007)), 5_000 - JOIN_REFUSALS_AUDITED_MAX as u64);
        assert!(tally.count(Timestamp(60_008)));
        assert_eq!(tally.end(Timestamp(60_009)), 0);
    }

    #[test]
    fn a_minute_without_a_rest_ends_by_itself() {
        let tally = Tally::default();
        for minute in 0..3 {
            let at = Timestamp(minute * JOIN_FAILURES_WINDOW_MS);
            assert!((0..JOIN_REFUSALS_AUDITED_MAX).all(|_| tally.count(at)), "minute {minute}");
        }
    }
}
