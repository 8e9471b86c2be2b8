//! What lies in staging gets its names, and what is to go goes: step by step, each only if what is there is
//! still what was planned for (SYNC rule 6). A step that finds something else is not done, and the rest
//! goes on.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd as _;
use std::rc::Rc;

use cortex_core::error::Refusal;
use cortex_core::files::entity::unknown_outcome;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Act, Entry, Seen, Step};
use cortex_core::transfer::{Phase, Progress};
use nix::errno::Errno;

use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;
use super::super::place::Work;
use super::super::seam::{Moment, Seam, Synced};
use super::super::swap::{Aside, Look as _, Swapped, put_back, swap};
use super::content::Item;
use super::fetch::Store;
use super::modes;
use super::outcome::{Applied, Deed, Trouble};
use super::peer::Peer;
use super::staging::Staging;
use super::was::{Leaf, Log, Row};

/// Steps between two questions whether it may go on.
const BATCH_STEPS: usize = 256;
/// So many folders are made durable one by one; more by one call for all.
const FOLDERS_SYNCED_MAX: usize = 16;

/// Whether a file is certainly what the scan saw under that path, by what is known of it.
pub(crate) type Known<'a> = dyn Fn(&RelPath, &Stat) -> bool + 'a;

/// Why a step was not done.
enum Stop {
    /// This one alone.
    Here(Trouble),
    /// The disk fails, or is full.
    All(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Outside | Fault::Unfit(_) | Fault::Restless => Self::Here(CHANGED),
            Fault::Sys(
                Errno::ENOENT
                | Errno::EEXIST
                | Errno::ENOTDIR
                | Errno::EISDIR
                | Errno::ENOTEMPTY
                | Errno::ELOOP
                | Errno::EXDEV
                | Errno::EBUSY
                | Errno::ESTALE
                | Errno::ETXTBSY,
            ) => Self::Here(CHANGED),
            Fault::Sys(errno @ (Errno::EACCES | Errno::EPERM)) => Self::Here(Trouble::Denied(errno as i32)),
            Fault::Sys(_) | Fault::TooMany => Self::All(fault),
        }
    }
}

const CHANGED: Trouble = Trouble::Changed { kept: None };

/// The steps that are left when content is there.
pub(super) struct Commit<'a> {
    pub(super) work: &'a Work<'a>,
    pub(super) root: &'a Dir,
    pub(super) staging: &'a Staging,
    pub(super) known: &'a Known<'a>,
    pub(super) store: &'a Store<'a>,
    /// Files in the order of the steps.
    pub(super) items: &'a [Item],
    /// Folders of the folder that are open: those in which something was done since they were last made
    /// durable.
    folders: HashMap<RelPath, Rc<Dir>>,
    /// The folder of staging that was used last.
    staged: Option<(RelPath, Rc<Dir>)>,
    log: Log,
    /// Folders that were to be made and are not there; nothing below them is done.
    failed: BTreeSet<RelPath>,
}

impl<'a> Commit<'a> {
    pub(super) fn new(
        work: &'a Work<'a>,
        root: &'a Dir,
        staging: &'a Staging,
        known: &'a Known<'a>,
        store: &'a Store<'a>,
        items: &'a [Item],
    ) -> Self {
        Self {
            work,
            root,
            staging,
            known,
            store,
            items,
            folders: HashMap::new(),
            staged: None,
            log: Log::default(),
            failed: BTreeSet::new(),
        }
    }

