//! Entries get another path, or a second entry of the same content.

use std::os::fd::AsFd as _;
use std::rc::Rc;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::{FileAnswer, Note};
use cortex_core::files::entity::unknown_outcome;
use cortex_core::files::op::{Expect, Kind, WriteHow};
use cortex_core::name::printable;
use nix::errno::Errno;
use nix::sys::stat::Mode;

use super::beneath::{Dir, Follow, Stat};
use super::fault::{Fault, unfit};
use super::place::{Place, Work};
use super::read;
use super::seam::{Moment, Synced};
use super::swap::{Seen, put_back};
use super::target::mismatch;
use super::write::{Declared, Draft, Prepared, Wanted};
use super::{temp, tree};

/// Entries of a folder that is copied; more is a push.
const ENTRIES_MAX: u64 = 10_000;

/// A move that was looked at.
#[derive(Debug)]
pub(crate) struct Move<'a> {
    from: End<'a>,
    to: End<'a>,
    kind: Kind,
    /// What the file must still be.
    seen: Option<Seen>,
    /// The file that is replaced.
    over: Option<Stat>,
    replace: bool,
}

/// One end: the folder, and the name in it.
#[derive(Debug)]
struct End<'a> {
    place: Place<'a>,
    folder: Dir,
    name: &'a str,
}

impl<'a> End<'a> {
    fn open(place: Place<'a>) -> Result<Self, Refusal> {
        let (folder, name) = place.parent()?;
        Ok(Self { place, folder, name })
    }

    fn name(&self) -> &'a [u8] {
        self.name.as_bytes()
    }

    fn refusal(&self, fault: Fault) -> Refusal {
        self.place.refusal(fault)
    }
}

/// Looks at both ends.
///
/// # Errors
///
/// `conflict` when `to` is taken and may not be replaced, or one of the two is a folder; `etag_mismatch`;
/// `unsupported_entry` for devices, pipes and sockets, and for a root.
pub(crate) fn prepare<'a>(
    from: Place<'a>,
    to: Place<'a>,
    replace: bool,
    expect: Expect,
) -> Result<Move<'a>, Refusal> {
    let (from, to) = (End::open(from)?, End::open(to)?);
    let there = from.folder.stat(from.name()).map_err(|fault| from.refusal(fault))?;
    if there.kind == Kind::Other {
        return Err(unfit(from.place.path.as_str(), Kind::Other));
    }
    let over = to.folder.find(to.name()).map_err(|fault| to.refusal(fault))?;
    if over.is_some_and(|over| !replace || over.kind == Kind::Dir || there.kind == Kind::Dir) {
        return Err(to.refusal(Fault::Sys(Errno::EEXIST)));
    }
    let mut seen = None;
    if let Expect::Etag(etag) = expect {
        from.place.must_be_file(&from.folder, from.name, &there)?;
        let hashed = from.folder.regular(from.name()).and_then(|file| read::hash(&file));
        let hashed = hashed.map_err(|fault| from.refusal(fault))?;
        if hashed.etag != etag {
            return Err(mismatch(&from.place, Some(&hashed)));
        }
        seen = Some(Seen { stat: hashed.stat, etag, is_racy: true });
    }
    Ok(Move { from, to, kind: there.kind, seen, over, replace })
}

