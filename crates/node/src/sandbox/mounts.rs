//! The file system of a room: what is granted of this machine, at the names that it has there, and
//! nothing else. Built once, in the nursery; each run mounts its own `/proc` and `/tmp` into it.
//!
//! Everything that is shown is taken as a detached copy of its mounts first, with the room's own
//! flags on it, and put below the new root after that: so no order of mounting can uncover or hide
//! anything. Never here: which paths are granted.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cortex_core::sandbox::{Access, Network};
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, mkdirat};

use super::base;
use super::identity::RunUser;
use super::step::{Failed, Step};
use super::trees;
use super::walls::{Bound, FileId, Room};

/// Where the new root is put together; covered by it until then.
const SITE: &str = "/tmp";
/// Leads to a run's `/tmp` in there ([`base::DEVICE_LINKS`]).
const LASTING: &str = "/var/tmp";
/// Where roots below `/tmp` wait for a run to have its `/tmp`.
const STAGE: &str = "/.stage";
/// What covers folders and files that must not be seen.
const EMPTY: (&str, &str) = ("/.empty", "/.nothing");
/// Files in a run's `/tmp`, at most.
const SCRATCH_FILES_MAX: u32 = 200_000;

/// Changes the root of this process, in a mount namespace of its own, to that of the room.
pub(super) fn build(room: &Room) -> Result<(), Failed> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount_plain(None, Path::new("/"), None, private, None).map_err(Failed::by(Step::MountNamespace))?;
    let parts = Parts::take(room)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("size=8m,nr_inodes=4k,mode=0755");
    mount_plain(Some("tmpfs"), Path::new(SITE), Some("tmpfs"), flags, options)
        .map_err(Failed::at(Step::Root, Path::new(SITE)))?;
    let root = open_dir(Path::new(SITE)).map_err(Failed::by(Step::Root))?;
    let root = root.as_fd();
    for folder in ["proc", "tmp", "dev", "etc", "var", ".stage", ".empty"] {
        mkdirat(root, folder, mode(0o755)).map_err(Failed::by(Step::Root))?;
    }
    write_file(root, Path::new(EMPTY.1), b"").map_err(Failed::by(Step::Root))?;
    parts.place(root, room)?;
    enter(root).map_err(Failed::by(Step::Pivot))?;
    // Without the mounts below it, which have their own.
    trees::set_flags(
        AT_FDCWD,
        Path::new("/"),
        trees::RDONLY | trees::NOSUID | trees::NODEV | trees::NOEXEC,
        0,
    )
    .map_err(Failed::by(Step::Seal))
}

/// In a run's own mount namespace: a `/proc` of its processes, a `/tmp` of its own, and the roots
/// that lie below that one.
pub(super) fn furnish(room: &Room, scratch_bytes: u64) -> Result<(), Failed> {
    let closed = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let of_proc = closed | MsFlags::MS_NOEXEC;
    mount_plain(Some("proc"), Path::new("/proc"), Some("proc"), of_proc, None)
        .map_err(Failed::by(Step::Proc))?;
    let of_tmp = if room.may_run_what_it_writes() { closed } else { of_proc };
    let options = format!("size={scratch_bytes},nr_inodes={SCRATCH_FILES_MAX},mode=1777");
    mount_plain(Some("tmpfs"), Path::new("/tmp"), Some("tmpfs"), of_tmp, Some(&options))
        .map_err(Failed::by(Step::Scratch))?;
    for (number, tree) in staged(room) {
        let make = if tree.is_dir { fs::create_dir_all(&tree.path) } else { make_file(&tree.path) };
        make.map_err(Failed::at(Step::Scratch, &tree.path))?;
        let from = PathBuf::from(format!("{STAGE}/{number}"));
        mount_plain(from.to_str(), &tree.path, None, MsFlags::MS_MOVE, None)
            .map_err(Failed::at(Step::Scratch, &tree.path))?;
    }
    Ok(())
}

fn make_file(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::File::create(path).map(drop)
}

/// What a room is made of, taken from this machine.
struct Parts {
    proc: OwnedFd,
    /// Name below the root, and the copy.
    folders: Vec<(PathBuf, OwnedFd)>,
    links: Vec<(PathBuf, PathBuf)>,
    files: Vec<(PathBuf, Vec<u8>)>,
    devices: Vec<(PathBuf, OwnedFd)>,
    trees: Vec<OwnedFd>,
}

