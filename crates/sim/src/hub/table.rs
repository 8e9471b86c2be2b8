//! Tasks within a transaction of the simulated hub, and what is told of them once that is committed. It
//! looks over the shoulder of claims: what one takes must be what goes first of all that waits.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use cortex_core::id::{Attempt, LaneId, TaskId};
use cortex_core::pool::lane::{Head, LaneKey, Lanes};
use cortex_core::pool::order::{Turns, first};
use cortex_core::pool::{Decided, Evidence, Holder, Owner, Table, Task, TaskState};
use cortex_core::time::WallTime;
use cortex_store::{PoolRead, TaskFilter, Tx, WriteError};

use crate::check::{Happened, Put};

/// What a transaction did, in its order.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) empty: RefCell<Vec<LaneId>>,
    pub(super) puts: Vec<(Option<LaneId>, Task)>,
    pub(super) notes: Vec<Happened>,
}

impl Told {
    /// Somebody reports an attempt in this transaction.
    pub(super) fn report(&mut self, task: TaskId, attempt: Attempt, holder: Holder, brings: bool) {
        self.notes.push(Happened::Reported { task, attempt, holder, brings });
    }
}

/// A claim as it must go.
pub(super) struct Watch {
    lanes: BTreeSet<LaneId>,
    turns: Turns,
    now: WallTime,
}

impl Watch {
    pub(super) fn over(lanes: &Lanes, turns: &Turns, now: WallTime) -> Self {
        Self { lanes: lanes.iter().map(|(id, _)| *id).collect(), turns: turns.clone(), now }
    }
}

pub(super) struct Noted<'t> {
    pub(super) tx: &'t mut dyn Tx,
    pub(super) told: &'t mut Told,
    pub(super) watch: Option<Watch>,
}

impl<'t> Noted<'t> {
    pub(super) fn over(tx: &'t mut dyn Tx, told: &'t mut Told) -> Self {
        Self { tx, told, watch: None }
    }

    /// Of all tasks that stand in the lanes of the claim the one that goes first, looked for without
    /// the heads of lanes.
    pub(super) fn next(&self) -> Result<Option<TaskId>, WriteError> {
        let Some(watch) = &self.watch else { return Ok(None) };
        let filter = TaskFilter { states: vec![TaskState::Ready], ..TaskFilter::default() };
        let mut standing: Vec<(LaneKey, Head)> = Vec::new();
        for task in self.tx.tasks(&filter, usize::MAX)?.into_iter().filter(|task| !task.parked) {
            let lane = PoolRead::lane(self.tx, &task.lane())?.filter(|lane| watch.lanes.contains(lane));
            if let (Some(lane), Some(ready_at)) = (lane, task.ready_at) {
                standing.push((task.lane(), Head { lane, ready_at, task: task.id }));
            }
        }
        let next = first(standing.iter().map(|(key, head)| (key, head)), &watch.turns, watch.now);
        Ok(next.map(|head| head.task))
    }

    /// A claim that was not full left nothing behind.
    pub(super) fn left(&mut self) -> Result<(), WriteError> {
        // One whose key is full is passed over by the next claim as well: it stands since another one of
        // its key went out of its lane.
        let is_left = |id: TaskId| -> Result<bool, WriteError> {
            let concurrency = PoolRead::task(self.tx, id)?.and_then(|task| task.spec.concurrency.clone());
            Ok(match concurrency {
                Some(concurrency) => PoolRead::working(self.tx, &concurrency.key)? < concurrency.limit,
                None => true,
            })
        };
        let mut left = None;
        for task in self.standing()? {
            if is_left(task)? {
                left = Some(task);
                break;
            }
        }
        if let Some(task) = left {
            self.told.notes.push(Happened::Misordered { task, why: "a claim left it behind" });
        }
        Ok(())
    }

    /// All that stands in the lanes of the claim.
    fn standing(&self) -> Result<Vec<TaskId>, WriteError> {
        let Some(watch) = &self.watch else { return Ok(Vec::new()) };
        let filter = TaskFilter { states: vec![TaskState::Ready], ..TaskFilter::default() };
        let mut standing = Vec::new();
        for task in self.tx.tasks(&filter, usize::MAX)?.into_iter().filter(|task| !task.parked) {
            if PoolRead::lane(self.tx, &task.lane())?.is_some_and(|lane| watch.lanes.contains(&lane)) {
                standing.push(task.id);
            }
        }
        Ok(standing)
    }

    fn look(&mut self, decided: &Decided) -> Result<(), WriteError> {
        let Some(before) = PoolRead::task(self.tx, decided.task.id)? else { return Ok(()) };
        if self.watch.is_none() || before.state != TaskState::Ready || before.parked {
            return Ok(());
        }
        if self.next()? != Some(before.id) {
            self.told.notes.push(Happened::Misordered { task: before.id, why: "it was not its turn" });
        }
        if let Some(watch) = self.watch.as_mut().filter(|_| decided.task.state == TaskState::Leased) {
            watch.turns.took(decided.task.owner);
        }
        Ok(())
    }
}

impl Table for Noted<'_> {
    type Error = WriteError;

    fn task(&self, id: TaskId) -> Result<Option<Task>, WriteError> {
        Table::task(self.tx, id)
    }

    fn task_by_key(&self, owner: Owner, key: &str) -> Result<Option<Task>, WriteError> {
        Table::task_by_key(self.tx, owner, key)
    }

    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, WriteError> {
        Table::waiting_for(self.tx, id)
    }

    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, WriteError> {
        let heads = Table::heads(self.tx, lanes)?;
        let is_empty = |lane: &LaneId| !heads.iter().any(|head| head.lane == *lane);
        self.told.empty.borrow_mut().extend(lanes.iter().copied().filter(is_empty));
        Ok(heads)
    }

    fn working(&self, key: &str) -> Result<u32, WriteError> {
        Table::working(self.tx, key)
    }

    fn parked(&self, key: &str) -> Result<Vec<TaskId>, WriteError> {
        Table::parked(self.tx, key)
    }

    fn put(&mut self, decided: &Decided) -> Result<(), WriteError> {
        self.look(decided)?;
        Table::put(self.tx, decided)?;
        let lane = PoolRead::lane(self.tx, &decided.task.lane())?;
        self.told.notes.push(Happened::Put(Arc::new(Put::of(decided))));
        self.told.puts.push((lane, decided.task.clone()));
        Ok(())
    }

    fn put_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), WriteError> {
        Table::put_evidence(self.tx, id, evidence)
    }

    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, WriteError> {
        Table::lane(self.tx, key)
    }
}
