//! Transfers that are given up at any moment: pushes and pulls of trees, streams of content; by a connection
//! that breaks, by a cancel, by a node whose link is cut. Nothing of them is left but what is kept for the
//! next try (ABUSE 56).

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::cable::Cable;
use crate::content::{memory, ours};
use crate::files::{OCTETS, at};
use crate::transfers::{allow, is_same, noise};
use crate::world::{Ended, World, canary, hub, signal};

const MIB: usize = 1024 * 1024;
const SOON: Duration = Duration::from_secs(60);
/// Rounds when nobody says otherwise.
const ROUNDS: usize = 32;
/// Callers at the same time.
const CALLERS: usize = 4;
/// Folders that pushes go to, in turn.
const DESTS: usize = 4;
/// In how many rounds of the first caller the link is cut once.
const CUT_EVERY: usize = 16;
/// Clerks that a node keeps at most, and descriptors for each, in a test that does not wait until they end.
const CLERK_DESCRIPTORS: usize = 8 * 8;
/// Rounds from which on it is waited for the end of idle clerks.
const LONG: usize = 1_000;

/// The one source of chance.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % bound.max(1)
    }
}

/// What hub and node hold while nobody wants anything.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Idle {
    hub_descriptors: usize,
    node_descriptors: usize,
    node_processes: usize,
    mesh_entries: u64,
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

/// Processes below that one.
fn below(pid: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<u32> = children
        .flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    children.iter().map(|child| 1 + below(*child)).sum()
}

/// A debug build of the HTTP/2 library asserts, as it drops a connection, that no stream of it is left, which two
/// of 10,000 transfers that were given up met; built for release it asserts nothing. Any other panic has its own
/// place in its first line.
const ASSERTED: &str =
    "h2-0.4\nassertion failed: !self.has_streams()\n\"a handler panicked\"\nRUST_BACKTRACE";

struct Scene {
    world: World,
    cable: Cable,
    work: PathBuf,
    sources: [PathBuf; 2],
    target: PathBuf,
    /// How long a push takes.
    whole: Duration,
    cut: AtomicBool,
    /// Commands that were there to their end before they were given up, and those that were refused.
    late: AtomicUsize,
    refused: AtomicUsize,
    memory: Mutex<Vec<(usize, usize)>>,
}

