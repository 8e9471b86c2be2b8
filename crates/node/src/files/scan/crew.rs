//! The threads of one pass. A small folder is gone over by the one that asked for it; in a larger one others are
//! called to help, and whoever has work leaves them half of what it still has to look at, of its topmost folder, as
//! soon as nothing waits for them. A folder is finished by the thread that does the last thing of it, so nobody
//! waits as long as there is work.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

use cortex_content::object::{DirEntry, Node};
use cortex_core::files::path::RelPath;
use cortex_core::limits::TREE_ENTRIES_MAX;
use cortex_core::sync::Seen;
use nix::errno::Errno;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::cache::{Cache, Sums, Writer};
use super::clock::Clock;
use super::level::{Done, Level, entry};
use super::pass::{Found, Guide, Pass};
use super::rules::Rules;
use super::writers::Writers;
use super::{Objects, Tell};

/// Entries that are looked at before others are called: a thread takes as long to start. In tests few, so that the
/// small folders there are gone over by several.
const ALONE: u64 = if cfg!(test) { 2 } else { 512 };
/// How often it is told how far a pass is whose first thread has nothing to do.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A folder, or a part of one, with the rules that hold in it. It waits for whoever has nothing to do.
pub(super) struct Job {
    pub(super) level: Box<Level>,
    pub(super) rules: Rules,
}

/// What one thread did of a folder that another one has.
pub(super) struct Share {
    pub(super) entries: Vec<DirEntry>,
    pub(super) sums: Sums,
    /// Of a part of its names: the first of them, and the rows. Of a folder in it none: they are there.
    pub(super) rows: Option<(Box<[u8]>, Writer)>,
}

impl Share {
    /// A folder in it.
    pub(super) fn of(Done { name, told, .. }: &Done) -> Self {
        let node = Node::Dir { id: told.tree, totals: told.totals };
        Self { entries: vec![entry(name, node)], sums: told.sums, rows: None }
    }

    pub(super) fn first(&self) -> Option<&[u8]> {
        self.rows.as_ref().map(|(first, _)| &**first)
    }
}

/// Where a folder waits for what others do of it.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Awaited>);

#[derive(Default)]
struct Awaited {
    /// How many shares are not done.
    missing: usize,
    done: Vec<Share>,
    /// The folder, once all else of it is done, and where the one waits in which it lies.
    parked: Option<(Box<Level>, Option<Arc<Waiting>>)>,
}

impl Waiting {
    /// One share more is left to others.
    pub(super) fn expect_one(&self) {
        lock(&self.0).missing += 1;
    }

    /// A folder of which everything else is done: given back when all shares are. Else whoever does the last one has
    /// it, and tells the folder that `above` names.
    pub(super) fn park(
        mut level: Box<Level>,
        above: impl FnOnce() -> Option<Arc<Self>>,
    ) -> Option<Box<Level>> {
        if let Some(waiting) = level.take_waiting() {
            let mut state = lock(&waiting.0);
            if state.missing > 0 {
                state.parked = Some((level, above()));
                return None;
            }
            level.take_in(std::mem::take(&mut state.done));
        }
        Some(level)
    }

    /// A share is done. The folder, when that was the last one and everything else of it is done, and where the one
    /// waits in which it lies.
    pub(super) fn put(&self, share: Share) -> Option<(Box<Level>, Option<Arc<Self>>)> {
        let mut state = lock(&self.0);
        state.done.push(share);
        state.missing = state.missing.saturating_sub(1);
        if state.missing > 0 {
            return None;
        }
        let (mut level, above) = state.parked.take()?;
        level.take_in(std::mem::take(&mut state.done));
        Some((level, above))
    }
}

/// What all threads of a pass share.
pub(super) struct Crew<'a> {
    pub(super) guide: Guide<'a>,
    pub(super) rules: Rules,
    pub(super) cache: &'a Cache,
    pub(super) clock: Clock,
    pub(super) writers: Writers,
    /// Objects of the pass before, when the others are as they were.
    pub(super) before: &'a Objects,
    /// What was left out before, likewise.
    pub(super) was_left_out: &'a BTreeMap<RelPath, Seen>,
    threads: usize,
    entries: AtomicU64,
    /// Files that were looked at.
    pub(super) files: AtomicU64,
    /// Bytes that were read.
    pub(super) hashed: AtomicU64,
    /// Held by the one whose file several threads may read.
    pub(super) several: Mutex<()>,
    /// Whether work waits for whoever has nothing to do.
    is_stocked: AtomicBool,
    is_over: AtomicBool,
    desk: Mutex<Desk>,
    news: Condvar,
}

#[derive(Default)]
struct Desk {
    jobs: VecDeque<Job>,
    end: Option<Result<Done, Fault>>,
}

