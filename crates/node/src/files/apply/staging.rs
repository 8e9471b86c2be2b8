//! The folder of a transfer beside what it is about: `.cortex/staging/<tree>`, named by what is received, so
//! that whoever tries the same again finds it. In `tree` lies what
//! nobody has seen, each file at the path that it is to have; in `was` what may have been visible before,
//! which is never removed without a look. `taken` says what of `tree` is whole, `objects` keeps objects.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::ops::Bound;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cortex_core::error::Refusal;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::op::Kind;
use cortex_core::files::path::RelPath;
use cortex_core::id::OpId;
use cortex_core::limits::TREE_OBJECT_BYTES_MAX;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;

use super::super::beneath::Dir;
use super::super::fault::{Fault, conflict};
use super::super::place::Work;
use super::super::scan::{OURS, Objects};
use super::super::seam::{Seam, Synced};
use super::super::tree;
use super::taken::{self, Loaded, Part, Piece};
use super::was;

const STAGING: &[u8] = b"staging";
const TREE: &[u8] = b"tree";
const WAS: &[u8] = b"was";
const TAKEN: &[u8] = b"taken";
const TAKEN_NEW: &[u8] = b"taken.new";
const OBJECTS: &[u8] = b"objects";
/// Objects that are kept in memory before they are written.
const LOG_BYTES: usize = 1024 * 1024;
/// What cut transfers may leave in one folder, for those who try again.
const STAGINGS_MAX: usize = 4;
/// Names that are read at once.
const NAMES_MAX: usize = 1_024;

/// The staging folder of one transfer, which nobody else works in.
#[derive(Debug)]
pub(super) struct Staging {
    /// All of it.
    pub(super) dir: Dir,
    /// What nobody has seen.
    pub(super) tree: Dir,
    /// What may have been visible.
    pub(super) was: Dir,
    /// The first free number of what lies there.
    pub(super) free: u32,
    above: Dir,
    name: String,
    _alone: Flock<OwnedFd>,
}

/// What is written for people who look for where it went wrong.
fn shown(fault: Fault) -> Refusal {
    fault.refusal(".cortex/staging")
}

