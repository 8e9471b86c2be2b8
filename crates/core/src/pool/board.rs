//! What a hub has in mind of the pool: lanes in which something may wait, leases and when they end,
//! what each node works on. A machine; the store is the truth, and this is changed only by what is
//! committed. Never here: decisions about a task, and waiting for anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::lane::{LaneKey, Lanes};
use super::leases::Leases;
use super::{Holder, Kind, Task, TaskState};
use crate::id::{Attempt, LaneId, NodeId, RunId, TaskId};
use crate::time::Timestamp;

/// Whom a committed change concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Woken {
    /// A command may wait, or a node may have room for one.
    pub nodes: bool,
    /// A payload of this kind may wait.
    pub kind: Option<Kind>,
    /// A lease, a due time or a time to start came nearer.
    pub timers: bool,
}

/// The machine, one per hub.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Lanes in which something may be ready; those in which a claim found nothing are out.
    ready: BTreeMap<LaneId, Arc<LaneKey>>,
    leases: Leases,
    /// Runs of leased tasks, by node.
    busy: BTreeMap<NodeId, BTreeMap<TaskId, (Attempt, RunId)>>,
    /// The node that works on a task.
    nodes: BTreeMap<TaskId, NodeId>,
    /// Tasks that claims may be about to give to a node.
    promised: BTreeMap<NodeId, usize>,
}

impl Board {
    /// Takes up what the store holds. Each lease has its whole length again (POOL rule 4).
    pub fn load(&mut self, lanes: Vec<(LaneId, LaneKey)>, leased: &[Task], now: Timestamp) {
        self.ready.extend(lanes.into_iter().map(|(id, key)| (id, Arc::new(key))));
        leased.iter().for_each(|task| self.lease(task, now));
    }

    /// Lanes in which something may be ready.
    pub fn ready(&self) -> Lanes {
        self.ready.iter().map(|(id, key)| (*id, Arc::clone(key))).collect()
    }

    /// How many there are.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// A claim found nothing in these lanes. To be told within its transaction: what is put after it
    /// is told after this.
    pub fn found_empty(&mut self, lanes: impl IntoIterator<Item = LaneId>) {
        lanes.into_iter().for_each(|lane| {
            self.ready.remove(&lane);
        });
    }

    /// A claim of these lanes was not kept: what it found, and what it found empty, counts for nothing.
    pub fn not_claimed(&mut self, lanes: Lanes) {
        self.ready.extend(lanes);
    }

    /// Tasks that a node works on, and those that claims may be about to give it.
    pub fn busy(&self, node: NodeId) -> usize {
        let promised = self.promised.get(&node).copied().unwrap_or(0);
        self.busy.get(&node).map_or(0, BTreeMap::len) + promised
    }

    /// A claim for up to `count` tasks is on its way to the store, and nobody knows when it is through:
    /// so many slots are taken until [`Self::fulfilled`].
    pub fn promise(&mut self, node: NodeId, count: usize) {
        *self.promised.entry(node).or_default() += count;
    }

    /// That claim is through, or will never be.
    pub fn fulfilled(&mut self, node: NodeId, count: usize) {
        let Some(promised) = self.promised.get_mut(&node) else { return };
        *promised = promised.saturating_sub(count);
        if *promised == 0 {
            self.promised.remove(&node);
        }
    }

    /// The attempts that a node works on, with their runs.
    pub fn attempts_of(&self, node: NodeId) -> Vec<(TaskId, Attempt, RunId)> {
        let held = self.busy.get(&node).into_iter().flatten();
        held.map(|(task, (attempt, run))| (*task, *attempt, *run)).collect()
    }

    /// A node was heard: its leases are extended.
    pub fn heard(&mut self, node: NodeId, now: Timestamp) {
        if self.busy.contains_key(&node) {
            self.leases.heard(node, now);
        }
    }

    /// The leases.
    pub const fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The leases, to extend one or to ask for ended ones.
    pub const fn leases_mut(&mut self) -> &mut Leases {
        &mut self.leases
    }

    /// Entries of all maps but that of lanes: 0 when nobody works on anything.
    pub fn entries(&self) -> usize {
        self.leases.len() + self.busy.len() + self.nodes.len() + self.promised.len()
    }

    /// A task as it is committed, with the number of its lane.
    pub fn put(&mut self, lane: Option<LaneId>, task: &Task, now: Timestamp) -> Woken {
        // A node may have room.
        let mut woken = Woken { nodes: task.state != TaskState::Leased, ..Woken::default() };
        self.unlease(task);
        match (task.state, lane) {
            (TaskState::Leased, _) => {
                self.lease(task, now);
                woken.timers = true;
            }
            (TaskState::Ready, Some(lane)) if !task.parked => {
                self.ready.entry(lane).or_insert_with(|| Arc::new(task.lane()));
                woken.kind = Some(task.spec.work.kind()).filter(|kind| !kind.is_command());
                woken.timers = task.expires_at.is_some();
            }
            (TaskState::Scheduled, _) => woken.timers = true,
            (TaskState::Ready | TaskState::Done | TaskState::Dead, _)
            | (TaskState::Cancelled | TaskState::Expired, _) => {}
        }
        woken
    }

