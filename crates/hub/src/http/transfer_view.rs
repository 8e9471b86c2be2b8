//! From transfers to their shapes on the wire.

use bytes::{BufMut as _, Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::sync::{Cause, End, Halt, RootState, Rule};
use cortex_core::transfer::{Noted, PathNote, TransferEnd};
use cortex_wire::error::Problem;
use cortex_wire::http::{
    HaltView, PullTreeView, TransferEndView, TransferNodeView, TransferNoteView, TransferView,
};
use serde::Serialize;

use crate::http::view::time;
use crate::service::transfers::{Row, Shown};
use crate::transfer::pull::Frame;

/// A transfer.
pub(super) fn transfer(shown: &Shown) -> TransferView {
    TransferView {
        id: shown.id.to_string(),
        kind: shown.kind.as_str().to_owned(),
        state: shown.standing.as_str().to_owned(),
        seq: shown.seq,
        root: shown.root.map(|root| root.to_string()),
        entries: shown.entries,
        bytes: shown.bytes,
        by: shown.by.clone(),
        at: time(shown.at),
        ended_at: shown.ended_at.map(time),
        nodes: shown.rows.iter().map(|row| node(row, shown.dry_run)).collect(),
    }
}

fn node(row: &Row, dry_run: bool) -> TransferNodeView {
    let took = row.took.unwrap_or_else(|| row.began.elapsed());
    TransferNodeView {
        node: row.node.clone(),
        path: row.path.clone(),
        state: row.stage.as_str().to_owned(),
        bytes_total: row.bytes_total,
        bytes_moved: row.bytes_moved,
        wire_bytes: row.wire_bytes,
        steps_total: row.steps_total,
        steps_done: row.steps_done,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        error: row.error.as_ref().map(|refusal| Problem::new(refusal, "")),
        end: row.end.as_ref().map(|end| ended(end, dry_run)),
    }
}

fn ended(end: &TransferEnd, dry_run: bool) -> TransferEndView {
    let is_removal = |note: &&PathNote| matches!(note.what, Noted::RemoveFile | Noted::RemoveDir);
    TransferEndView {
        written: end.files,
        bytes: end.bytes,
        removed: end.notes.iter().filter(is_removal).count() as u64,
        same: end.counts.same,
        extra: end.counts.extra,
        held: end.counts.held.iter().map(|(why, count)| (why.as_str().to_owned(), *count)).collect(),
        notes: end.notes.iter().map(note).collect(),
        notes_more: end.notes_more,
        halt: end.halt.as_ref().map(halt),
        dry_run,
    }
}

fn note(note: &PathNote) -> TransferNoteView {
    let (what, other) = match &note.what {
        Noted::Put => ("write", None),
        Noted::MakeDir => ("make_dir", None),
        Noted::RemoveFile => ("remove", None),
        Noted::RemoveDir => ("remove_dir", None),
        Noted::Exec => ("exec", None),
        Noted::Keep(copy) => ("keep", Some(copy.as_str().to_owned())),
        Noted::Aside(copy) => ("conflict", Some(copy.as_str().to_owned())),
        Noted::Held(why) => (why.as_str(), None),
        Noted::Failed(code) => ("failed", Some(code.as_str().to_owned())),
    };
    TransferNoteView { path: note.path.as_str().to_owned(), what: what.to_owned(), other }
}

fn halt(halt: &Halt) -> HaltView {
    let cause = |cause: &Cause| {
        let side = if cause.end == End::Node { "the node" } else { "the other side" };
        let what = match cause.rule {
            Rule::RootGone => format!("The folder of {side} is gone, or no folder."),
            Rule::RootUnavailable => {
                format!("The folder of {side} is another one, or cannot be looked at.")
            }
            Rule::RootEmptied => format!("The folder of {side} is empty, and was not."),
            Rule::Deletes => format!("{} of {} files would be removed.", cause.deletes, cause.of),
        };
        (cause.rule.as_str(), what)
    };
    let (rules, messages): (Vec<&str>, Vec<String>) = halt.causes.iter().map(cause).unzip();
    HaltView { id: halt.id.to_string(), rule: rules.join(","), message: messages.join(" ") }
}

/// A frame of the content of a pull: its kind, the length of its body in four bytes, the body.
pub(super) fn frame(frame: Frame) -> Bytes {
    let (kind, body) = match frame {
        Frame::Tree(told) => {
            let state = match told.state {
                RootState::Dir => "dir",
                RootState::Missing => "missing",
                RootState::OtherKind => "other_kind",
                RootState::Unavailable => "unavailable",
            };
            let view = PullTreeView {
                root: told.root.to_string(),
                state: state.to_owned(),
                files: told.counts.files,
                root_entries: told.counts.root_entries,
                entries: told.entries,
                bytes: told.bytes,
            };
            (b'T', json(&view))
        }
        Frame::Held(notes) => (b'N', json(&notes.iter().map(note).collect::<Vec<_>>())),
        Frame::Pack(bytes) => (b'P', bytes),
        Frame::Missing(ids) => (b'M', ids_to_bytes(&ids)),
        Frame::End(end) => (b'E', end.err().map_or_else(Bytes::new, |refusal| problem(&refusal))),
    };
    let mut framed = BytesMut::with_capacity(5 + body.len());
    framed.put_u8(kind);
    framed.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
    framed.put(body);
    framed.freeze()
}

/// Ids one after the other.
pub(super) fn ids_to_bytes(ids: &[cortex_core::files::content::ContentId]) -> Bytes {
    ids.iter().flat_map(|id| *id.as_bytes()).collect()
}

fn problem(refusal: &Refusal) -> Bytes {
    json(&Problem::new(refusal, ""))
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}
