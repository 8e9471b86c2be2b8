//! The content of a pull as the hub sends it: frames of a kind, the length of the body in four bytes
//! (little-endian), and the body. What is read is foreign: a length is bounded before memory is taken.

use bytes::{Buf as _, Bytes, BytesMut};
use cortex_core::Code;
use cortex_core::files::content::ContentId;
use cortex_core::limits::{CARRY_BYTES_MAX, CARRY_DATA_BYTES_MAX};
use cortex_core::words::count;
use cortex_wire::error::Problem;
use cortex_wire::http::{PullTreeView, TransferNoteView};
use serde::de::DeserializeOwned;

use crate::client::Lines;
use crate::error::{Failure, Result};

/// Bytes in front of a body.
const HEAD_BYTES: usize = 5;
/// Longest body; notes as JSON are longer than as they travel between hub and node.
const BODY_BYTES_MAX: usize = 4 * CARRY_BYTES_MAX;
/// Bytes of an id.
const ID_BYTES: usize = 32;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// The tree, first.
    Tree(PullTreeView),
    /// Paths that it says nothing of.
    Notes(Vec<TransferNoteView>),
    /// The next bytes of packs, at most [`CARRY_DATA_BYTES_MAX`].
    Pack(Bytes),
    /// Ids that cannot be given.
    Missing(Vec<ContentId>),
    /// The end, or what went wrong.
    End(Option<Box<Problem>>),
}

/// Takes frames out of bytes that come in pieces of any length.
#[derive(Default)]
struct Cutter {
    buffer: BytesMut,
}

impl Cutter {
    /// The next frame that is all there. One of a kind that a newer hub has is passed over.
    fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some((&[kind, a, b, c, d], _)) = self.buffer.split_first_chunk::<HEAD_BYTES>() else {
                return Ok(None);
            };
            let len = u32::from_le_bytes([a, b, c, d]) as usize;
            if len > BODY_BYTES_MAX {
                return Err(strange(&format!("a frame of {}", count(len, "byte", "bytes"))));
            }
            if self.buffer.len() < HEAD_BYTES + len {
                return Ok(None);
            }
            self.buffer.advance(HEAD_BYTES);
            let body = self.buffer.split_to(len).freeze();
            if let Some(frame) = frame(kind, body)? {
                return Ok(Some(frame));
            }
        }
    }
}

fn frame(kind: u8, body: Bytes) -> Result<Option<Frame>> {
    Ok(Some(match kind {
        b'T' => Frame::Tree(json(&body)?),
        b'N' => Frame::Notes(json(&body)?),
        b'P' if body.is_empty() => return Ok(None),
        b'P' if body.len() > CARRY_DATA_BYTES_MAX => {
            return Err(strange("a piece of a pack that is too long"));
        }
        b'P' => Frame::Pack(body),
        b'M' => {
            let (ids, rest) = body.as_chunks::<ID_BYTES>();
            if !rest.is_empty() {
                return Err(strange("half an id"));
            }
            Frame::Missing(ids.iter().map(|id| ContentId::new(*id)).collect())
        }
        b'E' if body.is_empty() => Frame::End(None),
        b'E' => Frame::End(Some(Box::new(json(&body)?))),
        _ => return Ok(None),
    }))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| strange(&error.to_string()))
}

fn strange(what: &str) -> Failure {
    Failure::new(
        Code::VersionUnsupported,
        format!("The hub's content cannot be read: {what}."),
        "Install the same version of `cortex` here and on the hub.",
    )
}

/// The frames of one answer.
pub(super) struct Frames {
    body: Lines,
    cutter: Cutter,
}

impl Frames {
    pub(super) fn new(body: Lines) -> Self {
        Self { body, cutter: Cutter::default() }
    }

    /// The next one; `None` when the answer broke off.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.cutter.next()? {
                return Ok(Some(frame));
            }
            match self.body.piece().await? {
                Some(piece) => self.cutter.buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len()).expect("short").to_le_bytes();
        [&[kind][..], &len, body].concat()
    }

    #[test]
    fn frames_are_found_wherever_the_pieces_end_and_unknown_ones_are_passed_over() {
        let tree = br#"{"root":"ab","state":"dir","files":1,"root_entries":1,"entries":1,"bytes":2}"#;
        let notes = r#"[{"path":"ملف","what":"unreadable"}]"#;
        let all = [
            framed(b'T', tree),
            framed(b'N', notes.as_bytes()),
            framed(b'?', b"of next year"),
            framed(b'P', b"pack"),
            framed(b'P', b""),
            framed(b'M', &[7; 64]),
            framed(b'E', b""),
        ]
        .concat();
        for piece in [1, 2, 7, 1000] {
            let (mut cutter, mut found) = (Cutter::default(), Vec::new());
            for some in all.chunks(piece) {
                cutter.buffer.extend_from_slice(some);
                while let Some(frame) = cutter.next().expect("frames") {
                    found.push(frame);
                }
            }
            assert_eq!(found.len(), 5, "{found:?}");
            assert!(matches!(&found[0], Frame::Tree(tree) if tree.state == "dir" && tree.bytes == 2));
            assert!(matches!(&found[1], Frame::Notes(notes) if notes[0].path == "ملف"));
            assert_eq!(found[2], Frame::Pack(Bytes::from_static(b"pack")));
            assert_eq!(found[3], Frame::Missing(vec![ContentId::new([7; 32]); 2]));
            assert_eq!(found[4], Frame::End(None));
        }
    }

    #[test]
    fn an_end_may_say_what_went_wrong_and_nonsense_takes_no_memory() {
        let cut = |bytes: &[u8]| {
            let mut cutter = Cutter { buffer: bytes.into() };
            cutter.next()
        };
        let problem = r#"{"code":"node_offline","message":"why","hint":"h","retryable":true,"docs":"d"}"#;
        let end = cut(&framed(b'E', problem.as_bytes()));
        assert!(matches!(end, Ok(Some(Frame::End(Some(problem)))) if problem.retryable));
        for bad in [
            [&b"P"[..], &u32::MAX.to_le_bytes()].concat(),
            framed(b'P', &vec![0; CARRY_DATA_BYTES_MAX + 1]),
            framed(b'T', b"{}"),
            framed(b'M', &[0; 33]),
        ] {
            cut(&bad).expect_err("no frame");
        }
    }
}
