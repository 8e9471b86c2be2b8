//! Names are looked up beneath the descriptor of a root, by the kernel, so that no link, however quickly
//! it is swapped, leads out (SYNC rule 8, ABUSE 47). Each call after that is given one name and never a
//! path. Only regular files are opened, and nothing that could wait for somebody (ABUSE 48).
//!
//! Never here: what is done with files.

use std::ffi::OsStr;
use std::fs::File;
use std::ops::Bound;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use cortex_core::files::op::Kind;
use cortex_core::files::path::RelPath;
use cortex_core::limits;
use nix::errno::Errno;
use nix::fcntl::{self, AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag};
use nix::sys::stat::{self, FileStat, Mode, SFlag};
use nix::unistd::{self, UnlinkatFlags};

use super::fault::Fault;
use crate::sandbox::walls::FileId;

/// How often a lookup is tried again which the kernel gave up because names were moved meanwhile.
const LOOKUPS_MAX: u32 = 64;

/// What is done about symbolic links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// Those that stay beneath the root are followed, in folders above and at the end.
    Within,
    /// None is.
    Never,
}

/// What is known of an entry, itself and not what it may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) id: FileId,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    /// With setuid, setgid and sticky bits.
    pub(crate) mode: u16,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u64,
}

impl Stat {
    fn of(data: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(data.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Dir,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        let nanos = |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            id: FileId { dev: data.st_dev, ino: data.st_ino },
            kind,
            size: data.st_size.unsigned_abs(),
            mode: (data.st_mode & 0o7777) as u16,
            mtime_ns: nanos(data.st_mtime, data.st_mtime_nsec),
            ctime_ns: nanos(data.st_ctime, data.st_ctime_nsec),
            uid: data.st_uid,
            gid: data.st_gid,
            links: data.st_nlink,
        }
    }

    /// Of what is open.
    pub(crate) fn of_open(fd: impl AsFd) -> Result<Self, Fault> {
        Ok(Self::of(&stat::fstat(fd)?))
    }

    /// Whether it is the same file with, as far as its times tell, the same content. A rename keeps this;
    /// it moves the time of the inode, which is therefore not asked.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        (self.id, self.size, self.mtime_ns) == (other.id, other.size, other.mtime_ns)
    }

    /// Whether nothing of it was touched in between.
    pub(crate) fn is_untouched_since(&self, other: &Self) -> bool {
        self.is_as(other) && self.ctime_ns == other.ctime_ns
    }
}

/// A folder, or one file, that the policy gives.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

impl Root {
    /// Opens one. Whoever opens it compares [`Self::id`] with what the policy was applied to.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        let fd = fcntl::open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let stat = Stat::of_open(&fd)?;
        Ok(Self { fd, path: path.to_owned(), stat })
    }

    /// Which file it is.
    pub(crate) fn id(&self) -> FileId {
        self.stat.id
    }

    /// Whether it is a folder.
    pub(crate) fn is_dir(&self) -> bool {
        self.stat.kind == Kind::Dir
    }

    /// Opens a folder for all that [`Dir`] does.
    pub(crate) fn dir(&self, rel: &RelPath, follow: Follow) -> Result<Dir, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        Ok(Dir { fd: lookup(&self.fd, below(rel), flags, follow)? })
    }

    /// What an entry is. A link at the end is followed as `follow` says.
    pub(crate) fn stat(&self, rel: &RelPath, follow: Follow) -> Result<Stat, Fault> {
        if rel.is_root() {
            return self.stat_again();
        }
        let found = lookup(&self.fd, below(rel), OFlag::O_PATH, follow)?;
        Stat::of_open(found)
    }

    /// What an entry is, itself and not what it leads to; links above it are followed.
    pub(crate) fn stat_entry(&self, rel: &RelPath) -> Result<(Stat, Option<Vec<u8>>), Fault> {
        let Some(parent) = rel.parent() else { return Ok((self.stat_again()?, None)) };
        let folder = self.passage(&parent)?;
        let name = rel.name().as_bytes();
        let found = folder.stat(name)?;
        let target = (found.kind == Kind::Link).then(|| folder.link_target(name)).transpose()?;
        Ok((found, target))
    }

    /// Opens a regular file for reading.
    pub(crate) fn regular(&self, rel: &RelPath, follow: Follow) -> Result<File, Fault> {
        if !rel.is_root() {
            return open_regular(&self.fd, below(rel), follow);
        }
        if self.stat.kind != Kind::File {
            return Err(Fault::Unfit(self.stat.kind));
        }
        // A descriptor without the right to read gives none that has it, so the path is opened anew.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(fcntl::open(&self.path, flags, Mode::empty())?);
        if Stat::of_open(&file)?.id != self.stat.id {
            return Err(Fault::Restless);
        }
        Ok(file)
    }

    /// The first link on the way that leads out, and where it says that it leads: for words.
    pub(crate) fn link_out(&self, rel: &RelPath) -> Option<(RelPath, Vec<u8>)> {
        let mut at = RelPath::root();
        for part in rel.parts() {
            at = at.join(part).ok()?;
            let (found, target) = self.stat_entry(&at).ok()?;
            if found.kind == Kind::Link && self.stat(&at, Follow::Within) == Err(Fault::Outside) {
                return target.map(|target| (at, target));
            }
        }
        None
    }

    /// A folder through which something is reached: it need not be readable.
    fn passage(&self, rel: &RelPath) -> Result<Dir, Fault> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        Ok(Dir { fd: lookup(&self.fd, below(rel), flags, Follow::Within)? })
    }

    fn stat_again(&self) -> Result<Stat, Fault> {
        Stat::of_open(&self.fd)
    }
}

