//! How long it takes, for people to look at: `cargo test --release -p cortex-store --test blobs -- --ignored
//! --nocapture figures`. Nothing is asserted on times.

#![expect(clippy::print_stdout, reason = "figures are what this is for")]

use std::time::Instant;

use cortex_content::object::{DirEntry, FileNode, Node};
use cortex_content::tree::write_dir;
use cortex_core::time::WallTime;
use cortex_store::blobs::{Completeness, Root, Rules, Sweep};

use super::*;

const FILES: u32 = 100_000;
const PER_DIR: u32 = 100;

fn bytes(number: u32) -> Vec<u8> {
    let mut state = u64::from(number) + 1;
    let len = 2_000 + number as usize % 2_000;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let value = work();
    println!("{what:<58} {:>9.1} ms", start.elapsed().as_secs_f64() * 1_000.0);
    value
}

#[test]
#[ignore = "measures"]
fn figures_of_a_hundred_thousand_chunks() {
    let (folder, blobs) = folder_without();
    let mut packs = Vec::new();
    let mut writer = PackWriter::new(1);
    let mut roots = Vec::new();
    timed("made (not the store's work)", || {
        // Two trees, of which the second is given up.
        for half in [0..FILES / 2, FILES / 2..FILES] {
            let mut objects = Vec::new();
            let mut dirs = Vec::new();
            for first in half.step_by(PER_DIR as usize) {
                let mut entries = Vec::new();
                for number in first..first + PER_DIR {
                    let bytes = bytes(number);
                    let id = ContentId::of(&bytes);
                    let size = bytes.len() as u64;
                    let node = Node::File(FileNode { id, size, exec: false, mtime_ns: 0, map: None });
                    entries.push(DirEntry { name: format!("{number}.rs").into(), node });
                    if writer.add(id, &bytes) == Added::Full {
                        packs.extend(writer.finish());
                        assert_eq!(writer.add(id, &bytes), Added::Yes);
                    }
                }
                let (id, totals) =
                    write_dir(entries, &mut |id, bytes| objects.push((id, bytes))).expect("a directory");
                dirs.push(DirEntry { name: format!("{first}").into(), node: Node::Dir { id, totals } });
            }
            let (tree, _) = write_dir(dirs, &mut |id, bytes| objects.push((id, bytes))).expect("a directory");
            for (id, bytes) in objects {
                if writer.add(id, &bytes) == Added::Full {
                    packs.extend(writer.finish());
                    assert_eq!(writer.add(id, &bytes), Added::Yes);
                }
            }
            packs.extend(writer.finish());
            roots.push(Root { tree, content: true });
        }
    });
    let pin = blobs.pin().expect("pins");
    timed("put, each chunk verified", || {
        for pack in &packs {
            blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), &pin).expect("right");
        }
    });
    timed("sync", || blobs.sync(&pin).expect("a disk"));
    let figures = blobs.figures().expect("figures");
    println!("{figures:?}");
    let ids: Vec<ContentId> = (0..FILES).map(|number| ContentId::of(&bytes(number))).collect();
    timed("have, 100,000 ids in calls of 4,096", || {
        for ids in ids.chunks(4_096) {
            assert!(blobs.have(ids, &pin).expect("an index").iter().all(|here| *here));
        }
    });
    timed("complete, for the first time", || {
        assert_eq!(blobs.complete(&roots[0], &pin).expect("a walk"), Completeness::Whole);
    });
    timed("complete, known", || {
        assert_eq!(blobs.complete(&roots[0], &pin).expect("a walk"), Completeness::Whole);
    });
    timed("all packs read to be sent, verified", || {
        for pack in &packs {
            blobs.read_pack(&pack.head.id()).expect("a disk").expect("a pack");
        }
    });
    let last = packs.last().expect("packs").head.id();
    timed("a thousand times one pack from the cache", || {
        (0..1_000).for_each(|_| drop(blobs.read_pack(&last).expect("a disk").expect("a pack")));
    });
    timed("10,000 chunks in their order", || {
        ids[..10_000].iter().for_each(|id| assert!(blobs.chunk(id).expect("a disk").is_some()));
    });
    timed("scrub of all", || assert_eq!(blobs.scrub(u64::MAX).expect("a disk").damaged, []));
    drop(pin);
    let rules = Rules { young_ms: 0, condemned_ms: 0, ..Rules::default() };
    let sweep = |roots: &[Root]| {
        let since = blobs.begin().expect("pins");
        blobs.collect(Sweep { since, roots, now: WallTime(0), rules }).expect("a whole graph")
    };
    println!("{:?}", timed("collection, all alive", || sweep(&roots)));
    println!("{:?}", timed("collection, half condemned", || sweep(&roots[..1])));
    println!("{:?}", timed("collection, half removed", || sweep(&roots[..1])));
    drop(blobs);
    let len = fs::metadata(folder.path().join("index.db")).expect("an index").len();
    println!("index.db: {len} bytes");
    let open = || FolderBlobs::open(folder.path()).expect("a folder");
    drop(timed("open", open));
    fs::remove_file(folder.path().join("index.db")).expect("removed");
    let (_, recovered) = timed("open without an index", open);
    println!("{recovered:?}");
}
