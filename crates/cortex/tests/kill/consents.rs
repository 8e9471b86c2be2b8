//! A power cut while a person's yes starts a command.

use crate::world::{World, hub};
use crate::{SOON, arm, restart, rounds, wait_for_kill};

/// Every point on the way of an approval to its run.
const POINTS: &[&str] = &[
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "hub::before_send_start",
    "node::before_journal",
    "node::after_journal",
    "node::after_spawn",
    "node::before_end",
];

#[test]
fn a_power_cut_at_any_point_of_an_approval_leaves_a_question_that_waits_or_a_run_that_ends_once() {
    let mut world = hub().open_node("a").start();
    let agent = world.path("agent.token").display().to_string();
    world.cortex(&["token", "create", "agent", "--role", "operator", "--out", &agent]).expect(0);
    for round in 0..rounds() {
        for (number, point) in POINTS.iter().enumerate() {
            let counter = world.path(&format!("counter-{round}-{number}")).display().to_string();
            let id = ask(&world, &agent, &counter);
            let armed = arm(&world, point);
            // Whether it is answered depends on the point.
            let _ended = world.cortex(&["consent", "approve", &id]);
            wait_for_kill(point, &armed);
            restart(&mut world, point);
            let shown = world.cortex(&["consent", "show", &id, "--json"]).expect(0).value();
            match shown["standing"].as_str() {
                Some("pending") => drop(world.cortex(&["consent", "approve", &id]).expect(0)),
                Some("approved") => drop(world.cortex(&["consent", "approve", &id]).expect(8)),
                other => panic!("{point}: {other:?}"),
            }
            let run = shown["run_id"].as_str().expect("an id");
            check_run(&world, run, &counter, point);
        }
    }
}

/// Waits for the run's end. A hub that died knows it exactly; of a node that died between the
/// start and the written end nobody does, and then the run is lost, and was not begun twice.
fn check_run(world: &World, run: &str, counter: &str, point: &str) {
    let state = world.eventually(&format!("the end of run {run} ({point})"), SOON, |world| {
        let state = world.run_view(run)["state"].as_str().expect("a state").to_owned();
        matches!(state.as_str(), "exited" | "lost").then_some(state)
    });
    let counted = std::fs::read_to_string(counter).unwrap_or_default();
    if state == "exited" {
        assert_eq!(counted, "once\n", "{point}");
    } else {
        assert!(point.starts_with("node::"), "{point}: the run is lost");
        assert!(["", "once\n"].contains(&counted.as_str()), "{point}: {counted}");
    }
}

/// Asks for a command that counts, and leaves. Returns the id of the question.
fn ask(world: &World, agent: &str, counter: &str) -> String {
    let script = format!("echo once >> {counter}");
    let arguments = [
        "exec",
        "a",
        "--token-file",
        agent,
        "--json",
        "--detach",
        "--ask",
        "to count",
        "--",
        "sh",
        "-c",
        &script,
    ];
    let refused = world.cortex(&arguments).expect(6).value();
    refused["error"]["details"]["consent_id"].as_str().expect("an id").to_owned()
}
