//! Long files, read beside and alone.

use std::cell::RefCell;
use std::io::{Seek as _, Write as _};

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

fn beside(file: &File, size: u64) -> Read {
    let (mut hashed, taken) = (0, RefCell::new(Vec::new()));
    let take = |id: ContentId, bytes: &[u8]| {
        assert_eq!(ContentId::of(bytes), id);
        taken.borrow_mut().push(id);
    };
    let read = beside::cut(file, size, &mut hashed, &|_| (), Some(&take));
    (read.expect("a thread").expect("read"), hashed, taken.into_inner())
}

fn alone(file: &File, size: u64) -> Read {
    let (mut reader, taken) = (Reader::default(), RefCell::new(Vec::new()));
    let take = |id: ContentId, _: &[u8]| taken.borrow_mut().push(id);
    let read = reader.cut(file, size, &|_| (), Some(&take)).expect("read");
    (read, reader.hashed, taken.into_inner())
}

#[test]
fn a_long_file_is_the_same_read_beside_and_alone() {
    for len in [1 << 20 | 1, 2_500_000, 8 << 20, (8 << 20) + 1, (9 << 20) + 77_777] {
        let (mut file, bytes) = long(len);
        let read = beside(&file, len as u64);
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
    let len = (8 << 20) + 5;
    for size in [len + 1, 2 * len, len - 1] {
        let (file, _) = long(len as usize);
        assert_eq!(beside(&file, size).0, None, "{size} of {len}");
    }
    // What was read until then may have been taken; nobody waits for the rest.
    assert_eq!(beside(&of(b""), len).0, None);
}
