//! What is moved or copied is whole at one end, and nothing that others wrote is lost.

use std::cell::RefCell;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use cortex_core::files::content::ContentId;
use nix::mount::{MsFlags, mount};

use super::*;
use crate::files::support::{Failing, Meanwhile, PLAIN, Scene, on_small_disk};

fn of(content: &[u8]) -> Expect {
    Expect::Etag(ContentId::of(content))
}

fn mv(
    work: &Work<'_>,
    scene: &Scene,
    ends: [&str; 2],
    replace: bool,
    expect: Expect,
) -> Result<FileAnswer, Code> {
    let [from, to] = ends.map(|end| scene.at(end));
    let moved = prepare(from.place(), to.place(), replace, expect).and_then(|ready| ready.commit(work));
    moved.map_err(|refusal| refusal.code)
}

fn cp(
    work: &Work<'_>,
    scene: &Scene,
    ends: [&str; 2],
    recursive: bool,
    replace: bool,
    expect: Expect,
) -> Result<FileAnswer, Code> {
    let [from, to] = ends.map(|end| scene.at(end));
    let copied = copy(work, from.place(), to.place(), recursive, replace, expect);
    copied.and_then(|ready| ready.commit(work)).map_err(|refusal| refusal.code)
}

fn moved(made: u64) -> Result<FileAnswer, Code> {
    Ok(FileAnswer::Done { removed: 1, made, notes: vec![], dry_run: false })
}

#[test]
fn an_entry_is_moved_whole_and_takes_no_other_ones_place_unless_that_is_asked_for() {
    let scene = Scene::new();
    scene.write("a", "1");
    scene.write("d/b", "2");
    symlink("/nowhere", scene.disk("link")).expect("linked");
    assert_eq!(mv(&PLAIN, &scene, ["a", "d/b"], false, Expect::Any), Err(Code::Conflict));
    assert_eq!(mv(&PLAIN, &scene, ["a", "d/ملف"], false, of(b"1")), moved(1));
    assert_eq!(mv(&PLAIN, &scene, ["d/ملف", "d/b"], true, Expect::Any), moved(0));
    assert_eq!(scene.read("d/b"), b"1");
    scene.write("a", "3");
    assert_eq!(mv(&PLAIN, &scene, ["a", "d/b"], true, of(b"3")), moved(0));
    assert_eq!((scene.read("d/b"), scene.names("d").len()), (b"3".to_vec(), 1));
    assert_eq!(mv(&PLAIN, &scene, ["link", "d/link"], false, Expect::Any), moved(1));
    assert_eq!(mv(&PLAIN, &scene, ["d", "e"], false, Expect::Any), moved(1));
    assert_eq!(scene.names(""), ["e"]);
    scene.write("x", "");
    for (ends, replace, expect, code) in [
        (["none", "y"], false, Expect::Any, Code::NotFound),
        (["x", "none/y"], false, Expect::Any, Code::NotFound),
        (["x", "e"], true, Expect::Any, Code::Conflict),
        (["e", "x"], true, Expect::Any, Code::Conflict),
        (["x", "y"], false, of(b"other"), Code::EtagMismatch),
        (["e", "y"], false, of(b""), Code::UnsupportedEntry),
        (["", "y"], false, Expect::Any, Code::UnsupportedEntry),
        (["x", ""], true, Expect::Any, Code::UnsupportedEntry),
    ] {
        assert_eq!(mv(&PLAIN, &scene, ends, replace, expect), Err(code), "{ends:?}");
    }
    assert_eq!(scene.names(""), ["e", "x"]);
}

