//! A clerk, or the node with it, is killed at every point at which it changes a folder: nothing has a name
//! that is not whole, nobody's change is lost, and the next try ends as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::points::APPLY;
use crate::world::{Ended, World, hub};
use crate::{SOON, rounds, wait_for_kill};

const MIB: usize = 1 << 20;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Clerk,
    Node,
}

/// What a path is: content with the permission that travels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Dir,
    File(bool, Vec<u8>),
    Link(PathBuf),
}

type Tree = BTreeMap<PathBuf, Entry>;

/// What is there at one moment; what goes meanwhile is left out.
fn tree(folder: &Path) -> Tree {
    let (mut found, mut next) = (Tree::new(), vec![folder.to_owned()]);
    while let Some(above) = next.pop() {
        for entry in fs::read_dir(&above).into_iter().flatten().flatten() {
            let path = entry.path();
            let below = path.strip_prefix(folder).expect("below it").to_owned();
            let Ok(about) = path.symlink_metadata() else { continue };
            let what = if below == Path::new(".cortex") {
                continue;
            } else if about.is_dir() {
                next.push(path);
                Some(Entry::Dir)
            } else if about.is_symlink() {
                fs::read_link(&path).ok().map(Entry::Link)
            } else {
                fs::read(&path).ok().map(|bytes| Entry::File(about.permissions().mode() & 0o100 != 0, bytes))
            };
            found.extend(what.map(|what| (below, what)));
        }
    }
    found
}

fn differ(one: &Tree, two: &Tree) -> Vec<PathBuf> {
    let paths: BTreeSet<&PathBuf> = one.keys().chain(two.keys()).collect();
    paths.into_iter().filter(|path| one.get(*path) != two.get(*path)).cloned().collect()
}

/// Bytes that are the same nowhere twice.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).take(len / 8).flatten().collect()
}

/// Contents that names may have while a tree comes.
#[derive(Default)]
struct Allowed(Mutex<BTreeMap<PathBuf, BTreeSet<Entry>>>);

impl Allowed {
    fn add(&self, tree: &Tree) {
        let mut allowed = self.0.lock().expect("nobody panicked with it");
        for (path, entry) in tree {
            allowed.entry(path.clone()).or_default().insert(entry.clone());
        }
    }

    /// Safety rule 4.
    fn check(&self, tree: &Tree, when: &str) {
        let allowed = self.0.lock().expect("nobody panicked with it");
        for (path, entry) in tree {
            let is_allowed = allowed.get(path).is_some_and(|entries| entries.contains(entry));
            let what = match entry {
                Entry::File(exec, bytes) => format!("{} bytes, executable: {exec}", bytes.len()),
                Entry::Dir => "a folder".to_owned(),
                Entry::Link(target) => format!("a link to {}", target.display()),
            };
            assert!(
                is_allowed,
                "{when}: `{}` is neither what it was nor what it is to be: {what}",
                path.display()
            );
        }
    }
}

/// A source that changes, and a folder that follows.
struct Scene {
    world: World,
    /// The node of `dest`.
    node: &'static str,
    source: PathBuf,
    dest: PathBuf,
    round: u64,
}

