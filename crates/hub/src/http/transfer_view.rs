//! From transfers to their shapes on the wire.

use bytes::{BufMut as _, Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::sync::RootState;
use cortex_wire::error::Problem;
use cortex_wire::http::{
    LeftOutView, PullTreeView, TransferEndView, TransferNodeView, TransferNoteView, TransferView,
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
        end: row.end.as_ref().map(|end| TransferEndView::of(end, dry_run)),
        left_out: LeftOutView::of(row.left_out),
    }
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
                left_out: LeftOutView::of(told.left_out),
            };
            (b'T', json(&view))
        }
        Frame::Held(notes) => (b'N', json(&notes.iter().map(TransferNoteView::of).collect::<Vec<_>>())),
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
