//! Lines of files that contain something.

use std::fs::File;

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::{FileAnswer, Match, Skipped};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{GrepQuery, Kind, Page};
use cortex_core::limits;
use cortex_core::name::printable;
use memchr::{memchr, memrchr};
use regex::bytes::{Regex, RegexBuilder};

use super::beneath::Follow;
use super::fault::Fault;
use super::ignore::Pattern;
use super::page::{ANSWER_BYTES_MAX, Cursor};
use super::place::Place;
use super::read;
use super::walk::{Budget, Scope, Start, Step, Walk};

/// Memory of a pattern that is ready for use, and of what it remembers while it is used, bytes each.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes in which a NUL makes a file binary.
const HEAD_BYTES: usize = 8 * 1024;
/// Lines after which the clock is looked at.
const LINES_PER_LOOK: u64 = 4 * 1024;

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
    let mut hits = Hits {
        pattern: pattern(query)?,
        context: query.context.into(),
        limit: page.limit as usize,
        budget,
        matches: Vec::new(),
        bytes: 0,
        last: None,
    };
    let glob = query.glob.as_ref().map(Pattern::new).transpose()?;
    let failed = |fault: Fault| place.refusal(fault);
    if place.root.stat(place.rel, Follow::Within).map_err(failed)?.kind != Kind::Dir {
        let file = place.root.regular(place.rel, Follow::Within).map_err(failed)?;
        let mut skipped = Skipped::default();
        let from = cursor.and_then(|cursor| cursor.line).unwrap_or(0);
        let is_full = hits.file(&file, b"", from, &mut skipped).map_err(failed)?;
        return Ok(hits.answer(
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
    Ok(hits.answer(end, question, searched, walk.skipped))
}

fn pattern(query: &GrepQuery) -> Result<Regex, Refusal> {
    let text = if query.literal { regex::escape(&query.pattern) } else { query.pattern.clone() };
    let built = RegexBuilder::new(&text)
        .case_insensitive(query.ignore_case)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build();
    built.map_err(|error| {
        let why = printable(&error.to_string().replace('\n', " "), 300);
        Refusal::new(Code::InvalidArgument, format!("The pattern cannot be used: {why}."))
            .hint("Correct it, or send it as plain text with `literal`.")
    })
}

/// What was found so far.
struct Hits {
    pattern: Regex,
    context: usize,
    limit: usize,
    budget: Budget,
    matches: Vec<Match>,
    bytes: usize,
    /// The last file and line that were told.
    last: Option<(Vec<u8>, u64)>,
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
        if memchr(0, &content[..content.len().min(HEAD_BYTES)]).is_some() {
            skipped.binary += 1;
            return Ok(false);
        }
        let (mut at, mut number) = (0, 0);
        while at < content.len() {
            let end = memchr(b'\n', &content[at..]).map_or(content.len(), |len| at + len);
            number += 1;
            let line = without_return(&content[at..end]);
            if number > from && self.pattern.is_match(line) {
                let found = self.found(&content, path, number, at, end);
                self.bytes += found.weight();
                if self.matches.len() >= self.limit
                    || (self.bytes > ANSWER_BYTES_MAX && !self.matches.is_empty())
                {
                    return Ok(true);
                }
                self.last = Some((path.to_vec(), number));
                self.matches.push(found);
            }
            at = end + 1;
            if number.is_multiple_of(LINES_PER_LOOK) && self.budget.is_late() && self.has_told(path) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something of this file is in the answer, so that the next page gets on in it.
    fn has_told(&self, path: &[u8]) -> bool {
        self.last.as_ref().is_some_and(|(last, _)| last == path)
    }

    fn found(&self, content: &[u8], path: &[u8], line: u64, start: usize, end: usize) -> Match {
        let mut before = Vec::new();
        let mut at = start;
        while before.len() < self.context && at > 0 {
            let begin = memrchr(b'\n', &content[..at - 1]).map_or(0, |found| found + 1);
            before.push(cut(&content[begin..at - 1]));
            at = begin;
        }
        before.reverse();
        let mut after = Vec::new();
        let mut at = end + 1;
        while after.len() < self.context && at < content.len() {
            let stop = memchr(b'\n', &content[at..]).map_or(content.len(), |len| at + len);
            after.push(cut(&content[at..stop]));
            at = stop + 1;
        }
        Match { name: Bytes::copy_from_slice(path), line, text: cut(&content[start..end]), before, after }
    }

    fn answer(
        self,
        end: Option<Cursor>,
        question: &ContentId,
        searched: u64,
        skipped: Skipped,
    ) -> FileAnswer {
        // Within a file the next page begins behind the last line that was told of it.
        let next = end.map(|end| match self.last {
            Some((path, line)) if path == end.path && end.line.is_some() => Cursor { path, line: Some(line) },
            Some(_) | None => end,
        });
        let next = next.map(|next| next.encode(question));
        FileAnswer::Matches { matches: self.matches, next, searched, skipped }
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// As much of a line as is shown, without its end; of a text no half character.
fn cut(line: &[u8]) -> Bytes {
    let line = without_return(line);
    let mut shown = &line[..line.len().min(limits::GREP_LINE_BYTES_MAX)];
    if shown.len() < line.len()
        && let Err(error) = std::str::from_utf8(shown)
        && error.error_len().is_none()
    {
        shown = &shown[..error.valid_up_to()];
    }
    Bytes::copy_from_slice(shown)
}

#[cfg(test)]
#[path = "grep_tests.rs"]
mod tests;
