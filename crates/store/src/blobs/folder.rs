//! Content in a folder: `packs/ab/<id>.pack` with head and body as they travel, `tmp/` for what is not
//! durable yet, `bad/` for what the disk has damaged, and `index.db` that says where each chunk lies.
//!
//! A pack gets its name only after it was synced, so whatever has a name was whole when it got it. The
//! folder is the truth: a start makes the index agree with it.
//!
//! What is put is in memory alone until a sync has named it; the index learns of it behind that. Of the
//! locks, an earlier one is never asked for while a later one is held: `collecting`, `syncing`,
//! `removing`, `gone`, `state`, the index.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use cortex_content::pack::{Pack, PackHead};
use cortex_core::files::content::{ContentId, PackId};

use super::cache::Cache;
use super::complete::{Ground, Memo, Touched, complete};
use super::index::{self, Index, Row};
use super::pin::{Condemned, Pins};
use super::space::SpaceRules;
use super::table::Table;
use super::{
    BlobError, BlobFigures, Blobs, Collected, Completeness, PackPut, Pin, Place, Root, Scrubbed, Since,
    Sweep, doing, take,
};

mod collect;
mod files;
mod recover;
mod scrub;
mod sync;

pub use recover::Recovered;

use files::{Files, Moment};

/// Keeps packs in a folder of its own, which nobody else may write to.
pub struct FolderBlobs {
    files: Files,
    index: Index,
    space: SpaceRules,
    pins: Arc<Pins>,
    memo: Memo,
    cache: Cache,
    state: Mutex<State>,
    /// Packs that are being removed: nobody finds a chunk in them. Read for the length of a search, so
    /// that whoever adds to it knows that no earlier search is under way.
    gone: RwLock<HashSet<Row>>,
    /// Held for the length of a sync: two at once would name the same packs twice.
    syncing: Mutex<()>,
    /// Held by whoever takes packs out.
    removing: Mutex<()>,
    /// Held for the length of a collection.
    collecting: Mutex<()>,
    /// Ours while it is open.
    _lock: File,
}

#[derive(Default)]
struct State {
    /// Packs that the index does not know yet.
    fresh: Table<Own>,
    /// Chunks of these.
    fresh_chunks: usize,
    /// Bytes of packs that are being written.
    incoming: u64,
    /// Numbers the files of `tmp/`.
    next: u64,
    /// The pin that was newest when a pack was put or found last.
    touched: HashMap<Row, u64>,
    /// Where the last collection began: older stamps are forgotten.
    swept: u64,
    /// Packs that are to go.
    condemned: HashMap<Row, Condemned>,
    /// Packs in which a reader found damage, for the next scrub.
    suspects: BTreeSet<PackId>,
    /// Packs that a failed sync could not make durable.
    lost: u64,
    /// How often a pack was taken out because it was damaged.
    damages: u64,
    /// The number of the last scrub of a pack.
    scrubbed: i64,
    /// Of the packs that the index knows.
    figures: BlobFigures,
}

/// What is known of a fresh pack beside its head.
struct Own {
    /// Its file in `tmp/`; `None` once it is durable and has its name.
    unsynced: Option<Unsynced>,
}

#[derive(Clone)]
struct Unsynced {
    path: PathBuf,
    file: Arc<File>,
}

/// Where a chunk was found.
#[derive(Clone, Copy)]
struct Spot {
    /// Its pack in the index; `None` while that does not know it.
    row: Option<Row>,
    place: Place,
}

