//! The pool's port over its maps.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Deref};

use cortex_core::id::{LaneId, ScheduleId, TaskId};
use cortex_core::pool::lane::{Head, LaneKey};
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::schedule::Schedule;
use cortex_core::pool::{Decided, Evidence, Owner, Step, Task, TaskState};
use cortex_core::time::WallTime;

use super::super::read::Held;
use super::super::state::State;
use super::super::tx::Writing;
use super::Pool;
use crate::{PoolRead, PoolTx, StoreError, TaskFilter, WriteError};

/// Below every id, for ranges over one lane or task.
const FIRST: TaskId = TaskId::new(uuid::Uuid::nil());
const LAST: TaskId = TaskId::new(uuid::Uuid::max());

impl<S: Deref<Target = State>, U> PoolRead for Held<S, U> {
    fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        Ok(self.state.pool.tasks.get(&id).cloned())
    }

    fn task_by_key(&self, owner: Owner, key: &str) -> Result<Option<Task>, StoreError> {
        let pool = &self.state.pool;
        Ok(pool.keys.get(&(owner, key.to_owned())).and_then(|id| pool.tasks.get(id)).cloned())
    }

    fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        let upto = filter.before.map_or(Bound::Unbounded, Bound::Excluded);
        let tasks = self.state.pool.tasks.range((Bound::Unbounded, upto)).rev().map(|(_, task)| task);
        Ok(tasks.filter(|task| is_wanted(task, filter)).take(limit).cloned().collect())
    }

    fn task_steps(&self, id: TaskId) -> Result<Vec<Step>, StoreError> {
        Ok(self.state.pool.steps.get(&id).cloned().unwrap_or_default())
    }

    fn task_evidence(&self, id: TaskId) -> Result<Vec<Evidence>, StoreError> {
        Ok(self.state.pool.evidence.get(&id).cloned().unwrap_or_default())
    }

    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, StoreError> {
        Ok(self.state.pool.lanes.get(key).map(|lane| lane.id))
    }

    fn lanes(&self) -> Result<Vec<(LaneId, LaneKey)>, StoreError> {
        let open = self.state.pool.lanes.iter().filter(|(_, lane)| lane.open > 0);
        Ok(open.map(|(key, lane)| (lane.id, key.clone())).collect::<BTreeMap<_, _>>().into_iter().collect())
    }

    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, StoreError> {
        let head = |lane: &LaneId| {
            let all = (*lane, WallTime(i64::MIN), FIRST)..=(*lane, WallTime(i64::MAX), LAST);
            let first = self.state.pool.standing.range(all).next();
            first.map(|(lane, ready_at, task)| Head { lane: *lane, ready_at: *ready_at, task: *task })
        };
        Ok(lanes.iter().filter_map(head).collect())
    }

    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, StoreError> {
        let pool = &self.state.pool;
        let scheduled = |id: &TaskId| pool.tasks.get(id).is_some_and(|it| it.state == TaskState::Scheduled);
        let waiting = pool.after.range((id, FIRST)..=(id, LAST)).map(|(_, waiting)| *waiting);
        Ok(waiting.filter(scheduled).collect())
    }

    fn working(&self, key: &str) -> Result<u32, StoreError> {
        Ok(self.state.pool.working.get(key).copied().unwrap_or(0))
    }

    fn parked(&self, key: &str) -> Result<Vec<TaskId>, StoreError> {
        let first = (key.to_owned(), LaneId(0), 0, WallTime(i64::MIN), FIRST);
        let of_key = self.state.pool.parked.range(first..).take_while(|(other, ..)| other == key);
        let mut seen = BTreeSet::new();
        let oldest = of_key.filter(|(_, lane, limit, ..)| seen.insert((*lane, *limit)));
        Ok(oldest.map(|(.., task)| *task).collect())
    }

    fn tasks_due(&self, now: WallTime, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        Ok(until(&self.state.pool.due, now, limit))
    }

    fn next_due(&self) -> Result<Option<WallTime>, StoreError> {
        Ok(self.state.pool.due.first().map(|(at, _)| *at))
    }

    fn tasks_expiring(&self, now: WallTime, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        Ok(until(&self.state.pool.expiring, now, limit))
    }

    fn next_expiry(&self) -> Result<Option<WallTime>, StoreError> {
        Ok(self.state.pool.expiring.first().map(|(at, _)| *at))
    }

    fn leased_tasks(&self) -> Result<Vec<Task>, StoreError> {
        let pool = &self.state.pool;
        Ok(pool.leased.iter().filter_map(|id| pool.tasks.get(id)).cloned().collect())
    }

    fn open_tasks(&self, party: Option<Owner>) -> Result<u64, StoreError> {
        let open = &self.state.pool.open;
        Ok(match party {
            Some(party) => open.get(&party).copied().unwrap_or(0),
            None => open.values().sum(),
        })
    }

    fn task_counts(&self) -> Result<BTreeMap<TaskState, u64>, StoreError> {
        Ok(self.state.pool.counts.clone())
    }

    fn ended_tasks(&self, limit: usize) -> Result<Vec<(TaskId, WallTime)>, StoreError> {
        Ok(self.state.pool.ended.iter().take(limit).map(|(at, id)| (*id, *at)).collect())
    }

    fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        Ok(self.state.pool.schedules.get(&id).cloned())
    }

    fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        let mut all: Vec<Schedule> = self.state.pool.schedules.values().cloned().collect();
        all.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(all)
    }

    fn schedules_due(&self, now: WallTime, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        let on = self.state.pool.schedules.values().filter(|it| it.is_on);
        let mut due: Vec<Schedule> =
            on.filter(|it| it.next_at.is_some_and(|at| at <= now)).cloned().collect();
        due.sort_by_key(|it| (it.next_at, it.id));
        due.truncate(limit);
        Ok(due)
    }

    fn next_tick(&self) -> Result<Option<WallTime>, StoreError> {
        Ok(self.state.pool.schedules.values().filter(|it| it.is_on).filter_map(|it| it.next_at).min())
    }

    fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        let mut all: Vec<Pause> = self.state.pool.pauses.values().cloned().collect();
        all.sort_by_key(|pause| pause.part.to_string());
        Ok(all)
    }
}

