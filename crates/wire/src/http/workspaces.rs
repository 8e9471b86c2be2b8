//! Workspaces: named trees of the hub, and the folders of nodes that follow or lead them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HaltView, LeftOutView, Problem};

/// `POST /workspaces`. Without `lead` the hub's copy is the source; `from` is its first peer then. One that is to
/// begin with a tree that the caller has is made by a transfer, `ImportOrder`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceRequest {
    /// Its name.
    pub name: String,
    /// The folder that leads it: `NODE:PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lead: Option<String>,
    /// The folder that it begins with: `NODE:PATH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What belongs to the tree.
    #[serde(default)]
    pub rules: WorkspaceRules,
    /// Bytes that one tree may have; 64 GiB when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

/// What of folders belongs to the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceRules {
    /// Patterns that are left out, as in an ignore file.
    pub exclude: Vec<String>,
    /// Whether `.gitignore` and `.cortexignore` are heeded.
    pub ignore_files: bool,
    /// Whether `.git` and its like belong to it.
    pub vcs: bool,
    /// Whether links that lead out of the folder are kept, as text.
    pub links_outside: bool,
}

impl Default for WorkspaceRules {
    fn default() -> Self {
        Self { exclude: Vec::new(), ignore_files: true, vcs: false, links_outside: true }
    }
}

/// `PATCH /workspaces/{w}`: what is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspacePatch {
    /// What belongs to the tree; every folder is looked at anew by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<WorkspaceRules>,
    /// Bytes that one tree may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceView {
    /// UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whose changes make revisions: `hub` or `node`.
    pub mode: String,
    /// The newest revision.
    pub revision: u64,
    /// Its tree: 64 hex digits.
    pub root: String,
    /// What belongs to the tree.
    pub rules: WorkspaceRules,
    /// Bytes that one tree may have.
    pub bytes_max: u64,
    /// Its lock, while it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<WorkspaceLockView>,
    /// Its members on nodes that the caller sees.
    pub members: Vec<MemberView>,
    /// Who made it.
    pub owner: String,
    /// When.
    pub created_at: String,
}

/// A member of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// UUID.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The folder.
    pub path: String,
    /// `lead`, `peer` or `follower`.
    pub role: String,
    /// `joining`, `in_sync`, `syncing`, `drifted`, `conflict`, `halted`, `offline` or `unavailable`.
    pub state: String,
    /// The revision that it reached last; 0 when none.
    pub revision: u64,
    /// The revision at which it is to be.
    pub intent: u64,
    /// How changes of the folder are found: `events`, its node tells of them; or `scan`, it is looked at from
    /// time to time.
    pub watch: String,
    /// Why its node does not tell of them: `limit`, `overflow`, `failed`, `denied`, `many`, `moved`, `remote`,
    /// `ended` or `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwatched: Option<String>,
    /// When its node last said what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    /// Since when it is known to drift.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift_since: Option<String>,
    /// Paths that both sides changed, since somebody last asked for a resync.
    pub conflicts: u64,
    /// The safety rule that stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt: Option<HaltView>,
    /// Why its last step was not done; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What the folder had, when its node was asked last, and no tree has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOutView>,
}

/// The lock of a workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkspaceLockView {
    /// Its number: what the holder quotes.
    pub epoch: u64,
    /// Who holds it.
    pub holder: String,
    /// For how long it holds from each extension.
    pub ttl_ms: u64,
    /// When it ends if nobody extends it.
    pub until: String,
}

/// `POST /workspaces/{w}/members`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberRequest {
    /// Name or id of the node.
    pub node: String,
    /// The folder, an absolute path.
    pub path: String,
    /// `lead`, `peer` or `follower`; when missing `peer` of a workspace of the hub, else `follower`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// `PUT /workspaces/{w}/lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WorkspaceLockRequest {
    /// Extends this one; a new one is taken when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// For how long a new one holds from each extension; a minute when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// `POST /workspaces/{w}/resync`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ResyncRequest {
    /// `NODE` or `NODE:PATH`; all members when empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<String>,
    /// Lets this halt pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Ends drift of followers: the workspace's version gets its name back, theirs is kept beside it.
    pub repair: bool,
}

/// `POST /workspaces/{w}/restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRequest {
    /// Of which revision.
    pub revision: u64,
}

/// A page of the entries of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestView {
    /// Of which revision.
    pub revision: u64,
    /// The tree of that revision: 64 hex digits.
    pub root: String,
    /// Each behind the folder that it is in.
    pub items: Vec<ManifestEntryView>,
    /// Where the next page begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// One entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ManifestEntryView {
    /// Its path; what is no UTF-8 in it is replaced.
    pub path: String,
    /// The path as it is, when it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// `file`, `dir` or `link`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes of a file.
    #[serde(default)]
    pub size: u64,
    /// Whether a file may be executed.
    #[serde(default)]
    pub exec: bool,
    /// Where a link leads, as its text says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The content of a file: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// One revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevisionView {
    /// Its number.
    pub revision: u64,
    /// The one before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<u64>,
    /// Its tree.
    pub root: String,
    /// `edit`, `import`, `sync`, `resync` or `restore`.
    pub kind: String,
    /// Who caused it.
    pub by: String,
    /// When.
    pub at: String,
    /// Files and links.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// In what one member differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriftView {
    /// `NODE:PATH`.
    pub member: String,
    /// The revision that it was compared with.
    pub revision: u64,
    /// Where it differs; at most 1,000 paths.
    pub paths: Vec<DriftPathView>,
    /// Whether there are more.
    pub cut: bool,
    /// Why nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// One path that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DriftPathView {
    /// The path below the folder.
    pub path: String,
    /// What the workspace has there: the hash of a file, `dir` or `link`; missing when nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// What the member has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// A unified diff of two texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Whether it was cut.
    #[serde(default)]
    pub diff_cut: bool,
}
