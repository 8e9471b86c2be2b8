//! What changes between two scans is seen, however it was hidden.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use cortex_core::sync::Seen;
use proptest::prelude::*;

use super::*;

#[test]
fn sync_12_an_edit_with_equal_size_and_mtime_is_seen() {
    let scene = Scene::new();
    scene.write("a", "one");
    settle();
    let mut cache = Cache::default();
    let first = again(&scene, &PLAIN(), &mut cache);
    assert_eq!((first.hashed, again(&scene, &PLAIN(), &mut cache).hashed), (3, 0));
    let modified = fs::metadata(scene.disk("a")).expect("there").modified().expect("a time");
    scene.write("a", "two");
    File::options().write(true).open(scene.disk("a")).expect("opened").set_modified(modified).expect("set");
    assert_eq!(file(&again(&scene, &PLAIN(), &mut cache), "a").id, ContentId::of(b"two"));
}

#[test]
fn sync_12_an_edit_in_the_same_step_of_the_clock_is_seen() {
    let scene = Scene::new();
    let mut cache = Cache::default();
    // Some of these edits have the times of the one before, where the clock steps coarsely.
    for round in 0..500_u32 {
        let content = format!("{round:08}");
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(scene.disk("a"))
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .expect("written");
        assert_eq!(file(&again(&scene, &PLAIN(), &mut cache), "a").id, ContentId::of(content.as_bytes()));
    }
}

#[test]
fn sync_12_what_is_young_is_read_again_until_the_clock_has_stepped() {
    let scene = Scene::new();
    let dir = open(&scene);
    let clock = super::clock::Clock::of(&dir);
    scene.write("a", "x");
    assert!(clock.is_too_young(&dir.stat(b"a").expect("there")), "it came after the scan began");
    settle();
    assert!(!super::clock::Clock::of(&dir).is_too_young(&dir.stat(b"a").expect("there")));
}

#[test]
fn sync_06_a_file_is_what_the_scan_saw_only_while_nothing_touches_it_and_it_was_not_young() {
    let scene = Scene::new();
    for path in ["a", "d/b", "د/ملف", "young"] {
        scene.write(path, "x");
    }
    settle();
    let dir = open(&scene);
    let mut cache = Cache::default();
    let stat = |path: &str| {
        let path = rel(path);
        dir.below(&path.parent().expect("a folder"))
            .expect("open")
            .stat(path.name().as_bytes())
            .expect("there")
    };
    again(&scene, &PLAIN(), &mut cache);
    let sights = cache.sights();
    // One folder after the other, and the first once more.
    let is_telling = super::super::writers::Writers::of(&dir).none_of_ours();
    for path in ["a", "d/b", "د/ملف", "a"] {
        assert_eq!(sights.are(&rel(path), &stat(path)), is_telling, "{path}");
    }
    for (path, of) in [("b", "a"), ("d/a", "a"), ("none/a", "a"), ("d", "a"), ("d/b", "a")] {
        assert!(!sights.are(&rel(path), &stat(of)), "{path} is not {of}");
    }
    let touched = std::fs::File::options().write(true).open(scene.disk("a")).expect("open");
    let time = touched.metadata().and_then(|about| about.modified()).expect("its time");
    std::fs::write(scene.disk("a"), "y").expect("written");
    touched.set_modified(time).expect("its time again");
    assert!(!sights.are(&rel("a"), &stat("a")), "with the length and the time of before");
    // Written and scanned within one step of the clock, which most tries are.
    let is_young = (0..100).any(|round| {
        scene.write("young", format!("{round}"));
        let mut cache = Cache::default();
        again(&scene, &PLAIN(), &mut cache);
        let is_young = super::clock::Clock::of(&dir).is_too_young(&stat("young"));
        assert!(!is_young || !cache.sights().are(&rel("young"), &stat("young")));
        is_young
    });
    assert!(is_young);
}

#[test]
fn what_was_written_before_a_tick_was_awaited_is_not_read_a_third_time() {
    let scene = Scene::new();
    for round in 0..20 {
        scene.write("f", format!("{round}"));
        let dir = open(&scene);
        await_tick(&dir);
        let mut cache = Cache::default();
        again(&scene, &PLAIN(), &mut cache);
        assert_eq!(again(&scene, &PLAIN(), &mut cache).hashed, 0, "round {round}");
    }
}

