//! How a transfer ended.

use cortex_core::files::path::RelPath;
use cortex_core::sync::{Cause, End, Halt, HaltId, PlanCounts, Rule, Why};
use cortex_core::transfer::{Noted, PathNote, TransferEnd, TransferNews};
use cortex_core::{Code, Refusal, limits};

use super::{hash_from, hash_into, id_from, id_into, tree_if_set, tree_into};
use crate::convert::files::refused_from;
use crate::convert::{missing, refusal_into};
use crate::mesh;
use crate::mesh::path_note::What;
use crate::mesh::transfer_news::News;

/// Causes of one halt: each rule, on each side.
const CAUSES_MAX: usize = 2 * Rule::ALL.len();

pub(in crate::convert) fn news_into(news: TransferNews) -> mesh::TransferNews {
    let told = match news.end {
        Ok(end) => News::InSync(end_into(*end)),
        Err(refusal) => News::Refusal(refusal_into(&refusal)),
    };
    mesh::TransferNews { transfer_id: id_into(news.id), news: Some(told) }
}

pub(in crate::convert) fn news_from(news: mesh::TransferNews) -> Result<TransferNews, Refusal> {
    let end = match news.news.ok_or_else(|| missing("transfer_news.news"))? {
        News::InSync(end) => Ok(Box::new(end_from(end)?)),
        News::Refusal(refusal) => Err(refused_from(refusal)),
    };
    Ok(TransferNews { id: id_from(&news.transfer_id)?, end })
}

pub(super) fn end_into(end: TransferEnd) -> mesh::TransferEnd {
    let PlanCounts { same, to_node, to_hub, merged, kept_both, extra, held } = end.counts;
    let held = held.into_iter().map(|(why, count)| mesh::HeldCount { why: why.as_str().to_owned(), count });
    let held = held.collect();
    mesh::TransferEnd {
        root: end.root.map(tree_into),
        files: end.files,
        bytes: end.bytes,
        counts: Some(mesh::PlanCounts { same, to_node, to_hub, merged, kept_both, extra, held }),
        notes: end.notes.into_iter().map(note_into).collect(),
        notes_more: end.notes_more,
        halt: end.halt.map(halt_into),
    }
}

pub(super) fn end_from(end: mesh::TransferEnd) -> Result<TransferEnd, Refusal> {
    Ok(TransferEnd {
        root: tree_if_set(end.root.as_ref())?,
        files: end.files,
        bytes: end.bytes,
        counts: counts_from(end.counts.unwrap_or_default())?,
        notes: notes_from(end.notes)?,
        notes_more: end.notes_more,
        halt: end.halt.map(halt_from).transpose()?,
    })
}

/// Counts whose sum is none are refused: whoever adds them up does not think of that.
fn counts_from(counts: mesh::PlanCounts) -> Result<PlanCounts, Refusal> {
    let mesh::PlanCounts { same, to_node, to_hub, merged, kept_both, extra, held: told } = counts;
    if told.len() > Why::ALL.len() {
        return Err(missing("counts.held"));
    }
    let mut held = std::collections::BTreeMap::new();
    for mesh::HeldCount { why, count } in told {
        let why = Why::parse(&why).ok_or_else(|| missing("counts.held.why"))?;
        if held.insert(why, count).is_some() {
            return Err(missing("counts.held (each reason once)"));
        }
    }
    let numbers = [same, to_node, to_hub, merged, kept_both, extra];
    let sum = numbers.iter().chain(held.values()).try_fold(0_u64, |sum, count| sum.checked_add(*count));
    sum.ok_or_else(|| missing("counts"))?;
    Ok(PlanCounts { same, to_node, to_hub, merged, kept_both, extra, held })
}

pub(super) fn note_into(note: PathNote) -> mesh::PathNote {
    let step = |step: mesh::PathStep| What::Step(step.into());
    let what = match note.what {
        Noted::Put => step(mesh::PathStep::Put),
        Noted::MakeDir => step(mesh::PathStep::MakeDir),
        Noted::RemoveFile => step(mesh::PathStep::RemoveFile),
        Noted::RemoveDir => step(mesh::PathStep::RemoveDir),
        Noted::Exec => step(mesh::PathStep::Exec),
        Noted::Keep(copy) => What::Keep(copy.as_str().to_owned()),
        Noted::Aside(copy) => What::Aside(copy.as_str().to_owned()),
        Noted::Held(why) => What::Held(why.as_str().to_owned()),
        Noted::Failed(code) => What::Failed(code.as_str().to_owned()),
    };
    mesh::PathNote { path: note.path.as_str().to_owned(), what: Some(what) }
}

pub(super) fn notes_from(notes: Vec<mesh::PathNote>) -> Result<Vec<PathNote>, Refusal> {
    if notes.len() > limits::TRANSFER_NOTES_MAX {
        return Err(missing("notes (at most 200)"));
    }
    let notes: Vec<PathNote> = notes.into_iter().map(note_from).collect::<Result<_, _>>()?;
    if notes.iter().map(PathNote::weight).sum::<usize>() > limits::TRANSFER_NOTE_BYTES_MAX {
        return Err(missing("notes (at most 48 KiB of paths)"));
    }
    Ok(notes)
}

fn note_from(note: mesh::PathNote) -> Result<PathNote, Refusal> {
    let what = match note.what.ok_or_else(|| missing("path_note.what"))? {
        What::Step(step) => match mesh::PathStep::try_from(step) {
            Ok(mesh::PathStep::Put) => Noted::Put,
            Ok(mesh::PathStep::MakeDir) => Noted::MakeDir,
            Ok(mesh::PathStep::RemoveFile) => Noted::RemoveFile,
            Ok(mesh::PathStep::RemoveDir) => Noted::RemoveDir,
            Ok(mesh::PathStep::Exec) => Noted::Exec,
            Ok(mesh::PathStep::Unspecified) | Err(_) => return Err(missing("path_note.step")),
        },
        What::Keep(copy) => Noted::Keep(RelPath::parse(&copy)?),
        What::Aside(copy) => Noted::Aside(RelPath::parse(&copy)?),
        What::Held(why) => Noted::Held(Why::parse(&why).ok_or_else(|| missing("path_note.held"))?),
        // A code of a newer peer is a failure all the same.
        What::Failed(code) => Noted::Failed(Code::parse(&code).unwrap_or(Code::Internal)),
    };
    let path = if note.path.is_empty() { RelPath::root() } else { RelPath::parse(&note.path)? };
    Ok(PathNote { path, what })
}

fn halt_into(halt: Halt) -> mesh::Halt {
    let causes = halt.causes.into_iter().map(|cause| mesh::HaltCause {
        rule: cause.rule.as_str().to_owned(),
        on_node: cause.end == End::Node,
        deletes: cause.deletes,
        of: cause.of,
    });
    mesh::Halt { id: hash_into(halt.id.hash()), causes: causes.collect() }
}

fn halt_from(halt: mesh::Halt) -> Result<Halt, Refusal> {
    if !(1..=CAUSES_MAX).contains(&halt.causes.len()) {
        return Err(missing("halt.causes (1 to 8)"));
    }
    let cause = |cause: mesh::HaltCause| {
        let rule = Rule::parse(&cause.rule).ok_or_else(|| missing("halt.causes.rule"))?;
        let end = if cause.on_node { End::Node } else { End::Hub };
        Ok(Cause { rule, end, deletes: cause.deletes, of: cause.of })
    };
    let causes = halt.causes.into_iter().map(cause).collect::<Result<_, _>>()?;
    Ok(Halt { id: HaltId::new(hash_from(&halt.id)?), causes })
}
