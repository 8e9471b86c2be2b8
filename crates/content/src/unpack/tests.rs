//! Tests of what a receiver believes.

use cortex_core::limits::PACK_BYTES_MAX;
use proptest::prelude::*;

use super::*;
use crate::pack::{Added, ChunkRef, Pack, PackWriter, encode};
use crate::samples::{noise, text};

fn pack(chunks: &[Vec<u8>]) -> Pack {
    let mut writer = PackWriter::new(1);
    for chunk in chunks {
        assert_eq!(writer.add(ContentId::of(chunk), chunk), Added::Yes);
    }
    writer.finish().expect("a pack")
}

/// A head that claims what it is told to, if a reader takes it.
fn head(codec: Codec, body_len: usize, chunks: &[Vec<u8>]) -> PackHead {
    let rows: Vec<ChunkRef> =
        chunks.iter().map(|chunk| ChunkRef { id: ContentId::of(chunk), len: chunk.len() as u32 }).collect();
    let plain = rows.iter().map(|row| row.len).sum();
    PackHead::read(&encode(codec, plain, body_len as u32, &rows)).expect("a head").expect("all of it").0
}

/// What is handed out of a pack that comes in pieces as long as `lens` says, and how it ends.
fn unpack(head: &PackHead, tail: &[u8], lens: &[usize]) -> (Vec<Vec<u8>>, Result<(), Refusal>) {
    let mut chunks = Vec::new();
    let end = unpack_into(head, tail, lens, &mut chunks);
    (chunks, end)
}

fn unpack_into(
    head: &PackHead,
    tail: &[u8],
    lens: &[usize],
    chunks: &mut Vec<Vec<u8>>,
) -> Result<(), Refusal> {
    let mut unpack = Unpack::new(head.clone())?;
    let (mut rest, mut lens) = (tail, lens.iter().cycle());
    while !rest.is_empty() {
        let (piece, after) =
            rest.split_at(rest.len().min(lens.next().map_or(usize::MAX, |len| (*len).max(1))));
        rest = after;
        unpack.push(Bytes::copy_from_slice(piece))?;
        while let Some((id, bytes)) = unpack.next_chunk()? {
            assert_eq!(ContentId::of(bytes), id, "never a chunk that is not what its id names");
            chunks.push(bytes.to_vec());
        }
    }
    unpack.finish().map(|_| ())
}

/// Whether [`TailCheck`] takes it.
fn checked(head: &PackHead, tail: &[u8]) -> bool {
    let mut check = TailCheck::new(head.clone()).expect("memory");
    let mut pieces = tail.chunks(1_000);
    pieces.all(|piece| check.push(Bytes::copy_from_slice(piece)).is_ok()) && check.finish().is_ok()
}

fn chunks(codec: Codec) -> Vec<Vec<u8>> {
    let make = if codec == Codec::Raw { noise } else { text };
    (0..5).map(|seed| make(seed, 700 + 100 * seed as usize)).collect()
}

/// ABUSE 53 as far as a format can hold it: bytes under another's id, chunks in another order, one id
/// with two contents. What was right before is handed out, and then nothing more.
#[test]
fn a53_a_chunk_with_the_wrong_hash_index_or_a_second_content_is_never_handed_out() {
    for codec in [Codec::Raw, Codec::Zstd] {
        let right = chunks(codec);
        let good = pack(&right);
        assert_eq!(good.head.codec(), codec);
        assert_eq!(unpack(&good.head, &good.tail, &[]), (right.clone(), Ok(())));
        for (what, wrong, handed_out) in [
            ("another hash", vec![right[0].clone(), noise(9, 800), right[2].clone()], 1),
            ("another index", vec![right[1].clone(), right[0].clone(), right[2].clone()], 0),
            ("a content twice", vec![right[0].clone(), right[0].clone(), right[2].clone()], 1),
        ] {
            let plain = wrong.concat();
            let told = &right[..3];
            let (body, body_len) = match codec {
                Codec::Raw => (plain.clone(), told.concat().len()),
                Codec::Zstd => {
                    let body = zstd::bulk::compress(&plain, 1).expect("zstd");
                    let len = body.len();
                    let hash = check(&blake3::hash(&body));
                    ([body, hash.to_vec()].concat(), len)
                }
            };
            let head = head(codec, body_len, told);
            let tail = &body[..body.len().min(head.tail_len())];
            let (out, end) = unpack(&head, tail, &[100]);
            assert_eq!(out, told[..handed_out], "{what}");
            assert!(end.is_err(), "{what}");
        }
    }
}

