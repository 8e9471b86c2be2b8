//! The index is made from the packs: whatever becomes of it, a start finds all that is there.

use super::*;

const COUNT: u16 = 40;

fn three_packs() -> tempfile::TempDir {
    let (folder, _) = folder_with(&pack(0..20));
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("a folder");
    put(&blobs, &pack(20..30)).expect("right");
    put(&blobs, &pack(25..COUNT)).expect("right");
    sync(&blobs);
    folder
}

fn all_is_there(blobs: &FolderBlobs) {
    for number in 0..COUNT {
        assert_eq!(content(blobs, number).as_deref(), Some(&chunk(number)[..]), "chunk {number}");
    }
    let figures = blobs.figures().expect("figures");
    assert_eq!((figures.packs, figures.chunks), (3, u64::from(COUNT) + 5));
}

#[test]
fn an_index_that_is_lost_or_garbage_is_made_again_from_the_packs() {
    for damage in ["removed", "emptied", "garbage", "cut", "a page", "another version", "not a database"] {
        let folder = three_packs();
        let path = folder.path().join("index.db");
        let mut bytes = fs::read(&path).expect("an index");
        assert!(bytes.len() > 8_192, "it is written back when it is closed");
        match damage {
            "removed" => fs::remove_file(&path).expect("removed"),
            "emptied" => bytes.clear(),
            "garbage" => bytes.fill(0x5a),
            "cut" => bytes.truncate(bytes.len() / 2),
            "a page" => bytes[8_192..12_288].fill(0x5a),
            "another version" => bytes[60..64].copy_from_slice(&99_u32.to_be_bytes()),
            _ => bytes = "فهرس".repeat(4_096).into_bytes(),
        }
        if damage != "removed" {
            fs::write(&path, bytes).expect("written");
        }
        let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
        assert_eq!((recovered.read, recovered.damaged, recovered.vanished), (3, 0, 0), "{damage}");
        // An empty file is what a new database is made from.
        assert_eq!(recovered.rebuilt, !matches!(damage, "removed" | "emptied"), "{damage}");
        all_is_there(&blobs);
        drop(blobs);
        let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
        assert_eq!(recovered, Recovered::default(), "{damage}: once is enough");
        all_is_there(&blobs);
    }
}

#[test]
fn an_index_that_is_damaged_while_it_is_used_is_made_again_at_the_next_start() {
    let folder = three_packs();
    let path = folder.path().join("index.db");
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("a folder");
    let mut bytes = fs::read(&path).expect("an index");
    bytes[4_096..].fill(0x5a);
    fs::write(&path, bytes).expect("written");
    let broken = blobs.locate(&[id(1)]);
    assert!(matches!(broken, Err(BlobError::Index(_))), "{broken:?}");
    drop(blobs);
    let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
    assert!(recovered.rebuilt, "{recovered:?}");
    all_is_there(&blobs);
}

#[test]
fn what_came_and_went_beside_the_index_is_seen_at_the_start() {
    let folder = three_packs();
    let other = three_packs();
    let all = packs(folder.path());
    // One pack is lost; the other folder's index knows none of what is put into it.
    fs::remove_file(&all[0]).expect("removed");
    let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
    assert_eq!((recovered.vanished, recovered.read), (1, 0));
    assert_eq!(blobs.figures().expect("figures").packs, 2);
    drop(blobs);
    fs::copy(
        packs(other.path()).iter().find(|path| path.file_name() == all[0].file_name()).expect("it"),
        &all[0],
    )
    .expect("copied");
    let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
    assert_eq!((recovered.vanished, recovered.read), (0, 1));
    all_is_there(&blobs);
}

#[test]
fn two_threads_that_put_the_same_pack_keep_it_once() {
    for _ in 0..20 {
        let (folder, blobs) = folder_without();
        let pack = pack(0..20);
        let barrier = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let pin = blobs.pin().expect("pins");
                    barrier.wait();
                    blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), &pin).expect("right");
                    blobs.sync(&pin).expect("a disk");
                    assert_eq!(blobs.have(&[id(3)], &pin).expect("an index"), [true]);
                });
            }
        });
        let figures = blobs.figures().expect("figures");
        assert_eq!((figures.packs, figures.chunks, figures.pins), (1, 20, 0));
        assert_eq!((packs(folder.path()).len(), files(&folder.path().join("tmp")).len()), (1, 0));
    }
}