impl<'a> Crew<'a> {
    /// Before a pass by so many threads at most over a folder.
    ///
    /// # Errors
    /// `EINVAL` for a pattern that is none.
    pub(super) fn new(
        dir: &Dir,
        guide: Guide<'a>,
        cache: &'a Cache,
        (before, was_left_out): (&'a Objects, &'a BTreeMap<RelPath, Seen>),
        threads: usize,
    ) -> Result<Self, Fault> {
        Ok(Self {
            rules: Rules::new(guide.spec).map_err(|_| Fault::Sys(Errno::EINVAL))?,
            guide,
            cache,
            clock: Clock::of(dir),
            writers: if guide.asks_writers { Writers::of(dir) } else { Writers::unknown() },
            before,
            was_left_out,
            threads,
            entries: AtomicU64::new(0),
            files: AtomicU64::new(0),
            hashed: AtomicU64::new(0),
            several: Mutex::new(()),
            is_stocked: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            desk: Mutex::default(),
            news: Condvar::new(),
        })
    }

    /// Goes over all of a folder. What was found before a fault is given as well.
    pub(super) fn go_over(&self, dir: &Dir, tell: Option<&Tell<'_>>) -> (Found, Result<Done, Fault>) {
        let found = thread::scope(|scope| {
            let helpers = RefCell::new(Vec::new());
            let call = || {
                let help = || {
                    let mut pass = Pass::new(self, None, None);
                    self.serve(&mut pass, None);
                    pass.end()
                };
                // Where the system starts none, fewer do it.
                let begun = (1..self.threads)
                    .map_while(|_| Builder::new().name("scan".to_owned()).spawn_scoped(scope, help).ok());
                helpers.borrow_mut().extend(begun);
            };
            let mut pass = Pass::new(self, tell, Some(&call));
            match pass.top(dir) {
                Ok(job) => self.leave(job),
                Err(fault) => self.end(Err(fault)),
            }
            self.serve(&mut pass, tell);
            let mut found = pass.end();
            for helper in helpers.take() {
                found.add(helper.join().unwrap_or_else(|panic| resume_unwind(panic)));
            }
            found
        });
        let end = lock(&self.desk).end.take();
        (found, end.unwrap_or(Err(Fault::Restless)))
    }

    /// Does what there is to do until all is done.
    fn serve(&self, pass: &mut Pass<'_, '_>, tell: Option<&Tell<'_>>) {
        let _others_go_home = EndOfPanic(self);
        while let Some(job) = self.next(tell) {
            if let Err(fault) = pass.work(job) {
                self.end(Err(fault));
            }
        }
    }

    fn next(&self, tell: Option<&Tell<'_>>) -> Option<Job> {
        let mut desk = lock(&self.desk);
        while desk.end.is_none() {
            if let Some(job) = desk.jobs.pop_front() {
                self.is_stocked.store(!desk.jobs.is_empty(), Ordering::Relaxed);
                return Some(job);
            }
            let waited = self.news.wait_timeout(desk, TELL_EVERY).unwrap_or_else(PoisonError::into_inner);
            desk = waited.0;
            if let Some(tell) = tell.filter(|_| waited.1.timed_out()) {
                drop(desk);
                let (files, hashed) = self.seen();
                tell(files, hashed);
                desk = lock(&self.desk);
            }
        }
        None
    }

    /// Leaves work to whoever has nothing to do.
    pub(super) fn leave(&self, job: Job) {
        let mut desk = lock(&self.desk);
        if desk.end.is_none() {
            desk.jobs.push_back(job);
            self.is_stocked.store(true, Ordering::Relaxed);
            self.news.notify_one();
        }
    }

    /// The pass is over: all was done, or there was a fault.
    pub(super) fn end(&self, end: Result<Done, Fault>) {
        let mut desk = lock(&self.desk);
        desk.end.get_or_insert(end);
        desk.jobs.clear();
        self.is_over.store(true, Ordering::Relaxed);
        self.news.notify_all();
    }

    /// Whether some work is to be left to others.
    pub(super) fn wants_more(&self) -> bool {
        self.threads > 1
            && !self.is_stocked.load(Ordering::Relaxed)
            && self.entries.load(Ordering::Relaxed) >= ALONE
    }

    /// Whether nothing more is to be done.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// So many entries more.
    ///
    /// # Errors
    /// [`Fault::TooMany`] beyond those of a tree.
    pub(super) fn count(&self, entries: u64) -> Result<(), Fault> {
        let before = self.entries.fetch_add(entries, Ordering::Relaxed);
        if before + entries > TREE_ENTRIES_MAX { Err(Fault::TooMany) } else { Ok(()) }
    }

    /// Files that were looked at, and bytes that were read.
    pub(super) fn seen(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.hashed.load(Ordering::Relaxed))
    }
}

/// A thread that panics ends the pass for the others too.
struct EndOfPanic<'c, 'a>(&'c Crew<'a>);

impl Drop for EndOfPanic<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Err(Fault::Restless));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
