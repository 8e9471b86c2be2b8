//! What a watch hears, what it does not, and when it ends.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::super::support::{Scene, rel, rounds};
use super::super::tests::changes::{apply, edit};
use super::super::tests::{PLAIN, again, entries, open};
use super::super::{Cache, Scanned};
use super::*;

const ROOM: usize = 1_000;
const IGNORING: fn() -> ScanSpec = || ScanSpec { ignore_files: true, ..ScanSpec::default() };

/// All of the folder, by these rules.
fn watching(scene: &Scene, spec: ScanSpec) -> Watch<'static> {
    let mut watch = unwatched(scene, spec).expect("a watch");
    walk(&mut watch).expect("watched");
    watch
}

fn unwatched(scene: &Scene, spec: ScanSpec) -> Result<Watch<'static>, Blind> {
    let path = scene.disk("");
    let open = move || {
        let root = super::super::super::beneath::Root::open(&path)?;
        root.dir(&RelPath::root(), super::super::super::beneath::Follow::Never)
    };
    Watch::new(open, spec)
}

fn walk(watch: &mut Watch<'_>) -> Result<(), Blind> {
    while watch.is_behind() {
        watch.walk(1, ROOM)?;
    }
    Ok(())
}

/// Whether something changed. The system tells of it before the call that changes it returns.
fn hears(watch: &mut Watch<'_>) -> Result<bool, Blind> {
    let mut has_changed = watch.hear()?;
    while watch.is_outdated() || watch.is_behind() {
        if watch.is_outdated() {
            watch.anew()?;
        }
        walk(watch)?;
        has_changed |= watch.hear()?;
    }
    Ok(has_changed)
}

