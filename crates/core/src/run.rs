//! A run: one command on one node, kept (DESIGN §7). The entity as it is stored.
//!
//! ```text
//! queued → running ⇄ disconnected → exited | failed | cancelled | timed_out | lost
//!        ↘ (the policy said no) denied
//! ```
//! A final state is final: a late report changes nothing.

mod decide;
mod spec;
mod state;

use crate::id::{Attempt, ConsentId, NodeId, Revision, RunId, TaskId, TokenId, UserId};
use crate::stream::Positions;
use crate::time::WallTime;

pub use decide::{Command, decide};
pub use spec::RunSpec;
pub use state::{EndCause, RunState};

/// The end of a run as its node reports it, kept in the node's journal until the hub settled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub cause: EndCause,
    /// The exit code, when the process exited.
    pub code: Option<i32>,
    /// The signal, when one ended it.
    pub signal: Option<i32>,
    /// From start to end, milliseconds, on the node's monotonic clock.
    pub duration_ms: u64,
    /// Where its output ends.
    pub output: Positions,
    /// A sentence for people when the cause needs one.
    pub diagnostic: Option<String>,
}

impl Ended {
    /// An end of which only the cause is known: no code, no signal, no time, no output.
    pub const fn new(cause: EndCause) -> Self {
        let output = Positions { stdout: 0, stderr: 0 };
        Self { cause, code: None, signal: None, duration_ms: 0, output, diagnostic: None }
    }
}

/// One run as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id, and the command id on the node.
    pub id: RunId,
    /// Where.
    pub node: NodeId,
    /// What.
    pub spec: RunSpec,
    /// Where it stands.
    pub state: RunState,
    /// Who asked: `token:<name>`.
    pub caller: String,
    /// The policy revision by which it was allowed.
    pub policy_revision: Revision,
    /// The caller's key; the same key on the same node is the same run.
    pub idempotency_key: Option<String>,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub accepted_at: WallTime,
    /// When its process started, on the hub's clock.
    pub started_at: Option<WallTime>,
    /// When it was settled, on the hub's clock.
    pub ended_at: Option<WallTime>,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// From start to end on the node's clock, milliseconds.
    pub duration_ms: Option<u64>,
    /// Where its output ends, once that is known.
    pub output: Positions,
    /// Who asked for its end.
    pub cancelled_by: Option<String>,
    /// A sentence for people when the state needs one.
    pub diagnostic: Option<String>,
    /// With which token it was asked for: a name may be used again, an id is not.
    pub token: Option<TokenId>,
    /// For which user, when the token is one's.
    pub user: Option<UserId>,
    /// The level of the sandbox that it got, once its process started.
    pub sandbox: Option<String>,
    /// The question that allowed it, when there was one.
    pub consent: Option<ConsentId>,
    /// The task that it is an attempt of.
    pub task: Option<(TaskId, Attempt)>,
}

impl Run {
    /// A run at the moment of its acceptance: queued, and nothing has happened to it.
    pub const fn accepted(
        id: RunId,
        node: NodeId,
        spec: RunSpec,
        caller: String,
        policy_revision: Revision,
        now: WallTime,
    ) -> Self {
        Self {
            id,
            node,
            spec,
            state: RunState::Queued,
            caller,
            policy_revision,
            idempotency_key: None,
            traceparent: None,
            accepted_at: now,
            started_at: None,
            ended_at: None,
            code: None,
            signal: None,
            duration_ms: None,
            output: Positions { stdout: 0, stderr: 0 },
            cancelled_by: None,
            diagnostic: None,
            token: None,
            user: None,
            sandbox: None,
            consent: None,
            task: None,
        }
    }
}
