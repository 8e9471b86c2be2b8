//! What the tests of files share.

use std::cell::RefCell;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};

use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::OpId;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::beneath::Root;
use super::fault::Fault;
use super::place::{Place, Work};
use super::seam::{Moment, Plain, Seam, Synced};

/// Does something on a small disk of its own, which nobody else sees; not at all where it cannot be
/// mounted.
pub(crate) fn on_small_disk(size: &str, body: impl FnOnce(&Scene) + Send) {
    if !nix::unistd::geteuid().is_root() {
        // Nobody else mounts a disk.
        return;
    }
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            // Of this thread alone; it goes with it.
            unshare(CloneFlags::CLONE_NEWNS).expect("a view of its own");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
            let mut scene = Scene::new();
            let options = format!("size={size}");
            let disk = scene.disk("");
            mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), Some(&*options)).expect("mounted");
            scene.root = open(&disk);
            body(&scene);
            nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).expect("unmounted");
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The first bytes of a file, mapped for writing; its descriptor is closed.
pub(crate) struct Mapping {
    at: AtomicPtr<u8>,
}

impl Mapping {
    const LEN: usize = 4_096;

    pub(crate) fn of(path: &Path) -> Self {
        use nix::libc::{MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap};
        let file = std::fs::File::options().read(true).write(true).open(path).expect("open");
        assert!(file.metadata().expect("there").len() >= Self::LEN as u64, "all of it is there");
        #[expect(unsafe_code, reason = "mmap(2) has no safe form")]
        // SAFETY: the system chooses a place where nothing is.
        let at = unsafe {
            mmap(std::ptr::null_mut(), Self::LEN, PROT_READ | PROT_WRITE, MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, MAP_FAILED, "mapped");
        Self { at: AtomicPtr::new(at.cast()) }
    }

    /// What its first byte is.
    pub(crate) fn first(&self) -> u8 {
        #[expect(unsafe_code, reason = "it is memory that others may write to")]
        // SAFETY: it is mapped until this is dropped.
        unsafe {
            self.at.load(Ordering::Relaxed).read_volatile()
        }
    }

    /// Stores its first byte.
    pub(crate) fn store(&self, byte: u8) {
        #[expect(unsafe_code, reason = "it is memory that others may read")]
        // SAFETY: it is mapped for writing until this is dropped.
        unsafe {
            self.at.load(Ordering::Relaxed).write_volatile(byte);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "munmap(2) has no safe form")]
        // SAFETY: nobody else has it.
        let _gone = unsafe { nix::libc::munmap(self.at.load(Ordering::Relaxed).cast(), Self::LEN) };
    }
}

/// A root in a folder of its own.
pub(crate) struct Scene {
    folder: tempfile::TempDir,
    pub(crate) root: Root,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// On a disk in memory, where there is one: what is written there needs no step of its clock.
    pub(crate) fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        if memory.is_dir() { Self::below(memory) } else { Self::new() }
    }

    fn below(folder: &Path) -> Self {
        let folder = tempfile::tempdir_in(folder).expect("a folder");
        std::fs::create_dir(folder.path().join("root")).expect("made");
        let root = Root::open(&folder.path().join("root")).expect("it is there");
        Self { folder, root }
    }

    /// On the disk, of an entry below the root.
    pub(crate) fn disk(&self, rel: &str) -> PathBuf {
        if rel.is_empty() {
            self.folder.path().join("root")
        } else {
            self.folder.path().join("root").join(rel)
        }
    }

    /// Beside the root.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, rel: &str, content: impl AsRef<[u8]>) {
        let path = self.disk(rel);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        std::fs::write(path, content).expect("written");
    }

    pub(crate) fn read(&self, rel: &str) -> Vec<u8> {
        std::fs::read(self.disk(rel)).expect("it is there")
    }

    /// Names in a folder, sorted.
    pub(crate) fn names(&self, rel: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.disk(rel)).expect("a folder");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("read").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// Both halves of a [`Place`].
    pub(crate) fn at(&self, rel: &str) -> At<'_> {
        let path = if rel.is_empty() { "/w".to_owned() } else { format!("/w/{rel}") };
        At { root: &self.root, rel: self::rel(rel), path: FilePath::parse(&path).expect("a path") }
    }
}

pub(crate) struct At<'a> {
    root: &'a Root,
    rel: RelPath,
    path: FilePath,
}

impl At<'_> {
    pub(crate) fn place(&self) -> Place<'_> {
        Place { root: self.root, rel: &self.rel, path: &self.path }
    }
}

pub(crate) fn rel(text: &str) -> RelPath {
    if text.is_empty() { RelPath::root() } else { RelPath::parse(text).expect("a path") }
}

pub(crate) const PLAIN: Work<'static> = Work { id: OpId::new(uuid::Uuid::from_u128(0xabc)), seam: &Plain };

/// Does something at one moment, once.
pub(crate) struct Meanwhile<'a> {
    at: Moment,
    act: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
    pub(crate) may_exchange: bool,
}

impl<'a> Meanwhile<'a> {
    pub(crate) fn new(at: Moment, act: impl FnOnce() + 'a) -> Self {
        Self { at, act: RefCell::new(Some(Box::new(act))), may_exchange: true }
    }
}

impl Seam for Meanwhile<'_> {
    fn pass(&self, moment: Moment) {
        if moment == self.at
            && let Some(act) = self.act.borrow_mut().take()
        {
            act();
        }
    }

    fn may_exchange(&self) -> bool {
        self.may_exchange
    }
}

/// A disk whose n-th fsync fails, from 0, and all after it.
pub(crate) struct Failing {
    pub(crate) nth: usize,
    /// Which descriptor was synced to which inode, in order.
    pub(crate) synced: RefCell<Vec<(Synced, u64)>>,
}

impl Seam for Failing {
    fn sync(&self, fd: BorrowedFd<'_>, what: Synced) -> Result<(), Fault> {
        let ino = super::beneath::Stat::of_open(fd)?.id.ino;
        let mut synced = self.synced.borrow_mut();
        synced.push((what, ino));
        if synced.len() > self.nth {
            return Err(Fault::Sys(nix::errno::Errno::EIO));
        }
        Ok(nix::unistd::fsync(fd)?)
    }
}

/// How often something is repeated: less unless the long tests are asked for.
pub(crate) fn rounds(few: u32, many: u32) -> u32 {
    if std::env::var_os("CORTEX_FULL").is_some() { many } else { few }
}

pub(crate) fn open(path: &Path) -> Root {
    Root::open(path).expect("it is there")
}
