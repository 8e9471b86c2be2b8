//! `cortex push` and `cortex pull` against a real hub and real nodes: what arrives is the same tree, what is
//! there is not sent again, what was changed there is not lost, and what breaks is taken up again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cortex_core::limits::TRANSFERS_OPEN_PER_TOKEN_MAX;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cable::Cable;
use crate::world::{Ended, Process, World, hub, signal};

const MIB: usize = 1024 * 1024;
const FILES: usize = 400;

/// Bytes that are the same nowhere twice.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next).take(len / 8 + 1).flatten().collect();
    bytes.truncate(len);
    bytes
}

/// What a path is: permissions that are kept, and content.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Dir,
    File(bool, Vec<u8>),
    Link(PathBuf),
}

fn tree(folder: &Path) -> BTreeMap<PathBuf, Entry> {
    let (mut found, mut next) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(above) = next.pop() {
        for entry in fs::read_dir(&above).expect("read a folder") {
            let path = entry.expect("an entry").path();
            let below = path.strip_prefix(folder).expect("below it").to_owned();
            if below == Path::new(".cortex") {
                continue;
            }
            let about = path.symlink_metadata().expect("about it");
            let what = if about.is_dir() {
                next.push(path);
                Entry::Dir
            } else if about.is_symlink() {
                Entry::Link(fs::read_link(&path).expect("a link"))
            } else {
                Entry::File(about.permissions().mode() & 0o100 != 0, fs::read(&path).expect("read a file"))
            };
            found.insert(below, what);
        }
    }
    found
}