    fn lease(&mut self, task: &Task, now: Timestamp) {
        let Some(lease) = task.lease else { return };
        // What is put again while it is worked on is the same lease, with the time that it has left.
        if self.leases.has(task.id, task.attempt) {
            return;
        }
        self.leases.given(task.id, task.attempt, lease.holder, lease.ms, now);
        if let Holder::Node { node, run } = lease.holder {
            self.busy.entry(node).or_default().insert(task.id, (task.attempt, run));
            self.nodes.insert(task.id, node);
        }
    }

    /// The attempt that was known of it is over, unless it is the one that it has.
    fn unlease(&mut self, task: &Task) {
        if task.state == TaskState::Leased {
            return;
        }
        self.leases.ended(task.id, task.attempt);
        let Some(node) = self.nodes.remove(&task.id) else { return };
        let Some(held) = self.busy.get_mut(&node) else { return };
        held.remove(&task.id);
        if held.is_empty() {
            self.busy.remove(&node);
            self.leases.forget(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::pool::{Lease, Owner, Priority, TaskSpec, Work};
    use crate::run::RunSpec;
    use crate::time::WallTime;

    const LANE: Option<LaneId> = Some(LaneId(7));

    fn node() -> NodeId {
        NodeId::mint(1, &[1; 10])
    }

    fn task(state: TaskState) -> Task {
        let run = RunId::mint(1, &[2; 10]);
        let lease = Lease { holder: Holder::Node { node: node(), run }, ms: 100, since: WallTime(0) };
        Task {
            id: TaskId::mint(1, &[3; 10]),
            spec: Arc::new(TaskSpec::new(Work::Command(RunSpec::default()))),
            owner: Owner { token: None, user: None },
            caller: "token:a".to_owned(),
            idempotency_key: None,
            traceparent: None,
            schedule: None,
            priority: Priority::DEFAULT,
            state,
            attempt: Attempt(1),
            tries: 0,
            parked: false,
            waits_for: 0,
            submitted_at: WallTime(0),
            due_at: None,
            ready_at: Some(WallTime(0)),
            expires_at: None,
            lease: (state == TaskState::Leased).then_some(lease),
            progress: None,
            excluded: BTreeSet::new(),
            ended_at: None,
            result: None,
            cancelled_by: None,
            steps: 0,
        }
    }

    fn lanes(board: &Board) -> Vec<u64> {
        board.ready().iter().map(|(id, _)| id.0).collect()
    }

    #[test]
    fn a_lane_is_looked_at_from_the_first_ready_task_until_a_claim_finds_it_empty() {
        let mut board = Board::default();
        let parked = Task { parked: true, ..task(TaskState::Ready) };
        assert!(!board.put(LANE, &parked, Timestamp(0)).timers && lanes(&board).is_empty());
        let woken = board.put(LANE, &task(TaskState::Ready), Timestamp(0));
        assert_eq!((woken.nodes, woken.kind, lanes(&board)), (true, None, vec![7]));
        let claimed = board.ready();
        board.found_empty([LaneId(7)]);
        assert!(lanes(&board).is_empty());
        board.not_claimed(claimed);
        assert_eq!(lanes(&board), [7], "the claim was not kept");
    }

    #[test]
    fn a_task_that_is_put_again_while_it_is_worked_on_keeps_the_lease_that_it_has() {
        let mut board = Board::default();
        board.put(LANE, &task(TaskState::Leased), Timestamp(0));
        let asked = Task { cancelled_by: Some("token:a".to_owned()), ..task(TaskState::Leased) };
        board.put(LANE, &asked, Timestamp(90));
        assert_eq!(board.leases_mut().poll_ended(Timestamp(100)), Some((asked.id, Attempt(1))));
        board.put(LANE, &task(TaskState::Ready), Timestamp(101));
        assert_eq!((board.entries(), board.busy(node())), (0, 0));
    }

    #[test]
    fn slots_that_a_claim_may_fill_are_taken_until_it_is_through() {
        let mut board = Board::default();
        board.promise(node(), 2);
        board.promise(node(), 1);
        board.put(LANE, &task(TaskState::Leased), Timestamp(0));
        assert_eq!(board.busy(node()), 4);
        board.fulfilled(node(), 2);
        board.fulfilled(node(), 1);
        assert_eq!(board.busy(node()), 1);
        board.put(LANE, &task(TaskState::Done), Timestamp(1));
        assert_eq!(board.entries(), 0);
    }
}
