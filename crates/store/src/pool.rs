//! The work pool's part of the port: what is read of tasks, and how they are written. Decisions of
//! `cortex_core::pool` run over it: a [`Tx`] is their [`Table`].
//!
//! **Lanes.** A lane has its number for as long as a task is in it, whatever the task's state, and no
//! number is given twice: a lane that went and came again has another one. So whoever keeps lanes in
//! mind asks for [`PoolRead::lane`] after each put, which costs no query within a transaction.
//!
//! Never here: decisions, and when leases end.

use std::collections::BTreeMap;

use cortex_core::id::{LaneId, ScheduleId, TaskId};
use cortex_core::pool::lane::{Head, LaneKey};
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::schedule::Schedule;
use cortex_core::pool::{Decided, Evidence, Owner, Step, Table, Task, TaskState};
use cortex_core::time::WallTime;

use crate::{StoreError, Tx, WriteError};

/// Which tasks to list. All conditions must hold. Newest first.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    /// Only in one of these states; all when empty.
    pub states: Vec<TaskState>,
    /// Only of this party, see [`Owner::party`].
    pub party: Option<Owner>,
    /// Only with this label.
    pub label: Option<(String, String)>,
    /// Only those that this schedule made.
    pub schedule: Option<ScheduleId>,
    /// Only older than this one: the cursor.
    pub before: Option<TaskId>,
}

/// Reading tasks. Each method costs one query, or one for each of what it is asked for.
pub trait PoolRead {
    /// A task by id.
    fn task(&self, id: TaskId) -> Result<Option<Task>, StoreError>;
    /// The task that this very owner submitted with this key: a token has keys of its own, and a person's
    /// sessions have theirs.
    fn task_by_key(&self, owner: Owner, key: &str) -> Result<Option<Task>, StoreError>;
    /// Tasks, newest first, at most `limit`.
    fn tasks(&self, filter: &TaskFilter, limit: usize) -> Result<Vec<Task>, StoreError>;
    /// A task's timeline, oldest step first.
    fn task_steps(&self, id: TaskId) -> Result<Vec<Step>, StoreError>;
    /// Reports of a task's ended attempts, oldest first.
    fn task_evidence(&self, id: TaskId) -> Result<Vec<Evidence>, StoreError>;

    /// The number of a lane that has tasks.
    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, StoreError>;
    /// Lanes with tasks that have not ended, by number.
    fn lanes(&self) -> Result<Vec<(LaneId, LaneKey)>, StoreError>;
    /// Of each of these lanes the task that is ready, not parked, and has waited longest.
    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, StoreError>;
    /// Scheduled tasks that wait for this one, by id.
    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, StoreError>;
    /// How many tasks with this concurrency key are leased.
    fn working(&self, key: &str) -> Result<u32, StoreError>;
    /// Of each lane, and in it of each limit, the parked task with this key that has waited longest.
    fn parked(&self, key: &str) -> Result<Vec<TaskId>, StoreError>;

    /// Scheduled tasks that wait for nothing but a time that has come, the longest due in front.
    fn tasks_due(&self, now: WallTime, limit: usize) -> Result<Vec<TaskId>, StoreError>;
    /// When the next task is due that waits for nothing else.
    fn next_due(&self) -> Result<Option<WallTime>, StoreError>;
    /// Tasks that are ready and whose time to start is over, the longest over in front.
    fn tasks_expiring(&self, now: WallTime, limit: usize) -> Result<Vec<TaskId>, StoreError>;
    /// When the time to start of the next ready task is over.
    fn next_expiry(&self) -> Result<Option<WallTime>, StoreError>;
    /// All tasks that somebody works on, oldest first: what a restarted hub takes up again.
    fn leased_tasks(&self) -> Result<Vec<Task>, StoreError>;

    /// How many tasks have not ended: of one party, or of all.
    fn open_tasks(&self, party: Option<Owner>) -> Result<u64, StoreError>;
    /// How many tasks there are of each state that has some.
    fn task_counts(&self) -> Result<BTreeMap<TaskState, u64>, StoreError>;
    /// Ended tasks and when they ended, those that ended first in front, at most `limit`.
    fn ended_tasks(&self, limit: usize) -> Result<Vec<(TaskId, WallTime)>, StoreError>;

    /// A schedule by id.
    fn schedule(&self, id: ScheduleId) -> Result<Option<Schedule>, StoreError>;
    /// All schedules, by name.
    fn schedules(&self) -> Result<Vec<Schedule>, StoreError>;
    /// Schedules that are on and whose next tick has come, the longest due in front.
    fn schedules_due(&self, now: WallTime, limit: usize) -> Result<Vec<Schedule>, StoreError>;
    /// When the next tick of one that is on is due.
    fn next_tick(&self) -> Result<Option<WallTime>, StoreError>;
    /// Parts of the pool that stand still.
    fn pauses(&self) -> Result<Vec<Pause>, StoreError>;
}

/// Writing tasks, within one transaction.
pub trait PoolTx: PoolRead {
    /// Keeps a task and the steps of the decision, not its events. What was submitted is written
    /// with the first put and never changes. A second task of the same owner and key is refused
    /// `Conflict`.
    fn put_task(&mut self, decided: &Decided) -> Result<(), WriteError>;
    /// Keeps a report that came too late; the oldest beyond `EVIDENCE_MAX` of the task go.
    fn put_task_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), StoreError>;
    /// Removes those of these tasks that have ended, with all that belongs to them, and returns how
    /// many went. One that is open, or not there, is left out.
    fn remove_tasks(&mut self, tasks: &[TaskId]) -> Result<usize, StoreError>;
    /// Inserts or replaces a schedule. A second one of the same party and name is refused `Conflict`.
    fn put_schedule(&mut self, schedule: &Schedule) -> Result<(), WriteError>;
    /// Removes a schedule; whether there was one. Its tasks stay.
    fn remove_schedule(&mut self, id: ScheduleId) -> Result<bool, StoreError>;
    /// Inserts or replaces a pause.
    fn put_pause(&mut self, pause: &Pause) -> Result<(), StoreError>;
    /// Removes a pause; whether there was one.
    fn remove_pause(&mut self, part: &Part) -> Result<bool, StoreError>;
}

impl Table for dyn Tx + '_ {
    type Error = WriteError;

    fn task(&self, id: TaskId) -> Result<Option<Task>, WriteError> {
        Ok(PoolRead::task(self, id)?)
    }

    fn task_by_key(&self, owner: Owner, key: &str) -> Result<Option<Task>, WriteError> {
        Ok(PoolRead::task_by_key(self, owner, key)?)
    }

    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, WriteError> {
        Ok(PoolRead::waiting_for(self, id)?)
    }

    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, WriteError> {
        Ok(PoolRead::heads(self, lanes)?)
    }

    fn working(&self, key: &str) -> Result<u32, WriteError> {
        Ok(PoolRead::working(self, key)?)
    }

    fn parked(&self, key: &str) -> Result<Vec<TaskId>, WriteError> {
        Ok(PoolRead::parked(self, key)?)
    }

    fn put(&mut self, decided: &Decided) -> Result<(), WriteError> {
        self.put_task(decided)?;
        for event in &decided.events {
            self.append_event(event)?;
        }
        Ok(())
    }

    fn put_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), WriteError> {
        Ok(self.put_task_evidence(id, evidence)?)
    }

    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, WriteError> {
        Ok(PoolRead::lane(self, key)?)
    }
}
