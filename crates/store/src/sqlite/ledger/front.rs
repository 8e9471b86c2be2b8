//! The front of a lane: its first tasks in their order, as far as they were looked up.

use std::collections::VecDeque;

use cortex_core::id::TaskId;
use cortex_core::time::WallTime;

/// Tasks that one look-up brings: claims take them one by one.
pub(in super::super) const LOOK_UP: usize = 16;

/// A task that stands in a lane, by the order there.
pub(in super::super) type Stands = (WallTime, TaskId);

/// The first tasks of a lane, none left out; behind the last of them others may stand.
pub(super) struct Front {
    known: VecDeque<Stands>,
    /// Nobody stands behind them.
    is_whole: bool,
}

impl Front {
    /// Of a lane in which nobody stands.
    pub(super) const fn empty() -> Self {
        Self { known: VecDeque::new(), is_whole: true }
    }

    /// What a look-up of up to [`LOOK_UP`] tasks found.
    pub(super) fn found(tasks: Vec<Stands>) -> Self {
        Self { is_whole: tasks.len() < LOOK_UP, known: tasks.into() }
    }

    /// Who is first; the outer nothing when that must be looked up.
    pub(super) fn head(&self) -> Option<Option<Stands>> {
        match self.known.front() {
            None if !self.is_whole => None,
            head => Some(head.copied()),
        }
    }

    /// A task stands in the lane.
    pub(super) fn stands(&mut self, task: Stands) {
        let place = self.known.partition_point(|known| *known < task);
        let is_behind = place == self.known.len();
        if (is_behind && !self.is_whole) || self.known.get(place) == Some(&task) {
            return;
        }
        self.known.insert(place, task);
        if self.known.len() > 2 * LOOK_UP {
            self.known.truncate(LOOK_UP);
            self.is_whole = false;
        }
    }

    /// A task stands there no more.
    pub(super) fn went(&mut self, task: Stands) {
        if let Ok(place) = self.known.binary_search(&task) {
            self.known.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn stands(at: u8, id: u8) -> Stands {
        (WallTime(i64::from(at)), TaskId::mint(u64::from(id), &[1; 10]))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Stands(u8, u8),
        Goes(u8, u8),
        HeadGoes,
        LooksAnew,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u8..6, 0_u8..20).prop_map(|(at, id)| Step::Stands(at, id)),
            1 => (0_u8..6, 0_u8..20).prop_map(|(at, id)| Step::Goes(at, id)),
            3 => Just(Step::HeadGoes),
            1 => Just(Step::LooksAnew),
        ]
    }

    proptest! {
        #[test]
        fn whoever_it_says_is_first_is_first_of_all(steps in proptest::collection::vec(step(), 0..200)) {
            let mut all = BTreeSet::new();
            let mut front = Front::empty();
            for step in steps {
                match step {
                    Step::Stands(at, id) => {
                        all.insert(stands(at, id));
                        front.stands(stands(at, id));
                    }
                    Step::Goes(at, id) => {
                        all.remove(&stands(at, id));
                        front.went(stands(at, id));
                    }
                    Step::HeadGoes => {
                        if let Some(first) = all.pop_first() {
                            front.went(first);
                        }
                    }
                    Step::LooksAnew => front = Front::found(all.iter().take(LOOK_UP).copied().collect()),
                }
                if front.head().is_none() {
                    front = Front::found(all.iter().take(LOOK_UP).copied().collect());
                }
                prop_assert_eq!(front.head(), Some(all.first().copied()));
                prop_assert!(front.known.len() <= 2 * LOOK_UP);
            }
        }
    }
}
