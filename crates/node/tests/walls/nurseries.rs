//! The lives of rooms and runs: what ends with what, and that nothing of them is left.

use std::path::Path;

use cortex_core::limits::ROOMS_MAX;
use cortex_core::run::EndCause;
use cortex_core::sandbox::{Access, Level, Limits, Network, Walls};
use cortex_node::trial::Running;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::support::{
    LEVELS, World, as_each_user, open_to_all, processes, rooms, shell, status, until, walls,
};

/// Forks twice, each time into a session of its own, and ends on nothing but KILL.
const STUBBORN: &str = "trap '' TERM HUP INT; setsid sh -c \"trap '' TERM HUP INT; (setsid sh -c 'trap \\\"\\\" TERM; echo > up; while :; do sleep 1; done' &); while :; do sleep 1; done\" & while :; do sleep 1; done";

/// A run of that script, of which everything is up.
struct Stubborn {
    world: World,
    walls: Walls,
    /// In the command lines of its processes alone.
    word: String,
    run: Running,
}

impl Stubborn {
    async fn up(level: Level) -> Self {
        let world = World::new(level).await;
        let work = world.path("work");
        let walls = walls(&[(&work, Access::Write, true)]);
        let word = format!("mark-{}-{level:?}", std::process::id());
        let script = format!("cd {}; : {word}; {STUBBORN}", work.display());
        let mut run = world.trial.start(Some(&walls), shell(&script));
        assert!(run.started().await);
        until("the tree is up", || work.join("up").exists()).await;
        Self { world, walls, word, run }
    }
}

/// Processes that have this word in their environment or command line.
fn marked(word: &str) -> usize {
    let has = |pid: &i32| {
        let of = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        [of("environ"), of("cmdline")]
            .iter()
            .any(|text| text.windows(word.len()).any(|part| part == word.as_bytes()))
    };
    processes().filter(|pid| *pid != std::process::id().cast_signed()).filter(has).count()
}

#[test]
fn a_nursery_that_is_killed_takes_its_runs_with_it_and_the_next_run_works() {
    as_each_user(
        "nurseries::a_nursery_that_is_killed_takes_its_runs_with_it_and_the_next_run_works",
        async {
            for level in LEVELS {
                let Stubborn { world, walls, word, run } = Stubborn::up(level).await;
                // The probe's own rooms are without runs.
                let all = rooms();
                assert!(!all.is_empty());
                for room in all {
                    kill(Pid::from_raw(room), Signal::SIGKILL).expect("it lives");
                }
                let outcome = run.ended().await;
                assert_eq!(outcome.ended.cause, EndCause::UnknownOutcome, "{level:?}");
                until("nothing is left", || marked(&word) == 0).await;
                assert_eq!(world.text(&walls, "echo on").await, "on\n");
                world.finish().await;
            }
        },
    );
}

/// Set in the process that is to be killed: where its run says that it is up.
const VICTIM: &str = "CORTEX_TEST_VICTIM";

#[test]
fn nothing_of_a_run_is_left_when_the_node_process_is_killed() {
    let name = "nurseries::nothing_of_a_run_is_left_when_the_node_process_is_killed";
    if let Some(folder) = std::env::var_os(VICTIM) {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(live_until_killed(Path::new(&folder)));
        return;
    }
    as_each_user(name, async {
        for level in LEVELS {
            let folder = tempfile::tempdir().expect("a folder");
            open_to_all(folder.path());
            std::fs::write(folder.path().join("level"), level.as_str()).expect("written");
            let mut victim = std::process::Command::new(std::env::current_exe().expect("it has one"));
            victim.args([name, "--exact", "--nocapture"]).env(VICTIM, folder.path());
            let mut victim = victim.stdout(std::process::Stdio::null()).spawn().expect("started");
            let up = folder.path().join("up");
            until("the tree is up", || up.exists()).await;
            let word = folder.path().display().to_string();
            assert!(marked(&word) >= 3, "{level:?}");
            victim.kill().expect("it lives");
            victim.wait().expect("reaped");
            until("nothing is left", || marked(&word) == 0).await;
            // The next node removes its folders and groups.
            World::new(level).await.finish().await;
            let left = format!("cortex-runs-{}-", victim.id());
            let entries = std::env::temp_dir().read_dir().expect("listed").flatten();
            let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            assert!(!names.iter().any(|name| name.to_string_lossy().starts_with(&left)), "{names:?}");
        }
    });
}

