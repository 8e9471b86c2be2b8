//! Shapes of the HTTP API, `/api/v1`. Additions only. Times are RFC 3339 in UTC; durations are
//! numbers with their unit in the name; bytes that may not be text have a `_base64` twin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod consents;
mod locks;
mod people;

pub use crate::error::{ErrorBody, Problem};
use crate::policy::{DocumentText, NetworkText, RootText};
pub use consents::{ConsentApprove, ConsentDeny, ConsentDetails, ConsentRuleView, ConsentView};
pub use locks::{LockRequest, LockView, RecoveriesSet, RecoveriesView};
pub use people::{
    GrantRequest, LoggedIn, Login, PasswordChange, PasswordText, RoleGrantView, TokenCreated, TokenRequest,
    TokenView, UserPatch, UserRequest, UserView, WhoAmI,
};

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Send as `cursor` for the next page; missing on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// A node, in lists and alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `online`, `offline` or `quarantined`.
    pub state: String,
    /// The hub's labels.
    pub labels: BTreeMap<String, String>,
    /// Operating system, as the node says.
    pub os: String,
    /// Processor architecture, as the node says.
    pub arch: String,
    /// Host name, as the node says.
    pub hostname: String,
    /// Version of its program.
    pub version: String,
    /// Logical processors.
    pub cpus: u32,
    /// Physical memory, bytes.
    pub memory_bytes: u64,
    /// Known tools on its path.
    pub tools: Vec<String>,
    /// `strict` or `permissive`.
    pub policy_mode: String,
    /// Profile of its policy.
    pub policy_profile: String,
    /// Revision of its policy.
    pub policy_revision: u64,
    /// Level of its sandbox.
    pub sandbox: String,
    /// The layers of its sandbox, as it found them at its start.
    #[serde(default)]
    pub layers: Vec<LayerView>,
    /// Folders that its owner gives for work.
    #[serde(default)]
    pub work: Vec<String>,
    /// Epoch of its last link.
    pub epoch: u64,
    /// Open runs.
    pub runs_open: usize,
    /// What stops everything on it from being started, when something does.
    #[serde(default)]
    pub lock: Option<NodeLock>,
    /// When it was last heard; the present moment while it is online.
    pub last_seen_at: Option<String>,
    /// When it joined.
    pub joined_at: String,
}

/// One layer of a node's sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LayerView {
    /// `landlock`, `seccomp`, `pid`, `mount`, …
    pub name: String,
    /// `held`, `part` or `missing`.
    pub state: String,
    /// A sentence on it, such as what would mend it; may be empty.
    pub note: String,
}

/// A lock that holds on a node, by its name or by one of its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeLock {
    /// UUID of the lock.
    pub id: String,
    /// What whoever would start something is told.
    pub message: String,
    /// When it stops holding by itself.
    pub expires_at: Option<String>,
}

/// Changes to a node's record. What is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodePatch {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels to set; `null` removes one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

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
    /// The node refused the run. The only line of such a one.
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

/// `POST /invites`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InviteRequest {
    /// Labels for the joining node.
    pub labels: BTreeMap<String, String>,
    /// Policy profile for the joining node; `strict` when missing.
    pub profile: Option<String>,
    /// The profile beyond which the node's policy may never be set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_profile: Option<String>,
    /// Name or id of the user whose the node will be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Life; 15 minutes when missing.
    pub ttl_ms: Option<u64>,
}

/// The answer to `POST /invites`: the only time the secret is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteCreated {
    /// `CXI1.…`.
    pub invite: String,
    /// UUID.
    pub id: String,
    /// When it ends.
    pub expires_at: String,
    /// What to run on the machine, with the invite read from a file.
    pub command: String,
}

/// An invite in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteView {
    /// UUID.
    pub id: String,
    /// `open`, `used`, `expired` or `revoked`.
    pub state: String,
    /// Labels for the joining node.
    pub labels: BTreeMap<String, String>,
    /// Profile for the joining node.
    pub profile: String,
    /// The profile beyond which the node's policy may never be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_profile: Option<String>,
    /// UUID of the user whose the node will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: String,
    /// When it ends.
    pub expires_at: String,
    /// UUID of the node that used it.
    pub used_by: Option<String>,
}

/// A node's policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// The node's name.
    pub node: String,
    /// Raised by each change; the ETag.
    pub revision: u64,
    /// The profile it was last set to.
    pub profile: String,
    /// `strict` or `permissive`.
    pub mode: String,
    /// Programs that may be started.
    pub allow: Vec<GrantView>,
    /// Programs that may not.
    pub deny: Vec<String>,
    /// Variables that may be set.
    pub env: Vec<String>,
    /// Longest run.
    pub timeout_ms_max: u64,
    /// Last change.
    pub changed_at: String,
    /// The whole of it.
    #[serde(default)]
    pub document: DocumentText,
}

/// Leave to start a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantView {
    /// Name or absolute path.
    pub program: String,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// `PUT /policies/{node}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySet {
    /// `strict`, `dev`, `ci`, `permissive`, or a profile that the hub keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Exactly this instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<DocumentText>,
    /// Only the connections that runs may open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkText>,
    /// Only the least level of the sandbox: `partial`, `kernel` or `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// End live runs that the new policy would refuse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill: bool,
}

