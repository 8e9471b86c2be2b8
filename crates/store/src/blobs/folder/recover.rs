//! The start: the folder is looked through, and the index is made to agree with it.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, RwLock};

use cortex_content::pack::PackHead;
use cortex_core::files::content::PackId;
use cortex_core::limits::BLOBS_UNSYNCED_CHUNKS_MAX;
use cortex_core::time::WallTime;

use super::files::{Files, list, named, read_head};
use super::{FolderBlobs, State};
use crate::blobs::cache::Cache;
use crate::blobs::complete::Memo;
use crate::blobs::index::{self, Index, PackRow, Row};
use crate::blobs::pin::{Condemned, Pins};
use crate::blobs::space::SpaceRules;
use crate::blobs::{BlobError, BlobFigures, doing};

/// Heads that the index is told of in one write: their chunks are in memory until then.
const HEADS: usize = 256;

/// What a start found that is not as it was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Packs that were not durable, and are gone.
    pub unfinished: u64,
    /// Packs whose head or length is not what their name says; they were moved to `bad/`.
    pub damaged: u64,
    /// Packs that the index did not know; their heads were read.
    pub read: u64,
    /// Packs that the index knew and that are not there.
    pub vanished: u64,
    /// Whether the index was damaged, and made anew.
    pub rebuilt: bool,
}

impl FolderBlobs {
    /// Opens the folder, which is made when it is not there, and makes the index agree with it. The head
    /// of a pack is read only when the index does not know it.
    ///
    /// # Errors
    /// [`BlobError::InUse`], [`BlobError::Io`], [`BlobError::Index`]. A damaged pack is none: it is set
    /// aside and counted. Neither is a damaged index.
    pub fn open_with(root: &Path, space: SpaceRules) -> Result<(Self, Recovered), BlobError> {
        let mut recovered = Recovered::default();
        let files = Files::new(root);
        for folder in ["packs", "tmp", "bad"] {
            fs::create_dir_all(files.folder(folder)).map_err(doing("make a folder for packs"))?;
        }
        let lock = own(root)?;
        for left in list(&files.folder("tmp"))? {
            fs::remove_file(&left).map_err(doing("remove an unfinished pack"))?;
            recovered.unfinished += 1;
        }
        let (index, rebuilt) = Index::open(root)?;
        recovered.rebuilt = rebuilt;
        agree(&files, &index, &mut recovered)?;
        files.sync_folder(root)?;
        let state = load(&index)?;
        if recovered != Recovered::default() {
            let Recovered { unfinished, damaged, read, vanished, rebuilt } = recovered;
            tracing::info!(
                unfinished,
                damaged,
                read,
                vanished,
                rebuilt,
                "the packs of content were looked through"
            );
        }
        let blobs = Self {
            files,
            index,
            space,
            pins: Arc::new(Pins::default()),
            memo: Memo::default(),
            cache: Cache::new(),
            state: Mutex::new(state),
            gone: RwLock::new(HashSet::new()),
            syncing: Mutex::new(()),
            removing: Mutex::new(()),
            collecting: Mutex::new(()),
            _lock: lock,
        };
        Ok((blobs, recovered))
    }
}

/// Takes the folder; it is ours while the file is open.
fn own(root: &Path) -> Result<File, BlobError> {
    let path = root.join("lock");
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(doing("open the lock of the packs"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BlobError::InUse(root.to_owned())),
        Err(TryLockError::Error(fault)) => Err(doing("lock the packs")(fault)),
    }
}

/// Adds to the index what is in the folder, and takes from it what is not.
fn agree(files: &Files, index: &Index, recovered: &mut Recovered) -> Result<(), BlobError> {
    let mut known: HashMap<PackId, (Row, u32)> = HashMap::new();
    index.read(|conn| index::packs(conn, &mut |pack| known.extend([(pack.id, (pack.row, pack.bytes))])))?;
    let mut heads: Vec<PackHead> = Vec::new();
    let mut tell = |heads: &mut Vec<PackHead>| {
        index.write(|tx| heads.iter().try_for_each(|head| index::insert(tx, head).map(drop)))?;
        recovered.read += heads.len() as u64;
        heads.clear();
        Ok::<_, BlobError>(())
    };
    for folder in list(&files.folder("packs"))? {
        for path in list(&folder)? {
            let len = fs::symlink_metadata(&path).map_err(doing("look at a pack"))?.len();
            let right = match named(&path).and_then(|id| Some((id, *known.get(&id)?))) {
                Some((id, (_, bytes))) if u64::from(bytes) == len => {
                    known.remove(&id);
                    continue;
                }
                // Of a length that it never had: its rows go with those of the missing.
                Some(_) => None,
                None => read_head(&path)?,
            };
            match right {
                Some(head) => heads.push(head),
                None => {
                    files.set_aside(&path)?;
                    recovered.damaged += 1;
                }
            }
            let chunks: usize = heads.iter().map(|head| head.chunks().len()).sum();
            if heads.len() == HEADS || chunks >= BLOBS_UNSYNCED_CHUNKS_MAX {
                tell(&mut heads)?;
            }
        }
    }
    tell(&mut heads)?;
    recovered.vanished = known.len() as u64;
    if known.is_empty() {
        return Ok(());
    }
    let rows: Vec<Row> = known.into_values().map(|(row, _)| row).collect();
    index.write(|tx| index::remove_all(tx, &rows))
}

/// What is held in memory of the packs that the index knows.
fn load(index: &Index) -> Result<State, BlobError> {
    let mut state = State::default();
    let figures: &mut BlobFigures = &mut state.figures;
    let condemned = &mut state.condemned;
    index.read(|conn| {
        index::packs(conn, &mut |PackRow { row, bytes, plain, chunks, condemned_at, .. }| {
            figures.packs += 1;
            figures.chunks += u64::from(chunks);
            figures.bytes += u64::from(bytes);
            figures.plain_bytes += u64::from(plain);
            if let Some(at) = condemned_at {
                condemned.insert(row, Condemned { at: WallTime(at), stamp: 0 });
            }
        })
    })?;
    state.scrubbed = index
        .read(|conn| conn.query_row("SELECT ifnull(max(scrubbed), 0) FROM packs", [], |row| row.get(0)))?;
    Ok(state)
}
