//! What the system tells of changes in a folder and all that lies below it, as a hint: that something may be
//! worth a look. What the rules of a scan leave out is not watched. Where hints may have been missed the watch
//! ends and says why (SYNC rule 14).
//!
//! Each folder gets its watch before it is read, and a change is told once more when the folders that came
//! with it have theirs: a look after that misses nothing.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::rc::Rc;

use cortex_content::search::FILES;
use cortex_core::files::path::RelPath;
use cortex_core::watch::Blind;
use nix::errno::Errno;
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::statfs::fstatfs;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::pass::path_of;
use super::rules::{self, Rules};
use super::{OURS, ScanSpec};

/// Reads of the system's news at once: whoever changes things without a pause does not keep others waiting.
const READS_MAX: usize = 256;
/// File systems that do not tell of what other machines, or programs behind them, change: NFS, SMB in its three
/// kinds, FUSE, 9p, Ceph, AFS, Coda, OCFS2, GFS2, Lustre.
const REMOTE: [u64; 12] = [
    0x6969,
    0x517B,
    0xFF53_4D42,
    0xFE53_4D42,
    0x6573_5546,
    0x0102_1997,
    0x00C3_6400,
    0x5346_414F,
    0x7375_7245,
    0x7461_636F,
    0x0116_1970,
    0x0BD0_0BD0,
];

/// Opens the folder. It is not kept open: of one that is, the system does not tell that it was removed.
type Open<'o> = Box<dyn Fn() -> Result<Dir, Fault> + 'o>;

/// Watches on a folder and all folders below it.
pub(crate) struct Watch<'o> {
    open: Open<'o>,
    spec: ScanSpec,
    rules: Rules,
    /// Folders whose ignore files `rules` has taken in, each below the one before.
    entered: Vec<RelPath>,
    /// Folders that are to get their watches, with all that lies below.
    todo: Vec<RelPath>,
    inotify: Inotify,
    paths: HashMap<WatchDescriptor, Rc<RelPath>>,
    watches: BTreeMap<Rc<RelPath>, WatchDescriptor>,
    /// An ignore file changed: what is left out may be another thing.
    is_outdated: bool,
}

impl AsFd for Watch<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl<'o> Watch<'o> {
    /// One that watches nothing yet: see [`Self::walk`].
    ///
    /// # Errors
    /// `Remote`; `Moved` when the folder is not there; `Limit` when this user has as many as the system gives
    /// (`fs.inotify.max_user_instances`).
    pub(crate) fn new(open: impl Fn() -> Result<Dir, Fault> + 'o, spec: ScanSpec) -> Result<Self, Blind> {
        let kind = fstatfs(&open().map_err(away)?).map_err(|_| Blind::Failed)?.filesystem_type();
        // How wide it is, and its sign, differ between machines.
        if REMOTE.contains(&(kind.0 as u64 & 0xFFFF_FFFF)) {
            return Err(Blind::Remote);
        }
        Ok(Self {
            rules: Rules::new(&spec).map_err(|_refusal| Blind::Failed)?,
            open: Box::new(open),
            spec,
            entered: Vec::new(),
            todo: vec![RelPath::root()],
            inotify: begin()?,
            paths: HashMap::new(),
            watches: BTreeMap::new(),
            is_outdated: false,
        })
    }

    /// How many folders are watched.
    pub(crate) fn len(&self) -> usize {
        self.watches.len()
    }

    /// Whether folders still wait for their watches.
    pub(crate) fn is_behind(&self) -> bool {
        !self.todo.is_empty()
    }

    /// Whether the rules may be others than those by which folders were left out: see [`Self::anew`].
    pub(crate) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Begins anew, by the rules as they are.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn anew(&mut self) -> Result<(), Blind> {
        self.inotify = begin()?;
        self.rules = Rules::new(&self.spec).map_err(|_refusal| Blind::Failed)?;
        self.paths.clear();
        self.watches.clear();
        self.entered.clear();
        self.todo = vec![RelPath::root()];
        self.is_outdated = false;
        Ok(())
    }

