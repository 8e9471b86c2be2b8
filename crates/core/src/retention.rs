//! How long ended runs are kept: by age and by number. A run that has not ended is not counted
//! here, and never goes. A wall clock that jumps ahead makes no run older: what is removed for its
//! age is so old also by the time that this hub lived.

use crate::limits::{RUNS_AGE_AFTER_MS, RUNS_KEPT_MAX, RUNS_KEPT_MS};
use crate::time::WallTime;

/// The bounds; what is beyond age or number goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Time from a run's end to its removal, milliseconds.
    pub ms: u64,
    /// Ended runs at once.
    pub max: u64,
    /// Time that the hub must have lived before any run goes for its age, milliseconds.
    pub age_after_ms: u64,
}

/// What the clocks of a hub say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The wall clock, which may jump.
    pub wall: WallTime,
    /// What the wall clock said when the hub began.
    pub began: WallTime,
    /// Monotonic time since then, milliseconds.
    pub lived_ms: u64,
}

impl Clocks {
    /// The time by which things grow old. No jump of the wall clock moves it ahead; one that goes back
    /// may have been wrong before.
    pub(crate) fn agreed(&self) -> WallTime {
        self.wall.min(self.began.plus_ms(self.lived_ms))
    }
}

impl Default for Kept {
    fn default() -> Self {
        Self { ms: RUNS_KEPT_MS, max: RUNS_KEPT_MAX, age_after_ms: RUNS_AGE_AFTER_MS }
    }
}

/// What is to be done about what has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due<I> {
    /// These go.
    Now(Vec<I>),
    /// Nothing, for so long or until so many more have ended.
    Later {
        /// Milliseconds.
        wait_ms: u64,
        /// How many more may end.
        room: u64,
    },
}

impl Kept {
    /// What goes of `oldest`, those that ended first with their ends, oldest first, out of `ended` in all.
    pub fn due<I>(&self, ended: u64, oldest: Vec<(I, WallTime)>, clocks: Clocks) -> Due<I> {
        let ends: Vec<WallTime> = oldest.iter().map(|(_, end)| *end).collect();
        match self.beyond(ended, &ends, clocks) {
            0 => Due::Later { wait_ms: self.wait_ms(ends.first().copied(), clocks), room: self.room(ended) },
            due => Due::Now(oldest.into_iter().take(due).map(|(id, _)| id).collect()),
        }
    }

    /// How many go of `oldest`, the ends of the runs that ended first, oldest first, out of
    /// `ended` in all: always the first ones.
    fn beyond(&self, ended: u64, oldest: &[WallTime], clocks: Clocks) -> usize {
        let may_be_old = clocks.lived_ms >= self.age_after_ms;
        let now = clocks.agreed();
        let too_old = oldest.iter().take_while(|end| may_be_old && end.plus_ms(self.ms) <= now).count();
        let too_many = usize::try_from(ended.saturating_sub(self.max)).unwrap_or(usize::MAX);
        too_old.max(too_many).min(oldest.len())
    }

    /// Milliseconds until the run that ended first is too old; the whole span when there is none.
    fn wait_ms(&self, oldest: Option<WallTime>, clocks: Clocks) -> u64 {
        let Some(end) = oldest else { return self.ms };
        let left = end.plus_ms(self.ms).0.saturating_sub(clocks.agreed().0);
        u64::try_from(left).unwrap_or(0).max(self.age_after_ms.saturating_sub(clocks.lived_ms))
    }