fn below(rel: &RelPath) -> &[u8] {
    if rel.is_root() { b"." } else { rel.as_str().as_bytes() }
}

/// One folder, open.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Names of a folder, in byte order.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The first ones after the one that was asked for.
    pub(crate) names: Vec<Box<[u8]>>,
    /// Whether there are more.
    pub(crate) more: bool,
}

impl Dir {
    /// Which folder it is.
    pub(crate) fn stat_self(&self) -> Result<Stat, Fault> {
        Stat::of_open(&self.fd)
    }

    /// What an entry is, itself.
    pub(crate) fn stat(&self, name: &[u8]) -> Result<Stat, Fault> {
        Ok(Stat::of(&stat::fstatat(&self.fd, single(name)?, AtFlags::AT_SYMLINK_NOFOLLOW)?))
    }

    /// As [`Self::stat`]; `None` when nothing is there.
    pub(crate) fn find(&self, name: &[u8]) -> Result<Option<Stat>, Fault> {
        match self.stat(name) {
            Ok(found) => Ok(Some(found)),
            Err(fault) if fault.is_absent() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The text of a link.
    pub(crate) fn link_target(&self, name: &[u8]) -> Result<Vec<u8>, Fault> {
        Ok(fcntl::readlinkat(&self.fd, single(name)?)?.into_vec())
    }

    /// Opens a folder in it, which is no link and no other file system.
    pub(crate) fn dir(&self, name: &[u8]) -> Result<Self, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let fd = lookup_with(
            &self.fd,
            single(name)?,
            flags,
            resolve(Follow::Never) | ResolveFlag::RESOLVE_NO_XDEV,
        )
        .map_err(|fault| {
            // One name that is no link leads nowhere else.
            if fault == Fault::Outside { Fault::Sys(Errno::EXDEV) } else { fault }
        })?;
        Ok(Self { fd })
    }

    /// Opens the folder at a path below it; neither that nor what is above it is a link or another file
    /// system.
    pub(crate) fn below(&self, rel: &RelPath) -> Result<Self, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let resolve = resolve(Follow::Never) | ResolveFlag::RESOLVE_NO_XDEV;
        Ok(Self { fd: lookup_with(&self.fd, below(rel), flags, resolve)? })
    }