#[test]
fn sync_06_a_file_that_changed_since_it_was_looked_at_is_not_moved() {
    for (replace, may_exchange) in [(false, true), (true, true), (true, false)] {
        let scene = Scene::new();
        scene.write("a", "old");
        if replace {
            scene.write("b", "b");
        }
        let mut seam = Meanwhile::new(Moment::Prepared, || scene.write("a", "new"));
        seam.may_exchange = may_exchange;
        let work = Work { seam: &seam, ..PLAIN };
        assert_eq!(mv(&work, &scene, ["a", "b"], replace, of(b"old")), Err(Code::EtagMismatch));
        assert_eq!(scene.read("a"), b"new");
        assert_eq!(scene.names("").len(), if replace { 2 } else { 1 });
        assert!(!replace || scene.read("b") == b"b");
    }
    // What comes in the place of the file that is to be replaced is kept beside it.
    let scene = Scene::new();
    scene.write("a", "1");
    scene.write("b", "2");
    let seam = Meanwhile::new(Moment::Prepared, || {
        scene.write("t", "3");
        std::fs::rename(scene.disk("t"), scene.disk("b")).expect("renamed");
    });
    let work = Work { seam: &seam, ..PLAIN };
    assert_eq!(mv(&work, &scene, ["a", "b"], true, of(b"1")), moved(0));
    let kept = temp::conflict("b", PLAIN.id);
    assert_eq!(
        (scene.read("b"), scene.read(&kept), scene.names("").len()),
        (b"1".to_vec(), b"3".to_vec(), 2)
    );
    // A name that is taken in between stays who has it.
    let scene = Scene::new();
    scene.write("a", "1");
    let seam = Meanwhile::new(Moment::Prepared, || scene.write("b", "2"));
    let work = Work { seam: &seam, ..PLAIN };
    assert_eq!(mv(&work, &scene, ["a", "b"], false, Expect::Any), Err(Code::Conflict));
    assert_eq!((scene.read("a"), scene.read("b")), (b"1".to_vec(), b"2".to_vec()));
}

#[test]
fn sync_05_a_move_that_is_not_durable_is_not_acknowledged() {
    for nth in 0..2 {
        let scene = Scene::new();
        scene.write("a", "1");
        scene.write("d/x", "");
        let seam = Failing { nth, synced: RefCell::default() };
        let work = Work { seam: &seam, ..PLAIN };
        assert_eq!(mv(&work, &scene, ["a", "d/a"], false, Expect::Any), Err(Code::UnknownOutcome));
        assert_eq!(seam.synced.borrow().len(), nth + 1);
    }
}

