//! The library of skills.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;

/// `POST /skills/{s}/promote`: exactly one of `from` and `workspace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromoteRequest {
    /// The folder on a node: `NODE:PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The workspace whose newest revision has the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The folder in the workspace; all of it when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The revision that the caller saw, 0 for none: another one is a `conflict`. When missing, whatever is the
    /// newest one as the request comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expect: Option<u64>,
}

/// One revision of a skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillView {
    /// The skill.
    pub name: String,
    /// The number of the revision.
    pub revision: u64,
    /// Its tree: 64 hex digits.
    pub root: String,
    /// What is in it, whenever it was written: 64 hex digits.
    pub content: String,
    /// Who promoted it.
    pub by: String,
    /// The id of the workspace that it came out of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// When.
    pub at: String,
}

/// A skill with its revisions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillDetailView {
    /// Its newest revision.
    #[serde(flatten)]
    pub head: SkillView,
    /// Files and links in that.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its revisions since it was last removed, the newest first; at most 100 are kept.
    pub revisions: Vec<SkillView>,
}

/// What came of a promotion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PromotedView {
    /// The newest revision of the skill.
    #[serde(flatten)]
    pub head: SkillView,
    /// Whether it had this content already: no revision was made.
    pub already: bool,
    /// Files and links in it.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What lies at a path of a skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillFileView {
    /// The skill.
    pub name: String,
    /// The revision.
    pub revision: u64,
    /// The path; empty for the folder itself.
    pub path: String,
    /// `file`, `dir` or `link`.
    pub kind: String,
    /// Bytes of the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether a file may be executed.
    #[serde(default)]
    pub exec: bool,
    /// The hash of the whole file: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// From which byte of the file the content is.
    #[serde(default)]
    pub offset: u64,
    /// The content, when it is text; the target of a link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The content, when it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// Where the content goes on, when there is more of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// Entries of a folder, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<SkillEntryView>,
    /// The `cursor` of the next entries, when there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// An entry of a folder of a skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkillEntryView {
    /// Its name.
    pub name: String,
    /// `file`, `dir` or `link`.
    pub kind: String,
    /// Bytes of a file, or of all files below a folder.
    pub size: u64,
    /// Whether a file may be executed.
    #[serde(default)]
    pub exec: bool,
}

/// `POST /skills/{s}/mounts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MountRequest {
    /// The node, by name or id.
    pub node: String,
    /// The folder on it, from the top of its disk. It is made when it is not there.
    pub path: String,
    /// The revision at which it stays; when missing it follows the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// A folder that follows a skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountView {
    /// The skill.
    pub skill: String,
    /// The node.
    pub node: String,
    /// The folder.
    pub path: String,
    /// The revision at which it stays; else it follows the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<u64>,
    /// The revision that it was last brought to; 0 before the first one.
    pub revision: u64,
    /// `syncing`, `in_sync`, `drifted` (all of the skill is there, and something else) or `offline`.
    pub state: String,
    /// When the node last said what is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    /// Why it could not be brought further; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Who mounted it.
    pub by: String,
    /// When.
    pub at: String,
}
