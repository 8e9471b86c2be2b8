//! Those who wake up after their lease has ended: what they report is evidence, what they run is ended,
//! and what they write is refused by whoever asks for the number of their attempt.

use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cable::Cable;
use crate::tasks::{id, steps};
use crate::world::{World, hub, marked, signal};

/// Longer than a lease and all that follows.
const SOON: Duration = Duration::from_secs(40);

/// The shortest lease that there is.
const LEASE: &str = "10s";

/// A process and all below it, the lowest last.
fn tree(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let children =
            threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
        let children: Vec<u32> = children
            .flat_map(|text| text.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        all.extend(children);
        next += 1;
    }
    all
}

/// Whether each of these, told to stop, stands still. A shell has short-lived children, which may have ended,
/// and waits in the kernel (`D`) for one that was stopped before it became its program.
fn stand_still(pids: &[u32]) -> bool {
    pids.iter().all(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 'Z', 'D']))
    })
}

/// Freezes a process and all below it: first those above, so that nobody sees others stop, and again
/// those that began meanwhile.
fn freeze(world: &World, pid: u32) -> Vec<u32> {
    world.eventually("the frozen machine", SOON, |_| {
        let all = tree(pid);
        signal(all.iter().copied(), Signal::SIGSTOP);
        stand_still(&all).then_some(all)
    })
}

/// A command whose first attempt waits for `go`, then writes into `kept` through a fence: a third system that
/// knows the highest attempt that it has seen. Then `rest`.
fn fenced(folder: &Path, rest: &str) -> String {
    let folder = folder.display();
    format!(
        "cd {folder}; echo begun $CORTEX_ATTEMPT >> log; \
         if [ $CORTEX_ATTEMPT = 1 ]; then until [ -e go ]; do sleep 0.05; done; fi; \
         exec 9> lock; flock 9; \
         if [ $CORTEX_ATTEMPT -ge $(cat fence 2> /dev/null || echo 0) ]; \
         then echo $CORTEX_ATTEMPT > fence; echo by $CORTEX_ATTEMPT >> kept; \
         else echo refused $CORTEX_ATTEMPT >> log; fi; \
         exec 9>&-; if [ $CORTEX_ATTEMPT = 1 ]; then {rest}; fi"
    )
}

#[test]
fn r14_3_a_node_that_wakes_after_its_lease_is_refused_and_its_process_is_ended_and_the_task_is_done_once() {
    let mut world = hub().open_node("b").slots(4).start();
    let cable = Cable::to(&world.hub().grpc);
    world.join_at(&cable.address(), "a", "permissive");
    world.cortex(&["node", "label", "a", "first=yes"]).expect(0);
    // One that is through as soon as it wakes, and one that would go on.
    let tasks: Vec<(Value, std::path::PathBuf)> = [("reports", "exit 0"), ("goes-on", "exec sleep 300")]
        .into_iter()
        .map(|(name, rest)| {
            let folder = world.path(name);
            std::fs::create_dir(&folder).expect("made");
            let script = fenced(&folder, rest);
            let task = ["--prefer", "first=yes", "--lease", LEASE, "--", "sh", "-c", &script];
            (world.add(&task), folder)
        })
        .collect();
    for (task, folder) in &tasks {
        world.eventually("its first attempt", SOON, |_| folder.join("log").exists().then_some(()));
        assert_eq!(world.task(task)["node"], "a");
    }
    let runs: Vec<String> = tasks.iter().map(|(task, _)| text(&world.task(task), "run_id")).collect();
    let frozen = freeze(&world, world.node_pid("a"));
    for (task, folder) in &tasks {
        let done = world.task_reaches(task, "done");
        assert_eq!((done["node"].as_str(), done["attempt"].as_u64()), (Some("b"), Some(2)), "{done}");
        assert_eq!(read(folder, "kept"), "by 2\n");
    }
    assert!(stand_still(&frozen), "it did not sleep all the time");
    // It wakes, and for a while nobody can tell it that its leases have ended.
    cable.cut();
    signal(frozen, Signal::SIGCONT);
    for (_, folder) in &tasks {
        std::fs::write(folder.join("go"), "").expect("let it go on");
        let refused = "begun 1\nbegun 2\nrefused 1\n";
        world.eventually("what it tried", SOON, |_| (read(folder, "log") == refused).then_some(()));
    }
    world.eventually("the end of the first", SOON, |world| {
        let log = std::fs::read_to_string(world.path("a.log")).expect("its log");
        log.lines().any(|line| line.contains("run ended") && line.contains(&runs[0])).then_some(())
    });
    cable.mend();
    for (task, _) in &tasks {
        let mark = format!("CORTEX_TASK_ID={}", id(task));
        world.eventually("the end of its process", SOON, |_| marked(&mark).is_empty().then_some(()));
    }
    // The one reports that it has succeeded, and is refused all the same. The other one was ended.
    let told = world.eventually("its late report", SOON, |world| {
        let task = world.task(&tasks[0].0);
        (!evidence(&task).is_empty()).then_some(task)
    });
    check(&told, 1);
    let late = &evidence(&told)[0];
    assert_eq!(
        (&late["attempt"], &late["node"], &late["result"]["code"]),
        (&1.into(), &"a".into(), &0.into())
    );
    world.node_reaches("a", "online", SOON);
    check(&world.task(&tasks[1].0), 0);
    for ((_, folder), run) in tasks.iter().zip(&runs) {
        assert_eq!((read(folder, "kept"), read(folder, "fence")), ("by 2\n".into(), "2\n".into()));
        assert_eq!(world.run_view(run)["state"], "lost");
    }
    // It works again, on what is new.
    world.node_reaches("a", "online", SOON);
    let next = world.add(&["-l", "first=yes", "--", "true"]);
    world.task_reaches(&next, "done");
}

