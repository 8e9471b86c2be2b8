//! Tests of trees that come from a peer which may lie.

use std::collections::BTreeMap;

use cortex_core::limits::{TREE_DEPTH_MAX, TREE_ENTRIES_MAX};
use proptest::prelude::*;

use super::*;
use crate::object::{DirEntry, FileNode, Row as _, write_object};
use crate::pack::ChunkRef;
use crate::tree::{write_dir, write_map};

const FREE: TreeQuota = TreeQuota { entries: u32::MAX, bytes: u64::MAX, depth: u16::MAX };

/// What a peer has.
#[derive(Default)]
struct Peer(BTreeMap<ContentId, Bytes>);

impl Peer {
    fn put(&mut self, object: &Object) -> ContentId {
        let bytes = write_object(object);
        let id = ContentId::of(&bytes);
        self.0.insert(id, bytes);
        id
    }

    fn dir(&mut self, entries: Vec<DirEntry>) -> (ContentId, Totals) {
        let (id, totals) =
            write_dir(entries, &mut |id, bytes| drop(self.0.insert(id, bytes))).expect("a tree");
        (id.into(), totals)
    }

    fn map(&mut self, chunks: impl IntoIterator<Item = ChunkRef>) -> (ContentId, u64) {
        write_map(chunks, &mut |id, bytes| drop(self.0.insert(id, bytes))).expect("a map")
    }

    /// Checks a tree, so many objects at a time. What it has and how many objects were looked at.
    fn check(&self, root: ContentId, quota: TreeQuota, at_once: usize) -> Result<(Totals, usize), Refusal> {
        let mut check = GraphCheck::new(root.into(), quota);
        let mut fed = 0;
        loop {
            let ids = check.wanted(at_once);
            if ids.is_empty() {
                assert!(check.is_whole(), "it stands still");
                return Ok((check.totals().expect("the root was fed"), fed));
            }
            assert!(ids.len() <= at_once);
            // They come in another order than they were asked for.
            for id in ids.iter().rev() {
                check.feed(*id, &self.0[id])?;
                fed += 1;
            }
        }
    }

    fn code(&self, root: ContentId, quota: TreeQuota) -> Option<Code> {
        self.check(root, quota, 100).err().map(|refusal| refusal.code)
    }
}

fn file(name: &str, size: u64, map: Option<ContentId>) -> DirEntry {
    let id = ContentId::of(if size == 0 { b"" } else { b"content" });
    let node = FileNode { id, size, exec: false, mtime_ns: 0, map };
    DirEntry { name: Bytes::copy_from_slice(name.as_bytes()), node: Node::File(node) }
}

fn sub(name: &str, (id, totals): (ContentId, Totals)) -> DirEntry {
    DirEntry { name: Bytes::copy_from_slice(name.as_bytes()), node: Node::Dir { id: id.into(), totals } }
}

fn files(count: u32) -> Vec<DirEntry> {
    (0..count).map(|number| file(&format!("{number:06}"), 5, None)).collect()
}

fn chunk(number: u64) -> ChunkRef {
    ChunkRef { id: ContentId::of(&number.to_le_bytes()), len: 65_536 }
}

/// A tree with a long file, a wide directory, and one directory in two places.
fn ordinary(peer: &mut Peer) -> (ContentId, Totals) {
    let (map, len) = peer.map((0..3_000).map(chunk));
    let wide = peer.dir(files(3_000));
    let twin = peer.dir(vec![file("a", 1, None), file("long", len, Some(map))]);
    let below = peer.dir(vec![sub("twin", twin), sub("wide", wide)]);
    peer.dir(vec![sub("below", below), sub("twin", twin), file("مرحبا", 0, None)])
}

#[test]
fn a_tree_is_checked_object_by_object_however_many_come_at_once() {
    let mut peer = Peer::default();
    let (root, totals) = ordinary(&mut peer);
    assert_eq!(
        totals,
        Totals { entries: 3_000 + 2 * 2 + 2 + 3, bytes: 15_000 + 2 * (1 + 3_000 * 65_536), depth: 2 }
    );
    for at_once in [1, 2, 7, 100_000] {
        let found = peer.check(root, FREE, at_once).expect("nothing is wrong with it");
        assert_eq!(found, (totals, peer.0.len()), "each object once, {at_once} at a time");
    }
}