impl Move<'_> {
    /// Moves it.
    ///
    /// # Errors
    ///
    /// `conflict` or `etag_mismatch` with both ends as they were; `unknown_outcome` when the disk cannot
    /// say whether the names will stay.
    pub(crate) fn commit(self, work: &Work<'_>) -> Result<FileAnswer, Refusal> {
        work.seam.pass(Moment::Prepared);
        let notes = match self.rename(work) {
            Ok(()) => Vec::new(),
            Err(Stopped::Elsewhere) => {
                self.carry(work)?;
                vec![Note::Copied]
            }
            Err(Stopped::By(refusal)) => return Err(refusal),
        };
        work.seam.pass(Moment::Renamed);
        // The new name first: after a crash between the two there may be both, and never none.
        for end in [&self.to, &self.from] {
            let synced = work.seam.sync(end.folder.as_fd(), Synced::Names);
            synced.map_err(|fault| unknown(work, &end.refusal(fault)))?;
        }
        work.seam.pass(Moment::DirSynced);
        let made = u64::from(self.over.is_none());
        Ok(FileAnswer::Done { removed: 1, made, notes, dry_run: false })
    }

    fn rename(&self, work: &Work<'_>) -> Result<(), Stopped> {
        let Self { from, to, .. } = self;
        if let (Some(seen), Some(over)) = (&self.seen, &self.over) {
            return self.exchange(work, seen, over);
        }
        let renamed = match (self.over, self.replace) {
            (Some(_), _) => match to.folder.find(to.name()) {
                Ok(Some(over)) if over.kind == Kind::Dir => Err(Fault::Sys(Errno::EISDIR)),
                Ok(_) => from.folder.rename(from.name(), &to.folder, to.name()),
                Err(fault) => Err(fault),
            },
            (None, _) => from.folder.rename_new(from.name(), &to.folder, to.name()),
        };
        renamed.map_err(|fault| self.stopped(fault))?;
        let Some(seen) = &self.seen else { return Ok(()) };
        if seen.is_there(&to.folder, to.name()).unwrap_or(false) {
            return Ok(());
        }
        // It was something else: back, unless somebody took the name meanwhile.
        let back = to.folder.rename_new(to.name(), &from.folder, from.name());
        let mut refusal = mismatch(&from.place, None);
        if back.is_err() {
            let path = printable(to.place.path.as_str(), 300);
            refusal.message.push_str(&format!(" What was there is at `{path}` now."));
        }
        Err(Stopped::By(refusal))
    }

    /// Both change places, so that either can come back.
    fn exchange(&self, work: &Work<'_>, seen: &Seen, over: &Stat) -> Result<(), Stopped> {
        let Self { from, to, .. } = self;
        let is_moved = if work.seam.may_exchange() {
            match from.folder.exchange(from.name(), &to.folder, to.name()) {
                Err(fault) if fault.is_not_supported() => false,
                exchanged => {
                    exchanged.map_err(|fault| self.stopped(fault))?;
                    true
                }
            }
        } else {
            false
        };
        if !is_moved {
            // Looked at just before; only a rename in between is not noticed.
            if !seen.is_there(&from.folder, from.name()).unwrap_or(false) {
                return Err(Stopped::By(mismatch(&from.place, None)));
            }
            let renamed = from.folder.rename(from.name(), &to.folder, to.name());
            return renamed.map_err(|fault| self.stopped(fault));
        }
        work.seam.pass(Moment::Renamed);
        if !seen.is_there(&to.folder, to.name()).unwrap_or(false) {
            let back = from.folder.exchange(from.name(), &to.folder, to.name());
            back.map_err(|fault| Stopped::By(unknown(work, &from.refusal(fault))))?;
            return Err(Stopped::By(mismatch(&from.place, None)));
        }
        // What was replaced goes, if it is what was there when that was decided.
        if from.folder.find(from.name()).ok().flatten().is_some_and(|out| out.id == over.id) {
            return from.folder.unlink(from.name()).map_err(|fault| self.stopped(fault));
        }
        let kept = temp::conflict(to.name, work.id);
        let renamed = from.folder.rename_new(from.name(), &to.folder, kept.as_bytes());
        renamed.map_err(|fault| self.stopped(fault))
    }

    fn stopped(&self, fault: Fault) -> Stopped {
        if fault.is_elsewhere() {
            return Stopped::Elsewhere;
        }
        let end = if fault.is_absent() { &self.from } else { &self.to };
        Stopped::By(end.refusal(fault))
    }

    /// To another file system: a copy, and then the original goes. It is under a name of ours meanwhile, so
    /// that nobody changes it who looks it up, and comes back when the copy fails.
    fn carry(&self, work: &Work<'_>) -> Result<(), Refusal> {
        let from = &self.from;
        let was = temp::seen(work.id);
        let was = was.as_bytes();
        from.folder.rename_new(from.name(), &from.folder, was).map_err(|fault| from.refusal(fault))?;
        let copied = self.copy_over(work, was);
        if let Err(refusal) = copied {
            put_back(work, &from.folder, was, &from.folder, from.name)
                .map_err(|fault| unknown(work, &from.refusal(fault)))?;
            return Err(refusal);
        }
        let mut removed = 0;
        let gone = match self.kind {
            Kind::Dir => tree::remove(&from.folder, was, &mut removed),
            Kind::File | Kind::Link | Kind::Other => from.folder.unlink(was),
        };
        gone.map_err(|fault| unknown(work, &from.refusal(fault)))?;
        Ok(())
    }

    fn copy_over(&self, work: &Work<'_>, was: &[u8]) -> Result<(), Refusal> {
        let Self { from, to, .. } = self;
        let failed = |fault: Fault| from.refusal(fault);
        if self.seen.is_some_and(|seen| !seen.is_there(&from.folder, was).unwrap_or(false)) {
            return Err(mismatch(&from.place, None));
        }
        match self.kind {
            Kind::File => {
                let file = from.folder.regular(was).map_err(failed)?;
                let draft = copy_into(work, &file, to.place, self.replace, failed)?;
                draft.commit(work).map(drop)
            }
            Kind::Link => {
                let target = from.folder.link_target(was).map_err(failed)?;
                let temp = temp::unseen(work.id);
                to.folder.make_link(temp.as_bytes(), &target).map_err(|fault| to.refusal(fault))?;
                let renamed = match self.over {
                    Some(_) => to.folder.rename(temp.as_bytes(), &to.folder, to.name()),
                    None => to.folder.rename_new(temp.as_bytes(), &to.folder, to.name()),
                };
                renamed.map_err(|fault| {
                    let _removed = to.folder.unlink(temp.as_bytes());
                    to.refusal(fault)
                })
            }
            Kind::Dir => {
                let source = from.folder.dir(was).map_err(failed)?;
                let (folder, name) = to.place.parent()?;
                let grown = Grown::new(work, &source, to.place, folder, name)?;
                grown.land().map(drop)
            }
            Kind::Other => Err(unfit(from.place.path.as_str(), Kind::Other)),
        }
    }
}

