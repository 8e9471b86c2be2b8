//! How node, nursery and guard write what they tell each other: numbers and texts with their length
//! in front, and a whole message with its own. Never here: what they mean.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;

/// One message that is being written.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new() -> Self {
        // The length of the message comes first, once it is known.
        Self(vec![0; 4])
    }

    pub(crate) fn number(&mut self, number: usize) {
        // Everything was checked against `limits`, far below this.
        self.0.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(crate) fn long(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    /// A number that may be absent.
    pub(crate) fn maybe(&mut self, number: Option<u64>) {
        self.flag(number.is_some());
        self.long(number.unwrap_or(0));
    }

    pub(crate) fn flag(&mut self, flag: bool) {
        self.byte(u8::from(flag));
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn text(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.extend(bytes);
    }

    /// The message with its length in front.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&len.to_le_bytes());
        self.0
    }
}

/// One message that is being read. Everything is `None` once it does not fit.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// What a whole body says; nothing may follow.
    pub(crate) fn whole<T>(body: &'a [u8], read: impl FnOnce(&mut Self) -> Option<T>) -> io::Result<T> {
        let mut rest = Self(body);
        let found = read(&mut rest).filter(|_| rest.0.is_empty());
        found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    pub(crate) fn number(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn maybe(&mut self) -> Option<Option<u64>> {
        let is_there = self.flag()?;
        let number = self.long()?;
        (is_there || number == 0).then(|| is_there.then_some(number))
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn text(&mut self) -> Option<OsString> {
        let len = self.number()?;
        Some(OsString::from_vec(self.take(len as usize)?.to_vec()))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (front, back) = self.0.split_at_checked(len)?;
        self.0 = back;
        Some(front)
    }
}

/// The body of the next message, when it is not longer than `max`.
pub(crate) fn read_message(source: &mut impl Read, max: usize) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    source.read_exact(&mut head)?;
    let len = u32::from_le_bytes(head) as usize;
    if len > max {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut body = vec![0; len];
    source.read_exact(&mut body)?;
    Ok(body)
}
