//! A power cut keeps what was synced. Of the rest it keeps what it likes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use proptest::prelude::*;

use super::*;
use crate::blobs::BlobError;

/// What a disk has taken, as far as it was told to.
#[derive(Default)]
struct Disk {
    /// Files in `tmp/` whose bytes are durable.
    synced: BTreeSet<PathBuf>,
    /// Names that may be lost.
    named: BTreeSet<PathBuf>,
    /// Names that are durable.
    durable: BTreeSet<PathBuf>,
    steps: usize,
}

/// What a power cut leaves of `from`; `luck` decides what nobody synced.
fn cut(disk: &Disk, from: &Path, to: &Path, mut luck: impl FnMut() -> bool) {
    copy(from, to);
    for path in &disk.named {
        let left = to.join(path.strip_prefix(from).expect("below"));
        if !disk.durable.contains(path) && luck() {
            fs::remove_file(left).expect("it was there");
        }
    }
    for entry in fs::read_dir(to.join("tmp")).expect("a folder") {
        let path = entry.expect("an entry").path();
        match luck() {
            true => fs::remove_file(path).expect("it was there"),
            false => fs::write(path, b"").expect("a disk"),
        }
    }
    // The index is not waited for: its log ends somewhere, or it is the one of long ago.
    let wal = to.join("index.db-wal");
    if let Ok(bytes) = fs::read(&wal) {
        let len = if luck() {
            0
        } else if luck() {
            bytes.len() / 2
        } else {
            bytes.len()
        };
        fs::write(&wal, &bytes[..len]).expect("a disk");
    }
    drop(fs::remove_file(to.join("index.db-shm")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_power_cut_leaves_every_pack_readable_whose_sync_has_answered(
        at in 0..60_usize,
        seed in any::<u64>(),
        groups in prop::collection::vec(prop::collection::btree_set(0..60_u16, 1..6), 1..6),
    ) {
        let Subject::Folder(mut blobs, folder) = Subject::folder() else { unreachable!() };
        let left = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().to_owned(), left.path().to_owned());
        let disk = Arc::new(Mutex::new(Disk::default()));
        // What was acknowledged when the power went.
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let at_cut: Arc<Mutex<Option<BTreeSet<u16>>>> = Arc::default();
        let (watched, told, kept) = (Arc::clone(&disk), Arc::clone(&acknowledged), Arc::clone(&at_cut));
        let mut state = seed;
        let state = Mutex::new(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 63 == 1
        });
        blobs.watch(Box::new(move |step, path| {
            let mut disk = watched.lock().expect("a disk");
            match step {
                Step::FileSynced => drop(disk.synced.insert(path.to_owned())),
                Step::Renamed => drop(disk.named.insert(path.to_owned())),
                Step::DirSynced => {
                    let durable: Vec<PathBuf> =
                        disk.named.iter().filter(|name| name.parent() == Some(path)).cloned().collect();
                    disk.durable.extend(durable);
                }
                Step::Tmp | Step::Indexed | Step::Condemned | Step::Deleted | Step::Repacked => {}
            }
            if disk.steps == at {
                cut(&disk, &from, &to, &mut *state.lock().expect("luck"));
                *kept.lock().expect("it") = Some(told.lock().expect("it").clone());
            }
            disk.steps += 1;
            Ok(())
        }));
        for group in &groups {
            let pin = blobs.pin().expect("pins");
            for number in group {
                let bytes = content(*number);
                let pack = &packs(&[(ContentId::of(&bytes), bytes)], 1)[0];
                blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), &pin).expect("right");
            }
            blobs.sync(&pin).expect("a disk");
            acknowledged.lock().expect("it").extend(group.iter().copied());
        }
        drop(blobs);
        let Some(acknowledged) = at_cut.lock().expect("it").take() else { return Ok(()) };
        prop_assert_eq!(disk.lock().expect("a disk").synced.len(), disk.lock().expect("a disk").named.len());
        let (blobs, recovered) = FolderBlobs::open(left.path()).expect("what a power cut left");
        prop_assert_eq!(recovered.damaged, 0);
        for number in acknowledged {
            let bytes = content(number);
            prop_assert_eq!(blobs.chunk(&ContentId::of(&bytes)).expect("sound"), Some(bytes));
        }
        prop_assert_eq!(blobs.scrub(u64::MAX).expect("a disk").damaged, []);
    }
}

/// A sync takes what others have put with it. When the disk fails, each of them hears of it: the second
/// would find nothing that waits, and promise what is gone.
#[test]
fn a_pack_that_could_not_be_synced_is_told_to_all_who_put_something() {
    for step in [Step::FileSynced, Step::Renamed, Step::DirSynced] {
        let Subject::Folder(mut blobs, folder) = Subject::folder() else { unreachable!() };
        let fails = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&fails);
        blobs.watch(Box::new(move |reached, _| {
            if reached == step && counted.fetch_add(1, Ordering::SeqCst) == 0 {
                return Err(io::Error::other("the disk is ill"));
            }
            Ok(())
        }));
        let (one, two, idle) =
            (blobs.pin().expect("pins"), blobs.pin().expect("pins"), blobs.pin().expect("pins"));
        let made = |number| {
            let bytes = content(number);
            packs(&[(ContentId::of(&bytes), bytes)], 1).remove(0)
        };
        let put = |pack: &Pack, pin| blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), pin);
        put(&made(1), &one).expect("right");
        put(&made(2), &two).expect("right");
        assert!(matches!(blobs.sync(&one), Err(BlobError::Io { .. })), "{step:?}");
        assert!(matches!(blobs.sync(&two), Err(BlobError::Io { .. })), "{step:?}");
        blobs.sync(&idle).expect("it put nothing");
        // Put again, they are kept.
        put(&made(1), &one).expect("right");
        put(&made(2), &two).expect("right");
        blobs.sync(&one).expect("the disk is well");
        blobs.sync(&two).expect("the disk is well");
        drop((one, two, idle, blobs));
        let (blobs, _) = FolderBlobs::open(folder.path()).expect("a folder");
        assert_eq!(blobs.figures().expect("figures").packs, 2, "{step:?}");
    }
}
