//! A workspace that begins with a folder of the caller's machine: power cuts of the hub at every point, files that
//! change on the way, callers who leave. Afterwards there is a whole workspace, or none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{Ended, World, hub};
use crate::{SOON, arm, restart, rounds, wait_for_kill};

/// Every point of an import.
const POINTS: &[&str] = &[
    "imports::pack",
    "imports::whole",
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "imports::made",
];

/// A folder of so many files, in several packs.
fn folder(world: &World, files: usize) -> PathBuf {
    let folder = world.path("مجلد");
    fs::create_dir_all(folder.join("فرعي")).expect("folders");
    for number in 0..files {
        let mut state = number as u64 + 1;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        });
        let content: Vec<u8> = noise.take(700_000).collect();
        fs::write(folder.join("فرعي").join(format!("ملف-{number}")), content).expect("write");
    }
    folder
}

fn create(world: &World, name: &str, folder: &Path) -> Child {
    let mut command = world.command(&["workspace", "create", name, "--from", folder.to_str().expect("text")]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
}

fn workspaces(world: &World) -> serde_json::Value {
    world.cortex(&["workspace", "ls", "--json"]).expect(0).value()
}

/// The next import stops when its first pack has come, until the file that is given back is removed.
fn held(world: &World) -> (PathBuf, PathBuf) {
    let (hold, held) = (world.path("hold-imports-pack"), world.path("held-imports-pack"));
    fs::write(&hold, "").expect("hold it");
    (hold, held)
}

fn is_held(world: &World, held: &Path) {
    world.eventually("the first pack", SOON, |_| held.exists().then_some(()));
}

#[test]
fn a_power_cut_at_any_point_of_an_import_leaves_a_whole_workspace_or_none_and_the_command_ends_well() {
    let mut world = hub().open_node("a").start();
    let folder = folder(&world, 12);
    for round in 0..rounds() {
        for (number, point) in POINTS.iter().enumerate() {
            let name = format!("ws-{round}-{number}");
            let armed = arm(&world, point);
            if point.starts_with("store::") {
                // The first is of its beginning.
                fs::write(&armed, "1").expect("arm the point");
            }
            let command = create(&world, &name, &folder);
            wait_for_kill(point, &armed);
            restart(&mut world, point);
            let ended = Ended::of(command);
            assert_eq!(ended.code, Some(0), "{point}: {}\n{}", ended.stderr, world.logs());
            let copy = world.path(&name);
            let place = format!("a:{}", copy.display());
            world.cortex(&["workspace", "attach", &name, &place, "--wait", "--timeout", "60s"]).expect(0);
            let status = world.cortex(&["workspace", "status", &name, "--json"]).expect(0).value();
            assert_eq!(status["revision"], 1, "{point}: {status}");
            for entry in fs::read_dir(folder.join("فرعي")).expect("a folder").flatten() {
                let there = fs::read(copy.join("فرعي").join(entry.file_name())).expect("it is there");
                assert!(there == fs::read(entry.path()).expect("a file"), "{point}: {:?}", entry.file_name());
            }
        }
    }
    assert_eq!(workspaces(&world).as_array().map(Vec::len), Some(rounds() * POINTS.len()));
}

#[test]
fn a_file_that_changes_on_the_way_is_named_and_a_caller_who_leaves_leaves_no_workspace() {
    let world = hub().start();
    let folder = folder(&world, 12);
    // From here on what is in the files is known, and they are read when they are sent.
    assert_eq!(Ended::of(create(&world, "first", &folder)).code, Some(0));
    let (_, file) = held(&world);
    let command = create(&world, "changed", &folder);
    is_held(&world, &file);
    fs::write(folder.join("فرعي/ملف-7"), "other").expect("write");
    fs::remove_file(&file).expect("go on");
    let ended = Ended::of(command);
    assert_eq!(ended.code, Some(8), "{}", ended.stderr);
    for said in ["changed while it was sent: فرعي/ملف-7", "there is no workspace", "Do it again"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }

    let (_, file) = held(&world);
    let command = create(&world, "left", &folder);
    is_held(&world, &file);
    kill(Pid::from_raw(command.id().cast_signed()), Signal::SIGINT).expect("signal our child");
    std::thread::sleep(std::time::Duration::from_millis(100));
    fs::remove_file(&file).expect("go on");
    let ended = Ended::of(command);
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("The import is cancelled; there is no workspace left."),
        "{}",
        ended.stderr
    );

    let (_, file) = held(&world);
    let mut command = create(&world, "killed", &folder);
    is_held(&world, &file);
    command.kill().expect("it runs");
    fs::remove_file(&file).expect("go on");
    command.wait().expect("it is gone");
    let names: Vec<_> =
        workspaces(&world).as_array().expect("a list").iter().map(|ws| ws["name"].clone()).collect();
    assert_eq!(names, ["first"]);
    // Afterwards the name is free.
    assert_eq!(Ended::of(create(&world, "killed", &folder)).code, Some(0));
}
