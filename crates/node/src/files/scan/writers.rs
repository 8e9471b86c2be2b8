//! Whether somebody could write to a file and leave its times as they are.
//!
//! A write moves the times before it moves the content, with one exception: who writes through a shared mapping of
//! memory moves them when a page becomes writable, and not with each store after that. So times tell of every
//! write that comes after a moment at which nobody had the file open for writing. A mapping counts as open, also
//! when its descriptor was closed; whoever comes later has to make a page writable first.
//!
//! Whether nobody has is told by a lease to read, which the system gives only then. It is given back at once. Who
//! opens the file for writing within these microseconds waits for that, or hears `EAGAIN` if he asked not to wait.

use std::fs::File;
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::statfs::fstatfs;

use super::super::beneath::Dir;

/// File systems on which that holds: ext2 to ext4, XFS, Btrfs. Not tmpfs, where a page that is read first becomes
/// writable without a sign, and not overlayfs, where a mapping does not count as open.
const TELLING: [u64; 3] = [0xEF53, 0x5846_5342, 0x9123_683E];

/// The command that names the signal of a descriptor.
const F_SETSIG: c_int = 10;

/// What is known of those who may write in a folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writers {
    is_telling: bool,
}

impl Writers {
    /// Of a folder and all below it on the same file system.
    pub(crate) fn of(dir: &Dir) -> Self {
        // How wide it is, and its sign, differ between machines.
        let is_telling = fstatfs(dir)
            .is_ok_and(|about| TELLING.contains(&(about.filesystem_type().0 as u64 & 0xFFFF_FFFF)));
        Self { is_telling }
    }

    /// Nobody is asked.
    pub(super) const fn unknown() -> Self {
        Self { is_telling: false }
    }

    /// Whether the times of a file tell of all that is written to it from here on; no, when nobody knows. It is
    /// asked before the content is read: of one who wrote until then and went away, the times may say nothing.
    pub(super) fn none_of(self, file: &File) -> bool {
        self.is_telling && Lease::take(file).is_ok()
    }

    /// The same of a file that nobody but us ever had open for writing, when we do not any more.
    pub(crate) const fn none_of_ours(self) -> bool {
        self.is_telling
    }
}

/// Whether somebody is known to have a file open for writing, or mapped.
pub(crate) fn has_writer(file: &File) -> bool {
    matches!(Lease::take(file), Err(Errno::EAGAIN))
}

/// A lease to read a file, until it is dropped.
struct Lease<'f> {
    file: &'f File,
}

impl<'f> Lease<'f> {
    /// On a descriptor that is open for reading alone.
    ///
    /// # Errors
    /// `EAGAIN` while somebody has the file open for writing; others where it cannot be told, `EACCES` of
    /// somebody else's file among them.
    fn take(file: &'f File) -> Result<Self, Errno> {
        // Whoever has a lease that somebody waits for is sent a signal. The default one would end this process;
        // this one is ignored unless asked for.
        fcntl(file, F_SETSIG, libc::SIGURG)?;
        fcntl(file, libc::F_SETLEASE, libc::F_RDLCK)?;
        Ok(Self { file })
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        // It fails where there is none.
        let _returned = fcntl(self.file, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

#[expect(unsafe_code, reason = "neither library has these commands of fcntl(2)")]
fn fcntl(file: &File, command: c_int, value: c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and both commands take a number.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, value) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;

    use cortex_core::files::path::RelPath;

    use super::super::super::beneath::Follow;
    use super::super::super::support::Scene;
    use super::*;

    #[test]
    fn who_writes_while_a_lease_is_held_ends_nobody_and_goes_on_when_it_is_given_back() {
        let scene = Scene::new();
        scene.write("f", "x");
        let file = File::open(scene.disk("f")).expect("open");
        let open = |flags| File::options().write(true).custom_flags(flags).open(scene.disk("f"));
        let lease = Lease::take(&file).expect("nobody writes");
        // The system sends its signal with this.
        let refused = open(libc::O_NONBLOCK).expect_err("the lease is held");
        assert_eq!(refused.raw_os_error(), Some(libc::EWOULDBLOCK));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| open(0).map(drop));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waits.is_finished(), "it waits");
            drop(lease);
            let given_back = std::time::Instant::now();
            waits.join().expect("it ends").expect("open");
            // The system takes a lease away after 45 s.
            assert!(given_back.elapsed() < std::time::Duration::from_secs(10));
        });
        let writer = open(libc::O_NONBLOCK).expect("nobody holds it");
        assert!(has_writer(&file));
        drop(writer);
        assert!(!has_writer(&file));
    }

    #[test]
    fn the_file_systems_whose_times_tell_are_known_by_their_names() {
        let scene = Scene::new();
        let about = std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(scene.disk("")).output();
        let name = String::from_utf8(about.expect("it ran").stdout).expect("text");
        let dir = scene.root.dir(&RelPath::root(), Follow::Never).expect("a folder");
        let is_telling = ["ext2/ext3", "xfs", "btrfs"].contains(&name.trim());
        assert_eq!(Writers::of(&dir).is_telling, is_telling, "{name}");
    }

    #[test]
    fn of_a_file_of_somebody_else_and_of_one_that_is_open_here_for_writing_nothing_is_known() {
        let scene = Scene::new();
        scene.write("f", "x");
        let file = File::options().read(true).write(true).open(scene.disk("f")).expect("open");
        assert!(Lease::take(&file).is_err());
        drop(file);
        let file = File::open(scene.disk("f")).expect("open");
        assert!(Lease::take(&file).is_ok());
        if !nix::unistd::geteuid().is_root() {
            // Nobody else can make one.
            return;
        }
        std::thread::scope(|scope| {
            let theirs = scope.spawn(|| {
                let nobody = 65_534;
                #[expect(unsafe_code, reason = "the library's call is for all threads of a process")]
                // SAFETY: it takes three numbers, and this thread ends with what it is then.
                let set = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
                assert_eq!(set, 0, "another identity");
                Lease::take(&file).map(drop)
            });
            assert_eq!(theirs.join().expect("it ends"), Err(Errno::EACCES));
        });
        assert!(!has_writer(&file), "not known is not yes");
    }
}
