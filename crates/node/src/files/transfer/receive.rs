//! A folder becomes what a tree says: it is opened, scanned, compared, made so, and scanned again. What is
//! the same already is over without a stream.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::RelPath;
use cortex_core::id::OpId;
use cortex_core::sync::{Mode, NameRules, Push, RootState};
use cortex_core::transfer::{ApplyAsk, Phase, Progress, TransferEnd};
use nix::errno::Errno;

use super::super::apply::{self, Applied, Ask, End, Ground};
use super::super::beneath::{Dir, Follow};
use super::super::fault::Fault;
use super::super::place::{Place, Work};
use super::super::scan::{self, Base, Cache, Identity, OURS, Objects, ScanSpec, Scanned, Written};
use super::super::seam::Seam;
use super::super::write::denied;
use super::end;
use super::ground::{self, Dest};
use super::memory::{Memory, QUOTA};
use super::seal;
use super::supply::{Receiver, Supply, Told};

/// What a cut transfer had staged waits so long for the next try.
pub(super) const STAGED_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Makes the folder at `place` what is asked for. `supply` is opened when something of the tree is needed, or
/// when it takes long to find that out.
///
/// # Errors
/// Those of [`ground::dest`], of a scan, of [`apply::apply`], and what the supply says. Names are as they
/// were or as they are to be, whatever fails.
pub(crate) fn receive(
    place: &Place<'_>,
    ask: &ApplyAsk,
    supply: &mut dyn Supply,
    seam: &dyn Seam,
) -> Result<TransferEnd, Refusal> {
    let only = ask.only.as_deref();
    let spec = ground::spec(&ask.filters, ask.checksum, only)?;
    let is_push = matches!(ask.mode, Mode::Push(_));
    // The nil id names nothing on the disk: folders are made under their own names.
    let work = Work { id: OpId::new(uuid::Uuid::nil()), seam };
    let may_make = !ask.dry_run && (is_push || ask.base.is_none());
    let Dest { dir, mut made } = ground::dest(&work, place, may_make)?;
    let is_new = dir.is_none() || made.count() > 0;
    let mut told = Told::new(supply);
    let received = match dir {
        Some(dir) => Receiving { place, ask, spec, dir: &dir, seam, is_new }.run(&mut told),
        None => absent(place, ask, is_push, &mut told),
    };
    if received.as_ref().is_ok_and(|applied| matches!(applied.end, End::InSync | End::Done)) {
        made.keep();
    }
    received.map(end::told)
}

/// The folder is not there, and is not made: only a plan comes of it, or a halt.
fn absent(place: &Place<'_>, ask: &ApplyAsk, is_push: bool, told: &mut Told<'_>) -> Result<Applied, Refusal> {
    told.open()?;
    let root = place.root.dir(&Default::default(), Follow::Never).map_err(|fault| place.refusal(fault))?;
    let scanned = Scanned::empty();
    let kept = Objects::default();
    let ground = Ground {
        root: &root,
        scanned: &scanned,
        known: &|_, _| false,
        excluded: &|_, _| false,
        kept: &kept,
        undone: &[],
    };
    let state = if is_push { RootState::Dir } else { RootState::Missing };
    let (mode, base) = agreed(ask, None, true);
    let asked = Ask { dry_run: true, state, ..asked(ask, mode, base) };
    apply::apply(
        &ground,
        &asked,
        &mut Receiver::new(told),
        &super::super::seam::Plain,
        &mut Objects::default(),
    )
}

struct Receiving<'a> {
    place: &'a Place<'a>,
    ask: &'a ApplyAsk,
    spec: ScanSpec,
    dir: &'a Dir,
    seam: &'a dyn Seam,
    /// The folder was made just now.
    is_new: bool,
}

