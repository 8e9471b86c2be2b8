//! Packs of one push, from when they came until its end: the newest in memory, older ones in a folder of
//! their own. What is lost with the hub is asked for again, so nothing here is synced.
//!
//! A pack is needed until every node has it. Those that are behind find it here: a slow node reads from the
//! disk, and costs the others and the memory of the hub nothing (SYNC 5).

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// Bytes of packs that one push holds in memory.
const MEMORY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of packs that all pushes of a hub hold in memory, but for the newest pack of each.
const ALL_MEMORY_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes that all pushes of a hub hold in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<AtomicUsize>);

impl Memory {
    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The folder of one push: made when it is needed, removed with the last who may write in it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        remove(fs::remove_dir_all(&self.0), &self.0);
    }
}

/// Number of a pack within its push.
pub(crate) type PackNo = u64;

/// Where a pack is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In memory.
    Memory(Bytes),
    /// In this file. Reading it blocks.
    File(PathBuf),
}

/// A pack that has to leave the memory: to be written by [`Eviction::write`], which blocks, and then told
/// by [`Spool::written`]. Until then it is still there.
#[derive(Debug)]
pub(crate) struct Eviction {
    pub(crate) pack: PackNo,
    bytes: Bytes,
    path: PathBuf,
    folder: Arc<Folder>,
}

/// The packs.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: Arc<Folder>,
    all: Memory,
    memory: BTreeMap<PackNo, Bytes>,
    /// Of those in memory the ones that are not being written, oldest first.
    newest: VecDeque<PackNo>,
    /// Bytes in memory that are not being written.
    held: usize,
    files: BTreeMap<PackNo, PathBuf>,
    next: PackNo,
}

impl Spool {
    /// With a folder of its own, which is made when it is needed, and removed at its end: dropping it
    /// blocks. What it holds counts in `all`.
    pub(crate) fn new(folder: PathBuf, all: Memory) -> Self {
        Self {
            folder: Arc::new(Folder(folder)),
            all,
            memory: BTreeMap::new(),
            newest: VecDeque::new(),
            held: 0,
            files: BTreeMap::new(),
            next: 0,
        }
    }

    /// Takes a pack in, and says which others have to leave the memory for it.
    pub(crate) fn put(&mut self, bytes: Bytes) -> (PackNo, Vec<Eviction>) {
        let pack = self.next;
        self.next += 1;
        self.grow(bytes.len());
        self.memory.insert(pack, bytes);
        self.newest.push_back(pack);
        let mut leaving = Vec::new();
        while (self.held > MEMORY_BYTES_MAX || self.all.held() > ALL_MEMORY_BYTES_MAX)
            && self.newest.len() > 1
        {
            let Some(oldest) = self.newest.pop_front() else { break };
            let Some(bytes) = self.memory.get(&oldest).cloned() else { continue };
            self.shrink(bytes.len());
            let path = self.folder.0.join(format!("{oldest}.pack"));
            leaving.push(Eviction { pack: oldest, bytes, path, folder: Arc::clone(&self.folder) });
        }
        (pack, leaving)
    }

    /// A pack that left the memory is in its file.
    pub(crate) fn written(&mut self, eviction: Eviction) {
        if self.memory.remove(&eviction.pack).is_some() {
            self.files.insert(eviction.pack, eviction.path);
        } else {
            // It was forgotten meanwhile.
            remove(fs::remove_file(&eviction.path), &eviction.path);
        }
    }

    /// Where a pack is; `None` of one that is not here.
    pub(crate) fn place(&self, pack: PackNo) -> Option<Place> {
        let memory = self.memory.get(&pack).cloned().map(Place::Memory);
        memory.or_else(|| self.files.get(&pack).cloned().map(Place::File))
    }

    /// A pack that nobody needs any more.
    pub(crate) fn forget(&mut self, pack: PackNo) {
        if let Some(bytes) = self.memory.remove(&pack) {
            let before = self.newest.len();
            self.newest.retain(|other| *other != pack);
            if self.newest.len() < before {
                self.shrink(bytes.len());
            }
        }
        if let Some(path) = self.files.remove(&pack) {
            remove(fs::remove_file(&path), &path);
        }
    }

    fn grow(&mut self, bytes: usize) {
        self.held += bytes;
        self.all.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn shrink(&mut self, bytes: usize) {
        self.held -= bytes;
        self.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.shrink(self.held);
    }
}

impl Eviction {
    /// Writes the pack.
    ///
    /// # Errors
    /// The system's: no space, above all.
    pub(crate) fn write(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder.0)?;
        fs::write(&self.path, &self.bytes)
    }
}

