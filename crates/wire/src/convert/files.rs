//! Operations on files: protobuf ⇄ core. What is asked passes [`FileOp::check`] here, what is answered
//! keeps its bounds here; an unknown enum value or a missing member is refused.

mod answer;
mod op;
pub mod pipe;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;
use cortex_core::files::ask::{FileAsk, FileReport, Ticket};
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::FileOutcome;
use cortex_core::files::op::Kind;
use cortex_core::id::{LockEpoch, OpId, Revision, WorkspaceId};
use cortex_core::name::printable;
use cortex_core::{Refusal, limits};

pub(super) use answer::{answer_from, answer_into};

use super::{consent_from, missing, refusal_from, refusal_into, task_from};
use crate::mesh;
use crate::mesh::file_report::State;

/// Lines of one detail of a refusal that are taken from a node.
const DETAIL_LINES_MAX: usize = 16;
/// Characters of one such line.
const DETAIL_CHARS_MAX: usize = 500;

/// An operation, for the wire.
pub(super) fn ask_into(ask: FileAsk) -> mesh::FileAsk {
    let (task_id, attempt) = ask
        .attempt
        .map(|(task, attempt)| (Bytes::copy_from_slice(task.as_bytes()), attempt.0))
        .unwrap_or_default();
    let (workspace_id, lock_epoch) = ask
        .lock
        .map(|(workspace, epoch)| (Bytes::copy_from_slice(workspace.as_bytes()), epoch.0))
        .unwrap_or_default();
    mesh::FileAsk {
        op_id: op_into(ask.id),
        op: Some(op::op_into(ask.op)),
        caller: ask.caller,
        policy_revision: ask.policy_revision.0,
        traceparent: ask.traceparent,
        consent_id: ask.consent.map(|id| Bytes::copy_from_slice(id.as_bytes())).unwrap_or_default(),
        task_id,
        attempt,
        deadline_ms: ask.deadline_ms,
        workspace_id,
        lock_epoch,
        ticket: ask.ticket.map(|ticket| Bytes::copy_from_slice(ticket.as_bytes())).unwrap_or_default(),
    }
}

/// An operation, from the wire.
///
/// # Errors
///
/// As [`FileOp::check`](cortex_core::files::op::FileOp::check), `bad_path`, and `invalid_argument`.
pub(super) fn ask_from(ask: mesh::FileAsk) -> Result<FileAsk, Refusal> {
    if !(1..=limits::FILE_OP_MS_MAX).contains(&ask.deadline_ms) {
        return Err(missing("file_ask.deadline_ms (1 to 300,000)"));
    }
    let op = op::op_from(ask.op.ok_or_else(|| missing("file_ask.op"))?)?;
    op.check()?;
    Ok(FileAsk {
        id: op_id_from(&ask.op_id)?,
        op,
        caller: ask.caller,
        policy_revision: Revision(ask.policy_revision),
        traceparent: ask.traceparent,
        consent: consent_from(&ask.consent_id)?,
        attempt: task_from(&ask.task_id, ask.attempt)?,
        deadline_ms: ask.deadline_ms,
        lock: id_if_set(&ask.workspace_id, WorkspaceId::from_slice, "file_ask.workspace_id (16 bytes)")?
            .map(|workspace| (workspace, LockEpoch(ask.lock_epoch))),
        ticket: id_if_set(&ask.ticket, Ticket::from_slice, "file_ask.ticket (16 bytes)")?,
    })
}

/// What a node says of an operation that it has taken on, for the wire.
pub(super) fn report_into(report: FileReport) -> mesh::FileReport {
    let state = match report.end {
        None => State::UnderWay(true),
        Some(Ok(FileOutcome::Written { etag, bytes, created })) => State::Written(mesh::FileWritten {
            etag: etag_into(etag),
            bytes,
            created,
            ..mesh::FileWritten::default()
        }),
        Some(Ok(FileOutcome::Done { removed, made })) => {
            State::Done(mesh::FileDone { removed, made, ..mesh::FileDone::default() })
        }
        Some(Err(refusal)) => State::Refusal(refusal_into(&refusal)),
    };
    mesh::FileReport { op_id: op_into(report.op), state: Some(state) }
}

