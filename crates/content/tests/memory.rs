//! What a peer's claims cost in memory. The peak of the whole process is read, so that what zstd takes
//! is counted as well; each test reads how much it grew.
#![cfg(target_os = "linux")]

use std::io::Write as _;

use bytes::Bytes;
use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_content::object::{DirEntry, Node, Totals, read_object};
use cortex_content::pack::PackHead;
use cortex_content::tree::write_dir;
use cortex_content::unpack::Unpack;
use cortex_core::Code;
use cortex_core::files::content::ContentId;

/// The peak so far, KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
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
fn sync_13_no_length_of_a_peer_is_believed_before_it_is_bounded() {
    let before = peak();
    let most = u32::MAX;
    for (count, plain, body) in
        [(most, 5, 5), (5, most, most), (65_536, 4 << 20, 4 << 20), (65_536, 1 << 20, 1)]
    {
        assert!(!matches!(PackHead::read(&head(1, count, plain, body, &[])), Ok(Some(_))));
    }
    for level in 0..=255 {
        let object = [&b"CXD1"[..], &[level], &[255, 255]].concat();
        assert!(read_object(&Bytes::from(object)).is_err());
    }
    let grown = peak() - before;
    assert!(grown < 2_048, "claims alone took {grown} KiB");
}

#[test]
fn sync_13_a_gibibyte_in_a_frame_of_one_pack_takes_no_more_than_the_pack() {
    let zeros = vec![0; 1 << 20];
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("zstd");
    (0..1_024).for_each(|_| encoder.write_all(&zeros).expect("memory"));
    let frame = encoder.finish().expect("zstd");
    let told = head(1, 1, 1 << 20, frame.len() as u32, &[(ContentId::of(&zeros), 1 << 20)]);
    let before = peak();
    let (head, _) = PackHead::read(&told).expect("it adds up").expect("all of it");
    let mut unpack = Unpack::new(head).expect("memory");
    unpack.push(Bytes::from(frame)).expect("as long as it says");
    assert!(
        unpack.next_chunk().is_ok_and(|chunk| chunk.is_some()),
        "the first mebibyte is what its id names"
    );
    assert!(unpack.next_chunk().is_err() && unpack.finish().is_err());
    let grown = peak() - before;
    assert!(grown < 8 * 1_024, "a bomb took {grown} KiB");
}

#[test]
fn a54_a_tree_that_only_grows_is_refused_before_what_waits_takes_much() {
    let sub = |name: String, id: ContentId, totals| DirEntry {
        name: Bytes::from(name),
        node: Node::Dir { id: id.into(), totals },
    };
    // Each of 200 directories names 900 that are never sent, and last the one that goes on.
    let mut objects = std::collections::BTreeMap::new();
    let (mut below, mut totals) = (ContentId::of(b"the end"), Totals::default());
    for level in 0..200 {
        let fake = |name: &String| ContentId::of(format!("{level} {name}").as_bytes());
        // Names that do not end an object: all of them wait at once.
        let names = (0..)
            .map(|number: u32| format!("{number:04}"))
            .filter(|name| ContentId::of(name.as_bytes()).as_bytes()[0] > 1);
        let mut entries: Vec<DirEntry> =
            names.take(900).map(|name| sub(name.clone(), fake(&name), Totals::default())).collect();
        entries.push(sub("z".to_owned(), below, totals));
        let written =
            write_dir(entries, &mut |id, bytes| drop(objects.insert(id, bytes))).expect("a directory");
        (below, totals) = (written.0.into(), written.1);
    }
    let before = peak();
    let quota = TreeQuota { entries: u32::MAX, bytes: u64::MAX, depth: u16::MAX };
    let mut check = GraphCheck::new(below.into(), quota);
    let mut fed = 0;
    let refused = loop {
        let id = check.wanted(1)[0];
        // Only what is there comes; the rest stays asked for.
        let Some(bytes) = objects.get(&id) else { continue };
        fed += 1;
        if let Err(refusal) = check.feed(id, bytes) {
            break refusal;
        }
    };
    assert_eq!((refused.code, fed > 60), (Code::TooLarge, true));
    let grown = peak() - before;
    assert!(grown < 32 * 1_024, "{grown} KiB after {fed} objects");
}
