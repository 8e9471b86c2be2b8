//! What is known from the scan before, folder by folder: which files need not be read again, and what a
//! folder that nobody touched came to.
//!
//! On the disk: `"CXS1" | dev u64 | ino u64 | folders u32 | folders × (path_len u16, path, len u32, record) |
//! blake3 of all before`. Whoever may write in the folder could write a cache as well: it is read like
//! anything foreign, and what it claims is content that a receiver compares with its hash.

mod record;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read as _, Write as _};
use std::ops::Bound;

use bytes::{Buf as _, BufMut as _, Bytes};
use cortex_core::files::path::RelPath;
use nix::sys::stat::Mode;

pub(super) use record::{Fresh, Known, Record, Rows, Sums, Told, What, Writer};

use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;
use super::OURS;
use super::pass::path_of;
use crate::sandbox::walls::FileId;

/// The name of the cache in the folder of ours.
const NAME: &[u8] = b"scan";
/// How a cache of this version begins.
const MAGIC: [u8; 4] = *b"CXS1";
/// A larger one is neither kept nor read: it would take the memory of whoever scans.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
const HASH_BYTES: usize = 32;

/// What is known of the files of one folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cache {
    /// The scanned folder; what is known of another one says nothing.
    of: Option<FileId>,
    /// Records by the path of their folder, with a slash behind it; empty of the scanned folder.
    folders: BTreeMap<Box<[u8]>, Bytes>,
    is_changed: bool,
}

impl Cache {
    /// The one that lies in the scanned folder, `.cortex/scan`; an empty one when there is none, or it is
    /// damaged, of another version or of another folder.
    pub(crate) fn load(dir: &Dir) -> Self {
        let Ok(ours) = dir.dir(OURS) else { return Self::default() };
        Self::load_from(&ours, NAME)
    }

    /// As [`Self::load`], of a cache that is kept elsewhere.
    pub(crate) fn load_from(folder: &Dir, name: &[u8]) -> Self {
        read(folder, name).and_then(Self::parse).unwrap_or_default()
    }

    /// Keeps it there, if it changed since it was loaded or saved.
    pub(crate) fn save(&mut self, dir: &Dir) -> Result<(), Fault> {
        if !self.is_changed {
            return Ok(());
        }
        self.save_to(&ours(dir)?, NAME)
    }

    /// As [`Self::save`], elsewhere.
    pub(crate) fn save_to(&mut self, folder: &Dir, name: &[u8]) -> Result<(), Fault> {
        if !self.is_changed {
            return Ok(());
        }
        let Some(bytes) = self.write() else { return Ok(()) };
        let mut number = [0; 8];
        getrandom::fill(&mut number).map_err(|_| Fault::Sys(nix::errno::Errno::EAGAIN))?;
        let temp = [name, format!("-{:016x}~", u64::from_le_bytes(number)).as_bytes()].concat();
        let mut file = folder.create(&temp)?;
        let written = file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(Fault::from);
        let named = written.and_then(|()| folder.rename(&temp, folder, name));
        if let Err(fault) = named {
            // Nobody misses it.
            let _removed = folder.unlink(&temp);
            return Err(fault);
        }
        nix::unistd::fsync(folder)?;
        self.is_changed = false;
        Ok(())
    }

    /// From here on it is of this folder; what it knew of another is forgotten.
    pub(super) fn is_of(&mut self, folder: FileId) {
        if self.of != Some(folder) {
            *self = Self { of: Some(folder), folders: BTreeMap::new(), is_changed: true };
        }
    }

