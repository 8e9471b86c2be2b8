//! The highest number that a node has seen of each thing that is fenced: of the attempts of a task, and of
//! the locks of a workspace. What a lower one still asks for is refused by it, at the place where the
//! effect would be (ABUSE 63).
//!
//! Bounded: what was heard of longest ago makes room. The hub fences all of them as well, before it sends
//! anything.

use std::collections::BTreeMap;

use crate::error::{Code, Refusal};
use crate::id::{Attempt, LockEpoch, TaskId, WorkspaceId};
use crate::limits;

/// The highest numbers of so many things. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Highest<K, N> {
    numbers: BTreeMap<K, (N, u64)>,
    /// By when they were heard of, which is counted.
    heard: BTreeMap<u64, K>,
    next: u64,
    max: usize,
}

/// The highest attempts of tasks.
pub type Attempts = Highest<TaskId, Attempt>;

/// The highest locks of workspaces.
pub type LockEpochs = Highest<WorkspaceId, LockEpoch>;

impl<K, N> Default for Highest<K, N> {
    fn default() -> Self {
        Self::at_most(limits::ATTEMPTS_KNOWN_MAX)
    }
}

impl<K, N> Highest<K, N> {
    /// None yet, and never more than `max`.
    pub const fn at_most(max: usize) -> Self {
        Self { numbers: BTreeMap::new(), heard: BTreeMap::new(), next: 0, max }
    }
}

impl<K: Ord + Copy, N: Ord + Copy> Highest<K, N> {
    /// Notes that it is at this number; whether that is higher than all before.
    pub fn raise(&mut self, of: K, number: N) -> bool {
        let before = self.numbers.get(&of).copied();
        if let Some((_, heard)) = before {
            self.heard.remove(&heard);
        }
        let highest = before.map_or(number, |(highest, _)| highest.max(number));
        self.numbers.insert(of, (highest, self.next));
        self.heard.insert(self.next, of);
        self.next += 1;
        while self.numbers.len() > self.max {
            let Some((_, oldest)) = self.heard.pop_first() else { break };
            self.numbers.remove(&oldest);
        }
        before.is_none_or(|(highest, _)| number > highest)
    }

    /// The highest number of this one, when it is known.
    pub fn highest(&self, of: K) -> Option<N> {
        self.numbers.get(&of).map(|(number, _)| *number)
    }

    /// All, the one that was heard of longest ago in front.
    pub fn iter(&self) -> impl Iterator<Item = (K, N)> + '_ {
        self.heard.values().filter_map(|of| Some((*of, self.highest(*of)?)))
    }

    fn above(&self, of: K, number: N) -> Option<N> {
        self.highest(of).filter(|highest| *highest > number)
    }
}

impl Attempts {
    /// Refuses `stale_attempt` an attempt that a higher one has followed.
    pub fn check(&self, task: TaskId, attempt: Attempt) -> Result<(), Refusal> {
        let Some(highest) = self.above(task, attempt) else { return Ok(()) };
        let message = format!(
            "Attempt {attempt} of task {task} has ended: attempt {highest} followed it. Nothing was done."
        );
        Err(Refusal::new(Code::StaleAttempt, message).detail("attempt", highest.to_string()))
    }
}

impl LockEpochs {
    /// Refuses `stale_epoch` what is done under a lock that another one has followed.
    pub fn check(&self, workspace: WorkspaceId, lock: LockEpoch) -> Result<(), Refusal> {
        let Some(highest) = self.above(workspace, lock) else { return Ok(()) };
        let message = format!(
            "Lock {lock} of workspace {workspace} is over: lock {highest} followed it. Nothing was done."
        );
        Err(Refusal::new(Code::StaleEpoch, message)
            .hint("Lock the workspace again, and go on under that lock."))
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
    fn work_under_a_lock_that_another_one_followed_is_refused() {
        let (workspace, mut locks) = (WorkspaceId::mint(1, &[1; 10]), LockEpochs::default());
        locks.raise(workspace, LockEpoch(3));
        assert_eq!(locks.check(workspace, LockEpoch(2)).expect_err("old").code, Code::StaleEpoch);
        assert_eq!(locks.check(workspace, LockEpoch(3)), Ok(()));
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
