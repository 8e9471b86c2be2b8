//! `cortex workspace` against a real hub and real nodes: folders become the same and stay so, what somebody
//! changed is not lost, and what looks like an accident goes no further.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::transfers::{allow, is_same, noise};
use crate::world::{Ended, World, hub};

pub(crate) const WS: &str = "notes";
const SOON: Duration = Duration::from_secs(60);

/// Nodes with a folder each, which the runs of the node and this test may write.
pub(crate) struct Scene {
    pub(crate) world: World,
    folders: BTreeMap<&'static str, PathBuf>,
}

impl Scene {
    pub(crate) fn new(nodes: &[&'static str]) -> Self {
        let world = nodes.iter().fold(hub(), |plan, name| plan.node(name)).start();
        let folders = nodes.iter().map(|name| (*name, folder(&allow(&world, name).join("folder")))).collect();
        Self { world, folders }
    }

    pub(crate) fn folder(&self, node: &str) -> &Path {
        &self.folders[node]
    }

    pub(crate) fn place(&self, node: &str) -> String {
        format!("{node}:{}", self.folder(node).display())
    }

    pub(crate) fn ws(&self, arguments: &[&str]) -> Ended {
        self.world.cortex(&[&["workspace"], arguments].concat())
    }

    pub(crate) fn lead(&self, node: &str, more: &[&str]) {
        self.ws(&[&["create", WS, "--lead", &self.place(node)], more].concat()).expect(0);
    }

    pub(crate) fn attach(&self, node: &str, more: &[&str]) {
        self.ws(&[&["attach", WS, &self.place(node)], more].concat()).expect(0);
    }

    /// All folders are looked at, and what is to follow has followed.
    pub(crate) fn settle(&self) -> Value {
        self.ws(&["resync", WS, "--wait", "--timeout", "50s", "--json"]).expect(0).value()
    }

    pub(crate) fn status(&self) -> Value {
        self.ws(&["status", WS, "--json"]).expect(0).value()
    }

    pub(crate) fn member(&self, node: &str) -> Value {
        let status = self.status();
        let members = status["members"].as_array().expect("members");
        members.iter().find(|member| member["node"] == node).expect("a member").clone()
    }

    /// Waits until a member is in that state.
    pub(crate) fn reaches(&self, node: &str, state: &str) -> Value {
        self.world.eventually(&format!("state {state} of {node}"), SOON, |_| {
            let member = self.member(node);
            (member["state"] == state).then_some(member)
        })
    }

    pub(crate) fn write(&self, node: &str, path: &str, content: &str) {
        write(self.folder(node), path, content);
    }

    pub(crate) fn read(&self, node: &str, path: &str) -> String {
        let path = self.folder(node).join(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Names of a folder that begin so.
    fn names(&self, node: &str, begin: &str) -> Vec<String> {
        let names = fs::read_dir(self.folder(node)).expect("a folder").flatten();
        let mut names: Vec<String> = names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with(begin));
        names.sort();
        names
    }
}

/// A folder that everybody may write: runs have another user when the node is root.
fn folder(path: &Path) -> PathBuf {
    fs::create_dir_all(path).expect("a folder");
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("chmod");
    path.to_owned()
}

pub(crate) fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    let above = path.parent().expect("a folder");
    if !above.exists() {
        folder(above);
    }
    fs::write(path, content).expect("write");
}

fn fill(root: &Path) {
    for n in 0..40_u32 {
        write(root, &format!("مجلد/ملف-{n}.txt"), &format!("ملف {n}\n"));
    }
    fs::write(root.join("long"), noise(3 * 1024 * 1024, 7)).expect("write");
    write(root, "run.sh", "#!/bin/sh\n");
    write(root, "gone", "soon\n");
    symlink("مجلد/ملف-1.txt", root.join("link")).expect("a link");
    folder(&root.join("empty folder"));
}

#[test]
fn the_folder_of_a_lead_is_mirrored_to_two_followers_and_every_kind_of_change_follows() {
    let scene = Scene::new(&["a", "b", "c"]);
    let lead = scene.folder("a");
    fill(lead);
    scene.lead("a", &[]);
    scene.attach("b", &[]);
    scene.attach("c", &["--role", "follower"]);
    let status = scene.ws(&["wait", WS, "--json"]).expect(0).value();
    assert_eq!(status["mode"], "node");
    for member in status["members"].as_array().expect("members") {
        assert_eq!(
            (&member["state"], &member["revision"]),
            (&"in_sync".into(), &status["revision"]),
            "{member}"
        );
    }
    ["b", "c"].iter().for_each(|node| is_same(lead, scene.folder(node)));

    write(lead, "مجلد/ملف-3.txt", "غير\n");
    let mut long = noise(3 * 1024 * 1024, 7);
    long[1_000_000..1_010_000].copy_from_slice(&noise(10_000, 8));
    fs::write(lead.join("long"), long).expect("write");
    fs::remove_file(lead.join("gone")).expect("remove");
    fs::rename(lead.join("مجلد"), lead.join("آخر")).expect("rename");
    fs::set_permissions(lead.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::remove_file(lead.join("link")).expect("remove");
    symlink("آخر/ملف-2.txt", lead.join("link")).expect("a link");
    write(lead, "new/deep/file", "new\n");
    let after = scene.settle();
    assert!(after["revision"].as_u64() > status["revision"].as_u64(), "{after}");
    ["b", "c"].iter().for_each(|node| is_same(lead, scene.folder(node)));
    let history = scene.ws(&["history", WS, "--json"]).expect(0).value();
    assert_eq!((&history[0]["kind"], &history[0]["by"]), (&"sync".into(), &"node:a".into()), "{history}");
    let shown = scene.ws(&["status", WS]).expect(0).text();
    assert!(shown.contains("in_sync") && shown.contains("lead"), "{shown}");
    scene.ws(&["rm", WS, "--yes"]).expect(0);
    assert_eq!(scene.ws(&["ls", "--json"]).expect(0).text(), "[]\n");
    is_same(lead, scene.folder("b"));
}

#[test]
fn a_lead_that_may_only_be_read_is_mirrored_and_nothing_is_left_in_its_folder() {
    let world = hub().node("a").node("b").start();
    let source = folder(&world.path("source"));
    fill(&source);
    let before = fs::read_dir(&source).expect("a folder").count();
    world.cortex(&["policy", "allow", "a", "--root", &source.display().to_string(), "--yes"]).expect(0);
    let follower = folder(&allow(&world, "b").join("folder"));
    let scene = Scene { world, folders: BTreeMap::from([("a", source.clone()), ("b", follower)]) };
    scene.lead("a", &[]);
    scene.attach("b", &["--wait"]);
    write(&source, "more", "more\n");
    scene.settle();
    is_same(&source, scene.folder("b"));
    assert_eq!(fs::read_dir(&source).expect("a folder").count(), before + 1, "nothing of ours is in it");
    // Without a marker it is known by its inode.
    fs::rename(&source, source.with_extension("aside")).expect("move");
    folder(&source);
    scene.ws(&["resync", WS]).expect(0);
    scene.reaches("a", "unavailable");
    assert_eq!(scene.read("b", "more"), "more\n");
}

#[test]
fn drift_is_shown_stays_where_it_is_and_a_repair_keeps_it_beside() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", "notes.txt", "one\ntwo\n");
    scene.write("a", "other", "x\n");
    scene.lead("a", &[]);
    scene.attach("b", &[]);
    scene.settle();
    scene.write("b", "notes.txt", "one\nmine\n");
    scene.write("b", "extra", "only here\n");
    let stuck = scene.ws(&["resync", WS, "--wait", "--json"]).expect(8);
    assert_eq!(stuck.refusal(), "conflict", "{}", stuck.text());
    let member = scene.reaches("b", "drifted");
    assert!(member["drift_since"].is_string(), "{member}");
    let shown = scene.ws(&["status", WS]).expect(0);
    assert!(shown.stderr.contains("--repair"), "{}", shown.stderr);
    let diff = scene.ws(&["diff", WS, "b"]).expect(0).text();
    assert!(diff.contains("-two\n+mine\n") && diff.contains("+only here\n"), "{diff}");
    let stat = scene.ws(&["diff", WS, "--stat"]).expect(0).text();
    assert!(stat.contains("M  b:") && stat.contains("/notes.txt") && stat.contains("A  b:"), "{stat}");
    // What the lead changes elsewhere goes on, and nothing of the drift comes back.
    scene.write("a", "other", "y\n");
    scene.ws(&["resync", WS]).expect(0);
    scene.world.eventually("the rest", SOON, |_| (scene.read("b", "other") == "y\n").then_some(()));
    assert_eq!(
        (scene.read("b", "notes.txt"), scene.read("a", "notes.txt")),
        ("one\nmine\n".into(), "one\ntwo\n".into())
    );
    scene.reaches("b", "drifted");
    let repaired = scene.ws(&["resync", WS, "b", "--repair", "--wait"]).expect(0);
    assert!(repaired.stderr.contains("2 entries that only its members have stay"), "{}", repaired.stderr);
    assert_eq!(
        (scene.read("b", "notes.txt"), scene.read("b", "extra")),
        ("one\ntwo\n".into(), "only here\n".into())
    );
    let beside = scene.names("b", "notes.conflict-");
    assert_eq!(beside.len(), 1, "{beside:?}");
    assert_eq!(scene.read("b", &beside[0]), "one\nmine\n");
}

#[test]
fn of_two_peers_that_edit_at_once_nothing_is_lost() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", "src/one", "1\n");
    scene.write("a", "both", "first\n");
    scene.ws(&["create", WS, "--from", &scene.place("a"), "--wait"]).expect(0);
    scene.write("b", "own", "of b\n");
    scene.attach("b", &["--wait"]);
    scene.settle();
    is_same(scene.folder("a"), scene.folder("b"));
    assert_eq!(scene.read("a", "own"), "of b\n");

