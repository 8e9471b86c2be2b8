//! Power cuts of hub and nodes with twenty tasks under way: commands for two nodes, and payloads for
//! workers over HTTP.

mod crew;
mod history;
mod leases;
mod steered;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::world::{World, hub};
use crate::{SOON, arm, rounds, wait_for_kill};
use crew::{Crew, NODES};

/// Every point on the way of a task, but those of its cancel and of the end of its lease.
const POINTS: &[&str] = &[
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "hub::after_submit",
    "hub::before_claim",
    "hub::after_claim",
    "hub::before_send_start",
    "hub::before_settle",
    "hub::after_settle",
    "hub::log_flush",
    "hub::after_worker_claim",
    "hub::before_report",
    "hub::after_report",
    "hub::before_due",
    "hub::after_due",
    "hub::after_accept",
    "node::before_journal",
    "node::after_journal",
    "node::after_spawn",
    "node::before_end",
];
/// Rounds of a world before everything in it is looked at, and another one begins.
const ROUNDS_PER_WORLD: usize = 25;
/// Rounds with moments that nobody chose, when nobody says otherwise.
const RANDOM_ROUNDS: usize = 5;

/// What ends in a round.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Whoever comes to this point first.
    At(&'static str),
    /// Whoever comes to this point after a while, with twice as many tasks under way.
    Later(&'static str, Duration),
    /// The hub, after a while.
    Hub(Duration),
    /// The hub, after a while, and again when it is back for a while.
    Twice(Duration, Duration),
    /// A node, after a while.
    Node(&'static str, Duration),
    /// The hub and a node, after a while.
    Both(&'static str, Duration),
}

impl Cut {
    const fn name(self) -> &'static str {
        match self {
            Self::At(point) | Self::Later(point, _) => point,
            Self::Hub(_) => "the hub at any moment",
            Self::Twice(..) => "the hub twice",
            Self::Node(..) => "a node at any moment",
            Self::Both(..) => "the hub and a node at once",
        }
    }
}

/// Plays these rounds, in worlds of some each.
fn play(cuts: &[Cut]) {
    let (began, mut kills) = (Instant::now(), BTreeMap::<&str, usize>::new());
    let mut tasks = 0;
    for cuts in cuts.chunks(ROUNDS_PER_WORLD) {
        let mut world = NODES.iter().fold(hub(), |plan, name| plan.open_node(name)).slots(8).start();
        let mut crew = Crew::new(&world);
        for cut in cuts {
            crew.begin(&format!("{cut:?}"));
            let is_of_hub = end(&mut world, &crew, *cut);
            crew.settle_commands(&world, is_of_hub);
            *kills.entry(cut.name()).or_default() += 1;
        }
        tasks += crew.settle_and_check(&world);
    }
    let (rounds, took) = (cuts.len(), began.elapsed());
    println!("{rounds} rounds with {tasks} tasks in {took:?}; all held; ends: {kills:?}");
}

/// Has somebody ended, and starts it again. Whether it was the hub.
fn end(world: &mut World, crew: &Crew, cut: Cut) -> bool {
    match cut {
        Cut::At(point) => end_at(world, crew, point),
        Cut::Later(point, after) => {
            crew.submit();
            std::thread::sleep(after);
            end_at(world, crew, point)
        }
        Cut::Hub(after) => {
            crew.submit();
            std::thread::sleep(after);
            restart_hub(world);
            true
        }
        Cut::Twice(after, again) => {
            crew.submit();
            std::thread::sleep(after);
            restart_hub(world);
            std::thread::sleep(again);
            restart_hub(world);
            true
        }
        Cut::Both(name, after) => {
            crew.submit();
            std::thread::sleep(after);
            world.kill_node(name);
            restart_hub(world);
            world.start_node(name);
            false
        }
        Cut::Node(name, after) => {
            crew.submit();
            std::thread::sleep(after);
            world.kill_node(name);
            world.start_node(name);
            false
        }
    }
}

/// Whoever comes to the point next ends there.
fn end_at(world: &mut World, crew: &Crew, point: &str) -> bool {
    // Nodes that are connected dial again only when they have to; a machine that joins dials.
    let invite = (point == "hub::after_accept").then(|| world.invite(&[]).1);
    let armed = arm(world, point);
    crew.submit();
    if let Some(invite) = invite {
        let refused = world.join_only(&invite, "c");
        assert_ne!(refused.code, Some(0), "the hub ended before it answered: {refused:?}");
    }
    wait_for_kill(point, &armed);
    let is_of_hub = !point.starts_with("node::");
    if is_of_hub {
        restart_hub(world)
    } else {
        restart_ended_node(world)
    }
    is_of_hub
}

fn restart_hub(world: &mut World) {
    let ports = world.kill_hub();
    world.start_hub(&ports);
}

/// Whether a child of this process has ended, which it is told later by whoever waits for it.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('Z'))
}

/// Starts the node again that has ended at a point.
fn restart_ended_node(world: &mut World) {
    let until = Instant::now() + SOON;
    loop {
        if let Some(name) = NODES.iter().find(|name| has_ended(world.node_pid(name))) {
            world.kill_node(name);
            return world.start_node(name);
        }
        assert!(Instant::now() < until, "no node has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_power_cut_at_any_point_of_the_pool_loses_and_doubles_no_task() {
    let cuts: Vec<Cut> = (0..rounds()).flat_map(|_| POINTS).map(|point| Cut::At(point)).collect();
    play(&cuts);
}

#[test]
fn a_power_cut_at_any_moment_loses_and_doubles_none_of_twenty_tasks() {
    let rounds =
        std::env::var("CORTEX_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(RANDOM_ROUNDS);
    let cut = |round: usize| {
        let (after, again) = (any_time(400), any_time(300));
        let node = NODES[round / 5 % 2];
        match round % 5 {
            0 => Cut::Hub(after),
            1 => Cut::Node(node, after),
            2 => Cut::Twice(after, again),
            3 => Cut::Both(node, after),
            _ => Cut::Later(POINTS[round / 5 % POINTS.len()], after),
        }
    };
    play(&(0..rounds).map(cut).collect::<Vec<_>>());
}

fn any_time(below_ms: u64) -> Duration {
    let mut random = [0; 2];
    getrandom::fill(&mut random).expect("randomness");
    Duration::from_millis(u64::from(u16::from_le_bytes(random)) % below_ms)
}
