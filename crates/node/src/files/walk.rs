//! Entries below a folder, one after the other, by descriptors: each folder before what is in it, siblings
//! in byte order. A walk can be left at any entry and taken up there by another one. Time, memory and
//! entries are bounded.

use std::ops::Bound;
use std::time::{Duration, Instant};

use cortex_content::search::Ignored;
use cortex_core::error::Refusal;
use cortex_core::files::answer::Skipped;
use cortex_core::files::op::Kind;
use cortex_core::files::path::RelPath;
use cortex_core::limits;

use super::beneath::{Dir, Follow, Stat};
use super::fault::Fault;
use super::ignore;
use super::place::Place;

/// Names of one folder that are in memory; a larger one is read again for the next ones.
const NAMES_MAX: usize = 16 * 1024;
/// Levels of folders that are open at once.
pub(super) const LEVELS_MAX: usize = 128;

/// What one walk may cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    entries: u64,
    until: Instant,
}

impl Budget {
    /// The bound of one call.
    pub(crate) fn full() -> Self {
        Self::of(limits::WALK_ENTRIES_MAX, Duration::from_millis(limits::WALK_MS_MAX))
    }

    pub(crate) fn of(entries: u64, time: Duration) -> Self {
        Self { entries, until: Instant::now() + time }
    }

    /// Whether the time is over.
    pub(super) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// Which entries a walk comes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// Levels: 1 is the folder's own entries.
    pub(super) depth: usize,
    /// Whether names that begin with a dot belong to it.
    pub(super) hidden: bool,
    /// Whether what ignore files leave out belongs to it.
    pub(super) ignored: bool,
}

/// Where a walk begins.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// At the first entry.
    First,
    /// With what comes after this path.
    After(Vec<u8>),
    /// With this path, when it is there still.
    At(Vec<u8>),
}

/// One step.
#[derive(Debug)]
pub(super) enum Step {
    /// An entry; [`Walk::here`] is the folder that it lies in.
    Entry(Item),
    /// There is no further one.
    End,
    /// The budget is spent.
    Spent,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Item {
    /// Relative to the folder that is looked through.
    pub(super) path: Vec<u8>,
    /// Where its name begins in that.
    pub(super) name_at: usize,
    /// `None` when it cannot be looked at.
    pub(super) stat: Option<Stat>,
}

impl Item {
    pub(super) fn name(&self) -> &[u8] {
        &self.path[self.name_at..]
    }

