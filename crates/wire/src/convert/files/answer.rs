//! What is answered.

use cortex_core::Refusal;
use cortex_core::files::answer::{
    Diff, Encoding, Ending, Entry, FileAnswer, LineFacts, Match, Meta, Note, Skipped,
};
use cortex_core::id::OpId;

use super::{etag_from, etag_if_set, etag_into, kind_from, kind_into, op_id_from, op_into, refused_from};
use crate::convert::{missing, refusal_into};
use crate::mesh;
use crate::mesh::file_answer::Outcome;

/// An answer, for the wire.
pub(in crate::convert) fn answer_into(op: OpId, answer: Result<FileAnswer, Refusal>) -> mesh::FileAnswer {
    let outcome = answer.map_or_else(|refusal| Outcome::Refusal(refusal_into(&refusal)), outcome_into);
    mesh::FileAnswer { op_id: op_into(op), outcome: Some(outcome) }
}

/// An answer, from the wire.
///
/// # Errors
///
/// `invalid_argument` for what cannot be read or is beyond its bounds.
pub(in crate::convert) fn answer_from(
    answer: mesh::FileAnswer,
) -> Result<(OpId, Result<FileAnswer, Refusal>), Refusal> {
    let op = op_id_from(&answer.op_id)?;
    let answer = outcome_from(answer.outcome.ok_or_else(|| missing("file_answer.outcome"))?)?;
    if answer.as_ref().is_ok_and(|answer| !answer.is_bounded()) {
        return Err(missing("file_answer (within its bounds)"));
    }
    Ok((op, answer))
}

fn outcome_into(answer: FileAnswer) -> Outcome {
    match answer {
        FileAnswer::Listing { entries, next, searched, skipped } => {
            let (entries, skipped) =
                (entries.into_iter().map(entry_into).collect(), Some(skipped_into(skipped)));
            Outcome::Listing(mesh::FileListing { entries, next, skipped, searched })
        }
        FileAnswer::Meta(meta) => Outcome::Meta(meta_into(meta)),
        FileAnswer::Content { data, from, size, etag, lines, encoding, complete } => {
            Outcome::Content(mesh::FileContent {
                data,
                from,
                size,
                etag: etag.map(etag_into),
                lines: lines.map(lines_into),
                encoding: encoding_into(encoding).into(),
                complete,
            })
        }
        FileAnswer::Streaming { size, etag } => {
            Outcome::Streaming(mesh::FileStreaming { size, etag: etag.map(etag_into) })
        }
        FileAnswer::Matches { matches, next, searched, skipped } => {
            let (matches, skipped) =
                (matches.into_iter().map(match_into).collect(), Some(skipped_into(skipped)));
            Outcome::Matches(mesh::FileMatches { matches, next, searched, skipped })
        }
        FileAnswer::Written { etag, bytes, created, before, diff, notes, dry_run } => {
            Outcome::Written(mesh::FileWritten {
                etag: etag_into(etag),
                bytes,
                created,
                before: before.map(etag_into),
                diff: diff.map(diff_into),
                notes: notes_into(&notes),
                dry_run,
            })
        }
        FileAnswer::Done { removed, made, notes, dry_run } => {
            Outcome::Done(mesh::FileDone { removed, made, notes: notes_into(&notes), dry_run })
        }
    }
}

/// The node's answer or refusal; our own when it cannot be read.
fn outcome_from(outcome: Outcome) -> Result<Result<FileAnswer, Refusal>, Refusal> {
    Ok(Ok(match outcome {
        Outcome::Refusal(refusal) => return Ok(Err(refused_from(refusal))),
        Outcome::Listing(listing) => FileAnswer::Listing {
            entries: listing.entries.into_iter().map(entry_from).collect::<Result<_, _>>()?,
            next: listing.next,
            searched: listing.searched,
            skipped: skipped_from(listing.skipped.unwrap_or_default()),
        },
        Outcome::Meta(meta) => FileAnswer::Meta(meta_from(meta)?),
        Outcome::Content(content) => FileAnswer::Content {
            data: content.data,
            from: content.from,
            size: content.size,
            etag: etag_if_set(content.etag.as_ref())?,
            lines: content.lines.map(lines_from).transpose()?,
            encoding: encoding_from(content.encoding)?,
            complete: content.complete,
        },
        Outcome::Streaming(streaming) => {
            FileAnswer::Streaming { size: streaming.size, etag: etag_if_set(streaming.etag.as_ref())? }
        }
        Outcome::Matches(found) => FileAnswer::Matches {
            matches: found.matches.into_iter().map(match_from).collect(),
            next: found.next,
            searched: found.searched,
            skipped: skipped_from(found.skipped.unwrap_or_default()),
        },
        Outcome::Written(written) => FileAnswer::Written {
            etag: etag_from(&written.etag)?,
            bytes: written.bytes,
            created: written.created,
            before: etag_if_set(written.before.as_ref())?,
            diff: written.diff.map(diff_from),
            notes: notes_from(&written.notes),
            dry_run: written.dry_run,
        },
        Outcome::Done(done) => FileAnswer::Done {
            removed: done.removed,
            made: done.made,
            notes: notes_from(&done.notes),
            dry_run: done.dry_run,
        },
    }))
}

