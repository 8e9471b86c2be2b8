//! A power cut while a run is cancelled.

use crate::history::History;
use crate::world::hub;
use crate::{SOON, arm, restart, rounds, wait_for_kill};

/// Every point on the way of a cancel.
const POINTS: &[&str] = &[
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "hub::before_settle",
    "hub::after_settle",
    "node::before_end",
    "node::before_journal",
    "node::after_journal",
];

#[test]
fn a_power_cut_at_any_point_of_a_cancel_leaves_a_run_that_ends_once() {
    let mut world = hub().open_node("a").start();
    let mut history = History::new(&world);
    for _ in 0..rounds() {
        for point in POINTS {
            let id = history.start_sleeper(&world);
            world.run_reaches(&id, "running", SOON);
            let armed = arm(&world, point);
            // It may end with the process that it asked.
            let _ended = world.cortex(&["run", "cancel", &id, "--grace", "100ms"]);
            wait_for_kill(point, &armed);
            restart(&mut world, point);
            let run = world.run_view(&id);
            if run["ended_at"].is_null() {
                // Asked again, since the first may not have been heard; it may end meanwhile.
                let _ended = world.cortex(&["run", "cancel", &id, "--grace", "100ms"]);
            }
            history.settle(&world, point);
        }
    }
    history.check(&world);
}