    scene.write("a", "src/one", "of a\n");
    scene.write("b", "own", "again\n");
    fs::create_dir(scene.folder("b").join("فارغ")).expect("a folder");
    scene.settle();
    is_same(scene.folder("a"), scene.folder("b"));
    assert_eq!((scene.read("b", "src/one"), scene.read("a", "own")), ("of a\n".into(), "again\n".into()));

    scene.write("a", "both", "a says\n");
    scene.write("b", "both", "b says\n");
    // A removal never beats a change.
    fs::remove_file(scene.folder("a").join("own")).expect("remove");
    scene.write("b", "own", "kept\n");
    scene.ws(&["resync", WS]).expect(0);
    scene.world.eventually("both versions everywhere", SOON, |_| {
        let settled =
            |node: &str| ["in_sync", "conflict"].iter().any(|state| scene.member(node)["state"] == *state);
        let versions = |node: &str| scene.names(node, "both").len() == 2;
        ["a", "b"].iter().all(|node| versions(node) && settled(node)).then_some(())
    });
    is_same(scene.folder("a"), scene.folder("b"));
    let mut versions: Vec<String> =
        scene.names("a", "both").iter().map(|name| scene.read("a", name)).collect();
    versions.sort();
    assert_eq!(versions, ["a says\n", "b says\n"]);
    assert_eq!(scene.read("a", "own"), "kept\n");
    let waits = scene.ws(&["wait", WS, "--json"]);
    assert_eq!((waits.code, waits.refusal()), (Some(8), "conflict".to_owned()), "{}", waits.text());
    scene.settle();
}

