//! Content of a file as a caller asks for it: a part by bytes or by lines, with what is known of the whole.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use cortex_content::part::{Picked, Picker, whole_chars};
use cortex_content::text::{Text, of_part};
use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::{Encoding, FileAnswer, LineFacts, Meta};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{Kind, ReadRange};
use cortex_core::limits;
use cortex_core::name::printable;

use super::beneath::{Follow, Stat};
use super::fault::Fault;
use super::place::Place;
use super::read;

/// Bytes that are looked through for a line of a file which is not read whole.
const SOUGHT_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of one piece of a stream.
const PIECE_BYTES: usize = 256 * 1024;

/// What one entry is; a link is not followed.
pub(crate) fn stat(place: &Place<'_>, hash: bool) -> Result<FileAnswer, Refusal> {
    let failed = |fault: Fault| place.refusal(fault);
    let (mut stat, target) = place.root.stat_entry(place.rel).map_err(failed)?;
    let mut etag = None;
    if hash && stat.kind == Kind::File {
        let file = place.root.regular(place.rel, Follow::Within).map_err(failed)?;
        let hashed = read::hash(&file).map_err(failed)?;
        (stat, etag) = (hashed.stat, Some(hashed.etag));
    }
    Ok(FileAnswer::Meta(meta(&stat, target, etag)))
}

/// What is known of an entry, as an answer has it.
pub(super) fn meta(stat: &Stat, target: Option<Vec<u8>>, etag: Option<ContentId>) -> Meta {
    Meta {
        kind: stat.kind,
        size: stat.size,
        mode: stat.mode,
        mtime_ns: stat.mtime_ns,
        uid: stat.uid,
        gid: stat.gid,
        links: stat.links,
        target: target.map(Bytes::from),
        etag,
    }
}

/// Reads a part within the answer, at most `bytes_max` of it. A file up to
/// [`limits::ETAG_AUTO_BYTES_MAX`] is read whole, for its etag and its lines; a larger one when `hash`
/// says so.
///
/// # Errors
///
/// `conflict` when it changed each time that it was read; `too_large` when the lines begin too far behind.
pub(crate) fn inline(
    place: &Place<'_>,
    range: ReadRange,
    bytes_max: u32,
    hash: bool,
) -> Result<FileAnswer, Refusal> {
    let failed = |fault: Fault| place.refusal(fault);
    let file = place.root.regular(place.rel, Follow::Within).map_err(failed)?;
    let max = usize::try_from(bytes_max).unwrap_or(limits::FILE_INLINE_BYTES_MAX);
    let max = max.min(limits::FILE_INLINE_BYTES_MAX);
    let size = Stat::of_open(&file).map_err(failed)?.size;
    let is_whole = hash || size <= limits::ETAG_AUTO_BYTES_MAX;
    let steady = read::steady(&file, |file| {
        let seen = look(file, range, max, is_whole)?;
        let bytes = is_whole.then_some(seen.bytes);
        Ok((seen, bytes))
    });
    match steady {
        Ok((seen, stat)) => return Ok(seen.answer(stat.size, is_whole)),
        Err(Fault::Restless) if !hash => {}
        Err(fault) => return Err(out_of_reach(place, fault)),
    }
    // A log to which somebody writes all the time can be read, without what is only true of a whole.
    let before = Stat::of_open(&file).map_err(failed)?;
    let seen = look(&file, range, max, false).map_err(|fault| out_of_reach(place, fault))?;
    match Stat::of_open(&file).map_err(failed)? {
        after if after.size >= before.size => Ok(seen.answer(before.size, false)),
        _ => Err(failed(Fault::Restless)),
    }
}

/// Of a look for lines that went on for too long.
fn out_of_reach(place: &Place<'_>, fault: Fault) -> Refusal {
    if fault != Fault::TooMany {
        return place.refusal(fault);
    }
    let path = printable(place.path.as_str(), 300);
    let message = format!(
        "The lines of `{path}` begin beyond its first {SOUGHT_BYTES_MAX} bytes, which are not looked through."
    );
    Refusal::new(Code::TooLarge, message).hint("Read it by a range of bytes.").detail("path", path)
}

/// What one pass found.
#[derive(PartialEq)]
struct Found {
    data: Vec<u8>,
    from: u64,
    first_line: u64,
    is_complete: bool,
    text: Text,
    etag: ContentId,
    /// Bytes that were hashed.
    bytes: u64,
}

impl Found {
    fn answer(self, size: u64, is_whole: bool) -> FileAnswer {
        let Self { mut data, from, first_line, is_complete, text, etag, .. } = self;
        let (encoding, lines) = if is_whole {
            let (encoding, ending, total, final_newline) = text.summary();
            let lines = LineFacts { total, first: first_line, ending, final_newline };
            (encoding, (encoding != Encoding::Binary).then_some(lines))
        } else {
            (of_part(&data, from), None)
        };
        if !is_complete && encoding != Encoding::Binary {
            let end = whole_chars(&data);
            data.truncate(end);
        }
        let etag = is_whole.then_some(etag);
        FileAnswer::Content { data: data.into(), from, size, etag, lines, encoding, complete: is_complete }
    }
}

