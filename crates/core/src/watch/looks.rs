//! When a folder is looked at again: a machine on the hub's monotonic clock.

use crate::limits::{LOOK_PAUSE_MS_MAX, LOOK_PAUSE_MS_MIN, LOOK_SETTLE_MS};
use crate::time::Timestamp;

/// The looks at one folder. A change that is told makes a look due when no other follows, and not more often than
/// after a pause, which grows while changes go on: a folder that changes all the time costs bounded work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// When whatever was done with the folder ended; `None` before the first time.
    ended: Option<Timestamp>,
    /// Somebody wants one at once.
    wanted: bool,
    /// The first and the newest change of which the last look may know nothing.
    changed: Option<(Timestamp, Timestamp)>,
    pause_ms: u64,
}

impl Looks {
    /// Somebody wants it looked at, whatever was told.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// A change was told.
    pub fn changed(&mut self, now: Timestamp) {
        self.changed.get_or_insert((now, now)).1 = now;
    }

    /// When the next look is due, when one that nobody asks for comes `every_ms`.
    pub fn due(&self, every_ms: u64) -> Timestamp {
        let Some(ended) = self.ended.filter(|_| !self.wanted) else { return Timestamp(0) };
        let by_time = ended.plus_ms(every_ms);
        match self.changed {
            Some((first, newest)) => {
                let at_rest = newest.plus_ms(LOOK_SETTLE_MS).min(first.plus_ms(LOOK_PAUSE_MS_MAX));
                by_time.min(at_rest.max(ended.plus_ms(self.pause_ms())))
            }
            None => by_time,
        }
    }

    /// A look begins: what changes from here on makes another one due.
    pub fn begun(&mut self) {
        let goes_on = self.ended.zip(self.changed).is_some_and(|(ended, (first, _))| {
            // It was there before the pause was over.
            first <= ended.plus_ms(self.pause_ms())
        });
        self.pause_ms =
            if goes_on { (self.pause_ms() * 2).min(LOOK_PAUSE_MS_MAX) } else { LOOK_PAUSE_MS_MIN };
        (self.changed, self.wanted) = (None, false);
    }

    /// It has ended, or another step that touched the folder.
    pub fn ended(&mut self, now: Timestamp) {
        self.ended = Some(now);
    }

    fn pause_ms(&self) -> u64 {
        self.pause_ms.max(LOOK_PAUSE_MS_MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: u64 = 600_000;

    /// A folder that was looked at up to `now`.
    fn looked_at(now: u64) -> Looks {
        let mut looks = Looks::default();
        looks.begun();
        looks.ended(Timestamp(now));
        looks
    }

    #[test]
    fn one_that_nobody_has_looked_at_is_due_and_then_by_its_time() {
        assert_eq!(Looks::default().due(EVERY), Timestamp(0));
        assert_eq!(looked_at(1_000).due(EVERY), Timestamp(1_000 + EVERY));
    }

    #[test]
    fn a_change_makes_it_due_when_no_other_follows_and_what_comes_during_a_look_makes_another() {
        let mut looks = looked_at(1_000);
        looks.changed(Timestamp(90_000));
        assert_eq!(looks.due(EVERY), Timestamp(90_000 + LOOK_SETTLE_MS));
        looks.changed(Timestamp(90_200));
        assert_eq!(looks.due(EVERY), Timestamp(90_200 + LOOK_SETTLE_MS), "it goes on");
        looks.begun();
        looks.changed(Timestamp(90_600));
        looks.ended(Timestamp(90_700));
        assert_eq!(looks.due(EVERY), Timestamp(90_700 + LOOK_PAUSE_MS_MIN));
        looks.begun();
        looks.ended(Timestamp(92_000));
        assert_eq!(looks.due(EVERY), Timestamp(92_000 + EVERY), "it is at rest");
    }

    #[test]
    fn what_takes_long_without_a_pause_is_looked_at_all_the_same() {
        let (mut looks, mut now) = (looked_at(0), 100_000);
        while looks.due(EVERY) > Timestamp(now) {
            looks.changed(Timestamp(now));
            now += 200;
        }
        assert_eq!(looks.due(EVERY), Timestamp(100_000 + LOOK_PAUSE_MS_MAX));
    }

    #[test]
    fn who_wants_a_look_has_it_at_once_also_while_one_is_under_way() {
        let mut looks = looked_at(1_000);
        looks.want();
        assert_eq!(looks.due(EVERY), Timestamp(0));
        looks.begun();
        looks.want();
        looks.ended(Timestamp(2_000));
        assert_eq!(looks.due(EVERY), Timestamp(0));
    }

    #[test]
    fn changes_that_go_on_cost_bounded_work_and_a_rest_makes_it_quick_again() {
        let (mut looks, mut now, mut pauses) = (looked_at(0), 0, Vec::new());
        for _ in 0..8 {
            // Something changes again and again, with a moment between.
            looks.changed(Timestamp(now + 1));
            let due = looks.due(EVERY);
            pauses.push(due.ms_since(Timestamp(now)));
            looks.begun();
            now = due.0 + 50;
            looks.ended(Timestamp(now));
        }
        assert_eq!(pauses, [301, 600, 1_200, 2_400, 4_800, 5_000, 5_000, 5_000]);
        now += 20_000;
        looks.changed(Timestamp(now));
        assert_eq!(looks.due(EVERY), Timestamp(now + LOOK_SETTLE_MS), "after a rest it is soon");
        looks.begun();
        looks.ended(Timestamp(now + 400));
        looks.changed(Timestamp(now + 401));
        assert_eq!(looks.due(EVERY), Timestamp(now + 401 + LOOK_SETTLE_MS));
    }

    #[test]
    fn a_step_that_was_no_look_takes_no_change_away() {
        let mut looks = looked_at(0);
        looks.changed(Timestamp(500));
        looks.ended(Timestamp(900));
        assert_eq!(looks.due(EVERY), Timestamp(900 + LOOK_PAUSE_MS_MIN));
    }
}