pub(crate) fn is_same(one: &Path, two: &Path) {
    let (one, two) = (tree(one), tree(two));
    let differ: Vec<&PathBuf> =
        one.keys().chain(two.keys()).filter(|path| one.get(*path) != two.get(*path)).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

/// A folder with something of everything.
pub(crate) fn source(world: &World) -> PathBuf {
    let folder = world.path("source");
    fs::create_dir_all(folder.join("مجلد/فرعي")).expect("folders");
    fs::create_dir_all(folder.join("empty folder")).expect("folders");
    fs::create_dir_all(folder.join(".git")).expect("folders");
    fs::write(folder.join(".git/HEAD"), "ref: refs/heads/main\n").expect("write");
    for n in 0..FILES {
        let name = format!("مجلد/ملف-{n}.txt");
        fs::write(folder.join(name), noise(3_000 + n, n as u64 + 1)).expect("write");
    }
    fs::write(folder.join("long"), noise(9 * MIB, 99)).expect("write");
    fs::write(folder.join("empty"), "").expect("write");
    fs::write(folder.join("run.sh"), "#!/bin/sh\n").expect("write");
    fs::set_permissions(folder.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
    symlink("مجلد/ملف-1.txt", folder.join("link")).expect("a link");
    symlink("/etc/hostname", folder.join("out")).expect("a link");
    folder
}

/// Nodes whose policy gives each a folder of its own, which is given back.
fn world(nodes: &[&str]) -> (World, Vec<PathBuf>) {
    let plan = nodes.iter().fold(hub(), |plan, name| plan.node(name));
    let world = plan.start();
    let works = nodes.iter().map(|name| allow(&world, name)).collect();
    (world, works)
}

pub(crate) fn allow(world: &World, node: &str) -> PathBuf {
    // All nodes are on this machine, so each gets a folder of its own, and DEST is the same for all only
    // where a test says so.
    let work = world.path(&format!("work-{node}"));
    give(world, node, &work);
    work
}

/// Lets a node's runs write in a folder.
pub(crate) fn give(world: &World, node: &str, folder: &Path) {
    fs::create_dir_all(folder).expect("its folder");
    // Runs have another user when the node is root.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("chmod");
    let root = format!("{}:rw", folder.display());
    world.cortex(&["policy", "allow", node, "--root", &root, "--yes"]).expect(0);
}

impl World {
    fn push(&self, source: &Path, target: &str, more: &[&str]) -> Ended {
        self.cortex(&[&["push", source.to_str().expect("text"), target], more].concat())
    }

    /// The last line of one node.
    fn pushed(&self, source: &Path, target: &str, more: &[&str]) -> Value {
        self.push(source, target, &[more, &["--json"]].concat()).expect(0).lines().pop().expect("a line")
    }
}

fn at(node: &str, path: &Path) -> String {
    format!("{node}:{}", path.display())
}

#[test]
fn a_folder_arrives_at_two_nodes_and_only_what_changed_is_sent_again() {
    let (world, works) = world(&["a", "b"]);
    let source = source(&world);
    let dests = [works[0].join("copy"), works[1].join("copy")];
    for (node, dest) in ["a", "b"].iter().zip(&dests) {
        let line = world.pushed(&source, &at(node, dest), &[]);
        assert_eq!((&line["type"], &line["node"]), (&json!("done"), &json!(node)));
        assert_eq!(line.as_object().expect("members").len(), 6, "{line}");
        assert!(
            line["files"].as_u64() > Some(FILES as u64) && line["bytes"].as_u64() > Some(9 * MIB as u64),
            "{line}"
        );
        is_same(&source, dest);
    }
    let again = world.pushed(&source, &at("a", &dests[0]), &[]);
    assert_eq!(
        (&again["files"], &again["bytes"], &again["wire_bytes"]),
        (&json!(0), &json!(0), &json!(0)),
        "{again}"
    );
    // A hundredth of a long file, and one of the short ones.
    let mut long = noise(9 * MIB, 99);
    long[4 * MIB..4 * MIB + MIB / 16].copy_from_slice(&noise(MIB / 16, 7));
    fs::write(source.join("long"), &long).expect("change");
    fs::write(source.join("مجلد/ملف-3.txt"), "other").expect("change");
    let changed = world.pushed(&source, &at("a", &dests[0]), &[]);
    assert_eq!(changed["files"], 2, "{changed}");
    assert!(changed["wire_bytes"].as_u64() < Some(MIB as u64), "{changed}");
    is_same(&source, &dests[0]);
}

#[test]
fn several_nodes_get_it_in_one_push_and_one_that_is_away_does_not_hold_up_the_other() {
    let (mut world, _) = world(&["a", "b"]);
    let source = source(&world);
    let shared = world.path("shared");
    ["a", "b"].iter().for_each(|node| give(&world, node, &shared));
    let dest = shared.join("copy");
    // Both nodes are this machine; whichever comes second finds it as it should be, or waits its turn.
    world.stop_node("b");
    world.node_reaches("b", "offline", Duration::from_secs(60));
    let ended = world.push(&source, &format!("a,b:{}", dest.display()), &["--json"]).expect(1);
    let lines = ended.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let of = |node: &str| lines.iter().find(|line| line["node"] == node).expect("its line").clone();
    assert_eq!(of("b")["error"]["code"], "node_offline");
    assert_eq!(of("a")["error"], Value::Null);
    is_same(&source, &dest);
}

#[test]
fn sync_15_whoever_reads_a_broadcast_hears_of_each_node_as_soon_as_it_has_all() {
    let (world, _) = world(&["a", "b"]);
    let source = world.path("source");
    fs::create_dir_all(&source).expect("a folder");
    fs::write(source.join("ملف"), noise(2 * MIB, 5)).expect("write");
    let shared = world.path("shared");
    ["a", "b"].iter().for_each(|node| give(&world, node, &shared));
    let target = format!("a,b:{}", shared.join("copy").display());
    signal([world.node_pid("b")], Signal::SIGSTOP);
    let mut push = world.command(&["push", source.to_str().expect("text"), &target, "--json"]);
    let push = Process::start(&mut push, &world.path("push.err"));
    let first = push.first_line();
    signal([world.node_pid("b")], Signal::SIGCONT);
    assert_eq!((&first["node"], &first["error"]), (&json!("a"), &Value::Null), "{first}");
    let second = push.first_line();
    assert_eq!((&second["node"], &second["error"]), (&json!("b"), &Value::Null), "{second}");
    is_same(&source, &shared.join("copy"));
}

#[test]
fn a_push_waits_for_its_turn_when_its_token_has_as_many_open_as_it_may() {
    let (world, works) = world(&["a", "b"]);
    let source = world.path("source");
    fs::create_dir_all(&source).expect("a folder");
    fs::write(source.join("ملف"), noise(1_000, 5)).expect("write");
    let source_text = source.to_str().expect("text");
    // Nobody takes what is for a node that stands still.
    signal([world.node_pid("b")], Signal::SIGSTOP);
    let push = |number: usize| {
        let target = at("b", &works[1].join(number.to_string()));
        Process::start(&mut world.command(&["push", source_text, &target, "--json"]), &world.path("push.err"))
    };
    let open: Vec<Process> = (0..TRANSFERS_OPEN_PER_TOKEN_MAX).map(push).collect();
    world.eventually("all are open", Duration::from_secs(30), |world| {
        let transfers = world.cortex(&["transfer", "ls", "--json"]).expect(0).value();
        (transfers.as_array().map(Vec::len) == Some(TRANSFERS_OPEN_PER_TOKEN_MAX)).then_some(())
    });
    let log = world.path("one-more.err");
    let dest = works[0].join("copy");
    let mut more = world.command(&["push", source_text, &at("a", &dest), "--json"]);
    let more = Process::start(&mut more, &log);
    world.eventually("it waits", Duration::from_secs(30), |_| {
        fs::read_to_string(&log).expect("its log").contains("Waiting for one of them to end").then_some(())
    });
    signal([world.node_pid("b")], Signal::SIGCONT);
    for (push, node) in open.iter().map(|push| (push, "b")).chain([(&more, "a")]) {
        let line = push.first_line();
        assert_eq!((&line["node"], &line["files"], &line["error"]), (&json!(node), &json!(1), &Value::Null));
    }
    is_same(&source, &dest);
}

#[test]
fn what_was_changed_there_stays_until_it_is_forced_and_only_delete_removes() {
    let (world, works) = world(&["a"]);
    let (source, dest) = (source(&world), works[0].join("copy"));
    let target = at("a", &dest);
    world.push(&source, &target, &[]).expect(0);
    fs::write(dest.join("run.sh"), "there").expect("change there");
    fs::write(dest.join("own"), "there").expect("make there");
    let kept = world.push(&source, &target, &[]).expect(0);
    assert!(kept.stderr.contains("kept") && kept.stderr.contains("run.sh"), "{}", kept.stderr);
    assert_eq!(fs::read(dest.join("run.sh")).expect("read"), b"there");
    fs::write(source.join("run.sh"), "here").expect("change here");
    let conflict = world.push(&source, &target, &[]).expect(8);
    assert!(
        conflict.stderr.contains("conflict") && conflict.stderr.contains("--force"),
        "{}",
        conflict.stderr
    );
    assert_eq!(fs::read(dest.join("run.sh")).expect("read"), b"there");
    world.push(&source, &target, &["--force"]).expect(0);
    assert_eq!(fs::read(dest.join("run.sh")).expect("read"), b"here");
    // What was pushed and is gone here goes with --delete, and what was never pushed only with both.
    fs::remove_file(source.join("empty")).expect("remove here");
    let before = tree(&dest);
    let dry = world.push(&source, &target, &["--delete", "--dry-run"]).expect(0);
    assert!(dry.text().contains("remove    empty"), "{}", dry.text());
    assert!(tree(&dest) == before, "a dry run changes nothing");
    world.push(&source, &target, &["--delete"]).expect(0);
    assert!(!dest.join("empty").exists() && dest.join("own").exists());
    world.push(&source, &target, &["--delete", "--force"]).expect(0);
    assert!(!dest.join("own").exists());
    is_same(&source, &dest);
}

#[test]
fn removals_that_look_like_a_mistake_are_halted_and_the_command_that_is_shown_lets_them_pass() {
    let (world, works) = world(&["a"]);
    let (source, dest) = (source(&world), works[0].join("copy"));
    let target = at("a", &dest);
    world.push(&source, &target, &[]).expect(0);
    fs::remove_dir_all(source.join("مجلد")).expect("remove");
    let halted = world.push(&source, &target, &["--delete"]).expect(8);
    assert!(halted.stderr.contains("rule deletes"), "{}", halted.stderr);
    assert!(dest.join("مجلد/ملف-1.txt").exists());
    let way =
        halted.stderr.lines().find_map(|line| line.split_once("let it pass:").map(|(_, way)| way.trim()));
    let id = way.and_then(|way| way.rsplit_once("--accept ")).expect("the way on").1;
    world.push(&source, &target, &["--delete", "--accept", id]).expect(0);
    is_same(&source, &dest);
}

#[test]
fn a_file_goes_into_a_folder_or_gets_a_name_and_nothing_else_is_touched() {
    let (world, works) = world(&["a"]);
    let file = world.path("ملف.conf");
    fs::write(&file, "port = 80\n").expect("write");
    let folder = works[0].join("etc");
    give(&world, "a", &folder);
    fs::write(folder.join("other"), "other").expect("write");
    world.push(&file, &format!("a:{}/", folder.display()), &[]).expect(0);
    world.push(&file, &at("a", &folder.join("app.conf")), &["--delete", "--force"]).expect(0);
    let names: Vec<PathBuf> = tree(&folder).into_keys().collect();
    assert_eq!(names, ["app.conf", "other", "ملف.conf"].map(PathBuf::from));
    assert_eq!(fs::read(folder.join("app.conf")).expect("read"), b"port = 80\n");
}

#[test]
fn a_name_that_no_tree_takes_is_told_on_either_side_and_all_else_arrives() {
    let (world, works) = world(&["a"]);
    let (source, dest) = (source(&world), works[0].join("copy"));
    world.push(&source, &at("a", &dest), &[]).expect(0);
    let odd = OsStr::from_bytes(b"not\xffUTF-8");
    for name in [OsStr::new("two\nlines"), odd] {
        fs::write(source.join(name), "odd").expect("write");
    }
    fs::write(source.join("new"), "new").expect("write");
    let pushed = world.push(&source, &at("a", &dest), &[]).expect(1);
    assert!(pushed.stderr.contains("2 entries have names that no tree takes"), "{}", pushed.stderr);
    assert_eq!(fs::read(dest.join("new")).expect("read"), b"new");
    // Nor is such a name in the way there, or removed.
    for name in [OsStr::new("two\nlines"), odd] {
        fs::rename(source.join(name), dest.join(name)).expect("move");
    }
    world.push(&source, &at("a", &dest), &["--delete", "--force"]).expect(0);
    assert!(dest.join(odd).exists() && dest.join("two\nlines").exists());
    let back = world.path("back");
    let pulled = world.cortex(&["pull", &at("a", &dest), back.to_str().expect("text")]).expect(1);
    assert!(pulled.stderr.contains("left out: 2 entries have names that no tree takes"), "{}", pulled.stderr);
    assert_eq!(fs::read(back.join("new")).expect("read"), b"new");
}

#[test]
fn sync_11_what_cannot_be_sent_is_not_taken_for_gone_by_a_push_or_a_pull_that_deletes() {
    let (world, works) = world(&["a"]);
    let (source, dest, back) = (source(&world), works[0].join("copy"), world.path("back"));
    let (there, here) = (at("a", &dest), back.to_str().expect("text").to_owned());
    world.push(&source, &there, &[]).expect(0);
    world.cortex(&["pull", &there, &here]).expect(0);
    for folder in [&source, &dest] {
        fs::remove_file(folder.join("run.sh")).expect("remove");
        let made = std::process::Command::new("mkfifo").arg(folder.join("run.sh")).status();
        assert!(made.expect("mkfifo starts").success());
    }
    let pull = world.cortex(&["pull", &there, &here, "--delete"]).expect(1);
    assert!(pull.stderr.contains("1 entry of the source cannot be read or sent"), "{}", pull.stderr);
    assert!(back.join("run.sh").exists());
    let push = world.push(&source, &there, &["--delete"]).expect(1);
    assert!(push.stderr.contains("1 entry of the source cannot be read or sent"), "{}", push.stderr);
    world.cortex(&["pull", &there, &here, "--delete", "--exclude", "/run.sh"]).expect(0);
    assert!(back.join("run.sh").exists(), "what is left out is left alone");
}

#[test]
fn sync_12_what_was_pushed_is_not_read_again_and_an_edit_of_equal_size_and_time_is_seen() {
    let (world, works) = world(&["a"]);
    let (source, dest) = (source(&world), works[0].join("copy"));
    world.push(&source, &at("a", &dest), &[]).expect(0);
    let known = world.path(".cache/cortex/scans");
    let file = fs::read_dir(&known).expect("what is known").next().expect("one file").expect("read").path();
    let mode = fs::metadata(&file).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "nobody else reads names");
    let script = source.join("run.sh");
    let (old, time) = (fs::read(&script).expect("read"), fs::metadata(&script).expect("there").modified());
    let new = vec![b'#'; old.len()];
    fs::write(&script, &new).expect("write");
    fs::File::options()
        .write(true)
        .open(&script)
        .expect("open")
        .set_modified(time.expect("a time"))
        .expect("set");
    world.push(&source, &at("a", &dest), &[]).expect(0);
    assert_eq!(fs::read(dest.join("run.sh")).expect("read"), new);
    // What is known may be anything.
    fs::write(&file, "no cache").expect("write");
    fs::write(&script, &old).expect("write");
    world.push(&source, &at("a", &dest), &[]).expect(0);
    assert_eq!(fs::read(dest.join("run.sh")).expect("read"), old);
}

#[test]
fn of_two_pushes_to_one_folder_at_once_each_is_whole_or_refused() {
    let (world, works) = world(&["a"]);
    let dest = works[0].join("copy");
    let sources = ["one", "two"].map(|name| {
        let folder = world.path(name);
        fs::create_dir_all(&folder).expect("a folder");
        (0..200).for_each(|number| {
            fs::write(folder.join(format!("f{number}")), format!("{name} {number}")).expect("write");
        });
        folder
    });
    let pushing = sources.each_ref().map(|source| {
        let mut command = world.command(&["push"]);
        command.arg(source).arg(at("a", &dest)).args(["--force", "--json"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().expect("start")
    });
    let ended = pushing.map(Ended::of);
    for ended in &ended {
        let refused = ended.code == Some(8) && ended.lines()[0]["error"]["code"] == "conflict";
        assert!(ended.code == Some(0) || refused, "{:?} {} {}", ended.code, ended.text(), ended.stderr);
    }
    let of = |name: &str| {
        (0..200).all(|number| {
            fs::read(dest.join(format!("f{number}")))
                .is_ok_and(|text| text == format!("{name} {number}").as_bytes())
        })
    };
    assert!(of("one") || of("two"), "files of both are mixed");
}

#[test]
fn what_is_pulled_back_is_what_was_pushed() {
    let (world, works) = world(&["a"]);
    let (source, dest) = (source(&world), works[0].join("copy"));
    world.push(&source, &at("a", &dest), &[]).expect(0);
    let (back, there) = (world.path("back"), at("a", &dest));
    let pull =
        |more: &[&str]| world.cortex(&[&["pull", &there, back.to_str().expect("text")], more].concat());
    let dry = pull(&["--dry-run"]).expect(0);
    assert!(dry.text().contains("would be written") && !back.exists(), "{}", dry.text());
    let line = pull(&["--json"]).expect(0).lines().pop().expect("a line");
    assert!(line["wire_bytes"].as_u64() > Some(9 * MIB as u64), "{line}");
    is_same(&source, &back);
    let again = pull(&["--json"]).expect(0).lines().pop().expect("a line");
    assert_eq!((&again["files"], &again["bytes"]), (&json!(0), &json!(0)), "{again}");
    let file = world.path("one");
    let source_file = format!("{there}/مجلد/ملف-5.txt");
    world.cortex(&["pull", &source_file, file.to_str().expect("text")]).expect(0);
    assert_eq!(fs::read(&file).expect("read"), fs::read(source.join("مجلد/ملف-5.txt")).expect("read"));
    world.cortex(&["pull", &format!("{there}/nothing"), file.to_str().expect("text")]).expect(3);
}

#[test]
fn a_push_goes_on_over_a_cut_cable_and_a_hub_that_is_killed() {
    let mut world = hub().start();
    let cable = Cable::to(&world.hub().grpc);
    world.join_at(&cable.address(), "a", "dev");
    let dest = allow(&world, "a").join("copy");
    let source = source(&world);
    fs::write(source.join("long"), noise(24 * MIB, 5)).expect("write");
    let pushing = |limit: &str| {
        let mut command = world.command(&["push"]);
        command.arg(&source).arg(at("a", &dest)).args(["--limit", limit, "--json"]);
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        command.spawn().expect("start")
    };
    let child = pushing("6M");
    let staged =
        |world: &World| dest.join(".cortex").exists().then_some(()).or_else(|| world.moved().then_some(()));
    world.eventually("bytes move", Duration::from_secs(60), staged);
    cable.cut();
    std::thread::sleep(Duration::from_secs(1));
    cable.mend();
    Ended::of(child).expect(0);
    is_same(&source, &dest);
    fs::write(source.join("long"), noise(24 * MIB, 6)).expect("change");
    let child = pushing("6M");
    world.eventually("bytes move", Duration::from_secs(60), |world| world.moved().then_some(()));
    let addresses = world.kill_hub();
    world.start_hub(&addresses);
    let ended = Ended::of(child).expect(0);
    assert!(ended.stderr.contains("begun anew"), "{}", ended.stderr);
    is_same(&source, &dest);
}

impl World {
    /// Whether some of an open transfer has moved.
    fn moved(&self) -> bool {
        let transfers = self.cortex(&["transfer", "ls", "--json"]).expect(0).value();
        transfers.as_array().expect("a list").iter().any(|transfer| {
            transfer["state"] == "open" && transfer["nodes"][0]["bytes_moved"].as_u64() > Some(0)
        })
    }
}