/// A node's part of it: a run that does not end, in a folder that names it.
async fn live_until_killed(folder: &Path) {
    let level = std::fs::read_to_string(folder.join("level")).expect("written");
    let world = World::new(Level::parse(&level).expect("a level")).await;
    let walls = walls(&[(folder, Access::Write, true)]);
    let script = format!("cd {}; {STUBBORN}", folder.display());
    let outcome = world.shell(&walls, &script).await;
    panic!("it was to be killed: {outcome:?}");
}

#[test]
fn a_tree_that_does_not_want_to_end_is_ended_by_kill() {
    as_each_user("nurseries::a_tree_that_does_not_want_to_end_is_ended_by_kill", async {
        for level in LEVELS {
            let Stubborn { world, word, run, .. } = Stubborn::up(level).await;
            assert!(marked(&word) >= 1);
            run.kill();
            let outcome = run.ended().await;
            assert_eq!((outcome.ended.cause, outcome.ended.signal), (EndCause::Exited, Some(9)));
            assert_eq!(marked(&word), 0, "{level:?}: gone means gone");
            world.finish().await;
        }
    });
}

#[test]
fn a_tree_is_asked_to_end_first() {
    as_each_user("nurseries::a_tree_is_asked_to_end_first", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let work = world.path("work");
            let walls = walls(&[(&work, Access::Write, true)]);
            let script = format!(
                "cd {}; setsid sh -c 'trap \"echo > asked; exit\" TERM; echo > up; while :; do sleep 0.1; done' 2>/dev/null & wait",
                work.display()
            );
            let mut run = world.trial.start(Some(&walls), shell(&script));
            assert!(run.started().await);
            until("the tree is up", || work.join("up").exists()).await;
            run.term();
            let outcome = run.ended().await;
            assert_eq!((outcome.ended.cause, outcome.ended.signal), (EndCause::Exited, Some(15)));
            assert!(work.join("asked").exists(), "{level:?}: all of it was asked");
            world.finish().await;
        }
    });
}

#[test]
fn what_a_node_that_was_killed_left_is_removed_by_the_next_one() {
    as_each_user("nurseries::what_a_node_that_was_killed_left_is_removed_by_the_next_one", async {
        // A process has that number, and it is no node.
        let folder = std::env::temp_dir().join(format!("cortex-runs-1-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("run/home")).expect("made");
        let group = Path::new("/sys/fs/cgroup/pids/cortex-node-999999999-0/run");
        let has_group = std::fs::create_dir_all(group).is_ok();
        let world = World::new(Level::Kernel).await;
        assert!(!folder.exists());
        if has_group {
            assert!(!group.parent().expect("it has one").exists());
        }
        world.finish().await;
    });
}

#[test]
fn rooms_beyond_the_bound_go_and_those_of_live_runs_stay() {
    as_each_user("nurseries::rooms_beyond_the_bound_go_and_those_of_live_runs_stay", async {
        let world = World::new(Level::Full).await;
        let of = |port: u16| Walls { network: Network::Ports([port].into()), ..Walls::default() };
        let mut live = world.trial.start(Some(&of(1)), shell("sleep 100; echo done"));
        assert!(live.started().await);
        for port in 2..12 {
            assert_eq!(world.text(&of(port), "echo on").await, "on\n");
        }
        until("only the last ones are left, and the one in use", || rooms().len() == ROOMS_MAX + 1).await;
        world.trial.forget_rooms().await;
        until("the one in use is left", || rooms().len() == 1).await;
        assert_eq!(world.text(&of(2), "echo on").await, "on\n");
        live.kill();
        assert_eq!(live.ended().await.ended.signal, Some(9));
        until("it went with its last run", || rooms().len() == 1).await;
        world.finish().await;
        until("none is left", || rooms().is_empty()).await;
    });
}

#[test]
fn a_folder_that_was_exchanged_is_another_room() {
    as_each_user("nurseries::a_folder_that_was_exchanged_is_another_room", async {
        let world = World::new(Level::Full).await;
        let work = world.path("work");
        let walls = walls(&[(&work, Access::Write, true)]);
        let script = format!("echo hello > {}/new", work.display());
        assert_eq!(world.text(&walls, &script).await, "");
        std::fs::rename(&work, world.path("before")).expect("renamed");
        world.add_folder("work");
        assert_eq!(world.text(&walls, &script).await, "");
        assert!(work.join("new").exists(), "it was written to the folder that has the name");
        world.finish().await;
    });
}

/// What a node and its rooms hold on to.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    in_rooms: Vec<(usize, usize)>,
    mounts: usize,
    groups: usize,
    folders: usize,
    processes: usize,
}

fn count(path: &str) -> usize {
    std::fs::read_dir(path).map_or(0, Iterator::count)
}

fn held() -> Held {
    let mounts = |pid: &str| {
        std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).map_or(0, |text| text.lines().count())
    };
    let below = |pid: i32| status(pid, "PPid").is_some_and(|parent| parent == std::process::id().to_string());
    Held {
        descriptors: count("/proc/self/fd"),
        in_rooms: rooms()
            .iter()
            .map(|pid| (count(&format!("/proc/{pid}/fd")), mounts(&pid.to_string())))
            .collect(),
        mounts: mounts("self"),
        groups: own_groups(Path::new("/sys/fs/cgroup"), 0),
        folders: own_folders(),
        processes: processes().filter(|pid| below(*pid)).count(),
    }
}

