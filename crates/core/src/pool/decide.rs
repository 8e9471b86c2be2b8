//! The decision: what may follow what, on one task. Whoever works on a task is known by the number
//! of its attempt and by nothing else: a report of any other attempt is refused `stale_attempt`.

mod draft;
#[cfg(test)]
pub(super) mod tests;

use super::{Holder, Priority, Said, Step, StepKind, Task, TaskResult};
use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::id::{Attempt, NodeId, TaskId};
use crate::time::WallTime;
use draft::Draft;

/// How a lease ended without a report of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// It was not extended in its time.
    Expired,
    /// Its node went and did not come back in its grace.
    NodeGone,
    /// The worker gave it back. Not counted as a try.
    GivenBack,
    /// Its node is drained, or its hub took it away. Not counted as a try.
    Drained,
}

impl Lost {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "lease_expired",
            Self::NodeGone => "node_gone",
            Self::GivenBack => "given_back",
            Self::Drained => "drained",
        }
    }

    /// Whether the work itself may be what ended it (POOL rule 7).
    const fn counts(self) -> bool {
        match self {
            Self::Expired | Self::NodeGone => true,
            Self::GivenBack | Self::Drained => false,
        }
    }
}

/// What may happen to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Its time has come, or what it waited for is done: one thing less to wait for.
    Wake {
        /// A task that it waited for is done.
        dependency: bool,
    },
    /// It is passed over: its concurrency key is full. Or that has room again.
    Park(bool),
    /// Somebody takes it.
    Claim(Holder),
    /// Its worker says how far it is.
    Progress {
        /// Which attempt says so.
        attempt: Attempt,
        /// What.
        said: Said,
    },
    /// The work is done.
    Finish {
        /// Which attempt says so.
        attempt: Attempt,
        /// What came of it.
        result: TaskResult,
    },
    /// The work failed.
    Fail {
        /// Which attempt says so.
        attempt: Attempt,
        /// What came of it.
        result: TaskResult,
        /// Trying again would not help.
        is_final: bool,
        /// Any number, for the wait before the next try.
        chance: u64,
    },
    /// The lease ended without a report.
    Lose {
        /// Of which attempt.
        attempt: Attempt,
        /// How.
        how: Lost,
    },
    /// A node's policy denied it: it stays away from there. Its claim, if it was one, is undone.
    Exclude {
        /// Which node.
        node: NodeId,
        /// The rule, for people.
        why: String,
    },
    /// Somebody asks for its end.
    Cancel {
        /// Who.
        by: String,
    },
    /// Its worker has ended it on request.
    Cancelled {
        /// Of which attempt.
        attempt: Attempt,
        /// What came of it until then.
        result: TaskResult,
    },
    /// Its time to start is over.
    Expire,
    /// Its time to start begins anew: no node could have had it.
    Postpone,
    /// Somebody has it tried again, from the start.
    Retry {
        /// Who.
        by: String,
        /// Tasks that it waits for and that are not done.
        waits_for: u32,
    },
    /// Somebody changes its priority.
    Bump {
        /// Who.
        by: String,
        /// To what.
        priority: Priority,
    },
}

/// What a decision came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The task.
    pub task: Task,
    /// What its timeline gets.
    pub steps: Vec<Step>,
    /// What is told.
    pub events: Vec<Event>,
}

/// Applies `command`.
///
/// # Errors
/// `stale_attempt` for a report of an attempt that is not the present one; `conflict` for what cannot
/// follow.
pub fn decide(task: &Task, command: Command, now: WallTime) -> Result<Decided, Refusal> {
    let mut draft = Draft::new(task.clone(), now);
    draft.apply(command)?;
    Ok(draft.decided())
}

/// A task at the moment of its submission, with what is told of it.
pub(super) fn submitted(task: Task, now: WallTime) -> Decided {
    let mut draft = Draft::new(task, now);
    draft.submit();
    draft.decided()
}

/// The refusal of an attempt that is not the present one.
pub(super) fn stale(task: &Task, attempt: Attempt) -> Refusal {
    let message = format!(
        "Attempt {attempt} of task {} has ended; the task is {} at attempt {}.",
        task.id,
        task.state.as_str(),
        task.attempt
    );
    Refusal::new(Code::StaleAttempt, message).detail("attempt", task.attempt.to_string())
}

/// The step of a report that came too late.
pub(super) fn stale_step(task: &Task, attempt: Attempt, holder: Holder, now: WallTime) -> (Step, Event) {
    let step = Step {
        at: now,
        kind: StepKind::StaleReport,
        attempt,
        node: holder.node(),
        run: holder.run(),
        actor: None,
        detail: None,
    };
    let mut event = Event::new(EventKind::TaskStaleReport, now).subject(task.id.to_string());
    (event.node, event.run, event.detail) = (holder.node(), holder.run(), Some(attempt.to_string()));
    (step, event)
}

/// The same where only leases are known.
pub(super) fn stale_lease(id: TaskId, attempt: Attempt) -> Refusal {
    Refusal::new(Code::StaleAttempt, format!("Attempt {attempt} of task {id} has no lease."))
}
