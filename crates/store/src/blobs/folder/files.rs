//! The files of the folder, and the steps between which a crash may come.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cortex_content::pack::{HEAD_BYTES_MIN, Pack, PackHead};
use cortex_content::unpack::TailCheck;
use cortex_core::files::content::PackId;
use cortex_core::limits::PACK_BYTES_MAX;

use crate::blobs::{BlobError, READ_BYTES, damaged, doing};

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::blobs) enum Moment {
    /// A pack is written, and not durable.
    Tmp,
    /// What a pack holds is durable.
    FileSynced,
    /// A pack has its name.
    Renamed,
    /// The names in a folder are durable.
    DirSynced,
    /// The index knows the packs.
    Indexed,
    /// Packs are condemned.
    Condemned,
    /// A pack has lost its name, and the index still knows it.
    Deleted,
    /// What was alive in packs is in others, and the old ones are there too.
    Repacked,
}

#[cfg(test)]
pub(in crate::blobs) type Watch = Box<dyn Fn(Moment, &Path) -> io::Result<()> + Send + Sync>;

/// Knows where everything lies.
pub(super) struct Files {
    root: PathBuf,
    #[cfg(test)]
    pub(super) watch: Option<Watch>,
}

impl Files {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            #[cfg(test)]
            watch: None,
        }
    }

    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn tmp(&self, number: u64) -> PathBuf {
        self.root.join("tmp").join(format!("{number}.pack"))
    }

    pub(super) fn name(&self, id: &PackId) -> PathBuf {
        let name = id.to_string();
        self.root.join("packs").join(&name[..2]).join(format!("{name}.pack"))
    }

    /// A change has come so far. In a built hub there are fail points here, and nothing else.
    pub(super) fn reach(&self, moment: Moment, at: &Path) -> Result<(), BlobError> {
        #[cfg(test)]
        if let Some(watch) = &self.watch {
            watch(moment, at).map_err(doing("reach a step of a test"))?;
        }
        #[cfg(not(test))]
        let _ = at;
        match moment {
            Moment::Tmp => fail::fail_point!("blobs::tmp"),
            Moment::FileSynced => {}
            Moment::Renamed => fail::fail_point!("blobs::renamed"),
            Moment::DirSynced => fail::fail_point!("blobs::dir_synced"),
            Moment::Indexed => fail::fail_point!("blobs::indexed"),
            Moment::Condemned => fail::fail_point!("blobs::condemned"),
            Moment::Deleted => fail::fail_point!("blobs::deleted"),
            Moment::Repacked => fail::fail_point!("blobs::repacked"),
        }
        Ok(())
    }

    pub(super) fn create(path: &Path) -> Result<File, BlobError> {
        let mut options = File::options();
        options.write(true).read(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path).map_err(doing("make a pack"))
    }

    /// The file of a pack that has its name.
    pub(super) fn open(&self, id: &PackId) -> Result<Option<File>, BlobError> {
        match File::open(self.name(id)) {
            Ok(file) => Ok(Some(file)),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(fault) => Err(doing("open a pack")(fault)),
        }
    }

    /// Gives a pack its name. The folder that has it, for it to be synced in turn.
    pub(super) fn rename(&self, id: &PackId, from: &Path) -> Result<PathBuf, BlobError> {
        let name = self.name(id);
        let folder = name.parent().unwrap_or(&self.root).to_owned();
        if !folder.exists() {
            fs::create_dir_all(&folder).map_err(doing("make a folder for packs"))?;
            self.sync_folder(&self.folder("packs"))?;
        }
        fs::rename(from, &name).map_err(doing("name a pack"))?;
        self.reach(Moment::Renamed, &name)?;
        Ok(folder)
    }

    /// Removes a pack; one that is not there is no error.
    pub(super) fn remove(&self, id: &PackId) -> Result<(), BlobError> {
        let name = self.name(id);
        match fs::remove_file(&name) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => Err(doing("remove a pack")(fault)),
            _ => self.reach(Moment::Deleted, &name),
        }
    }

    /// Moves a damaged pack to `bad/`.
    pub(super) fn set_aside(&self, path: &Path) -> Result<(), BlobError> {
        let name = path.file_name().unwrap_or_default();
        match fs::rename(path, self.folder("bad").join(name)) {
            Err(fault) if fault.kind() != io::ErrorKind::NotFound => {
                Err(doing("set a damaged pack aside")(fault))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sync_folder(&self, folder: &Path) -> Result<(), BlobError> {
        if cfg!(unix) {
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(doing("sync a folder of packs"))?;
        }
        self.reach(Moment::DirSynced, folder)
    }
}

pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>, BlobError> {
    let entries = fs::read_dir(folder).map_err(doing("list packs"))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(doing("list packs"))?;
    paths.sort();
    Ok(paths)
}

/// The id that a pack's name says.
pub(super) fn named(path: &Path) -> Option<PackId> {
    let name = path.file_name()?.to_str()?.strip_suffix(".pack")?;
    name.parse().ok().filter(|id: &PackId| id.to_string() == name)
}

/// The head of a pack; `None` when it, or the file's length, is not what the name says.
pub(super) fn read_head(path: &Path) -> Result<Option<PackHead>, BlobError> {
    let mut file = File::open(path).map_err(doing("open a pack"))?;
    let len = file.metadata().map_err(doing("open a pack"))?.len();
    let mut front = Vec::with_capacity(4_096);
    // Most heads are in the first piece; none is longer than a pack.
    for upto in [4_096, PACK_BYTES_MAX] {
        let more = (upto - front.len()) as u64;
        (&mut file).take(more).read_to_end(&mut front).map_err(doing("read a pack"))?;
        match PackHead::read(&front) {
            Ok(Some((head, _))) => {
                let right = named(path) == Some(head.id()) && head.pack_len() as u64 == len;
                return Ok(right.then_some(head));
            }
            Ok(None) if front.len() >= HEAD_BYTES_MIN => {}
            Ok(None) | Err(_) => return Ok(None),
        }
    }
    Ok(None)
}

/// All of a pack, whose head is what its name says.
pub(super) fn load(file: File, id: &PackId) -> Result<Pack, BlobError> {
    let mut all =
        Vec::with_capacity(file.metadata().map_or(0, |about| about.len() as usize).min(PACK_BYTES_MAX));
    let read = file.take(PACK_BYTES_MAX as u64 + 1).read_to_end(&mut all);
    match read {
        // A sector that cannot be read is damage like any other.
        Err(fault) if fault.raw_os_error() == Some(EIO) => {
            return Err(damaged(*id, "The disk cannot read it."));
        }
        read => drop(read.map_err(doing("read a pack"))?),
    }
    match PackHead::read(&all) {
        Ok(Some((head, len))) if head.id() == *id => {
            let mut tail = Bytes::from(all);
            drop(tail.split_to(len));
            Ok(Pack { head, tail })
        }
        Ok(_) => Err(damaged(*id, "Its head is not what its name says.")),
        Err(why) => Err(BlobError::Damaged { pack: *id, why }),
    }
}

/// An error of the device below a file, on every Unix.
const EIO: i32 = 5;

/// Whether what lies behind a pack's head is as it was written.
pub(super) fn check(pack: &Pack) -> Result<(), BlobError> {
    let wrong = |why| BlobError::Damaged { pack: pack.head.id(), why };
    let mut check = TailCheck::new(pack.head.clone()).map_err(wrong)?;
    for at in (0..pack.tail.len()).step_by(READ_BYTES) {
        check.push(pack.tail.slice(at..pack.tail.len().min(at + READ_BYTES))).map_err(wrong)?;
    }
    check.finish().map(drop).map_err(wrong)
}
