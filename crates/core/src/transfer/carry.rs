//! What goes over the stream of a transfer, in either direction.

use bytes::Bytes;

use super::end::{PathNote, TransferEnd};
use crate::error::Refusal;
use crate::files::content::{ContentId, TreeId};
use crate::sync::{RootState, SideCounts};
use crate::workspace::RootIdentity;

/// One frame of a transfer. Bounded where it is read, by [`crate::limits::CARRY_BYTES_MAX`] as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carry {
    /// From the sender: what there is. The first frame of a SEND but for signs of life.
    Tree(TreeTold),
    /// From the sender of a folder: paths of which the tree says nothing, and why; at most
    /// [`crate::limits::TRANSFER_NOTES_MAX`] in one frame, and as many frames as it takes. They come behind
    /// [`Carry::Tree`] and before any pack.
    Held(Vec<PathNote>),
    /// From the receiver: these are wanted, in this order; 1 to [`crate::limits::WANTS_MAX`]. All that is
    /// open is at most [`crate::limits::WANTS_OPEN_MAX`] ids, and what they name at most
    /// [`crate::limits::WANTS_OPEN_BYTES_MAX`] bytes.
    Wants(Vec<ContentId>),
    /// From the sender: the next bytes of packs, which follow one another without anything between them;
    /// 1 to [`crate::limits::CARRY_DATA_BYTES_MAX`].
    Pack(Bytes),
    /// From the sender: these were wanted and cannot be given: changed, or gone; 1 to
    /// [`crate::limits::WANTS_MAX`].
    Missing(Vec<ContentId>),
    /// From the clerk: how far it has come. Also a sign of life: whoever works for long without a frame
    /// says this every few seconds.
    Progress(Progress),
    /// From the receiver: it is over, and all that was taken is durable.
    End(Box<TransferEnd>),
    /// From either: it is over, and nothing more comes of it.
    Refused(Refusal),
    /// The next bytes of one file; 1 to [`crate::limits::CARRY_DATA_BYTES_MAX`].
    Data(Bytes),
    /// The content of that file is complete.
    DataEnd(DataEnd),
}

/// A tree, from whoever has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeTold {
    /// Its name.
    pub root: TreeId,
    /// What was found in place of the folder. Of all but a folder the tree is the empty one, and says
    /// nothing.
    pub state: RootState,
    /// Files and links, and what is directly in the root.
    pub counts: SideCounts,
    /// Entries, folders among them.
    pub entries: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Which folder it is; `None` when there is none, of one entry of a folder, and from whoever does not say.
    pub identity: Option<RootIdentity>,
    /// What is there and not in it.
    pub left_out: LeftOut,
}

/// What a folder has and its tree has not, although no rule leaves it out, as counts (SYNC rule 19). Nothing
/// is counted twice. [`Carry::Held`] names what is counted here by its path, but for what has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Entries whose names are no part of a path.
    pub unnamed: u64,
    /// Files that are longer than a tree takes, or hardly anything but a hole.
    pub too_large: u64,
    /// Folders whose ignore files cannot be read, so that nobody knows what of them may be sent.
    pub rules_unread: u64,
    /// Entries that could not be read, or changed while they were.
    pub unreadable: u64,
    /// Entries that are no file, folder or link of this folder.
    pub unfit: u64,
}

impl LeftOut {
    /// All of it.
    pub fn total(&self) -> u64 {
        let Self { unnamed, too_large, rules_unread, unreadable, unfit } = *self;
        [unnamed, too_large, rules_unread, unreadable, unfit].into_iter().fold(0, u64::saturating_add)
    }
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub phase: Phase,
    /// Files that were looked at, or whose content is here; while names are given, the steps that were done.
    pub files: u64,
    /// Of so many; 0 when that is not known yet.
    pub files_total: u64,
    /// Bytes that were read, came or went.
    pub bytes: u64,
    /// Of so many; 0 when that is not known yet.
    pub bytes_total: u64,
}

/// What a clerk does at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// It finds out what is there.
    #[default]
    Scanning,
    /// Content goes from one end to the other.
    Moving,
    /// What came gets its names, and what is to go goes.
    Applying,
}

/// The end of the content of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataEnd {
    /// Bytes that were sent.
    pub len: u64,
    /// Their hash, when the sender knows it.
    pub id: Option<ContentId>,
}
