//! Text in a file is replaced: all of the replacements, or none.

use std::collections::HashSet;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::Note;
use cortex_core::files::op::{Edit, Expect};
use cortex_core::limits;
use cortex_core::name::printable;
use memchr::{memchr_iter, memmem};

use super::fault::Fault;
use super::place::{Place, Work};
use super::read;
use super::target::{Target, mismatch};
use super::write::{Declared, Draft, Prepared, diff_of};

/// Lines that are shown of a file that lacks the text.
const CLOSEST_MAX: usize = 3;
/// Bytes of one of them.
const CLOSEST_BYTES_MAX: usize = 160;
/// Bytes of a line that are compared, and of the text that is looked for.
const COMPARED_BYTES_MAX: usize = 512;
/// Numbers of lines that are told of a text that is there more than once.
const LINES_MAX: usize = 10;

/// Reads the file, edits what it holds, and prepares the write. What is committed has to be what was read.
///
/// # Errors
///
/// `edit_not_found`, `edit_ambiguous`, `etag_mismatch`, `too_large` beyond [`limits::EDIT_BYTES_MAX`], and
/// those of a write.
pub(crate) fn prepare<'a>(
    work: &Work<'_>,
    place: Place<'a>,
    edits: &[Edit],
    expect: Expect,
    dry_run: bool,
) -> Result<Prepared<'a>, Refusal> {
    let failed = |fault: Fault| place.refusal(fault);
    let (folder, name) = place.parent()?;
    let there = folder.stat(name.as_bytes()).map_err(failed)?;
    place.must_be_file(&folder, name, &there)?;
    if there.size > limits::EDIT_BYTES_MAX {
        return Err(too_large(&place));
    }
    let file = folder.regular(name.as_bytes()).map_err(failed)?;
    let (old, hashed) = read::whole(&file, limits::EDIT_BYTES_MAX)
        .map_err(|fault| if fault == Fault::TooMany { too_large(&place) } else { failed(fault) })?;
    if matches!(expect, Expect::Etag(etag) if etag != hashed.etag) {
        return Err(mismatch(&place, Some(&hashed)));
    }
    let edited = apply(&old, edits).map_err(|failure| failure.refusal(&place))?;
    let target = Target::of_read(place, folder, name, hashed);
    // The difference is of what is at hand, so the draft need not keep it.
    let mut draft = Draft::on(work, target, None, dry_run)?;
    draft.shown = None;
    draft.write(&edited.content)?;
    let mut prepared = draft.finish(work, Declared::default())?;
    prepared.diff = Some(diff_of(&place, &old, &edited.content));
    if edited.is_converted {
        prepared.notes.push(Note::Converted);
    }
    Ok(prepared)
}

fn too_large(place: &Place<'_>) -> Refusal {
    let (path, max) = (printable(place.path.as_str(), 300), limits::EDIT_BYTES_MAX);
    Refusal::new(
        Code::TooLarge,
        format!("`{path}` is, or would be, larger than a file that is edited; the bound is {max} bytes."),
    )
    .hint("Edit it with a command on the node.")
}

/// What became of a content.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edited {
    pub(super) content: Vec<u8>,
    /// Whether line ends of a replacement were made those of the file.
    pub(super) is_converted: bool,
}

/// Why nothing became of it. Edits count from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    NotFound { edit: usize, closest: Vec<(u64, String)> },
    Ambiguous { edit: usize, count: usize, lines: Vec<u64> },
    TooLarge,
}

impl Failure {
    fn refusal(self, place: &Place<'_>) -> Refusal {
        let path = printable(place.path.as_str(), 300);
        match self {
            Self::TooLarge => too_large(place),
            Self::NotFound { edit, closest } => {
                let message = format!("The text of edit {edit} is not in `{path}`, so nothing was changed.");
                let refusal = Refusal::new(Code::EditNotFound, message).detail("edit", edit.to_string());
                if closest.is_empty() {
                    return refusal;
                }
                let lines: Vec<String> =
                    closest.iter().map(|(line, text)| format!("{line}: {text}")).collect();
                refusal.detail("closest", lines.join("\n"))
            }
            Self::Ambiguous { edit, count, lines } => {
                let shown: Vec<String> = lines.iter().map(u64::to_string).collect();
                let message = format!(
                    "The text of edit {edit} is {count} times in `{path}`, so nothing was changed; it begins in the lines {}{}.",
                    shown.join(", "),
                    if count > lines.len() { " and more" } else { "" }
                );
                Refusal::new(Code::EditAmbiguous, message)
                    .detail("edit", edit.to_string())
                    .detail("lines", shown.join(","))
            }
        }
    }
}

