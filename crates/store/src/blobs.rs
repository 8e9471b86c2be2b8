//! Content that the hub keeps: packs of chunks, each found by the hash of its bytes.
//!
//! **Promise.** What [`Blobs::put_pack`] took is there for the same process at once, and after a crash
//! once a [`Blobs::sync`] that began later has answered `Ok`. Nothing is kept, and nothing is handed
//! out, whose bytes are not those that its id names. Whoever promises something that names chunks
//! syncs first (SYNC, safety rule 18).
//!
//! **Pins.** What was put under a [`Pin`], or found by [`Blobs::have`] or [`Blobs::complete`] under one,
//! stays until the pin is dropped. A use case takes a pin, puts, asks, syncs, asks
//! [`complete`](Blobs::complete), commits the root where [`Blobs::collect`] will hear of it, and only then
//! drops the pin.
//!
//! **No promise** that a pack stays as it was put: the same chunks may be found in another one later.
//! Whoever has a [`Place`] whose pack is gone asks again where the chunk lies.
//!
//! The calls block; they are for threads of their own, never for those that drive connections.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use cortex_content::pack::{Pack, PackHead};
use cortex_content::unpack::Unpack;
use cortex_core::files::content::{ContentId, PackId, TreeId};
use cortex_core::limits::{
    BLOBS_CONDEMNED_MS, BLOBS_LIVE_PERCENT_MIN, BLOBS_REPACK_BYTES, BLOBS_YOUNG_MS, PACK_BYTES_MAX,
};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};

mod cache;
mod complete;
mod folder;
mod index;
mod mark;
mod memory;
mod pin;
mod space;
mod table;

pub use folder::{FolderBlobs, Recovered};
pub use memory::MemoryBlobs;
pub use pin::{Pin, Since};
pub use space::{Room, SpaceRules};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// Why content could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// What was to be put is not what it says, or there is no room for it (`no_space`, `quota`);
    /// nothing of it is kept.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What is kept is not what was put: the disk changed it. The next [`Blobs::scrub`] sets it aside.
    #[error("pack {pack} is damaged: {why}")]
    Damaged {
        /// Which one.
        pack: PackId,
        /// How that was seen.
        why: Refusal,
    },
    /// An object of a tree that is to be kept is not there. Without it nobody knows what the tree names,
    /// so nothing is collected.
    #[error("the object {object} of a tree that is kept is not there; nothing was collected")]
    Lost {
        /// Which one.
        object: ContentId,
    },
    /// The disk, or whoever the pack comes from, failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        source: io::Error,
    },
    /// The index could not be read or written. It is made again from the packs at the next start when
    /// it is damaged.
    #[error("the index of the chunks failed: {0}; when that stays, start the hub again")]
    Index(String),
    /// Another process keeps its packs in this folder.
    #[error("another hub keeps its packs in {0}")]
    InUse(std::path::PathBuf),
    /// Another thread ended in the middle of a change.
    #[error("the index of the chunks is not whole; start the hub again")]
    Poisoned,
}

/// What became of a pack that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackPut {
    /// It is kept.
    Kept,
    /// It was there before.
    Already,
}

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pack.
    pub pack: PackId,
    /// Which of its chunks, from 0.
    pub number: u32,
    /// Its length, bytes.
    pub len: u32,
}

/// A tree that is to stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// Its topmost object.
    pub tree: TreeId,
    /// Whether the content of its files stays too. Without it only its objects do (directories and maps
    /// of long files): enough to plan by what was agreed on long ago.
    pub content: bool,
}

/// Whether a tree is all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Each object and chunk is; under the pin it stays.
    Whole,
    /// These are not. At most [`MISSING_MAX`](Self::MISSING_MAX), and none below an object that is
    /// missing itself.
    Missing(Vec<ContentId>),
}

impl Completeness {
    /// Ids of one answer.
    pub const MISSING_MAX: usize = 4_096;
}