/// The folders that are watched.
fn folders(watch: &Watch<'_>) -> BTreeSet<String> {
    assert_eq!(watch.paths.len(), watch.watches.len(), "{:?}", watch.paths);
    watch.watches.keys().map(|rel| rel.as_str().to_owned()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_kind_of_change_is_heard_wherever_it_is_and_folders_come_and_go() {
    let scene = Scene::new();
    scene.write("a/b/x", "x");
    scene.write("ملفات/y", "y");
    let mut watch = watching(&scene, PLAIN());
    assert_eq!((hears(&mut watch), folders(&watch)), (Ok(false), names(&["", "a", "a/b", "ملفات"])));
    type Act = fn(&Scene);
    let steps: [(Act, &[&str]); 10] = [
        (|scene| scene.write("a/b/x", "changed"), &["", "a", "a/b", "ملفات"]),
        (|scene| scene.write("ملفات/new", "n"), &["", "a", "a/b", "ملفات"]),
        (|scene| fs::rename(scene.disk("a/b"), scene.disk("c")).expect("moved"), &["", "a", "c", "ملفات"]),
        (|scene| scene.write("c/x", "after the move"), &["", "a", "c", "ملفات"]),
        (|scene| scene.write("new/deep/z", "z"), &["", "a", "c", "new", "new/deep", "ملفات"]),
        (|scene| scene.write("new/deep/z", "zz"), &["", "a", "c", "new", "new/deep", "ملفات"]),
        (|scene| fs::remove_dir(scene.disk("a")).expect("removed"), &["", "c", "new", "new/deep", "ملفات"]),
        // A folder takes the place of another one, and is heard there.
        (
            |scene| {
                fs::remove_dir_all(scene.disk("c")).expect("removed");
                fs::rename(scene.disk("new"), scene.disk("c")).expect("moved");
            },
            &["", "c", "c/deep", "ملفات"],
        ),
        (|scene| scene.write("c/deep/z", "zzz"), &["", "c", "c/deep", "ملفات"]),
        // One that leaves is heard of no more.
        (
            |scene| fs::rename(scene.disk("ملفات"), scene.outside("gone")).expect("moved"),
            &["", "c", "c/deep"],
        ),
    ];
    for (number, (act, expected)) in steps.into_iter().enumerate() {
        act(&scene);
        assert_eq!(hears(&mut watch), Ok(true), "step {number}");
        assert_eq!(folders(&watch), names(expected), "step {number}");
        again(&scene, &PLAIN(), &mut Cache::default());
        assert_eq!(hears(&mut watch), Ok(false), "a scan is no change, step {number}");
    }
}

#[test]
fn ours_and_what_the_rules_leave_out_is_quiet_until_the_rules_change() {
    let scene = Scene::new();
    scene.write("src/x", "x");
    scene.write("target/deep/out", "x");
    scene.write(".git/index", "x");
    scene.write(".gitignore", "target/\n*.log\n");
    scene.write("src/.cortexignore", "made/\n");
    let spec = || ScanSpec { excludes: vec!["tmp/".to_owned()], ..IGNORING() };
    let mut watch = watching(&scene, spec());
    assert_eq!(folders(&watch), names(&["", "src"]));
    Cache::default().save(&open(&scene)).expect("kept");
    for quiet in [".cortex/staging/part", "target/deep/out", "target/new/x", ".git/index", "src/a.log"] {
        scene.write(quiet, "changed");
        assert_eq!(hears(&mut watch), Ok(false), "{quiet}");
    }
    for quiet in ["src/made", "tmp"] {
        fs::create_dir(scene.disk(quiet)).expect("made");
        assert_eq!((hears(&mut watch), watch.len()), (Ok(false), 2), "{quiet}");
    }
    scene.write("src/x", "changed");
    assert_eq!(hears(&mut watch), Ok(true));
    scene.write(".gitignore", "*.log\n");
    assert_eq!(hears(&mut watch), Ok(true));
    assert_eq!(folders(&watch), names(&["", "src", "target", "target/deep", "target/new"]));
    scene.write("target/deep/out", "told");
    assert_eq!(hears(&mut watch), Ok(true));
    // By rules without ignore files such a file is one like others.
    let mut watch = watching(&scene, ScanSpec { vcs: true, ..ScanSpec::default() });
    scene.write(".gitignore", "target/\n");
    assert_eq!((hears(&mut watch), watch.is_outdated()), (Ok(true), false));
}

#[test]
fn folders_whose_names_no_tree_takes_are_quiet_until_they_have_other_names() {
    let scene = Scene::new();
    let odd = ["a\nb", "\u{1b}[2J", "c\r", "\\", "d\u{7f}"].map(|name| scene.disk(name));
    let bytes = scene.disk("").join(OsStr::from_bytes(b"\xff\n"));
    let odd: Vec<PathBuf> = odd.into_iter().chain([bytes]).collect();
    odd[..3].iter().for_each(|folder| fs::create_dir_all(folder.join("deep")).expect("made"));
    scene.write("a/x", "x");
    let mut watch = watching(&scene, PLAIN());
    assert_eq!(folders(&watch), names(&["", "a"]));
    odd[3..].iter().for_each(|folder| fs::create_dir_all(folder.join("deep")).expect("made"));
    for folder in &odd {
        fs::write(folder.join("deep/x"), "x").expect("written");
        assert_eq!((hears(&mut watch), folders(&watch)), (Ok(false), names(&["", "a"])), "{folder:?}");
        fs::rename(folder, scene.disk("اسم")).expect("moved");
        assert_eq!(hears(&mut watch), Ok(true), "{folder:?}");
        assert_eq!(folders(&watch), names(&["", "a", "اسم", "اسم/deep"]), "{folder:?}");
        fs::write(scene.disk("اسم/deep/x"), "changed").expect("written");
        assert_eq!(hears(&mut watch), Ok(true), "{folder:?}");
        fs::rename(scene.disk("اسم"), folder).expect("moved back");
        assert_eq!((hears(&mut watch), folders(&watch)), (Ok(true), names(&["", "a"])), "{folder:?}");
        fs::write(folder.join("deep/x"), "again").expect("written");
        assert_eq!(hears(&mut watch), Ok(false), "{folder:?}");
    }
}

#[test]
fn sync_14_an_overflow_ends_a_watch_and_is_told() {
    let scene = Scene::new();
    scene.write("a/x", "x");
    let mut watch = watching(&scene, PLAIN());
    let max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("read");
    let max: usize = max.trim().parse().expect("a number");
    for number in 0..=max / 2 {
        // Two events each, of which no two that follow are alike.
        let file = fs::File::create(scene.disk(&format!("a/{}", number % 3))).expect("made");
        drop(file);
        fs::remove_file(scene.disk(&format!("a/{}", number % 3))).expect("removed");
    }
    assert_eq!(hears(&mut watch), Err(Blind::Overflow));
}

#[test]
fn sync_14_a_folder_that_goes_away_or_has_too_much_in_it_ends_its_watch() {
    let scene = Scene::new();
    for number in 0..5 {
        scene.write(&format!("{number}/x"), "x");
    }
    let mut watch = unwatched(&scene, PLAIN()).expect("a watch");
    watch.walk(1, 5).expect("the first");
    assert_eq!(watch.walk(10, 4), Err(Blind::Many), "one less than there are");
    let mut watch = watching(&scene, PLAIN());
    fs::rename(scene.disk(""), scene.outside("moved")).expect("moved");
    assert_eq!(hears(&mut watch), Err(Blind::Moved));
    let scene = Scene::new();
    let mut watch = watching(&scene, PLAIN());
    fs::remove_dir(scene.disk("")).expect("removed");
    // The root of the scene is open itself: only when nobody has it open any more it is gone.
    drop(scene);
    assert_eq!(hears(&mut watch), Err(Blind::Moved));
}

#[test]
fn sync_14_a_limit_of_the_system_ends_a_watch_and_what_cannot_be_read_does_not() {
    // The limit is the whole machine's: what it says is said here.
    let blind = |rel: &RelPath, errno| gone(rel, unadded(errno));
    assert_eq!(blind(&rel("a"), Errno::ENOSPC), Err(Blind::Limit));
    let (root, below) = (RelPath::root(), rel("a"));
    for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOTDIR] {
        assert_eq!(blind(&below, errno), Ok(()), "{errno}");
    }
    assert_eq!(blind(&below, Errno::EMFILE), Err(Blind::Failed));
    assert_eq!(blind(&root, Errno::ENOENT), Err(Blind::Moved));
    assert_eq!(blind(&root, Errno::EACCES), Err(Blind::Failed));
}

#[test]
fn who_changes_things_without_a_pause_is_heard_within_bounded_work() {
    let scene = Scene::new();
    scene.write("a/x", "x");
    let mut watch = watching(&scene, PLAIN());
    for number in 0..500 {
        scene.write(if number % 2 == 0 { "a/x" } else { "a/y" }, "more");
    }
    let begun = Instant::now();
    assert_eq!(hears(&mut watch), Ok(true));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

/// The folders of its tree.
fn dirs(scanned: &Scanned) -> BTreeSet<String> {
    let is_dir =
        |node: &cortex_content::object::Node| matches!(node, cortex_content::object::Node::Dir { .. });
    let below = entries(scanned).into_iter().filter(|(_, node)| is_dir(node)).map(|(path, _)| path);
    below.chain([String::new()]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(24, 500), ..ProptestConfig::default() })]

    // Whatever happens, what a scan would find changed was told, and the folders of the tree are watched.
    #[test]
    fn what_a_scan_finds_changed_was_told_and_all_of_the_tree_is_watched(
        rounds in proptest::collection::vec(proptest::collection::vec(edit(), 1..6), 1..6),
    ) {
        let scene = Scene::new();
        let mut cache = Cache::default();
        let mut watch = watching(&scene, IGNORING());
        let (mut last, mut number) = (again(&scene, &IGNORING(), &mut cache), 0);
        for round in rounds {
            for edit in round {
                number += 1;
                apply(&scene, &edit, number);
            }
            let was_told = hears(&mut watch).expect("it goes on");
            let found = again(&scene, &IGNORING(), &mut cache);
            prop_assert!(was_told || found.root == last.root);
            prop_assert_eq!(folders(&watch), dirs(&found));
            prop_assert_eq!(hears(&mut watch), Ok(false));
            last = found;
        }
    }
}
