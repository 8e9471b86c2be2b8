//! When leases end: a machine of the hub's memory, on its monotonic clock. A node's leases are all
//! extended by the node being heard, which costs one entry and no write. Never here: what an end
//! means for the task, which is a decision in the store that may still find another attempt there.

use std::collections::{BTreeMap, BTreeSet};

use super::Holder;
use super::decide::stale_lease;
use crate::error::Refusal;
use crate::id::{Attempt, NodeId, TaskId};
use crate::time::Timestamp;

/// An end that could not be stored is told again after that time.
const AGAIN_MS: u64 = 1_000;

/// All leases of a hub.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    held: BTreeMap<TaskId, Held>,
    /// When each is looked at next. A node that was heard since moves it then.
    due: BTreeSet<(Timestamp, TaskId)>,
    heard: BTreeMap<NodeId, Timestamp>,
    of_node: BTreeSet<(NodeId, TaskId)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    attempt: Attempt,
    holder: Holder,
    ms: u64,
    /// Given or extended last.
    since: Timestamp,
    due: Timestamp,
    /// Its end was told, and is on its way to the store.
    is_over: bool,
}

impl Leases {
    /// A lease was given, or is found in the store at a start: then it has its whole length again
    /// (POOL rule 4).
    pub fn given(&mut self, task: TaskId, attempt: Attempt, holder: Holder, ms: u64, now: Timestamp) {
        self.remove(task);
        if let Some(node) = holder.node() {
            self.of_node.insert((node, task));
        }
        let due = now.plus_ms(ms);
        self.held.insert(task, Held { attempt, holder, ms, since: now, due, is_over: false });
        self.due.insert((due, task));
    }

    /// The worker is still at it. `ms` is the new length, when it asks for another. A lease whose end was
    /// told is not extended: the task may be for others already.
    ///
    /// # Errors
    /// `stale_attempt`.
    pub fn extend(
        &mut self,
        task: TaskId,
        attempt: Attempt,
        holder: Holder,
        ms: Option<u64>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let held = self
            .held
            .get_mut(&task)
            .filter(|held| held.attempt == attempt && held.holder == holder && !held.is_over);
        let held = held.ok_or_else(|| stale_lease(task, attempt))?;
        held.since = now;
        held.ms = ms.unwrap_or(held.ms);
        let due = now.plus_ms(held.ms);
        self.due.remove(&(held.due, task));
        held.due = due;
        self.due.insert((due, task));
        Ok(())
    }

    /// The node was heard: all its leases are extended.
    pub fn heard(&mut self, node: NodeId, now: Timestamp) {
        self.heard.insert(node, now);
    }

    /// The node is gone for good: nothing of it is remembered but its leases.
    pub fn forget(&mut self, node: NodeId) {
        self.heard.remove(&node);
    }

    /// The attempt has ended in the store.
    pub fn ended(&mut self, task: TaskId, attempt: Attempt) {
        if self.held.get(&task).is_some_and(|held| held.attempt == attempt) {
            self.remove(task);
        }
    }

    /// Whether this attempt has a lease.
    pub fn has(&self, task: TaskId, attempt: Attempt) -> bool {
        self.held.get(&task).is_some_and(|held| held.attempt == attempt)
    }

