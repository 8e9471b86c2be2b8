//! Content that the hub keeps: packs of chunks, each found by the hash of its bytes.
//!
//! **Promise.** What [`Blobs::put_pack`] took is there for the same process at once, and after a crash
//! once a [`Blobs::sync`] that began later has answered `Ok`. Nothing is kept, and nothing is handed
//! out, whose bytes are not those that its id names. Whoever promises something that names chunks
//! syncs first (SYNC, safety rule 18).
//!
//! **No promise** that a pack stays as it was put: the same chunks may be found in another one.
//!
//! The calls block; they are for threads of their own, never for those that drive connections.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use cortex_core::Refusal;
use cortex_core::files::content::{ContentId, PackId};
use cortex_content::pack::PackHead;
use cortex_content::unpack::{TailCheck, Unpack};

mod folder;
mod index;
mod memory;

pub use folder::{FolderBlobs, Recovered};
pub use memory::MemoryBlobs;

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1024;

/// Why content could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// What was to be put is not what it says; nothing of it is kept.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// What is kept is not what was put: the disk changed it.
    #[error("pack {pack} is damaged: {why}")]
    Damaged {
        /// Which one.
        pack: PackId,
        /// How that was seen.
        why: Refusal,
    },
    /// The disk, or whoever the pack comes from, failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What came of it.
        source: io::Error,
    },
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

/// A pack that is kept: its head, and what lies behind it.
pub struct OpenPack {
    /// What it holds.
    pub head: PackHead,
    /// The body, and its hash when it has one.
    pub tail: Box<dyn Read + Send>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlobFigures {
    /// Packs.
    pub packs: u64,
    /// Different chunks.
    pub chunks: u64,
    /// Bytes of all packs, their heads counted.
    pub bytes: u64,
}

/// Keeps content. One contract, `tests/blobs.rs`, holds for all that do.
pub trait Blobs: Send + Sync {
    /// Takes a pack, whose chunks are verified one by one while it is written. `tail` is what lies
    /// behind the head; it is read to its end.
    ///
    /// # Errors
    /// [`BlobError::Refused`] for a pack that is not what it says, [`BlobError::Io`]; in both cases
    /// nothing of it is kept.
    fn put_pack(&self, head: &PackHead, tail: &mut dyn Read) -> Result<PackPut, BlobError>;

    /// Makes all packs durable whose [`put_pack`](Self::put_pack) has answered.
    ///
    /// # Errors
    /// [`BlobError::Io`]. Packs that could not be made durable are not kept then: their chunks have
    /// to be put again.
    fn sync(&self) -> Result<(), BlobError>;

    /// Where each of these chunks lies, if it is kept.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    fn locate(&self, ids: &[ContentId]) -> Result<Vec<Option<Place>>, BlobError>;

    /// Whether each of these chunks is kept.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    fn have(&self, ids: &[ContentId]) -> Result<Vec<bool>, BlobError> {
        Ok(self.locate(ids)?.iter().map(Option::is_some).collect())
    }

    /// A chunk, verified; `None` when it is not kept. Its whole pack is read up to it.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] when it is not what was put, [`BlobError::Io`].
    fn chunk(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        let Some(Some(place)) = self.locate(std::slice::from_ref(id))?.pop() else { return Ok(None) };
        let Some(pack) = self.open_pack(&place.pack)? else { return Ok(None) };
        nth(pack, place).map(Some)
    }

    /// A pack as it was put; `None` when it is not kept. What is read of it is not verified: that is
    /// for [`TailCheck`] or [`Unpack`].
    ///
    /// # Errors
    /// [`BlobError::Damaged`] when its head is not what was put, [`BlobError::Io`].
    fn open_pack(&self, id: &PackId) -> Result<Option<OpenPack>, BlobError>;

    /// Whether a pack is as it was put; `None` when it is not kept.
    ///
    /// # Errors
    /// [`BlobError::Damaged`] with what is wrong, [`BlobError::Io`].
    fn verify(&self, id: &PackId) -> Result<Option<()>, BlobError> {
        let Some(OpenPack { head, mut tail }) = self.open_pack(id)? else { return Ok(None) };
        let damaged = |why| BlobError::Damaged { pack: *id, why };
        let mut check = TailCheck::new(head).map_err(damaged)?;
        let mut piece = vec![0; READ_BYTES];
        loop {
            let len = tail.read(&mut piece).map_err(reading)?;
            if len == 0 {
                return check.finish().map(|_| Some(())).map_err(damaged);
            }
            check.push(Bytes::copy_from_slice(&piece[..len])).map_err(damaged)?;
        }
    }

    /// How much is kept.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    fn figures(&self) -> Result<BlobFigures, BlobError>;
}

/// Shared by those that serve transfers.
pub type SharedBlobs = Arc<dyn Blobs>;

fn reading(source: io::Error) -> BlobError {
    BlobError::Io { doing: "read a pack", source }
}

/// The chunk of a pack with this number.
fn nth(pack: OpenPack, place: Place) -> Result<Bytes, BlobError> {
    let OpenPack { head, mut tail } = pack;
    let damaged = |why| BlobError::Damaged { pack: place.pack, why };
    let mut unpack = Unpack::new(head).map_err(damaged)?;
    let mut piece = vec![0; READ_BYTES];
    let mut number = 0;
    loop {
        let len = tail.read(&mut piece).map_err(reading)?;
        if len == 0 {
            let cut = unpack.finish().err();
            let why = cut
                .unwrap_or_else(|| Refusal::new(cortex_core::Code::Internal, "A chunk is not in its pack."));
            return Err(damaged(why));
        }
        unpack.push(Bytes::copy_from_slice(&piece[..len])).map_err(damaged)?;
        while let Some((_, bytes)) = unpack.next_chunk().map_err(damaged)? {
            if number == place.number {
                return Ok(Bytes::copy_from_slice(bytes));
            }
            number += 1;
        }
    }
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
        keep(&piece[..len]).map_err(|source| BlobError::Io { doing: "write a pack", source })?;
    }
    unpack.finish()?;
    Ok(())
}
