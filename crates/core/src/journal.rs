//! Rows of a node's journal: what it has taken on, and what became of it. The machines say what is
//! journaled; `cortex_node::journal` writes it.
//!
//! A row that something was taken on ([`Record::Accepted`], [`Record::FileAccepted`]) is on disk before
//! anything of it happens; the others are observations.

use crate::files::content::ContentId;
use crate::files::entity::FileEnd;
use crate::files::op::{FileOp, Verb};
use crate::files::path::FilePath;
use crate::id::{Attempt, OpId, RunId, TaskId};
use crate::run::Ended;

/// A row of the node's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// This command id was taken on.
    Accepted(RunId),
    /// This run ended.
    Ended(RunId, Ended),
    /// The hub keeps the end of this run, or has given it up.
    Settled(RunId),
    /// This operation on files was taken on.
    FileAccepted(FileAccepted),
    /// The new content is whole beside its file, and about to take its name: a node that starts again and
    /// finds this content there knows that it was done.
    FileIntended(OpId, ContentId),
    /// This operation ended. What is kept of a refusal is bounded, see
    /// [`kept`](crate::files::entity::kept).
    FileEnded(OpId, FileEnd),
    /// The hub keeps the end of this operation, or has given it up.
    FileSettled(OpId),
    /// The task is in this attempt: what lower ones ask for is refused.
    Attempt(TaskId, Attempt),
}

/// What is remembered of an operation on files that was taken on: enough to find what it left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAccepted {
    /// The operation.
    pub op: OpId,
    /// The attempt of a task for which it is done.
    pub attempt: Option<(TaskId, Attempt)>,
    /// What.
    pub verb: Verb,
    /// The path that it changes; of a move or a copy where that leads to. Half-made content lies beside it.
    pub path: FilePath,
    /// Where a move comes from: what is on its way may lie beside it under a name of ours.
    pub source: Option<FilePath>,
}

impl FileAccepted {
    /// The row of an operation.
    pub fn of(id: OpId, op: &FileOp, attempt: Option<(TaskId, Attempt)>) -> Self {
        let verb = op.verb();
        // What is copied stays as it is.
        let source = op.source().filter(|_| verb == Verb::Move).cloned();
        Self { op: id, attempt, verb, path: op.path().clone(), source }
    }
}
