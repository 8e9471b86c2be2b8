//! A folder of this machine, or one entry of it, goes to the hub: what there is, then whatever the hub asks
//! for, until it has enough.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;
use cortex_content::asking::Answering;
use cortex_content::pack::PackWriter;
use cortex_core::files::path::RelPath;
use cortex_core::limits::{CARRY_DATA_BYTES_MAX, TRANSFER_NOTE_BYTES_MAX, TRANSFER_NOTES_MAX, WANTS_MAX};
use cortex_core::sync::{Problem, RootState, Seen, Why};
use cortex_core::transfer::{Carry, LeftOut, Noted, PathNote, Phase, Progress, SendAsk, TreeTold};
use cortex_core::workspace::RootIdentity;
use cortex_core::{Code, Refusal};
use nix::errno::Errno;

use super::super::apply;
use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::super::place::Place;
use super::super::scan::{self, Base, Cache, Identity, Notes, OURS, Scanned, Source};
use super::super::seam::Plain;
use super::ground::{self, Found};
use super::memory::Memory;
use super::receive::STAGED_MAX;
use super::supply::{Meter, OnLine, Told, senseless};

/// The level of zstd (SYNC 3).
const LEVEL: i32 = 1;

/// Sends what `place` leads to. Afterwards the hub has said all that is to be said.
///
/// # Errors
/// Those of [`ground::source`] and of a scan; `invalid_argument` for a hub that makes no sense.
pub(super) fn send(hub: &mut OnLine<'_>, place: &Place<'_>, ask: &SendAsk) -> Result<(), Refusal> {
    let (dir, only) = match ground::source(place, ask.only.as_deref())? {
        Found::Folder(dir, only) => (dir, only),
        Found::None(state) => {
            Told::new(hub).open()?;
            hub.send(Carry::Tree(tree(&Scanned::empty(), state, None)))?;
            return until_over(hub);
        }
    };
    let (state, identity) = match only {
        None => identity(&dir, ask),
        Some(_) => (RootState::Dir, None),
    };
    if state != RootState::Dir {
        Told::new(hub).open()?;
        hub.send(Carry::Tree(tree(&Scanned::empty(), state, None)))?;
        return until_over(hub);
    }
    if only.is_none() {
        // What a try that was cut off took out of people's sight is there again before it is looked at. Where
        // nothing can be written none was.
        let _swept = apply::sweep_staging(&dir, STAGED_MAX, &Plain);
    }
    let spec = ground::spec(&ask.filters, ask.checksum, only.as_deref())?;
    let failed = |fault: Fault| place.refusal(fault);
    let (mut cache, memory) = match only {
        None => (Cache::load(&dir), Memory::load(&dir).filter(|memory| Some(memory.root) == ask.base)),
        Some(_) => (Cache::default(), None),
    };
    let sticky = memory.as_ref().map(|memory| Base { root: memory.root, objects: &memory.objects });
    let mut told = Told::new(hub);
    let scanned = {
        let told = RefCell::new(&mut told);
        let tell = |files, bytes| {
            let progress = Progress { phase: Phase::Scanning, files, bytes, ..Progress::default() };
            told.borrow_mut().tell(progress);
        };
        scan::scan_telling(&dir, &spec, &mut cache, sticky.as_ref(), &HashMap::new(), &tell)
            .map_err(failed)?
    };
    // Who reads a folder leaves nothing in it, unless it is one that is kept in sync.
    if only.is_none() && (ask.base.is_some() || dir.find(OURS).is_ok_and(|found| found.is_some())) {
        // Without it the next scan reads everything.
        let _saved = cache.save(&dir);
        // Nobody may come any more to whom it is of use.
        let _removed = apply::remove_left(&dir, scanned.root, &Plain);
    }
    drop((cache, memory));
    told.open()?;
    hub.send(Carry::Tree(tree(&scanned, RootState::Dir, identity)))?;
    for notes in held(&scanned) {
        hub.send(Carry::Held(notes))?;
    }
    answer(hub, place, &dir, &scanned)
}

/// Which folder it is. One whose marker was spoilt is not known, nor is one in the place of another; one into
/// which nothing can be written goes without.
fn identity(dir: &Dir, ask: &SendAsk) -> (RootState, Option<RootIdentity>) {
    let marked = ask.mark.then(|| Identity::make(dir));
    if matches!(marked, Some(Err(Fault::Sys(Errno::EINVAL)))) {
        return (RootState::Unavailable, None);
    }
    match Identity::told(dir) {
        Ok(found) if ask.identity.is_none_or(|expected| expected.is(&found)) => (RootState::Dir, Some(found)),
        Ok(_) | Err(_) => (RootState::Unavailable, None),
    }
}

fn tree(scanned: &Scanned, state: RootState, identity: Option<RootIdentity>) -> TreeTold {
    TreeTold {
        root: scanned.root,
        state,
        counts: scanned.counts,
        entries: scanned.totals.entries.into(),
        bytes: scanned.totals.bytes,
        identity,
        left_out: left_out(scanned),
    }
}

