//! The contract of all that keep content, and what a crash, a liar and a bad disk do to the folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cortex_content::pack::{Added, Pack, PackWriter};
use cortex_core::files::content::{ContentId, PackId};
use cortex_store::blobs::{BlobError, Blobs, FolderBlobs, MemoryBlobs, PackPut, Recovered};
use proptest::prelude::*;

#[cfg(target_os = "linux")]
#[path = "blobs/full.rs"]
mod full;
#[path = "blobs/index.rs"]
mod index;
#[cfg(feature = "failpoints")]
#[path = "blobs/kill.rs"]
mod kill;

/// One that keeps content, and how it comes back after a crash.
enum Subject {
    Memory(MemoryBlobs),
    Folder(Box<FolderBlobs>, tempfile::TempDir),
}

impl Subject {
    fn all() -> [Self; 2] {
        let folder = tempfile::tempdir().expect("a folder");
        let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("an empty folder");
        assert_eq!(recovered, Recovered::default());
        [Self::Memory(MemoryBlobs::new()), Self::Folder(Box::new(blobs), folder)]
    }

    fn blobs(&self) -> &dyn Blobs {
        match self {
            Self::Memory(blobs) => blobs,
            Self::Folder(blobs, _) => &**blobs,
        }
    }

    fn crash(self) -> Self {
        match self {
            Self::Memory(blobs) => {
                blobs.crash().expect("memory");
                Self::Memory(blobs)
            }
            Self::Folder(blobs, folder) => {
                drop(blobs);
                let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("what a crash left");
                assert_eq!(recovered.damaged, 0);
                Self::Folder(Box::new(blobs), folder)
            }
        }
    }
}

fn chunk(number: u16) -> Vec<u8> {
    format!("chunk {number} ").repeat(1 + usize::from(number) % 50).into_bytes()
}

fn id(number: u16) -> ContentId {
    ContentId::of(&chunk(number))
}

fn pack(numbers: impl IntoIterator<Item = u16>) -> Pack {
    let mut writer = PackWriter::new(1);
    for number in numbers {
        assert_ne!(writer.add(id(number), &chunk(number)), Added::Full);
    }
    writer.finish().expect("a pack")
}

fn put(blobs: &dyn Blobs, pack: &Pack) -> Result<PackPut, BlobError> {
    put_tail(blobs, pack, &mut Cursor::new(&pack.tail))
}

fn put_tail(blobs: &dyn Blobs, pack: &Pack, tail: &mut dyn Read) -> Result<PackPut, BlobError> {
    blobs.put_pack(&pack.head, tail, &blobs.pin().expect("pins"))
}

fn sync(blobs: &dyn Blobs) {
    blobs.sync(&blobs.pin().expect("pins")).expect("a disk");
}

fn have(blobs: &dyn Blobs, ids: &[ContentId]) -> Vec<bool> {
    blobs.have(ids, &blobs.pin().expect("pins")).expect("an index")
}

fn content(blobs: &dyn Blobs, number: u16) -> Option<Bytes> {
    blobs.chunk(&id(number)).expect("nothing is damaged")
}

#[test]
fn what_was_put_is_found_by_the_hash_of_each_chunk() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        assert_eq!(blobs.figures().expect("figures"), Default::default());
        let pack = pack(0..30);
        assert_eq!(put(blobs, &pack).expect("it is right"), PackPut::Kept);
        for synced in [false, true] {
            for number in 0..30 {
                assert_eq!(content(blobs, number).as_deref(), Some(&chunk(number)[..]), "synced: {synced}");
            }
            assert_eq!(content(blobs, 30), None);
            assert_eq!(have(blobs, &[id(0), id(99), id(29)]), [true, false, true]);
            assert!(have(blobs, &[]).is_empty());
            let place = blobs.locate(&[id(7)]).expect("an index")[0].expect("it is there");
            assert_eq!((place.pack, place.number, place.len as usize), (pack.head.id(), 7, chunk(7).len()));
            let read = blobs.read_pack(&pack.head.id()).expect("a disk").expect("a pack");
            assert_eq!((&read.head, &read.tail), (&pack.head, &pack.tail));
            sync(blobs);
        }
        let figures = blobs.figures().expect("figures");
        assert_eq!((figures.packs, figures.chunks, figures.bytes), (1, 30, pack.head.pack_len() as u64));
        assert!(blobs.read_pack(&PackId::of(b"x")).expect("a disk").is_none());
    }
}