#[test]
fn an_empty_tree_is_whole_after_one_object() {
    let mut peer = Peer::default();
    let (root, _) = peer.dir(Vec::new());
    assert_eq!(peer.check(root, TreeQuota { entries: 0, bytes: 0, depth: 0 }, 9), Ok((Totals::default(), 1)));
}

#[test]
fn a_quota_is_held_at_the_first_object() {
    let mut peer = Peer::default();
    let (root, totals) = ordinary(&mut peer);
    let exact = TreeQuota { entries: totals.entries, bytes: totals.bytes, depth: totals.depth };
    assert_eq!(peer.code(root, exact), None);
    for less in [
        TreeQuota { entries: exact.entries - 1, ..exact },
        TreeQuota { bytes: exact.bytes - 1, ..exact },
        TreeQuota { depth: exact.depth - 1, ..exact },
    ] {
        let mut check = GraphCheck::new(root.into(), less);
        assert_eq!(check.wanted(100), [root]);
        assert_eq!(check.feed(root, &peer.0[&root]).map_err(|refusal| refusal.code), Err(Code::Quota));
        assert_eq!((check.wanted(100), check.is_whole()), (Vec::new(), false));
    }
}

/// ABUSE 54: 1e8 entries, 10 GiB of names, nesting of 1e5, sums that overflow. None of it is there: the
/// first object that would lead to it is refused.
#[test]
fn a54_a_manifest_of_1e8_entries_is_refused_while_it_streams() {
    let mut peer = Peer::default();
    // A true tree of so many, made of few objects: each directory names the one below it 100 times.
    let mut below = peer.dir(files(100));
    for _ in 0..2 {
        below = peer.dir((0..100).map(|number| sub(&format!("{number:02}"), below)).collect());
    }
    assert!(below.1.entries > 1_000_000);
    // By names that all may stand in one object.
    let entries = (0..).map(|number| sub(&format!("{number:03}"), below));
    let entries: Vec<DirEntry> = entries.filter(|entry| !entry.chooses()).take(100).collect();
    assert!(write_dir(entries.clone(), &mut |_, _| ()).is_err_and(|refusal| refusal.code == Code::TooLarge));
    let root = peer.put(&Object::Dir(entries));
    assert_eq!(peer.code(root, FREE), Some(Code::TooLarge));
    // The same from a peer that says less than there is: found when what it names comes.
    let less = Totals { entries: 1, ..below.1 };
    let root = peer.put(&Object::Dir(vec![sub("a", (below.0, less))]));
    assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument));
    let overflow = Totals { entries: 0, bytes: u64::MAX, depth: 0 };
    let root = peer.put(&Object::Dir(vec![sub("a", (below.0, overflow)), sub("b", (below.0, overflow))]));
    assert_eq!(peer.code(root, FREE), Some(Code::TooLarge));
}

#[test]
fn a54_a_tree_is_as_deep_as_it_may_be_and_no_deeper() {
    let mut peer = Peer::default();
    let mut root = peer.dir(Vec::new());
    for _ in 0..TREE_DEPTH_MAX {
        root = peer.dir(vec![sub("d", root)]);
    }
    assert_eq!(peer.check(root.0, FREE, 9), Ok((root.1, 513)));
    let deeper = peer.put(&Object::Dir(vec![sub("d", root)]));
    assert_eq!(peer.code(deeper, FREE), Some(Code::TooLarge));
    let lie = Totals { depth: 3, ..root.1 };
    let deeper = peer.put(&Object::Dir(vec![sub("d", (root.0, lie))]));
    assert_eq!(peer.code(deeper, FREE), Some(Code::InvalidArgument));
}

#[test]
fn a54_directories_that_name_each_other_twice_are_counted_once_per_place() {
    let mut peer = Peer::default();
    let mut root = peer.dir(files(1));
    let mut doublings = 0;
    while u64::from(root.1.entries) * 2 + 2 <= TREE_ENTRIES_MAX {
        root = peer.dir(vec![sub("a", root), sub("b", root)]);
        doublings += 1;
    }
    assert_eq!(peer.check(root.0, FREE, 9), Ok((root.1, doublings + 1)), "and looked at once");
    let bomb = peer.put(&Object::Dir(vec![sub("a", root), sub("b", root)]));
    assert_eq!(peer.code(bomb, FREE), Some(Code::TooLarge));
}