    /// What the last scan saw of files.
    pub(crate) fn sights(&self) -> Sights<'_> {
        Sights { cache: self, folder: RefCell::default() }
    }

    pub(super) fn folder(&self, path: &[u8]) -> Option<Record> {
        self.folders.get(path).cloned().and_then(Record::parse)
    }

    /// Takes in what a pass learnt.
    pub(super) fn learn(&mut self, learnt: Learnt) {
        self.is_changed |= !learnt.folders.is_empty();
        learnt.gone.iter().for_each(|path| self.forget(path));
        self.folders.extend(learnt.folders);
    }

    /// Forgets a folder with all below it.
    fn forget(&mut self, path: &[u8]) {
        let from = (Bound::Included(path), Bound::Unbounded);
        let below = self.folders.range::<[u8], _>(from).take_while(|(other, _)| other.starts_with(path));
        let gone: Vec<Box<[u8]>> = below.map(|(other, _)| other.clone()).collect();
        self.is_changed |= !gone.is_empty();
        for path in gone {
            self.folders.remove(&path);
        }
    }

    /// As it would lie on the disk.
    #[cfg(test)]
    pub(super) fn written(&self) -> Option<Vec<u8>> {
        self.write()
    }

    fn write(&self) -> Option<Vec<u8>> {
        let of = self.of?;
        let rows: usize = self.folders.iter().map(|(path, record)| 6 + path.len() + record.len()).sum();
        let len = 24 + rows + HASH_BYTES;
        if len as u64 > BYTES_MAX {
            return None;
        }
        let mut out = Vec::with_capacity(len);
        out.put_slice(&MAGIC);
        out.put_u64_le(of.dev);
        out.put_u64_le(of.ino);
        out.put_u32_le(u32::try_from(self.folders.len()).ok()?);
        for (path, record) in &self.folders {
            out.put_u16_le(u16::try_from(path.len()).ok()?);
            out.put_slice(path);
            out.put_u32_le(u32::try_from(record.len()).ok()?);
            out.put_slice(record);
        }
        let hash = blake3::hash(&out);
        out.put_slice(hash.as_bytes());
        Some(out)
    }

    fn parse(mut bytes: Bytes) -> Option<Self> {
        let hash = bytes.split_off(bytes.len().checked_sub(HASH_BYTES)?);
        if blake3::hash(&bytes).as_bytes()[..] != hash[..] || bytes.len() < 24 || bytes[..4] != MAGIC {
            return None;
        }
        bytes.advance(4);
        let of = FileId { dev: bytes.get_u64_le(), ino: bytes.get_u64_le() };
        let count = bytes.get_u32_le();
        let mut folders = BTreeMap::new();
        for _ in 0..count {
            let len = usize::from(bytes.try_get_u16_le().ok()?);
            let path = take(&mut bytes, len)?;
            let len = bytes.try_get_u32_le().ok()? as usize;
            folders.insert(path[..].into(), take(&mut bytes, len)?);
        }
        bytes.is_empty().then_some(Self { of: Some(of), folders, is_changed: false })
    }
}

/// What a pass learnt, for the cache.
#[derive(Default)]
pub(super) struct Learnt {
    /// Records that are other than they were.
    folders: Vec<(Box<[u8]>, Bytes)>,
    /// Paths of folders that are there no more, with a slash behind each.
    gone: Vec<Vec<u8>>,
}

impl Learnt {
    /// What a folder came to.
    pub(super) fn put(&mut self, cache: &Cache, path: &[u8], record: Bytes) {
        if cache.folders.get(path) != Some(&record) {
            self.folders.push((path.into(), record));
        }
    }

    /// A folder is there no more.
    pub(super) fn forget(&mut self, path: Vec<u8>) {
        self.gone.push(path);
    }

    /// What another thread learnt.
    pub(super) fn add(&mut self, other: Self) {
        self.folders.extend(other.folders);
        self.gone.extend(other.gone);
    }
}

/// Files as the last scan saw them.
pub(crate) struct Sights<'c> {
    cache: &'c Cache,
    /// Files of the folder that was asked for last.
    folder: RefCell<Option<(RelPath, HashMap<Bytes, Fresh>)>>,
}

impl Sights<'_> {
    /// Whether a file is certainly what the scan saw under that path: nobody touched it since, it was not so young
    /// then that its times could hide it, and nobody could write to it without their moving
    /// ([`writers`](super::writers)). The scan itself does without the last: it would read a long file that is
    /// always open each time.
    pub(crate) fn are(&self, path: &RelPath, stat: &Stat) -> bool {
        let Some(above) = path.parent() else { return false };
        let mut folder = self.folder.borrow_mut();
        let (_, files) = match folder.take() {
            Some((at, files)) if at == above => folder.insert((at, files)),
            Some(_) | None => {
                let record = self.cache.folder(&path_of(&above));
                let rows = record.map(|record| record.rows()).unwrap_or_default();
                let file = |row: Known| match row.what {
                    What::File { seen, .. } => Some((row.name, seen)),
                    What::Dir | What::Link { .. } => None,
                };
                folder.insert((above, rows.filter_map(file).collect()))
            }
        };
        files.get(path.name().as_bytes()).is_some_and(|seen| seen.is_surely(stat))
    }
}

/// The folder of ours, made when it is not there.
pub(super) fn ours(dir: &Dir) -> Result<Dir, Fault> {
    match dir.make_dir(OURS, Mode::S_IRWXU) {
        Err(fault) if !fault.is_taken() => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    dir.dir(OURS)
}

fn read(folder: &Dir, name: &[u8]) -> Option<Bytes> {
    let file = folder.regular(name).ok()?;
    let len = file.metadata().ok()?.len();
    if len > BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(usize::try_from(len).ok()? + 1);
    file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes.into())
}

/// The next `len` bytes, when there are so many.
fn take(from: &mut Bytes, len: usize) -> Option<Bytes> {
    (from.len() >= len).then(|| from.split_to(len))
}

/// Gives bytes their hash again, for tests that damage them.
#[cfg(test)]
fn sealed(mut bytes: bytes::BytesMut) -> Bytes {
    let hash = blake3::hash(&bytes);
    bytes.put_slice(hash.as_bytes());
    bytes.freeze()
}

#[cfg(test)]
mod tests;