#[test]
fn a_file_is_copied_with_its_permissions_and_a_link_as_what_it_leads_to() {
    let scene = Scene::new();
    scene.write("a", "text");
    std::fs::set_permissions(scene.disk("a"), std::fs::Permissions::from_mode(0o4750)).expect("set");
    symlink("a", scene.disk("link")).expect("linked");
    symlink("../secret", scene.disk("out")).expect("linked");
    std::fs::write(scene.outside("secret"), "secret").expect("written");
    for (from, to) in [("a", "b"), ("link", "c")] {
        let answer = cp(&PLAIN, &scene, [from, to], false, false, of(b"text"));
        let Ok(FileAnswer::Written { bytes: 4, created: true, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!(scene.read(to), b"text");
        let mode = std::fs::symlink_metadata(scene.disk(to)).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o750, "without what makes it run as somebody else");
    }
    assert_eq!(cp(&PLAIN, &scene, ["a", "b"], false, false, Expect::Any), Err(Code::Conflict));
    scene.write("a", "new");
    assert!(cp(&PLAIN, &scene, ["a", "b"], false, true, Expect::Any).is_ok());
    assert_eq!(scene.read("b"), b"new");
    assert_eq!(cp(&PLAIN, &scene, ["a", "d"], false, false, of(b"other")), Err(Code::EtagMismatch));
    assert_eq!(cp(&PLAIN, &scene, ["out", "d"], false, false, Expect::Any), Err(Code::PathOutsideRoots));
    assert_eq!(cp(&PLAIN, &scene, ["a", "out"], false, true, Expect::Any), Err(Code::UnsupportedEntry));
    assert_eq!(scene.names(""), ["a", "b", "c", "link", "out"]);
}

#[test]
fn a_folder_is_copied_whole_or_not_at_all() {
    let scene = Scene::new();
    scene.write("a/b/f", "1");
    scene.write("a/ملف", "2");
    symlink("../../nowhere", scene.disk("a/link")).expect("linked");
    std::fs::set_permissions(scene.disk("a/b"), std::fs::Permissions::from_mode(0o2750)).expect("set");
    assert_eq!(cp(&PLAIN, &scene, ["a", "c"], false, false, Expect::Any), Err(Code::UnsupportedEntry));
    let copied = cp(&PLAIN, &scene, ["a", "c"], true, false, Expect::Any);
    assert_eq!(copied, Ok(FileAnswer::Done { removed: 0, made: 5, notes: vec![], dry_run: false }));
    assert_eq!((scene.read("c/b/f"), scene.read("c/ملف")), (b"1".to_vec(), b"2".to_vec()));
    assert_eq!(
        std::fs::read_link(scene.disk("c/link")).expect("a link"),
        std::path::Path::new("../../nowhere")
    );
    assert_eq!(scene.disk("c/b").metadata().expect("there").permissions().mode() & 0o7777, 0o750);
    assert_eq!(cp(&PLAIN, &scene, ["a", "c"], true, true, Expect::Any), Err(Code::Conflict));
    nix::unistd::mkfifo(&scene.disk("a/b/fifo"), Mode::S_IRWXU).expect("made");
    assert_eq!(cp(&PLAIN, &scene, ["a", "d"], true, false, Expect::Any), Err(Code::UnsupportedEntry));
    std::fs::remove_file(scene.disk("a/b/fifo")).expect("removed");
    for nth in 0..2 {
        let seam = Failing { nth, synced: RefCell::default() };
        let refused = cp(&Work { seam: &seam, ..PLAIN }, &scene, ["a", "d"], true, false, Expect::Any);
        assert_eq!(refused, Err(if nth == 0 { Code::Internal } else { Code::UnknownOutcome }));
    }
    assert_eq!(scene.names(""), ["a", "c", "d"], "the last one has its name");
    // Dropped, it is gone.
    let [from, to] = ["a", "e"].map(|end| scene.at(end));
    drop(copy(&PLAIN, from.place(), to.place(), true, false, Expect::Any).expect("made"));
    assert_eq!(scene.names(""), ["a", "c", "d"]);
}

#[test]
fn what_is_moved_to_another_file_system_is_copied_and_that_is_said() {
    on_small_disk("8m", |scene| {
        // One within the other.
        std::fs::create_dir(scene.disk("m")).expect("made");
        let within = scene.disk("m");
        mount(Some("tmpfs"), &within, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).expect("mounted");
        scene.write("a", "text");
        scene.write("d/e/f", "x");
        symlink("/nowhere", scene.disk("link")).expect("linked");
        for (name, expect) in [("a", of(b"text")), ("d", Expect::Any), ("link", Expect::Any)] {
            let answer = mv(&PLAIN, scene, [name, &format!("m/{name}")], false, expect);
            assert_eq!(
                answer,
                Ok(FileAnswer::Done { removed: 1, made: 1, notes: vec![Note::Copied], dry_run: false })
            );
        }
        assert_eq!(
            (scene.names(""), scene.names("m")),
            (vec!["m".to_owned()], ["a", "d", "link"].map(str::to_owned).to_vec())
        );
        assert_eq!((scene.read("m/a"), scene.read("m/d/e/f")), (b"text".to_vec(), b"x".to_vec()));
        // What does not fit stays where it is.
        scene.write("large", vec![b'x'; 2 << 20]);
        scene.write("deep/large", vec![b'x'; 2 << 20]);
        for name in ["large", "deep"] {
            let refused = mv(&PLAIN, scene, [name, &format!("m/{name}")], false, Expect::Any);
            assert_eq!(refused, Err(Code::NoSpace), "{name}");
        }
        assert_eq!(
            (scene.names(""), scene.names("m").len()),
            (["deep", "large", "m"].map(str::to_owned).to_vec(), 3)
        );
        // A tree in which another file system is mounted is not removed.
        let at = scene.at("m");
        let removal = crate::files::remove::prepare(at.place(), true, Expect::Any);
        assert_eq!(removal.map(drop).map_err(|refusal| refusal.code), Err(Code::Conflict));
    });
}
