//! Tests of trees that are written: one form whatever the order, and little that a change makes new.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::limits::{TREE_OBJECT_BYTES_MAX, TREE_OBJECT_ROWS_MAX};
use proptest::prelude::*;

use super::*;
use crate::object::{FileNode, Node, Object, read_object, write_object};

type Objects = BTreeMap<ContentId, Bytes>;

fn file(name: &str, content: u64) -> DirEntry {
    let id = ContentId::of(&content.to_le_bytes());
    let node = FileNode { id, size: 8, exec: false, mtime_ns: 1_800_000_000_000_000_000, map: None };
    DirEntry { name: Bytes::copy_from_slice(name.as_bytes()), node: Node::File(node) }
}

/// Names as sources have them, in some twenty thousand of one folder.
fn named(number: u64) -> DirEntry {
    file(&format!("module_{:05}.rs", number.wrapping_mul(7_919) % 100_000), number)
}

fn chunk(number: u64) -> ChunkRef {
    ChunkRef { id: ContentId::of(&number.to_le_bytes()), len: 65_536 }
}

/// What is written, and whether each object comes behind those that it names.
fn dir(entries: Vec<DirEntry>) -> (ContentId, Totals, Objects) {
    let mut objects = Objects::new();
    let (id, totals) =
        write_dir(entries, &mut |id, bytes| put(&mut objects, id, bytes)).expect("a directory");
    (id.into(), totals, objects)
}

fn map(chunks: impl IntoIterator<Item = ChunkRef>) -> (ContentId, u64, Objects) {
    let mut objects = Objects::new();
    let (id, len) = write_map(chunks, &mut |id, bytes| put(&mut objects, id, bytes)).expect("a map");
    (id, len, objects)
}

fn put(objects: &mut Objects, id: ContentId, bytes: Bytes) {
    assert_eq!(ContentId::of(&bytes), id);
    let object = read_object(&bytes).expect("what is written can be read");
    assert_eq!(write_object(&object), bytes);
    let (dirs, maps) = match object {
        Object::DirIndex { parts, .. } => (parts, Vec::new()),
        Object::MapIndex { parts, .. } => (Vec::new(), parts),
        Object::Dir(_) | Object::Map(_) => (Vec::new(), Vec::new()),
    };
    let below: Vec<ContentId> =
        dirs.iter().map(|part| part.id).chain(maps.iter().map(|part| part.id)).collect();
    assert!(below.iter().all(|id| objects.contains_key(id)), "parts come before the index that names them");
    objects.insert(id, bytes);
}

/// All entries below an object, in order.
fn entries(id: &ContentId, objects: &Objects) -> Vec<DirEntry> {
    match read_object(&objects[id]).expect("an object") {
        Object::Dir(entries) => entries,
        Object::DirIndex { parts, .. } => parts.iter().flat_map(|part| entries(&part.id, objects)).collect(),
        Object::Map(_) | Object::MapIndex { .. } => panic!("a map in a directory"),
    }
}

fn chunks(id: &ContentId, objects: &Objects) -> Vec<ChunkRef> {
    match read_object(&objects[id]).expect("an object") {
        Object::Map(chunks) => chunks,
        Object::MapIndex { parts, .. } => parts.iter().flat_map(|part| chunks(&part.id, objects)).collect(),
        Object::Dir(_) | Object::DirIndex { .. } => panic!("a directory in a map"),
    }
}

fn level(id: &ContentId, objects: &Objects) -> u8 {
    read_object(&objects[id]).expect("an object").level()
}

/// Objects that the second has beyond the first: count and bytes.
fn fresh(before: &Objects, after: &Objects) -> (usize, usize) {
    let fresh: Vec<usize> =
        after.iter().filter(|(id, _)| !before.contains_key(id)).map(|(_, bytes)| bytes.len()).collect();
    (fresh.len(), fresh.iter().sum())
}

#[test]
fn an_empty_directory_is_one_object() {
    let (id, totals, objects) = dir(Vec::new());
    assert_eq!((totals, objects.len(), level(&id, &objects)), (Totals::default(), 1, 0));
    assert_eq!(&objects[&id][..], b"CXD1\x00\x00\x00");
}

#[test]
fn a_file_without_chunks_has_no_map() {
    assert!(write_map([], &mut |_, _| panic!("nothing is written")).is_err());
}