#[test]
fn an_earlier_revision_comes_back_everywhere_and_the_history_only_grows() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", "x", "old\n");
    scene.write("a", "dir/y", "y\n");
    scene.ws(&["create", WS, "--from", &scene.place("a")]).expect(0);
    scene.attach("b", &["--role", "follower", "--wait"]);
    let old = scene.settle()["revision"].as_u64().expect("a number");
    scene.write("a", "x", "new\n");
    scene.write("a", "z", "z\n");
    let new = scene.settle()["revision"].as_u64().expect("a number");
    assert!(new > old);
    let restored = scene.ws(&["restore", WS, &old.to_string(), "--wait", "--json"]).expect(0).value();
    assert!(restored["revision"].as_u64() > Some(new), "{restored}");
    for node in ["a", "b"] {
        assert_eq!(scene.read(node, "x"), "old\n");
        assert!(!scene.folder(node).join("z").exists(), "{node}");
    }
    let history = scene.ws(&["history", WS, "--json"]).expect(0).value();
    assert_eq!(history[0]["kind"], "restore");
    assert_eq!(scene.ws(&["restore", WS, "999", "--json"]).expect(3).refusal(), "not_found");
}

#[test]
fn while_somebody_holds_the_lock_a_peers_edit_waits_and_comes_after() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", "x", "1\n");
    scene.ws(&["create", WS, "--from", &scene.place("a")]).expect(0);
    scene.attach("b", &["--wait"]);
    let head = scene.settle()["revision"].clone();
    let epoch = scene.ws(&["lock", WS, "--ttl", "5m"]).expect(0).text().trim().to_owned();
    assert_eq!(scene.ws(&["lock", WS, "--json"]).expect(4).refusal(), "locked");
    scene.ws(&["lock", WS, "--extend", &epoch]).expect(0);
    scene.write("a", "x", "2\n");
    scene.ws(&["resync", WS]).expect(0);
    scene.world.eventually("a was looked at", SOON, |_| {
        let states = ["a", "b"].map(|node| scene.member(node)["state"].clone());
        (states[0] != "syncing" && states[1] == "in_sync").then_some(())
    });
    assert_eq!(scene.status()["revision"], head);
    assert_eq!(scene.read("b", "x"), "1\n");
    assert_eq!(scene.ws(&["set", WS, "--vcs", "yes", "--json"]).expect(4).refusal(), "locked");
    scene.ws(&["set", WS, "--bytes-max", "1G", "--lock", &epoch]).expect(0);
    scene.ws(&["unlock", WS, &epoch]).expect(0);
    assert_eq!(scene.ws(&["lock", WS, "--extend", &epoch, "--json"]).expect(8).refusal(), "stale_epoch");
    scene.settle();
    assert_eq!(scene.read("b", "x"), "2\n");
    scene.ws(&["lock", WS]).expect(0);
    scene.ws(&["unlock", WS, "--break"]).expect(0);
}

