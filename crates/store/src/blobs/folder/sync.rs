//! Packs become durable together: first what they hold, then their names, then the folders of these;
//! the index learns of them behind that.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cortex_content::pack::PackHead;
use cortex_core::files::content::PackId;
use cortex_core::limits::{BLOBS_UNSYNCED_CHUNKS_MAX, BLOBS_UNSYNCED_PACKS_MAX};

use super::files::Moment;
use super::{FolderBlobs, Unsynced};
use crate::blobs::{BlobError, doing, index, space};

impl FolderBlobs {
    /// Makes all durable that was put before.
    pub(super) fn sync_all(&self) -> Result<(), BlobError> {
        let _alone = self.syncing.lock().map_err(|_| BlobError::Poisoned)?;
        let waiting: Vec<(PackId, Unsynced)> = {
            let state = self.lock()?;
            let unsynced =
                state.fresh.packs().filter_map(|kept| Some((kept.head.id(), kept.own.unsynced.clone()?)));
            unsynced.collect()
        };
        let mut first = None;
        let mut lose = |id: &PackId, fault: BlobError| {
            first.get_or_insert(fault);
            self.lose(id)
        };
        // Each file is synced once: what a disk failed to write is not made durable by asking again.
        let mut synced = Vec::with_capacity(waiting.len());
        for (id, unsynced) in waiting {
            let done = unsynced.file.sync_data().map_err(doing("sync a pack"));
            match done.and_then(|()| self.files.reach(Moment::FileSynced, &unsynced.path)) {
                Ok(()) => synced.push((id, unsynced.path)),
                Err(fault) => {
                    drop(std::fs::remove_file(&unsynced.path));
                    lose(&id, fault)?;
                }
            }
        }
        // A pack may get a name from which another thread is removing an older file.
        let _alone = self.removing.lock().map_err(|_| BlobError::Poisoned)?;
        let mut named: BTreeMap<PathBuf, Vec<PackId>> = BTreeMap::new();
        for (id, path) in synced {
            match self.files.rename(&id, &path) {
                Ok(folder) => named.entry(folder).or_default().push(id),
                Err(fault) => lose(&id, fault)?,
            }
        }
        let mut durable = Vec::new();
        for (folder, ids) in named {
            match self.files.sync_folder(&folder) {
                Ok(()) => durable.extend(ids),
                // Whether their names are durable is not known, and no later sync would tell.
                Err(fault) => {
                    let mut fault = Some(fault);
                    for id in &ids {
                        lose(id, fault.take().unwrap_or_else(unknown))?;
                    }
                }
            }
        }
        {
            let mut state = self.lock()?;
            for id in &durable {
                if let Some(kept) = state.fresh.get_mut(id) {
                    kept.own.unsynced = None;
                }
            }
        }
        self.index_fresh()?;
        first.map_or(Ok(()), Err)
    }

    /// Tells the index of the packs that are durable. When it cannot take them they stay in memory: the
    /// next sync, or the next start, tells it.
    fn index_fresh(&self) -> Result<(), BlobError> {
        let heads: Vec<PackHead> = {
            let state = self.lock()?;
            let durable = state.fresh.packs().filter(|kept| kept.own.unsynced.is_none());
            durable.map(|kept| kept.head.clone()).collect()
        };
        if heads.is_empty() {
            return Ok(());
        }
        let rows = self
            .index
            .write(|tx| heads.iter().map(|head| index::insert(tx, head)).collect::<Result<Vec<_>, _>>());
        let rows = match rows {
            Ok(rows) => rows,
            Err(why) => {
                tracing::warn!(%why, packs = heads.len(), "the index of the chunks does not take new packs");
                return Ok(());
            }
        };
        let mut gone = self.gone.write().map_err(|_| BlobError::Poisoned)?;
        let mut state = self.lock()?;
        let stamp = self.pins.stamp()?;
        for (head, (row, new)) in heads.iter().zip(rows) {
            state.touched.insert(row, stamp);
            state.fresh.remove(&head.id());
            state.fresh_chunks -= head.chunks().len();
            // Its rows may be left from a pack that went, or that is damaged and was put again.
            if gone.remove(&row) || new {
                state.figures.add(head);
            }
        }
        drop((state, gone));
        self.files.reach(Moment::Indexed, &self.files.folder("packs"))
    }

    /// A pack could not be made durable.
    fn lose(&self, id: &PackId) -> Result<(), BlobError> {
        let mut state = self.lock()?;
        if let Some(kept) = state.fresh.get(id) {
            state.fresh_chunks -= kept.head.chunks().len();
        }
        state.fresh.remove(id);
        state.lost += 1;
        drop(state);
        self.memo.clear()
    }

    /// Syncs when too much waits for it: what is not in the index yet costs memory.
    pub(super) fn bound_fresh(&self) -> Result<(), BlobError> {
        let over = || {
            let state = self.lock()?;
            let over = state.fresh.len() >= BLOBS_UNSYNCED_PACKS_MAX;
            Ok::<_, BlobError>(over || state.fresh_chunks >= BLOBS_UNSYNCED_CHUNKS_MAX)
        };
        if over()? {
            self.sync_all()?;
            if over()? {
                return Err(BlobError::Refused(space::no_space()));
            }
        }
        Ok(())
    }
}

fn unknown() -> BlobError {
    BlobError::Io { doing: "sync a folder of packs", source: std::io::Error::other("it failed") }
}
