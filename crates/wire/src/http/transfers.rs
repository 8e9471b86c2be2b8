//! Transfers of trees: a push to one or several nodes, a pull from one, an import to the hub.
//!
//! Content itself travels as packs, and what is asked for as hashes of 32 bytes one after the other, both
//! as `application/octet-stream`.

use cortex_core::sync::{Cause, End, Halt, Rule};
use cortex_core::transfer::{LeftOut, Noted, PathNote, TransferEnd};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Problem, WorkspaceRules};

/// What is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TransferOrder {
    /// A tree that the caller has, to a folder of each of some nodes.
    Push(PushOrder),
    /// A folder or file of one node, to the caller.
    Pull(PullOrder),
    /// A tree that the caller has, to the hub, as the first revision of a new workspace.
    Import(ImportOrder),
}

/// A push.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PushOrder {
    /// Names or ids of nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Labels that a node has to have: `role=ci,os=linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The folder that is to hold the tree, an absolute path; it is made when it is missing.
    pub dest: String,
    /// The one entry of the folder that the tree has, when a single file is pushed: nothing else of the
    /// folder is looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// The tree: 64 hex digits.
    pub root: String,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Tells what would happen, and does nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Removes what was pushed there before and is not in the tree; with `force` whatever the tree
    /// lacks.
    #[serde(default)]
    pub delete: bool,
    /// Replaces what was changed there since the last push as well.
    #[serde(default)]
    pub force: bool,
    /// Reads every file of the folder again, whatever its times say.
    #[serde(default)]
    pub checksum: bool,
    /// Patterns of what is left alone there, as in an ignore file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Leaves alone what `.gitignore` and `.cortexignore` files there name.
    #[serde(default)]
    pub ignore_files: bool,
    /// `.git` and its like there belong to the folder.
    #[serde(default)]
    pub vcs: bool,
    /// The halt that a person looked at and lets pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept: Option<String>,
    /// Bytes per second to each node, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_max: Option<u64>,
}

/// A pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PullOrder {
    /// Name or id of the node.
    pub node: String,
    /// The folder or file, an absolute path.
    pub source: String,
    /// Patterns of what is left out, as in an ignore file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Leaves out what `.gitignore` and `.cortexignore` files there name.
    #[serde(default)]
    pub ignore_files: bool,
    /// `.git` and its like belong to the folder.
    #[serde(default)]
    pub vcs: bool,
    /// Bytes per second, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_max: Option<u64>,
}

/// An import. It is sent as a push is, and needs `workspaces:write`. The workspace is there once the hub has all
/// of the tree, verified and on its disk, and the transfer is `done`; before that nothing of it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportOrder {
    /// The name of the workspace that is made. The hub's copy is its source.
    pub workspace: String,
    /// The tree: 64 hex digits.
    pub root: String,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// What belongs to the tree from here on; the caller has left out of this one what does not.
    #[serde(default)]
    pub rules: WorkspaceRules,
    /// Bytes that one tree may have, this one too; 64 GiB when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<u64>,
}

/// A transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferView {
    /// Its id.
    pub id: String,
    /// `push`, `pull` or `import`.
    pub kind: String,
    /// `open`, `done`, `failed` when any node failed, `cancelled`.
    pub state: String,
    /// Grows with each change of this view: the next one is asked for with `after`.
    pub seq: u64,
    /// The tree; of a pull missing until the node has looked at it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Entries of the tree.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Who asked for it.
    pub by: String,
    /// When it began.
    pub at: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// How it stands with each node, by name. An import has one, the hub.
    pub nodes: Vec<TransferNodeView>,
}

/// A transfer at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferNodeView {
    /// Its name; `hub` of an import.
    pub node: String,
    /// The folder or file there; of an import the workspace.
    pub path: String,
    /// `queued`, `scanning`, `moving`, `applying`; `in_sync`, `done`, `halted`, `failed`, `cancelled`.
    pub state: String,
    /// Bytes of content that are to be moved, as far as is known.
    pub bytes_total: u64,
    /// Bytes of content that were moved.
    pub bytes_moved: u64,
    /// Bytes that this took on the connection to the node.
    pub wire_bytes: u64,
    /// Entries that are to be changed, as far as is known.
    pub steps_total: u64,
    /// Entries that were changed.
    pub steps_done: u64,
    /// Milliseconds since it began, or that it took.
    pub duration_ms: u64,
    /// What stopped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
    /// What came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<TransferEndView>,
    /// Of a pull: what the folder of the node has and its tree has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOutView>,
}

/// What a folder has and its tree has not, although no rule leaves it out, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeftOutView {
    /// Entries with names that no tree takes.
    pub unnamed: u64,
    /// Files that are too large, or hardly anything but a hole.
    pub too_large: u64,
    /// Folders whose ignore files cannot be read.
    pub rules_unread: u64,
    /// Entries that could not be read, or changed while they were.
    pub unreadable: u64,
    /// Entries that are no file, folder or link of the folder.
    pub unfit: u64,
}

