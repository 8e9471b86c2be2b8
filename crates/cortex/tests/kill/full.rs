//! Disks that are full, or spoil what they keep, in the middle of a wave or an import: what was there stays, the problem is
//! told with its code and what to do, and it goes on by itself when it can.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::SOON;
use crate::world::{Ended, World, hub};

const MIB: usize = 1 << 20;
/// Mounts a small file system where only the program and its children see it, and becomes the program.
const ON_A_SMALL_DISK: &str = "mount -t tmpfs -o size=$1,mode=0777 none \"$2\"; shift 2; exec \"$@\"";

/// A view of its own of what is mounted; for anybody but root as a user of its own.
fn own() -> &'static [&'static str] {
    if nix::unistd::geteuid().is_root() { &["--mount"] } else { &["--mount", "--map-root-user"] }
}

/// Whether processes of this user may mount; said when they may not.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(own()).arg("true").stderr(Stdio::null()).status();
    let may = tried.is_ok_and(|ended| ended.success());
    if !may {
        println!("left out: this machine lets an ordinary process mount nothing");
    }
    may
}

/// Has the program see a disk of that size in the place of the folder.
fn on_a_small_disk(command: &mut Command, size: &str, folder: &Path) {
    let mut wrapped = Command::new("unshare");
    wrapped.args(own()).args(["sh", "-euc", ON_A_SMALL_DISK, "sh", size]).arg(folder);
    wrapped.arg(command.get_program()).args(command.get_args()).env_clear();
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    wrapped.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    *command = wrapped;
}

/// The folder as that process sees it.
fn seen_by(pid: u32, folder: &Path) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    root.join(folder.strip_prefix("/").expect("an absolute path"))
}