    /// Does the steps.
    ///
    /// # Errors
    /// What the gate says; `no_space` and those of the disk. What was done until then stays, each path as
    /// before or as after. `unknown_outcome` when the disk cannot say whether names stay.
    pub(super) fn run(
        &mut self,
        steps: &[Step],
        peer: &mut dyn Peer,
        applied: &mut Applied,
    ) -> Result<(), Refusal> {
        let visible = self.visible(steps, applied);
        let mut number = self.staging.free;
        let files_total = visible.len() as u64;
        let mut progress = Progress { phase: Phase::Applying, files_total, ..Progress::default() };
        for batch in visible.chunks(BATCH_STEPS) {
            peer.gate()?;
            let rows: Vec<Row> = (number..).zip(batch).filter_map(|(number, one)| one.row(number)).collect();
            let logged = self.log.write(self.work.seam, &self.staging.dir, &rows);
            logged.map_err(|fault| fault.refusal(".cortex/staging"))?;
            if !rows.is_empty() {
                self.work.seam.pass(Moment::Logged);
            }
            let mut failed = Ok(());
            for one in batch {
                let done = self.one(one, number, applied);
                progress.files += 1;
                peer.progress(progress);
                number = number.saturating_add(1);
                if let Err(fault) = done {
                    failed = Err(fault.refusal(one.step.path.as_str()));
                    break;
                }
            }
            // What was done before a failure is to stay as well.
            let synced = self.sync();
            failed?;
            synced.map_err(|fault| {
                let why = fault.refusal("the folder").message;
                unknown_outcome(self.work.id, why.trim_end_matches('.'))
            })?;
            self.work.seam.pass(Moment::BatchSynced);
        }
        Ok(())
    }

