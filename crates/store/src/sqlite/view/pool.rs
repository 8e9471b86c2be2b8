//! The pool's port over a connection: the writer asks its ledger before the database, a reader the
//! tables alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::id::{LaneId, ScheduleId, TaskId};
use cortex_core::pool::lane::{Head, LaneKey};
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::schedule::Schedule;
use cortex_core::pool::{Decided, Evidence, Owner, Step, Task, TaskState};
use cortex_core::time::WallTime;

use super::super::ledger::Ledger;
use super::super::rows::{lanes, pauses, schedules, tasks};
use super::{Logs, View};
use crate::{PoolRead, PoolTx, StoreError, TaskFilter, WriteError};

/// What there is beside the connection.
pub(in super::super) trait Beside {
    /// The writer's ledger.
    fn ledger(&self) -> Option<&Ledger>;
}

impl Beside for () {
    fn ledger(&self) -> Option<&Ledger> {
        None
    }
}

impl Beside for Logs<'_> {
    fn ledger(&self) -> Option<&Ledger> {
        Some(self.ledger)
    }
}

impl<L: Beside> View<'_, L> {
    /// Calls `read` with a way to the lanes by their numbers, each looked up once.
    fn with_lanes<T>(
        &self,
        read: impl FnOnce(&tasks::LaneOf<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let seen = RefCell::new(BTreeMap::new());
        read(&|id| {
            if let Some(key) = self.logs.ledger().and_then(|ledger| ledger.lane_key(id)) {
                return Ok(key);
            }
            if let Some(key) = seen.borrow().get(&id) {
                return Ok(Arc::clone(key));
            }
            let key = lanes::get(self.conn, id)?;
            let key =
                key.ok_or_else(|| StoreError::Damaged(format!("column lane: there is no lane {id}")))?;
            let key = Arc::new(key);
            seen.borrow_mut().insert(id, Arc::clone(&key));
            Ok(key)
        })
    }
}

impl<L: Beside> View<'_, L> {
    /// The task, of which the writer remembers where it stands.
    fn saw(&self, (task, place): (Task, tasks::Place)) -> Task {
        if let Some(ledger) = self.logs.ledger() {
            ledger.saw(task.id, place);
        }
        task
    }
}

