//! Shapes of the HTTP API, `/api/v1`. Additions only. Times are RFC 3339 in UTC; durations are
//! numbers with their unit in the name; bytes that may not be text have a `_base64` twin.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod consents;
mod files;
mod locks;
mod nodes;
mod people;
mod policies;
mod pool;
mod runs;
mod schedules;
mod skills;
mod tasks;
mod transfers;
mod workspaces;

pub use crate::error::{ErrorBody, Problem};
pub use consents::{ConsentApprove, ConsentDeny, ConsentDetails, ConsentRuleView, ConsentView};
pub use files::{
    EditStep, EntriesView, EntryView, FileContentView, FileDoneView, FilePatch, FileWrittenView, FreshView,
    MatchView, MatchesView, SkippedView,
};
pub use locks::{LockRequest, LockView, RecoveriesSet, RecoveriesView};
pub use nodes::{LayerView, NodeLock, NodePatch, NodeView};
pub use people::{
    GrantRequest, LoggedIn, Login, PasswordChange, PasswordText, RoleGrantView, TokenCreated, TokenRequest,
    TokenView, UserPatch, UserRequest, UserView, WhoAmI,
};
pub use policies::{
    FileTest, GrantView, PolicyCompare, PolicyDifference, PolicyGrant, PolicyRevision, PolicyRollback,
    PolicySet, PolicyTest, PolicyVerdict, PolicyView, ProfileView,
};
pub use pool::{
    ClaimRequest, Claimed, ClaimedTask, LeaseExtend, LeaseExtended, LeaseProgress, LeaseReport, PoolNode,
    PoolReport, PoolReportAnswer, PoolReportHow, PoolReported, PoolStats,
};
pub use runs::{InputTaken, RunCancel, RunEvent, RunRefused, RunRequest, RunView, RunsAccepted};
pub use schedules::{PauseRequest, PauseView, SchedulePatch, ScheduleRequest, ScheduleView};
pub use skills::{
    MountRequest, MountView, PromoteRequest, PromotedView, SkillDetailView, SkillEntryView, SkillFileView,
    SkillView,
};
pub use tasks::{
    TaskAnswer, TaskBackoff, TaskConcurrency, TaskEvidence, TaskExplained, TaskOutcome, TaskPriority,
    TaskProgress, TaskReason, TaskRequest, TaskStep, TaskStory, TaskSubmission, TaskView, TasksSubmitted,
};
pub use transfers::{
    HaltView, ImportOrder, LeftOutView, PullOrder, PullTreeView, PushOrder, TransferEndView,
    TransferNodeView, TransferNoteView, TransferOrder, TransferView,
};
pub use workspaces::{
    DriftPathView, DriftView, ManifestEntryView, ManifestView, MemberRequest, MemberView, RestoreRequest,
    ResyncRequest, RevisionView, WorkspaceLockRequest, WorkspaceLockView, WorkspacePatch, WorkspaceRequest,
    WorkspaceRules, WorkspaceView,
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
