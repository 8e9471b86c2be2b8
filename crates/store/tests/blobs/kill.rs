//! The process ends at each named point: what was acknowledged is there, and what nothing names goes.

use std::process::Command;

use cortex_core::time::WallTime;
use cortex_store::blobs::{Completeness, Root, Rules, Sweep};

use super::*;

/// The point at which the process that runs this test again is to end, and its folder.
const POINT: &str = "CORTEX_TEST_BLOBS_POINT";
const FOLDER: &str = "CORTEX_TEST_BLOBS_FOLDER";

/// Files that stay: one of each pack of eight, so that the packs are written anew.
const KEPT: [u16; 3] = [3, 11, 19];

fn tree() -> (Root, Pack) {
    use cortex_content::object::{DirEntry, FileNode, Node};
    let entry = |number: u16| {
        let size = chunk(number).len() as u64;
        let node = Node::File(FileNode { id: id(number), size, exec: false, mtime_ns: 0, map: None });
        DirEntry { name: format!("ملف {number}").into(), node }
    };
    let mut writer = PackWriter::new(1);
    let (tree, _) = cortex_content::tree::write_dir(KEPT.map(entry).into(), &mut |id, bytes| {
        assert_eq!(writer.add(id, &bytes), Added::Yes);
    })
    .expect("a directory");
    (Root { tree, content: true }, writer.finish().expect("a pack"))
}

/// Puts, syncs, says that it did, and collects until there is nothing to do.
fn work(folder: &Path) {
    let (blobs, _) = FolderBlobs::open(folder).expect("a folder");
    let (root, objects) = tree();
    let pin = blobs.pin().expect("pins");
    for first in [0, 8, 16] {
        let pack = pack(first..first + 8);
        blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), &pin).expect("right");
    }
    blobs.put_pack(&objects.head, &mut Cursor::new(&objects.tail), &pin).expect("right");
    blobs.sync(&pin).expect("a disk");
    assert_eq!(blobs.complete(&root, &pin).expect("a walk"), Completeness::Whole);
    fs::write(folder.join("../acknowledged"), "").expect("said");
    drop(pin);
    let rules = Rules { young_ms: 0, condemned_ms: 0, ..Rules::default() };
    for _ in 0..3 {
        let since = blobs.begin().expect("pins");
        blobs.collect(Sweep { since, roots: &[root], now: WallTime(0), rules }).expect("a whole graph");
    }
    let figures = blobs.figures().expect("figures");
    assert_eq!((figures.packs, figures.chunks), (2, 4), "the objects, and what is left");
}

#[test]
fn a_kill_at_any_point_loses_nothing_that_was_acknowledged_and_leaves_nothing_behind() {
    let name = "kill::a_kill_at_any_point_loses_nothing_that_was_acknowledged_and_leaves_nothing_behind";
    if let (Ok(point), Some(folder)) = (std::env::var(POINT), std::env::var_os(FOLDER)) {
        fail::cfg_callback(point, || std::process::abort()).expect("the point is known");
        work(Path::new(&folder));
        panic!("nobody came to the point");
    }
    for point in ["tmp", "renamed", "dir_synced", "indexed", "condemned", "deleted", "repacked"] {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("chunks");
        let mut child = Command::new(std::env::current_exe().expect("it has one"));
        child
            .args([name, "--exact", "--nocapture"])
            .env(POINT, format!("blobs::{point}"))
            .env(FOLDER, &folder);
        let ended = child.output().expect("started");
        let text = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(6), "{point}: {text}");
        let acknowledged = place.path().join("acknowledged").exists();
        assert_eq!(acknowledged, matches!(point, "condemned" | "deleted" | "repacked"), "{point}");
        let (blobs, recovered) = FolderBlobs::open(&folder).expect("what the kill left");
        assert!(!recovered.rebuilt && recovered.damaged == 0, "{point}: {recovered:?}");
        if acknowledged {
            let whole = blobs.complete(&tree().0, &blobs.pin().expect("pins")).expect("a walk");
            assert_eq!(whole, Completeness::Whole, "{point}");
            KEPT.iter().for_each(|number| assert!(content(&blobs, *number).is_some(), "{point}"));
        }
        assert_eq!(blobs.scrub(u64::MAX).expect("a disk").damaged, [], "{point}");
        assert!(files(&folder.join("tmp")).is_empty(), "{point}");
        drop(blobs);
        // The same again, to the end.
        work(&folder);
        assert_eq!(packs(&folder).len(), 2, "{point}");
    }
}