/// Removes what pushes of a hub before left.
///
/// # Errors
/// The system's.
pub(crate) fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove(done: io::Result<()>, path: &Path) {
    match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "what a transfer left could not be removed");
        }
        Ok(()) | Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BIG: usize = MEMORY_BYTES_MAX / 4;

    fn pack(byte: u8) -> Bytes {
        Bytes::from(vec![byte; BIG])
    }

    fn read(spool: &Spool, number: PackNo) -> u8 {
        match spool.place(number).expect("it is here") {
            Place::Memory(bytes) => bytes[0],
            Place::File(path) => fs::read(path).expect("it is there")[0],
        }
    }

    #[test]
    fn the_oldest_packs_leave_the_memory_and_are_there_all_the_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("push");
        let mut spool = Spool::new(folder.clone(), Memory::default());
        let mut evictions = Vec::new();
        for byte in 0..6 {
            let (number, leaving) = spool.put(pack(byte));
            assert_eq!(number, u64::from(byte));
            evictions.extend(leaving);
        }
        assert_eq!(evictions.iter().map(|one| one.pack).collect::<Vec<_>>(), [0, 1]);
        assert!(!folder.exists(), "nothing was written so far");
        assert_eq!(read(&spool, 0), 0, "it is here until it is written");
        for one in evictions {
            one.write().expect("there is space");
            spool.written(one);
        }
        for byte in 0..6 {
            assert_eq!(read(&spool, u64::from(byte)), byte);
        }
        assert_eq!((spool.memory.len(), spool.files.len()), (4, 2));
        drop(spool);
        assert!(!folder.exists());
    }

    #[test]
    fn what_is_forgotten_is_gone_also_while_it_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::new(dir.path().join("push"), Memory::default());
        let mut leaving: Vec<Eviction> = (0..6).flat_map(|byte| spool.put(pack(byte)).1).collect();
        spool.forget(0);
        spool.forget(5);
        for one in leaving.drain(..) {
            one.write().expect("there is space");
            spool.written(one);
        }
        assert_eq!((spool.place(0), spool.place(5)), (None, None));
        assert_eq!(spool.held, 3 * BIG);
        spool.forget(1);
        assert_eq!((spool.place(1), spool.files.len()), (None, 0));
        for number in 2..5 {
            spool.forget(number);
        }
        assert_eq!((spool.held, spool.memory.len(), spool.newest.len()), (0, 0, 0));
    }

    #[test]
    fn a_pack_larger_than_the_memory_is_held_while_it_is_the_newest() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::new(dir.path().join("push"), Memory::default());
        let (_, leaving) = spool.put(Bytes::from(vec![1; MEMORY_BYTES_MAX + 1]));
        assert!(leaving.is_empty());
        let (_, leaving) = spool.put(Bytes::from_static(b"x"));
        assert_eq!(leaving.len(), 1);
    }

    #[test]
    fn a_pack_that_is_still_being_written_when_its_push_ends_leaves_no_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("push");
        let (all, mut leaving) = (Memory::default(), Vec::new());
        let mut spool = Spool::new(folder.clone(), all.clone());
        (0..6).for_each(|byte| leaving.extend(spool.put(pack(byte)).1));
        assert_eq!(all.held(), 4 * BIG);
        drop(spool);
        assert_eq!(all.held(), 0);
        for eviction in leaving {
            eviction.write().expect("there is space");
            assert!(folder.exists());
        }
        assert!(!folder.exists(), "it goes with the last that was written");
    }

    #[test]
    fn many_pushes_together_hold_no_more_in_memory_than_they_may() {
        let dir = tempfile::tempdir().expect("a folder");
        let all = Memory::default();
        let mut spools: Vec<Spool> =
            (0..40).map(|number| Spool::new(dir.path().join(number.to_string()), all.clone())).collect();
        for spool in &mut spools {
            for byte in 0..4 {
                for eviction in spool.put(pack(byte)).1 {
                    spool.written(eviction);
                }
            }
        }
        let newest = spools.len() * BIG;
        assert!(all.held() <= ALL_MEMORY_BYTES_MAX + newest, "{}", all.held());
        drop(spools);
        assert_eq!(all.held(), 0);
    }

    #[test]
    fn what_a_hub_before_left_is_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("transfers");
        clear(&folder).expect("there is nothing");
        fs::create_dir_all(folder.join("a")).expect("made");
        clear(&folder).expect("removed");
        assert!(!folder.exists());
    }
}