#[test]
fn a_pack_that_is_there_is_read_to_its_end_and_not_kept_twice() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let pack = pack(0..3);
        assert_eq!(put(blobs, &pack).expect("right"), PackPut::Kept);
        let mut tail = Cursor::new(&pack.tail);
        assert_eq!(put_tail(blobs, &pack, &mut tail).expect("right"), PackPut::Already);
        assert_eq!(tail.position(), pack.tail.len() as u64);
        assert_eq!(blobs.figures().expect("figures").packs, 1);
    }
}

#[test]
fn a_chunk_of_two_packs_is_found_in_the_first() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let (one, two) = (pack([1, 2]), pack([2, 3]));
        put(blobs, &one).expect("right");
        put(blobs, &two).expect("right");
        let place = blobs.locate(&[id(2)]).expect("an index")[0].expect("it is there");
        assert_eq!(place.pack, one.head.id());
        assert_eq!(blobs.figures().expect("figures").chunks, 4, "one is there twice");
    }
}

/// Fails in the middle, as a connection does that breaks.
struct Breaks<'t>(&'t [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        self.0.read(space)
    }
}

#[test]
fn a53_of_a_pack_that_is_not_what_it_says_nothing_is_kept() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let pack = pack(0..5);
        let mut flipped = pack.tail.to_vec();
        flipped[3] ^= 1;
        let longer = [&pack.tail[..], b"x"].concat();
        for tail in [&flipped[..], &pack.tail[..7], &longer, b""] {
            let refused = put_tail(blobs, &pack, &mut Cursor::new(tail));
            assert!(matches!(refused, Err(BlobError::Refused(_))), "{refused:?}");
        }
        let broken = put_tail(blobs, &pack, &mut Breaks(&pack.tail[..9]));
        assert!(matches!(broken, Err(BlobError::Io { .. })), "{broken:?}");
        assert_eq!(blobs.figures().expect("figures").packs, 0);
        if let Subject::Folder(_, folder) = &subject {
            assert!(packs(folder.path()).is_empty() && files(&folder.path().join("tmp")).is_empty());
        }
        // And the right one is taken then.
        assert_eq!(put(blobs, &pack).expect("right"), PackPut::Kept);
    }
}

#[test]
fn a_crash_leaves_all_that_was_synced_and_nothing_else() {
    for subject in Subject::all() {
        put(subject.blobs(), &pack(0..5)).expect("right");
        sync(subject.blobs());
        put(subject.blobs(), &pack(5..9)).expect("right");
        let subject = subject.crash();
        let found: Vec<u16> = (0..9).filter(|number| content(subject.blobs(), *number).is_some()).collect();
        assert_eq!(found, [0, 1, 2, 3, 4]);
        assert_eq!(put(subject.blobs(), &pack(5..9)).expect("right"), PackPut::Kept);
        sync(subject.blobs());
        assert_eq!(subject.crash().blobs().figures().expect("figures").chunks, 9);
    }
}

#[test]
fn many_threads_put_and_sync_at_once() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        std::thread::scope(|scope| {
            for thread in 0..4_u16 {
                scope.spawn(move || {
                    for round in 0..10 {
                        // Half of the packs are those of the neighbour.
                        let first = (thread / 2 * 100 + round) * 3;
                        put(blobs, &pack(first..first + 3)).expect("right");
                        assert_eq!(content(blobs, first).as_deref(), Some(&chunk(first)[..]));
                        sync(blobs);
                    }
                });
            }
        });
        assert_eq!(subject.crash().blobs().figures().expect("figures").packs, 20);
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The files of all packs.
fn packs(folder: &Path) -> Vec<PathBuf> {
    files(&folder.join("packs"))
}

fn folder_with(pack: &Pack) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("an empty folder");
    put(&blobs, pack).expect("right");
    sync(&blobs);
    let path = packs(folder.path()).pop().expect("a pack");
    (folder, path)
}

