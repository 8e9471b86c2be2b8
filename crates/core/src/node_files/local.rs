//! One operation as the node holds it.

use crate::error::Refusal;
use crate::files::ask::FileAsk;
use crate::files::content::ContentId;
use crate::files::entity::FileEnd;
use crate::files::op::FileOp;
use crate::files::path::FilePath;
use crate::id::{Attempt, LockEpoch, TaskId, WorkspaceId};
use crate::journal::FileAccepted;
use crate::node_runs::Leave;
use crate::sandbox::Access;
use crate::time::Timestamp;

#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Waits for its journal row.
    Journaling(Box<FileAsk>, Box<Leave>),
    /// Waits for what came before it and touches its paths.
    Waiting(Box<FileAsk>, Box<Leave>),
    /// A clerk has it. Nothing of it has taken effect.
    Preparing,
    /// It may take effect at any moment.
    Committing(Option<ContentId>),
    /// Its clerk is gone, and what that left is looked for. When the intended content is there it was
    /// done; otherwise this is its end.
    Recovering(Option<ContentId>, FileEnd),
    /// It ended; the hub has not settled it.
    Ended(FileEnd),
}

impl Phase {
    pub(super) const fn end(&self) -> Option<&FileEnd> {
        match self {
            Self::Ended(end) => Some(end),
            Self::Journaling(..)
            | Self::Waiting(..)
            | Self::Preparing
            | Self::Committing(_)
            | Self::Recovering(..) => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) phase: Phase,
    /// Whether it changes nothing.
    pub(super) reads: bool,
    /// What is remembered of it, and needed to clean up.
    pub(super) accepted: FileAccepted,
    /// Its paths, and for what.
    pub(super) paths: Vec<(FilePath, Access)>,
    pub(super) attempt: Option<(TaskId, Attempt)>,
    pub(super) lock: Option<(WorkspaceId, LockEpoch)>,
    /// Whether it changes one entry after the other, so that it can be stopped in the middle.
    pub(super) by_steps: bool,
    /// Its place among those that came before and after it.
    pub(super) turn: u64,
    /// When its time is over, whatever it is waiting for then.
    pub(super) deadline: Option<Timestamp>,
    /// Why its clerk was killed.
    pub(super) stopped: Option<Refusal>,
    /// Whether there is a row of it in the journal.
    pub(super) journaled: bool,
    /// Whether its end was told on this link.
    pub(super) told: bool,
    /// Nobody is to be told of it.
    pub(super) forgotten: bool,
}

impl Local {
    pub(super) fn new(ask: &FileAsk, phase: Phase) -> Self {
        let by_steps = match &ask.op {
            FileOp::Remove { recursive, .. } | FileOp::Copy { recursive, .. } => *recursive,
            FileOp::List { .. }
            | FileOp::Stat { .. }
            | FileOp::Read { .. }
            | FileOp::Find { .. }
            | FileOp::Grep { .. }
            | FileOp::Write { .. }
            | FileOp::Edit { .. }
            | FileOp::MakeDir { .. }
            | FileOp::Move { .. } => false,
        };
        Self {
            reads: ask.op.is_read(),
            paths: ask.op.paths().map(|(path, need)| (path.clone(), need)).collect(),
            lock: ask.lock,
            by_steps,
            ..Self::of(FileAccepted::of(ask.id, &ask.op, ask.attempt), phase)
        }
    }

    /// One that is known by its journal row alone.
    pub(super) fn of(accepted: FileAccepted, phase: Phase) -> Self {
        Self {
            phase,
            reads: false,
            paths: accepted
                .source
                .iter()
                .chain([&accepted.path])
                .map(|path| (path.clone(), Access::Write))
                .collect(),
            attempt: accepted.attempt,
            accepted,
            lock: None,
            by_steps: false,
            turn: 0,
            deadline: None,
            stopped: None,
            journaled: false,
            told: false,
            forgotten: false,
        }
    }

    /// Whether both are about one entry, or one of them about what lies above the other, and at least one
    /// of them changes it.
    pub(super) fn touches(&self, other: &Self) -> bool {
        let is_at = |one: &FilePath, other: &FilePath| one.below(other.as_str()).is_some();
        self.paths.iter().any(|(path, need)| {
            other.paths.iter().any(|(other, others)| {
                let changes = *need == Access::Write || *others == Access::Write;
                changes && (is_at(path, other) || is_at(other, path))
            })
        })
    }
}