#[test]
fn sync_01_03_removals_that_look_like_an_accident_halt_until_a_person_lets_them_pass() {
    let scene = Scene::new(&["a", "b"]);
    for n in 0..60 {
        scene.write("a", &format!("d/f{n}"), &format!("{n}\n"));
    }
    scene.write("a", "x", "x\n");
    scene.write("a", "y", "y\n");
    scene.lead("a", &[]);
    scene.attach("b", &["--wait"]);
    for (what, rule) in [("d", "deletes"), ("", "root_emptied")] {
        if what.is_empty() {
            fs::remove_file(scene.folder("a").join("x")).expect("remove");
            fs::remove_file(scene.folder("a").join("y")).expect("remove");
        } else {
            fs::remove_dir_all(scene.folder("a").join(what)).expect("remove");
        }
        let halted = scene.ws(&["resync", WS, "--wait", "--json"]).expect(8);
        assert_eq!(halted.refusal(), "sync_halted", "{}", halted.text());
        let halt = scene.reaches("a", "halted")["halt"].clone();
        assert_eq!(halt["rule"], rule, "{halt}");
        assert!(scene.folder("b").join("y").exists());
        let shown = scene.ws(&["status", WS]).expect(0);
        let id = halt["id"].as_str().expect("an id");
        assert!(shown.stderr.contains(&format!("--accept {id}")), "{}", shown.stderr);
        assert_eq!(
            scene.ws(&["resync", WS, "--accept", &"0".repeat(64), "--json"]).expect(3).refusal(),
            "not_found"
        );
        scene.ws(&["resync", WS, "--accept", id]).expect(0);
        // What is removed on the follower is a plan of its own, and asks again.
        let other = scene.reaches("b", "halted")["halt"]["id"].as_str().expect("an id").to_owned();
        scene.ws(&["resync", WS, "--accept", &other, "--wait"]).expect(0);
        is_same(scene.folder("a"), scene.folder("b"));
    }
}

