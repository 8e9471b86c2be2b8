//! A power cut of the hub while a node whose certificate has ended gets another one.

use std::fs;

use crate::aged::age;
use crate::world::{Process, World, hub, program};
use crate::{SOON, arm, rounds, wait_for_kill};

/// Every point of a recovery.
const POINTS: &[&str] = &["hub::recover_before_commit", "hub::recover_after_commit"];

/// How often the node has recovered, and how often it may yet.
fn recoveries(world: &World) -> (u64, u64) {
    let view = world.cortex(&["node", "recoveries", "a", "--json"]).expect(0).value();
    (view["used"].as_u64().expect("a number"), view["left"].as_u64().expect("a number"))
}

#[test]
fn a_power_cut_at_any_point_of_a_recovery_costs_one_recovery_and_the_node_comes_back_by_itself() {
    let mut world = hub().open_node("a").start();
    let dir = world.path("node-a");
    let of = world.cortex(&["node", "get", "a", "--json"]).expect(0).value()["id"].clone();
    world.stop_node("a");
    for round in 0..rounds() {
        for point in POINTS {
            world.cortex(&["node", "recoveries", "a", "--set", "5"]).expect(0);
            let (used, _) = recoveries(&world);
            let before = fs::read(dir.join("node.key")).expect("the key");
            age(&world, &dir);
            let armed = arm(&world, point);
            let mut command = program(&world.path(""));
            command.args(["node", "start", "--json", "--data-dir"]).arg(&dir);
            let node = Process::start(&mut command, &world.path("a.log"));
            wait_for_kill(point, &armed);
            let ports = world.kill_hub();
            let kept = fs::read(dir.join("recovering.key")).expect("a key that is not answered for");
            assert!(fs::read(dir.join("node.key")).expect("the key") == before, "{point}: no answer came");
            world.start_hub(&ports);
            let attached = node.first_line();
            assert_eq!((&attached["attached"], &attached["node_id"]), (&true.into(), &of), "{round} {point}");
            assert_eq!(recoveries(&world), (used + 1, 4), "{round} {point}: once");
            assert!(
                fs::read(dir.join("node.key")).expect("the key") == kept,
                "{point}: the key that was sent"
            );
            assert!(!dir.join("recovering.key").exists());
            world.cortex(&["exec", "a", "--", "true"]).expect(0);
            world.node_reaches("a", "online", SOON);
            node.stop();
        }
    }
    let nodes = world.cortex(&["node", "ls", "--json"]).expect(0).value();
    assert_eq!(nodes.as_array().map(Vec::len), Some(1), "{nodes}");
    world.cortex(&["audit", "verify"]).expect(0);
}