    /// The steps that are done by themselves: what is in a folder that is made is there when that gets its
    /// name.
    fn visible<'s>(&self, steps: &'s [Step], applied: &mut Applied) -> Vec<One<'s>>
    where
        'a: 's,
    {
        let mut items = self.items.iter();
        let mut ones: Vec<One<'s>> = Vec::new();
        // Folders that are made, and where they stand in `ones`. Steps of one kind come in the order of their
        // paths, and folders before files.
        let mut tops: HashMap<&RelPath, usize> = HashMap::new();
        for step in steps {
            let is_file = matches!(step.act, Act::Put(Entry::File { .. }));
            let item = if is_file { items.next() } else { None };
            let top = if matches!(step.act, Act::MakeDir | Act::Put(_)) {
                let mut above = step.path.parent();
                let mut top = None;
                while let Some(folder) = above {
                    top = tops.get(&folder).copied();
                    if top.is_some() || tops.is_empty() {
                        break;
                    }
                    above = folder.parent();
                }
                top
            } else {
                None
            };
            match top {
                Some(top) => {
                    if let Some(one) = ones.get_mut(top) {
                        one.below.push((step, item));
                    }
                }
                None => {
                    if step.act == Act::MakeDir {
                        tops.insert(&step.path, ones.len());
                    }
                    ones.push(One { step, item, below: Vec::new() });
                }
            }
        }
        for item in self.items.iter().filter(|item| !item.is_ready()) {
            applied.troubles.push((item.path.clone(), Trouble::Missing));
        }
        ones
    }

    fn one(&mut self, one: &One<'_>, number: u32, applied: &mut Applied) -> Result<(), Fault> {
        if one.item.is_some_and(|item| !item.is_ready()) {
            return Ok(());
        }
        let step = one.step;
        let is_below = self.failed.iter().any(|failed| step.path.below(failed).is_some());
        let done = if is_below { Err(Stop::Here(Trouble::Below)) } else { self.step(one, number) };
        match done {
            Ok(()) => {
                let files = std::iter::once((step, one.item)).chain(one.below.iter().copied());
                for (step, item) in files {
                    match (&step.act, item) {
                        (Act::Put(_), Some(item)) if item.is_ready() => {
                            applied.files += 1;
                            applied.bytes = applied.bytes.saturating_add(item.size);
                            let now = std::ptr::eq(step, one.step).then(|| self.stat(&step.path)).transpose();
                            // Without it the file is read by the next scan, and that is all.
                            let written = now.map(|now| item.written(self.store, now));
                            if let Ok(Ok(Some(written))) = written {
                                applied.written.insert(step.path.clone(), written);
                            }
                        }
                        (Act::Put(Entry::Link { .. }), _) => applied.files += 1,
                        (Act::RemoveFile | Act::RemoveDir, _) => applied.removed += 1,
                        _ => {}
                    }
                }
                Ok(())
            }
            Err(Stop::Here(trouble)) => {
                if step.act == Act::MakeDir {
                    self.failed.insert(step.path.clone());
                }
                applied.troubles.push((step.path.clone(), trouble));
                let below = one.below.iter().filter(|(_, item)| item.is_none_or(Item::is_ready));
                below.for_each(|(step, _)| applied.troubles.push((step.path.clone(), Trouble::Below)));
                Ok(())
            }
            Err(Stop::All(fault)) => Err(fault),
        }
    }

    fn step(&mut self, one: &One<'_>, number: u32) -> Result<(), Stop> {
        let Step { path, expect, act } = one.step;
        let parent = path.parent().unwrap_or_default();
        let folder = self.folder(&parent)?;
        let name = path.name();
        match (act, expect) {
            (Act::MakeDir | Act::Put(_), Seen::Absent) => {
                let staged = self.staged(&parent)?;
                staged.rename_new(name.as_bytes(), &folder, name.as_bytes())?;
                self.work.seam.pass(Moment::Created);
            }
            (Act::Put(_), _) => self.replace(one, &folder, number)?,
            (Act::RemoveFile, _) => self.remove(one, &folder, number)?,
            (Act::RemoveDir, _) => folder.remove_dir(name.as_bytes())?,
            (Act::Exec(exec), _) => self.exec(one, &folder, *exec)?,
            (Act::Keep { copy }, _) => {
                self.look(one, &folder)?;
                folder.rename_new(name.as_bytes(), &folder, copy.name().as_bytes())?;
            }
            (Act::MakeDir, _) => return Err(Stop::Here(CHANGED)),
        }
        Ok(())
    }

    /// What is there, if it is what is expected.
    fn look(&self, one: &One<'_>, folder: &Dir) -> Result<Leaf, Stop> {
        let Step { path, expect, .. } = one.step;
        let is_known = |stat: &Stat| (self.known)(path, stat);
        let found = Leaf::look(folder, path.name().as_bytes(), expect, &is_known)?;
        found.ok_or(Stop::Here(CHANGED))
    }

    fn replace(&mut self, one: &One<'_>, folder: &Dir, number: u32) -> Result<(), Stop> {
        let path = &one.step.path;
        let name = path.name();
        let leaf = self.look(one, folder)?;
        let staged = self.staged(&path.parent().unwrap_or_default())?;
        if let (Leaf::File(seen), Some(item)) = (&leaf, one.item) {
            let (old, new) = (folder.regular(name.as_bytes())?, staged.regular(name.as_bytes())?);
            modes::take_over(&old, &seen.stat, &new, item.exec())?;
        }
        let (new, was) = (Row::new_name(number), Row::was_name(number));
        let aside = Aside { dir: &self.staging.was, new: new.as_bytes(), was: was.as_bytes() };
        staged.rename_new(name.as_bytes(), aside.dir, aside.new)?;
        let seam = Renamed { seam: self.work.seam };
        let work = Work { id: self.work.id, seam: &seam };
        match swap(&work, &aside, folder, name, &leaf)? {
            Swapped::Done => Ok(()),
            Swapped::Changed { kept } => Err(Stop::Here(Trouble::Changed { kept })),
        }
    }

    fn remove(&mut self, one: &One<'_>, folder: &Dir, number: u32) -> Result<(), Stop> {
        let name = one.step.path.name();
        let leaf = self.look(one, folder)?;
        self.work.seam.pass(Moment::Looked);
        let (dir, was) = (&self.staging.was, Row::was_name(number));
        folder.rename_new(name.as_bytes(), dir, was.as_bytes())?;
        self.work.seam.pass(Moment::Trashed);
        if leaf.is_at(dir, was.as_bytes()).unwrap_or(false) {
            return Ok(dir.unlink(was.as_bytes())?);
        }
        let Swapped::Changed { kept } = put_back(self.work, dir, was.as_bytes(), folder, name)? else {
            return Ok(());
        };
        Err(Stop::Here(Trouble::Changed { kept }))
    }

    fn exec(&self, one: &One<'_>, folder: &Dir, exec: bool) -> Result<(), Stop> {
        let leaf = self.look(one, folder)?;
        let file = folder.regular(one.step.path.name().as_bytes())?;
        let stat = Stat::of_open(&file)?;
        match leaf {
            Leaf::File(seen) if seen.stat.is_as(&stat) => {
                modes::set(&file, modes::with_exec(stat.mode, exec && !modes::is_hook(&one.step.path)))?;
                Ok(())
            }
            Leaf::File(_) | Leaf::Link(_) => Err(Stop::Here(CHANGED)),
        }
    }

    fn stat(&mut self, path: &RelPath) -> Result<Stat, Fault> {
        self.folder(&path.parent().unwrap_or_default())?.stat(path.name().as_bytes())
    }

    fn folder(&mut self, path: &RelPath) -> Result<Rc<Dir>, Fault> {
        if let Some(folder) = self.folders.get(path) {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(self.root.below(path)?);
        self.folders.insert(path.clone(), Rc::clone(&folder));
        Ok(folder)
    }

    fn staged(&mut self, path: &RelPath) -> Result<Rc<Dir>, Fault> {
        let staged = match self.staged.take() {
            Some((at, dir)) if at == *path => (at, dir),
            _ => (path.clone(), Rc::new(self.staging.tree.below(path)?)),
        };
        Ok(Rc::clone(&self.staged.insert(staged).1))
    }

    /// Makes the names durable that were given and taken since the last time.
    fn sync(&mut self) -> Result<(), Fault> {
        let folders = std::mem::take(&mut self.folders);
        if folders.len() > FOLDERS_SYNCED_MAX {
            return self.work.seam.sync(self.root.as_fd(), Synced::Tree);
        }
        folders.values().try_for_each(|folder| self.work.seam.sync(folder.as_fd(), Synced::Names))
    }
}