impl Parts {
    fn take(room: &Room) -> Result<Self, Failed> {
        let closed = trees::NOSUID | trees::NODEV | trees::NOEXEC;
        let proc = trees::copy_of(Path::new("/proc"), closed).map_err(Failed::by(Step::Base))?;
        let mut parts = Self {
            proc,
            folders: Vec::new(),
            links: Vec::new(),
            files: Vec::new(),
            devices: Vec::new(),
            trees: Vec::new(),
        };
        for folder in base::FOLDERS.iter().chain(base::ETC_FOLDERS).map(Path::new) {
            parts.take_folder(folder).map_err(Failed::at(Step::Base, folder))?;
        }
        let resolver = (room.network != Network::None).then_some(&base::RESOLV);
        for file in base::FILES.iter().chain(resolver).map(Path::new) {
            parts.take_file(file, room).map_err(Failed::at(Step::Base, file))?;
        }
        for device in base::DEVICES.iter().map(Path::new) {
            let copy = trees::copy_of(device, trees::NOSUID | trees::NOEXEC);
            parts.devices.push((device.to_owned(), copy.map_err(Failed::at(Step::Devices, device))?));
        }
        for tree in &room.trees {
            parts.trees.push(tree_of(tree).map_err(Failed::at(Step::Tree, &tree.path))?);
        }
        Ok(parts)
    }

    fn take_folder(&mut self, folder: &Path) -> io::Result<()> {
        let Ok(data) = fs::symlink_metadata(folder) else { return Ok(()) };
        if data.is_symlink() {
            self.links.push((folder.to_owned(), fs::read_link(folder)?));
        } else if data.is_dir() {
            let copy = trees::copy_of(folder, trees::RDONLY | trees::NOSUID | trees::NODEV)?;
            self.folders.push((folder.to_owned(), copy));
        }
        Ok(())
    }

    fn take_file(&mut self, path: &Path, room: &Room) -> io::Result<()> {
        // The link itself says which zone it is.
        if path.ends_with("localtime")
            && let Ok(target) = fs::read_link(path)
            && target.starts_with("/usr")
        {
            self.links.push((path.to_owned(), target));
            return Ok(());
        }
        let Ok(file) = fs::File::open(path) else { return Ok(()) };
        if !file.metadata()?.is_file() {
            return Ok(());
        }
        let mut text = Vec::new();
        file.take(base::FILE_BYTES_MAX).read_to_end(&mut text)?;
        if let Some(user) = &room.user {
            let RunUser { uid, gid, name } = user;
            if path == Path::new(base::PASSWD) {
                add_line(&mut text, *uid, &format!("{name}:x:{uid}:{gid}::/tmp/home:/bin/sh\n"));
            }
            if path == Path::new(base::GROUP) {
                add_line(&mut text, *gid, &format!("{name}:x:{gid}:\n"));
            }
        }
        if path == Path::new(base::RESOLV) && matches!(room.network, Network::Ports(_)) {
            text.extend(b"\noptions use-vc\n");
        }
        self.files.push((path.to_owned(), text));
        Ok(())
    }

    fn place(self, root: BorrowedFd<'_>, room: &Room) -> Result<(), Failed> {
        // That of the machine, for the nursery alone: a new one may be mounted only where one is in
        // sight, and covers it for each run, which cannot uncover it.
        put(root, Path::new("/proc"), true, self.proc).map_err(Failed::by(Step::Base))?;
        for (path, target) in self.links {
            link(root, &path, &target).map_err(Failed::at(Step::Base, &path))?;
        }
        for (path, copy) in self.folders {
            put(root, &path, true, copy).map_err(Failed::at(Step::Base, &path))?;
        }
        for (path, text) in self.files {
            write_file(root, &path, &text).map_err(Failed::at(Step::Base, &path))?;
        }
        for (path, copy) in self.devices {
            put(root, &path, false, copy).map_err(Failed::at(Step::Devices, &path))?;
        }
        for (path, target) in base::DEVICE_LINKS {
            link(root, Path::new(path), Path::new(target)).map_err(Failed::by(Step::Devices))?;
        }
        for (tree, copy) in room.trees.iter().zip(self.trees) {
            let at = place_of(room, &tree.path);
            put(root, &at, tree.is_dir, copy).map_err(Failed::at(Step::Tree, &tree.path))?;
        }
        for mask in &room.masks {
            cover(root, &place_of(room, &mask.path), mask.is_dir)
                .map_err(Failed::at(Step::Mask, &mask.path))?;
        }
        Ok(())
    }
}