/// ABUSE 59: wherever a bit is flipped, nothing of it is handed out, and a scrub takes the pack out and
/// tells what was lost; it can be put again then.
#[test]
fn a59_a_flipped_bit_in_the_mirror_is_found_and_never_sent() {
    let pack = pack(0..20);
    let ids: Vec<ContentId> = (0..20).map(id).collect();
    let (folder, path) = folder_with(&pack);
    let right = fs::read(&path).expect("a pack");
    for at in (0..right.len()).step_by(29) {
        let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
        assert_eq!((recovered.damaged, recovered.read, recovered.vanished), (0, 0, 0));
        let mut bytes = right.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).expect("a disk");
        let sent = blobs.read_pack(&pack.head.id());
        assert!(matches!(sent, Err(BlobError::Damaged { .. })), "byte {at}");
        for number in 0..20 {
            if let Ok(found) = blobs.chunk(&id(number)) {
                assert_eq!(found.as_deref(), Some(&chunk(number)[..]), "byte {at}");
            }
        }
        let found = blobs.scrub(1).expect("a disk");
        assert_eq!((found.packs, found.damaged), (1, vec![pack.head.id()]), "byte {at}");
        let lost: BTreeSet<ContentId> = found.lost.into_iter().collect();
        assert_eq!(lost, ids.iter().copied().collect(), "byte {at}");
        assert_eq!(have(&blobs, &ids), vec![false; 20]);
        assert!(blobs.read_pack(&pack.head.id()).expect("a disk").is_none());
        let figures = blobs.figures().expect("figures");
        assert_eq!((figures.packs, figures.bytes, figures.damaged), (0, 0, 1));
        assert_eq!(files(&folder.path().join("bad")).len(), 1);
        assert_eq!(put(&blobs, &pack).expect("right"), PackPut::Kept);
        sync(&blobs);
        assert_eq!(blobs.scrub(u64::MAX).expect("a disk").damaged, []);
        assert_eq!(have(&blobs, &ids), vec![true; 20]);
    }
}

#[test]
fn a_damaged_pack_that_is_put_again_before_a_scrub_is_whole() {
    let pack = pack(0..20);
    let (folder, path) = folder_with(&pack);
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("a folder");
    let mut bytes = fs::read(&path).expect("a pack");
    *bytes.last_mut().expect("bytes") ^= 1;
    fs::write(&path, bytes).expect("a disk");
    blobs.read_pack(&pack.head.id()).expect_err("damaged");
    assert_eq!(put(&blobs, &pack).expect("right"), PackPut::Kept);
    sync(&blobs);
    assert!(blobs.read_pack(&pack.head.id()).expect("a disk").is_some());
    assert_eq!(blobs.figures().expect("figures").packs, 1);
    let found = blobs.scrub(u64::MAX).expect("a disk");
    assert_eq!((found.packs, found.damaged.len(), found.lost.len()), (1, 0, 0), "it is read once");
}

#[test]
fn a_chunk_of_a_damaged_pack_that_lies_in_another_is_not_lost() {
    let (one, two) = (pack([1, 2]), pack([2, 3]));
    let (folder, path) = folder_with(&one);
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("a folder");
    put(&blobs, &two).expect("right");
    sync(&blobs);
    fs::write(&path, vec![0; fs::metadata(&path).expect("a file").len() as usize]).expect("a disk");
    assert!(blobs.chunk(&id(2)).is_err(), "it is looked for in the first");
    assert_eq!(blobs.scrub(1).expect("a disk").lost, [id(1)], "the suspect is read first");
    assert_eq!(content(&blobs, 2).as_deref(), Some(&chunk(2)[..]));
    // A pack whose file somebody took away is found as well.
    fs::remove_file(packs(folder.path()).pop().expect("the other")).expect("removed");
    let found = blobs.scrub(u64::MAX).expect("a disk");
    assert_eq!((found.damaged, found.lost.len()), (vec![two.head.id()], 2));
    assert_eq!(blobs.figures().expect("figures").chunks, 0);
}

