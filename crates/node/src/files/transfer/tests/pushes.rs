//! Folders that become what a tree says.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

use cortex_core::Code;
use cortex_core::files::content::ContentId;
use cortex_core::files::path::RelPath;
use cortex_core::limits::{PACK_BYTES_MAX, WANTS_OPEN_BYTES_MAX};
use cortex_core::sync::{Mode, Push, Rule, Why};
use cortex_core::transfer::{ApplyAsk, Noted, Phase, TransferEnd};

use super::super::super::beneath::Follow;
use super::super::super::scan::writers::Writers;
use super::super::super::scan::{self, Cache, ScanSpec};
use super::super::super::support::{Scene, rel};
use super::support::{FIRST, Hub, Source, apply, ask, noise, root, tree};

const DELETE: Push = Push { first: true, force: false, delete: true };

/// A tree of each kind of entry.
fn source() -> Source {
    let source = Source::new();
    for number in 0..200 {
        source.write(&format!("d{}/f{number}.txt", number % 10), noise(number, 2_000));
    }
    source.write("ملفات/مرحبا.txt", "أهلا");
    source.write(&"ن".repeat(127), "long");
    source.write("big", noise(1, 3_000_000));
    source.write("run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(source.path().join("run.sh"), PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::create_dir(source.path().join("empty")).expect("made");
    symlink("ملفات/مرحبا.txt", source.path().join("link")).expect("made");
    source
}

fn push(scene: &Scene, source: &Source, how: Push) -> TransferEnd {
    let tree = tree(source.path());
    let asked = ask("t", tree.root(), how);
    apply(scene, asked, &mut Hub::of(vec![tree])).end.expect("pushed")
}

fn notes(end: &TransferEnd) -> Vec<(&str, &Noted)> {
    end.notes.iter().map(|note| (note.path.as_str(), &note.what)).collect()
}

#[test]
fn a_tree_is_pushed_and_pushed_again_without_a_stream() {
    let (scene, source) = (Scene::new(), source());
    let target = root(source.path());
    let done = apply(&scene, ask("a/b/t", target, FIRST), &mut Hub::of(vec![tree(source.path())]));
    let end = done.end();
    assert_eq!((end.root, end.files, end.notes.len(), end.halt.as_ref()), (Some(target), 205, 0, None));
    assert_eq!(root(&scene.disk("a/b/t")), target);
    assert!(done.is_open && done.gates > 0);
    let mode = std::fs::metadata(scene.disk("a/b/t/run.sh")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(scene.names("a/b/t/.cortex"), ["base", "root", "scan", "staging"]);
    assert!(scene.names("a/b/t/.cortex/staging").is_empty());
    let before = std::fs::metadata(scene.disk("a/b/t/.cortex/base")).expect("it is there").ino();
    let again = apply(&scene, ask("a/b/t", target, FIRST), &mut Hub::of(vec![]));
    assert_eq!((again.is_open, again.gates, again.end().root), (false, 0, Some(target)));
    assert_eq!(again.end().files, 0);
    let after = std::fs::metadata(scene.disk("a/b/t/.cortex/base")).expect("it is there").ino();
    assert_eq!(before, after, "what it remembers is not written again");
    // A time that moved is no change, and one without a cache neither.
    let file = std::fs::File::open(scene.disk("a/b/t/big")).expect("it is there");
    file.set_modified(std::time::SystemTime::now()).expect("set");
    std::fs::remove_file(scene.disk("a/b/t/.cortex/scan")).expect("removed");
    let again = apply(&scene, ask("a/b/t", target, FIRST), &mut Hub::of(vec![]));
    assert_eq!((again.is_open, again.end().root), (false, Some(target)));
}

#[test]
fn what_was_pushed_is_not_read_again_by_the_push_after_it() {
    let (scene, source) = (Scene::in_memory(), Source::new());
    // Most of these get their names and are scanned within one step of the clock.
    for round in 0..20 {
        source.write("f", format!("{round}"));
        assert_eq!(push(&scene, &source, FIRST).files, 1);
        let dir = scene.root.dir(&RelPath::parse("t").expect("a path"), Follow::Never).expect("it is there");
        let spec = ScanSpec { vcs: true, ..ScanSpec::default() };
        let scanned = scan::scan(&dir, &spec, &mut Cache::load(&dir), None).expect("scanned");
        assert_eq!((scanned.root, scanned.hashed), (root(source.path()), 0), "round {round}");
    }
}

#[test]
fn of_what_changed_only_the_objects_and_chunks_that_differ_are_asked_for() {
    let (scene, source) = (Scene::new(), source());
    let before = tree(source.path());
    push(&scene, &source, FIRST);
    source.write("d3/f3.txt", noise(900, 2_000));
    source.write("d3/f13.txt", noise(901, 2_000));
    let mut long = noise(1, 3_000_000);
    long.splice(1_500_000..1_500_000, noise(2, 1_000));
    source.write("big", &long);
    let after = tree(source.path());
    let asked = ask("t", after.root(), FIRST);
    let done = apply(&scene, asked, &mut Hub::of(vec![after, before]));
    assert_eq!(done.end().files, 3);
    assert_eq!(root(&scene.disk("t")), root(source.path()));
    // Two folders, one map, two files, and the chunks around what was put into the long one.
    assert!(done.asked.len() <= 12, "{} ids", done.asked.len());
    assert!(done.plain < 700_000 && done.packed < 700_000, "{} bytes in {}", done.plain, done.packed);
}

#[test]
fn what_the_node_changed_since_the_last_push_stays_and_is_told() {
    let (scene, source) = (Scene::new(), source());
    push(&scene, &source, FIRST);
    scene.write("t/d1/f1.txt", "of the node");
    scene.write("t/d2/f2.txt", "of the node");
    scene.write("t/own.txt", "of the node");
    source.write("d2/f2.txt", "of the source");
    source.write("d3/f3.txt", "of the source");
    source.remove("d4/f4.txt");
    source.remove("d1/f11.txt");
    // The hub knows of no push before; the folder does.
    let end = push(&scene, &source, DELETE);
    let held = |end: &TransferEnd, path: &str| {
        notes(end).into_iter().find(|(at, _)| *at == path).map(|(_, what)| what.clone())
    };
    assert_eq!(held(&end, "d1/f1.txt"), Some(Noted::Held(Why::Kept)));
    assert_eq!(held(&end, "d2/f2.txt"), Some(Noted::Held(Why::Conflict)));
    assert_eq!(scene.read("t/d1/f1.txt"), b"of the node");
    assert_eq!(scene.read("t/d2/f2.txt"), b"of the node");
    assert_eq!(scene.read("t/own.txt"), b"of the node");
    assert_eq!(scene.read("t/d3/f3.txt"), b"of the source");
    assert!(!scene.disk("t/d4/f4.txt").exists() && !scene.disk("t/d1/f11.txt").exists());
    assert_ne!(end.root, Some(root(source.path())));
    let end = push(&scene, &source, Push { force: true, ..DELETE });
    assert_eq!(end.root, Some(root(source.path())), "{:?}", end.notes);
    assert!(!scene.disk("t/own.txt").exists());
}

#[test]
fn a_base_of_the_hub_is_taken_from_what_the_folder_remembers_or_asked_for() {
    for remembers in [true, false] {
        let (scene, source) = (Scene::new(), source());
        let before = tree(source.path());
        push(&scene, &source, FIRST);
        scene.write("t/d1/f1.txt", "of the node");
        source.write("d2/f2.txt", "of the source");
        if !remembers {
            // Damaged, it is none.
            let path = scene.disk("t/.cortex/base");
            let mut bytes = std::fs::read(&path).expect("read");
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            std::fs::write(&path, bytes).expect("written");
        }
        let after = tree(source.path());
        let how = Mode::Push(Push { first: false, ..FIRST });
        let asked = ApplyAsk { base: Some(before.root()), mode: how, ..ask("t", after.root(), FIRST) };
        let done = apply(&scene, asked, &mut Hub::of(vec![after, before]));
        assert_eq!(notes(done.end()), [("d1/f1.txt", &Noted::Held(Why::Kept))], "{remembers}");
        assert_eq!(scene.read("t/d2/f2.txt"), b"of the source");
        // One folder has two parts. Those of the base are asked for as well when they are not here.
        assert_eq!(done.asked.len() <= 4, remembers, "{} ids", done.asked.len());
    }
}

#[test]
fn what_is_damaged_of_what_a_folder_remembers_counts_as_nothing() {
    let (scene, source) = (Scene::new(), source());
    push(&scene, &source, FIRST);
    let path = scene.disk("t/.cortex/base");
    let whole = std::fs::read(&path).expect("read");
    let dir =
        scene.root.dir(&super::super::super::support::rel("t"), super::super::super::beneath::Follow::Never);
    let dir = dir.expect("a folder");
    assert!(super::super::memory::Memory::load(&dir).is_some());
    for cut in (0..whole.len()).step_by(whole.len() / 50) {
        std::fs::write(&path, &whole[..cut]).expect("written");
        assert!(super::super::memory::Memory::load(&dir).is_none(), "{cut}");
    }
    std::fs::remove_file(&path).expect("removed");
    symlink("root", &path).expect("made");
    assert!(super::super::memory::Memory::load(&dir).is_none());
    scene.write("t/d1/f1.txt", "of the node");
    let end = push(&scene, &source, FIRST);
    assert_eq!(end.root, Some(root(source.path())), "a first push replaces");
}

#[test]
fn a_dry_run_tells_the_steps_and_leaves_no_trace() {
    let (scene, source) = (Scene::new(), source());
    let target = root(source.path());
    let dry = |at: &str, how| ApplyAsk { dry_run: true, ..ask(at, target, how) };
    let done = apply(&scene, dry("new/t", FIRST), &mut Hub::of(vec![tree(source.path())]));
    let end = done.end();
    assert_eq!((end.root, end.files, done.gates), (None, 205, 0));
    assert_eq!(end.bytes, tree(source.path()).totals().bytes);
    assert_eq!(end.notes.len() as u64 + end.notes_more, 205 + 12);
    assert!(scene.names("").is_empty(), "not even the folder is made");
    scene.write("t/other", "x");
    scene.write("t/big", "other");
    let done = apply(&scene, dry("t", FIRST), &mut Hub::of(vec![tree(source.path())]));
    assert!(notes(done.end()).contains(&("big", &Noted::Put)));
    assert_eq!(scene.names("t"), ["big", "other"]);
    assert_eq!(scene.read("t/big"), b"other");
}

#[test]
fn a_source_that_was_emptied_halts_until_a_person_lets_it_pass() {
    let (scene, from) = (Scene::new(), source());
    push(&scene, &from, FIRST);
    let empty = Source::new();
    let end = push(&scene, &empty, DELETE);
    let halt = end.halt.expect("halted");
    assert!(halt.causes.iter().any(|cause| cause.rule == Rule::RootEmptied), "{halt:?}");
    assert_eq!(root(&scene.disk("t")), root(from.path()));
    let target = tree(empty.path());
    let asked = ApplyAsk { accepted: Some(halt.id), ..ask("t", target.root(), DELETE) };
    let done = apply(&scene, asked, &mut Hub::of(vec![target]));
    assert_eq!(done.end().halt, None);
    assert_eq!(scene.names("t"), [".cortex"]);
}

#[test]
fn one_file_goes_into_a_crowded_folder_and_nothing_else_is_looked_at_or_left() {
    let (scene, source) = (Scene::new(), Source::new());
    source.write("note.txt", "new");
    scene.write("home/note.txt", "old");
    scene.write("home/other/deep", "x");
    scene.write("home/.gitignore", "*.txt\n");
    std::fs::hard_link(scene.disk("home/note.txt"), scene.outside("second")).expect("linked");
    for number in 0..500 {
        scene.write(&format!("home/f{number}"), "x");
    }
    let before = scene.names("home");
    let target = tree(source.path());
    let all = Push { first: true, force: true, delete: true };
    let mut asked = ask("home", target.root(), all);
    asked.only = Some("note.txt".to_owned());
    asked.filters.ignore_files = true;
    let done = apply(&scene, asked.clone(), &mut Hub::of(vec![target]));
    assert_eq!((done.end().files, done.end().notes.len()), (1, 0), "{:?}", done.end());
    assert_eq!(scene.read("home/note.txt"), b"new");
    assert_eq!(scene.names("home"), before, "nothing of ours is left");
    assert_eq!(done.end().root, Some(root(source.path())));
    let again = apply(&scene, asked.clone(), &mut Hub::of(vec![]));
    assert!(!again.is_open && again.end().root == Some(root(source.path())));
    assert_eq!(scene.names("home"), before);
    // A tree that has more than that one writes no more than that one.
    source.write("other/deep", "wrong");
    source.write("note.txt", "newer");
    let target = tree(source.path());
    asked.target = target.root();
    let done = apply(&scene, asked, &mut Hub::of(vec![target]));
    assert_eq!(done.end().files, 1);
    assert_eq!(
        (scene.read("home/note.txt"), scene.read("home/other/deep")),
        (b"newer".to_vec(), b"x".to_vec())
    );
}

#[test]
fn a_push_that_was_cut_off_asks_for_no_more_than_a_window_twice() {
    let (scene, source) = (Scene::new(), Source::new());
    for number in 0..600 {
        source.write(&format!("d{}/f{number}", number % 7), noise(number, 60_000));
    }
    let all = tree(source.path()).totals().bytes;
    let asked = ask("t", root(source.path()), FIRST);
    let mut hub = Hub::of(vec![tree(source.path())]);
    hub.cut_after = Some(25 * 1024 * 1024);
    let cut = apply(&scene, asked.clone(), &mut hub);
    assert_eq!(cut.code(), Code::HubUnreachable);
    assert!(!scene.disk("t/d1").exists(), "nothing is seen before all is there");
    hub.cut_after = None;
    let done = apply(&scene, asked, &mut hub);
    assert_eq!(done.end().root, Some(root(source.path())));
    let came = 25 * 1024 * 1024;
    let again = done.plain + came - all;
    assert!(
        again <= (PACK_BYTES_MAX + 1024 * 1024) as u64 + WANTS_OPEN_BYTES_MAX / 8,
        "{again} bytes came twice"
    );
    assert!(scene.names("t/.cortex/staging").is_empty());
}

#[test]
fn a53_packs_that_lie_end_in_a_refusal_and_touch_nothing() {
    let flip = |mut bytes: Vec<u8>| {
        let at = bytes.len() - 1;
        bytes[at] ^= 0x40;
        bytes
    };
    let garbage = |bytes: Vec<u8>| noise(3, bytes.len());
    let swap = |_| {
        let mut writer = cortex_content::pack::PackWriter::new(1);
        let _added = writer.add(ContentId::of(b"this"), b"that");
        let pack = writer.finish().expect("a pack");
        [pack.head.to_bytes(), pack.tail].concat()
    };
    let spoils: [fn(Vec<u8>) -> Vec<u8>; 3] = [flip, garbage, swap];
    for spoil in spoils {
        let (scene, source) = (Scene::new(), source());
        scene.write("t/d1/f1.txt", "of the node");
        let mut hub = Hub::of(vec![tree(source.path())]);
        hub.spoil = Some(spoil);
        let done = apply(&scene, ask("t", root(source.path()), FIRST), &mut hub);
        assert_eq!(done.code(), Code::InvalidArgument, "{:?}", done.end);
        assert_eq!(scene.names("t"), [".cortex", "d1"]);
        assert_eq!(scene.read("t/d1/f1.txt"), b"of the node");
        hub.spoil = None;
        let done = apply(&scene, ask("t", root(source.path()), FIRST), &mut hub);
        assert_eq!(done.end().root, Some(root(source.path())), "the next one is none the worse");
    }
}

#[test]
fn a_closed_gate_lets_nothing_be_seen_and_the_next_try_moves_nothing_again() {
    let (scene, source) = (Scene::new(), source());
    let asked = ask("t", root(source.path()), FIRST);
    let mut hub = Hub::of(vec![tree(source.path())]);
    hub.at_gate = Box::new(|_| Err(cortex_core::Refusal::new(Code::StaleAttempt, "over")));
    let done = apply(&scene, asked.clone(), &mut hub);
    assert_eq!(done.code(), Code::StaleAttempt);
    assert_eq!(scene.names("t"), [".cortex"]);
    hub.at_gate = Box::new(|_| Ok(()));
    let done = apply(&scene, asked, &mut hub);
    assert_eq!((done.end().root, done.asked.len()), (Some(root(source.path())), 0));
}

#[test]
fn what_the_hub_has_lost_is_told_and_done_by_the_same_push_later() {
    let (scene, source) = (Scene::new(), source());
    push(&scene, &source, FIRST);
    source.write("d5/f5.txt", "newer");
    source.write("d6/new.txt", "new");
    let lost = vec![ContentId::of(b"newer"), ContentId::of(b"new")];
    let mut hub = Hub { lost, ..Hub::of(vec![tree(source.path())]) };
    let asked = ask("t", root(source.path()), FIRST);
    let done = apply(&scene, asked.clone(), &mut hub);
    let failed = &Noted::Failed(Code::NotFound);
    assert_eq!(notes(done.end()), [("d5/f5.txt", failed), ("d6/new.txt", failed)]);
    assert_eq!(scene.read("t/d5/f5.txt"), noise(5, 2_000));
    hub.lost.clear();
    let done = apply(&scene, asked, &mut hub);
    assert_eq!((done.end().root, done.end().notes.len()), (Some(root(source.path())), 0), "{:?}", done.end());
}

#[test]
fn what_is_no_folder_is_refused_by_name() {
    let (scene, source) = (Scene::new(), source());
    scene.write("file", "x");
    std::fs::create_dir(scene.disk("folder")).expect("made");
    symlink("folder", scene.disk("way")).expect("made");
    symlink("/etc", scene.disk("out")).expect("made");
    for (dest, code) in [
        ("file", Code::UnsupportedEntry),
        ("file/below", Code::UnsupportedEntry),
        ("way", Code::UnsupportedEntry),
        ("out", Code::UnsupportedEntry),
        ("out/below", Code::PathOutsideRoots),
    ] {
        let done = apply(&scene, ask(dest, root(source.path()), FIRST), &mut Hub::of(vec![]));
        let refusal = done.end.expect_err("refused");
        assert_eq!(refusal.code, code, "{dest}: {refusal:?}");
        assert!(refusal.message.contains(dest) && !refusal.hint.is_empty(), "{refusal:?}");
        assert!(!done.is_open);
    }
    let way = apply(&scene, ask("way", root(source.path()), FIRST), &mut Hub::of(vec![])).end;
    assert!(way.expect_err("refused").hint.contains("`folder`"));
    assert_eq!(scene.names("folder").len(), 0);
    // Through a link in a folder above, as every operation goes.
    let done =
        apply(&scene, ask("way/t", root(source.path()), FIRST), &mut Hub::of(vec![tree(source.path())]));
    assert_eq!(done.end().root, Some(root(&scene.disk("folder/t"))));
}

#[test]
fn it_is_told_how_far_it_is_with_what_there_is_to_do() {
    let (scene, source) = (Scene::new(), source());
    let done = apply(&scene, ask("t", root(source.path()), FIRST), &mut Hub::of(vec![tree(source.path())]));
    let phases: Vec<Phase> = done.told.iter().map(|told| told.phase).collect();
    assert!(phases.contains(&Phase::Moving) && phases.contains(&Phase::Applying), "{phases:?}");
    let bytes = tree(source.path()).totals().bytes;
    let moving = done.told.iter().find(|told| told.phase == Phase::Moving).expect("told");
    assert_eq!((moving.bytes_total, moving.files_total), (bytes, 204), "{moving:?}");
    assert!(done.told.len() < 50, "{} times", done.told.len());
}

#[test]
fn what_a_push_wrote_is_known_by_its_times_where_these_tell_of_all_that_is_written() {
    let (scene, source) = (Scene::new(), Source::new());
    source.write("f", "x");
    source.write("long", noise(1, 3_000_000));
    source.write("d/f", "y");
    apply(&scene, ask("t", root(source.path()), FIRST), &mut Hub::of(vec![tree(source.path())])).end();
    let dir = scene.root.dir(&rel("t"), Follow::Never).expect("it is there");
    let is_telling = Writers::of(&dir).none_of_ours();
    let mut cache = Cache::load(&dir);
    let are = |cache: &Cache, path: &str| {
        let (path, sights) = (rel(path), cache.sights());
        let folder = dir.below(&path.parent().expect("a folder")).expect("it is there");
        sights.are(&path, &folder.stat(path.name().as_bytes()).expect("it is there"))
    };
    let all = ["f", "long", "d/f"];
    assert_eq!(all.map(|path| are(&cache, path)), [is_telling; 3]);
    // A scan that reads nothing of it keeps that.
    let spec = ScanSpec { vcs: true, ..ScanSpec::default() };
    assert_eq!(scan::scan(&dir, &spec, &mut cache, None).expect("scanned").hashed, 0);
    assert_eq!(all.map(|path| are(&cache, path)), [is_telling; 3]);
}
