//! Folders for what runs write beside their roots, where a run has no `/tmp` of its own (below level
//! full). Each is the run's user's alone, and goes with the run. Never here: what is in them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::libc;

use super::identity::RunUser;

/// How names of the folders of nodes begin; the process number follows, for people, and a random one.
const PREFIX: &str = "cortex-runs-";

/// The folder of a node for those of its runs. Goes with it.
#[derive(Debug)]
pub(crate) struct Scratches {
    folder: PathBuf,
    /// Locked for as long as the node lives, however it ends.
    _lock: File,
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
                return Ok(Self { folder, _lock: lock });
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// One for a run, and in it a home directory when it needs one. A folder is the dearest part of
    /// a start below level full, so none is made in vain.
    pub(crate) fn add(&self, name: &str, user: Option<&RunUser>, with_home: bool) -> io::Result<PathBuf> {
        let folder = self.folder.join(name);
        let home = with_home.then(|| folder.join("home"));
        let made = || {
            for one in [Some(&folder), home.as_ref()].into_iter().flatten() {
                fs::DirBuilder::new().mode(0o700).create(one)?;
            }
            // The outer one last: until then nobody else comes to the inner one.
            [home.as_ref(), Some(&folder)].into_iter().flatten().try_for_each(|one| give(one, user))
        };
        if let Err(error) = made() {
            // What stays goes with the folder of all.
            let _removed = fs::remove_dir_all(&folder);
            return Err(error);
        }
        Ok(folder)
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

/// Just the folder that has the name, and nothing that somebody puts in its place.
fn open(folder: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    File::options().read(true).custom_flags(flags).open(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_run_goes_with_its_nodes_folder() {
        let scratches = Scratches::make().expect("made");
        let folder = scratches.add("run-1", None, true).expect("made");
        assert!(!scratches.add("run-2", None, false).expect("made").join("home").exists());
        assert!(folder.join("home").is_dir());
        assert_eq!(folder.metadata().expect("it is there").mode() & 0o777, 0o700);
        let above = scratches.folder.clone();
        drop(scratches);
        assert!(!above.exists());
    }

    #[test]
    fn what_a_killed_node_left_is_removed_and_what_a_living_one_has_stays() {
        let place = tempfile::tempdir().expect("a folder");
        let living = Scratches::make_in(place.path()).expect("made");
        let dead = Scratches::make_in(place.path()).expect("made");
        dead.add("run-1", None, true).expect("made");
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
