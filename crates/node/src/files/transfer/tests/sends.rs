//! Folders that are sent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, symlink};

use cortex_core::Code;
use cortex_core::sync::{Problem, RootState, Rule, Why};
use cortex_core::transfer::{ApplyAsk, LeftOut, Noted, SendAsk};
use cortex_core::workspace::RootIdentity;

use super::super::super::apply::tests::support as applying;
use super::super::super::seam::{Moment, Seam};
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
fn sync_19_what_no_rule_leaves_out_and_no_tree_has_is_counted_once_by_its_reason() {
    let scene = Scene::new();
    scene.write("s/a", "x");
    for name in [&b"caf\xe9"[..], b"a\\b", b"line\nbreak"] {
        std::fs::write(scene.disk("s").join(OsStr::from_bytes(name)), "x").expect("written");
    }
    std::fs::File::create(scene.disk("s/hole")).expect("made").set_len(1 << 40).expect("set");
    nix::unistd::mkfifo(&scene.disk("s/أنبوب"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    scene.write("s/rules/.gitignore", vec![b'x'; 300 * 1024]);
    scene.write("s/rules/secret", "x");
    scene.write("s/.gitignore", "*.log\n");
    scene.write("s/x.log", "x");
    let mut asked = send_ask("s");
    asked.filters.ignore_files = true;
    let told = send(&scene, asked, &scene.outside("into"), || {}).tree.expect("told");
    let expected = LeftOut { unnamed: 3, too_large: 1, rules_unread: 1, unreadable: 0, unfit: 1 };
    assert_eq!((told.left_out, told.left_out.total()), (expected, 6));
    let file = send(&scene, send_ask("s/a"), &scene.outside("one"), || {}).tree.expect("told");
    assert_eq!(file.left_out, LeftOut::default());
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

/// Somebody changes a file when it was looked at, and the clerk is killed when it is out of sight.
struct Meddling<'a>(&'a Scene);

impl Seam for Meddling<'_> {
    fn pass(&self, moment: Moment) {
        if moment == Moment::Looked {
            self.0.write("s/theirs", "theirs");
            std::fs::rename(self.0.disk("s/theirs"), self.0.disk("s/f")).expect("renamed");
        }
        applying::Killed { at: Moment::Exchanged }.pass(moment);
    }
}

#[test]
fn sync_06_what_a_kill_left_out_of_sight_is_there_again_before_the_folder_is_told() {
    let scene = Scene::new();
    scene.write("s/f", "old");
    let target = applying::Folder::with(&[("f", b"new")]).tree();
    let cut = |seam: &dyn Seam| {
        let (local, asked) = (applying::made(&scene.disk("s")), applying::ask(&target, applying::PUSH));
        let run =
            || applying::run_in(&scene.disk("s"), &local, &asked, &mut applying::Shop::of(&[&target]), seam);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).expect_err("killed");
    };
    cut(&Meddling(&scene));
    assert_eq!((scene.names("s"), scene.read("s/f")), (vec![".cortex".into(), "f".into()], b"new".to_vec()));
    let told = send(&scene, send_ask("s"), &scene.outside("into"), || {}).tree.expect("told");
    let names = scene.names("s");
    assert!(names.len() == 3 && told.counts.files == 2, "{names:?}");
    assert_eq!(
        (scene.read("s/f"), scene.read(&format!("s/{}", names[2]))),
        (b"new".to_vec(), b"theirs".to_vec())
    );
    std::fs::remove_file(scene.disk(&format!("s/{}", names[2]))).expect("removed");
    scene.write("s/f", "old");
    cut(&applying::Killed { at: Moment::BatchSynced });
    assert_eq!(scene.names("s/.cortex/staging").len(), 1);
    send(&scene, send_ask("s"), &scene.outside("into too"), || {});
    assert!(scene.names("s/.cortex/staging").is_empty(), "the folder is what it is to be");
}