/// What came of a transfer at one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferEndView {
    /// Files and links that were written, or would be.
    pub written: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Entries that were removed, or would be.
    pub removed: u64,
    /// Entries that were as they should be.
    pub same: u64,
    /// Entries that are there and not in the tree, and stay.
    pub extra: u64,
    /// Paths that stay as they are, by reason; the first 200 are in `notes`.
    pub held: std::collections::BTreeMap<String, u64>,
    /// What is to be known of single paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<TransferNoteView>,
    /// Further notes that were not kept.
    #[serde(default)]
    pub notes_more: u64,
    /// The rule that halted it, with the way on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt: Option<HaltView>,
    /// Nothing was done: it was only asked what would be.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a pull finds, in a frame of kind `T` of its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PullTreeView {
    /// The tree: 64 hex digits.
    pub root: String,
    /// What is there: `dir`, `missing`, `other_kind`, `unavailable`. Of all but a folder the tree is the
    /// empty one, and says nothing.
    pub state: String,
    /// Files and links.
    pub files: u64,
    /// Entries directly in the folder.
    pub root_entries: u64,
    /// Entries, folders among them.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What the folder has and the tree has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOutView>,
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferNoteView {
    /// Relative to the folder.
    pub path: String,
    /// What became of it: `write`, `make_dir`, `remove`, `remove_dir`, `exec`; `keep` for one that gets the
    /// name in `other`; `conflict` for one whose other version is kept under that name; `failed` for a step
    /// that was not done, with the code in `other`; else the reason for which the path stays as it is, such
    /// as `ignored`, `unreadable`, `kept`.
    pub what: String,
    /// See `what`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
}

/// A safety rule that stopped a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HaltView {
    /// Names this halt, of these trees: what a person accepts.
    pub id: String,
    /// The rule.
    pub rule: String,
    /// What it saw, in a sentence.
    pub message: String,
}

impl TransferEndView {
    /// How an end is shown, wherever it was reached: at a node, or where a pull was taken in.
    pub fn of(end: &TransferEnd, dry_run: bool) -> Self {
        let is_removal = |note: &&PathNote| matches!(note.what, Noted::RemoveFile | Noted::RemoveDir);
        Self {
            written: end.files,
            bytes: end.bytes,
            removed: end.notes.iter().filter(is_removal).count() as u64,
            same: end.counts.same,
            extra: end.counts.extra,
            held: end.counts.held.iter().map(|(why, count)| (why.as_str().to_owned(), *count)).collect(),
            notes: end.notes.iter().map(TransferNoteView::of).collect(),
            notes_more: end.notes_more,
            halt: end.halt.as_ref().map(HaltView::of),
            dry_run,
        }
    }
}

impl LeftOutView {
    /// How it is shown; `None` when there is nothing.
    pub fn of(left_out: LeftOut) -> Option<Self> {
        let LeftOut { unnamed, too_large, rules_unread, unreadable, unfit } = left_out;
        let view = Self { unnamed, too_large, rules_unread, unreadable, unfit };
        (view != Self::default()).then_some(view)
    }
}

impl TransferNoteView {
    /// How a word on a path is shown.
    pub fn of(note: &PathNote) -> Self {
        let (what, other) = match &note.what {
            Noted::Put => ("write", None),
            Noted::MakeDir => ("make_dir", None),
            Noted::RemoveFile => ("remove", None),
            Noted::RemoveDir => ("remove_dir", None),
            Noted::Exec => ("exec", None),
            Noted::Keep(copy) => ("keep", Some(copy.as_str().to_owned())),
            Noted::Aside(copy) => ("conflict", Some(copy.as_str().to_owned())),
            Noted::Held(why) => (why.as_str(), None),
            Noted::Failed(code) => ("failed", Some(code.as_str().to_owned())),
        };
        Self { path: note.path.as_str().to_owned(), what: what.to_owned(), other }
    }
}

impl HaltView {
    /// How a halt is shown. `Node` is the end that the tree comes to.
    pub fn of(halt: &Halt) -> Self {
        let cause = |cause: &Cause| {
            let side = if cause.end == End::Node { "that is written to" } else { "of the source" };
            match cause.rule {
                Rule::RootGone => format!("The folder {side} is gone, or no folder."),
                Rule::RootUnavailable => format!("The folder {side} is another one, or cannot be looked at."),
                Rule::RootEmptied => format!("The folder {side} is empty, and was not."),
                Rule::Deletes => format!("{} of {} files would be removed.", cause.deletes, cause.of),
            }
        };
        let rules: Vec<&str> = halt.causes.iter().map(|cause| cause.rule.as_str()).collect();
        let messages: Vec<String> = halt.causes.iter().map(cause).collect();
        Self { id: halt.id.to_string(), rule: rules.join(","), message: messages.join(" ") }
    }
}
