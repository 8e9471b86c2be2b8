//! A write is seen whole or not at all, and nothing that others wrote is lost.

use std::cell::RefCell;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use cortex_core::id::OpId;

use super::*;
use crate::files::support::{Failing, Meanwhile, PLAIN, Scene, rounds};
use crate::files::{seam, temp};

const PUT: Wanted =
    Wanted { how: WriteHow::Put, expect: Expect::Any, mkdirs: false, mode: None, dry_run: false };

fn prepare<'a>(
    work: &Work<'_>,
    place: Place<'a>,
    wanted: &Wanted,
    content: &[u8],
) -> Result<Prepared<'a>, Refusal> {
    let mut draft = Draft::begin(work, place, wanted)?;
    content.chunks(7).try_for_each(|piece| draft.write(piece))?;
    draft.finish(work, Declared::default())
}

fn write(work: &Work<'_>, place: Place<'_>, wanted: &Wanted, content: &[u8]) -> Result<FileAnswer, Refusal> {
    prepare(work, place, wanted, content)?.commit(work)
}

fn code(result: Result<FileAnswer, Refusal>) -> Option<Code> {
    result.err().map(|refusal| refusal.code)
}

fn detail<'a>(refusal: &'a Refusal, name: &str) -> Option<&'a str> {
    refusal.details.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
}

fn of(content: &[u8]) -> Expect {
    Expect::Etag(ContentId::of(content))
}

#[test]
fn what_may_or_must_be_there_decides() {
    let (yes, no) = (Some(&b"old"[..]), None);
    let (create, replace, append, put) =
        (WriteHow::Create, WriteHow::Replace, WriteHow::Append, WriteHow::Put);
    for (there, how, expect, came_of_it) in [
        (no, create, Expect::Any, Ok(&b"new"[..])),
        (no, create, Expect::Absent, Ok(b"new")),
        (yes, create, Expect::Any, Err(Code::Conflict)),
        (no, replace, Expect::Any, Err(Code::NotFound)),
        (no, replace, of(b"old"), Err(Code::EtagMismatch)),
        (yes, replace, Expect::Any, Ok(b"new")),
        (yes, replace, of(b"old"), Ok(b"new")),
        (yes, replace, of(b"other"), Err(Code::EtagMismatch)),
        (no, append, Expect::Any, Ok(b"new")),
        (yes, append, Expect::Any, Ok(b"oldnew")),
        (yes, append, of(b"old"), Ok(b"oldnew")),
        (yes, append, of(b"other"), Err(Code::EtagMismatch)),
        (no, put, Expect::Any, Ok(b"new")),
        (no, put, Expect::Absent, Ok(b"new")),
        (no, put, of(b"old"), Err(Code::EtagMismatch)),
        (yes, put, Expect::Any, Ok(b"new")),
        (yes, put, Expect::Absent, Err(Code::EtagMismatch)),
        (yes, put, of(b"old"), Ok(b"new")),
    ] {
        let scene = Scene::new();
        there.iter().for_each(|content| scene.write("f", content));
        let what = format!("{there:?} {how:?} {expect:?}");
        let answer = write(&PLAIN, scene.at("f").place(), &Wanted { how, expect, ..PUT }, b"new");
        match (answer, came_of_it) {
            (Ok(FileAnswer::Written { etag, bytes, created, before, .. }), Ok(content)) => {
                assert_eq!(scene.read("f"), content, "{what}");
                assert_eq!((etag, bytes), (ContentId::of(content), content.len() as u64), "{what}");
                assert_eq!((created, before), (there.is_none(), there.map(ContentId::of)), "{what}");
            }
            (answer, expected) => {
                let refusal = answer.expect_err(&what);
                assert_eq!(Err(refusal.code), expected.map(drop), "{what}");
                let etag = there.filter(|_| refusal.code == Code::EtagMismatch).map(ContentId::of);
                assert_eq!(detail(&refusal, "etag"), etag.map(|etag| etag.to_string()).as_deref(), "{what}");
                assert_eq!(there.map(<[u8]>::to_vec), std::fs::read(scene.disk("f")).ok(), "{what}");
            }
        }
        let left = scene.names("").into_iter().filter(|name| name != "f").count();
        assert_eq!(left, 0, "{what}");
    }
}