    /// Gives at most so many folders their watches; `room` more may have one.
    ///
    /// # Errors
    /// Why it ends.
    pub(crate) fn walk(&mut self, steps: usize, room: usize) -> Result<(), Blind> {
        let most = self.watches.len().saturating_add(room);
        let top = (self.open)().map_err(away)?;
        for _ in 0..steps {
            let Some(rel) = self.todo.pop() else { return Ok(()) };
            if let Err(fault) = self.step(&top, &rel, most) {
                gone(&rel, fault)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, top: &Dir, rel: &RelPath, most: usize) -> Result<(), Step> {
        let dir = top.below(rel)?;
        if self.watches.len() >= most {
            return Err(Step::Blind(Blind::Many));
        }
        // Before its names are read: what comes later is told.
        self.add(rel, &dir)?;
        let below = dir.folders(most)?;
        self.enter_above(top, rel);
        // The folder itself stays watched: the file with its rules may become readable.
        self.rules.enter(&dir, &rules::names(), path_of(rel).len())?;
        self.entered.push(rel.clone());
        for name in below {
            if rel.is_root() && &*name == OURS {
                continue;
            }
            // What is no path is in no tree.
            let Ok(path) = rel.join_bytes(&name) else { continue };
            if !self.rules.leave_out(path.as_str().as_bytes(), &name, true) {
                self.todo.push(path);
            }
        }
        Ok(())
    }

    fn add(&mut self, rel: &RelPath, dir: &Dir) -> Result<(), Step> {
        // The name is a link to what is open, which was reached through none.
        let name = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::from_bits_retain(libc::IN_EXCL_UNLINK);
        let watch = self.inotify.add_watch(&*name, flags).map_err(unadded)?;
        let rel = Rc::new(rel.clone());
        // A folder that was moved keeps its watch.
        if let Some(was) = self.paths.insert(watch, Rc::clone(&rel))
            && was != rel
            && self.watches.get(&was) == Some(&watch)
        {
            self.watches.remove(&was);
        }
        self.watches.insert(rel, watch);
        Ok(())
    }

    /// Has `rules` stand in the folder that `rel` lies in.
    fn enter_above(&mut self, top: &Dir, rel: &RelPath) {
        self.leave_other(rel);
        let mut above: Vec<RelPath> = std::iter::successors(rel.parent(), RelPath::parent).collect();
        while let Some(folder) = above.pop() {
            if self.entered.last().is_some_and(|last| last.below(&folder).is_some()) {
                continue;
            }
            // One that went away leaves nothing out, and is told.
            let Ok(dir) = top.below(&folder) else { return };
            let _read = self.rules.enter(&dir, &rules::names(), path_of(&folder).len());
            self.entered.push(folder);
        }
    }

    /// Forgets the rules of folders that `rel` does not lie in.
    fn leave_other(&mut self, rel: &RelPath) {
        while let Some(last) = self.entered.last() {
            if last != rel && rel.below(last).is_some() {
                break;
            }
            self.rules.leave(path_of(last).len());
            self.entered.pop();
        }
    }

    /// Whether the rules leave it out, by those of the folders that it lies in.
    fn leaves_out(&mut self, rel: &RelPath, name: &[u8], is_dir: bool) -> bool {
        self.leave_other(rel);
        if self.entered.last() != rel.parent().as_ref() {
            // Where it is not there any more the watch ends by itself.
            let Ok(top) = (self.open)() else { return false };
            self.enter_above(&top, rel);
        }
        self.rules.leave_out(rel.as_str().as_bytes(), name, is_dir)
    }

    /// Ends the watches of a folder that is gone, and of all below it.
    fn forget(&mut self, rel: &RelPath) {
        let from = (Bound::Included(rel), Bound::Unbounded);
        let below = self.watches.range::<RelPath, _>(from);
        let below = below.take_while(|(other, _)| other.below(rel).is_some());
        let gone: Vec<(Rc<RelPath>, WatchDescriptor)> =
            below.map(|(rel, watch)| (Rc::clone(rel), *watch)).collect();
        for (rel, watch) in gone {
            self.watches.remove(&rel);
            if self.paths.get(&watch) == Some(&rel) {
                self.paths.remove(&watch);
                // The system ended it when the folder was removed.
                let _ended = self.inotify.rm_watch(watch);
            }
        }
    }

    /// Takes in what the system has to tell. Whether something of the tree may have changed.
    ///
    /// # Errors
    /// Why it ends.
    pub(crate) fn hear(&mut self) -> Result<bool, Blind> {
        let mut has_changed = false;
        for _ in 0..READS_MAX {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(_) => return Err(Blind::Failed),
            };
            for event in events {
                has_changed |= self.take(event, has_changed)?;
            }
        }
        Ok(has_changed)
    }

    fn take(&mut self, event: InotifyEvent, has_changed: bool) -> Result<bool, Blind> {
        let is = |flags| event.mask.intersects(flags);
        if is(AddWatchFlags::IN_Q_OVERFLOW) {
            return Err(Blind::Overflow);
        }
        let Some(folder) = self.paths.get(&event.wd).cloned() else { return Ok(false) };
        let is_end = AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_UNMOUNT;
        if folder.is_root() && is(is_end | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF) {
            return Err(Blind::Moved);
        }
        if is(is_end) {
            self.paths.remove(&event.wd);
            if self.watches.get(&folder) == Some(&event.wd) {
                self.watches.remove(&folder);
            }
            return Ok(true);
        }
        // What happens to a folder itself is told by the one that it lies in, with its name.
        let Some(name) = event.name.as_deref().map(std::ffi::OsStr::as_encoded_bytes) else {
            return Ok(false);
        };
        if folder.is_root() && name == OURS {
            return Ok(false);
        }
        let Ok(rel) = folder.join_bytes(name) else { return Ok(false) };
        let is_dir = is(AddWatchFlags::IN_ISDIR);
        if is_dir && is(AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM | AddWatchFlags::IN_MOVED_TO)
        {
            self.forget(&rel);
        }
        if !is_dir && self.spec.ignore_files && FILES.contains(&name) {
            self.is_outdated = true;
            return Ok(true);
        }
        if !is_dir && has_changed {
            return Ok(true);
        }
        if self.leaves_out(&rel, name, is_dir) {
            return Ok(false);
        }
        let may_be_new = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ATTRIB;
        if is_dir && is(may_be_new) && !self.watches.contains_key(&rel) {
            self.todo.push(rel);
        }
        Ok(true)
    }
}

/// Why a folder got no watch.
enum Step {
    Blind(Blind),
    Fault(Fault),
}

impl From<Fault> for Step {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Errno> for Step {
    fn from(errno: Errno) -> Self {
        Self::Fault(errno.into())
    }
}

/// Why the system gave no watch.
fn unadded(errno: Errno) -> Step {
    if errno == Errno::ENOSPC { Step::Blind(Blind::Limit) } else { errno.into() }
}

fn begin() -> Result<Inotify, Blind> {
    let begun = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC);
    begun.map_err(|errno| if errno == Errno::EMFILE { Blind::Limit } else { Blind::Failed })
}

/// The folder itself cannot be opened.
fn away(fault: Fault) -> Blind {
    if fault.is_absent() { Blind::Moved } else { Blind::Failed }
}

/// Whether the watch goes on without a folder: one that went away, or that a scan cannot look into either.
fn gone(rel: &RelPath, why: Step) -> Result<(), Blind> {
    match why {
        Step::Blind(why) => Err(why),
        Step::Fault(Fault::Sys(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSYS)) => {
            Err(Blind::Failed)
        }
        Step::Fault(fault) if rel.is_root() => Err(away(fault)),
        Step::Fault(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
