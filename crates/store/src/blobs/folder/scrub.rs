//! Scrub: packs are read from time to time, so that what the disk has changed is found while others have
//! it still (ABUSE 59).

use cortex_content::pack::PackHead;
use cortex_core::files::content::{ContentId, PackId};

use super::{FolderBlobs, files};
use crate::blobs::index::{self, PackRow};
use crate::blobs::space::is_full;
use crate::blobs::{BlobError, Scrubbed};

/// Packs whose turn is looked up at once.
const BATCH: u32 = 64;
/// A call ends after it has lost so many chunks.
const LOST_MAX: usize = 65_536;

impl FolderBlobs {
    /// One scrub.
    pub(super) fn scrub_some(&self, bytes: u64) -> Result<Scrubbed, BlobError> {
        let mut scrubbed = Scrubbed::default();
        let (suspects, first) = {
            let state = self.lock()?;
            (state.suspects.clone(), state.scrubbed + 1)
        };
        for id in suspects {
            if self.lock()?.fresh.get(&id).is_some() {
                continue;
            }
            let known = self.index.read(|conn| match index::row_of(conn, &id)? {
                Some(row) => index::pack(conn, row),
                None => Ok(None),
            })?;
            match known {
                Some(pack) => self.scrub_one(&pack, &mut scrubbed)?,
                None => drop(self.lock()?.suspects.remove(&id)),
            }
            if is_enough(&scrubbed, bytes) {
                return Ok(scrubbed);
            }
        }
        loop {
            let next = self.index.read(|conn| index::unscrubbed(conn, first, BATCH))?;
            if next.is_empty() {
                return Ok(scrubbed);
            }
            let before = (self.lock()?.scrubbed, scrubbed.damaged.len());
            for pack in next {
                self.scrub_one(&pack, &mut scrubbed)?;
                if is_enough(&scrubbed, bytes) {
                    return Ok(scrubbed);
                }
            }
            if (self.lock()?.scrubbed, scrubbed.damaged.len()) == before {
                // All of them are about to go, and wait for room to say so.
                return Ok(scrubbed);
            }
        }
    }

    fn scrub_one(&self, pack: &PackRow, scrubbed: &mut Scrubbed) -> Result<(), BlobError> {
        scrubbed.packs += 1;
        scrubbed.bytes += u64::from(pack.bytes);
        let head = match self.sound(&pack.id) {
            Ok(Some(head)) => head,
            Ok(None) | Err(BlobError::Damaged { .. }) => return self.set_aside(pack, scrubbed),
            Err(fault) => return Err(fault),
        };
        let number = {
            let mut state = self.lock()?;
            state.suspects.remove(&pack.id);
            state.scrubbed += 1;
            state.scrubbed
        };
        let told = self.index.write(|tx| {
            // It may have gone meanwhile.
            if index::scrubbed(tx, pack.row, number)? {
                index::insert_chunks(tx, pack.row, &head)
            } else {
                Ok(0)
            }
        });
        match told {
            Err(fault) if is_full(&fault) => {
                // Without room it cannot be said that it was read; the call must end all the same.
                scrubbed.bytes = u64::MAX;
                Ok(())
            }
            told => {
                scrubbed.mended += told?;
                Ok(())
            }
        }
    }

    /// The head of a pack that is as it was put; `None` when it has no file.
    fn sound(&self, id: &PackId) -> Result<Option<PackHead>, BlobError> {
        let Some(pack) = self.load(id)? else { return Ok(None) };
        self.suspecting(id, files::check(&pack))?;
        Ok(Some(pack.head))
    }

    /// Takes a pack out that is not what was put.
    fn set_aside(&self, pack: &PackRow, scrubbed: &mut Scrubbed) -> Result<(), BlobError> {
        let ids = {
            let _alone = self.removing.lock().map_err(|_| BlobError::Poisoned)?;
            // It may have gone, or been put again, since it was read.
            let is_there = self.index.read(|conn| index::pack(conn, pack.row))?.is_some();
            let is_going = self.gone.read().map_err(|_| BlobError::Poisoned)?.contains(&pack.row);
            let is_sound = match self.sound(&pack.id) {
                Ok(found) => found.is_some(),
                Err(BlobError::Damaged { .. }) => false,
                Err(fault) => return Err(fault),
            };
            if !is_there || is_going || is_sound {
                self.lock()?.suspects.remove(&pack.id);
                return Ok(());
            }
            let ids = self.index.read(|conn| index::chunks_of(conn, pack.row))?;
            {
                let mut gone = self.gone.write().map_err(|_| BlobError::Poisoned)?;
                gone.insert(pack.row);
                let mut state = self.lock()?;
                state.damages += 1;
                state.figures.take(pack);
                state.figures.damaged += 1;
                state.condemned.remove(&pack.row);
                state.suspects.remove(&pack.id);
            }
            self.memo.clear()?;
            self.cache.forget(&pack.id)?;
            self.files.set_aside(&self.files.name(&pack.id))?;
            match self.index.write(|tx| index::remove(tx, pack.row, None)) {
                // Nobody finds it; its rows go with the next collection that has room.
                Err(fault) if is_full(&fault) => {}
                removed => {
                    removed?;
                    self.gone.write().map_err(|_| BlobError::Poisoned)?.remove(&pack.row);
                }
            }
            ids
        };
        tracing::error!(pack = %pack.id, chunks = ids.len(), "a damaged pack of content was set aside");
        scrubbed.damaged.push(pack.id);
        let (spots, _) = self.find(&ids, None)?;
        let lost = ids.into_iter().zip(spots).filter(|(_, spot)| spot.is_none());
        scrubbed.lost.extend(lost.map(|(id, _): (ContentId, _)| id));
        Ok(())
    }
}

fn is_enough(scrubbed: &Scrubbed, bytes: u64) -> bool {
    scrubbed.bytes >= bytes || scrubbed.lost.len() >= LOST_MAX
}
