//! Tests of heads, and of the writer.

use proptest::prelude::*;

use super::*;
use crate::samples::{noise, text};
use cortex_core::Code;

/// A pack of these chunks; they must fit.
fn pack(chunks: &[Vec<u8>]) -> Pack {
    let mut writer = PackWriter::new(1);
    for chunk in chunks {
        assert_eq!(writer.add(ContentId::of(chunk), chunk), Added::Yes);
    }
    writer.finish().expect("a pack")
}

fn read(bytes: &[u8]) -> Result<Option<(PackHead, usize)>, Code> {
    PackHead::read(bytes).map_err(|refusal| refusal.code)
}

fn head(codec: u8, count: u32, plain: u32, body: u32, rows: &[(ContentId, u32)]) -> Vec<u8> {
    let mut bytes = b"CXP1".to_vec();
    bytes.push(codec);
    [count, plain, body].iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    for (id, len) in rows {
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
    }
    bytes
}

#[test]
fn the_head_has_one_form() {
    let (one, two) = (ContentId::of(b"one"), ContentId::of(b"second"));
    let pack = pack(&[b"one".to_vec(), b"second".to_vec()]);
    let bytes = head(0, 2, 9, 9, &[(one, 3), (two, 6)]);
    assert_eq!(pack.head.to_bytes(), bytes);
    assert_eq!(pack.head.id(), PackId::of(&bytes));
    assert_eq!(&pack.tail[..], b"onesecond");
    assert_eq!((pack.head.head_len(), pack.head.tail_len(), pack.head.pack_len()), (89, 9, 98));
}

#[test]
fn a_head_is_read_once_all_of_it_is_there() {
    let pack = pack(&[text(1, 3_000), noise(2, 50)]);
    let bytes = [&pack.head.to_bytes()[..], &pack.tail[..]].concat();
    for len in 0..pack.head.head_len() {
        assert_eq!(read(&bytes[..len]), Ok(None), "{len} bytes");
    }
    for len in [pack.head.head_len(), bytes.len()] {
        assert_eq!(read(&bytes[..len]), Ok(Some((pack.head.clone(), pack.head.head_len()))));
    }
}

#[test]
fn what_begins_otherwise_is_refused_at_its_first_byte() {
    for bytes in [&b"x"[..], b"CXP2", b"CXD1", b"CXP1\x02aaaaaaaaaaaa"] {
        assert_eq!(read(bytes), Err(Code::InvalidArgument));
    }
}

#[test]
fn sync_13_a_head_that_claims_too_much_is_refused_before_its_rows_come() {
    let most = u32::MAX;
    let too_many = PACK_CHUNKS_MAX as u32 + 1;
    let too_long = PACK_BYTES_MAX as u32 + 1;
    for (codec, count, plain, body) in
        [(0, most, 9, 9), (0, too_many, 9, 9), (0, 1, most, most), (1, 1, too_long, 9), (1, most, most, most)]
    {
        assert_eq!(
            read(&head(codec, count, plain, body, &[])),
            Err(Code::TooLarge),
            "{count} {plain} {body}"
        );
    }
    // With its head it must fit as well.
    let plain = PACK_BYTES_MAX as u32 - 36;
    assert_eq!(read(&head(0, 1, plain, plain, &[])), Err(Code::TooLarge));
}

#[test]
fn a_head_that_contradicts_itself_is_refused() {
    let (a, b) = (ContentId::of(b"a"), ContentId::of(b"b"));
    let above = CHUNK_WHOLE_BYTES_MAX as u32 + 1;
    for (what, bytes) in [
        ("nothing in it", head(0, 0, 0, 0, &[])),
        ("a raw body of another length", head(0, 1, 5, 4, &[(a, 5)])),
        ("a frame that saves nothing", head(1, 1, 20, 4, &[(a, 20)])),
        ("an empty frame", head(1, 1, 20, 0, &[(a, 20)])),
        ("a sum that is too low", head(0, 2, 5, 5, &[(a, 5), (b, 1)])),
        ("a sum that is too high", head(0, 2, 7, 7, &[(a, 5), (b, 1)])),
        ("lengths that wrap around", head(0, 2, 4, 4, &[(a, u32::MAX), (b, 5)])),
        ("a chunk without bytes", head(0, 2, 5, 5, &[(a, 5), (b, 0)])),
        ("a chunk that is too long", head(0, 1, above, above, &[(a, above)])),
        ("one chunk twice", head(0, 2, 5, 5, &[(a, 2), (a, 3)])),
    ] {
        assert_eq!(read(&bytes), Err(Code::InvalidArgument), "{what}");
    }
}

#[test]
fn a_changed_head_is_another_pack_or_none() {
    let pack = pack(&[text(1, 3_000), noise(2, 50)]);
    let bytes = pack.head.to_bytes();
    for at in 0..bytes.len() {
        let mut changed = bytes.to_vec();
        changed[at] ^= 1;
        if let Ok(Some((head, _))) = read(&changed) {
            assert_ne!(head.id(), pack.head.id(), "byte {at}");
            assert_eq!(head.to_bytes(), changed, "byte {at}");
        }
    }
}

