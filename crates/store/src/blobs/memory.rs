//! Content in memory: the reference that the folder has to agree with, and what tests use. A crash
//! takes what was not synced.

use std::io::{Cursor, Read};
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use cortex_core::files::content::{ContentId, PackId};
use cortex_content::pack::PackHead;

use super::index::Index;
use super::{BlobError, BlobFigures, Blobs, OpenPack, PackPut, Place, take};

/// Keeps packs in memory.
#[derive(Default)]
pub struct MemoryBlobs {
    index: Mutex<Index<Own>>,
}

struct Own {
    tail: Bytes,
    synced: bool,
}

impl MemoryBlobs {
    /// Nothing is kept yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is left after a crash.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    pub fn crash(&self) -> Result<(), BlobError> {
        let mut index = self.lock()?;
        let lost: Vec<PackId> = index.packs().filter(|(_, own)| !own.synced).map(|(id, _)| *id).collect();
        lost.iter().for_each(|id| index.remove(id));
        Ok(())
    }

    fn lock(&self) -> Result<MutexGuard<'_, Index<Own>>, BlobError> {
        self.index.lock().map_err(|_| BlobError::Poisoned)
    }
}

impl Blobs for MemoryBlobs {
    fn put_pack(&self, head: &PackHead, tail: &mut dyn Read) -> Result<PackPut, BlobError> {
        let mut kept = Vec::with_capacity(head.tail_len());
        take(head, tail, &mut |piece| {
            kept.extend_from_slice(piece);
            Ok(())
        })?;
        let own = Own { tail: Bytes::from(kept), synced: false };
        Ok(if self.lock()?.add(head.clone(), own) { PackPut::Kept } else { PackPut::Already })
    }

    fn sync(&self) -> Result<(), BlobError> {
        self.lock()?.packs_mut().for_each(|own| own.synced = true);
        Ok(())
    }

    fn locate(&self, ids: &[ContentId]) -> Result<Vec<Option<Place>>, BlobError> {
        Ok(self.lock()?.locate(ids))
    }

    fn open_pack(&self, id: &PackId) -> Result<Option<OpenPack>, BlobError> {
        let index = self.lock()?;
        Ok(index.get(id).map(|kept| OpenPack {
            head: kept.head.clone(),
            tail: Box::new(Cursor::new(kept.own.tail.clone())),
        }))
    }

    fn figures(&self) -> Result<BlobFigures, BlobError> {
        Ok(self.lock()?.figures())
    }
}
