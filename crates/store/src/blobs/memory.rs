//! Content in memory: the reference that says what is kept. It writes no pack anew: a collection takes
//! whole packs, those of which nothing is named.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use cortex_content::pack::{Pack, PackHead};
use cortex_core::files::content::{ContentId, PackId};
use cortex_core::time::WallTime;

use super::complete::{Ground, Memo, Touched, complete};
use super::mark::{Marks, mark};
use super::pin::{Condemned, Pins};
use super::table::Table;
use super::{
    BlobError, BlobFigures, Blobs, Collected, Completeness, PackPut, Pin, Place, Root, Scrubbed, Since,
    Sweep, decode, take,
};

/// Keeps packs in memory.
#[derive(Default)]
pub struct MemoryBlobs {
    table: Mutex<Table<Own>>,
    pins: Arc<Pins>,
    memo: Memo,
    /// Held for the length of a collection.
    collecting: Mutex<Option<u64>>,
}

struct Own {
    tail: Bytes,
    synced: bool,
    seen_at: Option<WallTime>,
    condemned: Option<Condemned>,
    touched: u64,
}

impl MemoryBlobs {
    /// Nothing is kept yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is left after a crash, of which nobody holds a pin.
    ///
    /// # Errors
    /// [`BlobError::Poisoned`].
    pub fn crash(&self) -> Result<(), BlobError> {
        let mut table = self.lock()?;
        let lost: Vec<PackId> =
            table.packs().filter(|kept| !kept.own.synced).map(|kept| kept.head.id()).collect();
        lost.iter().for_each(|id| table.remove(id));
        drop(table);
        self.memo.clear()
    }

    fn lock(&self) -> Result<MutexGuard<'_, Table<Own>>, BlobError> {
        self.table.lock().map_err(|_| BlobError::Poisoned)
    }
}

impl Blobs for MemoryBlobs {
    fn pin(&self) -> Result<Pin, BlobError> {
        self.pins.pin()
    }

    fn put_pack(&self, head: &PackHead, tail: &mut dyn Read, _pin: &Pin) -> Result<PackPut, BlobError> {
        let mut kept = Vec::with_capacity(head.tail_len());
        take(head, tail, &mut |piece| {
            kept.extend_from_slice(piece);
            Ok(())
        })?;
        let touched = self.pins.stamp()?;
        let tail = Bytes::from(kept);
        let mut table = self.lock()?;
        if let Some(kept) = table.get_mut(&head.id()) {
            kept.own.touched = touched;
            return Ok(PackPut::Already);
        }
        table.add(head.clone(), Own { tail, synced: false, seen_at: None, condemned: None, touched });
        Ok(PackPut::Kept)
    }

    fn sync(&self, _pin: &Pin) -> Result<(), BlobError> {
        self.lock()?.packs_mut().for_each(|own| own.synced = true);
        Ok(())
    }

    fn locate(&self, ids: &[ContentId]) -> Result<Vec<Option<Place>>, BlobError> {
        let table = self.lock()?;
        Ok(ids.iter().map(|id| table.find(id)).collect())
    }

    fn have(&self, ids: &[ContentId], pin: &Pin) -> Result<Vec<bool>, BlobError> {
        Ok(self.touch(ids, pin)?.here)
    }

    fn chunk(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        let Some(Some(place)) = self.locate(std::slice::from_ref(id))?.pop() else { return Ok(None) };
        let Some(pack) = self.read_pack(&place.pack)? else { return Ok(None) };
        let before = pack.head.chunks().iter().take(place.number as usize);
        let start: usize = before.map(|chunk| chunk.len as usize).sum();
        let plain = decode(&pack)?;
        Ok(plain.get(start..start + place.len as usize).map(Bytes::copy_from_slice))
    }

    fn read_pack(&self, id: &PackId) -> Result<Option<Arc<Pack>>, BlobError> {
        let table = self.lock()?;
        let pack =
            |kept: &super::table::Kept<Own>| Pack { head: kept.head.clone(), tail: kept.own.tail.clone() };
        Ok(table.get(id).map(pack).map(Arc::new))
    }

    fn complete(&self, root: &Root, pin: &Pin) -> Result<Completeness, BlobError> {
        complete(self, root, pin)
    }

    fn begin(&self) -> Result<Since, BlobError> {
        self.pins.since()
    }