/// What the tree has not, although no rule leaves it out.
fn left_out(scanned: &Scanned) -> LeftOut {
    let (mut unreadable, mut unfit) = (0_u64, 0_u64);
    for seen in scanned.left_out.values() {
        match seen {
            Seen::Blocked(Problem::Unreadable | Problem::Unsteady) => unreadable += 1,
            Seen::Blocked(Problem::Unsupported | Problem::LinkOutside | Problem::OtherFileSystem) => {
                unfit += 1;
            }
            Seen::Ignored | Seen::Entry(_) | Seen::Absent => {}
        }
    }
    let Notes { too_large, rules_unread, masked: _ } = scanned.notes;
    LeftOut {
        unnamed: scanned.unnamed,
        too_large,
        rules_unread,
        // They are blocked as well, for these reasons.
        unreadable: unreadable.saturating_sub(rules_unread),
        unfit: unfit.saturating_sub(too_large),
    }
}

/// What the tree says nothing of, in parts that a frame takes.
fn held(scanned: &Scanned) -> impl Iterator<Item = Vec<PathNote>> {
    let why = |seen: &Seen| match seen {
        Seen::Ignored => Some(Why::Ignored),
        Seen::Blocked(problem) => Some(Why::Blocked(*problem)),
        Seen::Entry(_) | Seen::Absent => None,
    };
    let note = move |(path, seen): (&RelPath, &Seen)| {
        Some(PathNote { path: path.clone(), what: Noted::Held(why(seen)?) })
    };
    let mut notes = scanned.left_out.iter().filter_map(note).peekable();
    std::iter::from_fn(move || {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while part.len() < TRANSFER_NOTES_MAX {
            let Some(note) = notes.next_if(|note| bytes + note.weight() <= TRANSFER_NOTE_BYTES_MAX) else {
                break;
            };
            bytes += note.weight();
            part.push(note);
        }
        (!part.is_empty()).then_some(part)
    })
}

/// Answers what is asked for, until the hub has enough.
fn answer(hub: &mut OnLine<'_>, place: &Place<'_>, dir: &Dir, scanned: &Scanned) -> Result<(), Refusal> {
    let mut source = Source::new(dir, scanned).map_err(|fault| place.refusal(fault))?;
    let (mut answering, mut writer) = (Answering::new(), PackWriter::new(LEVEL));
    let (mut meter, mut sent) = (Meter::default(), 0);
    loop {
        if answering.is_idle() {
            match hub.recv()? {
                Some(Carry::Wants(ids)) => answering.want(&ids)?,
                other => return over(other),
            }
            continue;
        }
        let batch = answering.next(|id| source.len_of(id))?;
        let mut missing = batch.missing;
        for id in batch.give {
            let len = source.len_of(&id).unwrap_or_default() as usize;
            let mut failed = None;
            let read = |room: &mut [u8]| {
                source.read_into(&id, room).unwrap_or_else(|fault| {
                    failed = Some(fault);
                    false
                })
            };
            // The batch was cut to what a pack takes.
            match (writer.add_with(id, len, read), failed) {
                (_, Some(fault)) => return Err(place.refusal(fault)),
                (Some(_), None) => sent += len as u64,
                (None, None) => missing.push(id),
            }
        }
        if let Some(pack) = writer.finish() {
            pieces(hub, pack.head.to_bytes())?;
            pieces(hub, pack.tail)?;
        }
        for ids in missing.chunks(WANTS_MAX) {
            hub.send(Carry::Missing(ids.to_vec()))?;
        }
        if meter.is_due(Phase::Moving) {
            hub.send(Carry::Progress(Progress {
                phase: Phase::Moving,
                files_total: scanned.counts.files,
                bytes: sent,
                bytes_total: scanned.totals.bytes,
                ..Progress::default()
            }))?;
        }
    }
}

fn pieces(hub: &mut OnLine<'_>, mut bytes: Bytes) -> Result<(), Refusal> {
    while !bytes.is_empty() {
        let piece = bytes.split_to(bytes.len().min(CARRY_DATA_BYTES_MAX));
        hub.send(Carry::Pack(piece))?;
    }
    Ok(())
}

/// There is nothing to be asked for.
fn until_over(hub: &mut OnLine<'_>) -> Result<(), Refusal> {
    match hub.recv()? {
        Some(Carry::Wants(_)) => Err(Refusal::new(Code::NotFound, "There is no folder to send anything of.")),
        other => over(other),
    }
}

/// What the hub says last. It knows how it ended.
fn over(said: Option<Carry>) -> Result<(), Refusal> {
    match said {
        None | Some(Carry::End(_) | Carry::Refused(_)) => Ok(()),
        Some(
            Carry::Tree(_)
            | Carry::Held(_)
            | Carry::Wants(_)
            | Carry::Pack(_)
            | Carry::Missing(_)
            | Carry::Progress(_)
            | Carry::Data(_)
            | Carry::DataEnd(_),
        ) => Err(senseless()),
    }
}
