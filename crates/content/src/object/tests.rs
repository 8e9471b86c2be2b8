//! Tests of objects: one form each, and nothing else is taken.

use cortex_core::Code;
use cortex_core::limits::{CHUNK_BYTES_MAX, CHUNK_WHOLE_BYTES_MAX, FILE_BYTES_MAX, PATH_BYTES_MAX};
use proptest::prelude::*;

use super::*;

fn id(text: &str) -> ContentId {
    ContentId::of(text.as_bytes())
}

fn file(name: &[u8], size: u64) -> DirEntry {
    let content = if size == 0 { "" } else { "content" };
    let map = (size > CHUNK_WHOLE_BYTES_MAX as u64).then(|| id("map"));
    let node = Node::File(FileNode { id: id(content), size, exec: size % 2 == 1, mtime_ns: -5, map });
    DirEntry { name: Bytes::copy_from_slice(name), node }
}

fn dir(name: &[u8], entries: u32, bytes: u64, depth: u16) -> DirEntry {
    let node = Node::Dir { id: id("dir").into(), totals: Totals { entries, bytes, depth } };
    DirEntry { name: Bytes::copy_from_slice(name), node }
}

fn link(name: &[u8], target: &[u8]) -> DirEntry {
    let node = Node::Link { target: Bytes::copy_from_slice(target), mtime_ns: i64::MAX };
    DirEntry { name: Bytes::copy_from_slice(name), node }
}

fn read(bytes: &[u8]) -> Result<Object, Code> {
    read_object(&Bytes::copy_from_slice(bytes)).map_err(|refusal| refusal.code)
}