impl FolderBlobs {
    /// [`open_with`](Self::open_with) as much as the disk takes.
    ///
    /// # Errors
    /// The same.
    pub fn open(root: &Path) -> Result<(Self, Recovered), BlobError> {
        Self::open_with(root, SpaceRules::unbounded())
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, BlobError> {
        self.state.lock().map_err(|_| BlobError::Poisoned)
    }

    /// Where chunks lie; under a pin, what is found stays.
    fn find(&self, ids: &[ContentId], pin: Option<&Pin>) -> Result<(Vec<Option<Spot>>, bool), BlobError> {
        if ids.is_empty() {
            return Ok((Vec::new(), false));
        }
        let gone = self.gone.read().map_err(|_| BlobError::Poisoned)?;
        // First what is fresh: a pack leaves it only after the index has it.
        let fresh: Vec<Option<Place>> = {
            let state = self.lock()?;
            ids.iter().map(|id| state.fresh.find(id)).collect()
        };
        let spots: Vec<Option<Spot>> = self.index.read(|conn| {
            let find = |(id, fresh): (_, Option<Place>)| {
                let known = index::place(conn, id, &|row| gone.contains(&row))?;
                let known = known.map(|(row, place)| Spot { row: Some(row), place });
                Ok(known.or_else(|| fresh.map(|place| Spot { row: None, place })))
            };
            ids.iter().zip(fresh).map(find).collect()
        })?;
        let mut condemned = false;
        if pin.is_some() {
            let mut state = self.lock()?;
            let stamp = self.pins.stamp()?;
            // A fresh pack is stamped when the index gets it, which is later.
            for row in spots.iter().flatten().filter_map(|spot| spot.row) {
                state.touched.insert(row, stamp);
                condemned |= state.condemned.contains_key(&row);
            }
        }
        Ok((spots, condemned))
    }

    /// The file of a pack; `None` when it is not kept.
    fn open_file(&self, id: &PackId) -> Result<Option<File>, BlobError> {
        let state = self.lock()?;
        let fresh = state.fresh.get(id).and_then(|kept| kept.own.unsynced.as_ref());
        // Under the lock, so that a sync does not name it in between; named ones stay where they are.
        let unsynced = fresh.and_then(|unsynced| File::open(&unsynced.path).ok());
        drop(state);
        match unsynced {
            Some(file) => Ok(Some(file)),
            None => self.files.open(id),
        }
    }

    /// A pack with what lies in its file, not verified but for its head.
    fn load(&self, id: &PackId) -> Result<Option<Pack>, BlobError> {
        match self.open_file(id)? {
            Some(file) => self.suspecting(id, files::load(file, id)).map(Some),
            None => Ok(None),
        }
    }

    /// Notes the pack for the next scrub when it is damaged.
    fn suspecting<T>(&self, id: &PackId, found: Result<T, BlobError>) -> Result<T, BlobError> {
        if let Err(BlobError::Damaged { why, .. }) = &found {
            tracing::error!(pack = %id, %why, "a pack of content is damaged");
            self.lock()?.suspects.insert(*id);
            self.cache.forget(id)?;
        }
        found
    }

    /// Puts a pack for a caller that has a pin.
    fn put(&self, head: &PackHead, tail: &mut dyn Read, pin: &Pin) -> Result<PackPut, BlobError> {
        // Found and stamped in one: it is not removed in between.
        if self.keeps(head)? {
            take(head, tail, &mut |_| Ok(()))?;
            // It may have gone while the tail was read.
            let ids: Vec<ContentId> = head.chunks().iter().map(|chunk| chunk.id).collect();
            if self.find(&ids, Some(pin))?.0.iter().all(Option::is_some) {
                return Ok(PackPut::Already);
            }
            return Err(damaged_meanwhile(head));
        }
        let len = head.pack_len() as u64;
        let incoming = self.admit(len)?;
        let path = self.files.tmp(incoming.number);
        let mut file = Files::create(&path)?;
        let written = file
            .write_all(&head.to_bytes())
            .map_err(doing("write a pack"))
            .and_then(|()| take(head, tail, &mut |piece| file.write_all(piece)))
            .and_then(|()| self.files.reach(Moment::Tmp, &path));
        let kept = written.and_then(|()| {
            let own = Own { unsynced: Some(Unsynced { path: path.clone(), file: Arc::new(file) }) };
            let mut state = self.lock()?;
            let added = state.fresh.add(head.clone(), own);
            if added {
                state.fresh_chunks += head.chunks().len();
            }
            Ok(added)
        });
        if !matches!(kept, Ok(true)) {
            // It is of no use any more; what cannot be removed is removed by the next start.
            drop(std::fs::remove_file(&path));
        }
        Ok(if kept? { PackPut::Kept } else { PackPut::Already })
    }

    /// Whether this very pack is kept; it stays for the pins that are held.
    fn keeps(&self, head: &PackHead) -> Result<bool, BlobError> {
        let gone = self.gone.read().map_err(|_| BlobError::Poisoned)?;
        if self.lock()?.fresh.get(&head.id()).is_some() {
            return Ok(true);
        }
        let row = self.index.read(|conn| index::row_of(conn, &head.id()))?;
        let Some(row) = row.filter(|row| !gone.contains(row)) else { return Ok(false) };
        let stamp = self.pins.stamp()?;
        let mut state = self.lock()?;
        if state.suspects.contains(&head.id()) {
            return Ok(false);
        }
        state.touched.insert(row, stamp);
        Ok(true)
    }

    /// Counts a pack of `len` bytes in while it is written, if there is room for it.
    fn admit(&self, len: u64) -> Result<Incoming<'_>, BlobError> {
        let mut state = self.lock()?;
        let fresh: u64 = state.fresh.packs().map(|kept| kept.head.pack_len() as u64).sum();
        self.space.admit(state.figures.bytes + fresh + state.incoming, len)?;
        state.incoming += len;
        state.next += 1;
        Ok(Incoming { blobs: self, len, number: state.next })
    }
}

