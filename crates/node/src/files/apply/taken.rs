//! What of a transfer lies in staging, as it is told to the next try: a file that only grows, in pieces
//! that are whole or not there. What is noted is true while the machine runs on; after a power cut only
//! what stands in front of a mark is, since that was made durable before (SYNC 6).

use std::collections::HashMap;

use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;

/// Which start of the machine it is; `None` when the system does not say.
pub(super) type Boot = Option<[u8; 16]>;

/// What lies in staging of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its whole content.
    pub(super) id: ContentId,
    /// The chunks that are there; `None`: all is.
    pub(super) chunks: Option<Vec<Range>>,
}

/// Numbers of chunks, from and until.
type Range = (u32, u32);

/// What a try before left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// The tree that it was about.
    pub(super) target: Option<TreeId>,
    /// By path.
    pub(super) parts: HashMap<RelPath, Part>,
}

const TARGET: u8 = b'T';
const BOOT: u8 = b'B';
const WHOLE: u8 = b'F';
const CHUNKS: u8 = b'C';
const MARK: u8 = b'S';
/// In front of each piece: its length, and the first bytes of its hash.
const HEAD_BYTES: usize = 20;

/// A piece that is being written.
#[derive(Debug, Default)]
pub(super) struct Piece(Vec<u8>);

impl Piece {
    pub(super) fn target(&mut self, target: TreeId) {
        self.0.push(TARGET);
        self.0.extend_from_slice(target.as_bytes());
    }

    pub(super) fn boot(&mut self, boot: Boot) {
        self.0.push(BOOT);
        self.0.extend_from_slice(&boot.unwrap_or_default());
    }

    pub(super) fn whole(&mut self, path: &RelPath, id: &ContentId) {
        self.row(WHOLE, path, id);
    }

    pub(super) fn chunks(&mut self, path: &RelPath, id: &ContentId, from: u32, until: u32) {
        self.row(CHUNKS, path, id);
        self.0.extend_from_slice(&from.to_le_bytes());
        self.0.extend_from_slice(&until.to_le_bytes());
    }

    pub(super) fn mark(&mut self) {
        self.0.push(MARK);
    }

    fn row(&mut self, kind: u8, path: &RelPath, id: &ContentId) {
        let path = path.as_str().as_bytes();
        self.0.push(kind);
        // A path has at most 4,096 bytes.
        self.0.extend_from_slice(&u16::try_from(path.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend_from_slice(path);
        self.0.extend_from_slice(id.as_bytes());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As it is appended; the piece is empty then.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.0.len());
        bytes.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&blake3::hash(&self.0).as_bytes()[..HEAD_BYTES - 4]);
        bytes.append(&mut self.0);
        bytes
    }
}

/// Reads what is true of it at this start of the machine.
pub(super) fn load(mut bytes: &[u8], boot: Boot) -> Loaded {
    let mut loaded = Loading { boot, is_same: false, loose: Vec::new(), done: Loaded::default() };
    while let Some((payload, rest)) = piece(bytes) {
        if loaded.take(payload).is_none() {
            break;
        }
        bytes = rest;
    }
    loaded.end()
}

fn piece(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let len = u32::from_le_bytes(*head.first_chunk()?);
    let (payload, rest) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    (blake3::hash(payload).as_bytes()[..HEAD_BYTES - 4] == head[4..]).then_some((payload, rest))
}

struct Loading {
    boot: Boot,
    /// Whether what is read was written since the machine was started.
    is_same: bool,
    /// What no mark covers.
    loose: Vec<(RelPath, ContentId, Option<Range>)>,
    done: Loaded,
}

impl Loading {
    fn take(&mut self, mut bytes: &[u8]) -> Option<()> {
        while let Some((kind, mut rest)) = bytes.split_first() {
            match *kind {
                TARGET => self.done.target = TreeId::from_slice(take(&mut rest, 32)?),
                BOOT => {
                    self.settle(self.is_same);
                    self.is_same = self.boot.as_ref().is_some_and(|boot| take(&mut rest, 16) == Some(boot));
                    if !self.is_same && self.boot.is_none() {
                        take(&mut rest, 16)?;
                    }
                }
                MARK => self.settle(true),
                WHOLE | CHUNKS => {
                    let len = u16::from_le_bytes(*take(&mut rest, 2)?.first_chunk()?);
                    let path =
                        RelPath::parse(std::str::from_utf8(take(&mut rest, len.into())?).ok()?).ok()?;
                    let id = ContentId::from_slice(take(&mut rest, 32)?)?;
                    let mut number = || Some(u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk()?));
                    let range = if *kind == CHUNKS { Some((number()?, number()?)) } else { None };
                    self.loose.push((path, id, range));
                }
                _ => return None,
            }
            bytes = rest;
        }
        Some(())
    }

    fn settle(&mut self, is_true: bool) {
        for (path, id, range) in self.loose.drain(..) {
            if !is_true {
                continue;
            }
            let part = self.done.parts.entry(path).or_insert_with(|| Part { id, chunks: Some(Vec::new()) });
            if part.id != id {
                *part = Part { id, chunks: Some(Vec::new()) };
            }
            match (range, &mut part.chunks) {
                (Some(range), Some(chunks)) => chunks.push(range),
                (Some(_), None) => {}
                (None, chunks) => *chunks = None,
            }
        }
    }

    fn end(mut self) -> Loaded {
        self.settle(self.is_same);
        self.done
    }
}

fn take<'a>(from: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, rest) = from.split_at_checked(len)?;
    *from = rest;
    Some(front)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a path")
    }

    fn written(boot: Boot, marked: bool) -> Vec<u8> {
        let mut piece = Piece::default();
        piece.target(TreeId::of(b"t"));
        piece.boot(boot);
        let mut bytes = piece.take();
        piece.whole(&path("a/ملف"), &ContentId::of(b"a"));
        piece.chunks(&path("big"), &ContentId::of(b"b"), 0, 7);
        piece.chunks(&path("big"), &ContentId::of(b"b"), 9, 10);
        if marked {
            piece.mark();
        }
        bytes.extend(piece.take());
        piece.whole(&path("c"), &ContentId::of(b"c"));
        bytes.extend(piece.take());
        bytes
    }

    #[test]
    fn what_was_noted_is_true_until_the_machine_starts_again_and_before_a_mark_for_good() {
        let boot = Some([7; 16]);
        let all = load(&written(boot, true), boot);
        assert_eq!((all.target, all.parts.len()), (Some(TreeId::of(b"t")), 3));
        assert_eq!(all.parts[&path("a/ملف")], Part { id: ContentId::of(b"a"), chunks: None });
        assert_eq!(all.parts[&path("big")].chunks, Some(vec![(0, 7), (9, 10)]));
        for (marked, later, parts) in [(true, Some([8; 16]), 2), (true, None, 2), (false, Some([8; 16]), 0)] {
            let loaded = load(&written(boot, marked), later);
            assert_eq!((loaded.target, loaded.parts.len()), (all.target, parts), "{later:?}");
        }
        assert!(load(&written(None, false), None).parts.is_empty(), "a system that does not say");
    }

    #[test]
    fn a_torn_end_is_not_there() {
        let bytes = written(Some([7; 16]), true);
        for cut in 0..bytes.len() {
            let loaded = load(&bytes[..cut], Some([7; 16]));
            assert!(matches!(loaded.parts.len(), 0 | 2), "{cut}");
        }
        assert_eq!(load(b"", None), Loaded::default());
    }
}