/// Groups of this process's runs in every hierarchy.
fn own_groups(folder: &Path, depth: usize) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let own = format!("cortex-node-{}-", std::process::id());
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders
        .map(|entry| {
            let is_own = entry.file_name().to_string_lossy().starts_with(&own);
            let below = if is_own || depth < 4 { own_groups(&entry.path(), depth + 1) } else { 0 };
            let in_own = folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&own));
            below + usize::from(in_own)
        })
        .sum()
}

fn own_folders() -> usize {
    let own = format!("cortex-runs-{}-", std::process::id());
    let entries = std::fs::read_dir(std::env::temp_dir()).expect("listed").flatten();
    let folders = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&own));
    let runs = folders.flat_map(|entry| std::fs::read_dir(entry.path()).into_iter().flatten().flatten());
    // Empty ones are kept for the next runs.
    let is_empty = |path: &Path| path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
    let is_kept = |path: &Path| {
        is_empty(path) || (is_empty(&path.join("home")) && path.read_dir().is_ok_and(|all| all.count() == 1))
    };
    runs.filter(|run| !is_kept(&run.path())).count()
}

#[test]
fn many_runs_leave_no_descriptor_mount_group_process_or_folder() {
    as_each_user("nurseries::many_runs_leave_no_descriptor_mount_group_process_or_folder", async {
        for level in LEVELS {
            let world = World::new(level).await;
            let work = world.path("work");
            let limits = Limits { memory_bytes: Some(1 << 30), processes: Some(100), ..Limits::default() };
            let walls = Walls { limits, ..walls(&[(&work, Access::Write, true)]) };
            assert_eq!(world.text(&walls, "echo on").await, "on\n");
            let before = held();
            assert_eq!((before.groups, before.folders), (0, 0));
            for round in 0..40 {
                let runs = (0..5).map(|number| {
                    let script = match (round + number) % 4 {
                        0 => "true",
                        1 => "sleep 50 & echo > $TMPDIR/file",
                        2 => "no-such-program",
                        _ => "kill -9 $$",
                    };
                    world.shell(&walls, script)
                });
                futures::future::join_all(runs).await;
                let missing = cortex_core::run::RunSpec { cwd: Some("/nowhere".to_owned()), ..shell("true") };
                assert_eq!(world.trial.run(Some(&walls), missing).await.ended.cause, EndCause::Failed);
            }
            until("all is as before", || held() == before).await;
            world.finish().await;
            assert_eq!(own_folders(), 0);
            assert!(!std::env::temp_dir().read_dir().expect("listed").flatten().any(|entry| {
                entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(&format!("cortex-runs-{}-", std::process::id()))
            }));
        }
    });
}
