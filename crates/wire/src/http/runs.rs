//! Runs: how they are asked for, what a stream tells of them, and how they stand.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Problem;

/// A command for one or many nodes: `POST /runs`.
///
/// With `Accept: application/x-ndjson` the answer is a stream of [`RunEvent`] of all the runs
/// until each has ended or been refused; closing it leaves the runs alone. Otherwise it is
/// 202 with [`RunsAccepted`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// Names or ids of nodes.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Or all online nodes with these labels: `role=ci,os=linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Program and arguments. No shell sees them.
    pub argv: Vec<String>,
    /// Absolute path on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Ends the run after that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Standard input will follow by `POST /runs/{id}/stdin`.
    #[serde(default)]
    pub stdin: bool,
    /// How many of the nodes may run at once; all when missing. One that waits for a person counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallel: Option<usize>,
    /// Asks a person first, with these words: what the command is for. A person may allow what
    /// `exec.allow` does not, and nothing else that the policy denies. The answer is 403
    /// `consent_required` with `details.consent_id`; a stream waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
}

/// The answer to `POST /runs` without streaming.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunsAccepted {
    /// One per node that accepted it.
    pub runs: Vec<RunView>,
    /// One per node that refused it.
    pub refused: Vec<RunRefused>,
}

/// A node's refusal of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunRefused {
    /// The node as it was named.
    pub node: String,
    /// Why.
    pub error: Problem,
}

/// One line of a run's stream, and of `cortex exec --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RunEvent {
    /// The run is durable and on its way.
    Accepted {
        /// UUID.
        run_id: String,
        /// The node's name.
        node: String,
    },
    /// A person is asked first; what follows is `accepted`, or `refused`. Leaving the stream leaves the
    /// question.
    Asked {
        /// UUID of the question.
        consent_id: String,
        /// UUID of the run that it becomes.
        run_id: String,
        /// The node's name.
        node: String,
        /// The rule that asks.
        rule: String,
        /// When the question ends without an answer.
        expires_at: String,
    },
    /// A piece of output.
    Output {
        /// UUID.
        run_id: String,
        /// The node's name.
        node: String,
        /// `stdout` or `stderr`.
        stream: String,
        /// Of the first byte in its stream.
        offset: u64,
        /// The bytes, when they are UTF-8 on their own.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<String>,
        /// The bytes otherwise.
        #[serde(skip_serializing_if = "Option::is_none")]
        data_base64: Option<String>,
    },
    /// Output is missing: it was lost on the way.
    Lost {
        /// UUID.
        run_id: String,
        /// The node's name.
        node: String,
        /// Where standard output goes on.
        stdout: u64,
        /// Where standard error goes on.
        stderr: u64,
    },
    /// The run's state changed and is not final: `running`, `disconnected`.
    State {
        /// UUID.
        run_id: String,
        /// The node's name.
        node: String,
        /// The state.
        state: String,
    },
    /// The run ended. The last line of a run.
    Exit {
        /// UUID.
        run_id: String,
        /// The node's name.
        node: String,
        /// The final state.
        state: String,
        /// Exit code of the process.
        code: Option<i32>,
        /// Signal that ended it.
        signal: Option<i32>,
        /// From start to end.
        duration_ms: Option<u64>,
        /// A sentence when the state needs one.
        #[serde(skip_serializing_if = "Option::is_none")]
        diagnostic: Option<String>,
    },
    /// The node refused the run, whose only line it is; or the caller may see no more of it, whose last line
    /// it is then.
    Refused {
        /// The node as it was named.
        node: String,
        /// Why.
        error: Problem,
    },
}

/// A run, in lists and alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// UUID.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The node's UUID.
    pub node_id: String,
    /// `queued running disconnected exited failed cancelled timed_out lost denied`.
    pub state: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory, when given.
    pub cwd: Option<String>,
    /// Time after which it is ended, milliseconds, when given.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Whether it was started with standard input.
    #[serde(default)]
    pub stdin: bool,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// Who asked.
    pub caller: String,
    /// The policy revision that allowed it.
    pub policy_revision: u64,
    /// The level of the sandbox that it has or had, once its process started.
    #[serde(default)]
    pub sandbox: Option<String>,
    /// When it was accepted.
    pub accepted_at: String,
    /// When its process started.
    pub started_at: Option<String>,
    /// When it was settled.
    pub ended_at: Option<String>,
    /// From start to end on the node's clock.
    pub duration_ms: Option<u64>,
    /// Bytes of both streams so far.
    pub output_bytes: u64,
    /// Bytes of standard output so far.
    pub stdout_bytes: u64,
    /// Bytes of standard error so far.
    pub stderr_bytes: u64,
    /// Who asked for its end.
    pub cancelled_by: Option<String>,
    /// A sentence when the state needs one.
    pub diagnostic: Option<String>,
    /// UUID of the question, or of the lasting answer, by which it was allowed.
    #[serde(default)]
    pub consent: Option<String>,
    /// UUID of the task that it is an attempt of.
    #[serde(default)]
    pub task_id: Option<String>,
    /// The number of that attempt.
    #[serde(default)]
    pub attempt: Option<u64>,
}

/// `POST /runs/{id}/cancel`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunCancel {
    /// Between TERM and KILL.
    pub grace_ms: Option<u64>,
}

/// The answer to `POST /runs/{id}/stdin?offset=N&eof=BOOL`, whose body is the bytes. It comes
/// when the node has taken them over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InputTaken {
    /// Bytes taken in all.
    pub upto: u64,
}