fn entry_into(entry: Entry) -> mesh::FileEntry {
    mesh::FileEntry { name: entry.name, meta: Some(meta_into(entry.meta)) }
}

fn entry_from(entry: mesh::FileEntry) -> Result<Entry, Refusal> {
    let meta = entry.meta.ok_or_else(|| missing("file_entry.meta"))?;
    Ok(Entry { name: entry.name, meta: meta_from(meta)? })
}

fn meta_into(meta: Meta) -> mesh::FileMeta {
    mesh::FileMeta {
        kind: kind_into(meta.kind).into(),
        size: meta.size,
        mode: u32::from(meta.mode),
        mtime_ns: meta.mtime_ns,
        uid: meta.uid,
        gid: meta.gid,
        links: meta.links,
        target: meta.target,
        etag: meta.etag.map(etag_into),
    }
}

fn meta_from(meta: mesh::FileMeta) -> Result<Meta, Refusal> {
    Ok(Meta {
        kind: kind_from(meta.kind)?,
        size: meta.size,
        mode: u16::try_from(meta.mode).map_err(|_| missing("file_meta.mode"))?,
        mtime_ns: meta.mtime_ns,
        uid: meta.uid,
        gid: meta.gid,
        links: meta.links,
        target: meta.target,
        etag: etag_if_set(meta.etag.as_ref())?,
    })
}

fn match_into(found: Match) -> mesh::FileMatch {
    let Match { name, line, text, before, after } = found;
    mesh::FileMatch { name, line, text, before, after }
}

fn match_from(found: mesh::FileMatch) -> Match {
    let mesh::FileMatch { name, line, text, before, after } = found;
    Match { name, line, text, before, after }
}

const fn skipped_into(skipped: Skipped) -> mesh::FileSkipped {
    let Skipped { unreadable, binary, too_large, ignored, unsupported } = skipped;
    mesh::FileSkipped { unreadable, binary, too_large, ignored, unsupported }
}

const fn skipped_from(skipped: mesh::FileSkipped) -> Skipped {
    let mesh::FileSkipped { unreadable, binary, too_large, ignored, unsupported } = skipped;
    Skipped { unreadable, binary, too_large, ignored, unsupported }
}

fn lines_into(lines: LineFacts) -> mesh::LineFacts {
    let LineFacts { total, first, ending, final_newline } = lines;
    let ending = match ending {
        Ending::None => mesh::LineEnding::None,
        Ending::Lf => mesh::LineEnding::Lf,
        Ending::CrLf => mesh::LineEnding::Crlf,
        Ending::Mixed => mesh::LineEnding::Mixed,
    };
    mesh::LineFacts { total, first, ending: ending.into(), final_newline }
}

fn lines_from(lines: mesh::LineFacts) -> Result<LineFacts, Refusal> {
    let mesh::LineFacts { total, first, ending, final_newline } = lines;
    let ending = match mesh::LineEnding::try_from(ending) {
        Ok(mesh::LineEnding::None) => Ending::None,
        Ok(mesh::LineEnding::Lf) => Ending::Lf,
        Ok(mesh::LineEnding::Crlf) => Ending::CrLf,
        Ok(mesh::LineEnding::Mixed) => Ending::Mixed,
        Ok(mesh::LineEnding::Unspecified) | Err(_) => return Err(missing("line_facts.ending")),
    };
    Ok(LineFacts { total, first, ending, final_newline })
}

const fn encoding_into(encoding: Encoding) -> mesh::FileEncoding {
    match encoding {
        Encoding::Utf8 => mesh::FileEncoding::Utf8,
        Encoding::Utf8Bom => mesh::FileEncoding::Utf8Bom,
        Encoding::Binary => mesh::FileEncoding::Binary,
    }
}

fn encoding_from(encoding: i32) -> Result<Encoding, Refusal> {
    match mesh::FileEncoding::try_from(encoding) {
        Ok(mesh::FileEncoding::Utf8) => Ok(Encoding::Utf8),
        Ok(mesh::FileEncoding::Utf8Bom) => Ok(Encoding::Utf8Bom),
        Ok(mesh::FileEncoding::Binary) => Ok(Encoding::Binary),
        Ok(mesh::FileEncoding::Unspecified) | Err(_) => Err(missing("file_content.encoding")),
    }
}

fn diff_into(diff: Diff) -> mesh::FileDiff {
    let Diff { text, added, removed, cut } = diff;
    mesh::FileDiff { text, added, removed, cut }
}

fn diff_from(diff: mesh::FileDiff) -> Diff {
    let mesh::FileDiff { text, added, removed, cut } = diff;
    Diff { text, added, removed, cut }
}

fn notes_into(notes: &[Note]) -> Vec<String> {
    notes.iter().map(|note| note.as_str().to_owned()).collect()
}

/// A remark of a later node is left out: it changes nothing of what was done.
fn notes_from(notes: &[String]) -> Vec<Note> {
    notes.iter().filter_map(|note| Note::parse(note)).collect()
}
