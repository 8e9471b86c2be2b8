//! The naive pool: all tasks in one heap. It says what a claim must hand out, and what must hold
//! whatever happened.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{LaneId, TaskId};
use cortex_core::limits::AGEING_MS;
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::{Owner, Task, TaskState};
use cortex_core::time::WallTime;

use crate::ops::{Claimer, is_denied};

/// Who had the last turns, newest last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    turns: Vec<Owner>,
}

impl Model {
    /// What a claim hands out, of all these tasks, in order.
    pub(crate) fn claim(
        &mut self,
        tasks: &[Task],
        who: &Claimer,
        limit: usize,
        now: WallTime,
    ) -> Vec<TaskId> {
        let mut working = working(tasks);
        let mut ready: Vec<&Task> = tasks.iter().filter(|task| task.state == TaskState::Ready).collect();
        ready.retain(|task| who.suits(&task.lane()));
        let mut claimed = Vec::new();
        while claimed.len() < limit {
            let has_room = |task: &&&Task| {
                let concurrency = task.spec.concurrency.as_ref();
                concurrency.is_none_or(|it| working.get(&it.key).copied().unwrap_or(0) < it.limit)
            };
            let next = ready.iter().filter(has_room).min_by_key(|task| self.rank(task, now)).copied();
            let Some(next) = next else { break };
            ready.retain(|task| task.id != next.id);
            if matches!(who, Claimer::Node { name, .. } if is_denied(next, name)) {
                continue;
            }
            if let Some(concurrency) = &next.spec.concurrency {
                *working.entry(concurrency.key.clone()).or_default() += 1;
            }
            self.turns.push(next.owner.party());
            claimed.push(next.id);
        }
        claimed
    }

    /// These were handed out.
    pub(crate) fn took(&mut self, tasks: &[Task]) {
        self.turns.extend(tasks.iter().map(|task| task.owner.party()));
    }

    fn rank(&self, task: &Task, now: WallTime) -> (Reverse<u64>, usize, Option<WallTime>, TaskId) {
        let priority = u64::from(task.priority.get());
        let waited = task.ready_at.map_or(0, |at| u64::try_from(now.0 - at.0).unwrap_or(0));
        let level = if priority == 9 { 9 } else { (priority + waited / AGEING_MS).min(8) };
        let turn = self.turns.iter().rposition(|party| *party == task.owner.party());
        (Reverse(level), turn.map_or(0, |turn| turn + 1), task.ready_at, task.id)
    }
}

fn working(tasks: &[Task]) -> BTreeMap<String, u32> {
    let mut working = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.state == TaskState::Leased) {
        if let Some(concurrency) = &task.spec.concurrency {
            *working.entry(concurrency.key.clone()).or_default() += 1;
        }
    }
    working
}

/// What holds of any pool: leases where they belong, and nothing parked for good.
pub(crate) fn check(tasks: &[Task], lanes: &[(LaneId, LaneKey)]) -> Result<(), String> {
    let working = working(tasks);
    let mut standing = BTreeSet::new();
    for task in tasks {
        if (task.state == TaskState::Leased) != task.lease.is_some() {
            return Err(format!("a lease and no worker, or the other way round: {task:?}"));
        }
        if task.parked && (task.state != TaskState::Ready || task.spec.concurrency.is_none()) {
            return Err(format!("parked, and not ready for a key: {task:?}"));
        }
        if !task.state.is_final() && !lanes.iter().any(|(_, key)| *key == task.lane()) {
            return Err(format!("no lane knows of it: {task:?}"));
        }
        if let Some(concurrency) = &task.spec.concurrency
            && task.state == TaskState::Ready
            && !task.parked
        {
            standing.insert((task.lane(), concurrency.key.clone(), concurrency.limit));
        }
    }
    for task in tasks.iter().filter(|task| task.parked) {
        let Some(concurrency) = &task.spec.concurrency else { continue };
        let has_room = working.get(&concurrency.key).copied().unwrap_or(0) < concurrency.limit;
        if has_room && !standing.contains(&(task.lane(), concurrency.key.clone(), concurrency.limit)) {
            return Err(format!("its key has room, and nothing stands for it: {task:?}"));
        }
    }
    Ok(())
}

/// The counts that a store must give, by looking at each task.
pub(crate) fn counts(tasks: &[Task]) -> (BTreeMap<TaskState, u64>, BTreeMap<Owner, u64>) {
    let (mut states, mut open) = (BTreeMap::new(), BTreeMap::new());
    for task in tasks {
        *states.entry(task.state).or_default() += 1;
        if !task.state.is_final() {
            *open.entry(task.owner.party()).or_default() += 1;
        }
    }
    (states, open)
}