/// When content that nothing names goes, and how much is written for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A pack stays for so long after the first collection that saw it, ms: a transfer that broke may be
    /// resumed.
    pub young_ms: u64,
    /// A condemned pack goes after so long, ms, if the next marks condemn it too.
    pub condemned_ms: u64,
    /// A pack is condemned when less than this part of its plain bytes is named by anything, percent.
    /// What is left of it is written into another pack then.
    pub live_percent_min: u8,
    /// Plain bytes of packs that one call writes anew, at most. What is beyond waits for the next call.
    pub repack_bytes: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            young_ms: BLOBS_YOUNG_MS,
            condemned_ms: BLOBS_CONDEMNED_MS,
            live_percent_min: BLOBS_LIVE_PERCENT_MIN,
            repack_bytes: BLOBS_REPACK_BYTES,
        }
    }
}

/// One collection.
#[derive(Clone, Copy, Debug)]
pub struct Sweep<'r> {
    /// Taken by [`Blobs::begin`] **before** the roots were read.
    pub since: Since,
    /// All that is to stay; what a live transfer brings needs none.
    pub roots: &'r [Root],
    /// The time now.
    pub now: WallTime,
    /// When what goes.
    pub rules: Rules,
}

/// What came of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Objects of trees that were looked at.
    pub objects: u64,
    /// Chunks that a root names and that are not kept. A root with such is damaged.
    pub missing: u64,
    /// Plain bytes that roots name.
    pub live_bytes: u64,
    /// Packs that were condemned.
    pub condemned: u64,
    /// Packs that are gone, those that were written anew among them.
    pub deleted: u64,
    /// Bytes of these.
    pub deleted_bytes: u64,
    /// Packs whose live chunks were written into another one.
    pub repacked: u64,
    /// Whether work was left for the next call: the budget was used up, or there was no room to write.
    pub more: bool,
}

/// What came of a scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Packs that were read.
    pub packs: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Packs that were not what was put, and were set aside.
    pub damaged: Vec<PackId>,
    /// Chunks that are not kept any longer for that. Whoever has them may put them again.
    pub lost: Vec<ContentId>,
    /// Chunks that their pack holds and the index had forgotten.
    pub mended: u64,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobFigures {
    /// Packs.
    pub packs: u64,
    /// Chunks; one that lies in two packs is counted twice.
    pub chunks: u64,
    /// Bytes of all packs as they are stored, their heads counted.
    pub bytes: u64,
    /// Bytes of all chunks, decoded.
    pub plain_bytes: u64,
    /// Plain bytes that roots named at the last collection of this process.
    pub live_bytes: Option<u64>,
    /// Packs that the last collection condemned and that are still there.
    pub condemned: u64,
    /// Packs that were set aside since the start.
    pub damaged: u64,
    /// Pins that are held.
    pub pins: u64,
}

/// Keeps content. One contract, `tests/blobs.rs`, holds for all that do.
pub trait Blobs: Send + Sync {
    /// Keeps from now on what is put and found under it; see the module.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    fn pin(&self) -> Result<Pin, BlobError>;

    /// Takes a pack, whose chunks are verified one by one while it is written. `tail` is what lies
    /// behind the head; it is read to its end.
    ///
    /// # Errors
    /// [`BlobError::Refused`] for a pack that is not what it says, `quota` or `no_space`;
    /// [`BlobError::Io`]. In all cases nothing of it is kept.
    fn put_pack(&self, head: &PackHead, tail: &mut dyn Read, pin: &Pin) -> Result<PackPut, BlobError>;

    /// Makes all packs durable whose [`put_pack`](Self::put_pack) has answered. Many callers at once
    /// share the work.
    ///
    /// # Errors
    /// [`BlobError::Io`], and `no_space`. A pack that could not be made durable is not kept then, and
    /// every pin that put anything since its last sync hears of it: its chunks are to be put again.
    fn sync(&self, pin: &Pin) -> Result<(), BlobError>;

    /// Where each of these chunks lies, if it is kept. It is not kept longer for that.
    ///
    /// # Errors
    /// [`BlobError::Index`], [`BlobError::Poisoned`].
    fn locate(&self, ids: &[ContentId]) -> Result<Vec<Option<Place>>, BlobError>;

    /// Whether each of these chunks is kept; those that are stay while the pin is held.
    ///
    /// # Errors
    /// [`BlobError::Index`], [`BlobError::Poisoned`].
    fn have(&self, ids: &[ContentId], pin: &Pin) -> Result<Vec<bool>, BlobError>;

