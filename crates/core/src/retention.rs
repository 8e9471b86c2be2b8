//! How long ended runs are kept: by age and by number. A run that has not ended is not counted
//! here, and never goes.

use crate::limits::{RUNS_KEPT_MAX, RUNS_KEPT_MS};
use crate::time::WallTime;

/// The two bounds; what is beyond one of them goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Time from a run's end to its removal, milliseconds.
    pub ms: u64,
    /// Ended runs at once.
    pub max: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { ms: RUNS_KEPT_MS, max: RUNS_KEPT_MAX }
    }
}

impl Kept {
    /// How many go of `oldest`, the ends of the runs that ended first, oldest first, out of
    /// `ended` in all: always the first ones.
    pub fn beyond(&self, ended: u64, oldest: &[WallTime], now: WallTime) -> usize {
        let too_old = oldest.iter().take_while(|end| end.plus_ms(self.ms) <= now).count();
        let too_many = usize::try_from(ended.saturating_sub(self.max)).unwrap_or(usize::MAX);
        too_old.max(too_many).min(oldest.len())
    }

    /// Milliseconds until the run that ended first is too old; the whole span when there is none.
    pub fn wait_ms(&self, oldest: Option<WallTime>, now: WallTime) -> u64 {
        let Some(end) = oldest else { return self.ms };
        u64::try_from(end.plus_ms(self.ms).0.saturating_sub(now.0)).unwrap_or(0)
    }

    /// How many more may end before there are too many.
    pub const fn room(&self, ended: u64) -> u64 {
        self.max.saturating_sub(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept { ms: 100, max: 3 };

    fn ends(times: &[i64]) -> Vec<WallTime> {
        times.iter().map(|at| WallTime(*at)).collect()
    }

    #[test]
    fn runs_go_when_they_are_as_old_as_the_bound_and_not_before() {
        let ends = ends(&[10, 20, 30]);
        for (now, gone) in [(109, 0), (110, 1), (119, 1), (130, 3), (i64::MAX, 3)] {
            assert_eq!(KEPT.beyond(3, &ends, WallTime(now)), gone, "{now}");
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_however_young_they_are() {
        let ends = ends(&[10, 10, 11, 12, 13]);
        assert_eq!(KEPT.beyond(5, &ends, WallTime(13)), 2);
        assert_eq!(KEPT.beyond(5, &ends[..1], WallTime(13)), 1, "one batch at a time");
        assert_eq!(KEPT.beyond(3, &ends[..3], WallTime(13)), 0);
    }

    #[test]
    fn the_wait_ends_when_the_first_run_is_due() {
        assert_eq!(KEPT.wait_ms(Some(WallTime(10)), WallTime(30)), 80);
        assert_eq!(KEPT.beyond(1, &ends(&[10]), WallTime(30 + 80)), 1);
        assert_eq!(KEPT.beyond(1, &ends(&[10]), WallTime(30 + 79)), 0);
        assert_eq!(KEPT.wait_ms(Some(WallTime(10)), WallTime(500)), 0);
        assert_eq!(KEPT.wait_ms(None, WallTime(500)), 100);
        assert_eq!((KEPT.room(1), KEPT.room(9)), (2, 0));
    }
}
