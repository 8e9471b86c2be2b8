//! Folders for what runs write beside their roots, where a run has no `/tmp` of its own (below level
//! full). Each is the run's user's alone, and goes with the run. Never here: what is in them.
//!
//! Making a folder is the dearest part of such a start, and one that was just removed makes the next
//! one dearer still (ext4 passes over inodes that were freed a moment ago). So a folder that its run
//! left exactly as it got it is kept for the next run: empty, with the same owner, rights, flags and
//! attributes, and with every process that could have held it seen to end.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::libc::{self, c_int};

use super::identity::RunUser;

/// How names of the folders of nodes begin; the process number follows, for people, and a random one.
const PREFIX: &str = "cortex-runs-";

/// Folders that are kept for the next runs; more are removed.
const SPARE_MAX: usize = 16;

/// The folder of a node for those of its runs. Goes with it.
#[derive(Debug)]
pub(crate) struct Scratches {
    folder: PathBuf,
    /// Locked for as long as the node lives, however it ends.
    _lock: File,
    /// The number of the next one.
    next: AtomicU64,
    spare: Mutex<Vec<Scratch>>,
}

/// The folder of one run.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    has_home: bool,
    /// What the file system says of it, and of the home directory in it, beside owner and rights; `None`
    /// where it says nothing.
    flags: [Option<c_int>; 2],
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A home directory in it, when it was taken with one.
    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// Removes it with all that is in it. What stays goes with the folder of all.
    pub(crate) fn remove(self) {
        let _removed = fs::remove_dir_all(self.path);
    }

    /// Whether nothing of it shows that somebody had it.
    fn is_as_made(&self, user: Option<&RunUser>) -> io::Result<bool> {
        let owner = user.map_or_else(own_user, |user| (user.uid, user.gid));
        let is_plain = |path: &Path, flags| -> io::Result<bool> {
            let folder = open(path)?;
            let data = folder.metadata()?;
            let is_ours = data.mode() & 0o7777 == 0o700 && (data.uid(), data.gid()) == owner;
            Ok(is_ours && flags_of(&folder) == flags && !has_attributes(&folder)?)
        };
        if !is_plain(&self.path, self.flags[0])? {
            return Ok(false);
        }
        let mut entries = fs::read_dir(&self.path)?;
        if !self.has_home {
            return Ok(entries.next().is_none());
        }
        let home = self.home();
        let is_home = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path() == home);
        Ok(entries.by_ref().all(is_home)
            && is_plain(&home, self.flags[1])?
            && fs::read_dir(&home)?.next().is_none())
    }
}

impl Scratches {
    /// Makes it, and removes those of nodes that are gone.
    pub(crate) fn make() -> io::Result<Self> {
        Self::make_in(&std::env::temp_dir().canonicalize()?)
    }