    /// How many more may end before there are too many.
    const fn room(&self, ended: u64) -> u64 {
        self.max.saturating_sub(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: Kept = Kept { ms: 100, max: 3, age_after_ms: 0 };

    fn ends(times: &[i64]) -> Vec<WallTime> {
        times.iter().map(|at| WallTime(*at)).collect()
    }

    /// Clocks that agree, of a hub that began at 0.
    fn at(now: i64) -> Clocks {
        Clocks { wall: WallTime(now), began: WallTime(0), lived_ms: u64::try_from(now).expect("later") }
    }

    #[test]
    fn runs_go_when_they_are_as_old_as_the_bound_and_not_before() {
        let ends = ends(&[10, 20, 30]);
        for (now, gone) in [(109, 0), (110, 1), (119, 1), (130, 3), (i64::MAX, 3)] {
            assert_eq!(KEPT.beyond(3, &ends, at(now)), gone, "{now}");
        }
    }

    #[test]
    fn a_clock_that_jumps_removes_nothing_and_what_is_old_by_both_clocks_goes() {
        let ends = ends(&[1_010, 1_020]);
        for (what, wall, began, lived_ms, gone) in [
            ("both agree that the first is old", 1_110, 1_000, 110, 1),
            ("both agree that both are", 1_120, 1_000, 120, 2),
            ("the wall clock jumped ahead", 9_999, 1_000, 109, 0),
            ("and the first grew old by the other", 9_999, 1_000, 110, 1),
            ("it was ahead when the hub began and was set back", 1_109, 9_000, 500, 0),
            ("and the first grew old by it", 1_110, 9_000, 501, 1),
            ("it was behind when the hub began and was set right", 1_120, 0, 400, 0),
            ("the hub began when both were old", 2_000, 1_900, 100, 2),
            ("it has not lived for long enough to believe that", 1_999, 1_900, 99, 0),
        ] {
            let kept = Kept { age_after_ms: 100, ..KEPT };
            let clocks = Clocks { wall: WallTime(wall), began: WallTime(began), lived_ms };
            assert_eq!(kept.beyond(2, &ends, clocks), gone, "{what}");
            assert_eq!(kept.beyond(5, &ends, clocks), 2, "the number needs no clock: {what}");
            let wait_ms = i64::try_from(kept.wait_ms(ends.first().copied(), clocks)).expect("a span");
            assert_eq!(wait_ms == 0, gone > 0, "{what}");
            let later = Clocks {
                wall: WallTime(wall + wait_ms),
                lived_ms: lived_ms + wait_ms.unsigned_abs(),
                ..clocks
            };
            assert!(kept.beyond(2, &ends, later) > 0, "the wait is long enough: {what}");
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_however_young_they_are() {
        let ends = ends(&[10, 10, 11, 12, 13]);
        assert_eq!(KEPT.beyond(5, &ends, at(13)), 2);
        assert_eq!(KEPT.beyond(5, &ends[..1], at(13)), 1, "one batch at a time");
        assert_eq!(KEPT.beyond(3, &ends[..3], at(13)), 0);
    }

    #[test]
    fn what_goes_is_named_and_else_it_is_said_until_when_nothing_does() {
        let ended = |now, in_all| KEPT.due(in_all, vec![("a", WallTime(10)), ("b", WallTime(20))], at(now));
        assert_eq!(ended(110, 2), Due::Now(vec!["a"]));
        assert_eq!(ended(30, 5), Due::Now(vec!["a", "b"]), "there are too many");
        assert_eq!(ended(30, 2), Due::Later { wait_ms: 80, room: 1 });
        assert_eq!(KEPT.due::<u8>(0, Vec::new(), at(30)), Due::Later { wait_ms: 100, room: 3 });
    }

    #[test]
    fn the_wait_ends_when_the_first_run_is_due() {
        assert_eq!(KEPT.wait_ms(Some(WallTime(10)), at(30)), 80);
        assert_eq!(KEPT.beyond(1, &ends(&[10]), at(30 + 80)), 1);
        assert_eq!(KEPT.beyond(1, &ends(&[10]), at(30 + 79)), 0);
        assert_eq!(KEPT.wait_ms(Some(WallTime(10)), at(500)), 0);
        assert_eq!(KEPT.wait_ms(None, at(500)), 100);
        assert_eq!((KEPT.room(1), KEPT.room(9)), (2, 0));
    }
}