#[test]
fn an_empty_content_a_long_name_and_arabic_are_written_like_any_other() {
    let scene = Scene::new();
    for (name, content) in
        [("empty", &b""[..]), ("خطة العمل.txt", b"x"), (&"م".repeat(127), b"y"), (&"n".repeat(255), b"z")]
    {
        for content in [content, b"again", content] {
            let expect = std::fs::read(scene.disk(name)).map_or(Expect::Absent, |old| of(&old));
            write(&PLAIN, scene.at(name).place(), &Wanted { expect, ..PUT }, content).expect(name);
            assert_eq!(scene.read(name), content);
        }
    }
}

#[test]
fn what_is_dropped_before_it_is_committed_leaves_nothing() {
    let scene = Scene::new();
    scene.write("f", "old");
    let wanted = Wanted { mkdirs: true, ..PUT };
    for path in ["f", "a/b/c/new"] {
        let at = scene.at(path);
        drop(prepare(&PLAIN, at.place(), &wanted, b"new").expect("prepared"));
        assert_eq!(scene.names(""), ["f"]);
        let mut draft = Draft::begin(&PLAIN, at.place(), &wanted).expect("begun");
        draft.write(b"half").expect("written");
        drop(draft);
        assert_eq!((scene.names(""), scene.read("f")), (vec!["f".to_owned()], b"old".to_vec()));
    }
    write(&PLAIN, scene.at("a/b/c/new").place(), &wanted, b"new").expect("written");
    assert_eq!(scene.read("a/b/c/new"), b"new");
    assert_eq!(code(write(&PLAIN, scene.at("x/new").place(), &PUT, b"")), Some(Code::NotFound));
    assert_eq!(code(write(&PLAIN, scene.at("f/new").place(), &wanted, b"")), Some(Code::UnsupportedEntry));
}