#[test]
fn whatever_bit_is_flipped_behind_the_head_is_found() {
    for codec in [Codec::Raw, Codec::Zstd] {
        let right = chunks(codec);
        let good = pack(&right);
        assert!(checked(&good.head, &good.tail));
        for at in 0..good.tail.len() {
            let mut tail = good.tail.to_vec();
            tail[at] ^= 1 << (at % 8);
            let (out, end) = unpack(&good.head, &tail, &[97]);
            assert!(end.is_err(), "{codec:?}, byte {at}");
            assert!(right.starts_with(&out), "{codec:?}, byte {at}");
            assert!(!checked(&good.head, &tail), "{codec:?}, byte {at}");
        }
    }
}

#[test]
fn a_pack_that_is_cut_off_is_refused_at_its_end_and_its_chunks_are_right() {
    for codec in [Codec::Raw, Codec::Zstd] {
        let right = chunks(codec);
        let good = pack(&right);
        for len in 0..good.tail.len() {
            let (out, end) = unpack(&good.head, &good.tail[..len], &[1_000]);
            assert!(end.is_err() && right.starts_with(&out), "{codec:?}, {len} bytes");
            assert!(!checked(&good.head, &good.tail[..len]), "{codec:?}, {len} bytes");
        }
    }
}

#[test]
fn bytes_behind_a_pack_are_refused() {
    for codec in [Codec::Raw, Codec::Zstd] {
        let good = pack(&chunks(codec));
        let tail = [&good.tail[..], b"x"].concat();
        for lens in [&[][..], &[1], &[good.tail.len(), 1]] {
            assert!(unpack(&good.head, &tail, lens).1.is_err());
        }
        assert!(!checked(&good.head, &tail));
    }
}

#[test]
fn after_the_first_thing_that_is_wrong_nothing_comes() {
    let mut tail = pack(&chunks(Codec::Raw)).tail.to_vec();
    tail[0] ^= 1;
    let mut unpack = Unpack::new(pack(&chunks(Codec::Raw)).head).expect("memory");
    unpack.push(Bytes::from(tail)).expect("it is not too long");
    let first = unpack.next_chunk().map(|_| ()).expect_err("the first chunk is wrong");
    assert_eq!(unpack.next_chunk().map(|_| ()), Err(first));
    assert!(unpack.finish().is_err());
}

#[test]
fn a_pack_whose_chunks_were_not_taken_is_not_finished() {
    let good = pack(&chunks(Codec::Zstd));
    let mut unpack = Unpack::new(good.head).expect("memory");
    unpack.push(good.tail).expect("it fits");
    assert!(unpack.finish().is_err());
}

#[test]
fn pieces_that_are_pushed_before_the_last_is_used_up_are_kept() {
    for codec in [Codec::Raw, Codec::Zstd] {
        let (right, good) = (chunks(codec), pack(&chunks(codec)));
        let mut unpack = Unpack::new(good.head).expect("memory");
        good.tail.chunks(300).for_each(|piece| unpack.push(Bytes::copy_from_slice(piece)).expect("it fits"));
        for chunk in &right {
            assert_eq!(unpack.next_chunk().expect("right").map(|(_, bytes)| bytes), Some(&chunk[..]));
        }
        unpack.finish().expect("all was there");
    }
}

