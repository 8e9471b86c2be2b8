//! SYNC, safety rule 17: a disk or a quota that is full leaves what was kept, and what makes room works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cortex_core::Code;
use cortex_core::time::WallTime;
use cortex_store::blobs::{Collected, Room, Rules, SpaceRules, Sweep};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::*;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A pack of bytes that do not shrink.
fn noise(seed: u64, len: usize) -> Pack {
    let mut writer = PackWriter::new(1);
    let mut state = seed + 1;
    let mut chunk = vec![0; 64 * KIB];
    for _ in 0..len / chunk.len() {
        for word in chunk.chunks_exact_mut(8) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            word.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
        }
        assert_eq!(writer.add(ContentId::of(&chunk), &chunk), Added::Yes);
    }
    writer.finish().expect("a pack")
}

fn code(result: Result<PackPut, BlobError>) -> Code {
    match result {
        Err(BlobError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

fn collect(blobs: &FolderBlobs) -> Collected {
    let rules = Rules { young_ms: 0, condemned_ms: 0, ..Rules::default() };
    let since = blobs.begin().expect("pins");
    blobs.collect(Sweep { since, roots: &[], now: WallTime(0), rules }).expect("nothing is named")
}

#[test]
fn a_quota_and_a_reserve_are_held_before_a_byte_is_written() {
    let (one, two) = (noise(1, MIB), noise(2, MIB));
    let len = one.head.pack_len() as u64;
    let free = Arc::new(AtomicU64::new(len));
    let asked = Arc::clone(&free);
    let room: Room = Arc::new(move || Ok(asked.load(Ordering::SeqCst)));
    let folder = tempfile::tempdir().expect("a folder");
    let space = SpaceRules { bytes_max: len + 10, room };
    let (blobs, _) = FolderBlobs::open_with(folder.path(), space).expect("an empty folder");
    put(&blobs, &one).expect("it fits");
    for synced in [false, true] {
        let refusal = blobs.put_pack(&two.head, &mut Cursor::new(&two.tail), &blobs.pin().expect("pins"));
        assert_eq!(code(refusal), Code::Quota, "synced: {synced}");
        assert_eq!(put(&blobs, &one).expect("it is there"), PackPut::Already, "that needs no room");
        sync(&blobs);
    }
    for _ in 0..2 {
        collect(&blobs);
    }
    free.store(len - 1, Ordering::SeqCst);
    assert_eq!(code(put(&blobs, &two)), Code::NoSpace);
    free.store(len, Ordering::SeqCst);
    put(&blobs, &two).expect("there is room");
    assert!(files(&folder.path().join("tmp")).len() == 1);
}

/// Runs the body on a small disk that this thread alone sees; nowhere but as root.
fn on_small_disk(size: &str, body: impl FnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("a view of its own");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private");
            let folder = tempfile::tempdir().expect("a folder");
            let options = format!("size={size}");
            mount(Some("tmpfs"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(&*options))
                .expect("mounted");
            body(folder.path());
            umount2(folder.path(), MntFlags::MNT_DETACH).expect("unmounted");
        });
        if let Err(panic) = done.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn sync_17_a_disk_that_fills_in_the_middle_leaves_what_was_kept_and_is_emptied_again() {
    on_small_disk("8m", |folder| {
        let (blobs, _) = FolderBlobs::open(folder).expect("an empty folder");
        let mut kept = Vec::new();
        let full = loop {
            // Small ones too: they fill it to the last page, so that the index has no room either.
            let seed = kept.len() as u64;
            let len = if seed < 7 { MIB } else { 64 * KIB };
            let pack = noise(seed, len);
            match put(&blobs, &pack) {
                Ok(_) => kept.push(pack),
                Err(fault) => break fault,
            }
            blobs.sync(&blobs.pin().expect("pins")).expect("what was taken is made durable");
        };
        assert_eq!(code(Err(full)), Code::NoSpace);
        assert!(kept.len() > 7, "{}", kept.len());
        std::fs::write(folder.join("rest"), vec![0; MIB]).expect_err("not a page is left");
        assert_eq!(files(&folder.join("tmp")).len(), 0, "nothing half is left");
        let all_there = |blobs: &FolderBlobs| {
            for pack in &kept {
                let read = blobs.read_pack(&pack.head.id()).expect("a disk").expect("a pack");
                assert_eq!(read.tail, pack.tail);
                let id = pack.head.chunks()[0].id;
                assert!(blobs.chunk(&id).expect("a disk").is_some());
            }
            assert_eq!(blobs.figures().expect("figures").packs, kept.len() as u64);
        };
        all_there(&blobs);
        // Collecting needs no room, and gives some. What the index had no room for it learns on the way.
        let mut deleted = 0;
        for _ in 0..4 {
            deleted += collect(&blobs).deleted;
        }
        assert_eq!(deleted, kept.len() as u64);
        let ids: Vec<ContentId> = kept.iter().map(|pack| pack.head.chunks()[0].id).collect();
        assert!(have(&blobs, &ids).iter().all(|here| !here));
        std::fs::remove_file(folder.join("rest")).expect("removed");
        for pack in &kept[..6] {
            put(&blobs, pack).expect("there is room");
            sync(&blobs);
        }
        kept.truncate(6);
        drop(blobs);
        let (blobs, recovered) = FolderBlobs::open(folder).expect("a folder");
        assert_eq!((recovered.damaged, recovered.unfinished), (0, 0));
        for pack in &kept {
            assert!(blobs.read_pack(&pack.head.id()).expect("a disk").is_some());
        }
    });
}
