//! Operations on files of a node: what is asked beyond the query, and what is answered.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One entry of a node's disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryView {
    /// Its path relative to the folder that was listed; what is no UTF-8 in it is replaced, and the entry
    /// cannot be named in an operation.
    pub name: String,
    /// The path as it is, when it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// `file`, `dir`, `link` or `other`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Bytes; of a link those of its target.
    pub size: u64,
    /// Permissions, four octal digits: `0644`.
    pub mode: String,
    /// When its content changed last, by the node's clock.
    pub mtime: String,
    /// Number of its owner on the node.
    pub uid: u32,
    /// Number of its group on the node.
    pub gid: u32,
    /// Names that it has.
    pub links: u64,
    /// Where a link leads, as its text says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Names the content of a file, when it was hashed: 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Where the answer comes from, of one entry; of several the list says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fresh: Option<FreshView>,
}

/// What a list or a search leaves out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SkippedView {
    /// Entries that could not be read.
    pub unreadable: u64,
    /// Files that are no text.
    pub binary: u64,
    /// Files above the bound of a search.
    pub too_large: u64,
    /// Entries that an ignore file leaves out.
    pub ignored: u64,
    /// Entries that no operation can name.
    pub unsupported: u64,
}

/// Where an answer comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FreshView {
    /// `node`, or `mirror`: the hub's copy of a workspace.
    pub from: String,
    /// When it was last compared with the node's disk.
    pub verified_at: String,
    /// The workspace's revision, of an answer from the mirror.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Whether the folder on the node was seen to be another one since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
}

/// A page of a list, or of entries that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntriesView {
    /// In byte order of their paths.
    pub items: Vec<EntryView>,
    /// Send as `cursor` for the next page; missing on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Entries that were looked at for this page.
    pub searched: u64,
    /// What was left out of this page.
    pub skipped: SkippedView,
    /// Where it comes from.
    pub fresh: FreshView,
}

/// One line that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatchView {
    /// The file's path relative to the folder that was searched; empty when one file was.
    pub file: String,
    /// The path as it is, when it is no UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_base64: Option<String>,
    /// Which line, from 1.
    pub line: u64,
    /// The line, cut at 1 KiB; what is no UTF-8 in it is replaced.
    pub text: String,
    /// Lines before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// Lines after it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
}

/// A page of lines that were found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MatchesView {
    /// In byte order of the paths, and in the order of their lines.
    pub items: Vec<MatchView>,
    /// Send as `cursor` for the next page; missing on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// Files that were looked at for this page.
    pub searched: u64,
    /// What was left out of this page.
    pub skipped: SkippedView,
    /// Where it comes from.
    pub fresh: FreshView,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileContentView {
    /// The file.
    pub path: String,
    /// Its content, when it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Its content otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_base64: Option<String>,
    /// `utf-8`, `utf-8-bom` or `binary`.
    pub encoding: String,
    /// Number of the first line, from 1; of text alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_line: Option<u64>,
    /// Lines of the whole file; of text alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_lines: Option<u64>,
    /// `lf`, `crlf`, `mixed` or `none`; of text alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_ending: Option<String>,
    /// Whether the last line has an end; of text alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_newline: Option<bool>,
    /// Offset of the first byte.
    pub offset: u64,
    /// Bytes of this part.
    pub bytes: u64,
    /// Bytes of the whole file.
    pub size: u64,
    /// Names the content of the whole file, when it was hashed; send it as `If-Match` with a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Whether less came than was asked for.
    pub truncated: bool,
    /// Where it comes from.
    pub fresh: FreshView,
}

/// What came of a write, an edit, or a copy of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileWrittenView {
    /// UUID of the operation; missing in a dry run, which none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The node's name.
    pub node: String,
    /// The file.
    pub path: String,
    /// Names what it holds.
    pub etag: String,
    /// Names what it held before, when that was hashed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Bytes of it.
    pub bytes: u64,
    /// Whether it was not there before.
    pub created: bool,
    /// A unified diff, of a dry run and of an edit, when both are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
    /// Whether the diff was cut.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub diff_cut: bool,
    /// Lines that are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<u32>,
    /// Lines that are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<u32>,
    /// Whether nothing was done: this is what would come of it.
    pub dry_run: bool,
    /// Remarks: `hard_link_broken`, `owner_not_kept`, `acl_not_kept`, `converted`, `copied`.
    pub notes: Vec<String>,
}

/// What came of an operation that removes or makes entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileDoneView {
    /// UUID of the operation; missing in a dry run, which none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// The node's name.
    pub node: String,
    /// The path.
    pub path: String,
    /// Entries that are gone.
    pub removed: u64,
    /// Entries that are new.
    pub made: u64,
    /// Whether nothing was done: this is what would come of it.
    pub dry_run: bool,
    /// Remarks, as of [`FileWrittenView`].
    pub notes: Vec<String>,
}

/// A change of what is there: `PATCH /nodes/{node}/fs`. Just one of `edits`, `move_to` and `copy_to`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilePatch {
    /// Replacements, all of which are done or none; each on what the one before it left.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<EditStep>,
    /// Gives the entry this path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub move_to: Option<String>,
    /// Makes another entry of the same content there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copy_to: Option<String>,
    /// Whether a folder is copied with all that is in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
    /// Whether a file that is there already is replaced, by a move or a copy.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Only say what would come of the edits, with a diff.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// One replacement of text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EditStep {
    /// What is there: exactly once, unless `all` is set.
    pub old: String,
    /// What comes in its place.
    pub new: String,
    /// Whether each place is replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}