    /// The attempts that a node has, by task.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = (TaskId, Attempt)> + '_ {
        let least = TaskId::from_slice(&[0; 16]).map(|id| (node, id));
        let range = least.into_iter().flat_map(|least| self.of_node.range(least..));
        let own = range.take_while(move |(other, _)| *other == node);
        own.filter_map(|(_, task)| Some((*task, self.held.get(task)?.attempt)))
    }

    /// How many nodes have.
    pub fn nodes_len(&self) -> usize {
        self.of_node.len()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// When to ask for ended ones.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        self.due.first().map(|(due, _)| (*due, "a lease ends"))
    }

    /// A lease that has ended. It is told again until [`Self::ended`] or [`Self::given`] is called.
    pub fn poll_ended(&mut self, now: Timestamp) -> Option<(TaskId, Attempt)> {
        while let Some((due, task)) = self.due.first().copied().filter(|(due, _)| *due <= now) {
            self.due.remove(&(due, task));
            let Some(held) = self.held.get_mut(&task) else { continue };
            let heard = held.holder.node().and_then(|node| self.heard.get(&node)).copied();
            let end = held.since.max(heard.unwrap_or_default()).plus_ms(held.ms);
            let has_ended = end <= now;
            held.is_over |= has_ended;
            held.due = if has_ended { now.plus_ms(AGAIN_MS) } else { end };
            self.due.insert((held.due, task));
            if has_ended {
                return Some((task, held.attempt));
            }
        }
        None
    }

    fn remove(&mut self, task: TaskId) {
        let Some(held) = self.held.remove(&task) else { return };
        self.due.remove(&(held.due, task));
        if let Some(node) = held.holder.node() {
            self.of_node.remove(&(node, task));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::id::{RunId, TokenId};

    fn task(number: u8) -> TaskId {
        TaskId::mint(1, &[number; 10])
    }

    fn node(number: u8) -> NodeId {
        NodeId::mint(1, &[number; 10])
    }

    fn at_node(number: u8) -> Holder {
        Holder::Node { node: node(number), run: RunId::mint(1, &[number; 10]) }
    }

    fn worker() -> Holder {
        Holder::Worker { token: TokenId::mint(1, &[1; 10]) }
    }

    fn ended(leases: &mut Leases, now: u64) -> Vec<TaskId> {
        std::iter::from_fn(|| leases.poll_ended(Timestamp(now))).map(|(task, _)| task).collect()
    }

    #[test]
    fn a_lease_that_nobody_extends_ends_at_its_end_and_is_told_until_it_is_stored() {
        let mut leases = Leases::default();
        leases.given(task(1), Attempt(1), worker(), 100, Timestamp(0));
        assert_eq!(leases.poll_timeout().map(|(at, _)| at), Some(Timestamp(100)));
        assert_eq!(ended(&mut leases, 99), []);
        assert_eq!(ended(&mut leases, 100), [task(1)]);
        assert_eq!(ended(&mut leases, 101), [], "not at once again");
        assert_eq!(ended(&mut leases, 100 + AGAIN_MS), [task(1)]);
        leases.ended(task(1), Attempt(1));
        assert!(leases.is_empty() && leases.poll_timeout().is_none());
    }

    #[test]
    fn a_node_that_is_heard_extends_all_of_its_leases_and_no_others() {
        let mut leases = Leases::default();
        for (number, holder) in [(1, at_node(1)), (2, at_node(1)), (3, at_node(2)), (4, worker())] {
            leases.given(task(number), Attempt(1), holder, 100, Timestamp(0));
        }
        leases.heard(node(1), Timestamp(90));
        assert_eq!(ended(&mut leases, 150), [task(3), task(4)]);
        assert_eq!(leases.of_node(node(1)).count(), 2);
        assert_eq!(ended(&mut leases, 190), [task(1), task(2)]);
    }

    #[test]
    fn only_its_own_worker_extends_an_attempt() {
        let mut leases = Leases::default();
        leases.given(task(1), Attempt(2), worker(), 100, Timestamp(0));
        for (attempt, holder) in [(1, worker()), (3, worker()), (2, at_node(1))] {
            let refusal =
                leases.extend(task(1), Attempt(attempt), holder, None, Timestamp(50)).expect_err("no");
            assert_eq!(refusal.code, Code::StaleAttempt);
        }
        assert!(leases.extend(task(2), Attempt(1), worker(), None, Timestamp(50)).is_err(), "unknown alike");
        leases.extend(task(1), Attempt(2), worker(), Some(500), Timestamp(50)).expect("its own");
        assert_eq!(ended(&mut leases, 549), []);
        assert_eq!(ended(&mut leases, 550), [task(1)]);
    }

    #[test]
    fn a_lease_whose_end_was_told_is_not_extended_any_more() {
        let mut leases = Leases::default();
        leases.given(task(1), Attempt(1), worker(), 100, Timestamp(0));
        leases.extend(task(1), Attempt(1), worker(), None, Timestamp(100)).expect("nobody has looked yet");
        assert_eq!(ended(&mut leases, 200), [task(1)]);
        let refusal = leases.extend(task(1), Attempt(1), worker(), None, Timestamp(200)).expect_err("over");
        assert_eq!(refusal.code, Code::StaleAttempt);
        assert_eq!(ended(&mut leases, 200 + AGAIN_MS), [task(1)], "it is told until it is stored");
        leases.given(task(1), Attempt(2), worker(), 100, Timestamp(2_000));
        leases.extend(task(1), Attempt(2), worker(), None, Timestamp(2_050)).expect("another lease");
    }

    #[test]
    fn a_newer_attempt_is_not_ended_by_the_end_of_an_older_one() {
        let mut leases = Leases::default();
        leases.given(task(1), Attempt(1), at_node(1), 100, Timestamp(0));
        leases.given(task(1), Attempt(2), at_node(2), 100, Timestamp(80));
        leases.ended(task(1), Attempt(1));
        assert_eq!((leases.len(), leases.of_node(node(1)).count()), (1, 0));
        assert_eq!(ended(&mut leases, 120), []);
        assert_eq!(leases.poll_ended(Timestamp(180)), Some((task(1), Attempt(2))));
    }
}