/// Its name.
fn name_of(target: TreeId) -> String {
    use std::fmt::Write as _;
    op_of(target).as_bytes().iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// The id under which the receiving of a tree names what it keeps of others.
pub(super) fn op_of(target: TreeId) -> OpId {
    let mut half = [0; 16];
    half.copy_from_slice(&target.as_bytes()[..16]);
    OpId::new(uuid::Uuid::from_bytes(half))
}

/// Makes a folder for us alone, unless there is one, and opens it.
fn folder(above: &Dir, name: &[u8]) -> Result<Dir, Fault> {
    match above.make_dir(name, Mode::S_IRWXU) {
        Err(fault) if !fault.is_taken() => return Err(fault),
        Ok(()) | Err(_) => {}
    }
    above.dir(name)
}

impl Staging {
    /// Opens the one that a try before left, if there is one; as [`Self::open`] besides.
    pub(super) fn left(root: &Dir, target: TreeId, seam: &dyn Seam) -> Result<Option<Self>, Refusal> {
        let find = || root.dir(OURS)?.dir(STAGING)?.find(name_of(target).as_bytes());
        match find() {
            Ok(Some(_)) => Self::open(root, target, seam).map(Some),
            Ok(None) => Ok(None),
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(shown(fault)),
        }
    }

    /// Opens the one of a transfer. What a try before changed halfway is settled first.
    ///
    /// # Errors
    /// `conflict` while somebody else works in it, and those of the disk.
    pub(super) fn open(root: &Dir, target: TreeId, seam: &dyn Seam) -> Result<Self, Refusal> {
        let name = name_of(target);
        let open = || {
            let above = folder(&folder(root, OURS)?, STAGING)?;
            let dir = folder(&above, name.as_bytes())?;
            let alone = alone(&dir)?;
            let (tree, was) = (folder(&dir, TREE)?, folder(&dir, WAS)?);
            Ok(Self { dir, tree, was, free: 0, above, name: name.clone(), _alone: alone })
        };
        let mut staging = open().map_err(|fault| {
            if fault != Fault::Sys(Errno::EWOULDBLOCK) {
                return shown(fault);
            }
            conflict(
                "busy",
                "This transfer is being received into the folder already.".to_owned(),
                "Wait until that has ended.",
            )
        })?;
        let work = Work { id: op_of(target), seam };
        staging.free = was::recover(&work, root, &staging.dir, &staging.was).map_err(shown)?;
        Ok(staging)
    }

    /// What a try before left of this tree and is as it was noted. `wanted` says which content a path is to
    /// have, and how many bytes. All else is removed.
    pub(super) fn resume(
        &self,
        target: TreeId,
        seam: &dyn Seam,
        wanted: &dyn Fn(&RelPath) -> Option<(ContentId, u64)>,
    ) -> Result<(TakenLog, HashMap<RelPath, Part>), Refusal> {
        self.resumed(target, seam, wanted).map_err(shown)
    }

    fn resumed(
        &self,
        target: TreeId,
        seam: &dyn Seam,
        wanted: &dyn Fn(&RelPath) -> Option<(ContentId, u64)>,
    ) -> Result<(TakenLog, HashMap<RelPath, Part>), Fault> {
        let boot = seam.boot();
        let mut loaded = match self.dir.regular(TAKEN) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                taken::load(&bytes, boot)
            }
            Err(fault) if fault.is_absent() => Loaded::default(),
            Err(fault) => return Err(fault),
        };
        if loaded.target != Some(target) {
            loaded.parts.clear();
        }
        let mut parts = HashMap::new();
        clean(&self.tree, &RelPath::root(), &mut |path, size| {
            let Some(part) = loaded.parts.remove(path) else { return false };
            let is_wanted = wanted(path) == Some((part.id, size));
            if is_wanted {
                parts.insert(path.clone(), part);
            }
            is_wanted
        })?;
        let mut piece = Piece::default();
        piece.target(target);
        piece.boot(boot);
        if !parts.is_empty() {
            seam.sync(self.dir.as_fd(), Synced::Tree)?;
            for (path, part) in &parts {
                match &part.chunks {
                    None => piece.whole(path, &part.id),
                    Some(chunks) => {
                        chunks.iter().for_each(|(from, until)| piece.chunks(path, &part.id, *from, *until));
                    }
                }
            }
            piece.mark();
        }
        // What was noted before is not true any more once a file of it is written anew.
        if self.dir.find(TAKEN_NEW)?.is_some() {
            self.dir.unlink(TAKEN_NEW)?;
        }
        let mut file = self.dir.create(TAKEN_NEW)?;
        file.write_all(&piece.take())?;
        if !parts.is_empty() {
            seam.sync(file.as_fd(), Synced::Content)?;
        }
        self.dir.rename(TAKEN_NEW, &self.dir, TAKEN)?;
        Ok((TakenLog { file, piece }, parts))
    }

    /// The objects that came before, and where more are kept.
    pub(super) fn objects(&self) -> Result<(Objects, ObjectLog), Refusal> {
        let open = || -> Result<(Objects, ObjectLog), Fault> {
            let mut objects = Objects::default();
            let file = match self.dir.writable(OBJECTS) {
                Ok(mut file) => {
                    let whole = read_objects(&mut file, &mut objects)?;
                    file.set_len(whole)?;
                    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
                    file
                }
                Err(fault) if fault.is_absent() => self.dir.create(OBJECTS)?,
                Err(fault) => return Err(fault),
            };
            Ok((objects, ObjectLog { file, waiting: Vec::new() }))
        };
        open().map_err(shown)
    }

    /// Removes it, with the folder above when that is empty then. Something in `was` that could not be
    /// settled stays, and all with it.
    pub(super) fn remove(self) -> Result<(), Fault> {
        if !self.was.names(Bound::Unbounded, 1)?.names.is_empty() {
            return Ok(());
        }
        let mut removed = 0;
        tree::remove(&self.above, self.name.as_bytes(), &mut removed)?;
        Ok(())
    }
}

fn alone(dir: &Dir) -> Result<Flock<OwnedFd>, Fault> {
    let fd = dir.as_fd().try_clone_to_owned()?;
    Flock::lock(fd, FlockArg::LockExclusiveNonblock).map_err(|(_fd, errno)| errno.into())
}

/// Removes what `keep` does not want, by path and size; folders that are empty then stay.
fn clean(dir: &Dir, path: &RelPath, keep: &mut dyn FnMut(&RelPath, u64) -> bool) -> Result<(), Fault> {
    let mut last: Option<Box<[u8]>> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut part = dir.names(from, NAMES_MAX)?;
        for name in &part.names {
            let stat = dir.stat(name)?;
            let path = path.join_bytes(name).ok();
            match (stat.kind, path) {
                (Kind::Dir, Some(path)) => clean(&dir.dir(name)?, &path, keep)?,
                (Kind::Dir, None) => tree::remove(dir, name, &mut 0)?,
                (Kind::File, Some(path)) if keep(&path, stat.size) => {}
                (Kind::File | Kind::Link | Kind::Other, _) => dir.unlink(name)?,
            }
        }
        last = part.names.pop();
        if !part.more {
            return Ok(());
        }
    }
}

