//! Numbers and pieces taken from the front of bytes that nobody vouches for.

use bytes::Bytes;
use cortex_core::Refusal;
use cortex_core::files::content::ContentId;

use super::malformed;

/// The rest of an object. Pieces that are taken share its memory.
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) const fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Result<Bytes, Refusal> {
        if len > self.rest.len() {
            return Err(malformed("An object ends in the middle of a row."));
        }
        Ok(self.rest.split_to(len))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refusal> {
        let mut array = [0; N];
        array.copy_from_slice(&self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16, Refusal> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, Refusal> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Refusal> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, Refusal> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    pub(super) fn id(&mut self) -> Result<ContentId, Refusal> {
        Ok(ContentId::new(self.array()?))
    }

    /// Bytes that were not taken.
    pub(super) const fn left(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> Result<(), Refusal> {
        if self.rest.is_empty() { Ok(()) } else { Err(malformed("Bytes follow the last row of an object.")) }
    }
}
