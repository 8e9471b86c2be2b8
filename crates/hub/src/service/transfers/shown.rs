//! How a transfer is told: which way it goes, how it stands, and how far it is at each node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::Refusal;
use cortex_core::files::content::TreeId;
use cortex_core::id::{NodeId, TransferId};
use cortex_core::time::WallTime;
use cortex_core::transfer::{LeftOut, TransferEnd};

/// What is moved, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To nodes.
    Push,
    /// From a node.
    Pull,
    /// To the hub.
    Import,
}

impl Kind {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
            Self::Import => "import",
        }
    }
}

/// How far a transfer is at one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn, for its node to come back, or for somebody to read it.
    Queued,
    /// The node looks at its folder.
    Scanning,
    /// Content moves.
    Moving,
    /// The node has all that it asked for.
    Applying,
    /// There was nothing to do.
    InSync,
    /// It is done.
    Done,
    /// A safety rule stopped it before the first change.
    Halted,
    /// It is not done, or not all of it.
    Failed,
    /// Its caller ended it.
    Cancelled,
}

impl Stage {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scanning => "scanning",
            Self::Moving => "moving",
            Self::Applying => "applying",
            Self::InSync => "in_sync",
            Self::Done => "done",
            Self::Halted => "halted",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more comes.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Queued | Self::Scanning | Self::Moving | Self::Applying => false,
            Self::InSync | Self::Done | Self::Halted | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// How it stands with a transfer as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Some node is not done.
    Open,
    /// All nodes are.
    Done,
    /// Some node failed, or was halted.
    Failed,
    /// Its caller ended it.
    Cancelled,
}

impl Standing {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A transfer at one node.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name of the node, or what the caller called it; `hub` of an import.
    pub node: String,
    /// The node; `None` of one that is not there.
    pub id: Option<NodeId>,
    /// The folder there; of an import the workspace.
    pub path: String,
    /// How far it is.
    pub stage: Stage,
    /// Bytes of content that are to be moved, as far as is known.
    pub bytes_total: u64,
    /// Bytes of content that were moved.
    pub bytes_moved: u64,
    /// Bytes that this took on the connection.
    pub wire_bytes: u64,
    /// Entries that are to be changed, as far as is known.
    pub steps_total: u64,
    /// Entries that were changed.
    pub steps_done: u64,
    /// When it began.
    pub began: Instant,
    /// How long it took.
    pub took: Option<Duration>,
    /// What stopped it.
    pub error: Option<Refusal>,
    /// What came of it.
    pub end: Option<Arc<TransferEnd>>,
    /// Of a pull: what the folder has and its tree has not.
    pub left_out: LeftOut,
}

/// A transfer, as it is told.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Its id.
    pub id: TransferId,
    /// Which way.
    pub kind: Kind,
    /// How it stands.
    pub standing: Standing,
    /// Grows with each change.
    pub seq: u64,
    /// The tree, once it is known.
    pub root: Option<TreeId>,
    /// Its entries.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Whether nothing is done.
    pub dry_run: bool,
    /// Who asked.
    pub by: String,
    /// When.
    pub at: WallTime,
    /// When it ended.
    pub ended_at: Option<WallTime>,
    /// How it stands with each node.
    pub rows: Vec<Row>,
}
