//! A disk that fills up in the middle leaves the old content, and a limit of the policy does as well.

use std::process::Command;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::op::{Content, Edit, Expect, FileOp, WriteHow};
use cortex_core::files::path::FilePath;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

use super::op::{Begun, begin};
use super::support::{PLAIN, Scene, on_small_disk};

/// Set in the process in which files may not be large.
const SMALL_FILES: &str = "CORTEX_TEST_SMALL_FILES";
const MIB: usize = 1 << 20;

fn write(how: WriteHow, mkdirs: bool) -> FileOp {
    let content = Content::Streamed { id: None, len: None };
    let path = FilePath::parse("/w/f").expect("a path");
    FileOp::Write { path, content, how, expect: Expect::Any, mkdirs, mode: None, dry_run: false }
}

fn put(scene: &Scene, path: &str, op: &FileOp, content: &[u8]) -> Result<(), Refusal> {
    let at = scene.at(path);
    let Begun::Upload(mut upload) = begin(&PLAIN, op, at.place(), None)? else { panic!("content follows") };
    content.chunks(100_000).try_for_each(|piece| upload.write(piece))?;
    let Begun::Ready(change) = upload.finish(&PLAIN)? else { panic!("it is prepared") };
    change.commit(&PLAIN).map(drop)
}

fn done(scene: &Scene, op: &FileOp, path: &str, source: Option<&str>) -> Result<(), Refusal> {
    let (at, source) = (scene.at(path), source.map(|source| scene.at(source)));
    let begun = begin(&PLAIN, op, at.place(), source.as_ref().map(|source| source.place()))?;
    let Begun::Ready(change) = begun else { panic!("{begun:?}") };
    change.commit(&PLAIN).map(drop)
}

#[test]
fn a74_a_full_disk_leaves_the_old_content_and_what_makes_room_still_works() {
    on_small_disk("8m", |scene| {
        let old = vec![b'o'; 5 * MIB];
        scene.write("f", &old);
        scene.write("d/half", vec![b'x'; 2 * MIB]);
        let new = vec![b'n'; 6 * MIB];
        for (path, how, mkdirs) in [
            ("f", WriteHow::Put, false),
            ("f", WriteHow::Append, false),
            ("new", WriteHow::Create, false),
            ("a/b/new", WriteHow::Put, true),
        ] {
            let refusal = put(scene, path, &write(how, mkdirs), &new).expect_err("there is no room");
            assert_eq!(refusal.code, Code::NoSpace, "{path} {how:?}");
        }
        let path = FilePath::parse("/w/f").expect("a path");
        let edits = vec![Edit { old: vec![b'o'; 8].into(), new: vec![b'n'; 16].into(), all: true }];
        let edit = FileOp::Edit { path: path.clone(), edits, expect: Expect::Any, dry_run: false };
        let (expect, replace) = (Expect::Any, true);
        let copy =
            |recursive| FileOp::Copy { from: path.clone(), to: path.clone(), recursive, replace, expect };
        for (op, at, source) in
            [(&edit, "f", None), (&copy(false), "g", Some("f")), (&copy(true), "e", Some("d"))]
        {
            assert_eq!(
                done(scene, op, at, source).expect_err("there is no room").code,
                Code::NoSpace,
                "{at}"
            );
        }
        assert_eq!(
            (scene.names(""), scene.names("d")),
            (vec!["d".to_owned(), "f".to_owned()], vec!["half".to_owned()])
        );
        assert!(scene.read("f") == old, "the old content is whole");
        let remove = FileOp::Remove { path, recursive: true, expect, dry_run: false };
        done(scene, &remove, "d", None).expect("removed");
        done(scene, &remove, "f", None).expect("removed");
        put(scene, "f", &write(WriteHow::Create, false), &new).expect("there is room");
    });
}

#[test]
fn a_file_beyond_the_limit_of_the_policy_is_refused_with_the_limits_name() {
    let name = "files::space_tests::a_file_beyond_the_limit_of_the_policy_is_refused_with_the_limits_name";
    if std::env::var_os(SMALL_FILES).is_none() {
        let mut test = Command::new(std::env::current_exe().expect("it has one"));
        test.args([name, "--exact", "--nocapture"]).env(SMALL_FILES, "1");
        let output = test.output().expect("started");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    #[expect(unsafe_code, reason = "how a signal is taken concerns the whole process, which is this test's")]
    // SAFETY: nothing else in this process handles the signal.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.expect("ignored");
    setrlimit(Resource::RLIMIT_FSIZE, MIB as u64, MIB as u64).expect("set");
    let scene = Scene::new();
    scene.write("f", "old");
    let refusal =
        put(&scene, "f", &write(WriteHow::Put, false), &vec![b'n'; 2 * MIB]).expect_err("too large");
    assert_eq!(refusal.code, Code::NoSpace);
    assert!(refusal.details.contains(&("rule", "limits.file_bytes".to_owned())), "{refusal:?}");
    assert_eq!((scene.read("f"), scene.names("")), (b"old".to_vec(), vec!["f".to_owned()]));
}
