//! Lines of files that contain something.

use std::fs::File;

use cortex_content::search::{self, Cursor, Lines, Looked, Pattern};
use cortex_core::error::Refusal;
use cortex_core::files::answer::{FileAnswer, Skipped};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{GrepQuery, Kind, Page};
use cortex_core::limits;

use super::beneath::Follow;
use super::fault::Fault;
use super::place::Place;
use super::read;
use super::walk::{Budget, Scope, Start, Step, Walk};

/// Looks through the files below a folder, or through one file.
///
/// # Errors
///
/// `invalid_argument` for a pattern that is none, or that takes too much memory.
pub(super) fn grep(
    place: &Place<'_>,
    query: &GrepQuery,
    page: &Page,
    question: &ContentId,
    budget: Budget,
) -> Result<FileAnswer, Refusal> {
    let cursor = Cursor::decode(page, question)?;
    let mut hits = Hits { lines: Lines::new(query, page.limit)?, budget };
    let glob = query.glob.as_ref().map(Pattern::new).transpose()?;
    let failed = |fault: Fault| place.refusal(fault);
    if place.root.stat(place.rel, Follow::Within).map_err(failed)?.kind != Kind::Dir {
        let file = place.root.regular(place.rel, Follow::Within).map_err(failed)?;
        let mut skipped = Skipped::default();
        let from = cursor.and_then(|cursor| cursor.line).unwrap_or(0);
        let is_full = hits.file(&file, b"", from, &mut skipped).map_err(failed)?;
        return Ok(hits.lines.answer(
            is_full.then(|| Cursor { path: Vec::new(), line: Some(from) }),
            question,
            1,
            skipped,
        ));
    }
    let scope = Scope { depth: usize::MAX, hidden: query.hidden, ignored: query.ignored };
    let (resumed, start) = match cursor {
        None => (None, Start::First),
        Some(Cursor { path, line: None }) => (None, Start::After(path)),
        Some(Cursor { path, line: Some(line) }) => (Some((path.clone(), line)), Start::At(path)),
    };
    let mut walk = Walk::new(place, scope, budget, start)?;
    let mut searched = 0;
    let end = loop {
        if searched > 0 && hits.budget.is_late() {
            break walk.last.clone().map(|path| Cursor { path, line: None });
        }
        let item = match walk.next() {
            Step::Entry(item) => item,
            Step::End => break None,
            Step::Spent => break walk.last.clone().map(|path| Cursor { path, line: None }),
        };
        let is_file = item.stat.is_some_and(|stat| stat.kind == Kind::File);
        if !is_file || glob.as_ref().is_some_and(|glob| !glob.is_about(&item.path, false)) {
            continue;
        }
        let Some(here) = walk.here() else { break None };
        let from = resumed.as_ref().filter(|(path, _)| *path == item.path).map_or(0, |(_, line)| *line);
        let mut skipped = Skipped::default();
        let looked =
            here.regular(item.name()).and_then(|file| hits.file(&file, &item.path, from, &mut skipped));
        walk.skipped.binary += skipped.binary;
        walk.skipped.too_large += skipped.too_large;
        match looked {
            Ok(false) => searched += 1,
            Ok(true) => {
                searched += 1;
                // A file of which nothing was told yet is looked through again.
                break Some(Cursor { path: item.path, line: Some(from) });
            }
            Err(fault) if fault.is_absent() => {}
            Err(_) => walk.skipped.unreadable += 1,
        }
    };
    Ok(hits.lines.answer(end, question, searched, walk.skipped))
}

/// Files that are looked through.
struct Hits {
    lines: Lines,
    budget: Budget,
}

impl Hits {
    /// Looks through one file behind line `from`. Whether the answer is full, or the time over, before its
    /// end.
    fn file(&mut self, file: &File, path: &[u8], from: u64, skipped: &mut Skipped) -> Result<bool, Fault> {
        let content = match read::whole(file, limits::GREP_FILE_BYTES_MAX) {
            Ok((content, _)) => content,
            Err(Fault::TooMany) => {
                skipped.too_large += 1;
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        };
        let budget = self.budget;
        let looked = self.lines.look(search::File { path, content: &content, from }, || budget.is_late());
        skipped.binary += u64::from(looked == Looked::Binary);
        Ok(looked == Looked::Full)
    }
}

#[cfg(test)]
#[path = "grep_tests.rs"]
mod tests;