#[test]
fn a_pack_is_never_longer_than_its_bound_and_the_next_takes_what_did_not_fit() {
    let mut writer = PackWriter::new(1);
    let mut added = 0;
    for seed in 0..10 {
        let chunk = noise(seed, CHUNK_WHOLE_BYTES_MAX);
        let outcome = writer.add(ContentId::of(&chunk), &chunk);
        added += usize::from(outcome == Added::Yes);
        assert_eq!(outcome == Added::Full, seed >= 3, "chunk {seed}");
    }
    // With its head the fourth mebibyte does not fit.
    assert_eq!((added, writer.plain_len()), (3, 3 * CHUNK_WHOLE_BYTES_MAX));
    let rest = noise(11, PACK_BYTES_MAX - HEAD_BYTES_MIN - 4 * ROW_BYTES - writer.plain_len());
    assert_eq!(writer.add(ContentId::of(&rest), &rest), Added::Yes);
    let pack = writer.finish().expect("a pack");
    assert_eq!((pack.head.pack_len(), pack.head.codec()), (PACK_BYTES_MAX, Codec::Raw));
    assert!(writer.finish().is_none());
    assert_eq!(writer.add(ContentId::of(&rest), &rest), Added::Yes);
}

#[test]
fn a_pack_of_the_smallest_files_is_bounded_by_their_count() {
    let mut writer = PackWriter::new(1);
    let mut count: u32 = 0;
    while writer.add(ContentId::of(&count.to_le_bytes()), &count.to_le_bytes()) == Added::Yes {
        count += 1;
    }
    assert_eq!(count as usize, PACK_CHUNKS_MAX);
    let pack = writer.finish().expect("a pack");
    assert!(pack.head.pack_len() <= PACK_BYTES_MAX);
    assert_eq!(read(&pack.head.to_bytes()), Ok(Some((pack.head.clone(), pack.head.head_len()))));
}

#[test]
fn a_chunk_is_in_a_pack_once_and_none_has_no_bytes() {
    let mut writer = PackWriter::new(1);
    assert_eq!(writer.add(ContentId::of(b""), b""), Added::Never);
    let long = vec![0; CHUNK_WHOLE_BYTES_MAX + 1];
    assert_eq!(writer.add(ContentId::of(&long), &long), Added::Never);
    assert!(writer.finish().is_none());
    assert_eq!(writer.add(ContentId::of(b"a"), b"a"), Added::Yes);
    assert_eq!(writer.add(ContentId::of(b"a"), b"a"), Added::Already);
    assert_eq!(writer.finish().map(|pack| pack.head.chunks().len()), Some(1));
}

#[test]
fn text_is_compressed_and_what_does_not_shrink_stays_raw() {
    let of = |chunk: Vec<u8>| pack(&[chunk]).head;
    let text_head = of(text(1, 800_000));
    assert_eq!(text_head.codec(), Codec::Zstd);
    assert!(text_head.pack_len() < 400_000, "{}", text_head.pack_len());
    assert_eq!(of(noise(1, 800_000)).codec(), Codec::Raw);
    assert_eq!(of(noise(1, 1)).codec(), Codec::Raw);
    assert_eq!(of(vec![0; 20]).codec(), Codec::Raw, "a frame and its hash are longer than so few bytes");
    // The probe is taken from several places: here a picture comes first.
    assert_eq!(of([noise(1, 200_000), text(2, 800_000)].concat()).codec(), Codec::Zstd);
}

#[test]
fn what_saves_less_than_a_twelfth_stays_raw() {
    // Of every 100 bytes, so many zeros: they are what shrinks.
    let of = |zeros: usize| {
        let mut bytes = noise(3, 700_000);
        bytes.chunks_mut(10_000).for_each(|part| part[..zeros * 100].fill(0));
        pack(&[bytes]).head.codec()
    };
    assert_eq!((of(6), of(11)), (Codec::Raw, Codec::Zstd));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_pack_is_read_as_it_was_written(
        lens in prop::collection::vec(1_usize..40_000, 1..40),
        seed: u64,
        words: bool,
    ) {
        let make = if words { text } else { noise };
        let chunks: Vec<Vec<u8>> =
            lens.iter().zip(0..).map(|(len, number)| [&make(seed, *len)[..], &[number]].concat()).collect();
        let pack = pack(&chunks);
        prop_assert_eq!(pack.tail.len(), pack.head.tail_len());
        let bytes = pack.head.to_bytes();
        prop_assert_eq!(read(&bytes), Ok(Some((pack.head.clone(), bytes.len()))));
        let ids: Vec<ContentId> = chunks.iter().map(|chunk| ContentId::of(chunk)).collect();
        prop_assert_eq!(pack.head.chunks().iter().map(|chunk| chunk.id).collect::<Vec<_>>(), ids);
    }
}