#[test]
fn sync_09_what_is_ignored_is_neither_sent_nor_removed_and_ignore_files_are_read_anew() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", ".gitignore", "*.log\nbuild/\n");
    scene.write("a", "kept", "kept\n");
    scene.write("a", "x.log", "log\n");
    scene.write("a", "build/out", "out\n");
    scene.write("a", "secret.key", "key\n");
    scene.write("a", ".git/HEAD", "ref\n");
    scene.write("b", "build/own", "own\n");
    scene.write("b", "y.log", "own\n");
    scene.lead("a", &["--exclude", "*.key"]);
    scene.attach("b", &["--wait"]);
    for name in ["x.log", "build/out", "secret.key", ".git"] {
        assert!(!scene.folder("b").join(name).exists(), "{name}");
    }
    assert_eq!((scene.read("b", "build/own"), scene.read("b", "y.log")), ("own\n".into(), "own\n".into()));
    scene.write("a", ".gitignore", "build/\n");
    scene.write("a", "later", "later\n");
    scene.ws(&["resync", WS]).expect(0);
    scene.world.eventually("what is ignored no more", SOON, |_| {
        scene.folder("b").join("x.log").exists().then_some(())
    });
    assert_eq!((scene.read("b", "build/own"), scene.read("b", "y.log")), ("own\n".into(), "own\n".into()));
    assert!(!scene.folder("b").join("secret.key").exists());
    scene.ws(&["set", WS, "--no-exclude", "--vcs", "yes"]).expect(0);
    scene.world.eventually("other rules", SOON, |_| {
        (scene.folder("b").join("secret.key").exists() && scene.folder("b").join(".git/HEAD").exists())
            .then_some(())
    });
}

#[test]
fn r16_1_a_hub_and_nodes_that_are_killed_in_the_middle_go_on_and_lose_nothing() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    let lead = scene.folder("a").to_owned();
    fill(&lead);
    fs::write(lead.join("long"), noise(16 * 1024 * 1024, 3)).expect("write");
    scene.lead("a", &[]);
    scene.attach("b", &[]);
    scene.attach("c", &[]);
    let addresses = scene.world.kill_hub();
    scene.world.start_hub(&addresses);
    let waits = scene.ws(&["wait", WS]);
    assert_eq!(waits.code, Some(0), "{} {}", waits.stderr, scene.world.logs());
    ["b", "c"].iter().for_each(|node| is_same(&lead, scene.folder(node)));
    for round in 0..3_u64 {
        fs::write(lead.join("long"), noise(8 * 1024 * 1024, 10 + round)).expect("write");
        write(&lead, &format!("round {round}"), "x\n");
        scene.ws(&["resync", WS]).expect(0);
        std::thread::sleep(Duration::from_millis(60 + 130 * round));
        match round {
            0 => {
                scene.world.kill_node("b");
                scene.world.start_node("b");
            }
            1 => {
                scene.world.kill_node("a");
                scene.world.start_node("a");
            }
            _ => {
                let addresses = scene.world.kill_hub();
                scene.world.kill_node("c");
                scene.world.start_hub(&addresses);
                scene.world.start_node("c");
            }
        }
        scene.settle();
        ["b", "c"].iter().for_each(|node| is_same(&lead, scene.folder(node)));
    }
}

