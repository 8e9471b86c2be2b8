//! Hints of the system, and when they are not enough.

use std::fs;
use std::time::Duration;

use cortex_core::files::path::RelPath;

use super::super::super::support::{Scene, rel};
use super::super::tests::{PLAIN, again, open};
use super::super::{Cache, Scanned, rescan, scan_watched};
use super::*;

const SOON: Duration = Duration::from_millis(200);

fn watched(scene: &Scene) -> (Watch, Cache, Scanned) {
    let (mut watch, mut cache) = (Watch::new().expect("a watch"), Cache::default());
    let scanned = scan_watched(&open(scene), &PLAIN(), &mut cache, &mut watch).expect("scanned");
    (watch, cache, scanned)
}

fn dirty(paths: &[&str]) -> Heard {
    Heard::Dirty(paths.iter().map(|path| rel(path)).collect())
}

#[test]
fn a_change_is_told_by_its_folder_and_a_rescan_of_that_finds_it() {
    let scene = Scene::new();
    scene.write("a/b/x", "x");
    scene.write("ملفات/y", "y");
    let (mut watch, mut cache, mut last) = watched(&scene);
    assert_eq!((watch.hear(Duration::ZERO).expect("asked"), watch.len()), (dirty(&[]), 4));
    type Act = fn(&Scene);
    let steps: [(Act, &[&str]); 7] = [
        (|scene| scene.write("a/b/x", "changed"), &["a/b"]),
        (|scene| scene.write("ملفات/new", "n"), &["ملفات"]),
        (|scene| fs::rename(scene.disk("a/b"), scene.disk("c")).expect("moved"), &["", "a", "a/b"]),
        (|scene| scene.write("c/x", "after the move"), &["c"]),
        (|scene| scene.write("new/deep/z", "z"), &[""]),
        (|scene| scene.write("new/deep/z", "zz"), &["new/deep"]),
        (|scene| fs::remove_dir_all(scene.disk("new")).expect("removed"), &["", "new", "new/deep"]),
    ];
    for (number, (act, expected)) in steps.into_iter().enumerate() {
        act(&scene);
        let Heard::Dirty(heard) = watch.hear(SOON).expect("asked") else { panic!("step {number}") };
        assert_eq!(heard, expected.iter().map(|path| rel(path)).collect(), "step {number}");
        last = rescan(&open(&scene), &PLAIN(), &mut cache, Some(&mut watch), last, &heard).expect("scanned");
        assert_eq!(last.root, again(&scene, &PLAIN(), &mut cache.clone()).root, "step {number}");
        assert_eq!(
            watch.hear(Duration::ZERO).expect("asked"),
            dirty(&[]),
            "a scan is no change, step {number}"
        );
    }
    assert_eq!((watch.len(), watch.blind()), (4, None), "what is gone is not watched");
}

#[test]
fn ours_is_no_change() {
    let scene = Scene::new();
    scene.write("x", "x");
    let (mut watch, mut cache, _) = watched(&scene);
    cache.save(&open(&scene)).expect("kept");
    scene.write(".cortex/staging/part", "x");
    assert_eq!(watch.hear(SOON).expect("asked"), dirty(&[]));
}

#[test]
fn sync_14_an_overflow_or_a_watch_limit_becomes_a_scan_that_is_told() {
    let scene = Scene::new();
    scene.write("a/x", "x");
    let (mut watch, mut cache, _) = watched(&scene);
    let max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("read");
    let max: usize = max.trim().parse().expect("a number");
    for number in 0..=max / 2 {
        // Two events each, of which no two that follow are alike.
        let file = fs::File::create(scene.disk(&format!("a/{}", number % 3))).expect("made");
        drop(file);
        fs::remove_file(scene.disk(&format!("a/{}", number % 3))).expect("removed");
    }
    let heard = watch.hear(SOON).expect("asked");
    assert_eq!(heard, Heard::Rescan(Blind::Overflow));
    scan_watched(&open(&scene), &PLAIN(), &mut cache, &mut watch).expect("scanned");
    assert_eq!((watch.hear(Duration::ZERO).expect("asked"), watch.blind()), (dirty(&[]), None));
    // A limit lasts until a whole scan could watch all.
    watch.is_blind(Blind::Limit);
    assert_eq!(watch.hear(Duration::ZERO).expect("asked"), Heard::Rescan(Blind::Limit));
    assert_eq!(watch.blind(), Some(Blind::Limit));
    scan_watched(&open(&scene), &PLAIN(), &mut cache, &mut watch).expect("scanned");
    assert_eq!(watch.blind(), None);
    // The folder itself.
    fs::rename(scene.disk(""), scene.outside("moved")).expect("moved");
    assert_eq!(watch.hear(SOON).expect("asked"), Heard::Rescan(Blind::Moved));
}

#[test]
fn sync_14_a_folder_that_cannot_be_watched_is_told() {
    let scene = Scene::new();
    let mut watch = Watch::new().expect("a watch");
    watch.add(&RelPath::root(), &open(&scene));
    assert_eq!((watch.len(), watch.blind()), (1, None));
    // The limit is the whole machine's: what it says is said here.
    for errno in [Errno::ENOSPC, Errno::EACCES] {
        watch.failed(errno);
    }
    assert_eq!(watch.blind(), Some(Blind::Limit));
    assert_eq!(watch.hear(Duration::ZERO).expect("asked"), Heard::Rescan(Blind::Limit));
}