#[test]
fn what_a_row_says_of_a_directory_must_be_so() {
    let mut peer = Peer::default();
    let (id, totals) = peer.dir(files(600));
    for lie in [
        Totals { entries: 599, ..totals },
        Totals { entries: 601, ..totals },
        Totals { bytes: totals.bytes - 1, ..totals },
        Totals { depth: 1, ..totals },
    ] {
        let root = peer.put(&Object::Dir(vec![sub("a", (id, lie))]));
        assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument), "{lie:?}");
        // Beside a row that tells the truth as well.
        let root = peer.put(&Object::Dir(vec![sub("a", (id, totals)), sub("b", (id, lie))]));
        assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument), "{lie:?}");
    }
}

#[test]
fn what_a_row_says_of_a_file_must_be_so() {
    let mut peer = Peer::default();
    for count in [40, 3_000] {
        let (map, len) = peer.map((0..count).map(chunk));
        let (root, _) = peer.dir(vec![file("a", len, Some(map))]);
        assert_eq!(peer.code(root, FREE), None);
        for lie in [len - 1, len + 1, u64::MAX >> 24] {
            let (root, _) = peer.dir(vec![file("a", lie, Some(map))]);
            assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument), "{lie}");
        }
    }
}

#[test]
fn an_object_of_another_kind_is_refused() {
    let mut peer = Peer::default();
    let (map, len) = peer.map((0..40).map(chunk));
    let (dir, totals) = peer.dir(files(3));
    assert_eq!(peer.code(map, FREE), Some(Code::InvalidArgument), "a map as a tree");
    let root = peer.put(&Object::Dir(vec![sub("a", (map, totals))]));
    assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument), "a map as a directory");
    let root = peer.put(&Object::Dir(vec![file("a", len, Some(dir))]));
    assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument), "a directory as a map");
}

/// The rows of an index of directories.
fn parts(peer: &Peer, id: ContentId) -> Vec<DirPart> {
    let object = read_object(&peer.0[&id]).expect("an object");
    let Object::DirIndex { level: 1, parts } = object else { panic!("no index of one level: {object:?}") };
    parts
}

/// The objects below an index are in order, end where they have to, and are what it says of them:
/// whoever has other objects has another tree, never a second form of this one.
#[test]
fn an_index_that_no_writer_makes_is_refused() {
    let mut peer = Peer::default();
    let (root, _) = peer.dir(files(1_500));
    let right = parts(&peer, root);
    assert!(right.len() > 3);
    let index = |parts: Vec<DirPart>| Object::DirIndex { level: 1, parts };
    let bad = Some(Code::InvalidArgument);
    assert_eq!(peer.code(root, FREE), None);

    let mut missing_middle = right.clone();
    missing_middle.remove(1);
    let root = peer.put(&index(missing_middle));
    assert_eq!(peer.code(root, FREE), None, "it is the index of another directory");

    let mut renamed = right.clone();
    renamed[0].last = Bytes::from_static(b"000000");
    let root = peer.put(&index(renamed));
    assert_eq!(peer.code(root, FREE), bad, "another last name");

    let mut swapped = right.clone();
    swapped.swap(0, 1);
    let root = peer.put(&index(swapped));
    assert_eq!(peer.code(root, FREE), bad, "parts in another order");

    let mut overlapping = right.clone();
    overlapping[1].id = right[0].id;
    overlapping[1].totals = right[0].totals;
    let root = peer.put(&index(overlapping));
    assert_eq!(peer.code(root, FREE), bad, "the same part under a later name");

    let root = peer.put(&index(right[..1].to_vec()));
    assert_eq!(peer.code(root, FREE), bad, "an index over one part");

    let root = peer.put(&Object::DirIndex { level: 2, parts: right.clone() });
    assert_eq!(peer.code(root, FREE), bad, "a level that is left out");
}

