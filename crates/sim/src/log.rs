//! The hub's log of one run's output, as a disk keeps it: what is only in memory goes with the
//! process, what is not synced goes with the power. And the bytes that processes print.

use std::sync::OnceLock;

use bytes::Bytes;
use cortex_core::id::RunId;
use cortex_core::stream::{Positions, Stream};

/// Length of the pattern; prime, so that no chunk size hides a shift.
const PATTERN: usize = 65_521;

/// What a run prints: the same bytes at the same offset, whoever asks.
pub(crate) fn printed(pattern: &Bytes, run: RunId, stream: Stream, offset: u64, len: u64) -> Bytes {
    let salt = u64::from(run.as_bytes()[15]) + if stream == Stream::Stdout { 0 } else { 7_919 };
    let begin = usize::try_from((offset + salt) % PATTERN as u64).unwrap_or(0);
    pattern.slice(begin..begin + usize::try_from(len).unwrap_or(0))
}

/// The pattern, long enough for a frame at any place.
pub(crate) fn pattern() -> Bytes {
    static PATTERN_ONCE: OnceLock<Bytes> = OnceLock::new();
    PATTERN_ONCE.get_or_init(made_pattern).clone()
}

fn made_pattern() -> Bytes {
    let mut state = 1_u32;
    let mut once: Vec<u8> = Vec::with_capacity(3 * PATTERN);
    for _ in 0..PATTERN {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        once.push(state.to_be_bytes()[0]);
    }
    Bytes::from(once.repeat(3))
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    Data(Stream, u64),
    Mark(Positions),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pieces: Vec<Piece>,
    written: usize,
    synced: usize,
}

impl Log {
    /// Whether the bytes follow what is there.
    pub(crate) fn append(&mut self, stream: Stream, offset: u64, len: u64) -> bool {
        let follows = self.end(self.pieces.len()).of(stream) == offset;
        self.pieces.push(Piece::Data(stream, len));
        follows
    }

    pub(crate) fn mark(&mut self, to: Positions) {
        if to.total() > self.positions().total() {
            self.pieces.push(Piece::Mark(to));
        }
    }

    pub(crate) fn flush(&mut self) -> u64 {
        self.written = self.pieces.len();
        self.end(self.written).total()
    }

    pub(crate) fn sync(&mut self) -> u64 {
        self.synced = self.written;
        self.end(self.synced).total()
    }

    pub(crate) fn crash(&mut self, power: bool) {
        self.pieces.truncate(if power { self.synced } else { self.written });
        (self.written, self.synced) = (self.pieces.len(), self.pieces.len());
    }

    pub(crate) fn positions(&self) -> Positions {
        self.end(self.pieces.len())
    }

    pub(crate) fn has_marks(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Mark(_)))
    }

    fn end(&self, pieces: usize) -> Positions {
        let mut at = Positions::default();
        for piece in &self.pieces[..pieces] {
            match piece {
                Piece::Data(stream, len) => at.advance(*stream, *len),
                Piece::Mark(to) => at = *to,
            }
        }
        at
    }
}