    /// A chunk, verified; `None` when it is not kept.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] when it is not what was put, [`BlobError::Io`], [`BlobError::Index`].
    fn chunk(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError>;

    /// A pack as it was put, to be sent on as it is; verified as a whole, so that nothing of a damaged
    /// one is ever sent (ABUSE 59). `None` when it is not kept.
    ///
    /// # Errors
    /// [`BlobError::Damaged`], [`BlobError::Io`].
    fn read_pack(&self, id: &PackId) -> Result<Option<Arc<Pack>>, BlobError>;

    /// Whether all that a tree names is kept. All that is, stays while the pin is held.
    ///
    /// # Errors
    /// [`BlobError::Refused`] for a tree that contradicts itself, and those of [`chunk`](Self::chunk).
    fn complete(&self, root: &Root, pin: &Pin) -> Result<Completeness, BlobError>;

    /// The beginning of a collection, taken before its roots are read: a transfer that ends in between
    /// has put its root where the collection hears of it, or is still protected.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    fn begin(&self) -> Result<Since, BlobError>;

    /// Finds what nothing names, condemns it, and removes what was condemned long enough ago. One at a
    /// time; a second caller waits. One that began before a collection that is through does nothing.
    ///
    /// # Errors
    /// [`BlobError::Lost`] and [`BlobError::Damaged`] when an object of a root cannot be read: nothing
    /// is removed then. [`BlobError::Io`], [`BlobError::Index`].
    fn collect(&self, sweep: Sweep<'_>) -> Result<Collected, BlobError>;

    /// Reads packs, first those in which a reader found damage, then those that were not scrubbed for the
    /// longest time, until `bytes` of them are read, and sets aside what is not what was put. At least one
    /// pack is read, and none twice.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::Index`].
    fn scrub(&self, bytes: u64) -> Result<Scrubbed, BlobError>;

    /// How much is kept.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    fn figures(&self) -> Result<BlobFigures, BlobError>;
}

impl BlobFigures {
    /// Counts a pack in.
    fn add(&mut self, head: &PackHead) {
        self.packs += 1;
        self.chunks += head.chunks().len() as u64;
        self.bytes += head.pack_len() as u64;
        self.plain_bytes += u64::from(head.plain_len());
    }
}

/// Shared by those that serve transfers.
pub type SharedBlobs = Arc<dyn Blobs>;

fn doing(doing: &'static str) -> impl Fn(io::Error) -> BlobError {
    move |source| {
        if space::is_full_disk(&source) {
            return BlobError::Refused(space::no_space());
        }
        BlobError::Io { doing, source }
    }
}

/// What is said of a pack that is not what was put.
fn damaged(pack: PackId, what: &str) -> BlobError {
    BlobError::Damaged { pack, why: Refusal::new(Code::Internal, what) }
}

/// Reads a tail to its end, verifies each chunk, and hands every piece on as it came.
fn take(
    head: &PackHead,
    tail: &mut dyn Read,
    keep: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), BlobError> {
    let mut unpack = Unpack::new(head.clone())?;
    let mut piece = vec![0; READ_BYTES];
    loop {
        let len = match tail.read(&mut piece) {
            Ok(0) => break,
            Ok(len) => len,
            Err(fault) if fault.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(BlobError::Io { doing: "receive a pack", source }),
        };
        unpack.push(Bytes::copy_from_slice(&piece[..len]))?;
        while unpack.next_chunk()?.is_some() {}
        keep(&piece[..len]).map_err(doing("write a pack"))?;
    }
    unpack.finish()?;
    Ok(())
}

/// All chunks of a pack one after the other, each verified.
fn decode(pack: &Pack) -> Result<Vec<u8>, BlobError> {
    let wrong = |why| BlobError::Damaged { pack: pack.head.id(), why };
    let mut plain = Vec::with_capacity((pack.head.plain_len() as usize).min(PACK_BYTES_MAX));
    let mut unpack = Unpack::new(pack.head.clone()).map_err(wrong)?;
    for at in (0..pack.tail.len()).step_by(READ_BYTES) {
        unpack.push(pack.tail.slice(at..pack.tail.len().min(at + READ_BYTES))).map_err(wrong)?;
        while let Some((_, bytes)) = unpack.next_chunk().map_err(wrong)? {
            plain.extend_from_slice(bytes);
        }
    }
    unpack.finish().map_err(wrong)?;
    Ok(plain)
}

#[cfg(test)]
mod tests;