fn read(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default()
}

fn text(value: &Value, name: &str) -> String {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}")).to_owned()
}

fn evidence(task: &Value) -> &[Value] {
    task["evidence"].as_array().expect("a list")
}

/// It was done once, by the second attempt, after the lease of the first, of which so many reports came late.
fn check(task: &Value, late: usize) {
    let steps = steps(task);
    let count = |what: &str| steps.iter().filter(|step| **step == what).count();
    let counts = (count("leased"), count("released"), count("done"), count("stale_report"));
    assert_eq!((counts, evidence(task).len()), ((2, 1, 1, late), late), "{task}");
    let released = task["timeline"].as_array().expect("steps").iter().find(|step| step["step"] == "released");
    let released = released.map(|step| (step["attempt"].as_u64(), step["detail"].as_str()));
    assert_eq!(released, Some((Some(1), Some("lease_expired"))), "{task}");
    assert_eq!((task["state"].as_str(), task["attempt"].as_u64()), (Some("done"), Some(2)), "{task}");
}

#[test]
fn r14_3_a_worker_that_slept_past_its_lease_is_told_that_its_attempt_is_stale_and_the_task_is_done_once() {
    let world: World = hub().start();
    let task = world.add(&["--kind", "resize", "--lease", LEASE]);
    let claim = ["task", "claim", "--kind", "resize", "--wait", "40s", "--json"];
    let attempt = |world: &World| world.cortex(&claim).expect(0).value()[0]["attempt"].as_u64();
    assert_eq!(attempt(&world), Some(1));
    assert_eq!(attempt(&world), Some(2), "when the first lease has ended");
    for what in ["finish", "extend", "fail", "release"] {
        let late = world.cortex(&["task", what, id(&task), "1", "--json"]).expect(8);
        assert_eq!(late.refusal(), "stale_attempt", "{what}");
    }
    world.cortex(&["task", "extend", id(&task), "2"]).expect(0);
    world.cortex(&["task", "finish", id(&task), "2"]).expect(0);
    let late = world.cortex(&["task", "finish", id(&task), "1", "--json"]).expect(8);
    assert_eq!(late.refusal(), "stale_attempt", "after the end too");
    // Two ends and a failure; who gives back or extends brings nothing.
    check(&world.task(&task), 3);
}