#[test]
fn scrubs_go_round() {
    let (folder, _) = folder_with(&pack(0..2));
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("a folder");
    for number in 1..5 {
        put(&blobs, &pack(number * 10..number * 10 + 2)).expect("right");
    }
    sync(&blobs);
    for _ in 0..2 {
        let read: u64 = (0..5).map(|_| blobs.scrub(1).expect("a disk").packs).sum();
        assert_eq!(read, 5, "one at a time");
    }
    assert_eq!(blobs.scrub(u64::MAX).expect("a disk").packs, 5, "none twice");
    let (_other, nothing) = folder_without();
    assert_eq!(nothing.scrub(1).expect("a disk").packs, 0);
}

fn folder_without() -> (tempfile::TempDir, FolderBlobs) {
    let folder = tempfile::tempdir().expect("a folder");
    let (blobs, _) = FolderBlobs::open(folder.path()).expect("an empty folder");
    (folder, blobs)
}

#[test]
fn a_folder_has_one_owner() {
    let (folder, blobs) = folder_without();
    assert!(matches!(FolderBlobs::open(folder.path()), Err(BlobError::InUse(_))));
    drop(blobs);
    FolderBlobs::open(folder.path()).expect("it is free");
}

#[test]
fn a_pack_with_another_head_or_length_is_set_aside_at_the_start() {
    let pack = pack(0..20);
    for damage in ["head", "cut", "longer", "empty", "renamed"] {
        let (folder, path) = folder_with(&pack);
        let mut bytes = fs::read(&path).expect("a pack");
        match damage {
            "head" => bytes[20] ^= 1,
            "cut" => bytes.truncate(bytes.len() - 1),
            "longer" => bytes.push(0),
            "empty" => bytes.clear(),
            _ => fs::rename(&path, path.with_file_name("x.pack")).expect("a disk"),
        }
        if damage != "renamed" {
            fs::write(&path, bytes).expect("a disk");
        }
        if damage == "head" {
            // With an index the head is not read: a scrub does.
            fs::remove_file(folder.path().join("index.db")).expect("removed");
        }
        let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
        assert_eq!((recovered.damaged, blobs.figures().expect("figures").packs), (1, 0), "{damage}");
        assert_eq!(files(&folder.path().join("bad")).len(), 1, "{damage}");
        assert_eq!(put(&blobs, &pack).expect("right"), PackPut::Kept, "it can be put again");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(BTreeSet<u16>),
    Wrong(BTreeSet<u16>),
    Sync,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let numbers = || prop::collection::btree_set(0..40_u16, 1..8);
    let step = prop_oneof![
        5 => numbers().prop_map(Step::Put),
        1 => numbers().prop_map(Step::Wrong),
        2 => Just(Step::Sync),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_steps_leave_what_the_model_says(steps in steps()) {
        for mut subject in Subject::all() {
            // Packs and whether they were synced.
            let mut model: BTreeMap<PackId, (bool, BTreeSet<u16>)> = BTreeMap::new();
            for step in &steps {
                match step {
                    Step::Put(numbers) => {
                        let pack = pack(numbers.iter().copied());
                        let known = model.contains_key(&pack.head.id());
                        let answer = put(subject.blobs(), &pack).expect("right");
                        prop_assert_eq!(answer, if known { PackPut::Already } else { PackPut::Kept });
                        model.entry(pack.head.id()).or_insert((false, numbers.clone()));
                    }
                    Step::Wrong(numbers) => {
                        let mut pack = pack(numbers.iter().copied());
                        pack.tail = pack.tail.slice(1..);
                        prop_assert!(put(subject.blobs(), &pack).is_err());
                    }
                    Step::Sync => {
                        sync(subject.blobs());
                        model.values_mut().for_each(|(synced, _)| *synced = true);
                    }
                    Step::Crash => {
                        subject = subject.crash();
                        model.retain(|_, (synced, _)| *synced);
                    }
                }
                let wanted: BTreeSet<u16> = model.values().flat_map(|(_, numbers)| numbers.clone()).collect();
                let ids: Vec<ContentId> = (0..40).map(id).collect();
                let have = have(subject.blobs(), &ids);
                let found: BTreeSet<u16> = (0..40).filter(|number| have[usize::from(*number)]).collect();
                prop_assert_eq!(&found, &wanted);
                if let Some(number) = wanted.first() {
                    let bytes = content(subject.blobs(), *number);
                    prop_assert_eq!(bytes.as_deref(), Some(&chunk(*number)[..]));
                }
            }
        }
    }
}
