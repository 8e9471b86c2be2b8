//! The work pool on ordered maps: tasks, their lanes, and the orders in which they are looked for.

mod port;

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{LaneId, ScheduleId, TaskId};
use cortex_core::limits::EVIDENCE_MAX;
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::schedule::Schedule;
use cortex_core::pool::{Decided, Evidence, Owner, Step, Task, TaskState};
use cortex_core::time::WallTime;

use super::state::set;
use crate::{WriteError, conflict};

/// A lane that has tasks.
#[derive(Clone, Copy)]
pub(super) struct Lane {
    id: LaneId,
    /// In whatever state.
    tasks: u64,
    /// Those that have not ended.
    open: u64,
}

/// Tasks and their indices.
#[derive(Default)]
pub(super) struct Pool {
    tasks: BTreeMap<TaskId, Task>,
    steps: BTreeMap<TaskId, Vec<Step>>,
    evidence: BTreeMap<TaskId, Vec<Evidence>>,
    keys: BTreeMap<(Owner, String), TaskId>,
    lanes: BTreeMap<LaneKey, Lane>,
    /// The number of the newest lane that ever was.
    lanes_made: LaneId,
    /// Ready and not parked.
    standing: BTreeSet<(LaneId, WallTime, TaskId)>,
    /// By concurrency key, lane and limit.
    parked: BTreeSet<(String, LaneId, u32, WallTime, TaskId)>,
    /// What is waited for, and who waits, in whatever state.
    after: BTreeSet<(TaskId, TaskId)>,
    /// Scheduled, and nothing to wait for but a time.
    due: BTreeSet<(WallTime, TaskId)>,
    expiring: BTreeSet<(WallTime, TaskId)>,
    leased: BTreeSet<TaskId>,
    ended: BTreeSet<(WallTime, TaskId)>,
    /// Leased tasks of a concurrency key.
    working: BTreeMap<String, u32>,
    /// Tasks of a party that have not ended.
    open: BTreeMap<Owner, u64>,
    counts: BTreeMap<TaskState, u64>,
    schedules: BTreeMap<ScheduleId, Schedule>,
    pauses: BTreeMap<Part, Pause>,
}

/// What was there before a change.
pub(super) enum PoolChange {
    Task(TaskId, Option<Box<Task>>),
    Steps(TaskId, Option<Vec<Step>>),
    /// So many steps were appended.
    Told(TaskId, usize),
    Evidence(TaskId, Option<Vec<Evidence>>),
    Lane(LaneKey, Option<Lane>),
    LanesMade(LaneId),
    Schedule(ScheduleId, Option<Box<Schedule>>),
    Pause(Part, Option<Pause>),
}

impl Pool {
    /// Sets again what was there.
    pub(super) fn revert(&mut self, change: PoolChange) {
        match change {
            PoolChange::Task(id, old) => drop(self.set_task(id, old.map(|task| *task))),
            PoolChange::Steps(id, old) => drop(set(&mut self.steps, id, old)),
            PoolChange::Told(id, count) => {
                let steps = self.steps.entry(id).or_default();
                steps.truncate(steps.len().saturating_sub(count));
            }
            PoolChange::Evidence(id, old) => drop(set(&mut self.evidence, id, old)),
            PoolChange::Lane(key, old) => drop(set(&mut self.lanes, key, old)),
            PoolChange::LanesMade(old) => self.lanes_made = old,
            PoolChange::Schedule(id, old) => drop(set(&mut self.schedules, id, old.map(|it| *it))),
            PoolChange::Pause(part, old) => drop(set(&mut self.pauses, part, old)),
        }
    }

    fn put(&mut self, decided: &Decided, note: &mut impl FnMut(PoolChange)) -> Result<(), WriteError> {
        let id = decided.task.id;
        let old = self.tasks.get(&id).cloned();
        let task = match &old {
            Some(old) => as_submitted(&decided.task, old),
            None => decided.task.clone(),
        };
        if key_of(&task).and_then(|key| self.keys.get(&key)).is_some_and(|holder| *holder != id) {
            return Err(conflict::task_key(&task));
        }
        self.enter_lane(&task, note);
        let old = self.set_task(id, Some(task));
        note(PoolChange::Task(id, old.clone().map(Box::new)));
        if let Some(old) = &old {
            self.leave_lane(old, note);
        }
        self.steps.entry(id).or_default().extend_from_slice(&decided.steps);
        note(PoolChange::Told(id, decided.steps.len()));
        Ok(())
    }

    fn put_evidence(&mut self, id: TaskId, evidence: &Evidence, note: &mut impl FnMut(PoolChange)) {
        let old = self.evidence.get(&id).cloned();
        let kept = self.evidence.entry(id).or_default();
        kept.push(evidence.clone());
        kept.drain(..kept.len().saturating_sub(EVIDENCE_MAX));
        note(PoolChange::Evidence(id, old));
    }

    fn remove(&mut self, id: TaskId, note: &mut impl FnMut(PoolChange)) -> bool {
        if !self.tasks.get(&id).is_some_and(|task| task.state.is_final()) {
            return false;
        }
        let old = self.set_task(id, None);
        note(PoolChange::Task(id, old.clone().map(Box::new)));
        if let Some(old) = &old {
            self.leave_lane(old, note);
        }
        note(PoolChange::Steps(id, self.steps.remove(&id)));
        note(PoolChange::Evidence(id, self.evidence.remove(&id)));
        true
    }