#[test]
fn sync_12_a_file_that_changes_while_read_is_retried_then_reported() {
    let scene = Scene::new();
    scene.write("busy", vec![0; 8 << 20]);
    scene.write("calm", "x");
    let is_over = AtomicBool::new(false);
    let path = scene.disk("busy");
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = File::options().append(true).open(&path).expect("opened");
            while !is_over.load(Ordering::Relaxed) {
                file.write_all(b"x").expect("written");
            }
        });
        let found = scan(&open(&scene), &PLAIN(), &mut Cache::default(), None);
        is_over.store(true, Ordering::Relaxed);
        found.expect("scanned")
    });
    assert_eq!(found.left_out.get(&rel("busy")), Some(&Seen::Blocked(Problem::Unsteady)));
    assert!(entries(&found).contains_key("calm"));
    assert!(found.hashed > 8 << 20, "it was tried");
    let found = look(&scene, &PLAIN());
    assert!(found.left_out.is_empty() && entries(&found).contains_key("busy"), "once it is calm it is there");
}

#[test]
fn a_full_scan_believes_no_cache() {
    let scene = Scene::new();
    scene.write("d/a", "one");
    settle();
    let mut cache = Cache::default();
    let first = again(&scene, &PLAIN(), &mut cache);
    let full = again(&scene, &ScanSpec { full: true, ..PLAIN() }, &mut cache);
    assert_eq!((full.root, full.hashed), (first.root, 3));
}

/// One edit: which of a few paths, and what becomes of it.
#[derive(Clone, Debug)]
pub(in crate::files::scan) struct Edit {
    path: usize,
    what: u8,
    other: usize,
}

const PATHS: [&str; 10] =
    ["a", "b", "d", "d/a", "d/ملف", "d/e", "d/e/a", "d/e/f/g", "f/x.log", "f/.gitignore"];

pub(in crate::files::scan) fn edit() -> impl Strategy<Value = Edit> {
    (0..PATHS.len(), 0..7_u8, 0..PATHS.len()).prop_map(|(path, what, other)| Edit { path, what, other })
}

/// Does it, if it can be done.
pub(in crate::files::scan) fn apply(scene: &Scene, edit: &Edit, number: usize) {
    let (path, other) = (PATHS[edit.path], PATHS[edit.other]);
    let at = scene.disk(path);
    // What fails left all as it was, or made folders on the way.
    let _done = match edit.what {
        0 | 1 => {
            let _made = fs::create_dir_all(at.parent().expect("below the root"));
            let content =
                if path.ends_with(".gitignore") { "*.log\nملف\n".to_owned() } else { number.to_string() };
            fs::write(&at, content)
        }
        2 => fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)),
        3 => fs::rename(&at, scene.disk(other)),
        4 => fs::create_dir_all(&at),
        5 => symlink("a", &at),
        _ => fs::metadata(&at).and_then(|found| {
            let mode = found.permissions().mode() ^ 0o100;
            if found.is_dir() { Ok(()) } else { fs::set_permissions(&at, Permissions::from_mode(mode)) }
        }),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::super::super::support::rounds(24, 500), ..ProptestConfig::default() })]

    #[test]
    fn a_scan_by_cache_finds_what_a_full_scan_finds(
        rounds in proptest::collection::vec(proptest::collection::vec(edit(), 1..6), 1..6),
    ) {
        let scene = Scene::new();
        let spec = ScanSpec { ignore_files: true, ..PLAIN() };
        let mut cache = Cache::default();
        let mut number = 0;
        for round in rounds {
            for edit in round {
                number += 1;
                apply(&scene, &edit, number);
            }
            let mut before = cache.clone();
            let found = again(&scene, &spec, &mut cache);
            let full = again(&scene, &ScanSpec { full: true, ..spec.clone() }, &mut before);
            prop_assert_eq!(found.root, full.root);
            prop_assert_eq!(&found.left_out, &full.left_out);
            prop_assert_eq!((found.totals, found.counts, found.notes), (full.totals, full.counts, full.notes));
            prop_assert_eq!(entries(&found), entries(&full));
        }
    }
}