/// A frame with what `fill` writes into it, and its hash behind it.
fn frame(window_log: Option<u32>, fill: impl Fn(&mut dyn std::io::Write)) -> (Vec<u8>, usize) {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("zstd");
    if let Some(log) = window_log {
        encoder.window_log(log).expect("a window");
    }
    fill(&mut encoder);
    let body = encoder.finish().expect("zstd");
    let len = body.len();
    let hash = check(&blake3::hash(&body));
    ([body, hash.to_vec()].concat(), len)
}

#[test]
fn sync_13_a_frame_is_decoded_to_the_length_that_was_told_and_no_further() {
    let zeros = vec![0; 300_000];
    for (what, mebibytes) in [("a bomb", 256), ("one mebibyte more", 1)] {
        let (tail, len) = frame(None, |out| {
            out.write_all(&zeros).expect("memory");
            (0..mebibytes).for_each(|_| out.write_all(&[0; 1 << 20]).expect("memory"));
        });
        let (out, end) = unpack(&head(Codec::Zstd, len, std::slice::from_ref(&zeros)), &tail, &[4_096]);
        assert_eq!((out.len(), end.is_err()), (1, true), "{what}");
    }
    let (tail, len) = frame(None, |out| out.write_all(&zeros[1..]).expect("memory"));
    let (out, end) = unpack(&head(Codec::Zstd, len, &[zeros]), &tail, &[]);
    assert_eq!((out.len(), end.is_err()), (0, true), "one byte less");
}

#[test]
fn sync_13_a_frame_that_asks_for_a_window_above_a_pack_is_refused() {
    // Its content is too long to be one segment, so that the frame has to name its window.
    let zeros = vec![0; 1_000_000];
    for (log, taken) in [(22, true), (23, false), (27, false)] {
        let (tail, len) = frame(Some(log), |out| out.write_all(&zeros).expect("memory"));
        let (out, _) = unpack(&head(Codec::Zstd, len, std::slice::from_ref(&zeros)), &tail, &[]);
        assert_eq!(!out.is_empty(), taken, "a window of 2^{log}");
    }
}

#[test]
fn a_second_frame_or_other_bytes_behind_the_frame_are_refused() {
    let zeros = vec![0; 300_000];
    let (one, len) = frame(None, |out| out.write_all(&zeros).expect("memory"));
    for after in [&one[..len], b"x"] {
        let body = [&one[..len], after].concat();
        let tail = [&body[..], &check(&blake3::hash(&body))].concat();
        let (_, end) = unpack(&head(Codec::Zstd, body.len(), std::slice::from_ref(&zeros)), &tail, &[]);
        assert!(end.is_err());
    }
}

#[test]
fn a_full_pack_of_text_and_one_of_noise_come_through() {
    for codec in [Codec::Raw, Codec::Zstd] {
        let make = if codec == Codec::Raw { noise } else { text };
        let full: Vec<Vec<u8>> = (0..63).map(|seed| make(seed, 65_536)).collect();
        let good = pack(&full);
        assert!(good.head.codec() == codec && good.head.plain_len() as usize > PACK_BYTES_MAX / 64 * 62);
        assert_eq!(unpack(&good.head, &good.tail, &[65_000]), (full, Ok(())));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn chunks_do_not_depend_on_the_pieces(
        lens in prop::collection::vec(1_usize..20_000, 1..30),
        pieces in prop::collection::vec(1_usize..30_000, 1..5),
        seed: u64,
        words: bool,
    ) {
        let make = if words { text } else { noise };
        let chunks: Vec<Vec<u8>> =
            lens.iter().zip(0..).map(|(len, number)| [&make(seed, *len)[..], &[number]].concat()).collect();
        let pack = pack(&chunks);
        prop_assert_eq!(unpack(&pack.head, &pack.tail, &pieces), (chunks, Ok(())));
        prop_assert!(checked(&pack.head, &pack.tail));
    }
}
