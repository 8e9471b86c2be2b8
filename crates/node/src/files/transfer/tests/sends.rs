//! Folders that are sent.

use std::os::unix::fs::{PermissionsExt, symlink};

use cortex_core::Code;
use cortex_core::sync::{Problem, RootState, Rule, Why};
use cortex_core::transfer::{ApplyAsk, Noted, SendAsk};
use cortex_core::workspace::RootIdentity;

use super::super::super::support::Scene;
use super::support::{FIRST, Hub, apply, ask, noise, root, send, send_ask, tree};

#[test]
fn a_folder_is_sent_and_comes_out_the_same_elsewhere() {
    let scene = Scene::new();
    for number in 0..300 {
        scene.write(&format!("s/d{}/ملف {number}", number % 9), noise(number, 3_000));
    }
    scene.write(&format!("s/{}", "n".repeat(255)), "long");
    scene.write(&format!("s/{}x", "ل".repeat(127)), "");
    scene.write("s/big", noise(1, 20_000_000));
    scene.write("s/run", "#!");
    std::fs::set_permissions(scene.disk("s/run"), PermissionsExt::from_mode(0o755)).expect("set");
    std::fs::create_dir(scene.disk("s/empty")).expect("made");
    symlink("../elsewhere", scene.disk("s/d1/link")).expect("made");
    let into = scene.outside("into");
    let taken = send(&scene, send_ask("s"), &into, || {});
    let told = taken.tree.expect("told");
    assert_eq!((told.root, told.state), (root(&scene.disk("s")), RootState::Dir));
    assert_eq!(told.counts.files, 305);
    let end = taken.received.expect("received").expect("whole");
    assert_eq!((end.root, end.files), (Some(told.root), 305), "{:?}", end.notes);
    assert_eq!((root(&into), taken.held.len()), (told.root, 0));
    assert_eq!(scene.names("s").iter().filter(|name| *name == ".cortex").count(), 0, "nothing is left in it");
}

#[test]
fn a_file_is_sent_as_a_tree_of_one_entry() {
    let scene = Scene::new();
    scene.write("home/مذكرة.txt", "text");
    scene.write("home/other", "x");
    let into = scene.outside("into");
    let taken = send(&scene, send_ask("home/مذكرة.txt"), &into, || {});
    assert_eq!(taken.tree.expect("told").entries, 1);
    assert_eq!(std::fs::read(into.join("مذكرة.txt")).expect("it came"), b"text");
    let mut asked = send_ask("home");
    asked.only = Some("other".to_owned());
    let into = scene.outside("into too");
    send(&scene, asked, &into, || {});
    assert!(into.join("other").exists() && !into.join("مذكرة.txt").exists());
    assert_eq!(scene.names("home"), ["other", "مذكرة.txt"]);
}

#[test]
fn what_changes_while_it_is_sent_is_missing_and_the_rest_comes() {
    let scene = Scene::new();
    scene.write("s/a", "same");
    scene.write("s/b", "before");
    scene.write("s/c", "goes");
    let into = scene.outside("into");
    let taken = send(&scene, send_ask("s"), &into, || {
        scene.write("s/b", "after!");
        std::fs::remove_file(scene.disk("s/c")).expect("removed");
    });
    let end = taken.received.expect("received").expect("the rest came");
    let notes: Vec<_> = end.notes.iter().map(|note| (note.path.as_str(), note.what.clone())).collect();
    assert_eq!(notes, [("b", Noted::Failed(Code::NotFound)), ("c", Noted::Failed(Code::NotFound))]);
    assert_eq!(std::fs::read(into.join("a")).expect("it came"), b"same");
    assert!(!into.join("b").exists());
}

#[test]
fn what_is_left_out_is_told_by_name_however_much_it_is() {
    let scene = Scene::new();
    scene.write("s/a", "x");
    scene.write("s/.gitignore", "*.log\n");
    for number in 0..450 {
        scene.write(&format!("s/{number}.log"), "x");
    }
    nix::unistd::mkfifo(&scene.disk("s/pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let mut asked = send_ask("s");
    asked.filters.ignore_files = true;
    let taken = send(&scene, asked, &scene.outside("into"), || {});
    let of = |why| taken.held.iter().filter(|note| note.what == Noted::Held(why)).count();
    assert_eq!((of(Why::Ignored), of(Why::Blocked(Problem::Unsupported))), (450, 1));
}

#[test]
fn what_is_no_folder_and_no_file_is_told_as_what_it_is() {
    let scene = Scene::new();
    scene.write("file", "x");
    symlink("file", scene.disk("way")).expect("made");
    symlink("/etc", scene.disk("out")).expect("made");
    nix::unistd::mkfifo(&scene.disk("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    for (source, state) in [("none", RootState::Missing), ("pipe", RootState::OtherKind)] {
        let taken = send(&scene, send_ask(source), &scene.outside(source), || {});
        assert_eq!(taken.tree.expect("told").state, state);
    }
    for (source, code) in [("way", Code::UnsupportedEntry), ("out", Code::PathOutsideRoots)] {
        let taken = send(&scene, send_ask(source), &scene.outside(source), || {});
        assert_eq!(taken.refused.expect("refused").code, code);
        assert_eq!(taken.tree, None);
    }
}

#[test]
fn sync_02_of_a_folder_in_the_place_of_another_nothing_is_told_and_nothing_is_left_in_it() {
    let scene = Scene::new();
    scene.write("s/a", "text");
    let (into, base) = (scene.outside("into"), root(&scene.disk("s")));
    let first = send(&scene, SendAsk { mark: true, ..send_ask("s") }, &into, || {}).tree.expect("told");
    let identity = first.identity.expect("it is marked");
    assert!(identity.marker != RootIdentity::UNMARKED && scene.disk("s/.cortex/root").exists());
    let again = || SendAsk { identity: Some(identity), base: Some(base), ..send_ask("s") };
    let same = send(&scene, again(), &into, || {}).tree.expect("told");
    assert_eq!((same.state, same.root, same.identity), (RootState::Dir, base, Some(identity)));
    std::fs::rename(scene.disk("s"), scene.disk("aside")).expect("moved");
    std::fs::create_dir(scene.disk("s")).expect("made");
    let other = send(&scene, again(), &scene.outside("nothing"), || {}).tree.expect("told");
    assert_eq!((other.state, other.counts.files), (RootState::Unavailable, 0));
    assert!(scene.names("s").is_empty(), "{:?}", scene.names("s"));
    // Nor is it written.
    let target = root(&scene.disk("aside"));
    let asked = ApplyAsk { identity: Some(identity), base: Some(base), ..ask("s", target, FIRST) };
    let done = apply(&scene, asked, &mut Hub::of(vec![tree(&scene.disk("aside"))]));
    let halt = done.end().halt.as_ref().expect("halted");
    assert_eq!(halt.causes[0].rule, Rule::RootUnavailable);
    assert!(scene.names("s").is_empty(), "{:?}", scene.names("s"));
}
