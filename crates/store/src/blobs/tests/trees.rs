//! Whether a tree is all there, and what of one stays.

use super::*;
use crate::blobs::{BlobError, Completeness};

fn nested() -> (Made, TreeId) {
    let mut made = Made::default();
    let long = made.long(1_000);
    let files = (0..5).map(|number| made.file(number)).collect();
    let inner = made.sub("داخل", files);
    let file = made.file(9);
    let (tree, _) = made.dir(vec![inner, file, long]);
    (made, tree)
}

#[test]
fn the_empty_tree_is_whole_once_its_object_is_there_and_stays() {
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let mut made = Made::default();
        let (tree, _) = made.dir(Vec::new());
        let pin = blobs.pin().expect("pins");
        let missing = Completeness::Missing(vec![tree.into()]);
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), missing);
        put_all(blobs, &made, &pin);
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
        drop(pin);
        let collected = collect(blobs, &[root(tree)], AT_ONCE);
        assert_eq!((collected.objects, collected.condemned, collected.missing), (1, 0, 0));
    }
}

#[test]
fn a_tree_without_any_one_of_its_parts_is_not_whole_and_the_part_is_named() {
    let (made, tree) = nested();
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let pin = blobs.pin().expect("pins");
        for (number, (id, _)) in made.chunks.iter().enumerate() {
            let subject = match &subject {
                Subject::Memory(_) => Subject::Memory(MemoryBlobs::new()),
                Subject::Folder(..) if number % 5 == 0 => Subject::folder(),
                Subject::Folder(..) => continue,
            };
            let blobs = subject.blobs();
            let mut without = made.clone();
            without.chunks.retain(|(other, _)| other != id);
            let pin = blobs.pin().expect("pins");
            put_all(blobs, &without, &pin);
            let Completeness::Missing(missing) = blobs.complete(&root(tree), &pin).expect("a walk") else {
                panic!("{id} is missing");
            };
            assert_eq!(missing, [*id]);
            let objects = Root { tree, content: false };
            let alone = blobs.complete(&objects, &pin).expect("a walk");
            let is_object = made.chunks[number].1.starts_with(b"CX");
            assert_eq!(alone == Completeness::Whole, !is_object, "content is not asked for");
        }
        put_all(blobs, &made, &pin);
        for _ in 0..2 {
            assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
        }
    }
}

#[test]
fn of_a_tree_whose_content_may_go_its_objects_stay() {
    let (made, tree) = nested();
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let pin = blobs.pin().expect("pins");
        let (objects, files): (Vec<_>, Vec<_>) =
            made.chunks.iter().cloned().partition(|(_, bytes)| bytes.starts_with(b"CX"));
        put_all(blobs, &Made { chunks: objects.clone() }, &pin);
        put_all(blobs, &Made { chunks: files.clone() }, &pin);
        drop(pin);
        let roots = [Root { tree, content: false }];
        for _ in 0..2 {
            collect(blobs, &roots, AT_ONCE);
        }
        let pin = blobs.pin().expect("pins");
        let here = |chunks: &[(ContentId, Bytes)]| {
            let ids: Vec<ContentId> = chunks.iter().map(|(id, _)| *id).collect();
            blobs.have(&ids, &pin).expect("an index").into_iter().filter(|here| *here).count()
        };
        assert_eq!((here(&objects), here(&files)), (objects.len(), 0));
        assert_eq!(blobs.complete(&roots[0], &pin).expect("a walk"), Completeness::Whole);
        assert!(matches!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Missing(_)));
        // Both at once: what is walked for its objects first is walked for its content too.
        put_all(blobs, &made, &pin);
        drop(pin);
        for _ in 0..2 {
            let collected = collect(blobs, &[roots[0], root(tree)], AT_ONCE);
            assert_eq!(collected.missing, 0);
        }
        let pin = blobs.pin().expect("pins");
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
    }
}

#[test]
fn a_mark_that_misses_an_object_takes_nothing() {
    let (made, tree) = nested();
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let pin = blobs.pin().expect("pins");
        let (garbage, _) = Made::default().dir(Vec::new());
        put_all(blobs, &made, &pin);
        drop(pin);
        collect(blobs, &[], AT_ONCE);
        let before = blobs.figures().expect("figures");
        for roots in [[root(garbage), root(tree)], [root(tree), root(garbage)]] {
            let since = blobs.begin().expect("pins");
            let refused = blobs.collect(Sweep { since, roots: &roots, now: WallTime(0), rules: AT_ONCE });
            assert!(
                matches!(refused, Err(BlobError::Lost { object }) if object == garbage.into()),
                "{refused:?}"
            );
        }
        let after = blobs.figures().expect("figures");
        assert_eq!((after.packs, after.bytes), (before.packs, before.bytes));
        // A file that has the bytes of an object is content, and is not walked.
        let refused = blobs.complete(&root(made.chunks[0].0.into()), &blobs.pin().expect("pins"));
        assert!(matches!(refused, Err(BlobError::Refused(_))), "{refused:?}");
    }
}