/// Where a path leads in a room: the place for lasting temporary files is the run's `/tmp` too.
pub(super) fn led_to(path: &Path) -> PathBuf {
    match path.strip_prefix(LASTING) {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from(SITE),
        Ok(rest) => Path::new(SITE).join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Roots in a run's `/tmp` that lie in no other, with their number.
fn staged(room: &Room) -> impl Iterator<Item = (usize, &Bound)> {
    let inner = |tree: &Bound| {
        let others = room.trees.iter().filter(|other| other.path != tree.path);
        others.clone().any(|other| led_to(&tree.path).starts_with(led_to(&other.path)))
    };
    let below = room.trees.iter().enumerate().filter(|(_, tree)| led_to(&tree.path).starts_with(SITE));
    below.filter(move |(_, tree)| !inner(tree))
}

/// Where a path of a room is put together: what lies in a run's `/tmp` waits on the stage.
fn place_of(room: &Room, path: &Path) -> PathBuf {
    let found = staged(room).find_map(|(number, tree)| {
        let rest = led_to(path).strip_prefix(led_to(&tree.path)).ok()?.to_owned();
        let at = Path::new(STAGE).join(number.to_string());
        Some(if rest.as_os_str().is_empty() { at } else { at.join(rest) })
    });
    found.unwrap_or_else(|| path.to_owned())
}

fn tree_of(tree: &Bound) -> io::Result<OwnedFd> {
    let mut flags = trees::NOSUID | trees::NODEV;
    if tree.access == Access::Read {
        flags |= trees::RDONLY;
    }
    if !tree.exec {
        flags |= trees::NOEXEC;
    }
    let copy = trees::copy_of(&tree.source, flags)?;
    let found = fs::metadata(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    if FileId::of(&found) != tree.file {
        // It was exchanged since the node looked; the next run gets another room.
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    Ok(copy)
}

/// A line for the run's user or group, when the machine has none of that number.
fn add_line(file: &mut Vec<u8>, number: u32, line: &str) {
    let number = number.to_string();
    let text = String::from_utf8_lossy(file);
    if text.lines().any(|line| line.split(':').nth(2) == Some(&number)) {
        return;
    }
    if !text.is_empty() && !text.ends_with('\n') {
        file.push(b'\n');
    }
    file.extend(line.bytes());
}

/// Puts a copy at a path below the root, which is made when it is not there.
fn put(root: BorrowedFd<'_>, path: &Path, is_dir: bool, copy: OwnedFd) -> io::Result<()> {
    let target = ensure(root, path, is_dir)?;
    trees::attach(copy.as_fd(), target.as_fd())
}

fn cover(root: BorrowedFd<'_>, path: &Path, is_dir: bool) -> io::Result<()> {
    let empty = if is_dir { EMPTY.0 } else { EMPTY.1 };
    let source = open_in(root, Path::new(empty))?;
    let flags = trees::RDONLY | trees::NOSUID | trees::NODEV | trees::NOEXEC;
    let copy = trees::copy_at(source.as_fd(), Path::new(""), 0)?;
    trees::set_flags(copy.as_fd(), Path::new(""), flags, libc::AT_EMPTY_PATH.cast_unsigned())?;
    put(root, path, is_dir, copy)
}

fn link(root: BorrowedFd<'_>, path: &Path, target: &Path) -> io::Result<()> {
    let (parent, name) = split(root, path)?;
    Ok(nix::unistd::symlinkat(target, parent, name.as_path())?)
}

fn write_file(root: BorrowedFd<'_>, path: &Path, text: &[u8]) -> io::Result<()> {
    let (parent, name) = split(root, path)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let file = openat(parent, name.as_path(), flags, mode(0o644))?;
    fs::File::from(file).write_all(text)
}

fn split(root: BorrowedFd<'_>, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
    let parent = ensure(root, path.parent().unwrap_or(Path::new("/")), true)?;
    Ok((parent, path.file_name().map(PathBuf::from).unwrap_or_default()))
}

/// The folder or file at a path below the root. What is missing is made, and links are followed as
/// if the root were changed to already.
fn ensure(root: BorrowedFd<'_>, path: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    match open_in(root, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    let (parent, name) = split(root, path)?;
    if is_dir {
        mkdirat(parent, name.as_path(), mode(0o755))?;
    } else {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        drop(openat(parent, name.as_path(), flags, mode(0o644))?);
    }
    open_in(root, path)
}

fn open_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, path, how)?)
}

fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(openat(AT_FDCWD, path, flags, Mode::empty())?)
}

/// Makes it the root. The old one goes with all that is mounted in it.
fn enter(root: BorrowedFd<'_>) -> io::Result<()> {
    nix::unistd::fchdir(root)?;
    nix::unistd::pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    nix::unistd::chdir("/")?;
    Ok(())
}

fn mount_plain(
    source: Option<&str>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    options: Option<&str>,
) -> io::Result<()> {
    Ok(mount(source, target, kind, flags, options)?)
}

const fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}
