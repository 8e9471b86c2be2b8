//! What there is on one side, as the planner is told.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::files::content::{ContentId, TreeId};
use crate::files::path::RelPath;

/// One of the two ends of a sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// The hub's tree; in a push, what is pushed.
    Hub,
    /// The folder of the node.
    Node,
}

impl End {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Node => "node",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Hub, Self::Node].into_iter().find(|end| end.as_str() == text)
    }

    /// The end across.
    pub const fn other(self) -> Self {
        match self {
            Self::Hub => Self::Node,
            Self::Node => Self::Hub,
        }
    }
}

/// What can be kept on both sides. Times are no part of it: a `touch` is no change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Its whole content.
        id: ContentId,
        /// The list of its chunks, when it has more than one.
        map: Option<TreeId>,
        /// Its length in bytes.
        size: u64,
        /// Whether it may be executed.
        exec: bool,
    },
    /// A folder; what is in it has entries of its own.
    Dir,
    /// A symbolic link, as its text.
    Link {
        /// The text.
        target: Bytes,
    },
}

impl Entry {
    /// Whether both are files of the same content.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { id, map, size, .. }, Self::File { id: other, map: map2, size: size2, .. }) => {
                (id, map, size) == (other, map2, size2)
            }
            (Self::File { .. } | Self::Dir | Self::Link { .. }, _) => false,
        }
    }
}

/// What a side knows of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is there.
    Entry(Entry),
    /// It is certainly not there.
    Absent,
    /// It is left out by the ignore rules, with all below it: neither sent nor removed (SYNC rule 9).
    Ignored,
    /// It could not be read, or cannot be kept elsewhere. Nothing is known of it, nor of what is below
    /// it; that is not the same as absent (SYNC rule 11).
    Blocked(Problem),
}

impl Seen {
    /// The entry; `None` of all else.
    pub const fn entry(&self) -> Option<&Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Absent | Self::Ignored | Self::Blocked(_) => None,
        }
    }

    /// Whether something may be on the disk.
    pub(super) const fn is_there(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

/// Why a path is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The system refused to read it.
    Unreadable,
    /// A device, a socket, a FIFO, a hard link to elsewhere, or a name that is no path.
    Unsupported,
    /// A link that leads out of the folder, and the rules keep no such links.
    LinkOutside,
    /// Another file system begins here.
    OtherFileSystem,
    /// It changed each time while it was read.
    Unsteady,
}

/// How much there is on a whole side, whether it differs or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SideCounts {
    /// Files and links.
    pub files: u64,
    /// Entries directly in the root.
    pub root_entries: u64,
}

/// What was found in place of a side's root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootState {
    /// The folder that it was.
    Dir,
    /// Nothing.
    Missing,
    /// Something that is no folder.
    OtherKind,
    /// A folder, and not the one that it was, or one that cannot be looked at (SYNC rule 2).
    Unavailable,
}

/// One side of a sync.
#[derive(Clone, Copy, Debug)]
pub struct Side<'t> {
    /// What there is, by path, the root not included. See [`super::Inputs`] for what may be left out.
    pub entries: &'t BTreeMap<RelPath, Seen>,
    /// Of the whole side.
    pub counts: SideCounts,
    /// The root itself.
    pub root: RootState,
}
