//! What is known of files from the scan before.

use super::super::beneath::Dir;
use super::super::fault::Fault;

/// What is known of the files of one folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {}

impl Cache {
    /// The one that lies in the scanned folder, `.cortex/scan`; an empty one when there is none, or it is
    /// damaged, of another version or of another folder.
    pub(crate) fn load(_dir: &Dir) -> Self {
        Self::default()
    }

    /// Keeps it there, if it changed since it was loaded or saved.
    pub(crate) fn save(&mut self, _dir: &Dir) -> Result<(), Fault> {
        Ok(())
    }
}
