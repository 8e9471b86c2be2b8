//! The work pool: tasks that are kept until somebody has done them, and claimed by lease.
//!
//! ```text
//! scheduled → ready → leased → done
//!     ↑         ↑        ├──→ dead        (failed for the last time)
//!     └─────────┴────────┘    (failed, or its lease was lost, and it is tried again)
//! scheduled, ready → expired              (did not start in its time)
//! scheduled, ready, leased → cancelled
//! ```
//! [`decide`] says what may follow what, on one task. [`desk`] does what concerns more than one,
//! over a [`Table`] that a store is: claims in their order, keys that are full, tasks that wait for
//! others. [`order`] is the one place where it is written who goes first.

pub mod attempt;
pub mod board;
mod decide;
pub mod desk;
pub mod explain;
pub mod figures;
pub mod lane;
pub mod leases;
pub mod order;
pub mod pause;
pub mod quota;
pub mod room;
pub mod schedule;
mod spec;
mod state;
mod table;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::id::{Attempt, NodeId, RunId, ScheduleId, TaskId, TokenId, UserId};
use crate::time::WallTime;

pub use decide::{Command, Decided, Lost, decide};
pub use spec::{Backoff, Concurrency, Kind, Priority, TaskSpec, Work};
pub use state::{StepKind, TaskState};
pub use table::Table;

/// Whose a task is: its rights are asked for again whenever it is to start, and shares of the pool
/// are counted by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The token by which it was submitted; `None` for a person's session, which ends before the
    /// work does.
    pub token: Option<TokenId>,
    /// The person.
    pub user: Option<UserId>,
}

impl Owner {
    /// Who shares with whom: all that one person has submitted is one, and so is each token that is
    /// nobody's.
    pub const fn party(self) -> Self {
        match self.user {
            Some(_) => Self { token: None, user: self.user },
            None => self,
        }
    }
}

/// Who works on a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A node, by a run.
    Node {
        /// Which node.
        node: NodeId,
        /// The run that is this attempt.
        run: RunId,
    },
    /// A worker with this token, over the API.
    Worker {
        /// Its token.
        token: TokenId,
    },
}

impl Holder {
    /// The node, when it is one.
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Node { node, .. } => Some(*node),
            Self::Worker { .. } => None,
        }
    }

    /// The token, when it is a worker over the API.
    pub const fn worker(&self) -> Option<TokenId> {
        match self {
            Self::Node { .. } => None,
            Self::Worker { token } => Some(*token),
        }
    }

    /// The run, when it is a node's.
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Node { run, .. } => Some(*run),
            Self::Worker { .. } => None,
        }
    }
}

/// A lease as it is kept. When it ends is known to the hub's memory alone ([`leases`]): no argument
/// of safety rests on it, and after a restart each has its whole length again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who has it.
    pub holder: Holder,
    /// Its length, milliseconds.
    pub ms: u64,
    /// When it was given.
    pub since: WallTime,
}

/// How far a worker says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Parts that are done, in whatever unit the worker counts.
    pub done: u64,
    /// Parts in all, when the worker knows.
    pub total: Option<u64>,
    /// A word for people. At most [`crate::limits::PROGRESS_NOTE_BYTES_MAX`] bytes.
    pub note: Option<String>,
}

/// How far an attempt is: what its worker said last, and nothing of what it said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What.
    pub said: Said,
    /// When.
    pub at: WallTime,
    /// When the last event told of it.
    pub told_at: WallTime,
}

/// What came of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskResult {
    /// Exit code, of a command.
    pub code: Option<i32>,
    /// Signal that ended it, of a command.
    pub signal: Option<i32>,
    /// What a worker gave; of a command the end of its standard output. At most
    /// [`crate::limits::RESULT_BYTES_MAX`] bytes.
    pub output: Vec<u8>,
    /// A sentence for people.
    pub message: Option<String>,
}

/// One task as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What was submitted; never changes.
    pub spec: Arc<TaskSpec>,
    /// Whose it is.
    pub owner: Owner,
    /// Who submitted it: `token:<name>`, `user:<name>`.
    pub caller: String,
    /// The owner's key: the same key is the same task (POOL rule 6). The key space is the owner's and not
    /// its party's, as it is of runs: an AI client learns nothing of the keys of its person.
    pub idempotency_key: Option<String>,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// The schedule that made it.
    pub schedule: Option<ScheduleId>,
    /// How soon, at present.
    pub priority: Priority,
    /// Where it stands.
    pub state: TaskState,
    /// The number of the last attempt.
    pub attempt: Attempt,
    /// Attempts that failed or were lost; those that were given back do not count.
    pub tries: u32,
    /// It is ready, and was passed over because its concurrency key was full.
    pub parked: bool,
    /// Tasks that it waits for and that are not done.
    pub waits_for: u32,
    /// When it was submitted.
    pub submitted_at: WallTime,
    /// Not before then.
    pub due_at: Option<WallTime>,
    /// Since when it waits for a claim; its age counts from there. Kept over attempts.
    pub ready_at: Option<WallTime>,
    /// It must have started by then.
    pub expires_at: Option<WallTime>,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// How far the last attempt said that it is; a new attempt begins without.
    pub progress: Option<Progress>,
    /// Nodes whose policy denied it.
    pub excluded: BTreeSet<NodeId>,
    /// When it came to its end.
    pub ended_at: Option<WallTime>,
    /// What came of the last attempt that reported.
    pub result: Option<TaskResult>,
    /// Who asked for its end.
    pub cancelled_by: Option<String>,
    /// Steps of its timeline so far.
    pub steps: u32,
}

impl Task {
    /// Its first try of a start is over: it may not expire any more (POOL rule 8).
    pub fn has_started(&self) -> bool {
        self.attempt > Attempt(0)
    }

    /// Where it waits for a claim.
    pub fn lane(&self) -> lane::LaneKey {
        lane::LaneKey::of(self)
    }
}

/// One step of a task's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, on the hub's wall clock.
    pub at: WallTime,
    /// What.
    pub kind: StepKind,
    /// The attempt that it is about, or the last one before it.
    pub attempt: Attempt,
    /// On which node.
    pub node: Option<NodeId>,
    /// By which run.
    pub run: Option<RunId>,
    /// Who caused it, when somebody asked for it; of a claim by a worker the id of its token.
    pub actor: Option<String>,
    /// A word or sentence more.
    pub detail: Option<String>,
}

/// A report of an attempt that had ended: not taken, and kept for people (POOL rule 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// When it came.
    pub at: WallTime,
    /// Of which attempt.
    pub attempt: Attempt,
    /// Who reported.
    pub holder: Holder,
    /// What.
    pub result: TaskResult,
}
