//! A part of a file, by bytes or by lines, picked out of pieces that come one after the other.

use cortex_core::files::op::ReadRange;
use memchr::{memchr, memchr_iter};

/// Picks a part out of pieces.
#[derive(Debug)]
pub struct Picker {
    range: ReadRange,
    max: usize,
    at: u64,
    /// The line in which the next piece begins.
    line: u64,
    data: Vec<u8>,
    start: Option<u64>,
    first: u64,
    is_cut: bool,
    is_over: bool,
}

/// What was picked.
#[derive(Debug, PartialEq, Eq)]
pub struct Picked {
    /// The bytes.
    pub data: Vec<u8>,
    /// Where they begin in the file; where it ends, when nothing of it is in the part.
    pub from: u64,
    /// In which line, from 1.
    pub first_line: u64,
    /// Whether these are all the bytes of the part.
    pub is_complete: bool,
}

impl Picker {
    /// At most `max` bytes of this part.
    pub const fn new(range: ReadRange, max: usize) -> Self {
        Self {
            range,
            max,
            at: 0,
            line: 1,
            data: Vec::new(),
            start: None,
            first: 1,
            is_cut: false,
            is_over: false,
        }
    }

    /// Says that the next piece begins here, and that what is in front of it does not matter.
    #[must_use]
    pub const fn from(mut self, at: u64) -> Self {
        self.at = at;
        self
    }

    /// Whether what is still to come makes no difference.
    pub const fn is_done(&self) -> bool {
        self.is_over || self.is_cut
    }

    /// Takes in the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        match self.range {
            ReadRange::All => self.bytes(piece, 0, u64::MAX),
            ReadRange::Bytes { from, len } => self.bytes(piece, from, from.saturating_add(len)),
            ReadRange::Lines { from, count } => self.lines(piece, from, from.saturating_add(count)),
        }
        self.at += piece.len() as u64;
    }

    /// What it has picked.
    pub fn finish(self) -> Picked {
        Picked {
            from: self.start.unwrap_or(self.at),
            data: self.data,
            first_line: self.first,
            is_complete: !self.is_cut,
        }
    }

    fn bytes(&mut self, piece: &[u8], from: u64, end: u64) {
        let clamp = |offset: u64| {
            usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX).min(piece.len())
        };
        let (begin, stop) = (clamp(from), clamp(end));
        if self.start.is_none() {
            self.line += memchr_iter(b'\n', &piece[..begin]).count() as u64;
            if begin < piece.len() || from <= self.at {
                self.start = Some(self.at + begin as u64);
            }
            self.first = self.line;
        }
        self.take(&piece[begin.min(stop)..stop]);
        self.is_over = stop < piece.len();
    }

    fn lines(&mut self, piece: &[u8], from: u64, end: u64) {
        let mut at = 0;
        while at < piece.len() && self.line < end {
            let next = memchr(b'\n', &piece[at..]).map(|len| at + len + 1);
            let stop = next.unwrap_or(piece.len());
            if self.line >= from {
                if self.start.is_none() {
                    (self.start, self.first) = (Some(self.at + at as u64), self.line);
                }
                self.take(&piece[at..stop]);
            }
            self.line += u64::from(next.is_some());
            at = stop;
        }
        if self.start.is_none() {
            self.first = self.line;
        }
        self.is_over = self.line >= end;
    }

    fn take(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.max - self.data.len());
        self.data.extend_from_slice(&bytes[..fits]);
        self.is_cut |= fits < bytes.len();
    }
}

/// Where the last character that is whole ends; the end when there is none, so that a reader gets on.
pub fn whole_chars(data: &[u8]) -> usize {
    match std::str::from_utf8(data) {
        Ok(_) => data.len(),
        Err(error) if error.valid_up_to() > 0 && error.error_len().is_none() => error.valid_up_to(),
        Err(_) => data.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_are_those_that_a_split_gives(
            content in "[ab\nأ]{0,60}", from in 1..9_u64, count in 1..9_u64, piece in 1..7_usize, max in 0..70_usize,
        ) {
            let content = content.as_bytes();
            let mut picker = Picker::new(ReadRange::Lines { from, count }, max);
            content.chunks(piece).for_each(|piece| picker.push(piece));
            let wanted = content.split_inclusive(|byte| *byte == b'\n').skip(from as usize - 1).take(count as usize);
            let wanted: Vec<u8> = wanted.flatten().copied().collect();
            let start = content.split_inclusive(|byte| *byte == b'\n').take(from as usize - 1).map(<[u8]>::len).sum::<usize>();
            let picked = picker.finish();
            prop_assert_eq!(&picked.data[..], &wanted[..wanted.len().min(max)]);
            prop_assert_eq!(picked.is_complete, wanted.len() <= max);
            prop_assert_eq!(picked.from, start as u64);
            let mut bytes = Picker::new(ReadRange::Bytes { from: from * 3, len: count * 3 }, max);
            content.chunks(piece).for_each(|piece| bytes.push(piece));
            let (begin, end) = (content.len().min(from as usize * 3), content.len().min((from + count) as usize * 3));
            let bytes = bytes.finish();
            prop_assert_eq!(&bytes.data[..], &content[begin..end][..(end - begin).min(max)]);
            let before = content[..begin].iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(bytes.first_line, before as u64 + 1);
        }
    }
}
