//! What bytes are, seen once as they come by.

use cortex_core::files::answer::{Encoding, Ending};
use memchr::{memchr, memchr_iter};

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What is known so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    bytes: u64,
    /// The first three bytes.
    head: Vec<u8>,
    /// The beginning of a character that is not whole yet, at most three bytes.
    begun: Vec<u8>,
    is_binary: bool,
    newlines: u64,
    after_return: u64,
    last: Option<u8>,
}

impl Text {
    /// Takes in the next bytes.
    pub fn push(&mut self, piece: &[u8]) {
        if piece.is_empty() {
            return;
        }
        let missing = MARK.len() - self.head.len();
        self.head.extend_from_slice(&piece[..missing.min(piece.len())]);
        for at in memchr_iter(b'\n', piece) {
            let before = if at == 0 { self.last } else { Some(piece[at - 1]) };
            self.newlines += 1;
            self.after_return += u64::from(before == Some(b'\r'));
        }
        self.bytes += piece.len() as u64;
        self.last = piece.last().copied();
        if !self.is_binary {
            self.is_binary = memchr(0, piece).is_some() || !self.is_utf8(piece);
        }
    }

    fn is_utf8(&mut self, mut piece: &[u8]) -> bool {
        while !self.begun.is_empty() {
            let Some((first, rest)) = piece.split_first() else { return true };
            self.begun.push(*first);
            piece = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.begun = piece[error.valid_up_to()..].to_vec();
                true
            }
        }
    }

    /// What the bytes are, how lines end, how many there are, and whether the last one has an end.
    pub fn summary(&self) -> (Encoding, Ending, u64, bool) {
        let encoding = match (self.is_binary || !self.begun.is_empty(), self.head == MARK) {
            (true, _) => Encoding::Binary,
            (false, true) => Encoding::Utf8Bom,
            (false, false) => Encoding::Utf8,
        };
        let ending = match (self.newlines, self.after_return) {
            (0, _) => Ending::None,
            (_, 0) => Ending::Lf,
            (all, returns) if all == returns => Ending::CrLf,
            _ => Ending::Mixed,
        };
        let final_newline = self.last == Some(b'\n');
        let total = self.newlines + u64::from(self.bytes > 0 && !final_newline);
        (encoding, ending, total, final_newline)
    }
}

/// What a part of a file is, that begins at `from` and may be cut anywhere.
pub fn of_part(part: &[u8], from: u64) -> Encoding {
    // At most three bytes of a character that began before.
    let continues = part.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    let skip = if from == 0 { 0 } else { continues };
    let mut text = Text::default();
    text.push(&part[skip..]);
    text.begun.clear();
    match text.summary() {
        (Encoding::Utf8Bom, ..) if from > 0 => Encoding::Utf8,
        (encoding, ..) => encoding,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(content: &[u8]) -> (Encoding, Ending, u64, bool) {
        let mut text = Text::default();
        text.push(content);
        text.summary()
    }

    #[test]
    fn a_text_is_told_by_its_mark_its_lines_and_its_end() {
        use Encoding::{Binary, Utf8, Utf8Bom};
        use Ending::{CrLf, Lf, Mixed, None};
        for (content, expected) in [
            (&b""[..], (Utf8, None, 0, false)),
            (b"a", (Utf8, None, 1, false)),
            (b"\n", (Utf8, Lf, 1, true)),
            (b"a\nb", (Utf8, Lf, 2, false)),
            (b"a\r\nb\r\n", (Utf8, CrLf, 2, true)),
            (b"a\r\nb\n", (Utf8, Mixed, 2, true)),
            (b"a\rb", (Utf8, None, 1, false)),
            (b"\xef\xbb\xbfa\n", (Utf8Bom, Lf, 1, true)),
            ("ملف\n".as_bytes(), (Utf8, Lf, 1, true)),
            (b"a\0\n", (Binary, Lf, 1, true)),
            (b"caf\xe9", (Binary, None, 1, false)),
            (b"\xd9", (Binary, None, 1, false)),
        ] {
            assert_eq!(of(content), expected, "{content:?}");
        }
        assert_eq!(of_part("ملف".as_bytes().get(1..5).expect("a part"), 1), Encoding::Utf8);
        assert_eq!(of_part(b"a\0", 9), Encoding::Binary);
    }

    proptest! {
        #[test]
        fn where_content_is_cut_makes_no_difference(
            content in prop::collection::vec(prop::sample::select(b"a\n\r\0\xd9\x85\xef\xbb\xbf\xf0\x9f\xa6\x80".to_vec()), 0..40),
            cuts in prop::collection::vec(0..40_usize, 0..5),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            let mut text = Text::default();
            cuts.windows(2).for_each(|cut| text.push(&content[cut[0]..cut[1]]));
            prop_assert_eq!(text.summary(), of(&content));
            let is_text = std::str::from_utf8(&content).is_ok() && !content.contains(&0);
            prop_assert_eq!(text.summary().0 != Encoding::Binary, is_text);
            prop_assert_eq!(text.summary().2, content.split_inclusive(|byte| *byte == b'\n').count() as u64);
        }
    }
}