    pub(super) fn is_dir(&self) -> bool {
        self.stat.is_some_and(|stat| stat.kind == Kind::Dir)
    }
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walk {
    scope: Scope,
    budget: Budget,
    levels: Vec<Level>,
    /// Bytes of the path from the root to the folder that is looked through, with a slash behind it.
    base: Vec<u8>,
    ignored: Ignored,
    /// The folder that was handed out last, and is next.
    pending: Option<Vec<u8>>,
    /// Entries that were looked at.
    pub(super) looked_at: u64,
    pub(super) skipped: Skipped,
    /// The last path that was looked at.
    pub(super) last: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Level {
    dir: Dir,
    /// Relative to the folder that is looked through, with a slash behind it; empty of that.
    prefix: Vec<u8>,
    /// The last name first.
    names: Vec<Box<[u8]>>,
    more: bool,
    last: Option<Box<[u8]>>,
}

impl Walk {
    /// Opens the folder, links in its path are followed beneath the root.
    pub(super) fn new(
        place: &Place<'_>,
        scope: Scope,
        budget: Budget,
        start: Start,
    ) -> Result<Self, Refusal> {
        let failed = |fault: Fault| place.refusal(fault);
        let dir = place.root.dir(place.rel, Follow::Within).map_err(failed)?;
        let base = match place.rel.as_str() {
            "" => Vec::new(),
            rel => [rel.as_bytes(), b"/"].concat(),
        };
        let mut walk = Self {
            scope,
            budget,
            levels: Vec::new(),
            base,
            ignored: Ignored::default(),
            pending: None,
            looked_at: 0,
            skipped: Skipped::default(),
            last: None,
        };
        if !scope.ignored {
            walk.enter_above(place);
        }
        let (path, is_at) = match start {
            Start::First => (Vec::new(), false),
            Start::After(path) => (path, false),
            Start::At(path) => (path, true),
        };
        walk.take_up(dir, &path, is_at).map_err(failed)?;
        Ok(walk)
    }

    /// The folder in which the last entry lies.
    pub(super) fn here(&self) -> Option<&Dir> {
        self.levels.last().map(|level| &level.dir)
    }

    /// Ignore files above the folder count as well, from the root on.
    fn enter_above(&mut self, place: &Place<'_>) {
        let mut at = RelPath::root();
        for part in place.rel.parts() {
            let prefix = if at.is_root() { 0 } else { at.as_str().len() + 1 };
            if let Ok(folder) = place.root.dir(&at, Follow::Within)
                && !ignore::enter(&mut self.ignored, &folder, prefix)
            {
                self.skipped.too_large += 1;
            }
            match at.join(part) {
                Ok(next) => at = next,
                Err(_) => return,
            }
        }
    }

    /// Opens the folder, and those in it on the way to `path`, each at the right name.
    fn take_up(&mut self, dir: Dir, path: &[u8], is_at: bool) -> Result<(), Fault> {
        let mut parts = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).peekable();
        let mut next = Some(dir);
        let mut prefix = Vec::new();
        while let Some(dir) = next.take() {
            let part = parts.next();
            let is_last = parts.peek().is_none();
            let from = match part {
                None => Bound::Unbounded,
                Some(part) if is_last && is_at => Bound::Included(part),
                Some(part) => Bound::Excluded(part),
            };
            let below =
                part.and_then(|part| if is_last && is_at { None } else { dir.dir_or_mount(part).ok() });
            self.push(dir, prefix.clone(), from)?;
            // The last entry may be a folder that was handed out, and is still to be looked into.
            let may_enter = part.is_some_and(|part| {
                let path = [&prefix[..], part].concat();
                self.levels.len() < self.depth() && !self.is_hidden(part) && !self.is_ignored(&path, true)
            });
            if let (Some(part), Some(below), true) = (part, below, may_enter) {
                prefix.extend_from_slice(part);
                prefix.push(b'/');
                next = Some(below);
            }
        }
        Ok(())
    }

    fn depth(&self) -> usize {
        self.scope.depth.min(LEVELS_MAX)
    }

    fn push(&mut self, dir: Dir, prefix: Vec<u8>, from: Bound<&[u8]>) -> Result<(), Fault> {
        if !self.scope.ignored && !ignore::enter(&mut self.ignored, &dir, self.base.len() + prefix.len()) {
            self.skipped.too_large += 1;
        }
        let mut found = dir.names(from, NAMES_MAX)?;
        found.names.reverse();
        self.levels.push(Level { dir, prefix, names: found.names, more: found.more, last: None });
        Ok(())
    }

    fn pop(&mut self) {
        if let Some(level) = self.levels.pop() {
            self.ignored.leave(self.base.len() + level.prefix.len());
        }
    }

    fn is_hidden(&self, name: &[u8]) -> bool {
        !self.scope.hidden && name.starts_with(b".")
    }

    fn is_ignored(&self, path: &[u8], is_dir: bool) -> bool {
        !self.scope.ignored && self.ignored.has(&[&self.base, path].concat(), is_dir)
    }

    /// The next entry. At least one is looked at, whatever the budget.
    pub(super) fn next(&mut self) -> Step {
        self.enter_pending();
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.pop() else {
                if level.more && self.read_on() {
                    continue;
                }
                self.pop();
                continue;
            };
            let is_spent = self.looked_at >= self.budget.entries || self.budget.is_late();
            if is_spent && self.looked_at > 0 {
                level.names.push(name);
                return Step::Spent;
            }
            level.last = Some(name.clone());
            let name_at = level.prefix.len();
            let path = [&level.prefix[..], &name].concat();
            self.looked_at += 1;
            if path.len() > limits::PATH_BYTES_MAX {
                self.skipped.unsupported += 1;
                continue;
            }
            self.last = Some(path.clone());
            let stat = match level.dir.stat(&name) {
                Ok(stat) => Some(stat),
                // It went away meanwhile.
                Err(fault) if fault.is_absent() => continue,
                Err(_) => None,
            };
            let item = Item { path, name_at, stat };
            if self.is_hidden(&name) {
                continue;
            }
            if self.is_ignored(&item.path, item.is_dir()) {
                self.skipped.ignored += 1;
                continue;
            }
            if item.stat.is_none() {
                self.skipped.unreadable += 1;
            }
            if item.is_dir() {
                self.pending = Some(name.into_vec());
            }
            return Step::Entry(item);
        }
        Step::End
    }

    /// Opens the folder that was handed out last.
    fn enter_pending(&mut self) {
        let Some(name) = self.pending.take() else { return };
        if self.levels.len() >= self.depth() {
            // Deeper than the caller asks for says nothing; deeper than can be open is told.
            self.skipped.too_large += u64::from(self.scope.depth > LEVELS_MAX);
            return;
        }
        let Some(level) = self.levels.last() else { return };
        let prefix = [&level.prefix[..], &name, b"/"].concat();
        let entered = level.dir.dir_or_mount(&name).and_then(|dir| self.push(dir, prefix, Bound::Unbounded));
        match entered {
            Ok(()) => {}
            Err(Fault::TooMany) => self.skipped.too_large += 1,
            // It went away, or is something else.
            Err(fault) if fault.is_absent() || fault == Fault::Outside => {}
            Err(_) => self.skipped.unreadable += 1,
        }
    }

    /// Reads the next names of the innermost folder. Whether there are some.
    fn read_on(&mut self) -> bool {
        let Some(level) = self.levels.last_mut() else { return false };
        level.more = false;
        let from = level.last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        match level.dir.names(from, NAMES_MAX) {
            Ok(mut found) => {
                found.names.reverse();
                (level.names, level.more) = (found.names, found.more);
                true
            }
            Err(Fault::TooMany) => {
                self.skipped.too_large += 1;
                false
            }
            Err(_) => {
                self.skipped.unreadable += 1;
                false
            }
        }
    }
}
