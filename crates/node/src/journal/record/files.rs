//! Records on operations on files as bytes. Kind, then what it is about, then fields of a fixed length,
//! then texts, each behind its length.

use cortex_core::files::content::ContentId;
use cortex_core::files::entity::{FileEnd, FileOutcome, kept};
use cortex_core::files::op::Verb;
use cortex_core::files::path::FilePath;
use cortex_core::id::{Attempt, OpId, TaskId};
use cortex_core::journal::{FileAccepted, Record};
use cortex_core::{Code, Refusal};

use super::{long, take};

/// What came of an operation.
const WRITTEN: u8 = 0;
const DONE: u8 = 1;
const REFUSED: u8 = 2;

pub(super) fn put_accepted(body: &mut Vec<u8>, accepted: &FileAccepted) {
    let FileAccepted { op, attempt, verb, path, source } = accepted;
    body.push(b'F');
    body.extend(op.as_bytes());
    body.push(u8::from(attempt.is_some()));
    if let Some((task, attempt)) = attempt {
        put_of_task(body, *task, *attempt);
    }
    put_text(body, verb.as_str());
    put_text(body, path.as_str());
    body.push(u8::from(source.is_some()));
    if let Some(source) = source {
        put_text(body, source.as_str());
    }
}

pub(super) fn put_intended(body: &mut Vec<u8>, op: OpId, etag: &ContentId) {
    body.push(b'I');
    body.extend(op.as_bytes());
    body.extend(etag.as_bytes());
}

/// A refusal is cut to what is kept of one, so a record stays far below its bound.
pub(super) fn put_end(body: &mut Vec<u8>, op: OpId, end: &FileEnd) {
    body.push(b'D');
    body.extend(op.as_bytes());
    match end {
        Ok(FileOutcome::Written { etag, bytes, created }) => {
            body.push(WRITTEN);
            body.extend(etag.as_bytes());
            body.extend(bytes.to_le_bytes());
            body.push(u8::from(*created));
        }
        Ok(FileOutcome::Done { removed, made }) => {
            body.push(DONE);
            body.extend(removed.to_le_bytes());
            body.extend(made.to_le_bytes());
        }
        Err(refusal) => {
            let Refusal { code, message, hint, details } = kept(refusal);
            body.push(REFUSED);
            [code.as_str(), &message, &hint].iter().for_each(|text| put_text(body, text));
            for (name, value) in details {
                put_text(body, name);
                put_text(body, &value);
            }
        }
    }
}

pub(super) fn put_settled(body: &mut Vec<u8>, op: OpId) {
    body.push(b'G');
    body.extend(op.as_bytes());
}

pub(super) fn put_attempt(body: &mut Vec<u8>, task: TaskId, attempt: Attempt) {
    body.push(b'T');
    put_of_task(body, task, attempt);
}

fn put_of_task(body: &mut Vec<u8>, task: TaskId, attempt: Attempt) {
    body.extend(task.as_bytes());
    body.extend(attempt.0.to_le_bytes());
}

/// Texts here are far below 64 KiB.
fn put_text(body: &mut Vec<u8>, text: &str) {
    body.extend((text.len() as u16).to_le_bytes());
    body.extend(text.as_bytes());
}

/// The record of this kind; `None` when it is none of these, or says something that this build does not
/// know.
pub(super) fn parse(kind: u8, rest: &mut &[u8]) -> Option<Record> {
    match kind {
        b'F' => {
            let op = op(rest)?;
            let attempt = if flag(rest)? { Some(of_task(rest)?) } else { None };
            let verb = Verb::parse(text(rest)?)?;
            let path = FilePath::parse(text(rest)?).ok()?;
            let source = if flag(rest)? { Some(FilePath::parse(text(rest)?).ok()?) } else { None };
            Some(Record::FileAccepted(FileAccepted { op, attempt, verb, path, source }))
        }
        b'I' => Some(Record::FileIntended(op(rest)?, etag(rest)?)),
        b'D' => Some(Record::FileEnded(op(rest)?, parse_end(rest)?)),
        b'G' => Some(Record::FileSettled(op(rest)?)),
        b'T' => {
            let (task, attempt) = of_task(rest)?;
            Some(Record::Attempt(task, attempt))
        }
        _ => None,
    }
}

fn parse_end(rest: &mut &[u8]) -> Option<FileEnd> {
    match take(rest, 1)?[0] {
        WRITTEN => {
            let (etag, bytes, created) = (etag(rest)?, long(rest)?, flag(rest)?);
            Some(Ok(FileOutcome::Written { etag, bytes, created }))
        }
        DONE => Some(Ok(FileOutcome::Done { removed: long(rest)?, made: long(rest)? })),
        REFUSED => {
            let code = Code::parse(text(rest)?)?;
            let mut refusal = Refusal::new(code, text(rest)?).hint(text(rest)?);
            while !rest.is_empty() {
                let name = text(rest)?;
                refusal = refusal.detail_named(name, text(rest)?);
            }
            Some(Err(refusal))
        }
        _ => None,
    }
}

fn op(rest: &mut &[u8]) -> Option<OpId> {
    OpId::from_slice(take(rest, 16)?)
}

fn etag(rest: &mut &[u8]) -> Option<ContentId> {
    ContentId::from_slice(take(rest, 32)?)
}

fn of_task(rest: &mut &[u8]) -> Option<(TaskId, Attempt)> {
    Some((TaskId::from_slice(take(rest, 16)?)?, Attempt(long(rest)?)))
}

fn flag(rest: &mut &[u8]) -> Option<bool> {
    Some(take(rest, 1)?[0] != 0)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let len = u16::from_le_bytes(take(rest, 2)?.try_into().ok()?);
    std::str::from_utf8(take(rest, usize::from(len))?).ok()
}
