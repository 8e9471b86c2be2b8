//! Policies and profiles. What a document says is in [`crate::policy`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Problem;
use crate::policy::{DocumentText, NetworkText, RootText};

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

/// `POST /policies/{node}/test`: what would be said to this command, or to this operation on files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyTest {
    /// Program and arguments; none with `file`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// An operation on files, in place of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<FileTest>,
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

/// An operation on files that is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileTest {
    /// What is done: `ls`, `stat`, `cat`, `find`, `grep`, `write`, `edit`, `mkdir`, `rm`, `mv` or `cp`.
    pub verb: String,
    /// The file or folder on the node.
    pub path: String,
    /// Of `mv` and `cp`: where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Of `rm` and `cp`: a folder with all that is in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
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
