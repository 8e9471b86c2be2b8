//! Power cuts while a task is cancelled, and while the lease of a frozen node ends.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::history::{starts, step};
use crate::api::Api;
use crate::world::{World, hub, marked, signal};
use crate::{SOON, arm, restart, rounds, wait_for_kill};

/// Every point on the way of a cancel.
const POINTS: &[&str] = &[
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "hub::after_task_cancel",
    "hub::before_settle",
    "hub::after_settle",
    "node::before_end",
    "node::before_journal",
    "node::after_journal",
];

/// Submits a command, and waits until it was begun.
fn begun(world: &World, api: &Api, mut task: Value, script: &str) -> (String, std::path::PathBuf) {
    let log = tempfile::Builder::new().prefix("log-").tempfile_in(world.path("")).expect("a file");
    let (_, log) = log.keep().expect("it is kept");
    let begin = format!("echo start $CORTEX_TASK_ID $CORTEX_ATTEMPT $CORTEX_RUN_ID >> {}", log.display());
    task["argv"] = json!(["sh", "-c", format!("{begin}; {script}")]);
    let answer = api.post("/pool/tasks", &task).expect("an answer");
    let id = answer.body["id"].as_str().unwrap_or_else(|| panic!("refused: {answer:?}")).to_owned();
    world.eventually("its process", SOON, |_| (begun_by(&log) == [1]).then_some(()));
    (id, log)
}

/// The attempts that were begun.
fn begun_by(log: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(log).expect("it is there");
    starts(&text).map(|(_, attempt)| attempt).collect()
}

fn story(api: &Api, id: &str) -> Value {
    api.surely(|api| api.get(&format!("/pool/tasks/{id}"))).body
}

fn reaches(world: &World, api: &Api, id: &str, state: &str, context: &str) -> Value {
    world.eventually(&format!("task {id} {state} ({context})"), SOON, |_| {
        let task = story(api, id);
        (task["state"] == state).then_some(task)
    })
}

#[test]
fn a_power_cut_at_any_point_of_the_cancel_of_a_task_leaves_one_that_ends_once_as_cancelled() {
    let mut world = hub().open_node("a").slots(4).start();
    let api = Api::of(&world);
    for point in (0..rounds()).flat_map(|_| POINTS) {
        let (id, log) = begun(&world, &api, json!({}), "exec sleep 300");
        let cancel = |api: &Api| api.post(&format!("/pool/tasks/{id}/cancel"), &json!({}));
        let armed = arm(&world, point);
        let answer = cancel(&api);
        wait_for_kill(point, &armed);
        restart(&mut world, point);
        // One that was kept is carried through, whether it was answered or not.
        if story(&api, &id)["cancelled_by"].is_null() {
            assert!(answer.is_none(), "{point}: a cancel was forgotten: {answer:?}");
            assert_eq!(api.surely(cancel).status, 202, "{point}");
        }
        let ended = reaches(&world, &api, &id, "cancelled", point);
        assert_eq!(step(&ended, "cancelled").count(), 1, "{point}: {ended}");
        assert_eq!(step(&ended, "leased").count(), 1, "{point}: {ended}");
        assert_eq!(begun_by(&log), [1], "{point}: {ended}");
        let mark = format!("CORTEX_TASK_ID={id}");
        world.eventually(&format!("the end of its process ({point})"), SOON, |_| {
            marked(&mark).is_empty().then_some(())
        });
    }
}

/// A node is frozen with a task; the hub ends at `point` of the end of its lease.
fn lease_of_a_frozen_node_ends(point: &str) {
    let mut world = hub().open_node("a").open_node("b").start();
    world.cortex(&["node", "label", "a", "first=yes"]).expect(0);
    let api = Api::of(&world);
    let task = json!({"lease_ms": 10_000, "prefer": "first=yes"});
    let (id, log) = begun(&world, &api, task, "[ $CORTEX_ATTEMPT != 1 ] || exec sleep 300");
    assert_eq!(story(&api, &id)["node"], "a");
    let armed = arm(&world, point);
    signal([world.node_pid("a")], Signal::SIGSTOP);
    wait_for_kill(point, &armed);
    let ports = world.kill_hub();
    world.start_hub(&ports);
    let done = reaches(&world, &api, &id, "done", point);
    assert_eq!((&done["node"], &done["attempt"]), (&"b".into(), &2.into()), "{done}");
    signal([world.node_pid("a")], Signal::SIGCONT);
    let mark = format!("CORTEX_TASK_ID={id}");
    world.eventually("the end of the process of the node that was frozen", SOON, |_| {
        marked(&mark).is_empty().then_some(())
    });
    world.node_reaches("a", "online", SOON);
    let told = story(&api, &id);
    let released: Vec<&Value> = step(&told, "released").map(|step| &step["detail"]).collect();
    assert_eq!(released, ["lease_expired"], "{told}");
    assert_eq!((&told["state"], step(&told, "done").count()), (&"done".into(), 1), "{told}");
    assert_eq!(begun_by(&log), [1, 2], "{told}");
}

#[test]
fn a_power_cut_before_the_end_of_a_lease_is_kept_gives_the_task_to_one_other() {
    (0..rounds()).for_each(|_| lease_of_a_frozen_node_ends("hub::before_end_lease"));
}

#[test]
fn a_power_cut_before_a_frozen_node_is_told_that_its_lease_ended_ends_its_process() {
    (0..rounds()).for_each(|_| lease_of_a_frozen_node_ends("hub::after_end_lease"));
}