/// A directory of this count, wherever its leaves end: also right behind its last entry.
#[test]
fn directories_of_every_size_hold_what_was_put_into_them() {
    let sizes = (0..700).chain([1_023, 1_024, 1_025, 5_000]);
    for size in sizes {
        let all: Vec<DirEntry> = (0..size).map(named).collect();
        let (id, totals, objects) = dir(all.clone());
        let found = entries(&id, &objects);
        assert_eq!(found.len(), all.len());
        assert!(found.windows(2).all(|pair| pair[0].name < pair[1].name));
        assert_eq!((u64::from(totals.entries), totals.bytes, totals.depth), (size, size * 8, 0));
        assert_eq!(objects.len() == 1, level(&id, &objects) == 0, "{size}: one leaf needs no index");
    }
}

#[test]
fn a_directory_that_ends_with_its_leaf_needs_no_index() {
    let mut ending = (0..).map(|number| file(&format!("{number}"), 0)).filter(Row::chooses);
    let (one, two) = (ending.next().expect("one"), ending.next().expect("two"));
    let (id, _, objects) = dir(vec![one.clone()]);
    assert_eq!((level(&id, &objects), objects.len()), (0, 1));
    let (id, _, objects) = dir(vec![one, two]);
    assert_eq!((level(&id, &objects), objects.len()), (1, 3));
}

#[test]
fn what_lies_below_is_added_up_on_the_way() {
    let below = Totals { entries: 10, bytes: 100, depth: 2 };
    let sub = |name: &str| DirEntry {
        name: Bytes::copy_from_slice(name.as_bytes()),
        node: Node::Dir { id: ContentId::of(b"sub").into(), totals: below },
    };
    let (_, totals, _) = dir(vec![sub("a"), sub("b"), file("c", 1)]);
    assert_eq!(totals, Totals { entries: 23, bytes: 208, depth: 3 });
}

#[test]
fn two_entries_of_one_name_are_refused() {
    let link =
        DirEntry { node: Node::Link { target: Bytes::from_static(b"x"), mtime_ns: 0 }, ..file("a", 1) };
    let refused = write_dir(vec![file("a", 1), file("b", 1), link], &mut |_, _| panic!("nothing is written"));
    assert!(refused.is_err_and(|refusal| refusal.message.contains("\"a\"")));
}

#[test]
fn an_entry_that_no_reader_takes_is_not_written() {
    for name in ["", ".", "..", "a/b", "a\0", &"n".repeat(256)] {
        assert!(write_dir(vec![file(name, 1)], &mut |_, _| ()).is_err(), "{name:?}");
    }
    let chunk = ChunkRef { len: 0, ..chunk(1) };
    assert!(write_map([chunk], &mut |_, _| ()).is_err());
}

/// Figures: of 20,000 entries (1.4 MB of objects), one more, one less or one other makes 2 to 4 objects
/// new, 29 KB in the mean: its leaf, and the index.
#[test]
fn a_change_among_twenty_thousand_entries_makes_few_objects_new() {
    let all: Vec<DirEntry> = (0..20_000).map(named).collect();
    let (_, _, before) = dir(all.clone());
    let whole: usize = before.values().map(Bytes::len).sum();
    let mut bytes_of_all = 0;
    let rounds = 60;
    for round in 0..rounds {
        let mut changed = all.clone();
        match round % 3 {
            0 => changed.push(named(20_000 + round)),
            1 => drop(changed.swap_remove(331 * round as usize % 20_000)),
            _ => changed[331 * round as usize % 20_000].node = file("x", 1 << 40 | round).node,
        }
        let (_, _, after) = dir(changed);
        let (count, bytes) = fresh(&before, &after);
        assert!((2..=4).contains(&count), "round {round}: {count} objects");
        assert!(bytes < whole / 10, "round {round}: {bytes} of {whole} bytes");
        bytes_of_all += bytes;
    }
    let mean = bytes_of_all / rounds as usize;
    println!("{} objects, {whole} bytes; a change makes {mean} bytes new in the mean", before.len());
    assert!(mean < 30_000, "{mean}");
}