/// An object of these rows that no check held up.
fn forced(rows: &[DirEntry]) -> Vec<u8> {
    written(rows, 0).to_vec()
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_directory_has_one_form() {
    let bytes = forced(&[
        file(b"a", 3),
        file("ملف".as_bytes(), 2 * MIB),
        link("\u{645}".as_bytes(), b"../x"),
        dir(b"\xff", 7, 9, 2),
    ]);
    let mut wanted = b"CXD1\x00\x04\x00".to_vec();
    wanted.extend_from_slice(b"\x01a\x00\x01");
    wanted.extend_from_slice(&(-5_i64).to_le_bytes());
    wanted.extend_from_slice(&3_u64.to_le_bytes());
    wanted.extend_from_slice(id("content").as_bytes());
    wanted.push(6);
    wanted.extend_from_slice("ملف".as_bytes());
    wanted.extend_from_slice(b"\x01\x00");
    wanted.extend_from_slice(&(-5_i64).to_le_bytes());
    wanted.extend_from_slice(&(2 * MIB).to_le_bytes());
    wanted.extend_from_slice(id("content").as_bytes());
    wanted.extend_from_slice(id("map").as_bytes());
    wanted.push(2);
    wanted.extend_from_slice("\u{645}".as_bytes());
    wanted.push(3);
    wanted.extend_from_slice(&i64::MAX.to_le_bytes());
    wanted.extend_from_slice(b"\x04\x00../x");
    wanted.extend_from_slice(b"\x01\xff\x02\x02\x00\x07\x00\x00\x00\x09\x00\x00\x00\x00\x00\x00\x00");
    wanted.extend_from_slice(id("dir").as_bytes());
    assert_eq!(bytes, wanted);
}

#[test]
fn a_map_and_an_index_have_one_form() {
    let map = Object::Map(vec![ChunkRef { id: id("x"), len: 70_000 }]);
    let wanted = [&b"CXF1\x00\x01\x00"[..], id("x").as_bytes(), &70_000_u32.to_le_bytes()].concat();
    assert_eq!(write_object(&map), wanted);
    let parts = vec![MapPart { len: 5, id: id("y") }];
    let wanted = [&b"CXF1\x02\x01\x00"[..], &5_u64.to_le_bytes(), id("y").as_bytes()].concat();
    assert_eq!(write_object(&Object::MapIndex { level: 2, parts }), wanted);
    let totals = Totals { entries: 3, bytes: 4, depth: 1 };
    let parts = vec![DirPart { last: Bytes::from_static(b"z"), totals, id: id("y") }];
    let rows = b"\x01z\x01\x00\x03\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00";
    let wanted = [&b"CXD1\x01\x01\x00"[..], rows, id("y").as_bytes()].concat();
    assert_eq!(write_object(&Object::DirIndex { level: 1, parts }), wanted);
}

#[test]
fn an_empty_directory_is_an_object_and_an_empty_map_is_none() {
    assert_eq!(read(b"CXD1\x00\x00\x00"), Ok(Object::Dir(Vec::new())));
    for bytes in [b"CXF1\x00\x00\x00", b"CXD1\x01\x00\x00", b"CXF1\x01\x00\x00", b"CXF1\x02\x00\x00"] {
        assert_eq!(read(bytes), Err(Code::InvalidArgument), "{bytes:?}");
    }
}

#[test]
fn a_name_is_one_part_of_a_path() {
    let long = vec![b'n'; 255];
    for name in [&b"a"[..], b"...", b". ", b"..a", b"\xff\xfe", b"a\\b", b"a b\n", "عربي".as_bytes(), &long]
    {
        assert!(read(&forced(&[file(name, 1)])).is_ok(), "{name:?}");
    }
    for name in [&b""[..], b".", b"..", b"/", b"a/b", b"../a", b"a\0b", b"\0"] {
        assert_eq!(read(&forced(&[file(name, 1)])), Err(Code::InvalidArgument), "{name:?}");
        assert!(file(name, 1).check().is_err(), "{name:?}");
    }
    assert!(file(&[b'n'; 256], 1).check().is_err());
}

#[test]
fn names_ascend_by_their_bytes_and_none_is_there_twice() {
    for (one, two, taken) in [
        (&b"a"[..], &b"b"[..], true),
        (b"a", b"aa", true),
        (b"Z", b"a", true),
        (b"z", "ä".as_bytes(), true),
        (b"b", b"a", false),
        (b"a", b"a", false),
    ] {
        // A file and a directory of one name are two entries of one name.
        let found = read(&forced(&[file(one, 1), dir(two, 0, 0, 0)]));
        assert_eq!(found.is_ok(), taken, "{one:?} {two:?}");
    }
}

#[test]
fn an_entry_that_no_scan_makes_is_refused() {
    let of = |change: &dyn Fn(&mut FileNode)| {
        let mut entry = file(b"a", 3);
        let Node::File(node) = &mut entry.node else { panic!("it is a file") };
        change(node);
        read(&forced(&[entry])).err()
    };
    let bad = Some(Code::InvalidArgument);
    assert_eq!(of(&|_| {}), None);
    assert_eq!(of(&|file| file.map = Some(id("map"))), bad);
    assert_eq!(of(&|file| file.size = MIB + 1), bad);
    assert_eq!(of(&|file| file.size = 0), bad);
    assert_eq!(of(&|file| file.id = id("")), bad);
    assert_eq!(
        of(&|file| (file.size, file.map) = (FILE_BYTES_MAX + 1, Some(id("map")))),
        Some(Code::TooLarge)
    );
    assert_eq!(of(&|file| (file.size, file.map) = (u64::MAX, Some(id("map")))), Some(Code::TooLarge));
    for target in [&b""[..], b"a\0b", &[b'x'; PATH_BYTES_MAX + 1]] {
        assert_eq!(read(&forced(&[link(b"l", target)])).err(), bad);
    }
    assert!(read(&forced(&[link(b"l", &[b'x'; PATH_BYTES_MAX])])).is_ok());
}

#[test]
fn unknown_bytes_are_no_kind_and_no_flag() {
    let bytes = forced(&[file(b"a", 3)]);
    let (kind, exec) = (HEAD_BYTES + 2, HEAD_BYTES + 3);
    for (at, value) in
        [(kind, 4), (kind, 255), (exec, 2), (exec, 255), (4, 3), (4, 255), (0, b'c'), (3, b'2')]
    {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert_eq!(read(&changed), Err(Code::InvalidArgument), "{at} {value}");
    }
}

#[test]
fn sums_of_a_tree_do_not_wrap_and_are_bounded() {
    let most = Totals { entries: u32::MAX, bytes: u64::MAX, depth: u16::MAX };
    assert_eq!(read(&forced(&[dir(b"a", most.entries, 0, 0)])).err(), Some(Code::TooLarge));
    assert_eq!(read(&forced(&[dir(b"a", 0, 0, most.depth)])).err(), Some(Code::TooLarge));
    assert_eq!(read(&forced(&[dir(b"a", 0, 0, TREE_DEPTH_MAX)])).err(), Some(Code::TooLarge), "with its own");
    assert!(read(&forced(&[dir(b"a", 0, 0, TREE_DEPTH_MAX - 1)])).is_ok());
    assert!(read(&forced(&[dir(b"a", 0, u64::MAX, 0)])).is_ok());
    let sums = [dir(b"a", 0, u64::MAX, 0), file(b"b", 1)];
    assert_eq!(read(&forced(&sums)).err(), Some(Code::TooLarge));
    let half = TREE_ENTRIES_MAX as u32 / 2;
    assert!(read(&forced(&[dir(b"a", half, 0, 0), dir(b"b", half - 2, 0, 0)])).is_ok());
    assert_eq!(
        read(&forced(&[dir(b"a", half, 0, 0), dir(b"b", half - 1, 0, 0)])).err(),
        Some(Code::TooLarge)
    );
    let parts = [MapPart { len: FILE_BYTES_MAX, id: id("x") }, MapPart { len: 1, id: id("y") }];
    assert_eq!(read(&written(&parts, 1)).err(), Some(Code::TooLarge));
    let parts = [MapPart { len: u64::MAX, id: id("x") }, MapPart { len: 2, id: id("y") }];
    assert_eq!(read(&written(&parts, 1)).err(), Some(Code::TooLarge));
    for len in [0, CHUNK_BYTES_MAX as u32 + 1, u32::MAX] {
        let chunk = ChunkRef { id: id("x"), len };
        assert_eq!(read(&written(&[chunk], 0)).err(), Some(Code::InvalidArgument), "{len}");
    }
}

#[test]
fn what_is_cut_off_or_goes_on_is_refused() {
    let bytes = forced(&[file(b"a", 3), link(b"b", b"c"), dir(b"c", 1, 1, 0)]);
    for len in 0..bytes.len() {
        assert_eq!(read(&bytes[..len]), Err(Code::InvalidArgument), "{len} bytes");
    }
    assert_eq!(read(&[&bytes[..], b"x"].concat()), Err(Code::InvalidArgument));
    assert_eq!(read(&vec![0; TREE_OBJECT_BYTES_MAX + 1]), Err(Code::TooLarge));
}

#[test]
fn sync_13_a_count_takes_no_memory_that_the_bytes_do_not_pay() {
    for count in [1_024_u16, 1_025, u16::MAX] {
        for magic in [DIR, MAP] {
            for level in 0..=LEVEL_MAX {
                let bytes = [&magic[..], &[level], &count.to_le_bytes()].concat();
                assert_eq!(read(&bytes), Err(Code::InvalidArgument));
            }
        }
    }
}

/// Names that end an object, and names that do not, ascending.
fn named(ending: bool, count: usize) -> Vec<DirEntry> {
    let entries = (0..).map(|number| file(format!("{number:08}").as_bytes(), 0));
    entries.filter(|entry| entry.chooses() == ending).take(count).collect()
}

#[test]
fn an_object_ends_where_its_content_says() {
    let mut rows = [named(true, 1), named(false, 3)].concat();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    let at = rows.iter().position(Row::chooses).expect("one of them");
    assert!(at > 0 && read(&forced(&rows[..at])).is_ok() && at + 1 == rows.len());
    assert!(read(&forced(&rows)).is_ok_and(|object| object.closed()));
    assert!(read(&forced(&rows[..at])).is_ok_and(|object| !object.closed()));
    let beyond = [rows, vec![file(b"9", 0)]].concat();
    assert_eq!(read(&forced(&beyond)), Err(Code::InvalidArgument));
}

#[test]
fn an_object_ends_when_it_is_full() {
    let rows = named(false, TREE_OBJECT_ROWS_MAX + 1);
    let full = read(&forced(&rows[..TREE_OBJECT_ROWS_MAX])).expect("as many as may be");
    assert!(full.closed());
    assert_eq!(read(&forced(&rows)), Err(Code::InvalidArgument));
    let target = [b't'; PATH_BYTES_MAX];
    let wide: Vec<DirEntry> = named(false, 64).into_iter().map(|entry| link(&entry.name, &target)).collect();
    let full = (1..64).find(|count| closed(&wide[..*count], 0)).expect("192 KiB are less");
    assert_eq!(full, 48);
    assert!(read(&forced(&wide[..full])).is_ok());
    assert_eq!(read(&forced(&wide[..=full])), Err(Code::InvalidArgument));
}

fn entries() -> impl Strategy<Value = Vec<DirEntry>> {
    let name = prop::collection::vec(1_u8..=255, 1..20).prop_map(|name| {
        let name: Vec<u8> = name.into_iter().map(|byte| if byte == b'/' { b'-' } else { byte }).collect();
        if name.iter().all(|byte| *byte == b'.') { b"dots".to_vec() } else { name }
    });
    let size = prop_oneof![Just(0), 1..=MIB, MIB + 1..FILE_BYTES_MAX / 64];
    let entry = (name, size, 0..4_u8, prop::collection::vec(1_u8..=255, 1..60), 0..100_u32);
    let entry = entry.prop_map(|(name, size, kind, target, below)| match kind {
        0 => link(&name, &target),
        1 => dir(&name, below, size, 3),
        _ => file(&name, size),
    });
    prop::collection::vec(entry, 0..60).prop_map(|mut entries| {
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        entries.dedup_by(|one, other| one.name == other.name);
        // The object may go up to the first name that ends it.
        let end = entries.iter().position(Row::chooses).map_or(entries.len(), |at| at + 1);
        entries.truncate(end);
        entries
    })
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_written_again_byte_for_byte(entries in entries()) {
        let object = Object::Dir(entries);
        let bytes = write_object(&object);
        let again = read(&bytes);
        prop_assert_eq!(again.map(|object| write_object(&object)), Ok(bytes.clone()));
        prop_assert_eq!(read(&bytes), Ok(object));
    }

    #[test]
    fn a_changed_byte_is_another_object_of_one_form_or_none(
        entries in entries(),
        at: prop::sample::Index,
        bit in 0..8_u8,
    ) {
        let mut bytes = write_object(&Object::Dir(entries)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(object) = read(&bytes) {
            prop_assert_eq!(write_object(&object), bytes);
        }
    }
}
