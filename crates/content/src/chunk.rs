//! Where a file is cut into chunks: at places that its content chooses (FastCDC of 2020), so that an
//! insert moves the cuts around it and no others. The cuts decide what two machines have in common:
//! they must never change.

use cortex_core::limits::{CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, CHUNK_WHOLE_BYTES_MAX};
use fastcdc::v2020::{Normalization, cut, select_masks};

/// Bytes that are read at once: they are in the processor's cache still when they are cut and hashed.
const READ_BYTES: usize = CHUNK_BYTES_MAX;
/// What a cutter keeps at most: a file that may be one chunk, and one read that shows that it is not.
const BUFFER_BYTES: usize = CHUNK_WHOLE_BYTES_MAX + READ_BYTES;

/// Cuts one file after the other, read in pieces of any size. Its memory is 1.25 MiB, taken once; no
/// byte is copied but the beginning of a chunk that a read did not end.
///
/// The caller reads into [`space`](Self::space), tells how much by [`filled`](Self::filled) or the end
/// by [`end`](Self::end), takes chunks until there are none, and goes on.
#[derive(Debug)]
pub struct Cutter {
    buffer: Box<[u8]>,
    /// What was handed out of the buffer.
    start: usize,
    /// What was read into it.
    until: usize,
    /// Whether the file is longer than one that is a single chunk.
    long: bool,
    ended: bool,
    masks: (u64, u64),
}

impl Default for Cutter {
    fn default() -> Self {
        Self::new()
    }
}

impl Cutter {
    /// A cutter in front of its first file.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            start: 0,
            until: 0,
            long: false,
            ended: false,
            masks: masks(),
        }
    }

    /// Where the next bytes of the file go: at least one and at most 256 KiB. What stands in it before
    /// is of no meaning.
    ///
    /// Chunks that wait are to be taken first: there is always room then.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 && self.buffer.len() - self.until < READ_BYTES {
            self.buffer.copy_within(self.start..self.until, 0);
            self.until -= self.start;
            self.start = 0;
        }
        let until = self.buffer.len().min(self.until + READ_BYTES);
        &mut self.buffer[self.until..until]
    }

    /// So many bytes were read into [`space`](Self::space).
    pub fn filled(&mut self, bytes: usize) {
        self.until = self.buffer.len().min(self.until + bytes);
        self.long |= self.until - self.start > CHUNK_WHOLE_BYTES_MAX;
    }

    /// The file has ended. Once its last chunk is taken, the next [`space`](Self::space) is that of
    /// another file.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next chunk, when there is one without further bytes. After [`end`](Self::end), `None` says
    /// that the file is through; an empty one has no chunk.
    pub fn next_chunk(&mut self) -> Option<&[u8]> {
        let there = self.until - self.start;
        if self.ended && there == 0 {
            (self.start, self.until, self.long, self.ended) = (0, 0, false, false);
            return None;
        }
        let len = match (self.long, self.ended) {
            (false, false) => return None,
            (false, true) => there,
            (true, ended) => cut_at(self.masks, &self.buffer[self.start..self.until], ended)?,
        };
        self.start += len;
        Some(&self.buffer[self.start - len..self.start])
    }
}

/// How long the chunk at the front of `bytes` is, a part of a file above 1 MiB that begins with a chunk; with
/// `ended` up to the file's end. `None` when that needs further bytes: it is told for 256 KiB and more.
pub fn next_len(bytes: &[u8], ended: bool) -> Option<usize> {
    cut_at(masks(), bytes, ended)
}

fn masks() -> (u64, u64) {
    select_masks(CHUNK_BYTES_AVERAGE, Normalization::Level1)
}

fn cut_at((strict, loose): (u64, u64), there: &[u8], ended: bool) -> Option<usize> {
    // Only with all the bytes that a chunk may have, its end does not depend on how they came.
    if there.is_empty() || (!ended && there.len() < CHUNK_BYTES_MAX) {
        return None;
    }
    let (min, average, max) = (CHUNK_BYTES_MIN, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX);
    // The masks of the even bytes are those of the odd ones, moved: two bytes are looked at in one.
    Some(cut(there, min, average, max, strict, loose, strict << 1, loose << 1).1)
}

#[cfg(test)]
mod tests;