/// A pack that is being written.
struct Incoming<'b> {
    blobs: &'b FolderBlobs,
    len: u64,
    number: u64,
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        if let Ok(mut state) = self.blobs.state.lock() {
            state.incoming -= self.len;
        }
    }
}

fn damaged_meanwhile(head: &PackHead) -> BlobError {
    super::damaged(head.id(), "It was set aside while it was put again; put it once more.")
}

impl Blobs for FolderBlobs {
    fn pin(&self) -> Result<Pin, BlobError> {
        self.pins.pin()
    }

    fn put_pack(&self, head: &PackHead, tail: &mut dyn Read, pin: &Pin) -> Result<PackPut, BlobError> {
        pin.has_put(self.lock()?.lost);
        let put = self.put(head, tail, pin)?;
        self.bound_fresh()?;
        Ok(put)
    }

    fn sync(&self, pin: &Pin) -> Result<(), BlobError> {
        let before = pin.begin_sync();
        self.sync_all()?;
        match before {
            Some(before) if self.lock()?.lost > before => Err(BlobError::Io {
                doing: "make packs durable",
                source: std::io::Error::other("an earlier sync failed; put their chunks again"),
            }),
            _ => Ok(()),
        }
    }

    fn locate(&self, ids: &[ContentId]) -> Result<Vec<Option<Place>>, BlobError> {
        Ok(self.find(ids, None)?.0.into_iter().map(|spot| spot.map(|spot| spot.place)).collect())
    }

    fn have(&self, ids: &[ContentId], pin: &Pin) -> Result<Vec<bool>, BlobError> {
        Ok(self.find(ids, Some(pin))?.0.iter().map(Option::is_some).collect())
    }

    fn chunk(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        // Its pack may go after it was found; the chunk lies in another one then, or is gone.
        for _ in 0..3 {
            let Some(Some(place)) = self.locate(std::slice::from_ref(id))?.pop() else { return Ok(None) };
            let read = self.cache.chunk(id, &place, &mut || self.load(&place.pack));
            if let Some(bytes) = self.suspecting(&place.pack, read)? {
                return Ok(Some(bytes));
            }
        }
        // The index names a pack that has no file: the scrub takes it out.
        if let Some(Some(place)) = self.locate(std::slice::from_ref(id))?.pop() {
            self.lock()?.suspects.insert(place.pack);
        }
        Ok(None)
    }

    fn read_pack(&self, id: &PackId) -> Result<Option<Arc<Pack>>, BlobError> {
        if let Some(pack) = self.cache.stored(id)? {
            return Ok(Some(pack));
        }
        let Some(pack) = self.load(id)? else { return Ok(None) };
        self.suspecting(id, files::check(&pack))?;
        let pack = Arc::new(pack);
        self.cache.keep(&pack)?;
        Ok(Some(pack))
    }

    fn complete(&self, root: &Root, pin: &Pin) -> Result<Completeness, BlobError> {
        complete(self, root, pin)
    }

    fn begin(&self) -> Result<Since, BlobError> {
        self.pins.since()
    }

    fn collect(&self, sweep: Sweep<'_>) -> Result<Collected, BlobError> {
        self.sweep(sweep)
    }

    fn scrub(&self, bytes: u64) -> Result<Scrubbed, BlobError> {
        self.scrub_some(bytes)
    }

    fn figures(&self) -> Result<BlobFigures, BlobError> {
        let pins = self.pins.count()?;
        let state = self.lock()?;
        let condemned = state.condemned.len() as u64;
        let mut figures = BlobFigures { pins, condemned, ..state.figures };
        state.fresh.packs().for_each(|kept| figures.add(&kept.head));
        Ok(figures)
    }
}

impl BlobFigures {
    /// Counts a pack out.
    fn take(&mut self, pack: &index::PackRow) {
        self.packs = self.packs.saturating_sub(1);
        self.chunks = self.chunks.saturating_sub(u64::from(pack.chunks));
        self.bytes = self.bytes.saturating_sub(u64::from(pack.bytes));
        self.plain_bytes = self.plain_bytes.saturating_sub(u64::from(pack.plain));
    }
}

impl Ground for FolderBlobs {
    fn touch(&self, ids: &[ContentId], pin: &Pin) -> Result<Touched, BlobError> {
        let (spots, condemned) = self.find(ids, Some(pin))?;
        Ok(Touched { here: spots.iter().map(Option::is_some).collect(), condemned })
    }

    fn bytes(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError> {
        self.chunk(id)
    }

    fn memo(&self) -> &Memo {
        &self.memo
    }
}

#[cfg(test)]
impl FolderBlobs {
    /// Calls this at each step after which a crash leaves another folder. What it answers is what comes
    /// of the step.
    pub(super) fn watch(&mut self, watch: files::Watch) {
        self.files.watch = Some(watch);
    }
}

#[cfg(test)]
pub(super) use files::Moment as Step;
