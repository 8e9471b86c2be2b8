//! Room on the disk, asked about before the first byte (SYNC rule 17).

use std::os::fd::AsFd;

use cortex_core::error::{Code, Refusal};
use nix::sys::statvfs::fstatvfs;

use super::super::beneath::Dir;

/// What stays free of any disk, bytes at most; of a small one its hundredth.
const RESERVE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Refuses `no_space` when so many bytes in so many new files do not fit.
pub(super) fn check(root: &Dir, bytes: u64, files: u64) -> Result<(), Refusal> {
    // A file system that does not say is found out when it is full.
    let Ok(disk) = fstatvfs(root.as_fd()) else { return Ok(()) };
    let unit = disk.fragment_size();
    let (all, free) = (disk.blocks().saturating_mul(unit), disk.blocks_available().saturating_mul(unit));
    let reserve = (all / 100).min(RESERVE_BYTES_MAX);
    // Each file ends in the middle of a block.
    let rounding = files.saturating_mul(disk.block_size() / 2);
    let needed = bytes.saturating_add(bytes / 20).saturating_add(rounding).saturating_add(reserve);
    if bytes > 0 && all > 0 && needed > free {
        return Err(Refusal::new(
            Code::NoSpace,
            format!("{needed} bytes are needed on the disk of that folder, and {free} are free."),
        )
        .hint("Make room there, then try again; nothing was changed.")
        .detail("needed", needed.to_string())
        .detail("free", free.to_string()));
    }
    if disk.files() > 0 && files > disk.files_available() {
        return Err(Refusal::new(
            Code::NoSpace,
            format!("{files} files are to be made, and the disk takes {} more.", disk.files_available()),
        )
        .hint("Remove files there, then try again; nothing was changed."));
    }
    Ok(())
}