impl PoolTx for Writing<'_> {
    fn put_task(&mut self, decided: &Decided) -> Result<(), WriteError> {
        let (pool, mut note) = self.pool();
        pool.put(decided, &mut note)
    }

    fn put_task_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), StoreError> {
        let (pool, mut note) = self.pool();
        pool.put_evidence(id, evidence, &mut note);
        Ok(())
    }

    fn remove_tasks(&mut self, tasks: &[TaskId]) -> Result<usize, StoreError> {
        let (pool, mut note) = self.pool();
        Ok(tasks.iter().filter(|id| Pool::remove(pool, **id, &mut note)).count())
    }

    fn put_schedule(&mut self, schedule: &Schedule) -> Result<(), WriteError> {
        let (pool, mut note) = self.pool();
        pool.put_schedule(schedule, &mut note)
    }

    fn remove_schedule(&mut self, id: ScheduleId) -> Result<bool, StoreError> {
        let (pool, mut note) = self.pool();
        Ok(pool.remove_schedule(id, &mut note))
    }

    fn put_pause(&mut self, pause: &Pause) -> Result<(), StoreError> {
        let (pool, mut note) = self.pool();
        pool.set_pause(&pause.part, Some(pause), &mut note);
        Ok(())
    }

    fn remove_pause(&mut self, part: &Part) -> Result<bool, StoreError> {
        let (pool, mut note) = self.pool();
        Ok(pool.set_pause(part, None, &mut note))
    }
}

fn is_wanted(task: &Task, filter: &TaskFilter) -> bool {
    (filter.states.is_empty() || filter.states.contains(&task.state))
        && filter.party.is_none_or(|party| task.owner.party() == party)
        && filter.schedule.is_none_or(|schedule| task.schedule == Some(schedule))
        && filter.label.as_ref().is_none_or(|(key, value)| task.spec.labels.get(key) == Some(value))
}

fn until(times: &BTreeSet<(WallTime, TaskId)>, now: WallTime, limit: usize) -> Vec<TaskId> {
    times.range(..=(now, LAST)).take(limit).map(|(_, id)| *id).collect()
}
