//! The test suites of twenty crates that this program is built from, as tasks over three nodes, one of
//! which is killed in the middle: each crate's result is there, once, and is its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::tasks::{id, steps};
use crate::world::{World, hub, signal};

/// Far beyond what a busy machine takes for all of them.
const SOON: Duration = Duration::from_secs(150);
const NODES: &[&str] = &["a", "b", "c"];
/// How many are done when a node is killed.
const MIDDLE: usize = 6;
/// How many there are.
const COUNT: usize = 20;
/// Small ones that depend on nothing, so that their sources, which are on every machine that builds this
/// program, are all that is needed. `untrusted` is there in two versions.
const CRATES: &[&str] = &[
    "cfg_aliases",
    "colorchoice",
    "dunce",
    "fallible-iterator",
    "fnv",
    "heck",
    "ident_case",
    "mime",
    "minimal-lexical",
    "pastey",
    "percent-encoding",
    "quick-error",
    "rand_core",
    "scopeguard",
    "shlex",
    "strsim",
    "unit-prefix",
    "untrusted",
    "utf8parse",
];

/// The folders of these crates, where cargo keeps them.
fn sources() -> Vec<PathBuf> {
    let metadata = metadata();
    let is_one = |package: &&Value| {
        let name = package["name"].as_str().expect("a name");
        CRATES.contains(&name) && package["dependencies"] == Value::Array(vec![])
    };
    let packages = metadata["packages"].as_array().expect("packages").iter().filter(is_one);
    let manifests = packages.map(|package| Path::new(package["manifest_path"].as_str().expect("a path")));
    let folders = manifests.map(|manifest| manifest.parent().expect("a folder").to_owned());
    let folders: Vec<PathBuf> = folders.collect();
    assert_eq!(folders.len(), COUNT, "put others in place of what is not built in: {folders:?}");
    folders
}

/// What cargo knows of the packages that this program is built from on this machine.
fn metadata() -> Value {
    let rustc = beside("rustc");
    let version = said(Command::new(&rustc).arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--offline", "--format-version", "1", "--filter-platform", host]);
    serde_json::from_str(&said(cargo.env("RUSTC", rustc))).expect("JSON")
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// A program of the toolchain that builds this test.
fn beside(program: &str) -> String {
    Path::new(env!("CARGO")).with_file_name(program).display().to_string()
}

/// Copies a crate, as a workspace of its own.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-r").args([from, to]).status().expect("it starts");
    assert!(copied.success(), "{} is not copied", from.display());
    let manifest = to.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(manifest, format!("{text}\n[workspace]\n")).expect("written");
}

/// Submits the tests of a crate, without doctests: they take as long as all the rest. Cargo says in which
/// folder it is, built or not.
fn submit(world: &World, folder: &Path) -> Value {
    let (folder, rustc) = (folder.display().to_string(), format!("RUSTC={}", beside("rustc")));
    let cheap = ["--env", "CARGO_PROFILE_TEST_DEBUG=0", "--env", "CARGO_INCREMENTAL=0"];
    let test = [env!("CARGO"), "test", "-v", "--offline", "--lib", "--tests"];
    let task = ["--cwd", &folder, "--attempts", "5", "--env", &rustc];
    world.add(&[&task[..], &cheap, &["--"], &test].concat())
}

/// Those in this state.
fn tasks(world: &World, state: &str) -> Vec<Value> {
    let list = world.cortex(&["task", "ls", "--state", state, "--json"]).expect(0).value();
    list.as_array().unwrap_or_else(|| panic!("no list: {list}")).clone()
}

/// Kills a node with work in its hands, for good; the ids of its tasks.
fn kill_one_at_work(world: &mut World) -> Vec<String> {
    let (victim, held) = world.eventually("a node at work", SOON, |world| {
        let victim = tasks(world, "leased").first()?["node"].as_str()?.to_owned();
        // It reports nothing while it is looked at.
        signal([world.node_pid(&victim)], Signal::SIGSTOP);
        let held = tasks(world, "leased").into_iter().filter(|task| task["node"] == victim.as_str());
        let held: Vec<String> = held.map(|task| id(&task).to_owned()).collect();
        if held.is_empty() {
            signal([world.node_pid(&victim)], Signal::SIGCONT);
            return None;
        }
        Some((victim, held))
    });
    world.kill_node(&victim);
    held
}

#[test]
fn the_tests_of_twenty_crates_come_out_once_each_when_a_node_is_killed_in_the_middle() {
    let mut world = NODES.iter().fold(hub(), |plan, name| plan.open_node(name)).slots(2).start();
    // Beside the world's folder, in which every file is searched for secrets at the end.
    let place = tempfile::tempdir().expect("a folder for the crates");
    let began = Instant::now();
    let submitted: Vec<(PathBuf, Value)> = sources()
        .into_iter()
        .map(|source| {
            let folder = place.path().join(source.file_name().expect("a name"));
            copy(&source, &folder);
            let task = submit(&world, &folder);
            (folder, task)
        })
        .collect();
    world.eventually("the middle", SOON, |world| (tasks(world, "done").len() >= MIDDLE).then_some(()));
    let held = kill_one_at_work(&mut world);
    let mut passed = 0;
    for (folder, task) in &submitted {
        let done = world.eventually(&format!("the end of {}", folder.display()), SOON, |world| {
            let task = world.task(task);
            assert_ne!(task["state"], "dead", "{task}");
            (task["state"] == "done").then_some(task)
        });
        let ends = steps(&done).iter().filter(|step| **step == "done").count();
        assert_eq!((ends, done["result"]["code"].as_i64()), (1, Some(0)), "{done}");
        passed += check_output(&world, task, folder, place.path());
    }
    let again = held.iter().filter(|id| world.cortex(&["task", "get", id, "--json"]).value()["attempt"] == 2);
    assert!(again.count() > 0, "nothing of the node that was killed was begun again");
    println!(
        "{} crates, {passed} tests, {} of a killed node: {:?}",
        submitted.len(),
        held.len(),
        began.elapsed()
    );
}

/// The output names the crate's own folder and no other one, and tests that have passed; how many.
fn check_output(world: &World, task: &Value, folder: &Path, place: &Path) -> usize {
    let output = world.cortex(&["task", "logs", id(task)]).expect(0);
    let said = output.text() + &output.stderr;
    let own = format!("({})", folder.display());
    assert!(said.contains(&own), "{own}: {said}");
    assert_eq!(said.matches(&format!("({}", place.display())).count(), said.matches(&own).count(), "{said}");
    let passed = said.lines().filter_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next());
    let passed: usize = passed.map(|count| count.parse::<usize>().expect("a count")).sum();
    assert!(passed > 0, "{said}");
    passed
}