    fn collect(&self, sweep: Sweep<'_>) -> Result<Collected, BlobError> {
        let mut last = self.collecting.lock().map_err(|_| BlobError::Poisoned)?;
        self.lock()?.packs_mut().for_each(|own| own.synced = true);
        let mut marks = MemoryMarks { blobs: self, live: HashMap::new(), walked: HashSet::new() };
        let walked = mark(sweep.roots, &mut marks)?;
        let live: HashSet<PackId> = marks.live.values().map(|place| place.pack).collect();
        let live_bytes = marks.live.values().map(|place| u64::from(place.len)).sum();
        let mut collected = Collected {
            objects: walked.objects,
            missing: walked.missing,
            live_bytes,
            ..Collected::default()
        };
        *last = Some(live_bytes);
        let mut table = self.lock()?;
        let packs: Vec<(PackId, u64)> =
            table.packs().map(|kept| (kept.head.id(), kept.head.pack_len() as u64)).collect();
        // Pins are given out meanwhile, but nothing is learned: that needs the table.
        let stamp = self.pins.stamp()?;
        for (id, len) in packs {
            let Some(kept) = table.get_mut(&id) else { continue };
            let own = &mut kept.own;
            let old = own.seen_at.get_or_insert(sweep.now).plus_ms(sweep.rules.young_ms) <= sweep.now;
            let used = own.touched >= sweep.since.0;
            if live.contains(&id) {
                own.condemned = None;
            } else if let Some(condemned) = own.condemned {
                if !used && condemned.is_over(sweep.since, sweep.now, sweep.rules.condemned_ms) {
                    table.remove(&id);
                    collected.deleted += 1;
                    collected.deleted_bytes += len;
                }
            } else if old && !used {
                own.condemned = Some(Condemned { at: sweep.now, stamp });
                collected.condemned += 1;
            }
        }
        self.memo.clear()?;
        // A pin that came before the memo was cleared may have relied on it.
        let stamp = self.pins.stamp()?;
        for own in table.packs_mut() {
            if let Some(condemned) = &mut own.condemned
                && condemned.at == sweep.now
            {
                condemned.stamp = stamp;
            }
        }
        Ok(collected)
    }

    fn scrub(&self, _bytes: u64) -> Result<Scrubbed, BlobError> {
        let table = self.lock()?;
        let bytes = table.packs().map(|kept| kept.head.pack_len() as u64).sum();
        Ok(Scrubbed { packs: table.len() as u64, bytes, ..Scrubbed::default() })
    }

    fn figures(&self) -> Result<BlobFigures, BlobError> {
        let live_bytes = *self.collecting.lock().map_err(|_| BlobError::Poisoned)?;
        let table = self.lock()?;
        let condemned = table.packs().filter(|kept| kept.own.condemned.is_some()).count() as u64;
        let mut figures =
            BlobFigures { live_bytes, condemned, pins: self.pins.count()?, ..BlobFigures::default() };
        table.packs().for_each(|kept| figures.add(&kept.head));
        Ok(figures)
    }
}

impl Ground for MemoryBlobs {
    fn touch(&self, ids: &[ContentId], _pin: &Pin) -> Result<Touched, BlobError> {
        let mut table = self.lock()?;
        let stamp = self.pins.stamp()?;
        let places: Vec<Option<Place>> = ids.iter().map(|id| table.find(id)).collect();
        let mut condemned = false;
        for place in places.iter().flatten() {
            if let Some(kept) = table.get_mut(&place.pack) {
                kept.own.touched = stamp;
                condemned |= kept.own.condemned.is_some();
            }
        }
        Ok(Touched { here: places.iter().map(Option::is_some).collect(), condemned })
    }

    fn bytes(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        self.chunk(id)
    }

    fn memo(&self) -> &Memo {
        &self.memo
    }
}

struct MemoryMarks<'b> {
    blobs: &'b MemoryBlobs,
    live: HashMap<ContentId, Place>,
    walked: HashSet<(ContentId, bool)>,
}

impl Marks for MemoryMarks<'_> {
    fn live(&mut self, ids: &[ContentId]) -> Result<u64, BlobError> {
        let places = self.blobs.locate(ids)?;
        let mut missing = 0;
        for (id, place) in ids.iter().zip(places) {
            match place {
                Some(place) => drop(self.live.insert(*id, place)),
                None => missing += 1,
            }
        }
        Ok(missing)
    }

    fn object(&mut self, id: &ContentId, content: bool) -> Result<Option<bool>, BlobError> {
        if self.live(&[*id])? > 0 {
            return Ok(None);
        }
        let new = self.walked.insert((*id, content));
        // What was looked at with its content was looked at.
        Ok(Some(new && (content || !self.walked.contains(&(*id, true)))))
    }

    fn bytes(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        self.blobs.chunk(id)
    }
}
