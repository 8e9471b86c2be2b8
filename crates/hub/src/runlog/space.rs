//! Room on the disk that the store shares with the output of runs. Output leaves a reserve: a disk
//! that commands filled would take no commit any more, and with it no start, join or end.

use std::io;
use std::path::Path;

use cortex_core::limits::DISK_RESERVE_BYTES;

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that the hub may still write.
    pub free: u64,
    /// All bytes of the disk.
    pub total: u64,
}

impl Space {
    /// Of the disk that `dir` is on. Blocks.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let found = nix::sys::statvfs::statvfs(dir)?;
        let block = found.fragment_size();
        Ok(Self { free: block * found.blocks_available(), total: block * found.blocks() })
    }

    /// What output leaves free.
    pub fn reserve(&self) -> u64 {
        DISK_RESERVE_BYTES.min(self.total / 20)
    }

    /// Whether output is held back.
    pub fn is_short(&self) -> bool {
        self.free < self.reserve()
    }

    /// Whether output may be written: above the reserve all of it, and down to half of it what
    /// runs that have ended still wait to have written. That is a bounded part of each, and without
    /// it no command would end, also none that mends the disk.
    pub(super) fn takes(&self, ended: bool) -> bool {
        self.free >= if ended { self.reserve() / 2 } else { self.reserve() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_reserve_is_a_twentieth_of_a_small_disk_and_a_quarter_of_a_gibibyte_of_others() {
        assert_eq!(Space { free: 0, total: GIB }.reserve(), GIB / 20);
        assert_eq!(Space { free: 0, total: 1_000 * GIB }.reserve(), GIB / 4);
    }

    #[test]
    fn the_disk_of_a_directory_has_room_and_one_that_is_not_there_has_none_to_tell() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let space = Space::of(dir.path()).expect("told");
        assert!(space.free > 0 && space.free <= space.total, "{space:?}");
        Space::of(&dir.path().join("missing")).expect_err("it is not there");
    }
}