impl Scene {
    fn new(nodes: &[&'static str]) -> Self {
        let world = nodes.iter().fold(hub(), |plan, name| plan.open_node(name)).start();
        let (source, dest) = (world.path("source"), world.path("مجلد"));
        [&source, &dest].into_iter().for_each(|folder| fs::create_dir(folder).expect("a folder"));
        fs::write(world.path("expected-warnings"), "a clerk ended while it worked on a transfer\n")
            .expect("write");
        let mut scene = Self { world, node: nodes[nodes.len() - 1], source, dest, round: 0 };
        scene.put("own", b"first");
        scene.put("kept/stays", b"stays");
        scene.change();
        scene
    }

    fn put(&self, name: &str, content: &[u8]) {
        let path = self.source.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
        fs::write(path, content).expect("write");
    }

    fn remove(&self, name: &str) {
        let path = self.source.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        // What was not there in the first round.
        let _absent = removed;
    }

    /// A change of every kind, so that each point is come to.
    fn change(&mut self) {
        self.round += 1;
        let round = self.round;
        let mut long = noise(3 * MIB, 7);
        let at = usize::try_from(round).expect("small") * 70_000 % (2 * MIB);
        long[at..at + MIB / 4].copy_from_slice(&noise(MIB / 4, round));
        self.put("long", &long);
        self.put("both", &noise(40_000, round));
        self.put("ملف.txt", format!("{round}\n").as_bytes());
        self.put(&format!("new-{round}"), &noise(20_000, 1_000 + round));
        self.put(&format!("dir-{round}/sub/ملف"), &noise(9_000, 2_000 + round));
        for name in [format!("new-{}", round - 1), format!("dir-{}", round - 1), "link".into(), "kind".into()]
        {
            self.remove(&name);
        }
        symlink(format!("new-{round}"), self.source.join("link")).expect("a link");
        self.put(if round.is_multiple_of(2) { "kind" } else { "kind/below" }, b"kind");
        self.put("run.sh", b"#!/bin/sh\n");
        let mode = if round.is_multiple_of(2) { 0o755 } else { 0o644 };
        fs::set_permissions(self.source.join("run.sh"), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    /// Somebody changes two files of the folder meanwhile: one that nobody else changed, and one that the
    /// source changed as well.
    fn meddle(&self, allowed: &Allowed) -> Tree {
        let mut mine = Tree::new();
        for name in ["own", "both"] {
            let content = format!("mine of {name} in round {}", self.round).into_bytes();
            mine.insert(name.into(), Entry::File(false, content.clone()));
            allowed.add(&mine);
            let aside = self.dest.with_extension("aside");
            fs::write(&aside, content).expect("write");
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o644)).expect("chmod");
            fs::rename(&aside, self.dest.join(name)).expect("rename");
        }
        mine
    }

    /// Kills at the point, while whoever `begin` starts makes the folder follow; waits until that has ended.
    /// What somebody else wrote into the folder in between, when `meddles`.
    fn cut(
        &mut self,
        point: &str,
        victim: Victim,
        meddles: bool,
        begin: impl FnOnce(&World) -> Child,
    ) -> Tree {
        let when = format!("{point}, {victim:?}, round {}", self.round);
        let allowed = Allowed::default();
        allowed.add(&tree(&self.dest));
        self.change();
        allowed.add(&tree(&self.source));
        // The first piece is an object or a chunk of another round.
        let passes = if point == "apply::piece" { self.round % 4 } else { 0 };
        let pid =
            if victim == Victim::Node { self.world.node_pid(self.node).to_string() } else { String::new() };
        let armed = self.world.path(&format!("kill-{}", point.replace("::", "-")));
        fs::write(&armed, format!("{passes} {pid}")).expect("arm the point");
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // Whoever reads meanwhile sees the one or the other.
            let reader = scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    allowed.check(&tree(&self.dest), &when);
                }
            });
            let child = begin(&self.world);
            wait_for_kill(point, &armed);
            allowed.check(&tree(&self.dest), &when);
            let mine = if meddles { self.meddle(&allowed) } else { Tree::new() };
            let world = &mut self.world;
            if victim == Victim::Node {
                world.kill_node(self.node);
                world.start_node(self.node);
            }
            let ended = Ended::of(child);
            is_over.store(true, Ordering::SeqCst);
            if let Err(panic) = reader.join() {
                std::panic::resume_unwind(panic);
            }
            println!("{when}: {:?} {}", ended.code, ended.stderr.lines().next().unwrap_or_default());
            mine
        })
    }

    /// Nothing of ours is left in the folder but what is kept on purpose.
    fn is_clean(&self, when: &str) {
        let left = fs::read_dir(self.dest.join(".cortex/staging")).into_iter().flatten().flatten().count();
        assert_eq!(left, 0, "{when}: staging is left");
        let names: BTreeSet<String> = fs::read_dir(self.dest.join(".cortex"))
            .expect("ours")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        let known = ["base", "base~", "root", "scan", "staging"].map(str::to_owned);
        assert!(names.is_subset(&known.into()), "{when}: {names:?}");
    }

    fn is_same(&self, when: &str) {
        let (source, dest) = (tree(&self.source), tree(&self.dest));
        assert_eq!(differ(&source, &dest), Vec::<PathBuf>::new(), "{when}\n{}", self.world.logs());
    }
}

/// Each point with who is killed at it, and whether somebody changes the folder then. Without rounds every
/// other point: the rest is the other victim's.
fn cuts(victim: Victim) -> impl Iterator<Item = (&'static str, Victim, bool)> {
    let is_short = std::env::var_os("CORTEX_ROUNDS").is_none();
    let mine = move |at: usize| !is_short || at.is_multiple_of(2) == (victim == Victim::Clerk);
    (0..rounds()).flat_map(move |round| {
        let points = APPLY.iter().enumerate().filter(move |(at, _)| mine(*at));
        points.map(move |(at, point)| (*point, victim, (at / 2 + round).is_multiple_of(3)))
    })
}

