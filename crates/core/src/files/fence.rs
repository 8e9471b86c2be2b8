//! The highest attempt of each task that a node has seen: what an attempt that has ended still asks for
//! is refused by it, at the place where the effect would be (ABUSE 63).
//!
//! Bounded: the task that was heard of longest ago makes room. The hub fences all of them as well, before
//! it sends anything.

use std::collections::BTreeMap;

use crate::error::{Code, Refusal};
use crate::id::{Attempt, TaskId};
use crate::limits;

/// The highest attempts. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    tasks: BTreeMap<TaskId, (Attempt, u64)>,
    /// By when they were heard of, which is counted.
    heard: BTreeMap<u64, TaskId>,
    next: u64,
    max: usize,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::at_most(limits::ATTEMPTS_KNOWN_MAX)
    }
}

impl Attempts {
    /// None yet, and never more than `max`.
    pub const fn at_most(max: usize) -> Self {
        Self { tasks: BTreeMap::new(), heard: BTreeMap::new(), next: 0, max }
    }

    /// Notes that the task is in this attempt; whether that is higher than all before.
    pub fn raise(&mut self, task: TaskId, attempt: Attempt) -> bool {
        let before = self.tasks.get(&task).copied();
        if let Some((_, heard)) = before {
            self.heard.remove(&heard);
        }
        let highest = before.map_or(attempt, |(highest, _)| highest.max(attempt));
        self.tasks.insert(task, (highest, self.next));
        self.heard.insert(self.next, task);
        self.next += 1;
        while self.tasks.len() > self.max {
            let Some((_, oldest)) = self.heard.pop_first() else { break };
            self.tasks.remove(&oldest);
        }
        before.is_none_or(|(highest, _)| attempt > highest)
    }

    /// The highest attempt of this task, when it is known.
    pub fn highest(&self, task: TaskId) -> Option<Attempt> {
        self.tasks.get(&task).map(|(attempt, _)| *attempt)
    }

    /// Refuses `stale_attempt` an attempt that a higher one has followed.
    pub fn check(&self, task: TaskId, attempt: Attempt) -> Result<(), Refusal> {
        match self.highest(task) {
            Some(highest) if highest > attempt => Err(Refusal::new(
                Code::StaleAttempt,
                format!("Attempt {attempt} of task {task} has ended: attempt {highest} followed it. Nothing was done."),
            )
            .detail("attempt", highest.to_string())),
            Some(_) | None => Ok(()),
        }
    }

    /// All, the one that was heard of longest ago in front.
    pub fn iter(&self) -> impl Iterator<Item = (TaskId, Attempt)> + '_ {
        self.heard.values().filter_map(|task| Some((*task, self.highest(*task)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(n: u8) -> TaskId {
        TaskId::mint(u64::from(n), &[n; 10])
    }

    #[test]
    fn a_lower_attempt_is_refused_and_lowers_nothing() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.check(task(1), Attempt(1)), Ok(()), "nothing is known of it");
        assert!(attempts.raise(task(1), Attempt(2)));
        assert!(!attempts.raise(task(1), Attempt(1)) && !attempts.raise(task(1), Attempt(2)));
        assert_eq!(attempts.highest(task(1)), Some(Attempt(2)));
        assert_eq!(attempts.check(task(1), Attempt(1)).expect_err("old").code, Code::StaleAttempt);
        for attempt in [2, 3] {
            assert_eq!(attempts.check(task(1), Attempt(attempt)), Ok(()));
        }
        assert_eq!(attempts.check(task(2), Attempt(1)), Ok(()), "another task");
    }

    #[test]
    fn the_task_that_was_heard_of_longest_ago_makes_room() {
        let mut attempts = Attempts::at_most(2);
        for n in [1, 2, 1, 3] {
            attempts.raise(task(n), Attempt(5));
        }
        assert_eq!(attempts.iter().collect::<Vec<_>>(), [(task(1), Attempt(5)), (task(3), Attempt(5))]);
        assert_eq!((attempts.highest(task(2)), attempts.heard.len()), (None, 2));
    }

    #[test]
    fn what_was_told_again_in_order_is_the_same_memory() {
        let mut attempts = Attempts::at_most(3);
        for n in [9, 1, 4, 9, 7] {
            attempts.raise(task(n), Attempt(u64::from(n)));
        }
        let mut again = Attempts::at_most(3);
        attempts.iter().for_each(|(task, attempt)| {
            again.raise(task, attempt);
        });
        assert!(attempts.iter().eq(again.iter()));
    }
}