    fn make_in(place: &Path) -> io::Result<Self> {
        remove_those_of_the_dead(place);
        for _ in 0..100 {
            let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
            let folder = place.join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
            // Others pass through to what is theirs and list nothing.
            match fs::DirBuilder::new().mode(0o711).create(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error),
            }
            // Whoever looked in between took it for one of the dead.
            if let Some(lock) = lock(&folder)
                && is_same(&lock, &folder)
            {
                return Ok(Self { folder, _lock: lock, next: AtomicU64::new(1), spare: Mutex::default() });
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// One for a run, and in it a home directory when it needs one.
    pub(crate) fn take(&self, user: Option<&RunUser>, with_home: bool) -> io::Result<Scratch> {
        let mut spare = self.spare();
        if let Some(at) = spare.iter().rposition(|scratch| scratch.has_home == with_home) {
            return Ok(spare.swap_remove(at));
        }
        drop(spare);
        let path = self.folder.join(self.next.fetch_add(1, Ordering::Relaxed).to_string());
        let mut scratch = Scratch { path, has_home: with_home, flags: [None; 2] };
        if let Err(error) = scratch.make(user) {
            scratch.remove();
            return Err(error);
        }
        Ok(scratch)
    }

    /// Takes one back of whose run nothing is left.
    pub(crate) fn give_back(&self, scratch: Scratch, user: Option<&RunUser>) {
        let is_good = scratch.is_as_made(user).unwrap_or(false);
        let mut spare = self.spare();
        if is_good && spare.len() < SPARE_MAX {
            spare.push(scratch);
        } else {
            drop(spare);
            scratch.remove();
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Scratch {
    fn make(&mut self, user: Option<&RunUser>) -> io::Result<()> {
        let home = self.has_home.then(|| self.home());
        for one in [Some(&self.path), home.as_ref()].into_iter().flatten() {
            fs::DirBuilder::new().mode(0o700).create(one)?;
        }
        // The outer one last: until then nobody else comes to the inner one.
        for one in [home.as_ref(), Some(&self.path)].into_iter().flatten() {
            give(one, user)?;
        }
        let flags = |path: &Path| open(path).map(|folder| flags_of(&folder));
        self.flags = [flags(&self.path)?, home.as_deref().map(flags).transpose()?.flatten()];
        Ok(())
    }
}

/// Gives a folder to the runs' user.
pub(super) fn give(folder: &Path, user: Option<&RunUser>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    fchown(open(folder)?, Some(user.uid), Some(user.gid))
}

impl Drop for Scratches {
    fn drop(&mut self) {
        // What stays is removed by the next node that starts here.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

/// Those of this user that nobody holds.
fn remove_those_of_the_dead(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    let own = nix::unistd::geteuid().as_raw();
    for entry in entries.flatten() {
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let is_own = || entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == own);
        // Held while it is removed: two nodes that start at once do it once.
        if is_named
            && is_own()
            && let Some(_lock) = lock(&entry.path())
        {
            let _removed = fs::remove_dir_all(entry.path());
        }
    }
}

/// The folder with its lock, when nobody has that.
fn lock(folder: &Path) -> Option<File> {
    let folder = open(folder).ok()?;
    folder.try_lock().is_ok().then_some(folder)
}

fn is_same(file: &File, path: &Path) -> bool {
    let seen = fs::symlink_metadata(path).map(|data| (data.dev(), data.ino()));
    matches!((file.metadata(), seen), (Ok(data), Ok(seen)) if (data.dev(), data.ino()) == seen)
}

fn own_user() -> (u32, u32) {
    (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
}

/// Attributes that a run's user can set; those of the system's own modules are not its.
fn has_attributes(folder: &File) -> io::Result<bool> {
    let mut names = [0_u8; 512];
    let length = list_attributes(folder, &mut names);
    let Some(names) = usize::try_from(length).ok().and_then(|length| names.get(..length)) else {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(false) } else { Err(error) };
    };
    let mut names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.any(|name| !name.starts_with(b"security.")))
}

#[expect(unsafe_code, reason = "flistxattr(2) has no safe form")]
fn list_attributes(folder: &File, names: &mut [u8]) -> isize {
    // SAFETY: the descriptor is open, and the kernel writes at most as many bytes as are said.
    unsafe { libc::flistxattr(folder.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) }
}

#[expect(unsafe_code, reason = "ioctl(2) has no safe form")]
fn flags_of(folder: &File) -> Option<c_int> {
    let mut flags: c_int = 0;
    // SAFETY: the descriptor is open, and with this request the kernel writes one int.
    let done = unsafe { libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) };
    (done == 0).then_some(flags)
}

/// Just the folder that has the name, and nothing that somebody puts in its place.
fn open(folder: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    File::options().read(true).custom_flags(flags).open(folder)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_of_a_run_goes_with_its_nodes_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let scratches = Scratches::make_in(place.path()).expect("made");
        let scratch = scratches.take(None, true).expect("made");
        assert!(scratch.home().is_dir());
        assert_eq!(scratch.path().metadata().expect("it is there").mode() & 0o777, 0o700);
        assert!(!scratches.take(None, false).expect("made").home().exists());
        drop(scratches);
        assert_eq!(place.path().read_dir().expect("listed").count(), 0);
    }

    #[test]
    fn a_folder_is_used_again_only_when_its_run_left_it_as_it_was() {
        let place = tempfile::tempdir().expect("a folder");
        let scratches = Scratches::make_in(place.path()).expect("made");
        let inode = |scratch: &Scratch| scratch.path().metadata().expect("it is there").ino();
        for with_home in [false, true] {
            let first = scratches.take(None, with_home).expect("made");
            let (number, path) = (inode(&first), first.path().to_owned());
            scratches.give_back(first, None);
            let again = scratches.take(None, with_home).expect("kept");
            assert_eq!((inode(&again), again.path()), (number, path.as_path()));
            assert_eq!(again.home().exists(), with_home);
        }
        let changes: [(&str, Change); 6] = [
            ("a file", |path| fs::write(path.join(".left"), "").expect("written")),
            ("other rights", |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set")
            }),
            ("a sticky bit", |path| {
                fs::set_permissions(path, fs::Permissions::from_mode(0o1700)).expect("set")
            }),
            ("an attribute", attribute),
            ("another in its place", |path| {
                fs::remove_dir(path).expect("removed");
                std::os::unix::fs::symlink("/etc", path).expect("linked");
            }),
            ("nothing there", |path| fs::remove_dir(path).expect("removed")),
        ];
        for (what, change) in changes {
            let scratch = scratches.take(None, false).expect("made");
            change(scratch.path());
            scratches.give_back(scratch, None);
            assert!(scratches.spare().is_empty(), "{what}");
            let scratch = scratches.take(None, true).expect("made");
            change(&scratch.home());
            scratches.give_back(scratch, None);
            assert!(scratches.spare().is_empty(), "{what} in its home");
            assert!(Path::new("/etc/passwd").exists());
        }
        let scratch = scratches.take(None, true).expect("made");
        fs::create_dir(scratch.path().join("beside")).expect("made");
        scratches.give_back(scratch, None);
        assert!(scratches.spare().is_empty(), "a folder beside its home");
        let many: Vec<_> = (0..SPARE_MAX + 3).map(|_| scratches.take(None, false).expect("made")).collect();
        many.into_iter().for_each(|scratch| scratches.give_back(scratch, None));
        assert_eq!(scratches.spare().len(), SPARE_MAX);
        assert_eq!(scratches.folder.read_dir().expect("listed").count(), SPARE_MAX + 2, "and the two above");
    }

    type Change = fn(&Path);

    #[expect(unsafe_code, reason = "setxattr(2) has no safe form")]
    fn attribute(path: &Path) {
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
        // SAFETY: both names are C strings, and one byte is read.
        let set = unsafe { libc::setxattr(path.as_ptr(), c"user.left".as_ptr(), b"x".as_ptr().cast(), 1, 0) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }

    #[test]
    fn what_a_killed_node_left_is_removed_and_what_a_living_one_has_stays() {
        let place = tempfile::tempdir().expect("a folder");
        let living = Scratches::make_in(place.path()).expect("made");
        let dead = Scratches::make_in(place.path()).expect("made");
        dead.take(None, true).expect("made");
        let left = dead.folder.clone();
        // As a kill leaves it: the lock goes, the folder stays.
        let Scratches { _lock: lock, .. } = &*std::mem::ManuallyDrop::new(dead);
        lock.unlock().expect("unlocked");
        let other = place.path().join("cortex-runs.txt");
        fs::write(&other, "").expect("written");
        let third = Scratches::make_in(place.path()).expect("made");
        assert!(!left.exists() && living.folder.exists() && third.folder.exists() && other.exists());
    }
}
