//! Content in a folder: `packs/ab/<id>.pack` with head and body as they travel, `tmp/` for what is not
//! durable yet, `bad/` for what the disk has damaged.
//!
//! A pack gets its name only after it was synced, so whatever has a name was whole when it got it. After
//! a crash `tmp/` is emptied and the index is made from the heads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use cortex_core::files::content::{ContentId, PackId};
use cortex_core::limits::PACK_BYTES_MAX;
use cortex_content::pack::{HEAD_BYTES_MIN, PackHead};

use super::index::Index;
use super::{BlobError, BlobFigures, Blobs, OpenPack, PackPut, Place, take};

/// Keeps packs in a folder of its own, which nobody else may write to.
pub struct FolderBlobs {
    root: PathBuf,
    state: Mutex<State>,
    /// Held for the length of a sync: two at once would name the same packs twice.
    syncing: Mutex<()>,
}

#[derive(Default)]
struct State {
    index: Index<Own>,
    /// Numbers the files of `tmp/`.
    next: u64,
}

/// What is known of a pack beside its head.
struct Own {
    /// Its file in `tmp/`, until it is durable.
    unsynced: Option<Unsynced>,
}

struct Unsynced {
    path: PathBuf,
    file: File,
}

/// What a start found that is not as it was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Packs that were not durable, and are gone.
    pub unfinished: u64,
    /// Packs whose head or length is not what their name says; they were moved to `bad/`.
    pub damaged: u64,
}