/// Does the replacements one after the other, each on what the one before it left.
pub(super) fn apply(content: &[u8], edits: &[Edit]) -> Result<Edited, Failure> {
    let mut edited = Edited { content: content.to_vec(), is_converted: false };
    for (index, edit) in edits.iter().enumerate() {
        let (mut old, mut new) = (edit.old.to_vec(), edit.new.to_vec());
        if wants_line_ends(&old, &new) && is_crlf(&edited.content) {
            (old, new) = (with_crlf(&old), with_crlf(&new));
            edited.is_converted = true;
        }
        edited.content = replace(&edited.content, &old, &new, edit.all, index + 1)?;
    }
    Ok(edited)
}

fn replace(content: &[u8], old: &[u8], new: &[u8], all: bool, edit: usize) -> Result<Vec<u8>, Failure> {
    let finder = memmem::Finder::new(old);
    let count = finder.find_iter(content).count();
    if count == 0 {
        return Err(Failure::NotFound { edit, closest: closest(content, old) });
    }
    if count > 1 && !all {
        let lines = lines_of(content, finder.find_iter(content).take(LINES_MAX));
        return Err(Failure::Ambiguous { edit, count, lines });
    }
    // Known before any memory is taken: a short text that is there often may become a long one.
    let len = (content.len() - count * old.len()) as u64 + count as u64 * new.len() as u64;
    if len > limits::EDIT_BYTES_MAX {
        return Err(Failure::TooLarge);
    }
    let mut out = Vec::with_capacity(usize::try_from(len).map_err(|_| Failure::TooLarge)?);
    let mut at = 0;
    for found in finder.find_iter(content) {
        out.extend_from_slice(&content[at..found]);
        out.extend_from_slice(new);
        at = found + old.len();
    }
    out.extend_from_slice(&content[at..]);
    Ok(out)
}

/// The numbers, from 1, of the lines in which these offsets lie, each once.
fn lines_of(content: &[u8], offsets: impl Iterator<Item = usize>) -> Vec<u64> {
    let (mut line, mut at) = (1_u64, 0);
    let mut lines = Vec::new();
    for offset in offsets {
        line += memchr_iter(b'\n', &content[at..offset]).count() as u64;
        at = offset;
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Whether a caller who sees lines without their ends sent `\n` for each of them: the text that he looks
/// for has bare ones, or has no line end at all while what comes in its place has. A text with `\r\n` in
/// it is meant as it is; so line ends themselves can be edited.
fn wants_line_ends(old: &[u8], new: &[u8]) -> bool {
    has_bare_lf(old) || (memchr::memchr(b'\n', old).is_none() && has_bare_lf(new))
}

fn has_bare_lf(text: &[u8]) -> bool {
    memchr_iter(b'\n', text).any(|at| at == 0 || text[at - 1] != b'\r')
}

/// Whether it has lines, and each ends with `\r\n`.
fn is_crlf(content: &[u8]) -> bool {
    memchr::memchr(b'\n', content).is_some() && !has_bare_lf(content)
}

fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 16);
    for &byte in text {
        if byte == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    out
}

/// The lines that have most in common with the first line of the text that has something in it, with their
/// numbers: by runs of three bytes, since most such texts differ in blanks or in a word.
fn closest(content: &[u8], old: &[u8]) -> Vec<(u64, String)> {
    let Some(wanted) = old.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty())
    else {
        return Vec::new();
    };
    let wanted: HashSet<&[u8]> = runs(wanted).collect();
    let mut best: Vec<(usize, u64, &[u8])> = Vec::new();
    for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        let mut common: Vec<&[u8]> = runs(line).filter(|run| wanted.contains(run)).collect();
        common.sort_unstable();
        common.dedup();
        // Less than a third in common says nothing.
        if common.is_empty() || common.len() * 3 < wanted.len() {
            continue;
        }
        // Of two that have as much in common the shorter one is closer, and then the one before.
        best.push((common.len(), number as u64 + 1, line));
        best.sort_by_key(|(common, number, line)| (std::cmp::Reverse(*common), line.len(), *number));
        best.truncate(CLOSEST_MAX);
    }
    let shown = |line: &[u8]| printable(&String::from_utf8_lossy(line), CLOSEST_BYTES_MAX);
    best.into_iter().map(|(_, number, line)| (number, shown(line))).collect()
}

fn runs(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = &line[..line.len().min(COMPARED_BYTES_MAX)];
    line.windows(line.len().clamp(1, 3))
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