/// Where it is noted what is whole.
#[derive(Debug)]
pub(super) struct TakenLog {
    file: File,
    /// What is noted next.
    pub(super) piece: Piece,
}

impl TakenLog {
    /// Notes what waits. With `mark` all that was noted is durable already, and this is made so.
    pub(super) fn write(&mut self, seam: &dyn Seam, mark: bool) -> Result<(), Fault> {
        if mark {
            self.piece.mark();
        }
        if !self.piece.is_empty() {
            self.file.write_all(&self.piece.take())?;
        }
        if mark { seam.sync(self.file.as_fd(), Synced::Content) } else { Ok(()) }
    }
}

/// Keeps objects for the next try: `len u32 | bytes`, one after the other. Each is checked like one that
/// comes.
#[derive(Debug)]
pub(super) struct ObjectLog {
    file: File,
    waiting: Vec<u8>,
}

impl ObjectLog {
    pub(super) fn put(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.waiting.extend_from_slice(&len.to_le_bytes());
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= LOG_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> Result<(), Refusal> {
        self.file.write_all(&self.waiting).map_err(|error| shown(error.into()))?;
        self.waiting.clear();
        Ok(())
    }
}

/// Bytes up to the end of the last whole object.
fn read_objects(file: &mut File, objects: &mut Objects) -> Result<u64, Fault> {
    let mut reader = std::io::BufReader::with_capacity(LOG_BYTES, file);
    let mut whole = 0;
    loop {
        let mut len = [0; 4];
        let mut bytes = Vec::new();
        match reader.read_exact(&mut len) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(whole),
            read => read?,
        }
        let len = u32::from_le_bytes(len) as usize;
        if len > TREE_OBJECT_BYTES_MAX {
            return Ok(whole);
        }
        bytes.resize(len, 0);
        match reader.read_exact(&mut bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(whole),
            read => read?,
        }
        let bytes = Bytes::from(bytes);
        objects.put(ContentId::of(&bytes), bytes);
        whole += 4 + len as u64;
    }
}

/// Settles what transfers left that nobody works on: what they had taken from people's sight comes back. Those
/// that were not touched for so long go, and all but the [`STAGINGS_MAX`] newest. Returns how many went.
///
/// # Errors
/// Those of the disk; what could not be looked at stays.
pub(crate) fn sweep_staging(root: &Dir, older_than: Duration, seam: &dyn Seam) -> Result<u64, Fault> {
    let above = match root.dir(OURS).and_then(|ours| ours.dir(STAGING)) {
        Ok(above) => above,
        Err(fault) if fault.is_absent() => return Ok(0),
        Err(fault) => return Err(fault),
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let limit = i64::try_from(now.saturating_sub(older_than).as_nanos()).unwrap_or(i64::MAX);
    let mut left = Vec::new();
    for name in above.names(Bound::Unbounded, NAMES_MAX)?.names {
        let id = std::str::from_utf8(&name).ok().and_then(|name| uuid::Uuid::parse_str(name).ok());
        let (Some(id), Ok(dir)) = (id, above.dir(&name)) else { continue };
        let Ok(alone) = alone(&dir) else { continue };
        if let Ok(was) = dir.dir(WAS) {
            let work = Work { id: OpId::new(id), seam };
            was::recover(&work, root, &dir, &was)?;
            if !was.names(Bound::Unbounded, 1)?.names.is_empty() {
                continue;
            }
        }
        let touched = [TAKEN, OBJECTS, TREE, WAS].iter().filter_map(|part| dir.find(part).ok().flatten());
        let touched = touched.map(|stat| stat.mtime_ns).chain([dir.stat_self()?.mtime_ns]).max();
        left.push((touched.unwrap_or_default(), name, alone));
    }
    left.sort_unstable_by_key(|(touched, ..)| std::cmp::Reverse(*touched));
    let mut swept = 0;
    for (number, (touched, name, _alone)) in left.iter().enumerate() {
        if number >= STAGINGS_MAX || *touched <= limit {
            tree::remove(&above, name, &mut 0)?;
            swept += 1;
        }
    }
    Ok(swept)
}