impl FolderBlobs {
    /// Opens the folder, which is made when it is not there, and looks at the head of every pack.
    ///
    /// # Errors
    /// [`BlobError::Io`]. A damaged pack is none: it is set aside and counted.
    pub fn open(root: &Path) -> Result<(Self, Recovered), BlobError> {
        let mut recovered = Recovered::default();
        for folder in ["packs", "tmp", "bad"] {
            fs::create_dir_all(root.join(folder)).map_err(doing("make a folder for packs"))?;
        }
        for left in list(&root.join("tmp"))? {
            fs::remove_file(&left).map_err(doing("remove an unfinished pack"))?;
            recovered.unfinished += 1;
        }
        let mut index = Index::default();
        for folder in list(&root.join("packs"))? {
            for path in list(&folder)? {
                match read_head(&path)? {
                    Some(head) => drop(index.add(head, Own { unsynced: None })),
                    None => {
                        let name = path.file_name().unwrap_or_default();
                        fs::rename(&path, root.join("bad").join(name))
                            .map_err(doing("set a damaged pack aside"))?;
                        recovered.damaged += 1;
                    }
                }
            }
        }
        sync_folder(root)?;
        let state = Mutex::new(State { index, next: 0 });
        Ok((Self { root: root.to_owned(), state, syncing: Mutex::new(()) }, recovered))
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>, BlobError> {
        self.state.lock().map_err(|_| BlobError::Poisoned)
    }

    fn name_of(&self, id: &PackId) -> PathBuf {
        let name = id.to_string();
        self.root.join("packs").join(&name[..2]).join(format!("{name}.pack"))
    }

    /// Syncs one pack and gives it its name. The folder that has it, for it to be synced in turn.
    fn finish(&self, id: &PackId, unsynced: &Unsynced) -> Result<PathBuf, BlobError> {
        unsynced.file.sync_data().map_err(doing("sync a pack"))?;
        let name = self.name_of(id);
        let folder = name.parent().unwrap_or(&self.root).to_owned();
        if !folder.exists() {
            fs::create_dir_all(&folder).map_err(doing("make a folder for packs"))?;
            sync_folder(&self.root.join("packs"))?;
        }
        fs::rename(&unsynced.path, &name).map_err(doing("name a pack"))?;
        Ok(folder)
    }
}

impl Blobs for FolderBlobs {
    fn put_pack(&self, head: &PackHead, tail: &mut dyn Read) -> Result<PackPut, BlobError> {
        let path = {
            let mut state = self.lock()?;
            if state.index.get(&head.id()).is_some() {
                drop(state);
                take(head, tail, &mut |_| Ok(()))?;
                return Ok(PackPut::Already);
            }
            state.next += 1;
            self.root.join("tmp").join(format!("{}.pack", state.next))
        };
        let mut options = File::options();
        options.write(true).read(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(doing("make a pack"))?;
        let written = file
            .write_all(&head.to_bytes())
            .map_err(doing("write a pack"))
            .and_then(|()| take(head, tail, &mut |piece| file.write_all(piece)));
        let kept = written.and_then(|()| {
            let own = Own { unsynced: Some(Unsynced { path: path.clone(), file }) };
            Ok(self.lock()?.index.add(head.clone(), own))
        });
        if !matches!(kept, Ok(true)) {
            // It is of no use any more; what cannot be removed is removed by the next start.
            drop(fs::remove_file(&path));
        }
        Ok(if kept? { PackPut::Kept } else { PackPut::Already })
    }

    fn sync(&self) -> Result<(), BlobError> {
        let _alone = self.syncing.lock().map_err(|_| BlobError::Poisoned)?;
        let waiting: Vec<PackId> = {
            let state = self.lock()?;
            state.index.packs().filter(|(_, own)| own.unsynced.is_some()).map(|(id, _)| *id).collect()
        };
        let mut named: BTreeMap<PathBuf, Vec<PackId>> = BTreeMap::new();
        let mut first = None;
        for id in waiting {
            let unsynced = self.lock()?.index.get_mut(&id).and_then(|kept| {
                let unsynced = kept.own.unsynced.as_ref()?;
                let file = unsynced.file.try_clone().ok()?;
                Some(Unsynced { path: unsynced.path.clone(), file })
            });
            let finished = match &unsynced {
                Some(unsynced) => self.finish(&id, unsynced),
                None => Err(doing("sync a pack")(io::Error::other("its file cannot be shared"))),
            };
            match finished {
                Ok(folder) => named.entry(folder).or_default().push(id),
                Err(fault) => {
                    first.get_or_insert(fault);
                    self.lock()?.index.remove(&id);
                }
            }
        }
        for (folder, ids) in named {
            let synced = sync_folder(&folder);
            let mut state = self.lock()?;
            for id in ids {
                if synced.is_err() {
                    // Whether its name is durable is not known, and no later sync would tell.
                    state.index.remove(&id);
                } else if let Some(kept) = state.index.get_mut(&id) {
                    kept.own.unsynced = None;
                }
            }
            first = first.or(synced.err());
        }
        first.map_or(Ok(()), Err)
    }

    fn locate(&self, ids: &[ContentId]) -> Result<Vec<Option<Place>>, BlobError> {
        Ok(self.lock()?.index.locate(ids))
    }

    fn open_pack(&self, id: &PackId) -> Result<Option<OpenPack>, BlobError> {
        let state = self.lock()?;
        let Some(kept) = state.index.get(id) else { return Ok(None) };
        let head = kept.head.clone();
        // Under the lock, so that a sync does not name it in between; named ones stay where they are.
        let unsynced = kept.own.unsynced.as_ref().map(|unsynced| unsynced.path.clone());
        let mut file = match unsynced.map(File::open) {
            Some(Ok(file)) => file,
            None | Some(Err(_)) => File::open(self.name_of(id)).map_err(doing("open a pack"))?,
        };
        drop(state);
        let mut front = vec![0; head.head_len()];
        file.read_exact(&mut front).map_err(doing("read a pack"))?;
        if PackId::of(&front) != *id {
            let why =
                cortex_core::Refusal::new(cortex_core::Code::Internal, "Its head is not what its name says.");
            return Err(BlobError::Damaged { pack: *id, why });
        }
        Ok(Some(OpenPack { head, tail: Box::new(file) }))
    }

    fn figures(&self) -> Result<BlobFigures, BlobError> {
        Ok(self.lock()?.index.figures())
    }
}

fn doing(doing: &'static str) -> impl Fn(io::Error) -> BlobError {
    move |source| BlobError::Io { doing, source }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, BlobError> {
    let entries = fs::read_dir(folder).map_err(doing("list packs"))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(doing("list packs"))?;
    paths.sort();
    Ok(paths)
}

fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(doing("sync a folder of packs"))
}

/// The head of a pack; `None` when it, or the file's length, is not what the name says.
fn read_head(path: &Path) -> Result<Option<PackHead>, BlobError> {
    let mut file = File::open(path).map_err(doing("open a pack"))?;
    let len = file.metadata().map_err(doing("open a pack"))?.len();
    let mut front = Vec::with_capacity(4_096);
    // Most heads are in the first piece; none is longer than a pack.
    for upto in [4_096, PACK_BYTES_MAX] {
        let more = (upto - front.len()) as u64;
        (&mut file).take(more).read_to_end(&mut front).map_err(doing("read a pack"))?;
        match PackHead::read(&front) {
            Ok(Some((head, _))) => {
                let named = path.file_stem().and_then(|name| name.to_str()) == Some(&head.id().to_string());
                return Ok((named && head.pack_len() as u64 == len).then_some(head));
            }
            Ok(None) if front.len() >= HEAD_BYTES_MIN => {}
            Ok(None) | Err(_) => return Ok(None),
        }
    }
    Ok(None)
}