impl Scene {
    fn new() -> Self {
        let mut world = hub().start();
        std::fs::write(world.path("expected-warnings"), ASSERTED).expect("written");
        let cable = Cable::to(&world.hub().grpc);
        world.join_at(&cable.address(), "a", "strict");
        let work = allow(&world, "a");
        let sources = ["one", "two"].map(|name| {
            let folder = world.path(name);
            std::fs::create_dir_all(folder.join("مجلد")).expect("a folder");
            let seed = name.len() as u64 + u64::from(name.as_bytes()[0]);
            (0..40).for_each(|n| {
                std::fs::write(folder.join(format!("مجلد/{n}")), noise(2_000, seed * 1_000 + n))
                    .expect("write")
            });
            std::fs::write(folder.join("long"), noise(3 * MIB / 2, seed)).expect("write");
            std::fs::write(folder.join(name), "").expect("write");
            folder
        });
        let target = work.join("large");
        std::fs::write(&target, noise(4 * MIB, 9)).expect("written");
        let (cut, late, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        let (whole, memory) = (Duration::ZERO, Mutex::default());
        Self { world, cable, work, sources, target, whole, cut, late, refused, memory }
    }

    fn dest(&self, number: usize) -> PathBuf {
        self.work.join(format!("dest-{}", number % DESTS))
    }

    fn push(&self, source: usize, dest: usize) -> [String; 5] {
        let source = self.sources[source % 2].display().to_string();
        [
            "push".into(),
            source,
            format!("a:{}", self.dest(dest).display()),
            "--force".into(),
            "--delete".into(),
        ]
    }

    fn run(&self, arguments: &[String]) -> Ended {
        self.world.cortex(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn idle(&self) -> Idle {
        let node = self.world.node_pid("a");
        Idle {
            hub_descriptors: descriptors(self.world.hub().pid()),
            node_descriptors: descriptors(node),
            node_processes: below(node),
            mesh_entries: self.world.figure("mesh_entries"),
        }
    }

    /// A push or pull that ends at a moment between its start and a little after its end.
    fn command(&self, draw: &mut Draw, arguments: &[String]) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = self.world.command(&arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start");
        let whole = usize::try_from(self.whole.as_micros()).unwrap_or(usize::MAX);
        std::thread::sleep(Duration::from_micros(draw.below(whole * 5 / 4) as u64));
        let how = if draw.below(2) == 0 { Signal::SIGKILL } else { Signal::SIGINT };
        if let Some(ended) = child.try_wait().expect("ours") {
            let count = if matches!(ended.code(), Some(0 | 1 | 8)) { &self.late } else { &self.refused };
            count.fetch_add(1, Ordering::Relaxed);
        }
        signal([child.id()], how);
        child.wait().expect("it ends");
        if how == Signal::SIGKILL && draw.below(3) == 0 {
            self.cancel();
        }
    }

    /// Cancels whatever is open: a caller may have eight transfers, and those of a dead one end by themselves
    /// only after a minute.
    fn cancel(&self) {
        let open = self.world.api("GET", "/transfers?limit=20", &[], b"").ok();
        for transfer in open["items"].as_array().expect("a list").iter().filter(|one| one["state"] == "open")
        {
            let id = transfer["id"].as_str().expect("an id");
            self.world.api("DELETE", &format!("/transfers/{id}"), &[], b"");
        }
    }

    fn round(&self, draw: &mut Draw, caller: usize) {
        let source = at("a", &self.target, "");
        match draw.below(4) {
            0 => {
                let mut stream = self.world.begin("GET", &source, 0);
                let mut some = vec![0; draw.below(4 * MIB)];
                // Of a node whose link is cut there comes less.
                let _read = stream.read_exact(&mut some);
            }
            1 => {
                let other = at("a", &self.work.join("other"), "");
                let mut stream = self.world.begin("PUT", &other, 8 * MIB as u64);
                let _sent = stream.write_all(&noise(draw.below(4 * MIB), 1));
            }
            2 => {
                let (source, dest) = (draw.below(2), caller + draw.below(2));
                self.command(draw, &self.push(source, dest));
            }
            _ => {
                let back = self.world.path(&format!("back-{caller}")).display().to_string();
                self.command(
                    draw,
                    &["pull".into(), format!("a:{}", self.dest(DESTS).display()), back, "--force".into()],
                );
            }
        }
    }

    /// Cuts the link, and waits until the node is there again.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        self.cable.cut();
        self.cable.mend();
        self.world.eventually("the node", SOON, |world| (world.figure("nodes_online") == 1).then_some(()));
        self.cut.store(false, Ordering::SeqCst);
    }

    fn call(&self, caller: usize, rounds: usize) {
        let mut draw = Draw(0x9e37_79b9 + caller as u64 * 0x1234_5678_9abc);
        let sampled = (rounds / 40).max(1);
        for round in 0..rounds {
            while caller != 0 && self.cut.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            self.round(&mut draw, caller);
            if caller == 0 && round % CUT_EVERY == CUT_EVERY / 2 {
                self.cut();
            }
            if caller == 0 && round % sampled == 0 {
                let of = |pid| memory(pid) / 1024;
                let both = (of(self.world.hub().pid()), of(self.world.node_pid("a")));
                self.memory.lock().expect("nobody panicked with it").push(both);
            }
        }
    }

    /// Waits until nothing is on its way. What dead callers left ends by itself after a minute.
    fn is_quiet(&self) {
        self.world.eventually("quiet", 3 * SOON, |world| {
            let names = ["tickets", "streams", "file_ops_open", "chunks_pins"];
            let open: u64 = names.into_iter().map(|name| world.figure(name)).sum();
            let text = canary::metrics(&world.hub().http);
            let transfers = text.lines().filter(|line| line.starts_with("cortex_transfers{"));
            let moving = transfers.filter(|line| !line.ends_with(" 0")).count();
            let is_quiet = open == 0 && moving == 0 && ours(&self.work).is_empty();
            is_quiet.then_some(())
        });
    }
}

fn median(mut of: Vec<usize>) -> usize {
    of.sort_unstable();
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// Medians of the first and the last quarter, and what a round adds, bytes.
fn grown(name: &str, samples: &[usize], rounds: usize) {
    let quarter = (samples.len() / 4).max(1);
    let first = median(samples[..quarter.min(samples.len())].to_vec());
    let last = median(samples[samples.len().saturating_sub(quarter)..].to_vec());
    let slope = (last as f64 - first as f64) * 1024.0 / (rounds as f64 * 0.75).max(1.0);
    println!("{name}: {first} KiB in the first quarter, {last} KiB in the last, {slope:.1} bytes a round");
}

#[test]
fn a56_transfers_that_end_at_any_moment_leave_no_lock_file_entry_or_descriptor() {
    let mut scene = Scene::new();
    let rounds = std::env::var("CORTEX_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let at_rest = scene.idle();
    for dest in 0..DESTS {
        let began = Instant::now();
        scene.run(&scene.push(0, dest)).expect(0);
        scene.whole = began.elapsed();
    }
    // With the connection for content, which the node keeps for a while.
    let before = scene.idle();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for caller in 0..CALLERS {
            let scene = &scene;
            scope.spawn(move || scene.call(caller, rounds / CALLERS));
        }
    });
    println!(
        "{rounds} transfers given up in {:?}, {} of them too late and {} refused; a push takes {:?}",
        began.elapsed(),
        scene.late.load(Ordering::Relaxed),
        scene.refused.load(Ordering::Relaxed),
        scene.whole
    );
    assert!(scene.refused.load(Ordering::Relaxed) <= rounds / 10, "most of them began");
    let (hub, node): (Vec<usize>, Vec<usize>) = scene.memory.lock().expect("it").iter().copied().unzip();
    grown("resident memory of the hub", &hub, rounds);
    grown("resident memory of the node", &node, rounds);
    let is_long = rounds >= LONG;
    if !is_long {
        scene.cancel();
    }
    scene.is_quiet();
    assert!(!scene.work.join("other").exists());
    for dest in 0..DESTS {
        let staging = scene.dest(dest).join(".cortex/staging");
        let staged = || std::fs::read_dir(&staging).into_iter().flatten().flatten().count();
        // What is kept for the next try: at most four trees, and only two are pushed here.
        assert!(staged() <= 2, "{} trees are staged", staged());
        // The next try of each needs no lock that somebody left, and takes what is staged.
        for source in 0..2 {
            scene.run(&scene.push(source, dest)).expect(0);
            is_same(&scene.sources[source], &scene.dest(dest));
        }
        assert_eq!(staged(), 0, "staging is left");
    }
    let read = scene.world.fs("GET", &at("a", &scene.target, ""), &[("accept", OCTETS)], b"");
    assert!(read.body == noise(4 * MIB, 9));
    scene.is_quiet();
    // A long run waits until the node has ended its idle clerks, and the connection for content.
    let (before, clerks, limit) =
        if is_long { (at_rest, 0, 2 * SOON) } else { (before, CLERK_DESCRIPTORS, SOON) };
    let after = scene.world.eventually("descriptors and processes", limit, |_| {
        let after = scene.idle();
        let is_idle = after.hub_descriptors <= before.hub_descriptors
            && after.node_descriptors <= before.node_descriptors + clerks
            && after.mesh_entries <= before.mesh_entries
            && (clerks > 0 || after.node_processes <= before.node_processes);
        is_idle.then_some(after)
    });
    println!("before: {before:?}\nafter:  {after:?}");
    // It need not be searched for secrets.
    std::fs::remove_file(&scene.target).expect("removed");
}