enum Stopped {
    /// The other end is on another file system.
    Elsewhere,
    By(Refusal),
}

fn unknown(work: &Work<'_>, why: &Refusal) -> Refusal {
    unknown_outcome(work.id, why.message.trim_end_matches('.'))
}

/// A copy that is made, and that nobody sees yet.
#[derive(Debug)]
pub(crate) enum Copy<'a> {
    /// Of a file.
    File(Box<Prepared<'a>>),
    /// Of a folder.
    Tree(Grown<'a>),
}

/// Makes a copy beside its place.
///
/// # Errors
///
/// As of a write; `unsupported_entry` for a folder without `recursive`, and when a device, pipe or socket
/// is in it; `too_large` for more entries than one copy takes.
pub(crate) fn copy<'a>(
    work: &Work<'_>,
    from: Place<'a>,
    to: Place<'a>,
    recursive: bool,
    replace: bool,
    expect: Expect,
) -> Result<Copy<'a>, Refusal> {
    let failed = |fault: Fault| from.refusal(fault);
    let source = from.root.stat(from.rel, Follow::Within).map_err(failed)?;
    if source.kind == Kind::Dir {
        if !recursive {
            return Err(
                unfit(from.path.as_str(), Kind::Dir).hint("Copy it with all that is in it by `recursive`.")
            );
        }
        let (folder, name) = to.parent()?;
        if folder.find(name.as_bytes()).map_err(|fault| to.refusal(fault))?.is_some() {
            return Err(to.refusal(Fault::Sys(Errno::EEXIST)));
        }
        let source = from.root.dir(from.rel, Follow::Within).map_err(failed)?;
        check(&from, &source)?;
        return Grown::new(work, &source, to, folder, name).map(Copy::Tree);
    }
    let file = from.root.regular(from.rel, Follow::Within).map_err(failed)?;
    let prepared = copy_into(work, &file, to, replace, failed)?;
    match expect {
        Expect::Etag(etag) if etag != prepared.etag() => {
            let now = read::hash(&file).ok();
            Err(mismatch(&from, now.as_ref()))
        }
        Expect::Any | Expect::Absent | Expect::Etag(_) => Ok(Copy::File(Box::new(prepared))),
    }
}