    /// Opens a folder in it, which is no link but may be where another file system is mounted.
    pub(crate) fn dir_or_mount(&self, name: &[u8]) -> Result<Self, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        Ok(Self { fd: lookup(&self.fd, single(name)?, flags, Follow::Never)? })
    }

    /// Opens a regular file in it for reading; no link.
    pub(crate) fn regular(&self, name: &[u8]) -> Result<File, Fault> {
        open_regular(&self.fd, single(name)?, Follow::Never)
    }

    /// Opens a file in it that was seen to be a regular one, in one look; neither a link nor on another
    /// file system (`EXDEV`). [`Fault::Restless`] when it is not that file any more.
    pub(crate) fn open_seen(&self, name: &[u8], seen: &Stat) -> Result<File, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let resolve = resolve(Follow::Never) | ResolveFlag::RESOLVE_NO_XDEV;
        let file = match lookup_with(&self.fd, single(name)?, flags, resolve) {
            // One name that is no link leads nowhere else.
            Err(Fault::Outside) => return Err(Fault::Sys(Errno::EXDEV)),
            found => File::from(found?),
        };
        let stat = Stat::of_open(&file)?;
        if (stat.id, stat.kind) == (seen.id, seen.kind) { Ok(file) } else { Err(Fault::Restless) }
    }

    /// Opens a regular file somewhere below it for reading, through no link.
    pub(crate) fn regular_below(&self, path: &[u8]) -> Result<File, Fault> {
        open_regular(&self.fd, path, Follow::Never)
    }

    /// Makes a file without a name, which is gone when it is closed. `EOPNOTSUPP` or `EISDIR` where the
    /// file system knows no such files.
    pub(crate) fn create_unnamed(&self) -> Result<File, Fault> {
        let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        Ok(File::from(fcntl::openat(&self.fd, c".", flags, Mode::from_bits_truncate(0o600))?))
    }

    /// Makes a file that is not there yet, which nobody else may read.
    pub(crate) fn create(&self, name: &[u8]) -> Result<File, Fault> {
        self.create_with(name, Mode::from_bits_truncate(0o600))
    }

    /// Makes a file that is not there yet, with these permissions less those that the process masks.
    pub(crate) fn create_with(&self, name: &[u8], mode: Mode) -> Result<File, Fault> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(File::from(fcntl::openat(&self.fd, single(name)?, flags, mode)?))
    }

    /// Opens a regular file in it for writing; no link.
    pub(crate) fn writable(&self, name: &[u8]) -> Result<File, Fault> {
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = File::from(fcntl::openat(&self.fd, single(name)?, flags, Mode::empty())?);
        let kind = Stat::of_open(&file)?.kind;
        if kind == Kind::File { Ok(file) } else { Err(Fault::Unfit(kind)) }
    }

    /// Makes a folder.
    pub(crate) fn make_dir(&self, name: &[u8], mode: Mode) -> Result<(), Fault> {
        Ok(stat::mkdirat(&self.fd, single(name)?, mode)?)
    }

    /// Makes a link.
    pub(crate) fn make_link(&self, name: &[u8], target: &[u8]) -> Result<(), Fault> {
        Ok(unistd::symlinkat(OsStr::from_bytes(target), &self.fd, single(name)?)?)
    }

    /// Gives a file a further name, which is not taken yet.
    pub(crate) fn add_name(&self, name: &[u8], to: &Self, new: &[u8]) -> Result<(), Fault> {
        Ok(unistd::linkat(&self.fd, single(name)?, &to.fd, single(new)?, AtFlags::empty())?)
    }

    /// Renames, over what may be there.
    pub(crate) fn rename(&self, name: &[u8], to: &Self, new: &[u8]) -> Result<(), Fault> {
        Ok(fcntl::renameat(&self.fd, single(name)?, &to.fd, single(new)?)?)
    }

    /// Renames to a name that is not taken (`EEXIST`). Where the file system knows no such call, a file
    /// gets the second name before it loses the first, and a folder is looked for before: of two who
    /// make one name then, the later gives up all the same unless it is an empty folder.
    pub(crate) fn rename_new(&self, name: &[u8], to: &Self, new: &[u8]) -> Result<(), Fault> {
        match self.rename_flagged(name, to, new, RenameFlags::RENAME_NOREPLACE) {
            Err(fault) if fault.is_not_supported() => {}
            done => return done,
        }
        if self.stat(name)?.kind == Kind::Dir {
            return match to.find(new)? {
                Some(_) => Err(Fault::Sys(Errno::EEXIST)),
                None => self.rename(name, to, new),
            };
        }
        unistd::linkat(&self.fd, single(name)?, &to.fd, single(new)?, AtFlags::empty())?;
        self.unlink(name)
    }

    /// Exchanges two entries. `EINVAL` where the file system cannot.
    pub(crate) fn exchange(&self, name: &[u8], to: &Self, other: &[u8]) -> Result<(), Fault> {
        self.rename_flagged(name, to, other, RenameFlags::RENAME_EXCHANGE)
    }

    fn rename_flagged(&self, name: &[u8], to: &Self, new: &[u8], flags: RenameFlags) -> Result<(), Fault> {
        Ok(fcntl::renameat2(&self.fd, single(name)?, &to.fd, single(new)?, flags)?)
    }

    /// Removes an entry that is no folder.
    pub(crate) fn unlink(&self, name: &[u8]) -> Result<(), Fault> {
        Ok(unistd::unlinkat(&self.fd, single(name)?, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes an empty folder.
    pub(crate) fn remove_dir(&self, name: &[u8]) -> Result<(), Fault> {
        Ok(unistd::unlinkat(&self.fd, single(name)?, UnlinkatFlags::RemoveDir)?)
    }

    /// A second descriptor of the folder.
    pub(crate) fn again(&self) -> Result<Self, Fault> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// All names, in byte order. [`Fault::TooMany`] above `max`.
    pub(crate) fn all_names(&self, max: usize) -> Result<Vec<Box<[u8]>>, Fault> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for entry in self.entries()? {
            if names.len() >= max {
                return Err(Fault::TooMany);
            }
            names.push(entry?.file_name().to_bytes().into());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Names of the folders in it. [`Fault::TooMany`] above `max`.
    pub(crate) fn folders(&self, max: usize) -> Result<Vec<Box<[u8]>>, Fault> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        for entry in self.entries()? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_dir = match entry.file_type() {
                Some(kind) => kind == nix::dir::Type::Directory,
                // Not every file system says it here.
                None => self.find(name)?.is_some_and(|found| found.kind == Kind::Dir),
            };
            if is_dir && names.len() >= max {
                return Err(Fault::TooMany);
            }
            if is_dir {
                names.push(name.into());
            }
        }
        Ok(names)
    }

    /// What lies in it, in no order. A descriptor of its own: whoever reads the folder at the same time has his
    /// own place in it.
    fn entries(&self) -> Result<impl Iterator<Item = Result<nix::dir::Entry, Fault>>, Fault> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = fcntl::openat(&self.fd, c".", flags, Mode::empty())?;
        let is_itself = |entry: &nix::dir::Entry| [c".", c".."].contains(&entry.file_name());
        let listing = nix::dir::Dir::from_fd(fd)?.into_iter();
        let below = listing.filter(move |entry| !entry.as_ref().is_ok_and(is_itself));
        Ok(below.map(|entry| Ok(entry?)))
    }

    /// The first `max` names from `from` on, in byte order. Memory is bounded by twice as many names.
    ///
    /// # Errors
    ///
    /// [`Fault::TooMany`] beyond [`limits::DIR_ENTRIES_READ_MAX`].
    pub(crate) fn names(&self, from: Bound<&[u8]>, max: usize) -> Result<Names, Fault> {
        let mut names: Vec<Box<[u8]>> = Vec::new();
        let mut seen = 0;
        let mut more = false;
        for entry in self.entries()? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            seen += 1;
            if seen > limits::DIR_ENTRIES_READ_MAX {
                return Err(Fault::TooMany);
            }
            let is_before = match from {
                Bound::Unbounded => false,
                Bound::Included(from) => name < from,
                Bound::Excluded(from) => name <= from,
            };
            if is_before {
                continue;
            }
            names.push(name.into());
            if names.len() >= 2 * max.max(1) {
                names.select_nth_unstable(max);
                names.truncate(max);
                more = true;
            }
        }
        names.sort_unstable();
        more |= names.len() > max;
        names.truncate(max);
        Ok(Names { names, more })
    }
}

