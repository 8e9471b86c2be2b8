//! A power cut while a counter is started, runs and ends.

use crate::history::History;
use crate::world::hub;
use crate::{arm, restart, rounds, wait_for_kill};

/// Every point on the way of a run.
const POINTS: &[&str] = &[
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "hub::before_send_start",
    "hub::before_settle",
    "hub::after_settle",
    "hub::log_flush",
    "node::before_journal",
    "node::after_journal",
    "node::after_spawn",
    "node::before_end",
];

#[test]
fn a_power_cut_at_any_point_of_an_exec_loses_and_doubles_nothing() {
    let mut world = hub().open_node("a").start();
    let mut history = History::new(&world);
    for _ in 0..rounds() {
        for point in POINTS {
            history.start(&world);
            let armed = arm(&world, point);
            // The first comes to the point at the latest when it ends; whether it is acknowledged
            // depends on the point.
            history.start(&world);
            wait_for_kill(point, &armed);
            restart(&mut world, point);
            history.start_surely(&world);
            history.settle(&world, point);
        }
    }
    history.check(&world);
}