fn check(from: &Place<'_>, source: &Dir) -> Result<(), Refusal> {
    let tally = tree::tally(source).map_err(|fault| from.refusal(fault))?;
    if let Some(other) = tally.other {
        let path = format!("{}{}", from.path, String::from_utf8_lossy(&other));
        return Err(unfit(&path, Kind::Other).detail("path", printable(&path, 300)));
    }
    if tally.entries <= ENTRIES_MAX {
        return Ok(());
    }
    let (path, entries) = (printable(from.path.as_str(), 300), tally.entries);
    let message = format!("`{path}` has {entries} entries; one copy takes at most {ENTRIES_MAX}.");
    Err(Refusal::new(Code::TooLarge, message)
        .hint("Copy it with a command on the node, or by `cortex push`."))
}

fn copy_into<'a>(
    work: &Work<'_>,
    file: &std::fs::File,
    to: Place<'a>,
    replace: bool,
    failed: impl Fn(Fault) -> Refusal,
) -> Result<Prepared<'a>, Refusal> {
    let before = Stat::of_open(file).map_err(&failed)?;
    let how = if replace { WriteHow::Put } else { WriteHow::Create };
    let mode = Some(before.mode & 0o777);
    let wanted = Wanted { how, expect: Expect::Any, mkdirs: false, mode, dry_run: false };
    let mut draft = Draft::begin(work, to, &wanted)?;
    let mut refused = Ok(());
    let passed = read::pieces(file, 0, u64::MAX, |piece| {
        refused = draft.put(piece);
        if refused.is_ok() { Ok(()) } else { Err(Fault::TooMany) }
    });
    refused?;
    passed.map_err(&failed)?;
    if !Stat::of_open(file).map_err(&failed)?.is_untouched_since(&before) {
        return Err(failed(Fault::Restless));
    }
    draft.finish(work, Declared::default())
}

impl Copy<'_> {
    /// Gives it its name.
    ///
    /// # Errors
    ///
    /// As of a write.
    pub(crate) fn commit(self, work: &Work<'_>) -> Result<FileAnswer, Refusal> {
        match self {
            Self::File(prepared) => prepared.commit(work),
            Self::Tree(grown) => {
                work.seam.pass(Moment::Prepared);
                let (folder, place) = (Rc::clone(&grown.folder), grown.place);
                let made = grown.land()?;
                work.seam.pass(Moment::Renamed);
                let synced = work.seam.sync(folder.as_fd(), Synced::Names);
                synced.map_err(|fault| unknown(work, &place.refusal(fault)))?;
                work.seam.pass(Moment::DirSynced);
                Ok(FileAnswer::Done { removed: 0, made, notes: Vec::new(), dry_run: false })
            }
        }
    }
}

/// A folder that is copied beside its place; removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Grown<'a> {
    place: Place<'a>,
    folder: Rc<Dir>,
    name: &'a str,
    temp: String,
    made: u64,
    is_ours: bool,
}

impl<'a> Grown<'a> {
    fn new(
        work: &Work<'_>,
        source: &Dir,
        place: Place<'a>,
        folder: Dir,
        name: &'a str,
    ) -> Result<Self, Refusal> {
        let failed = |fault: Fault| place.refusal(fault);
        let temp = temp::unseen(work.id);
        folder.make_dir(temp.as_bytes(), Mode::S_IRWXU).map_err(failed)?;
        let mut grown = Self { place, folder: Rc::new(folder), name, temp, made: 0, is_ours: true };
        let copy = grown.folder.dir(grown.temp.as_bytes()).map_err(failed)?;
        tree::copy(source, &copy, ENTRIES_MAX, &mut grown.made).map_err(failed)?;
        let mode = source.stat_self().map_err(failed)?.mode;
        tree::set_mode(&copy, mode).map_err(failed)?;
        work.seam.sync(copy.as_fd(), Synced::Tree).map_err(failed)?;
        work.seam.pass(Moment::TempSynced);
        Ok(grown)
    }

    /// Entries that are new, with the folder itself.
    fn land(mut self) -> Result<u64, Refusal> {
        let renamed = self.folder.rename_new(self.temp.as_bytes(), &self.folder, self.name.as_bytes());
        renamed.map_err(|fault| self.place.refusal(fault))?;
        self.is_ours = false;
        Ok(self.made + 1)
    }
}

impl Drop for Grown<'_> {
    fn drop(&mut self) {
        if self.is_ours {
            // What stays is found by its name.
            let _removed = tree::remove(&self.folder, self.temp.as_bytes(), &mut 0);
        }
    }
}

#[cfg(test)]
#[path = "moving_tests.rs"]
mod tests;