/// Refuses whatever is more than one name, or none.
fn single(name: &[u8]) -> Result<&[u8], Fault> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Fault::Sys(Errno::EINVAL));
    }
    Ok(name)
}

fn resolve(follow: Follow) -> ResolveFlag {
    let beneath = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    match follow {
        Follow::Within => beneath,
        Follow::Never => beneath | ResolveFlag::RESOLVE_NO_SYMLINKS,
    }
}

fn lookup(fd: &OwnedFd, path: &[u8], flags: OFlag, follow: Follow) -> Result<OwnedFd, Fault> {
    lookup_with(fd, path, flags, resolve(follow))
}

fn lookup_with(fd: &OwnedFd, path: &[u8], flags: OFlag, resolve: ResolveFlag) -> Result<OwnedFd, Fault> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
    for _ in 0..LOOKUPS_MAX {
        match fcntl::openat2(fd, path, how) {
            // Names were moved while `..` of a link was looked up, and the kernel could not tell whether
            // it stayed beneath.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::EXDEV | Errno::ELOOP) => return Err(Fault::Outside),
            other => return Ok(other?),
        }
    }
    Err(Fault::Restless)
}

/// Opens only what was a regular file when it was looked at, and is one: a pipe would wait for its other
/// end, and a device may do something when it is opened.
fn open_regular(fd: &OwnedFd, path: &[u8], follow: Follow) -> Result<File, Fault> {
    let entry = |flags| lookup(fd, path, flags, follow);
    for _ in 0..LOOKUPS_MAX {
        // Without links `O_NOFOLLOW` gives the link itself, and so its kind.
        let flags = match follow {
            Follow::Within => OFlag::O_PATH,
            Follow::Never => OFlag::O_PATH | OFlag::O_NOFOLLOW,
        };
        let seen = Stat::of_open(entry(flags)?)?;
        if seen.kind != Kind::File {
            return Err(Fault::Unfit(seen.kind));
        }
        let file = File::from(entry(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        if Stat::of_open(&file)?.id == seen.id {
            return Ok(file);
        }
    }
    Err(Fault::Restless)
}

#[cfg(test)]
#[path = "beneath_tests.rs"]
mod tests;
