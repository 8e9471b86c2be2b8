//! What came of it, counted, and the first of each kind listed (SYNC rule 19).

use std::collections::HashMap;

use cortex_core::files::content::TreeId;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Conflict, Halt, Held, PlanCounts};

use super::super::scan::Written;
use super::was::Mark;

/// How many of one kind are listed; the rest is only counted.
pub(crate) const LISTED_MAX: usize = 200;

/// A list that is cut, and the number of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed<T> {
    /// The first, at most [`LISTED_MAX`].
    pub(crate) first: Vec<T>,
    /// All.
    pub(crate) count: u64,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { first: Vec::new(), count: 0 }
    }
}

impl<T> Listed<T> {
    pub(super) fn push(&mut self, one: T) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(one);
        }
    }

    pub(super) fn of(all: Vec<T>) -> Self {
        let count = all.len() as u64;
        let mut first = all;
        first.truncate(LISTED_MAX);
        Self { first, count }
    }
}

/// Why a path is not as planned. The next scan plans it anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It changed since it was looked at, or something came in its way. It is as somebody else left it;
    /// `kept` is where something is that came in between.
    Changed {
        /// In the same folder.
        kept: Option<String>,
    },
    /// The other end does not have its content any more.
    Missing,
    /// The system refuses it to this user; the error number.
    Denied(i32),
    /// The folder that it lies in is not there.
    Below,
}

/// A path that is still what it was before, whatever was planned for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undone {
    /// The path.
    pub(crate) path: RelPath,
    /// What was there.
    pub(crate) was: Mark,
}

/// What is done with one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// A new file or link.
    Create,
    /// A new folder.
    MakeDir,
    /// Another content.
    Replace,
    /// Only another exec bit.
    Exec,
    /// A file or link goes.
    RemoveFile,
    /// An empty folder goes.
    RemoveDir,
    /// A file or link gets the name of a copy.
    Keep(RelPath),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The folder is what it is to be.
    InSync,
    /// Only asked what would be done.
    Planned,
    /// A safety rule stopped it; nothing was done.
    Halted(Halt),
    /// The steps were done, but those of [`Applied::troubles`].
    Done,
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    /// How it ended.
    pub(crate) end: End,
    /// What becomes of the paths that were looked at.
    pub(crate) counts: PlanCounts,
    /// What was to be done.
    pub(crate) steps: Listed<(RelPath, Deed)>,
    /// Paths that stay as they are.
    pub(crate) held: Listed<Held>,
    /// Paths that both sides changed.
    pub(crate) conflicts: Listed<Conflict>,
    /// Steps that were not done.
    pub(crate) troubles: Listed<(RelPath, Trouble)>,
    /// Names of the target tree that are no paths.
    pub(crate) unnamed: Listed<String>,
    /// Steps that were not done and left their path as it was; `None` when they are more than are listed.
    pub(crate) undone: Option<Vec<Undone>>,
    /// Files and links that were written; when only asked, that would be.
    pub(crate) files: u64,
    /// Bytes of the files.
    pub(crate) bytes: u64,
    /// Files, links and folders that were removed.
    pub(crate) removed: u64,
    /// Plain bytes that came from the other end, objects not counted.
    pub(crate) fetched: u64,
    /// Bytes that were found in the folder.
    pub(crate) copied: u64,
    /// Bytes that lay in staging from a try before.
    pub(crate) resumed: u64,
    /// Files that were written and got their names, for the scan that comes next.
    pub(crate) written: HashMap<RelPath, Written>,
    /// The tree of the folder afterwards, as the disk has it; `None` before it was read again.
    pub(crate) root: Option<TreeId>,
}

impl Applied {
    pub(super) fn new(end: End) -> Self {
        Self {
            end,
            counts: PlanCounts::default(),
            steps: Listed::default(),
            held: Listed::default(),
            conflicts: Listed::default(),
            troubles: Listed::default(),
            unnamed: Listed::default(),
            undone: Some(Vec::new()),
            files: 0,
            bytes: 0,
            removed: 0,
            fetched: 0,
            copied: 0,
            resumed: 0,
            written: HashMap::new(),
            root: None,
        }
    }
}
