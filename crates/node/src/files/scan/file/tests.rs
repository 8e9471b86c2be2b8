//! Long files, read by several threads and by one.

use std::io::{Seek as _, Write as _};
use std::sync::Mutex;

use super::*;

/// Bytes in which nothing repeats, with a hole in their middle.
fn long(len: usize) -> (File, Vec<u8>) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes[len / 2..len / 2 + 300_000].fill(0);
    (of(&bytes), bytes)
}

fn of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(bytes).expect("written");
    file.rewind().expect("its beginning");
    file
}

type Read = (Option<Content>, u64, Vec<ContentId>);

fn by_several(file: &File, size: u64) -> Read {
    let (mut hashed, taken) = (0, Mutex::new(Vec::new()));
    let take = |id: ContentId, bytes: &[u8]| {
        assert_eq!(ContentId::of(bytes), id);
        taken.lock().expect("no panic").push(id);
    };
    let read = spans::cut(file, size, &mut hashed, &|_| (), Some(&take));
    (read.expect("threads").expect("read"), hashed, taken.into_inner().expect("no panic"))
}

fn alone(file: &File, size: u64) -> Read {
    let (mut reader, taken) = (Reader::default(), Mutex::new(Vec::new()));
    let take = |id: ContentId, _: &[u8]| taken.lock().expect("no panic").push(id);
    let read = reader.cut(file, size, &|_| (), Some(&take)).expect("read");
    (read, reader.hashed, taken.into_inner().expect("no panic"))
}

/// Spans of a length, and a bit.
const SPAN: usize = super::super::super::spans::SPAN_BYTES;

#[test]
fn a_long_file_is_the_same_read_by_several_threads_and_by_one() {
    let long_hole = |len: usize| {
        let (_, mut bytes) = long(len);
        bytes[SPAN / 2 + 77..len - 99].fill(0);
        (of(&bytes), bytes)
    };
    let lens =
        [SPAN + 1, 2 * SPAN - 1, 2 * SPAN, 2 * SPAN + 1, 3 * SPAN + 77_777, 5 * SPAN, 7 * SPAN + 300_000];
    for ((mut file, bytes), len) in
        lens.map(|len| (long(len), len)).into_iter().chain(lens.map(|len| (long_hole(len), len)))
    {
        let read = by_several(&file, len as u64);
        file.rewind().expect("its beginning");
        assert_eq!(read, alone(&file, len as u64), "{len}");
        let (Some(content), hashed, taken) = read else { panic!("{len}: nothing") };
        assert_eq!((content.id, hashed), (ContentId::of(&bytes), len as u64));
        assert_eq!(content.chunks.iter().map(|chunk| chunk.id).collect::<Vec<_>>(), taken);
        assert!(taken.len() > 8);
    }
}

#[test]
fn a_long_file_that_got_shorter_or_longer_is_nothing() {
    let len = (2 * SPAN + 5) as u64;
    for size in [len + 1, 2 * len, len - 1, len - 6] {
        let (file, _) = long(len as usize);
        assert_eq!(by_several(&file, size).0, None, "{size} of {len}");
    }
    // What was read until then may have been taken; nobody waits for the rest.
    assert_eq!(by_several(&of(b""), len).0, None);
}

#[test]
fn a_panic_of_whoever_takes_ends_all_threads_of_a_file() {
    let (file, _) = long(9 * SPAN);
    let take = |_: ContentId, _: &[u8]| panic!("as the test wants it");
    let cut = || spans::cut(&file, 9 * SPAN as u64, &mut 0, &|_| (), Some(&take)).is_some();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(cut)).expect_err("it panicked");
}