    fn put_schedule(
        &mut self,
        schedule: &Schedule,
        note: &mut impl FnMut(PoolChange),
    ) -> Result<(), WriteError> {
        let same = |other: &Schedule| {
            other.id != schedule.id
                && other.name == schedule.name
                && other.owner.party() == schedule.owner.party()
        };
        if self.schedules.values().any(same) {
            return Err(conflict::schedule_name(schedule));
        }
        let old = self.schedules.insert(schedule.id, schedule.clone());
        note(PoolChange::Schedule(schedule.id, old.map(Box::new)));
        Ok(())
    }

    fn remove_schedule(&mut self, id: ScheduleId, note: &mut impl FnMut(PoolChange)) -> bool {
        let old = self.schedules.remove(&id);
        let was_there = old.is_some();
        note(PoolChange::Schedule(id, old.map(Box::new)));
        was_there
    }

    fn set_pause(&mut self, part: &Part, pause: Option<&Pause>, note: &mut impl FnMut(PoolChange)) -> bool {
        let old = set(&mut self.pauses, part.clone(), pause.cloned());
        let was_there = old.is_some();
        note(PoolChange::Pause(part.clone(), old));
        was_there
    }

    fn enter_lane(&mut self, task: &Task, note: &mut impl FnMut(PoolChange)) {
        let key = task.lane();
        let old = self.lanes.get(&key).copied();
        let mut lane = old.unwrap_or_else(|| {
            note(PoolChange::LanesMade(self.lanes_made));
            self.lanes_made = self.lanes_made.next();
            Lane { id: self.lanes_made, tasks: 0, open: 0 }
        });
        lane.tasks += 1;
        lane.open += u64::from(!task.state.is_final());
        self.lanes.insert(key.clone(), lane);
        note(PoolChange::Lane(key, old));
    }

    fn leave_lane(&mut self, task: &Task, note: &mut impl FnMut(PoolChange)) {
        let key = task.lane();
        let Some(old) = self.lanes.get(&key).copied() else { return };
        let lane = Lane { tasks: old.tasks - 1, open: old.open - u64::from(!task.state.is_final()), ..old };
        set(&mut self.lanes, key.clone(), (lane.tasks > 0).then_some(lane));
        note(PoolChange::Lane(key, Some(old)));
    }

    /// Sets or removes a task and its place in each index. Its lane has a number.
    fn set_task(&mut self, id: TaskId, task: Option<Task>) -> Option<Task> {
        let old = self.tasks.remove(&id);
        if let Some(old) = &old {
            self.index(old, false);
        }
        if let Some(task) = task {
            self.index(&task, true);
            self.tasks.insert(id, task);
        }
        old
    }

    fn index(&mut self, task: &Task, is_there: bool) {
        let id = task.id;
        let lane = self.lanes.get(&task.lane()).map_or(LaneId(0), |lane| lane.id);
        let concurrency = task.spec.concurrency.as_ref();
        if let Some(key) = key_of(task) {
            set(&mut self.keys, key, is_there.then_some(id));
        }
        for after in &task.spec.after {
            mark(&mut self.after, (*after, id), is_there);
        }
        count(&mut self.counts, task.state, is_there);
        if !task.state.is_final() {
            count(&mut self.open, task.owner.party(), is_there);
        }
        if let Some(ended_at) = task.ended_at {
            mark(&mut self.ended, (ended_at, id), is_there);
        }
        match (task.state, task.ready_at) {
            (TaskState::Scheduled, _) => {
                if let Some(due_at) = task.due_at.filter(|_| task.waits_for == 0) {
                    mark(&mut self.due, (due_at, id), is_there);
                }
            }
            (TaskState::Ready, Some(ready_at)) => {
                if !task.parked {
                    mark(&mut self.standing, (lane, ready_at, id), is_there);
                } else if let Some(concurrency) = concurrency {
                    let place = (concurrency.key.clone(), lane, concurrency.limit, ready_at, id);
                    mark(&mut self.parked, place, is_there);
                }
                if let Some(expires_at) = task.expires_at {
                    mark(&mut self.expiring, (expires_at, id), is_there);
                }
            }
            (TaskState::Leased, _) => {
                mark(&mut self.leased, id, is_there);
                if let Some(concurrency) = concurrency {
                    count(&mut self.working, concurrency.key.clone(), is_there);
                }
            }
            (
                TaskState::Ready
                | TaskState::Done
                | TaskState::Dead
                | TaskState::Cancelled
                | TaskState::Expired,
                _,
            ) => {}
        }
    }
}

/// A task with what was submitted as it was.
fn as_submitted(task: &Task, old: &Task) -> Task {
    Task {
        spec: old.spec.clone(),
        owner: old.owner,
        caller: old.caller.clone(),
        idempotency_key: old.idempotency_key.clone(),
        traceparent: old.traceparent.clone(),
        schedule: old.schedule,
        submitted_at: old.submitted_at,
        ..task.clone()
    }
}

fn key_of(task: &Task) -> Option<(Owner, String)> {
    task.idempotency_key.as_ref().map(|key| (task.owner, key.clone()))
}

fn mark<T: Ord>(set: &mut BTreeSet<T>, item: T, is_there: bool) {
    if is_there {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

/// One more or one less; what is none is not listed.
fn count<K: Ord, N>(counts: &mut BTreeMap<K, N>, key: K, is_more: bool)
where
    N: Copy + Default + PartialEq + From<u8> + std::ops::Add<Output = N> + std::ops::Sub<Output = N>,
{
    let old = counts.get(&key).copied().unwrap_or_default();
    let new = if is_more { old + N::from(1) } else { old - N::from(1) };
    set(counts, key, (new != N::default()).then_some(new));
}