/// A leaf that was cut in two makes the same entries under another id.
#[test]
fn a_leaf_that_ends_too_early_is_refused() {
    let mut peer = Peer::default();
    let all = files(20);
    let (id, totals) = peer.dir(all.clone());
    assert!(matches!(read_object(&peer.0[&id]), Ok(Object::Dir(_))), "all of it fits in one leaf");
    let halves: Vec<DirPart> = [&all[..10], &all[10..]]
        .into_iter()
        .map(|half| {
            let last = half.last().expect("ten").name.clone();
            let totals = Totals { entries: 10, bytes: 50, depth: 0 };
            DirPart { last, totals, id: peer.put(&Object::Dir(half.to_vec())) }
        })
        .collect();
    let root = peer.put(&Object::DirIndex { level: 1, parts: halves });
    assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument));
    assert_eq!(totals.entries, 20);

    let chunks: Vec<ChunkRef> = (0..40).map(chunk).collect();
    let halves: Vec<MapPart> = [&chunks[..20], &chunks[20..]]
        .into_iter()
        .map(|half| MapPart { len: 20 * 65_536, id: peer.put(&Object::Map(half.to_vec())) })
        .collect();
    let map = peer.put(&Object::MapIndex { level: 1, parts: halves });
    let (root, _) = peer.dir(vec![file("a", 40 * 65_536, Some(map))]);
    assert_eq!(peer.code(root, FREE), Some(Code::InvalidArgument));
}

#[test]
fn only_what_was_asked_for_is_taken_and_only_as_that() {
    let mut peer = Peer::default();
    let (root, _) = ordinary(&mut peer);
    let mut check = GraphCheck::new(root.into(), FREE);
    assert!(check.feed(root, &peer.0[&root]).is_err(), "nobody asked for it");
    let mut check = GraphCheck::new(root.into(), FREE);
    assert_eq!(check.wanted(1), [root]);
    let (other, _) = peer.dir(files(2));
    assert!(check.feed(root, &peer.0[&other]).is_err(), "it is another");
    assert!(check.feed(root, &peer.0[&root]).is_err(), "and that was the end");
    let mut check = GraphCheck::new(root.into(), FREE);
    check.wanted(1);
    check.feed(root, &peer.0[&root]).expect("it was asked for");
    assert!(check.feed(root, &peer.0[&root]).is_err(), "once");
}

#[test]
fn below_what_is_known_nothing_is_asked_for() {
    let mut peer = Peer::default();
    let (root, totals) = ordinary(&mut peer);
    let mut check = GraphCheck::new(root.into(), FREE);
    check.wanted(1);
    check.feed_known(root, &peer.0[&root]).expect("it is right");
    assert_eq!((check.wanted(9), check.is_whole(), check.totals()), (Vec::new(), true, Some(totals)));
    // And yet what its row says must be so.
    let (id, totals) = peer.dir(files(3));
    let lie = Totals { bytes: 0, ..totals };
    let root = peer.put(&Object::Dir(vec![sub("a", (id, lie))]));
    let mut check = GraphCheck::new(root.into(), FREE);
    check.wanted(1);
    check.feed(root, &peer.0[&root]).expect("it is an object");
    assert_eq!(check.wanted(9), [id]);
    assert!(check.feed_known(id, &peer.0[&id]).is_err());
}

#[test]
fn the_same_long_file_in_many_places_is_looked_at_once() {
    let mut peer = Peer::default();
    let (map, len) = peer.map((0..3_000).map(chunk));
    let (root, _) = peer.dir((0..50).map(|number| file(&format!("{number}"), len, Some(map))).collect());
    assert_eq!(peer.check(root, FREE, 9).expect("it is right").1, peer.0.len());
}

#[test]
fn more_is_asked_for_only_while_what_may_follow_can_wait() {
    let mut peer = Peer::default();
    let wide: Vec<(ContentId, Totals)> = (0..70)
        .map(|number| {
            let entries = (0..900).map(|below| {
                let one = file(&format!("{number}-{below}"), 5, None);
                sub(&format!("{below:03}"), peer.dir(vec![one]))
            });
            let entries: Vec<DirEntry> = entries.collect();
            peer.dir(entries)
        })
        .collect();
    let entries = wide.iter().zip(0..).map(|(dir, number)| sub(&format!("{number:03}"), *dir)).collect();
    let (root, totals) = peer.dir(entries);
    assert_eq!(peer.check(root, FREE, 4_096).expect("it is right").0, totals);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_changed_object_is_found(at: prop::sample::Index, byte: prop::sample::Index, bit in 0..8_u8) {
        let mut peer = Peer::default();
        let (root, _) = ordinary(&mut peer);
        let id = *at.get(&peer.0.keys().copied().collect::<Vec<_>>());
        let mut bytes = peer.0[&id].to_vec();
        let byte = byte.index(bytes.len());
        bytes[byte] ^= 1 << bit;
        peer.0.insert(id, Bytes::from(bytes));
        prop_assert!(peer.code(root, FREE).is_some());
    }
}
