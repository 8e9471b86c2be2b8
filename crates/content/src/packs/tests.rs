//! Tests of streams of packs.

use cortex_core::Code;
use proptest::prelude::*;

use super::*;
use crate::pack::{Added, PackWriter};
use crate::samples::{noise, text};

/// Packs of these chunks, one of each group, one after the other.
fn stream(groups: &[Vec<Vec<u8>>]) -> Vec<u8> {
    let mut writer = PackWriter::new(1);
    let mut bytes = Vec::new();
    for group in groups {
        for chunk in group {
            assert_ne!(writer.add(ContentId::of(chunk), chunk), Added::Full);
        }
        if let Some(pack) = writer.finish() {
            bytes.extend_from_slice(&pack.head.to_bytes());
            bytes.extend_from_slice(&pack.tail);
        }
    }
    bytes
}

/// What comes out of a stream in pieces as long as `lens` says, and how it ends.
fn read(bytes: &[u8], lens: &[usize], out: &mut Vec<Vec<u8>>) -> Result<u64, Refusal> {
    let mut stream = Stream::new();
    let (mut rest, mut lens) = (bytes, lens.iter().cycle());
    while !rest.is_empty() {
        let len = lens.next().copied().unwrap_or(1).clamp(1, CARRY_DATA_BYTES_MAX).min(rest.len());
        stream.push(Bytes::copy_from_slice(&rest[..len]))?;
        rest = &rest[len..];
        while let Some((id, chunk)) = stream.next_chunk()? {
            assert_eq!(ContentId::of(chunk), id);
            out.push(chunk.to_vec());
        }
    }
    stream.finish()
}

fn groups() -> Vec<Vec<Vec<u8>>> {
    vec![
        vec![noise(1, 300_000), text(2, 5)],
        (0..500).map(|seed| text(seed, 400)).collect(),
        vec![noise(3, 1)],
        vec![text(4, 1_000_000), noise(5, 1_048_576), text(6, 100)],
    ]
}

#[test]
fn packs_come_out_as_they_went_in_wherever_they_are_cut() {
    let groups = groups();
    let bytes = stream(&groups);
    for lens in [&[1_usize, 3, 70_000][..], &[262_144], &[17, 36, 2, 200_000]] {
        let mut out = Vec::new();
        assert_eq!(read(&bytes, lens, &mut out), Ok(4));
        assert_eq!(out, groups.concat());
    }
    assert_eq!(read(&[], &[1], &mut Vec::new()), Ok(0));
}

#[test]
fn a_stream_that_is_cut_off_or_wrong_gives_nothing_that_is_wrong() {
    let groups = groups();
    let bytes = stream(&groups);
    for cut in [1, 16, 17, 60, 300_000, 300_100, bytes.len() - 1] {
        let mut out = Vec::new();
        let refusal = read(&bytes[..cut], &[9_999], &mut out).expect_err("cut off");
        assert_eq!(refusal.code, Code::InvalidArgument, "{cut}");
        assert!(groups.concat().starts_with(&out));
    }
    let mut stream = Stream::new();
    stream.push(Bytes::from_static(b"NOPE")).expect("a piece");
    let refusal = stream.next_chunk().expect_err("no pack");
    assert_eq!(stream.next_chunk().expect_err("no pack"), refusal);
    assert_eq!(stream.push(Bytes::from(bytes)).expect_err("no pack"), refusal);
}

#[test]
fn a_stream_takes_one_piece_at_a_time_and_none_that_is_long() {
    let bytes = Bytes::from(stream(&groups()));
    let mut stream = Stream::new();
    let long = bytes.slice(..CARRY_DATA_BYTES_MAX + 1);
    assert_eq!(stream.push(long).expect_err("long").code, Code::TooLarge);
    let mut stream = Stream::new();
    stream.push(bytes.slice(..10)).expect("a piece");
    assert_eq!(stream.push(bytes.slice(10..20)).expect_err("two pieces").code, Code::TooLarge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A flipped bit anywhere is refused, and nothing comes out that was not sent.
    #[test]
    fn a_flipped_bit_is_never_handed_out(at in any::<prop::sample::Index>(), bit in 0_u8..8, len in 1_usize..9_000) {
        let groups = vec![vec![noise(1, 3_000), text(2, 900)], vec![text(3, 9_000)], vec![text(4, 80)]];
        let mut bytes = stream(&groups);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let mut out = Vec::new();
        prop_assert!(read(&bytes, &[len], &mut out).is_err());
        prop_assert!(groups.concat().starts_with(&out));
    }
}
