//! How much of the history of a workspace is kept: the newest revisions all, of older ones the last of
//! each day. Numbers are never given again, so a gap in them is a revision that was thinned out. As with
//! runs, a wall clock that jumps ahead makes no revision older.

use std::collections::BTreeSet;

use crate::id::Revision;
use crate::limits::{REVISIONS_KEPT_MAX, REVISIONS_KEPT_MS, RUNS_AGE_AFTER_MS};
use crate::retention::Clocks;
use crate::time::WallTime;

const DAY_MS: i64 = 24 * 3_600 * 1_000;

/// The bounds; of what is beyond either one, the last of each day stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Newest revisions that stay.
    pub max: u64,
    /// Age up to which they stay, milliseconds.
    pub ms: u64,
    /// Time that the hub must have lived before age counts, milliseconds.
    pub age_after_ms: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { max: REVISIONS_KEPT_MAX, ms: REVISIONS_KEPT_MS, age_after_ms: RUNS_AGE_AFTER_MS }
    }
}

impl Kept {
    /// Which of `rows` go, out of all that one workspace has, oldest first. Never the last row, which is
    /// the head. Days are those of UTC.
    pub fn beyond(&self, rows: &[(Revision, WallTime)], clocks: Clocks) -> Vec<Revision> {
        let now = clocks.agreed();
        let may_be_old = clocks.lived_ms >= self.age_after_ms;
        let max = usize::try_from(self.max).unwrap_or(usize::MAX).max(1);
        let many = rows.len().saturating_sub(max);
        let mut days = BTreeSet::new();
        let mut gone = Vec::new();
        for (index, (n, at)) in rows.iter().enumerate().rev() {
            let is_head = index + 1 == rows.len();
            let is_old = may_be_old && at.plus_ms(self.ms) <= now;
            if !is_head && (index < many || is_old) && !days.insert(at.0.div_euclid(DAY_MS)) {
                gone.push(*n);
            }
        }
        gone.reverse();
        gone
    }
}

impl Kept {
    /// Whether a workspace that was removed then goes with all its rows.
    pub fn is_over(&self, removed_at: WallTime, clocks: Clocks) -> bool {
        clocks.lived_ms >= self.age_after_ms && removed_at.plus_ms(self.ms) <= clocks.agreed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept { max: 4, ms: 10 * DAY_MS as u64, age_after_ms: 100 };

    fn rows(days: &[(i64, i64)]) -> Vec<(Revision, WallTime)> {
        let at = |(day, hour): &(i64, i64)| WallTime(day * DAY_MS + hour * 3_600_000);
        (1..).map(Revision).zip(days.iter().map(at)).collect()
    }

    fn on_day(day: i64) -> Clocks {
        Clocks { wall: WallTime(day * DAY_MS), began: WallTime(0), lived_ms: (day * DAY_MS).unsigned_abs() }
    }

    fn gone(days: &[(i64, i64)], clocks: Clocks) -> Vec<u64> {
        KEPT.beyond(&rows(days), clocks).into_iter().map(|n| n.0).collect()
    }

    #[test]
    fn of_what_is_too_old_the_last_of_each_day_stays() {
        let days = [(1, 1), (1, 2), (1, 3), (2, 1)];
        assert_eq!(gone(&days, on_day(11)), [] as [u64; 0], "none is older than ten days");
        assert_eq!(gone(&days, on_day(12)), [1, 2]);
        assert_eq!(gone(&days[..3], on_day(99)), [1], "the head stays, and the last of the others");
    }

    #[test]
    fn of_what_is_beyond_the_number_the_last_of_each_day_stays() {
        let days = [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (2, 6)];
        assert_eq!(gone(&days, on_day(3)), [1, 3], "four newest, and the last of each day of the rest");
        assert_eq!(gone(&[], on_day(3)), [] as [u64; 0]);
    }

    #[test]
    fn what_was_thinned_is_not_thinned_further() {
        let all = rows(&[(1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (2, 4), (2, 5), (40, 6)]);
        let gone = KEPT.beyond(&all, on_day(40));
        assert!(!gone.is_empty());
        let left: Vec<_> = all.into_iter().filter(|(n, _)| !gone.contains(n)).collect();
        assert_eq!(KEPT.beyond(&left, on_day(40)), []);
    }

    #[test]
    fn a_removed_workspace_goes_after_the_time_for_which_revisions_are_kept() {
        let removed = WallTime(DAY_MS);
        assert!(!KEPT.is_over(removed, on_day(10)));
        assert!(KEPT.is_over(removed, on_day(11)));
        assert!(!KEPT.is_over(removed, Clocks { lived_ms: 99, ..on_day(11) }), "the hub has just begun");
    }

    #[test]
    fn a_clock_that_jumps_makes_no_revision_old() {
        let days = [(1, 1), (1, 2), (1, 3), (1, 4)];
        let jumped = Clocks { wall: WallTime(999 * DAY_MS), began: WallTime(DAY_MS), lived_ms: 1_000 };
        assert_eq!(gone(&days, jumped), [] as [u64; 0]);
        let young = Clocks { began: jumped.wall, lived_ms: 99, ..jumped };
        assert_eq!(gone(&days, young), [] as [u64; 0], "the hub has just begun, with a clock to be checked");
        assert_eq!(gone(&days, Clocks { lived_ms: 100, ..young }), [1, 2]);
    }
}