#[test]
fn a_dry_run_tells_the_difference_and_does_nothing() {
    let scene = Scene::new();
    scene.write("f", "a\nb\n");
    let wanted = Wanted { dry_run: true, mkdirs: true, ..PUT };
    let answer = write(&PLAIN, scene.at("f").place(), &wanted, b"a\nc\n").expect("told");
    let FileAnswer::Written { diff: Some(diff), created: false, dry_run: true, etag, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((diff.added, diff.removed, etag), (1, 1, ContentId::of(b"a\nc\n")));
    assert!(diff.text.contains("--- a/w/f\n+++ b/w/f\n") && diff.text.contains("-b\n+c\n"), "{}", diff.text);
    let answer = write(&PLAIN, scene.at("x/y/new").place(), &wanted, b"a\n").expect("told");
    assert!(matches!(answer, FileAnswer::Written { created: true, dry_run: true, .. }), "{answer:?}");
    assert_eq!((scene.names(""), scene.read("f")), (vec!["f".to_owned()], b"a\nb\n".to_vec()));
}

#[test]
fn nothing_is_written_through_a_link_nor_over_a_folder_or_a_pipe() {
    let scene = Scene::new();
    std::fs::write(scene.outside("secret"), "old").expect("written");
    scene.write("inside", "old");
    std::fs::create_dir(scene.disk("folder")).expect("made");
    symlink("../secret", scene.disk("out")).expect("linked");
    symlink("inside", scene.disk("in")).expect("linked");
    symlink("nowhere", scene.disk("dangling")).expect("linked");
    nix::unistd::mkfifo(&scene.disk("fifo"), Mode::S_IRWXU).expect("made");
    for how in [WriteHow::Put, WriteHow::Append, WriteHow::Replace] {
        for name in ["out", "in", "dangling", "folder", "fifo"] {
            let at = scene.at(name);
            let refusal = write(&PLAIN, at.place(), &Wanted { how, ..PUT }, b"new").expect_err(name);
            assert_eq!(refusal.code, Code::UnsupportedEntry, "{name}");
            if name == "in" {
                assert_eq!(detail(&refusal, "target"), Some("inside"));
            }
        }
    }
    assert_eq!(std::fs::read(scene.outside("secret")).expect("there"), b"old");
    assert_eq!(scene.read("inside"), b"old");
    assert_eq!(code(write(&PLAIN, scene.at("").place(), &PUT, b"")), Some(Code::UnsupportedEntry));
}

#[test]
fn a_replaced_file_keeps_its_permissions_without_what_makes_it_run_as_somebody_else() {
    let scene = Scene::new();
    let mode = |name: &str| scene.disk(name).metadata().expect("there").mode() & 0o7777;
    for (before, after) in [(0o640, 0o640), (0o755, 0o755), (0o4755, 0o755), (0o2711, 0o711), (0o400, 0o400)]
    {
        scene.write("f", "old");
        std::fs::set_permissions(scene.disk("f"), std::fs::Permissions::from_mode(before)).expect("set");
        write(&PLAIN, scene.at("f").place(), &Wanted { expect: of(b"old"), ..PUT }, b"new").expect("written");
        assert_eq!(mode("f"), after, "{before:o}");
        std::fs::remove_file(scene.disk("f")).expect("removed");
    }
    for (asked, given) in [(None, 0o644), (Some(0o600), 0o600), (Some(0o755), 0o755), (Some(0o664), 0o664)] {
        write(&PLAIN, scene.at("new").place(), &Wanted { mode: asked, ..PUT }, b"new").expect("written");
        assert_eq!(mode("new"), given);
        std::fs::remove_file(scene.disk("new")).expect("removed");
    }
}

#[test]
fn a_further_name_of_the_file_keeps_the_old_content_and_that_is_said() {
    let scene = Scene::new();
    std::fs::write(scene.outside("other"), "old").expect("written");
    std::fs::hard_link(scene.outside("other"), scene.disk("f")).expect("linked");
    let answer = write(&PLAIN, scene.at("f").place(), &PUT, b"new").expect("written");
    let FileAnswer::Written { notes, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(notes, [Note::HardLinkBroken]);
    assert_eq!(std::fs::read(scene.outside("other")).expect("there"), b"old");
}

#[test]
fn content_that_is_not_what_was_declared_is_refused() {
    let scene = Scene::new();
    let (id, len) = (Some(ContentId::of(b"new")), Some(3));
    for (declared, is) in [
        (Declared { id, len }, true),
        (Declared { id: None, len: None }, true),
        (Declared { id, len: Some(4) }, false),
        (Declared { id: Some(ContentId::of(b"old")), len }, false),
    ] {
        let at = scene.at("f");
        let mut draft = Draft::begin(&PLAIN, at.place(), &PUT).expect("begun");
        draft.write(b"new").expect("written");
        let finished = draft.finish(&PLAIN, declared).map(|prepared| (prepared.etag(), prepared.bytes()));
        assert_eq!(
            finished.map_err(|refusal| refusal.code),
            if is { Ok((ContentId::of(b"new"), 3)) } else { Err(Code::InvalidArgument) }
        );
        assert!(scene.names("").is_empty());
    }
}

#[test]
fn of_an_append_what_is_added_is_what_was_declared() {
    let scene = Scene::new();
    let how = Wanted { how: WriteHow::Append, ..PUT };
    for (id, len, is) in [(b"new", 3, true), (b"new", 6, false), (b"old", 3, false)] {
        scene.write("f", "old");
        let at = scene.at("f");
        let mut draft = Draft::begin(&PLAIN, at.place(), &how).expect("begun");
        draft.write(b"new").expect("written");
        let declared = Declared { id: Some(ContentId::of(id)), len: Some(len) };
        let finished = draft.finish(&PLAIN, declared).map(|prepared| prepared.bytes());
        assert_eq!(
            finished.map_err(|refusal| refusal.code),
            if is { Ok(6) } else { Err(Code::InvalidArgument) }
        );
    }
}

/// Each kind of change that somebody else makes between the look and the step.
fn meddle(scene: &Scene, what: &str) {
    let path = scene.disk("f");
    match what {
        "in place" => std::fs::write(&path, "theirs").expect("written"),
        "same size and time" => {
            let time = path.metadata().expect("there").modified().expect("told");
            std::fs::write(&path, "OLD").expect("written");
            let file = std::fs::File::options().write(true).open(&path).expect("opened");
            file.set_modified(time).expect("set");
        }
        "renamed over" => {
            std::fs::write(scene.outside("t"), "theirs").expect("written");
            std::fs::rename(scene.outside("t"), &path).expect("renamed");
        }
        "removed" => std::fs::remove_file(&path).expect("removed"),
        "a link" => {
            std::fs::remove_file(&path).expect("removed");
            symlink("/etc/passwd", &path).expect("linked");
        }
        "a folder" => {
            std::fs::remove_file(&path).expect("removed");
            std::fs::create_dir(&path).expect("made");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn sync_06_a_target_that_changed_since_it_was_looked_at_stays_as_it_is() {
    let changes = ["in place", "same size and time", "renamed over", "removed", "a link", "a folder"];
    for (at, may_exchange) in
        [(Moment::Prepared, true), (Moment::Prepared, false), (Moment::Looked, true), (Moment::Looked, false)]
    {
        for what in changes {
            let scene = Scene::new();
            scene.write("f", "old");
            let mut seam = Meanwhile::new(at, || meddle(&scene, what));
            seam.may_exchange = may_exchange;
            let work = Work { seam: &seam, ..PLAIN };
            let at = scene.at("f");
            let wanted = Wanted { expect: of(b"old"), ..PUT };
            let refusal = write(&work, at.place(), &wanted, b"new").expect_err(what);
            assert_eq!(refusal.code, Code::EtagMismatch, "{what} {may_exchange}");
            let found = std::fs::symlink_metadata(scene.disk("f"));
            match what {
                "in place" | "renamed over" => assert_eq!(scene.read("f"), b"theirs", "{what}"),
                "same size and time" => assert_eq!(scene.read("f"), b"OLD", "{what}"),
                "removed" => assert!(found.is_err(), "{what}"),
                "a link" => assert!(found.expect("there").is_symlink(), "{what}"),
                _ => assert!(found.expect("there").is_dir(), "{what}"),
            }
            let left = scene.names("").into_iter().filter(|name| name != "f").count();
            assert_eq!(left, 0, "{what} {may_exchange}");
        }
    }
}

#[test]
fn sync_06_a_target_that_changes_in_the_moment_of_the_exchange_is_not_lost() {
    for may_exchange in [true, false] {
        // In the exchange: what came out is written to by whoever had it open.
        let scene = Scene::new();
        scene.write("f", "old");
        let open = std::fs::File::options().append(true).open(scene.disk("f")).expect("opened");
        let mut seam = Meanwhile::new(Moment::Renamed, || {
            (&open).write_all(b" and theirs").expect("written");
        });
        seam.may_exchange = may_exchange;
        let work = Work { seam: &seam, ..PLAIN };
        let wanted = Wanted { expect: of(b"old"), ..PUT };
        let refused = code(write(&work, scene.at("f").place(), &wanted, b"new"));
        assert_eq!(refused, Some(Code::EtagMismatch), "{may_exchange}");
        assert_eq!(scene.read("f"), b"old and theirs");
        assert_eq!(scene.names(""), ["f"]);
    }
    // Two others: one wrote to the old file, one put a new one over ours.
    let scene = Scene::new();
    scene.write("f", "old");
    let seam = Meanwhile::new(Moment::Renamed, || {
        std::fs::write(scene.disk(&temp::seen(PLAIN.id)), "second").expect("written");
        std::fs::write(scene.outside("t"), "third").expect("written");
        std::fs::rename(scene.outside("t"), scene.disk("f")).expect("renamed");
    });
    let work = Work { seam: &seam, ..PLAIN };
    let wanted = Wanted { expect: of(b"old"), ..PUT };
    let refusal = write(&work, scene.at("f").place(), &wanted, b"new").expect_err("changed");
    let kept = temp::conflict("f", PLAIN.id);
    assert!(refusal.code == Code::EtagMismatch && refusal.message.contains(&kept), "{refusal}");
    assert_eq!((scene.read("f"), scene.read(&kept)), (b"third".to_vec(), b"second".to_vec()));
    assert_eq!(scene.names("").len(), 2);
    // A new file that comes in between stays.
    for (wanted, wins) in [(Wanted { expect: Expect::Absent, ..PUT }, false), (PUT, true)] {
        let scene = Scene::new();
        let seam = Meanwhile::new(Moment::Prepared, || scene.write("f", "theirs"));
        let work = Work { seam: &seam, ..PLAIN };
        let answer = write(&work, scene.at("f").place(), &wanted, b"new");
        assert_eq!(answer.is_ok(), wins);
        assert_eq!(scene.read("f"), if wins { b"new".to_vec() } else { b"theirs".to_vec() });
        assert_eq!(scene.names(""), ["f"]);
    }
}

#[test]
fn sync_06_of_writers_who_add_to_one_file_at_the_same_time_no_line_is_lost() {
    let scene = Scene::new();
    scene.write("f", "");
    let rounds = rounds(60, 2_000);
    std::thread::scope(|scope| {
        for writer in 0..3_u32 {
            let scene = &scene;
            scope.spawn(move || {
                let mut ids =
                    (0_u128..).map(|n| OpId::new(uuid::Uuid::from_u128(n << 8 | u128::from(writer))));
                for round in 0..rounds {
                    loop {
                        // Each is an operation of its own.
                        let work = Work { id: ids.next().expect("endless"), ..PLAIN };
                        let old = std::fs::read(scene.disk("f")).expect("it is always there");
                        let new = [&old[..], format!("{writer}-{round}\n").as_bytes()].concat();
                        let wanted = Wanted { expect: of(&old), ..PUT };
                        match write(&work, scene.at("f").place(), &wanted, &new) {
                            Ok(_) => break,
                            Err(refusal) => assert_eq!(refusal.code, Code::EtagMismatch, "{refusal}"),
                        }
                    }
                }
            });
        }
    });
    let names = scene.names("");
    assert!(names.iter().all(|name| name == "f" || name.starts_with("f.conflict-")), "{names:?}");
    let all: String = names.iter().map(|name| String::from_utf8(scene.read(name)).expect("text")).collect();
    let lines: std::collections::BTreeSet<&str> = all.lines().collect();
    let missing = (0..3).flat_map(|writer| (0..rounds).map(move |round| format!("{writer}-{round}")));
    let missing: Vec<String> = missing.filter(|line| !lines.contains(&**line)).collect();
    assert!(missing.is_empty(), "{missing:?} in {names:?}");
}

#[test]
fn sync_05_the_nth_fsync_that_fails_is_never_acknowledged() {
    for (path, wanted) in [
        ("f", Wanted { expect: of(b"old"), ..PUT }),
        ("f", PUT),
        ("f", Wanted { how: WriteHow::Append, ..PUT }),
        ("new", PUT),
        ("a/b/new", Wanted { mkdirs: true, ..PUT }),
    ] {
        for nth in 0.. {
            let scene = Scene::new();
            scene.write("f", "old");
            let seam = Failing { nth, synced: RefCell::new(Vec::new()) };
            let work = Work { seam: &seam, ..PLAIN };
            let answer = write(&work, scene.at(path).place(), &wanted, b"new");
            let synced = seam.synced.into_inner();
            let files: Vec<_> = synced.iter().filter(|(what, _)| *what == seam::Synced::Content).collect();
            assert!(files.len() <= 1, "{synced:?}: a file is synced once");
            if synced.len() <= nth {
                assert!(answer.is_ok() && nth >= 2, "{nth}: nothing failed");
                break;
            }
            assert_eq!(synced.len(), nth + 1, "nothing is synced after a failure, {synced:?}");
            let refusal = answer.expect_err("not acknowledged");
            let is_named = synced.last().is_some_and(|(what, _)| *what == Synced::Names) && !files.is_empty();
            let expected = if is_named { Code::UnknownOutcome } else { Code::Internal };
            assert_eq!(refusal.code, expected, "{path} {nth} {refusal}");
            if !is_named {
                assert_eq!(scene.read("f"), b"old", "the target is untouched");
                assert_eq!(scene.names(""), ["f"], "{path} {nth}");
            }
        }
    }
}

#[test]
fn a_file_that_grows_beyond_what_one_write_takes_is_refused() {
    let scene = Scene::new();
    let file = std::fs::File::create(scene.disk("f")).expect("made");
    file.set_len(limits::FILE_BODY_BYTES_MAX).expect("set");
    let wanted = Wanted { how: WriteHow::Append, ..PUT };
    let refusal = write(&PLAIN, scene.at("f").place(), &wanted, b"x").expect_err("too large");
    assert_eq!(refusal.code, Code::TooLarge);
    // A sparse one of 1 TiB is neither read nor hashed by the way.
    file.set_len(1 << 40).expect("set");
    let refusal = write(&PLAIN, scene.at("f").place(), &wanted, b"x").expect_err("too large");
    assert_eq!(refusal.code, Code::TooLarge);
    let absent = Wanted { expect: Expect::Absent, ..PUT };
    let refusal = write(&PLAIN, scene.at("f").place(), &absent, b"x").expect_err("it is there");
    assert_eq!((refusal.code, detail(&refusal, "etag")), (Code::EtagMismatch, None));
    write(&PLAIN, scene.at("f").place(), &PUT, b"x").expect("replaced");
    assert_eq!(scene.read("f"), b"x");
}
