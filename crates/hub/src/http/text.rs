//! Output bytes as JSON: text where they are UTF-8, base64 where they are not, in pieces of at most
//! 64 KiB that do not cut a character in two.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cortex_core::limits::FRAME_BYTES_MAX;
use cortex_core::stream::Stream;

/// Cuts the streams of one run. At most three bytes of a stream wait for the rest of their character.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    held: [Held; 2],
}

#[derive(Debug, Default)]
struct Held {
    offset: u64,
    bytes: Vec<u8>,
}

/// One piece, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) stream: Stream,
    /// Of the first byte in its stream.
    pub(super) offset: u64,
    /// The bytes, when they are UTF-8 on their own.
    pub(super) data: Option<String>,
    /// The bytes otherwise.
    pub(super) data_base64: Option<String>,
}

impl Cutter {
    /// Takes bytes of a stream; gives the pieces that can go.
    pub(super) fn push(&mut self, stream: Stream, offset: u64, data: &Bytes) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let held = &mut self.held[index(stream)];
        if !held.bytes.is_empty() && held.offset + held.bytes.len() as u64 != offset {
            pieces.extend(held.release(stream));
        }
        let start = if held.bytes.is_empty() { offset } else { held.offset };
        let mut bytes = std::mem::take(&mut held.bytes);
        bytes.extend_from_slice(data);
        let whole = bytes.len() - tail(&bytes);
        let mut at = 0;
        while at < whole {
            let end = cut(&bytes[..whole], at);
            pieces.push(piece(stream, start + at as u64, &bytes[at..end]));
            at = end;
        }
        *held = Held { offset: start + whole as u64, bytes: bytes.split_off(whole) };
        pieces
    }

    /// What was held back: nothing more comes, or something is missing before what comes.
    pub(super) fn finish(&mut self) -> Vec<Piece> {
        let [out, err] = &mut self.held;
        out.release(Stream::Stdout).into_iter().chain(err.release(Stream::Stderr)).collect()
    }
}

impl Held {
    fn release(&mut self, stream: Stream) -> Option<Piece> {
        let bytes = std::mem::take(&mut self.bytes);
        (!bytes.is_empty()).then(|| piece(stream, self.offset, &bytes))
    }
}

const fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn piece(stream: Stream, offset: u64, bytes: &[u8]) -> Piece {
    match std::str::from_utf8(bytes) {
        Ok(text) => Piece { stream, offset, data: Some(text.to_owned()), data_base64: None },
        Err(_) => Piece { stream, offset, data: None, data_base64: Some(STANDARD.encode(bytes)) },
    }
}

/// How many bytes at the end begin a character that is not complete: 0 to 3.
fn tail(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        if byte & 0b1100_0000 == 0b1000_0000 {
            continue;
        }
        let needs = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if needs > back { back } else { 0 };
    }
    0
}

/// Where the piece that begins at `at` ends: at the bound, or a little before, between characters.
fn cut(bytes: &[u8], at: usize) -> usize {
    let end = at + FRAME_BYTES_MAX;
    if end >= bytes.len() {
        return bytes.len();
    }
    end - tail(&bytes[at..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(piece: &Piece) -> Vec<u8> {
        match (&piece.data, &piece.data_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(coded)) => STANDARD.decode(coded).expect("base64"),
            (Some(_), Some(_)) | (None, None) => panic!("one of the two: {piece:?}"),
        }
    }

    fn run(chunks: &[Vec<u8>]) -> Vec<Piece> {
        let mut cutter = Cutter::default();
        let mut offset = 0;
        let mut pieces = Vec::new();
        for chunk in chunks {
            pieces.extend(cutter.push(Stream::Stdout, offset, &Bytes::from(chunk.clone())));
            offset += chunk.len() as u64;
        }
        pieces.extend(cutter.finish());
        pieces
    }

    proptest! {
        #[test]
        fn the_pieces_are_the_bytes_whatever_they_are(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)
        ) {
            let mut at = 0;
            for piece in run(&chunks) {
                prop_assert_eq!(piece.offset, at);
                at += bytes_of(&piece).len() as u64;
            }
            let joined: Vec<u8> = run(&chunks).iter().flat_map(bytes_of).collect();
            prop_assert_eq!(joined, chunks.concat());
        }

        #[test]
        fn text_stays_text_however_it_is_cut(text in "\\PC{0,200}", every in 1..7usize) {
            let chunks: Vec<Vec<u8>> = text.as_bytes().chunks(every).map(<[u8]>::to_vec).collect();
            let pieces = run(&chunks);
            prop_assert!(pieces.iter().all(|piece| piece.data.is_some()), "{:?}", pieces);
        }
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let text = "ü€😀".repeat(40_000);
        let pieces = run(&[text.clone().into_bytes()]);
        assert!(
            pieces.iter().all(|piece| piece.data.as_ref().is_some_and(|text| text.len() <= FRAME_BYTES_MAX))
        );
        assert_eq!(pieces.iter().flat_map(bytes_of).collect::<Vec<_>>(), text.into_bytes());
    }

    #[test]
    fn a_gap_releases_what_was_held() {
        let mut cutter = Cutter::default();
        assert!(cutter.push(Stream::Stdout, 0, &Bytes::from_static(&[0xE2])).is_empty());
        let pieces = cutter.push(Stream::Stdout, 10, &Bytes::from_static(b"a"));
        assert_eq!(pieces.len(), 2);
        assert_eq!((pieces[0].offset, pieces[1].offset), (0, 10));
        assert_eq!(pieces[1].data.as_deref(), Some("a"));
    }
}