/// What nodes say of all of them, from the wire.
pub(super) fn reports_from(reports: Vec<mesh::FileReport>) -> Result<Vec<FileReport>, Refusal> {
    if reports.len() > limits::FILE_OPS_OPEN_PER_NODE_MAX {
        return Err(missing("hello.files (at most 256)"));
    }
    reports.into_iter().map(report_from).collect()
}

fn report_from(report: mesh::FileReport) -> Result<FileReport, Refusal> {
    let end = match report.state.ok_or_else(|| missing("file_report.state"))? {
        State::UnderWay(true) => None,
        State::UnderWay(false) => return Err(missing("file_report.under_way")),
        State::Written(written) => Some(Ok(FileOutcome::Written {
            etag: etag_from(&written.etag)?,
            bytes: written.bytes,
            created: written.created,
        })),
        State::Done(done) => Some(Ok(FileOutcome::Done { removed: done.removed, made: done.made })),
        State::Refusal(refusal) => Some(Err(refused_from(refusal))),
    };
    Ok(FileReport { op: op_id_from(&report.op_id)?, end })
}

/// A node's refusal of an operation, with the details that have a meaning everywhere.
pub(super) fn refused_from(mut refusal: mesh::Refusal) -> Refusal {
    let details: BTreeMap<String, String> = std::mem::take(&mut refusal.details).into_iter().collect();
    details
        .into_iter()
        .fold(refusal_from(refusal), |refusal, (name, value)| refusal.detail_named(&name, lines(&value)))
}

/// Each line of a detail as it may be shown.
fn lines(text: &str) -> String {
    let lines = text.split('\n').take(DETAIL_LINES_MAX);
    lines.map(|line| printable(line, DETAIL_CHARS_MAX)).collect::<Vec<_>>().join("\n")
}

pub(super) fn op_into(op: OpId) -> Bytes {
    Bytes::copy_from_slice(op.as_bytes())
}

pub(super) fn op_id_from(bytes: &[u8]) -> Result<OpId, Refusal> {
    OpId::from_slice(bytes).ok_or_else(|| missing("op_id (16 bytes)"))
}

fn etag_into(etag: ContentId) -> Bytes {
    Bytes::copy_from_slice(etag.as_bytes())
}

fn etag_from(bytes: &[u8]) -> Result<ContentId, Refusal> {
    ContentId::from_slice(bytes).ok_or_else(|| missing("etag (32 bytes)"))
}

fn etag_if_set(bytes: Option<&Bytes>) -> Result<Option<ContentId>, Refusal> {
    bytes.map(|bytes| etag_from(bytes)).transpose()
}

const fn kind_into(kind: Kind) -> mesh::FileKind {
    match kind {
        Kind::File => mesh::FileKind::File,
        Kind::Dir => mesh::FileKind::Dir,
        Kind::Link => mesh::FileKind::Link,
        Kind::Other => mesh::FileKind::Other,
    }
}

fn kind_from(kind: i32) -> Result<Kind, Refusal> {
    match mesh::FileKind::try_from(kind) {
        Ok(mesh::FileKind::File) => Ok(Kind::File),
        Ok(mesh::FileKind::Dir) => Ok(Kind::Dir),
        Ok(mesh::FileKind::Link) => Ok(Kind::Link),
        Ok(mesh::FileKind::Other) => Ok(Kind::Other),
        Ok(mesh::FileKind::Unspecified) | Err(_) => Err(missing("kind")),
    }
}

/// What is set, when it is.
pub(super) fn id_if_set<T>(
    bytes: &[u8],
    read: fn(&[u8]) -> Option<T>,
    field: &str,
) -> Result<Option<T>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    read(bytes).map(Some).ok_or_else(|| missing(field))
}