fn pushes(victim: Victim) {
    let mut scene = Scene::new(&["a"]);
    let target = format!("a:{}", scene.dest.display());
    let source = scene.source.display().to_string();
    let line = |more: &[&'static str]| [&["push", &source, &target, "--delete"], more].concat();
    let run = |world: &World, more: &[&'static str]| world.cortex(&line(more));
    run(&scene.world, &[]).expect(0);
    scene.is_same("the first");
    for (point, victim, meddles) in cuts(victim) {
        let begin = |world: &World| world.command(&line(&[])).spawn().expect("start");
        let mine = scene.cut(point, victim, meddles, begin);
        let when = format!("{point}, {victim:?}, round {}", scene.round);
        // Once more is enough, whatever came of the first.
        let again = run(&scene.world, &[]);
        assert!(matches!(again.code, Some(0 | 8)), "{when}: {}\n{}", again.stderr, scene.world.logs());
        let there = tree(&scene.dest);
        for (path, content) in &mine {
            assert_eq!(
                there.get(path),
                Some(content),
                "{when}: `{}` was lost: {}",
                path.display(),
                again.stderr
            );
        }
        if mine.is_empty() {
            assert_eq!(again.code, Some(0), "{when}: {}", again.stderr);
        } else {
            run(&scene.world, &["--force"]).expect(0);
        }
        scene.is_same(&when);
        scene.is_clean(&when);
    }
}

#[test]
fn a_clerk_that_is_killed_at_any_point_of_a_push_leaves_each_name_old_or_new_and_loses_nothing() {
    pushes(Victim::Clerk);
}

#[test]
fn a_node_that_is_killed_at_any_point_of_a_push_leaves_each_name_old_or_new_and_loses_nothing() {
    pushes(Victim::Node);
}

fn waves(victim: Victim) {
    let mut scene = Scene::new(&["a", "b"]);
    let lead = format!("a:{}", scene.source.display());
    let follower = format!("b:{}", scene.dest.display());
    scene.world.cortex(&["workspace", "create", "notes", "--lead", &lead]).expect(0);
    scene.world.cortex(&["workspace", "attach", "notes", &follower, "--wait"]).expect(0);
    let resync = ["workspace", "resync", "notes", "--wait", "--timeout", "60s"];
    for (point, victim, meddles) in cuts(victim) {
        let begin = |world: &World| world.command(&resync[..3]).spawn().expect("start");
        let mine = scene.cut(point, victim, meddles, begin);
        let when = format!("{point}, {victim:?}, round {}", scene.round);
        scene.world.node_reaches("b", "online", SOON);
        let settled = scene.world.cortex(&resync);
        if mine.is_empty() {
            assert_eq!(settled.code, Some(0), "{when}: {}\n{}", settled.stderr, scene.world.logs());
        } else {
            kept_and_repaired(&scene, &mine, &when);
            scene.world.cortex(&resync).expect(0);
        }
        scene.is_same(&when);
        scene.is_clean(&when);
    }
}

/// What somebody wrote on the follower is there still; a repair gives the workspace's version its name back
/// and keeps the other beside.
fn kept_and_repaired(scene: &Scene, mine: &Tree, when: &str) {
    let there = tree(&scene.dest);
    for (path, content) in mine {
        assert_eq!(there.get(path), Some(content), "{when}: `{}` was lost", path.display());
    }
    scene.world.cortex(&["workspace", "resync", "notes", "b", "--repair"]).expect(0);
    scene.world.eventually("the repair", SOON, |_| {
        let there = tree(&scene.dest);
        let is_kept =
            |content: &Entry| there.iter().any(|(path, entry)| entry == content && !mine.contains_key(path));
        mine.values().all(is_kept).then_some(())
    });
    let beside = tree(&scene.dest).into_keys().filter(|path| path.to_string_lossy().contains(".conflict-"));
    beside.for_each(|path| fs::remove_file(scene.dest.join(path)).expect("removed"));
    // Somebody has looked at what was kept twice, when the hub has heard of it too.
    scene.world.eventually("an end of the conflict", SOON, |world| {
        world.cortex(&["workspace", "resync", "notes", "b"]).expect(0);
        let resync = ["workspace", "resync", "notes", "--wait", "--timeout", "10s"];
        (world.cortex(&resync).code == Some(0)).then_some(())
    });
}

#[test]
fn r16_1_a_clerk_that_is_killed_at_any_point_of_a_wave_leaves_each_name_old_or_new_and_loses_nothing() {
    waves(Victim::Clerk);
}

#[test]
fn r16_1_a_node_that_is_killed_at_any_point_of_a_wave_leaves_each_name_old_or_new_and_loses_nothing() {
    waves(Victim::Node);
}