impl Receiving<'_> {
    fn run(&self, told: &mut Told<'_>) -> Result<Applied, Refusal> {
        let Self { ask, dir, .. } = *self;
        let is_closed = ask.read_only && !ask.dry_run;
        if is_closed && !dir.find(OURS).is_ok_and(|found| found.is_some()) {
            // Our own folder is made in it.
            seal::open(dir);
        }
        let leaves_traces = ask.only.is_none() && !ask.dry_run;
        let state = if leaves_traces { self.mark()? } else { RootState::Dir };
        let leaves_traces = leaves_traces && state == RootState::Dir;
        if !ask.dry_run && state == RootState::Dir {
            // What cannot be looked at stays, and is in nobody's way.
            let _swept = apply::sweep_staging(dir, STAGED_MAX, self.seam);
        }
        let (mut cache, memory) = match ask.only {
            None => (Cache::load(dir), Memory::load(dir)),
            Some(_) => (Cache::default(), None),
        };
        let (mode, base) = agreed(ask, memory.as_ref(), self.is_new);
        let memory = memory.filter(|memory| Some(memory.root) == base);
        let nothing = Objects::default();
        let kept = memory.as_ref().map_or(&nothing, |memory| &memory.objects);
        let sticky = memory.as_ref().map(|memory| Base { root: memory.root, objects: kept });
        let scanned = self.scan(told, &mut cache, sticky.as_ref(), &HashMap::new())?;
        let is_same = scanned.root == ask.target && state == RootState::Dir;
        if !is_same {
            told.open()?;
            if is_closed {
                seal::open(dir);
            }
        }
        let excluded = scan::excluded(&self.spec)?;
        let sights = cache.sights();
        let ground = Ground {
            root: dir,
            scanned: &scanned,
            known: &|path, stat| sights.are(path, stat),
            excluded: &excluded,
            kept,
            undone: memory.as_ref().map_or(&[], |memory| &memory.undone),
        };
        let asked = Ask { state, ..asked(ask, mode, base) };
        let mut objects = Objects::default();
        let applied = apply::apply(&ground, &asked, &mut Receiver::new(told), self.seam, &mut objects);
        if ask.only.is_some() {
            leave(dir);
        }
        let mut applied = applied.map_err(|refusal| self.refused(refusal))?;
        match applied.end {
            End::Planned => {}
            End::Halted(_) | End::InSync => applied.root = Some(scanned.root),
            End::Done => {
                let base = Base { root: ask.target, objects: &objects };
                if !applied.written.is_empty() {
                    scan::await_tick(dir);
                }
                // What was done is done, also when nobody can say what is there.
                let scanned = self.scan(told, &mut cache, Some(&base), &applied.written);
                applied.root = scanned.ok().map(|scanned| scanned.root);
            }
        }
        if leaves_traces {
            // Without it the next scan reads everything.
            let _saved = cache.save(dir);
            let objects = if applied.end == End::InSync { &scanned.objects } else { &objects };
            self.remember(&applied, memory.as_ref(), objects);
        }
        if is_closed {
            seal::close(dir);
        }
        Ok(applied)
    }

    /// Which folder it is. One whose marker was spoilt is not known, nor is one in the place of another.
    fn mark(&self) -> Result<RootState, Refusal> {
        if let Some(expected) = &self.ask.identity {
            return Ok(Identity::check(expected, self.dir));
        }
        match Identity::make(self.dir) {
            Ok(_) => Ok(RootState::Dir),
            Err(Fault::Sys(Errno::EINVAL)) => Ok(RootState::Unavailable),
            Err(fault) => Err(self.refused(self.place.refusal(fault))),
        }
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        match self.dir.stat_self() {
            Ok(stat) => denied(refusal, &stat),
            Err(_) => refusal,
        }
    }

    fn scan(
        &self,
        told: &mut Told<'_>,
        cache: &mut Cache,
        sticky: Option<&Base<'_>>,
        wrote: &HashMap<RelPath, Written>,
    ) -> Result<Scanned, Refusal> {
        let told = RefCell::new(told);
        let tell = |files, bytes| {
            let progress = Progress { phase: Phase::Scanning, files, bytes, ..Progress::default() };
            told.borrow_mut().tell(progress);
        };
        let scanned = scan::scan_telling(self.dir, &self.spec, cache, sticky, wrote, &tell);
        scanned.map_err(|fault| self.place.refusal(fault))
    }

    /// Keeps the tree that the folder was made into. When it cannot, what it remembers of before stays: the
    /// next push asks a person once too often then, and replaces nothing that it should not.
    fn remember(&self, applied: &Applied, memory: Option<&Memory>, objects: &Objects) {
        let undone = match (&applied.end, &applied.undone) {
            (End::InSync, _) => &[][..],
            (End::Done, Some(undone)) => undone,
            (End::Done, None) | (End::Planned | End::Halted(_), _) => return,
        };
        let target = self.ask.target;
        if memory.is_none_or(|memory| memory.root != target || memory.undone != undone) {
            let _kept = Memory::save(self.dir, target, objects, undone, self.seam);
        }
    }
}

/// How changes are treated, and against which tree. A first push to a folder that remembers the one before is
/// none; any push to one that was made just now is.
fn agreed(ask: &ApplyAsk, memory: Option<&Memory>, is_new: bool) -> (Mode, Option<TreeId>) {
    match (ask.mode, ask.base, memory) {
        (Mode::Push(push), _, _) if is_new => (Mode::Push(Push { first: true, ..push }), None),
        (Mode::Push(push @ Push { first: true, .. }), None, Some(memory)) => {
            (Mode::Push(Push { first: false, ..push }), Some(memory.root))
        }
        (mode, base, _) => (mode, base),
    }
}

fn asked(ask: &ApplyAsk, mode: Mode, base: Option<TreeId>) -> Ask {
    Ask {
        target: ask.target,
        base,
        only: ask.only.clone(),
        mode,
        limits: ask.limits,
        names: NameRules::default(),
        node_name: ask.node_name.clone(),
        revision: ask.revision,
        accepted: ask.accepted,
        quota: QUOTA,
        state: RootState::Dir,
        dry_run: ask.dry_run,
    }
}

/// Removes our own folders, if nothing is in them.
fn leave(dir: &Dir) {
    if let Ok(ours) = dir.dir(OURS) {
        let _removed = ours.remove_dir(b"staging");
        let _removed = dir.remove_dir(OURS);
    }
}