#[test]
fn what_was_known_to_be_whole_is_looked_at_again_after_it_was_condemned() {
    let (made, tree) = nested();
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let pin = blobs.pin().expect("pins");
        put_all(blobs, &made, &pin);
        blobs.sync(&pin).expect("a disk");
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
        drop(pin);
        // Condemned, and known again under a pin: as long as that is held nothing goes.
        assert!(collect(blobs, &[], AT_ONCE).condemned > 0);
        let pin = blobs.pin().expect("pins");
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
        assert_eq!(collect(blobs, &[], AT_ONCE).deleted, 0);
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
        drop(pin);
        let late = blobs.pin().expect("pins");
        assert!(collect(blobs, &[], AT_ONCE).deleted > 0, "a later pin does not know of it");
        assert!(matches!(blobs.complete(&root(tree), &late).expect("a walk"), Completeness::Missing(_)));
    }
}

/// A pin that passed a directory by, because it was known to be whole, has touched none of its packs.
#[test]
fn what_a_pin_took_as_known_stays_while_it_is_held_although_it_was_condemned_since() {
    let (made, tree) = nested();
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let first = blobs.pin().expect("pins");
        put_all(blobs, &made, &first);
        blobs.sync(&first).expect("a disk");
        assert_eq!(blobs.complete(&root(tree), &first).expect("a walk"), Completeness::Whole);
        drop(first);
        let pin = blobs.pin().expect("pins");
        assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
        assert!(collect(blobs, &[], AT_ONCE).condemned > 0);
        assert_eq!(collect(blobs, &[], AT_ONCE).deleted, 0);
        for (id, bytes) in &made.chunks {
            assert_eq!(blobs.chunk(id).expect("a disk").as_ref(), Some(bytes));
        }
        drop(pin);
        assert!(collect(blobs, &[], AT_ONCE).deleted > 0);
    }
}

#[test]
fn young_packs_stay_a_day_and_condemned_ones_an_hour() {
    let rules = Rules::default();
    let (day, hour) = (24 * 3_600 * 1_000, 3_600 * 1_000);
    for subject in Subject::all() {
        let blobs = subject.blobs();
        let (made, _) = nested();
        let pin = blobs.pin().expect("pins");
        put_all(blobs, &made, &pin);
        drop(pin);
        let at = |now: i64| {
            let since = blobs.begin().expect("pins");
            let done = blobs.collect(Sweep { since, roots: &[], now: WallTime(now), rules }).expect("a mark");
            (done.condemned > 0, done.deleted > 0)
        };
        let start = 1_000_000;
        assert_eq!(at(start), (false, false));
        assert_eq!(at(start + day - 1), (false, false));
        assert_eq!(at(start + day), (true, false));
        assert_eq!(at(start + day + hour - 1), (false, false));
        assert_eq!(at(start - day), (false, false), "a clock that was set back takes nothing");
        assert_eq!(at(start + day + hour), (false, true));
        assert_eq!(blobs.figures().expect("figures").packs, 0);
    }
}

#[test]
fn what_is_alive_in_sparse_packs_is_written_anew_within_the_budget() {
    let mut made = Made::default();
    let entries: Vec<DirEntry> = (0..40).map(|number| made.file(number)).collect();
    // Of each pack of four one file stays.
    let few: Vec<DirEntry> = entries.into_iter().step_by(4).collect();
    let content = made.chunks.clone();
    let mut objects = Made::default();
    let (tree, _) = objects.dir(few);
    let Subject::Folder(blobs, folder) = Subject::folder() else { unreachable!() };
    let blobs = *blobs;
    let pin = blobs.pin().expect("pins");
    put_all(&blobs, &Made { chunks: content }, &pin);
    put_all(&blobs, &objects, &pin);
    blobs.sync(&pin).expect("a disk");
    drop(pin);
    let before = blobs.figures().expect("figures");
    assert_eq!(before.packs, 11);
    assert!(collect(&blobs, &[root(tree)], AT_ONCE).condemned > 5);
    let little = Rules { repack_bytes: 300, ..AT_ONCE };
    let some = collect(&blobs, &[root(tree)], little);
    assert!(some.more && some.repacked > 0 && some.repacked < 5, "{some:?}");
    let rest = collect(&blobs, &[root(tree)], AT_ONCE);
    assert!(!rest.more && rest.repacked > 2, "{rest:?}");
    let after = blobs.figures().expect("figures");
    assert!(after.packs < 6 && after.plain_bytes < before.plain_bytes / 2, "{after:?}");
    assert_eq!(after.live_bytes, Some(rest.live_bytes));
    drop(blobs);
    let (blobs, recovered) = FolderBlobs::open(folder.path()).expect("a folder");
    assert_eq!((recovered.read, recovered.vanished), (0, 0));
    let pin = blobs.pin().expect("pins");
    assert_eq!(blobs.complete(&root(tree), &pin).expect("a walk"), Completeness::Whole);
}
