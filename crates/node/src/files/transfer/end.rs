//! What came of receiving, as it is told: counted, and the first of each kind by name (SYNC rule 19).

use cortex_core::Code;
use cortex_core::files::path::RelPath;
use cortex_core::sync::Conflict;
use cortex_core::transfer::{Noted, PathNote, TransferEnd};

use super::super::apply::{Applied, Deed, End, Listed, Trouble};

/// For whoever asked. First what went wrong, then what both changed, then what stays as it is; the steps
/// themselves when none of them was done.
pub(super) fn told(applied: Applied) -> TransferEnd {
    let is_planned = applied.end == End::Planned;
    let mut end = TransferEnd {
        root: applied.root,
        files: applied.files,
        bytes: applied.bytes,
        counts: applied.counts,
        halt: match applied.end {
            End::Halted(halt) => Some(halt),
            End::InSync | End::Planned | End::Done => None,
        },
        ..TransferEnd::default()
    };
    let failed = |(path, trouble): (RelPath, Trouble)| PathNote { path, what: Noted::Failed(code(&trouble)) };
    add(&mut end, applied.troubles, |trouble| Some(failed(trouble)));
    // Those without a copy stay as they are, and are listed with these.
    let aside = |Conflict { path, copy, .. }| Some(PathNote { path, what: Noted::Aside(copy?) });
    add(&mut end, applied.conflicts, aside);
    add(&mut end, applied.held, |held| Some(PathNote { path: held.path, what: Noted::Held(held.why) }));
    if is_planned {
        add(&mut end, applied.steps, |(path, deed)| Some(PathNote { path, what: step(deed) }));
    }
    end.notes_more = end.notes_more.saturating_add(applied.unnamed.count);
    end
}

fn add<T>(end: &mut TransferEnd, listed: Listed<T>, note: impl Fn(T) -> Option<PathNote>) {
    let more = listed.count - listed.first.len() as u64;
    listed.first.into_iter().filter_map(note).for_each(|note| end.note(note));
    end.notes_more = end.notes_more.saturating_add(more);
}

const fn code(trouble: &Trouble) -> Code {
    match trouble {
        Trouble::Changed { .. } => Code::Conflict,
        Trouble::Missing | Trouble::Below => Code::NotFound,
        Trouble::Denied(_) => Code::Forbidden,
    }
}

fn step(deed: Deed) -> Noted {
    match deed {
        Deed::Create | Deed::Replace => Noted::Put,
        Deed::MakeDir => Noted::MakeDir,
        Deed::Exec => Noted::Exec,
        Deed::RemoveFile => Noted::RemoveFile,
        Deed::RemoveDir => Noted::RemoveDir,
        Deed::Keep(copy) => Noted::Keep(copy),
    }
}
