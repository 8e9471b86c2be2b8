//! The invariants of operations on files, read from what happened: each takes effect at most once and is
//! told as what it was, nothing that was acknowledged is gone, nothing of an old attempt comes late, and a
//! read is what was there.

#![expect(clippy::wildcard_enum_match_arm, reason = "each check reads only the kinds that it is about")]

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::FileTask;
use cortex_core::id::{Attempt, OpId, TaskId};

use super::{Happened, Peace};

/// How an operation ended, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Done,
    Refused(Code),
    Unknown,
}

impl Word {
    pub(crate) fn of(refusal: Option<&Refusal>) -> Self {
        match refusal.map(|refusal| refusal.code) {
            None => Self::Done,
            Some(Code::UnknownOutcome) => Self::Unknown,
            Some(code) => Self::Refused(code),
        }
    }
}

/// One path changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: String,
    /// What is there after it.
    pub(crate) etag: Option<ContentId>,
}

pub(super) fn check(history: &[(u64, Happened)], peace: &Peace) -> Vec<String> {
    let mut found = begun_once(history);
    found.extend(fenced(history));
    found.extend(as_told(history, peace));
    found.extend(on_disk(history, peace));
    found.extend(reads(history));
    found
}

/// At most once, after its row, and on what it was prepared on.
fn begun_once(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut begun, mut done) = (BTreeSet::new(), BTreeSet::new());
    for (at, happened) in history {
        match happened {
            Happened::FileBegun { node, op, journaled } => {
                if !journaled {
                    found.push(format!("I4: {op} was begun before its journal row (at {at} ms)"));
                }
                if !begun.insert((*node, *op)) {
                    found.push(format!("I4: {op} was begun twice (at {at} ms)"));
                }
            }
            Happened::FileEffect { node, op, first: true, clobbers, .. } => {
                if !done.insert((*node, *op)) {
                    found.push(format!("I4: {op} took effect twice (at {at} ms)"));
                }
                if *clobbers {
                    found.push(format!(
                        "R6: {op} took effect on something else than it had seen (at {at} ms)"
                    ));
                }
            }
            _ => {}
        }
    }
    found
}

/// Nothing is let take effect of an attempt that a newer one was heard of, and nothing of an old one takes
/// effect after something of a newer one.
fn fenced(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut heard: BTreeMap<(usize, TaskId), Attempt> = BTreeMap::new();
    let mut effects: BTreeMap<(usize, TaskId), Attempt> = BTreeMap::new();
    for (at, happened) in history {
        match happened {
            Happened::AttemptHeard { node, task, attempt } => {
                let highest = heard.entry((*node, *task)).or_default();
                *highest = (*highest).max(*attempt);
            }
            Happened::FileCommitted { node, op, attempt: Some((task, attempt)) }
                if heard.get(&(*node, *task)) > Some(attempt) =>
            {
                found.push(format!("A63: {op} of old attempt {attempt} was let take effect (at {at} ms)"));
            }
            Happened::FileEffect { node, op, attempt: Some((task, attempt)), .. } => {
                let highest = effects.entry((*node, *task)).or_default();
                if *highest > *attempt {
                    found.push(format!(
                        "A63: {op} of attempt {attempt} took effect after {highest} (at {at} ms)"
                    ));
                }
                *highest = (*highest).max(*attempt);
            }
            _ => {}
        }
    }
    found
}

/// What callers and the store were told is what happened.
fn as_told(history: &[(u64, Happened)], peace: &Peace) -> Vec<String> {
    let mut found = Vec::new();
    let mut effects: BTreeMap<OpId, i32> = BTreeMap::new();
    let (mut accepted, mut ended) = (BTreeMap::new(), BTreeMap::new());
    for (_, happened) in history {
        match happened {
            Happened::FileEffect { op, .. } => *effects.entry(*op).or_default() += 1,
            Happened::FileUndone { op, changes, .. } => {
                *effects.entry(*op).or_default() -= i32::try_from(changes.len()).unwrap_or(0);
            }
            Happened::FileAccepted { op, reads, .. } => drop(accepted.insert(*op, *reads)),
            Happened::FileEnded { op, word } if ended.insert(*op, *word).is_some() => {
                found.push(format!("I1: {op} ended twice"));
            }
            _ => {}
        }
    }
    let is_done = |op: &OpId| effects.get(op).copied().unwrap_or(0) > 0;
    for (at, happened) in history {
        let (op, word) = match happened {
            Happened::FileEnded { op, word } => (op, word),
            // A read tells nothing of an effect.
            Happened::FileTold { op, word } if accepted.get(op) == Some(&false) => (op, word),
            _ => continue,
        };
        match word {
            Word::Done if !is_done(op) => found.push(format!("I1: {op} was told as done (at {at} ms)")),
            Word::Refused(code) if is_done(op) => {
                found.push(format!("I1: {op} was done, and told as {code} (at {at} ms)"));
            }
            Word::Done | Word::Refused(_) | Word::Unknown => {}
        }
        if *word != Word::Unknown && ended.get(op) != Some(word) {
            found.push(format!("I1: of {op} {word:?} was told, and {:?} is stored", ended.get(op)));
        }
    }
    for (op, reads) in &accepted {
        let stored: Option<&FileTask> = peace.files.get(op);
        if !reads && stored.is_none_or(|task| task.end().is_none()) {
            found.push(format!("I1: {op} has no end, and is {}", stored.map_or("gone", |_| "open")));
        }
    }
    found
}

/// The disks are what all effects together made of them: what was acknowledged is there, until something
/// else came.
fn on_disk(history: &[(u64, Happened)], peace: &Peace) -> Vec<String> {
    let mut disks: Vec<BTreeMap<String, ContentId>> = vec![BTreeMap::new(); peace.disks.len()];
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    let mut apply = |node: usize, change: &Change| match change.etag {
        Some(etag) => drop(disks[node].insert(change.path.clone(), etag)),
        None => drop(disks[node].remove(&change.path)),
    };
    for (at, happened) in history {
        match happened {
            Happened::FileEffect { node, change, .. } => apply(*node, change),
            Happened::FileTold { op, word: Word::Done } => drop(told.insert(*op)),
            Happened::FileUndone { node, op, changes } => {
                if told.contains(op) {
                    found.push(format!("R5: {op} was acknowledged, and went with the power (at {at} ms)"));
                }
                changes.iter().for_each(|change| apply(*node, change));
            }
            _ => {}
        }
    }
    for (node, (made, there)) in disks.iter().zip(&peace.disks).enumerate() {
        if made != there {
            found.push(format!("I1: on node {node} is {there:?}, and should be {made:?}"));
        }
    }
    found
}

/// What was read of a path that did not change meanwhile is what was there.
fn reads(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut changed: BTreeMap<(usize, &str), (u64, Option<ContentId>)> = BTreeMap::new();
    for (at, happened) in history {
        match happened {
            Happened::FileEffect { node, change, .. } => {
                changed.insert((*node, &change.path), (*at, change.etag));
            }
            Happened::FileUndone { node, changes, .. } => {
                for change in changes {
                    changed.insert((*node, &change.path), (*at, change.etag));
                }
            }
            Happened::FileRead { node, path, etag, since } => {
                let (last, there) = changed.get(&(*node, path.as_str())).copied().unwrap_or_default();
                if last < *since && there != *etag {
                    found.push(format!("I5: of {path} on node {node} something old was read (at {at} ms)"));
                }
            }
            _ => {}
        }
    }
    found
}