/// `POST /policies/{node}/allow` and `…/deny`: one of program, root and port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyGrant {
    /// Name or absolute path of a program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Only for that time (a program that is allowed).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// Whatever its arguments (a program that is allowed).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_arguments: bool,
    /// Files that runs may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootText>,
    /// A port that runs may connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// End live runs that the new policy would refuse (deny only).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill: bool,
}

/// `POST /policies/{node}/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRollback {
    /// The revision whose content is to hold again, as a new revision.
    pub revision: u64,
    /// End live runs that it would refuse.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill: bool,
}

/// `POST /policies/{node}/diff`: one of profile, document and revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyCompare {
    /// A profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// A document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<DocumentText>,
    /// An earlier revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// What setting it would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyDifference {
    /// For people: each begins with `+`, `-`, `!`, or with `=` when nothing changes.
    pub lines: Vec<String>,
}

/// One revision of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyRevision {
    /// Its number.
    pub revision: u64,
    /// The profile it was last set to; missing when the revision cannot be verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// `strict` or `permissive`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Who made it.
    pub changed_by: String,
    /// When.
    pub changed_at: String,
    /// What it changed, in words.
    pub changes: String,
    /// blake3 of its bytes, hex: the `policy_hash` of audit rows.
    pub hash: String,
}

/// A profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProfileView {
    /// Its name.
    pub name: String,
    /// Whether every hub has it.
    pub built_in: bool,
    /// `strict` or `permissive`.
    pub mode: String,
    /// What it says.
    pub document: DocumentText,
    /// Who changed it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
}

/// `POST /policies/{node}/test`: what would be said to this command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables that would be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The time that would be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// The answer to a policy test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyVerdict {
    /// Whether it may run.
    pub allowed: bool,
    /// Whether a person would be asked first.
    #[serde(default)]
    pub ask: bool,
    /// The rule that says so.
    pub rule: String,
    /// Whose rule it is: `hub`, or `local` for the ceiling of the machine's owner.
    #[serde(default)]
    pub by: String,
    /// The level of the sandbox that the node reached; missing before it was ever here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The refusal, when it may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: String,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// `allowed` or `denied`.
    pub outcome: String,
    /// Code or rule behind the answer.
    pub reason: Option<String>,
    /// The node's UUID.
    pub node: Option<String>,
    /// The run's UUID.
    pub run: Option<String>,
    /// The policy revision by which it was judged.
    pub policy_revision: Option<u64>,
    /// The exact command.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub argv: Vec<String>,
    /// One sentence more.
    pub detail: Option<String>,
    /// UUID of the token with which it was asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub token: Option<String>,
    /// blake3 of the policy document by which it was judged, hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub policy_hash: Option<String>,
    /// UUID of the question that allowed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub consent: Option<String>,
    /// The row's place in the hash chain, hex.
    pub hash: String,
}

/// `GET /audit/verify`: whether the audit log is what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditVerdictView {
    /// Whether everything fits.
    pub ok: bool,
    /// The last row that was looked at; all before it fit.
    pub rows: u64,
    /// Its hash, hex. Keep both elsewhere: `cortex audit verify --head ROWS:HEAD` compares.
    pub head: String,
    /// Witnesses that agree: the anchor in the data directory, and nodes.
    pub witnesses: usize,
    /// The first row that does not fit, or that is missing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub broken_at: Option<u64>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// An event on `GET /events` (SSE): `id:` is `seq`, `event:` is `kind`. An `event: gap` has
/// [`EventGap`] as its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its number.
    pub seq: u64,
    /// What.
    pub kind: String,
    /// When.
    pub at: String,
    /// The node's UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The run's UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Who caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The thing concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// One word or sentence more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Events that were trimmed from the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventGap {
    /// The first that is missing.
    pub from: u64,
    /// The first that is there.
    pub to: u64,
}

/// `GET /stats`: the hub at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatsView {
    /// Version of the hub.
    pub version: String,
    /// `sqlite`, `memory`.
    pub store: String,
    /// Where nodes dial.
    pub grpc: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Enrolled nodes.
    pub nodes: usize,
    /// Connected nodes.
    pub nodes_online: usize,
    /// Open runs.
    pub runs_open: usize,
    /// Event listeners.
    pub listeners: usize,
    /// Writes that wait for the store.
    pub store_queue: u64,
    /// Durable writes so far.
    pub store_writes: u64,
    /// Commits so far; each took one or more writes.
    pub store_commits: u64,
    /// Time of the last commit with its sync.
    pub store_commit_us: u64,
    /// Bytes free on the disk of the data directory; missing when it does not say so in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// Below this output of runs is held back at the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_reserve_bytes: Option<u64>,
    /// Nodes whose policy is PERMISSIVE, by name.
    pub permissive_nodes: Vec<String>,
    /// What was seen that does not fit the audit log, since the hub started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_broken: Option<String>,
}