#[test]
fn a_folder_that_is_not_there_is_made_also_when_it_was_attached_before_there_was_any_content() {
    let scene = Scene::new(&["a", "b", "c"]);
    fill(scene.folder("a"));
    ["b", "c"].iter().for_each(|node| fs::remove_dir(scene.folder(node)).expect("remove"));
    scene.ws(&["create", WS]).expect(0);
    scene.attach("b", &["--role", "peer", "--wait", "--timeout", "20s"]);
    scene.attach("c", &["--role", "follower", "--wait", "--timeout", "20s"]);
    scene.attach("a", &["--wait", "--timeout", "20s"]);
    scene.settle();
    ["b", "c"].iter().for_each(|node| is_same(scene.folder("a"), scene.folder(node)));
}

#[test]
fn a_node_that_was_away_while_revisions_came_catches_up() {
    let mut scene = Scene::new(&["a", "b", "c"]);
    fill(scene.folder("a"));
    scene.lead("a", &[]);
    scene.attach("b", &[]);
    scene.attach("c", &["--wait"]);
    scene.world.stop_node("b");
    scene.world.node_reaches("b", "offline", SOON);
    for n in 0..3 {
        scene.write("a", "counter", &format!("{n}\n"));
        scene.ws(&["resync", WS, "a"]).expect(0);
        scene.world.eventually("c has it", SOON, |_| {
            (fs::read_to_string(scene.folder("c").join("counter")).ok()? == format!("{n}\n")).then_some(())
        });
    }
    let late = scene.ws(&["wait", WS, "--timeout", "300ms", "--json"]).expect(124);
    assert!(late.text().contains("is offline"), "{}", late.text());
    assert_eq!(scene.member("b")["state"], "offline");
    scene.world.start_node("b");
    scene.ws(&["wait", WS]).expect(0);
    is_same(scene.folder("a"), scene.folder("b"));
}

#[test]
fn sync_02_a_folder_that_is_gone_or_another_one_is_unavailable_and_nothing_is_removed() {
    let scene = Scene::new(&["a", "b"]);
    fill(scene.folder("a"));
    scene.ws(&["create", WS, "--from", &scene.place("a")]).expect(0);
    scene.attach("b", &["--wait"]);
    let (folder_of_b, aside) = (scene.folder("b").to_owned(), scene.folder("b").with_extension("aside"));
    fs::rename(&folder_of_b, &aside).expect("move");
    scene.ws(&["resync", WS]).expect(0);
    scene.reaches("b", "unavailable");
    // Another folder in its place, empty as the one below a mount: nothing is made of it either way.
    folder(&folder_of_b);
    scene.ws(&["resync", WS]).expect(0);
    scene
        .world
        .eventually("b was looked at", SOON, |_| (scene.member("b")["state"] == "unavailable").then_some(()));
    scene.write("a", "new", "new\n");
    scene.ws(&["resync", WS, "a"]).expect(0);
    scene.reaches("a", "in_sync");
    assert!(fs::read_dir(&folder_of_b).expect("a folder").next().is_none(), "nothing is written to it");
    assert_eq!(scene.names("a", "run.sh"), ["run.sh"]);
    let shown = scene.ws(&["status", WS]).expect(0);
    assert!(shown.stderr.contains("cortex workspace detach"), "{}", shown.stderr);
    fs::remove_dir(&folder_of_b).expect("remove");
    fs::rename(&aside, &folder_of_b).expect("move");
    scene.settle();
    is_same(scene.folder("a"), scene.folder("b"));
}

#[test]
fn a_folder_that_is_not_there_is_made_also_when_it_was_agreed_to_be_empty_before_anything_came() {
    let scene = Scene::new(&["a", "b"]);
    fs::remove_dir(scene.folder("b")).expect("remove");
    scene.ws(&["create", WS]).expect(0);
    scene.attach("b", &["--wait"]);
    assert!(!scene.folder("b").exists(), "there is nothing to be made");
    scene.write("a", "x", "of a\n");
    scene.attach("a", &["--wait"]);
    scene.settle();
    assert_eq!(scene.read("b", "x"), "of a\n");
    // From here on it was there.
    fs::rename(scene.folder("b"), scene.folder("b").with_extension("aside")).expect("move");
    scene.ws(&["resync", WS]).expect(0);
    scene.reaches("b", "unavailable");
    assert_eq!(scene.read("a", "x"), "of a\n");
}
