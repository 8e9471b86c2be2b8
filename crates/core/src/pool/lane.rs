//! Lanes: tasks that the same claims may have, in the order of their age. What is claimed comes out
//! of the heads of lanes, so that a claim costs the same however many tasks wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Kind, Owner, Priority, Task};
use crate::id::{LaneId, NodeId, TaskId, TokenId};
use crate::lock::Locks;
use crate::name::{Labels, Selector};
use crate::time::WallTime;

/// Lanes with their numbers.
pub type Lanes = Vec<(LaneId, Arc<LaneKey>)>;

/// What tasks of one lane have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneKey {
    /// Whose.
    pub owner: Owner,
    /// What sort of work.
    pub kind: Kind,
    /// How soon.
    pub priority: Priority,
    /// Labels that a node must have.
    pub selector: Selector,
    /// Labels of nodes that are asked first.
    pub prefer: Selector,
    /// Nodes that must not have them.
    pub excluded: BTreeSet<NodeId>,
}

impl LaneKey {
    /// The lane of a task.
    pub fn of(task: &Task) -> Self {
        Self {
            owner: task.owner,
            kind: task.spec.work.kind(),
            priority: task.priority,
            selector: task.spec.selector.clone(),
            prefer: task.spec.prefer.clone(),
            excluded: task.excluded.clone(),
        }
    }

    /// Whether a node with these labels may have them.
    pub fn suits(&self, node: NodeId, labels: &Labels) -> bool {
        self.kind.is_command() && self.selector.matches(labels) && !self.excluded.contains(&node)
    }
}

/// The task of a lane that has waited longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which lane.
    pub lane: LaneId,
    /// Since when it waits.
    pub ready_at: WallTime,
    /// Which task.
    pub task: TaskId,
}

/// Those of these lanes on whose owners no lock holds. To be asked within the transaction of a claim:
/// nothing is handed out behind a lock that was committed before.
pub fn unlocked(lanes: &[(LaneId, Arc<LaneKey>)], locks: &Locks, now: WallTime) -> Lanes {
    let nobody = TokenId::new(uuid::Uuid::nil());
    let is_free = |owner: &Owner| locks.on_caller(owner.token.unwrap_or(nobody), owner.user, now).is_none();
    lanes.iter().filter(|(_, key)| is_free(&key.owner)).cloned().collect()
}