/// Figures: the map of 1 GiB is 0.6 MB in some 130 objects; a mebibyte put into it makes 2 to 8 of them
/// new, 14 KB in the mean.
#[test]
fn a_mebibyte_put_into_a_gibibyte_makes_little_of_its_map_new() {
    let all: Vec<ChunkRef> = (0..16_384).map(chunk).collect();
    let (_, len, before) = map(all.clone());
    assert_eq!(len, 1 << 30);
    let whole: usize = before.values().map(Bytes::len).sum();
    let (mut most, mut sum) = (0, 0);
    for round in 0..100 {
        let at = round * 163;
        let inserted = (0..16).map(|number| chunk((round as u64 + 1) << 32 | number));
        let changed = all[..at].iter().copied().chain(inserted).chain(all[at..].iter().copied());
        let (_, _, after) = map(changed);
        let (count, bytes) = fresh(&before, &after);
        assert!((2..=8).contains(&count), "at {at}: {count} objects");
        most = most.max(bytes);
        sum += bytes;
    }
    println!(
        "{} objects, {whole} bytes; an insert makes {} new in the mean, {most} at most",
        before.len(),
        sum / 100
    );
    assert!(sum / 100 <= 25_000 && most <= 60_000, "{} {most}", sum / 100);
}

#[test]
fn a_file_of_a_tebibyte_has_a_map_of_two_levels_and_its_writer_keeps_three_objects() {
    let mut writer = MapWriter::new();
    // Ever the same chunk, as of a sparse file, with others in between so that leaves differ.
    let mut written = 0;
    let mut levels = BTreeSet::new();
    let mut out = |_, bytes: Bytes| {
        assert!(bytes.len() <= TREE_OBJECT_BYTES_MAX);
        levels.insert(bytes[4]);
        written += 1;
    };
    let count = 4 * 1024 * 1024 / 16;
    for number in 0..count {
        let id = if number % 1_000 == 0 { chunk(number).id } else { chunk(1).id };
        writer.push(ChunkRef { id, len: 262_144 }, &mut out).expect("it fits");
    }
    let (_, len) = writer.finish(&mut out).expect("a map");
    assert_eq!((len, levels), (262_144 * count, BTreeSet::from([0, 1, 2])));
    assert!(written < 1_500, "{written}");
}

#[test]
fn a_directory_of_300_000_entries_has_two_levels() {
    let all: Vec<DirEntry> = (0..300_000).map(|number| file(&format!("{number:06}"), number)).collect();
    let (id, totals, objects) = dir(all);
    assert_eq!((level(&id, &objects), totals.entries), (2, 300_000));
    assert_eq!(entries(&id, &objects).len(), 300_000);
}

#[test]
fn leaves_whose_content_never_ends_them_are_bounded() {
    let all: Vec<DirEntry> = (0..).map(|number| file(&format!("{number:06}"), 0)).take(60_000).collect();
    let never: Vec<DirEntry> = all.into_iter().filter(|entry| !entry.chooses()).collect();
    let count = never.len();
    let (id, _, objects) = dir(never);
    let leaves = objects.values().filter(|bytes| bytes[4] == 0).count();
    assert_eq!((leaves, entries(&id, &objects).len()), (count.div_ceil(TREE_OBJECT_ROWS_MAX), count));
}

fn some_entries() -> impl Strategy<Value = BTreeMap<u16, u8>> {
    prop::collection::btree_map(0..2_000_u16, 0..3_u8, 0..900)
}

fn made(entries: &BTreeMap<u16, u8>) -> Vec<DirEntry> {
    entries.iter().map(|(name, content)| file(&format!("{name}"), u64::from(*content))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn the_order_in_which_entries_come_makes_no_difference(
        entries in some_entries().prop_map(|entries| made(&entries)),
        seed: u64,
    ) {
        let mut shuffled = entries.clone();
        shuffled.sort_by_key(|entry| ContentId::of(&[&entry.name[..], &seed.to_le_bytes()].concat()));
        prop_assert_eq!(dir(entries), dir(shuffled));
    }

    #[test]
    fn two_trees_share_an_id_only_when_they_are_equal(one in some_entries(), changes in prop::collection::vec((0..2_000_u16, 0..3_u8), 0..3)) {
        let mut other = one.clone();
        other.extend(changes);
        let (a, b) = (dir(made(&one)), dir(made(&other)));
        prop_assert_eq!(a.0 == b.0, one == other);
        let mut found = entries(&b.0, &b.2);
        let mut wanted = made(&other);
        found.sort_by(|one, other| one.name.cmp(&other.name));
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn a_map_holds_its_chunks_in_order(numbers in prop::collection::vec(0..50_u64, 1..3_000)) {
        let all: Vec<ChunkRef> = numbers.into_iter().map(chunk).collect();
        let (id, len, objects) = map(all.clone());
        prop_assert_eq!(len, 65_536 * all.len() as u64);
        prop_assert_eq!(chunks(&id, &objects), all);
    }
}