fn look(file: &File, range: ReadRange, max: usize, is_whole: bool) -> Result<Found, Fault> {
    let mut picker = Picker::new(range, max);
    let mut text = Text::default();
    let mut hasher = blake3::Hasher::new();
    match range {
        ReadRange::Bytes { from, len } if !is_whole => {
            picker = picker.from(from);
            read::pieces(file, from, len.min(max as u64 + 1), |piece| {
                picker.push(piece);
                Ok(())
            })?;
        }
        ReadRange::All | ReadRange::Bytes { .. } | ReadRange::Lines { .. } => {
            let mut sought = 0;
            let passed = read::pieces(file, 0, u64::MAX, |piece| {
                picker.push(piece);
                if is_whole {
                    text.push(piece);
                    hasher.update(piece);
                    return Ok(());
                }
                sought += piece.len() as u64;
                match picker.is_done() || sought > SOUGHT_BYTES_MAX {
                    true => Err(Fault::TooMany),
                    false => Ok(()),
                }
            });
            match passed {
                Err(Fault::TooMany) if picker.is_done() => {}
                passed => passed?,
            }
        }
    }
    let Picked { data, from, first_line, is_complete } = picker.finish();
    Ok(Found {
        data,
        from,
        first_line,
        is_complete,
        text,
        etag: ContentId::new(hasher.finalize().into()),
        bytes: hasher.count(),
    })
}

/// Content that leaves in pieces.
#[derive(Debug)]
pub(crate) struct Reading {
    file: File,
    at: u64,
    end: u64,
    before: Stat,
    /// Whether its content was named, so that all of it has to be that content.
    is_named: bool,
    path: String,
}

/// What is read by a stream.
#[derive(Debug)]
pub(crate) enum Streamed {
    /// It is so little that it goes with the answer.
    Inline(FileAnswer),
    /// The answer, and then the pieces.
    Pieces(FileAnswer, Reading),
}

/// Opens a part of a file for a stream. A file to which somebody writes all the time has no etag, and can
/// be read as far as it went at the beginning.
///
/// # Errors
///
/// `conflict` when it changed each time that it was read for an etag which was asked for; `too_large` when
/// the lines begin too far behind.
pub(crate) fn stream(place: &Place<'_>, range: ReadRange, hash: bool) -> Result<Streamed, Refusal> {
    let failed = |fault: Fault| place.refusal(fault);
    let file = place.root.regular(place.rel, Follow::Within).map_err(failed)?;
    let mut before = Stat::of_open(&file).map_err(failed)?;
    let lines = match range {
        ReadRange::Lines { from, count } => {
            Some(span_of_lines(&file, from, count).map_err(|fault| out_of_reach(place, fault))?)
        }
        ReadRange::All | ReadRange::Bytes { .. } => None,
    };
    let span = |size: u64| match range {
        ReadRange::Bytes { from, len } => (from.min(size), from.saturating_add(len).min(size)),
        ReadRange::All | ReadRange::Lines { .. } => lines.unwrap_or((0, size)),
    };
    let (at, end) = span(before.size);
    if end.saturating_sub(at) <= limits::FILE_INLINE_BYTES_MAX as u64 {
        let max = u32::try_from(limits::FILE_INLINE_BYTES_MAX).unwrap_or(u32::MAX);
        return inline(place, range, max, hash).map(Streamed::Inline);
    }
    let mut etag = None;
    if hash || before.size <= limits::ETAG_AUTO_BYTES_MAX {
        match read::hash(&file) {
            Ok(hashed) => (before, etag) = (hashed.stat, Some(hashed.etag)),
            Err(Fault::Restless) if !hash => before = Stat::of_open(&file).map_err(failed)?,
            Err(fault) => return Err(failed(fault)),
        }
    }
    let (at, end) = span(before.size);
    let path = place.path.as_str().to_owned();
    let reading = Reading { file, at, end, before, is_named: etag.is_some(), path };
    Ok(Streamed::Pieces(FileAnswer::Streaming { size: before.size, etag }, reading))
}

fn span_of_lines(file: &File, from: u64, count: u64) -> Result<(u64, u64), Fault> {
    // It keeps nothing of the part, and goes on to where that ends.
    let (mut line, mut at) = (1_u64, 0_u64);
    let (mut start, mut end) = (None, None);
    let last = from.saturating_add(count);
    let passed = read::pieces(file, 0, u64::MAX, |piece| {
        if line >= from && start.is_none() {
            start = Some(at);
        }
        for found in memchr::memchr_iter(b'\n', piece) {
            line += 1;
            let next = at + found as u64 + 1;
            if line == from {
                start = Some(next);
            }
            if line == last {
                end = Some(next);
                return Err(Fault::Restless);
            }
        }
        at += piece.len() as u64;
        if at > SOUGHT_BYTES_MAX { Err(Fault::TooMany) } else { Ok(()) }
    });
    match (passed, end) {
        (_, Some(end)) => Ok((start.unwrap_or(end), end)),
        (Err(fault), None) => Err(fault),
        (Ok(()), None) => Ok((start.unwrap_or(at), at)),
    }
}

impl Reading {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    ///
    /// `conflict` when the file changed since it was opened: what was sent is then of no one moment. One
    /// without an etag may have grown.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let failed = |fault: Fault| fault.refusal(&self.path);
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        if left == 0 {
            let after = Stat::of_open(&self.file).map_err(failed)?;
            let has_grown = !self.is_named && after.size >= self.before.size;
            return if after.is_untouched_since(&self.before) || has_grown {
                Ok(None)
            } else {
                Err(failed(Fault::Restless))
            };
        }
        let mut piece = vec![0; left.min(PIECE_BYTES)];
        // The file got shorter when this fails.
        let read = self.file.read_exact_at(&mut piece, self.at);
        read.map_err(|error| {
            let is_short = error.kind() == std::io::ErrorKind::UnexpectedEof;
            failed(if is_short { Fault::Restless } else { error.into() })
        })?;
        self.at += piece.len() as u64;
        Ok(Some(piece.into()))
    }
}

#[cfg(test)]
#[path = "cat_tests.rs"]
mod tests;
