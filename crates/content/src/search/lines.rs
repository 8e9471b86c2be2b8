//! Lines of files that contain something.

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::{FileAnswer, Match, Skipped};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::GrepQuery;
use cortex_core::limits;
use cortex_core::name::printable;
use memchr::{memchr, memrchr};
use regex::bytes::{Regex, RegexBuilder};

use super::{ANSWER_BYTES_MAX, Cursor};

/// Memory of a pattern that is ready for use, and of what it remembers while it is used, bytes each.
const PATTERN_BYTES_MAX: usize = 1024 * 1024;
/// Bytes in which a NUL makes a file binary.
const HEAD_BYTES: usize = 8 * 1024;
/// Lines after which the clock is looked at.
const LINES_PER_LOOK: u64 = 4 * 1024;

/// Lines that were found so far, for one page.
#[derive(Debug)]
pub struct Lines {
    pattern: Regex,
    context: usize,
    limit: usize,
    matches: Vec<Match>,
    bytes: usize,
    /// The last file and line that were told.
    last: Option<(Vec<u8>, u64)>,
}

/// One file that is looked through.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its path, relative to the folder that is searched; empty when one file is.
    pub path: &'a [u8],
    /// All of it, at most [`limits::GREP_FILE_BYTES_MAX`].
    pub content: &'a [u8],
    /// Only what comes behind this line is told.
    pub from: u64,
}

/// How far a file was looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// To its end.
    Through,
    /// It is no text.
    Binary,
    /// The page is full, or the time over, before its end.
    Full,
}

impl Lines {
    /// A page of at most `limit` lines.
    ///
    /// # Errors
    /// `invalid_argument` for a pattern that is none, or that takes too much memory.
    pub fn new(query: &GrepQuery, limit: u32) -> Result<Self, Refusal> {
        Ok(Self {
            pattern: pattern(query)?,
            context: query.context.into(),
            limit: limit as usize,
            matches: Vec::new(),
            bytes: 0,
            last: None,
        })
    }

    /// Looks through one file. `is_late` says that the time is over: it is heeded once something of the file
    /// was told, so that the next page gets on in it.
    pub fn look(&mut self, file: File<'_>, is_late: impl Fn() -> bool) -> Looked {
        let File { path, content, from } = file;
        if memchr(0, &content[..content.len().min(HEAD_BYTES)]).is_some() {
            return Looked::Binary;
        }
        let (mut at, mut number) = (0, 0);
        while at < content.len() {
            let end = memchr(b'\n', &content[at..]).map_or(content.len(), |len| at + len);
            number += 1;
            let line = without_return(&content[at..end]);
            if number > from && self.pattern.is_match(line) {
                let found = self.found(content, path, number, at, end);
                self.bytes += found.weight();
                if self.matches.len() >= self.limit
                    || (self.bytes > ANSWER_BYTES_MAX && !self.matches.is_empty())
                {
                    return Looked::Full;
                }
                self.last = Some((path.to_vec(), number));
                self.matches.push(found);
            }
            at = end + 1;
            if number.is_multiple_of(LINES_PER_LOOK) && is_late() && self.has_told(path) {
                return Looked::Full;
            }
        }
        Looked::Through
    }

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

    /// The page. `end` is where the search stopped, when that is not its end.
    pub fn answer(
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
