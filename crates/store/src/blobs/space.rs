//! Room for packs: a quota of the store and a reserve of the disk. Both are looked at before a pack is
//! written; a disk that fills all the same leaves nothing of it (SYNC, safety rule 17). Reading and
//! collecting need no room.

use std::io;
use std::sync::Arc;

use cortex_core::{Code, Refusal};

use super::BlobError;

/// Bytes that may still be written to the disk of the packs: what is free above the disk's reserve.
pub type Room = Arc<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// How much may be kept.
#[derive(Clone)]
pub struct SpaceRules {
    /// Bytes of all packs.
    pub bytes_max: u64,
    /// Asked before each pack; blocks for as long as the system needs to tell.
    pub room: Room,
}

impl SpaceRules {
    /// As much as the disk takes; without a reserve.
    pub fn unbounded() -> Self {
        Self { bytes_max: u64::MAX, room: Arc::new(|| Ok(u64::MAX)) }
    }

    /// Whether a pack of `len` bytes may be written when `held` are.
    pub(super) fn admit(&self, held: u64, len: u64) -> Result<(), BlobError> {
        if held.saturating_add(len) > self.bytes_max {
            let max = self.bytes_max;
            let what = format!("The content that the hub keeps would be above its limit of {max} bytes.");
            let hint = "Remove workspaces or old revisions, or raise the limit, then try again.";
            return Err(Refusal::new(Code::Quota, what).hint(hint).into());
        }
        let room = (self.room)().map_err(super::doing("ask how much room a disk has"))?;
        if room < len { Err(no_space().into()) } else { Ok(()) }
    }
}

/// The disk of the packs has no room.
pub(super) fn no_space() -> Refusal {
    Refusal::new(Code::NoSpace, "The disk on which the hub keeps content is full.")
        .hint("Free space on the hub's disk, or remove workspaces, then try again.")
}

/// Whether a disk had no room for what was written.
pub(super) fn is_full_disk(fault: &io::Error) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    full.contains(&fault.kind())
}

/// Whether it was for want of room.
pub(super) fn is_full(error: &BlobError) -> bool {
    matches!(error, BlobError::Refused(refusal) if matches!(refusal.code, Code::NoSpace | Code::Quota))
}
