//! A file read from front to back in small parts: what is read of it is read ahead, so that a log of
//! very many small blocks does not cost a call of the system for each. Where the parts are far from
//! one another, as the headers of large blocks, nothing more is read than is asked for.

use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

/// What is read at once.
pub(super) const AHEAD_BYTES: usize = 64 * 1024;
/// A part that begins so close behind the one before is read with what follows it.
const NEAR_BYTES: u64 = AHEAD_BYTES as u64 / 2;

/// A file, and what was read of it last.
pub(super) struct Ahead<'f, F> {
    file: &'f F,
    len: u64,
    held: Vec<u8>,
    /// Where `held` begins in the file.
    begin: u64,
    /// Where the part before began.
    before: u64,
}

impl<'f, F: FileExt> Ahead<'f, F> {
    /// Reads nothing at or behind `len` that is not asked for.
    pub(super) const fn new(file: &'f F, len: u64) -> Self {
        Self { file, len, held: Vec::new(), begin: 0, before: 0 }
    }

    /// So many bytes from `offset` on.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> io::Result<&[u8]> {
        let near = offset.checked_sub(self.before).is_some_and(|step| step < NEAR_BYTES);
        self.before = offset;
        if !self.holds(offset, len) {
            let rest = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
            let more = if near { AHEAD_BYTES.min(rest) } else { 0 };
            // What cannot be read behind it is no reason to withhold what was asked for.
            self.hold(offset, len.max(more)).or_else(|_| self.hold(offset, len))?;
        }
        let from = usize::try_from(offset - self.begin).unwrap_or(usize::MAX);
        Ok(&self.held[from..from + len])
    }

    /// The same, to keep.
    pub(super) fn bytes(&mut self, offset: u64, len: usize) -> io::Result<Bytes> {
        let copy = Bytes::copy_from_slice;
        if self.holds(offset, len) || len < AHEAD_BYTES {
            return self.read(offset, len).map(copy);
        }
        self.read(offset, len)?;
        // A large part is all that is held.
        self.held.truncate(len);
        Ok(Bytes::from(std::mem::take(&mut self.held)))
    }

    fn hold(&mut self, offset: u64, len: usize) -> io::Result<()> {
        self.held.resize(len, 0);
        self.begin = offset;
        self.file.read_exact_at(&mut self.held, offset).inspect_err(|_| self.held.clear())
    }

    fn holds(&self, offset: u64, len: usize) -> bool {
        self.begin <= offset && offset + len as u64 <= self.begin + self.held.len() as u64
    }
}
