//! What the pool asks of a store, inside one transaction.

use super::lane::{Head, LaneKey};
use super::{Decided, Evidence, Owner, Task};
use crate::error::Refusal;
use crate::id::{LaneId, TaskId};

/// Tasks within one transaction, which sees its own changes.
pub trait Table {
    /// How it fails; a refusal gives the transaction up.
    type Error: From<Refusal>;

    /// A task.
    fn task(&self, id: TaskId) -> Result<Option<Task>, Self::Error>;
    /// The task that this very owner submitted with this key.
    fn task_by_key(&self, owner: Owner, key: &str) -> Result<Option<Task>, Self::Error>;
    /// Scheduled tasks that wait for this one.
    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, Self::Error>;
    /// Of each of these lanes the task that is ready, not parked, and has waited longest; of two
    /// the one with the lower id. None of a lane without such.
    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, Self::Error>;
    /// How many tasks with this concurrency key are leased.
    fn working(&self, key: &str) -> Result<u32, Self::Error>;
    /// Of each lane, and in it of each limit, the parked task with this key that has waited longest.
    fn parked(&self, key: &str) -> Result<Vec<TaskId>, Self::Error>;
    /// Keeps a task with the steps and events of a decision, and makes its lane when it is the first
    /// of it. A second task of the same owner and key is refused `conflict`.
    fn put(&mut self, decided: &Decided) -> Result<(), Self::Error>;
    /// Keeps a report that came too late; the oldest beyond [`crate::limits::EVIDENCE_MAX`] go.
    fn put_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), Self::Error>;
    /// The number of a lane, when a task ever came into it.
    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, Self::Error>;
}