/// Takes the last byte.
fn fill(folder: &Path) {
    let filler = fs::File::create(folder.join("filler")).expect("a file");
    for size in [64 * 1024, 512, 1] {
        while std::io::Write::write_all(&mut &filler, &vec![0; size]).is_ok() {}
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for word in bytes.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    bytes
}

/// Folders of a workspace: that of the node `a` leads, that of `b` follows.
fn folders(world: &World) -> [PathBuf; 2] {
    ["أ", "ب"].map(|name| {
        let folder = world.path(name);
        fs::create_dir(&folder).expect("a folder");
        folder
    })
}

fn begin(world: &World, [lead, follower]: &[PathBuf; 2]) {
    world.cortex(&["workspace", "create", "notes", "--lead", &format!("a:{}", lead.display())]).expect(0);
    world.cortex(&["workspace", "attach", "notes", &format!("b:{}", follower.display()), "--wait"]).expect(0);
}

fn member(world: &World, node: &str) -> Value {
    let status = world.cortex(&["workspace", "status", "notes", "--json"]).expect(0).value();
    let members = status["members"].as_array().expect("members");
    members.iter().find(|member| member["node"] == node).expect("a member").clone()
}

/// Waits until a step for that member fails with the code, and says what to do.
fn has_problem(world: &World, node: &str, code: &str) {
    let problem = world.eventually(&format!("`{code}` of {node}"), SOON, |world| {
        let problem = member(world, node)["problem"].clone();
        (problem["code"] == code).then_some(problem)
    });
    assert!(problem["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{problem}");
}

fn is_in_sync(world: &World, node: &str) {
    world.eventually(&format!("{node} in sync"), SOON, |world| {
        (member(world, node)["state"] == "in_sync").then_some(())
    });
}

#[test]
fn a74_a_followers_disk_that_fills_in_the_middle_of_a_wave_keeps_what_it_has_and_goes_on_when_there_is_room()
{
    if !may_mount() {
        return;
    }
    let mut world = hub().open_node("a").start();
    // Without a user of its own a node says that it has no walls.
    fs::write(world.path("expected-warnings"), "a layer is missing\n").expect("write");
    let disk = world.path("disk");
    fs::create_dir(&disk).expect("a folder");
    let both = [world.path("أ"), disk.join("ب")];
    fs::create_dir(&both[0]).expect("a folder");
    let grpc = world.hub().grpc.clone();
    world.join_with(&grpc, "b", "permissive", |command| on_a_small_disk(command, "12m", &disk));
    let (disk, inside) = (seen_by(world.node_pid("b"), &disk), seen_by(world.node_pid("b"), &both[1]));
    let old = noise(MIB, 1);
    fs::write(both[0].join("ملف"), &old).expect("write");
    fs::write(both[0].join("small"), "old").expect("write");
    begin(&world, &both);
    assert!(fs::read(inside.join("ملف")).expect("it came") == old && !both[1].join("ملف").exists());

    let new = noise(MIB, 2);
    fs::write(both[0].join("ملف"), &new).expect("write");
    fs::write(both[0].join("large"), noise(6 * MIB, 3)).expect("write");
    let (hold, held) = (world.path("hold-apply-piece"), world.path("held-apply-piece"));
    fs::write(&hold, "").expect("armed");
    world.cortex(&["workspace", "resync", "notes"]).expect(0);
    world.eventually("the first piece", SOON, |_| held.exists().then_some(()));
    fill(&disk);
    fs::remove_file(&held).expect("it goes on");
    has_problem(&world, "b", "no_space");
    assert!(fs::read(inside.join("ملف")).expect("it is there") == old, "the old content");
    assert!(!inside.join("large").exists());
    let staged = fs::read_dir(inside.join(".cortex/staging")).into_iter().flatten().count();
    assert_eq!(staged, 0, "what was staged takes no room");
    // The node goes on with all else.
    world.cortex(&["exec", "b", "--", "true"]).expect(0);
    let run = world.cortex(&["exec", "b", "--detach", "--json", "--", "sleep", "300"]).expect(0).value();
    let run = run["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&run, "running", SOON);
    world.cortex(&["run", "cancel", &run]).expect(0);
    world.run_reaches(&run, "cancelled", SOON);
    // So is a push told.
    let target = format!("b:{}", both[1].with_extension("pushed").display());
    let source = both[0].display().to_string();
    let pushed = world.cortex(&["push", &source, &target, "--json"]);
    assert_ne!(pushed.code, Some(0));
    assert_eq!(pushed.lines().last().expect("a line")["error"]["code"], "no_space", "{}", pushed.text());

    fs::remove_file(disk.join("filler")).expect("room");
    is_in_sync(&world, "b");
    for (name, content) in [("ملف", new), ("large", noise(6 * MIB, 3)), ("small", b"old".to_vec())] {
        assert!(fs::read(inside.join(name)).expect("it came") == content, "{name}");
    }
}

#[test]
fn what_is_pushed_to_a_disk_in_memory_is_no_memory_of_who_writes_it() {
    if !may_mount() {
        return;
    }
    let mut world = hub().start();
    let disk = world.path("disk");
    fs::create_dir(&disk).expect("a folder");
    let grpc = world.hub().grpc.clone();
    world.join_with(&grpc, "a", "dev", |command| on_a_small_disk(command, "300m", &disk));
    let root = format!("{}:rw", disk.display());
    world.cortex(&["policy", "allow", "a", "--root", &root, "--yes"]).expect(0);
    let mut document = world.cortex(&["policy", "get", "a", "--json"]).expect(0).value()["document"].clone();
    document["limits"]["memory_bytes"] = (64 * MIB).into();
    let file = world.path("document");
    fs::write(&file, document.to_string()).expect("a file");
    world.cortex(&["policy", "set", "a", "--file", &file.display().to_string(), "--yes"]).expect(0);
    let source = world.path("ملف");
    let content = noise(96 * MIB, 1);
    fs::write(&source, &content).expect("write");
    // One whose process ends goes on with another, and leaves a warning, which no log here may have.
    let target = format!("a:{}", disk.join("ملف").display());
    world.cortex(&["push", &source.display().to_string(), &target]).expect(0);
    let inside = seen_by(world.node_pid("a"), &disk);
    assert!(fs::read(inside.join("ملف")).expect("it came") == content);
}

#[test]
fn a73_a_chunk_store_that_fills_in_the_middle_of_a_wave_keeps_what_it_has_and_goes_on_when_there_is_room() {
    if !may_mount() {
        return;
    }
    let mut world = hub().open_node("a").open_node("b").start();
    let ports = world.kill_hub();
    let chunks = world.path("hub").join("chunks");
    world.start_hub_with(&ports, |command| on_a_small_disk(command, "24m", &chunks));
    for node in ["a", "b"] {
        world.node_reaches(node, "online", SOON);
    }
    let inside = seen_by(world.hub().pid(), &chunks);
    let both = folders(&world);
    let old = noise(MIB, 1);
    fs::write(both[0].join("ملف"), &old).expect("write");
    begin(&world, &both);
    fill(&inside);

    let new = noise(5 * MIB, 2);
    fs::write(both[0].join("ملف"), &new).expect("write");
    world.cortex(&["workspace", "resync", "notes"]).expect(0);
    has_problem(&world, "a", "no_space");
    // What is kept is whole, and is read.
    assert!(fs::read(both[1].join("ملف")).expect("it is there") == old);
    let mirrored = format!("a:{}", both[0].join("ملف").display());
    assert!(world.cortex(&["fs", "cat", &mirrored, "--mirror"]).expect(0).stdout == old);
    world.cortex(&["exec", "b", "--", "true"]).expect(0);

    fs::remove_file(inside.join("filler")).expect("room");
    is_in_sync(&world, "a");
    world.eventually("the follower", SOON, |_| (fs::read(both[1].join("ملف")).ok()? == new).then_some(()));
    is_in_sync(&world, "b");
}

#[test]
fn a_chunk_store_that_fills_in_the_middle_of_an_import_leaves_nothing_and_the_same_command_ends_well_later() {
    if !may_mount() {
        return;
    }
    let mut world = hub().open_node("a").start();
    let ports = world.kill_hub();
    let chunks = world.path("hub").join("chunks");
    world.start_hub_with(&ports, |command| on_a_small_disk(command, "64m", &chunks));
    world.node_reaches("a", "online", SOON);
    let inside = seen_by(world.hub().pid(), &chunks);
    let [source, copy] = folders(&world);
    let files = 12;
    let content = |n: u64| noise(MIB, n + 1);
    (0..files).for_each(|n| fs::write(source.join(format!("ملف-{n}")), content(n)).expect("write"));
    let from = source.display().to_string();
    let create = ["workspace", "create", "notes", "--from", &from, "--json"];
    let (hold, held) = (world.path("hold-blobs-tmp"), world.path("held-blobs-tmp"));
    fs::write(&hold, "").expect("armed");
    let command = world.command(&create).spawn().expect("started");
    world.eventually("the first content on its disk", SOON, |_| held.exists().then_some(()));
    fill(&inside);
    fs::remove_file(&held).expect("it goes on");
    let ended = Ended::of(command);
    assert_eq!((ended.code, ended.refusal().as_str()), (Some(1), "no_space"), "{}", ended.stderr);
    let hint = ended.value()["error"]["hint"].as_str().unwrap_or_default().to_owned();
    assert!(hint.contains("Free space on the hub's disk"), "{hint}");
    let workspaces = world.cortex(&["workspace", "ls", "--json"]).expect(0).value();
    assert_eq!(workspaces, serde_json::json!([]));
    // While it is full it is refused again, and the hub does all else.
    assert_eq!(world.cortex(&create).refusal(), "no_space");
    world.cortex(&["exec", "a", "--", "true"]).expect(0);

    fs::remove_file(inside.join("filler")).expect("room");
    let made = world.cortex(&create).expect(0).value();
    assert_eq!((&made["name"], &made["revision"]), (&"notes".into(), &1.into()), "{made}");
    let place = format!("a:{}", copy.display());
    world.cortex(&["workspace", "attach", "notes", &place, "--wait", "--timeout", "50s"]).expect(0);
    for n in 0..files {
        assert!(fs::read(copy.join(format!("ملف-{n}"))).expect("it came") == content(n), "{n}");
    }
}

#[test]
fn a59_bits_that_flip_on_the_hubs_disk_reach_no_folder_and_the_copy_is_made_whole_from_its_source() {
    let mut world = hub().open_node("a").open_node("b").open_node("c").start();
    let warnings = "the chunk store failed\na pack of content is damaged\na damaged pack of content was set aside\na tree that is kept is not whole\n\
                    the disk changed packs of the chunk store\n";
    fs::write(world.path("expected-warnings"), warnings).expect("write");
    let both = folders(&world);
    fs::create_dir(both[0].join("مجلد")).expect("a folder");
    fs::write(both[0].join("long"), noise(3 * MIB, 1)).expect("write");
    (0..20).for_each(|n| fs::write(both[0].join(format!("مجلد/{n}")), noise(5_000, 10 + n)).expect("write"));
    begin(&world, &both);
    let ports = world.kill_hub();
    let mut next = vec![world.path("hub").join("chunks")];
    let mut flipped = 0;
    while let Some(folder) = next.pop() {
        for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
            let is_pack = path.extension().is_none_or(|kind| !kind.to_string_lossy().starts_with("db"));
            if path.is_dir() {
                next.push(path);
            } else if is_pack && path.metadata().expect("there").len() > 100 {
                let mut bytes = fs::read(&path).expect("a pack");
                let at = bytes.len() * 2 / 3;
                bytes[at] ^= 4;
                fs::write(&path, bytes).expect("a disk");
                flipped += 1;
            }
        }
    }
    assert!(flipped > 0, "the hub keeps packs");
    world.start_hub(&ports);
    for node in ["a", "b", "c"] {
        world.node_reaches(node, "online", SOON);
    }
    let third = world.path("ج");
    fs::create_dir(&third).expect("a folder");
    world.cortex(&["workspace", "attach", "notes", &format!("c:{}", third.display())]).expect(0);
    let name = |path: &Path, top: &Path| path.strip_prefix(top).expect("below").to_owned();
    world.eventually("c in sync", SOON, |world| {
        // Nothing that comes is anything but what the source has.
        for folder in [third.clone(), third.join("مجلد")] {
            for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_file() {
                    let source = fs::read(both[0].join(name(&path, &third))).expect("it is the source's");
                    assert!(fs::read(&path).expect("it is there") == source, "{}", path.display());
                }
            }
        }
        (member(world, "c")["state"] == "in_sync").then_some(())
    });
    for n in 0..20 {
        let name = format!("مجلد/{n}");
        assert!(fs::read(third.join(&name)).expect("it came") == noise(5_000, 10 + n), "{name}");
    }
    assert!(fs::read(third.join("long")).expect("it came") == noise(3 * MIB, 1));
    assert!(fs::read(both[1].join("long")).expect("it stays") == noise(3 * MIB, 1));
    let mirrored = format!("a:{}", both[0].join("long").display());
    assert!(world.cortex(&["fs", "cat", &mirrored, "--mirror"]).expect(0).stdout == noise(3 * MIB, 1));
}