/// A step, with those that are done by the same rename.
struct One<'s> {
    step: &'s Step,
    item: Option<&'s Item>,
    below: Vec<(&'s Step, Option<&'s Item>)>,
}

impl One<'_> {
    /// What is said beforehand of what it takes out of sight.
    fn row(&self, number: u32) -> Option<Row> {
        let Step { path, expect, act } = self.step;
        match (act, expect) {
            (Act::Put(new), Seen::Entry(_)) => Some(Row::new(number, path, Some(new), expect)),
            (Act::RemoveFile, _) => Some(Row::new(number, path, None, expect)),
            (Act::Put(_) | Act::MakeDir | Act::RemoveDir | Act::Exec(_) | Act::Keep { .. }, _) => None,
        }
    }
}

/// What a swap calls renamed is exchanged here.
struct Renamed<'a> {
    seam: &'a dyn Seam,
}

impl Seam for Renamed<'_> {
    fn sync(&self, fd: std::os::fd::BorrowedFd<'_>, what: Synced) -> Result<(), Fault> {
        self.seam.sync(fd, what)
    }

    fn pass(&self, moment: Moment) {
        self.seam.pass(if moment == Moment::Renamed { Moment::Exchanged } else { moment });
    }

    fn may_exchange(&self) -> bool {
        self.seam.may_exchange()
    }
}

/// What a step does, for lists.
pub(super) fn deed(step: &Step) -> (RelPath, Deed) {
    let deed = match (&step.act, &step.expect) {
        (Act::Put(_), Seen::Absent) => Deed::Create,
        (Act::Put(_), _) => Deed::Replace,
        (Act::MakeDir, _) => Deed::MakeDir,
        (Act::RemoveFile, _) => Deed::RemoveFile,
        (Act::RemoveDir, _) => Deed::RemoveDir,
        (Act::Exec(_), _) => Deed::Exec,
        (Act::Keep { copy }, _) => Deed::Keep(copy.clone()),
    };
    (step.path.clone(), deed)
}