impl<L: Beside> PoolRead for View<'_, L> {
    fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError> {
        if let Some(task) = self.logs.ledger().and_then(|ledger| ledger.held(id)) {
            return Ok(Some(task.clone()));
        }
        let found = self.with_lanes(|lane_of| tasks::get(self.conn, id, lane_of))?;
        Ok(found.map(|found| self.saw(found)))
    }

    fn task_by_key(&self, party: Owner, key: &str) -> Result<Option<Task>, StoreError> {
        let found = self.with_lanes(|lane_of| tasks::by_key(self.conn, party, key, lane_of))?;
        Ok(found.map(|found| self.saw(found)))
    }

    fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError> {
        self.with_lanes(|lane_of| tasks::list(self.conn, filter, limit, lane_of))
    }

    fn task_steps(&self, id: TaskId) -> Result<Vec<Step>, StoreError> {
        tasks::steps(self.conn, id)
    }

    fn task_evidence(&self, id: TaskId) -> Result<Vec<Evidence>, StoreError> {
        tasks::evidence(self.conn, id)
    }

    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, StoreError> {
        match self.logs.ledger() {
            Some(ledger) => Ok(ledger.lane(key)),
            None => lanes::by_key(self.conn, key),
        }
    }

    fn lanes(&self) -> Result<Vec<(LaneId, LaneKey)>, StoreError> {
        match self.logs.ledger() {
            Some(ledger) => Ok(ledger.open_lanes()),
            None => {
                let open = lanes::all(self.conn)?.into_iter().filter(|(.., counted)| counted.open > 0);
                Ok(open.map(|(id, key, _)| (id, key)).collect())
            }
        }
    }

    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, StoreError> {
        let head = |lane: &LaneId| match self.logs.ledger() {
            Some(ledger) => ledger.head(self.conn, *lane),
            None => Ok(tasks::head(self.conn, *lane)?.map(|(ready_at, task)| Head {
                lane: *lane,
                ready_at,
                task,
            })),
        };
        lanes.iter().filter_map(|lane| head(lane).transpose()).collect()
    }

    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, StoreError> {
        if self.logs.ledger().is_some_and(|ledger| !ledger.has_waiters()) {
            return Ok(Vec::new());
        }
        tasks::waiting_for(self.conn, id)
    }

    fn working(&self, key: &str) -> Result<u32, StoreError> {
        tasks::working(self.conn, key)
    }

    fn parked(&self, key: &str) -> Result<Vec<TaskId>, StoreError> {
        tasks::parked(self.conn, key)
    }

    fn tasks_due(&self, now: WallTime, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        tasks::due(self.conn, now, limit)
    }

    fn next_due(&self) -> Result<Option<WallTime>, StoreError> {
        tasks::next_due(self.conn)
    }

    fn tasks_expiring(&self, now: WallTime, limit: usize) -> Result<Vec<TaskId>, StoreError> {
        tasks::expiring(self.conn, now, limit)
    }

    fn next_expiry(&self) -> Result<Option<WallTime>, StoreError> {
        tasks::next_expiry(self.conn)
    }

    fn leased_tasks(&self) -> Result<Vec<Task>, StoreError> {
        self.with_lanes(|lane_of| tasks::leased(self.conn, lane_of))
    }

    fn open_tasks(&self, party: Option<Owner>) -> Result<u64, StoreError> {
        match (self.logs.ledger(), party) {
            (Some(ledger), Some(party)) => Ok(ledger.open_of(party)),
            (None, Some(party)) => lanes::open_of(self.conn, party),
            (_, None) => {
                let counts = self.task_counts()?;
                Ok(counts.iter().filter(|(state, _)| !state.is_final()).map(|(_, tasks)| tasks).sum())
            }
        }
    }

    fn task_counts(&self) -> Result<BTreeMap<TaskState, u64>, StoreError> {
        match self.logs.ledger() {
            Some(ledger) => Ok(ledger.states().clone()),
            None => lanes::states(self.conn),
        }
    }

    fn ended_tasks(&self, limit: usize) -> Result<Vec<(TaskId, WallTime)>, StoreError> {
        tasks::ended(self.conn, limit)
    }

    fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
        schedules::get(self.conn, id)
    }

    fn schedules(&self) -> Result<Vec<Schedule>, StoreError> {
        schedules::all(self.conn)
    }

    fn schedules_due(&self, now: WallTime, limit: usize) -> Result<Vec<Schedule>, StoreError> {
        schedules::due(self.conn, now, limit)
    }

    fn next_tick(&self) -> Result<Option<WallTime>, StoreError> {
        schedules::next(self.conn)
    }

    fn pauses(&self) -> Result<Vec<Pause>, StoreError> {
        pauses::all(self.conn)
    }
}

impl PoolTx for View<'_, Logs<'_>> {
    fn put_task(&mut self, decided: &Decided) -> Result<(), WriteError> {
        let task = &decided.task;
        let old = self.logs.ledger.place(self.conn, task.id)?;
        // A key that is taken is noticed before anything is written.
        let row = match old {
            Some(old) => Err(old),
            None => Ok(tasks::submit(self.conn, task)?),
        };
        let lane = self.logs.ledger.enter(task, old);
        let new = tasks::put(self.conn, decided, lane, row)?;
        self.logs.ledger.written(task, old, new);
        Ok(())
    }

    fn put_task_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), StoreError> {
        tasks::put_evidence(self.conn, id, evidence)
    }

    fn remove_tasks(&mut self, ids: &[TaskId]) -> Result<usize, StoreError> {
        let mut gone = 0;
        for id in ids {
            let Some(place) = self.logs.ledger.place(self.conn, *id)? else { continue };
            let Some(lane) = self.logs.ledger.lane_key(place.lane).filter(|_| place.state.is_final()) else {
                continue;
            };
            tasks::remove(self.conn, *id)?;
            self.logs.ledger.removed(*id, lane.owner.party(), place);
            gone += 1;
        }
        Ok(gone)
    }

    fn put_schedule(&mut self, schedule: &Schedule) -> Result<(), WriteError> {
        schedules::put(self.conn, schedule)
    }

    fn remove_schedule(&mut self, id: ScheduleId) -> Result<bool, StoreError> {
        schedules::remove(self.conn, id)
    }

    fn put_pause(&mut self, pause: &Pause) -> Result<(), StoreError> {
        pauses::put(self.conn, pause)
    }

    fn remove_pause(&mut self, part: &Part) -> Result<bool, StoreError> {
        pauses::remove(self.conn, part)
    }
}
