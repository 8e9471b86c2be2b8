//! Folders for what runs write beside their roots, where a run has no `/tmp` of its own (below level
//! full). Each is the run's user's alone, and goes with the run. Never here: what is in them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::libc;

use super::identity::RunUser;

/// What the node's folder of folders is called; its process number follows.
const PREFIX: &str = "cortex-runs-";

/// The folder of a node for those of its runs. Goes with it.
#[derive(Debug)]
pub(crate) struct Scratches {
    folder: PathBuf,
}

impl Scratches {
    /// Makes it, and removes those of nodes that are gone.
    pub(crate) fn make() -> io::Result<Self> {
        let place = std::env::temp_dir().canonicalize()?;
        remove_those_of_the_dead(&place);
        for _ in 0..100 {
            let random = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
            let folder = place.join(format!("{PREFIX}{}-{random:016x}", std::process::id()));
            // Others pass through to what is theirs and list nothing.
            match fs::DirBuilder::new().mode(0o711).create(&folder) {
                Ok(()) => return Ok(Self { folder }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }

    /// One for a run, with a home directory in it.
    pub(crate) fn add(&self, name: &str, user: Option<&RunUser>) -> io::Result<PathBuf> {
        let folder = self.folder.join(name);
        let home = folder.join("home");
        for one in [&folder, &home] {
            fs::DirBuilder::new().mode(0o700).create(one)?;
        }
        // The outer one last: until then nobody else comes to the inner one.
        for one in [&home, &folder] {
            give(one, user)?;
        }
        Ok(folder)
    }
}

/// Gives a folder to the runs' user: just the folder that has the name, and nothing that somebody
/// puts in its place.
pub(super) fn give(folder: &Path, user: Option<&RunUser>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let folder = fs::File::options().read(true).custom_flags(flags).open(folder)?;
    fchown(folder, Some(user.uid), Some(user.gid))
}

impl Drop for Scratches {
    fn drop(&mut self) {
        // What stays is removed by the next node that starts here.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

fn remove_those_of_the_dead(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        let is_dead = pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
        let own = nix::unistd::geteuid().as_raw();
        let is_own = fs::symlink_metadata(entry.path()).is_ok_and(|data| data.is_dir() && data.uid() == own);
        if is_dead && is_own {
            let _removed = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_a_run_goes_with_its_nodes_folder() {
        let scratches = Scratches::make().expect("made");
        let folder = scratches.add("run-1", None).expect("made");
        assert!(folder.join("home").is_dir());
        assert_eq!(folder.metadata().expect("it is there").mode() & 0o777, 0o700);
        let above = scratches.folder.clone();
        drop(scratches);
        assert!(!above.exists());
    }
}
