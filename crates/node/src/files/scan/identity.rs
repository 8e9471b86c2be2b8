//! Which folder it is: a marker in it, and its inode.

use cortex_core::sync::RootState;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use crate::sandbox::walls::FileId;

/// A folder, told from one that took its place (SYNC rule 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What stands in `.cortex/root`.
    pub(crate) marker: [u8; 32],
    /// Device and inode of the folder.
    pub(crate) file: FileId,
}

impl Identity {
    /// Marks the folder, unless it has a marker, and says which one it is.
    pub(crate) fn make(_dir: &Dir) -> Result<Self, Fault> {
        Err(Fault::Sys(nix::errno::Errno::ENOSYS))
    }

    /// The one of the folder; `None` when it has no marker.
    pub(crate) fn read(_dir: &Dir) -> Result<Option<Self>, Fault> {
        Err(Fault::Sys(nix::errno::Errno::ENOSYS))
    }

    /// [`RootState::Dir`] when the folder is this one, [`RootState::Unavailable`] else.
    pub(crate) fn check(&self, _dir: &Dir) -> RootState {
        RootState::Unavailable
    }
}
