//! What the system tells of changes, as a hint: which folders are worth a look. Whoever wants to know what
//! is there looks; and where hints may have been missed, that is said, and all is looked at (SYNC rule
//! 14).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::time::{Duration, Instant};

use cortex_core::files::path::RelPath;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::OURS;

/// A change is told when so long nothing more has happened, so that a burst is one.
const QUIET: Duration = Duration::from_millis(50);
/// And after this time in any case.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// More folders at once are not told one by one.
const FOLDERS_MAX: usize = 4_096;

/// Why hints may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blind {
    /// The system had more to tell than it keeps.
    Overflow,
    /// The system watches no more folders for this user (`fs.inotify.max_user_watches`). It will not hear
    /// of those without a watch, so that all has to be looked at from time to time.
    Limit,
    /// A folder could not be watched for another reason.
    Failed,
    /// More folders changed than are told one by one.
    Many,
    /// The folder itself was moved or removed.
    Moved,
}

/// What was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// In these folders something changed; in none, when it is empty.
    Dirty(BTreeSet<RelPath>),
    /// All has to be looked at.
    Rescan(Blind),
}

/// Watches on all folders of a tree.
#[derive(Debug)]
pub(crate) struct Watch {
    inotify: Inotify,
    paths: HashMap<WatchDescriptor, RelPath>,
    watches: BTreeMap<RelPath, WatchDescriptor>,
    /// Not told yet.
    dirty: BTreeSet<RelPath>,
    missed: Option<Blind>,
    /// Folders without a watch stay so until the next whole scan.
    blind: Option<Blind>,
}

impl Watch {
    /// One that watches nothing yet.
    ///
    /// # Errors
    /// `EMFILE` when this user has as many as the system gives (`fs.inotify.max_user_instances`).
    pub(crate) fn new() -> Result<Self, Fault> {
        Ok(Self {
            inotify: Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?,
            paths: HashMap::new(),
            watches: BTreeMap::new(),
            dirty: BTreeSet::new(),
            missed: None,
            blind: None,
        })
    }

    /// Why folders have no watch, when some have none: until that ends, the tree has to be scanned from
    /// time to time.
    pub(crate) fn blind(&self) -> Option<Blind> {
        self.blind
    }

    /// How many folders are watched.
    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Watches a folder that is open.
    pub(super) fn add(&mut self, rel: &RelPath, dir: &Dir) {
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
            | AddWatchFlags::from_bits_retain(nix::libc::IN_EXCL_UNLINK);
        match self.inotify.add_watch(&*name, flags) {
            Ok(watch) => {
                // A folder that was moved keeps its watch.
                if let Some(was) = self.paths.insert(watch, rel.clone())
                    && was != *rel
                    && self.watches.get(&was) == Some(&watch)
                {
                    self.watches.remove(&was);
                }
                self.watches.insert(rel.clone(), watch);
            }
            Err(errno) => self.failed(errno),
        }
    }

    fn failed(&mut self, errno: Errno) {
        self.is_blind(if errno == Errno::ENOSPC { Blind::Limit } else { Blind::Failed });
    }

    /// Ends the watches of a folder that is gone, and of all below it.
    pub(super) fn forget(&mut self, rel: &RelPath) {
        let below = self.watches.range(rel.clone()..).take_while(|(other, _)| other.below(rel).is_some());
        let gone: Vec<(RelPath, WatchDescriptor)> = below.map(|(rel, watch)| (rel.clone(), *watch)).collect();
        for (rel, watch) in gone {
            self.watches.remove(&rel);
            if self.paths.get(&watch) == Some(&rel) {
                self.paths.remove(&watch);
                // The system ended it when the folder was removed.
                let _ended = self.inotify.rm_watch(watch);
            }
        }
    }

    /// A whole scan begins, which watches each folder anew.
    pub(super) fn begin(&mut self) {
        (self.blind, self.missed) = (None, None);
        self.dirty.clear();
    }

    fn is_blind(&mut self, why: Blind) {
        self.blind.get_or_insert(why);
        self.missed.get_or_insert(why);
    }

    /// Waits for changes at most so long, and then until there are no more for a moment.
    ///
    /// # Errors
    /// What the system says when it cannot be asked.
    pub(crate) fn hear(&mut self, wait: Duration) -> Result<Heard, Fault> {
        let begun = Instant::now();
        let mut wait = wait;
        let mut first: Option<Instant> = None;
        loop {
            let has_some = self.poll(wait)?;
            if has_some {
                self.take()?;
            }
            if self.missed.is_none() && self.dirty.is_empty() {
                // What came was nothing of the tree, or a signal.
                let left = wait.saturating_sub(begun.elapsed());
                if !has_some || left.is_zero() {
                    return Ok(Heard::Dirty(BTreeSet::new()));
                }
                continue;
            }
            let since = first.get_or_insert_with(Instant::now).elapsed();
            if !has_some || self.missed.is_some() || since >= WAIT_MAX {
                return Ok(self.tell());
            }
            wait = QUIET.min(WAIT_MAX.saturating_sub(since));
        }
    }

    fn tell(&mut self) -> Heard {
        let dirty = std::mem::take(&mut self.dirty);
        match self.missed.take() {
            Some(why) => Heard::Rescan(why),
            None => Heard::Dirty(dirty),
        }
    }

    fn poll(&self, wait: Duration) -> Result<bool, Fault> {
        let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take(&mut self) -> Result<(), Fault> {
        let events = match self.inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                self.missed = Some(Blind::Overflow);
                continue;
            }
            let Some(folder) = self.paths.get(&event.wd).cloned() else { continue };
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.paths.remove(&event.wd);
                if self.watches.get(&folder) == Some(&event.wd) {
                    self.watches.remove(&folder);
                }
                continue;
            }
            let is_self = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
            if folder.is_root() {
                if event.mask.intersects(is_self) {
                    self.missed.get_or_insert(Blind::Moved);
                }
                if event.name.as_deref().is_some_and(|name| name.as_encoded_bytes() == OURS) {
                    continue;
                }
            }
            self.dirty.insert(folder);
            if self.dirty.len() > FOLDERS_MAX {
                self.dirty.clear();
                self.missed.get_or_insert(Blind::Many);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
