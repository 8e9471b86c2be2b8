//! Tests of the cuts.

use std::collections::BTreeSet;

use cortex_core::files::content::ContentId;
use proptest::prelude::*;

use super::*;
use crate::samples::noise;

const MIB: usize = 1024 * 1024;

/// The chunks of `bytes`, read in pieces as long as `pieces` says, over and over.
fn chunks(cutter: &mut Cutter, mut bytes: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    let mut lens = pieces.iter().cycle();
    while !bytes.is_empty() {
        let space = cutter.space();
        assert!(!space.is_empty(), "a read into nothing looks like the end of the file");
        let len = lens.next().map_or(usize::MAX, |len| (*len).max(1)).min(space.len()).min(bytes.len());
        space[..len].copy_from_slice(&bytes[..len]);
        bytes = &bytes[len..];
        cutter.filled(len);
        while let Some(chunk) = cutter.next_chunk() {
            found.push(chunk.to_vec());
        }
    }
    cutter.end();
    while let Some(chunk) = cutter.next_chunk() {
        found.push(chunk.to_vec());
    }
    found
}

fn lens(bytes: &[u8]) -> Vec<usize> {
    chunks(&mut Cutter::new(), bytes, &[]).iter().map(Vec::len).collect()
}

/// The golden cuts: whoever changes them makes all that is stored on every hub strange to every node.
#[test]
fn the_cuts_of_a_fixed_stream_are_the_same_for_ever() {
    let lens = lens(&noise(1, 4 * MIB));
    assert_eq!(lens[..8], [28_128, 87_550, 64_925, 67_788, 30_364, 38_273, 50_371, 101_085]);
    assert_eq!((lens.len(), lens.last()), (55, Some(&5_966)));
    let all: String = lens.iter().map(|len| format!("{len}\n")).collect();
    let digest = "0cbe3b459873029878de66639a1853a3fa848a72015797a176616850f81df8cc";
    assert_eq!(ContentId::of(all.as_bytes()).to_string(), digest);
}

#[test]
fn the_cuts_are_those_of_the_crate_over_the_whole_file() {
    let bytes = noise(2, 3 * MIB + 17);
    let whole = fastcdc::v2020::FastCDC::new(&bytes, CHUNK_BYTES_MIN, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX);
    assert_eq!(lens(&bytes), whole.map(|chunk| chunk.length).collect::<Vec<_>>());
}

#[test]
fn a_file_of_a_mebibyte_is_one_chunk_and_one_byte_more_is_cut() {
    for len in [1, CHUNK_BYTES_MIN, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX + 1, MIB - 1, MIB] {
        assert_eq!(lens(&noise(3, len)), [len]);
    }
    assert!(lens(&noise(3, MIB + 1)).len() > 1);
}

#[test]
fn an_empty_file_has_no_chunk() {
    assert_eq!(lens(b""), [0; 0]);
}

#[test]
fn one_cutter_cuts_a_thousand_files_like_a_thousand_cutters() {
    let mut cutter = Cutter::new();
    for round in 0..1_000 {
        let len = [0, 1, 4_000, 70_000, MIB + 3][round % 5] / (1 + round / 100);
        let bytes = noise(round as u64, len);
        assert_eq!(chunks(&mut cutter, &bytes, &[]).concat(), bytes, "file {round}");
    }
    let bytes = noise(9, 2 * MIB);
    assert_eq!(chunks(&mut cutter, &bytes, &[]), chunks(&mut Cutter::new(), &bytes, &[]));
}

#[test]
fn bytes_in_which_nothing_chooses_are_cut_at_the_longest() {
    let lens = lens(&vec![0; 3 * MIB + 5]);
    assert_eq!(lens[..12], [CHUNK_BYTES_MAX; 12]);
    assert_eq!(lens[12..], [5]);
}

/// Chunks of `changed` that are none of `before`: count and bytes.
fn fresh(before: &[u8], changed: &[u8]) -> (usize, usize) {
    let mut cutter = Cutter::new();
    let known: BTreeSet<Vec<u8>> = chunks(&mut cutter, before, &[]).into_iter().collect();
    let fresh: Vec<Vec<u8>> =
        chunks(&mut cutter, changed, &[]).into_iter().filter(|chunk| !known.contains(chunk)).collect();
    (fresh.len(), fresh.iter().map(Vec::len).sum())
}

/// Figures: of 32 MiB, an insert of one byte makes 1 to 3 chunks new wherever it is; of a mebibyte, that
/// mebibyte and at most four chunks beside it.
#[test]
fn an_insert_makes_only_the_chunks_around_it_new() {
    let before = noise(4, 32 * MIB);
    for at in [0, 1, 5 * MIB + 77, 16 * MIB, 32 * MIB - 1, 32 * MIB] {
        let one = [&before[..at], b"x", &before[at..]].concat();
        let (count, bytes) = fresh(&before, &one);
        assert!(count <= 3 && bytes <= 3 * CHUNK_BYTES_MAX, "at {at}: {count} chunks of {bytes} bytes");
        let many = [&before[..at], &noise(5, MIB), &before[at..]].concat();
        let (_, bytes) = fresh(&before, &many);
        assert!(bytes <= MIB + 4 * CHUNK_BYTES_MAX, "at {at}: {bytes} bytes for a mebibyte");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_cuts_do_not_depend_on_the_pieces(
        seed in 0_u64..4,
        len in 0_usize..3 * MIB,
        pieces in prop::collection::vec(1_usize..400_000, 1..6),
    ) {
        let bytes = noise(seed, len);
        let cut = chunks(&mut Cutter::new(), &bytes, &pieces);
        prop_assert_eq!(cut.concat(), &bytes[..]);
        prop_assert!(cut.iter().all(|chunk| chunk.len() <= CHUNK_WHOLE_BYTES_MAX));
        let long = cut.len() > 1;
        let (_, all_but_last) = cut.split_last().map_or((None, &[][..]), |(last, rest)| (Some(last), rest));
        prop_assert!(!long || cut.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
        prop_assert!(all_but_last.iter().all(|chunk| chunk.len() >= CHUNK_BYTES_MIN));
        prop_assert_eq!(cut, chunks(&mut Cutter::new(), &bytes, &[]));
    }
}
