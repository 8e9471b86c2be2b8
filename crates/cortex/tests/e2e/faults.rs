//! Power cuts: of the hub in the middle of a run, of a node in the middle of a run.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use crate::cable::Cable;
use crate::world::hub;

#[test]
fn a_hub_that_is_killed_mid_run_comes_back_and_the_counter_has_no_gap_and_no_double() {
    let mut world = hub().open_node("a").start();
    let count = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo $i; sleep 0.02; done";
    let mut child = world.command(&["exec", "a", "--", "sh", "-c", count]).spawn().expect("start");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut seen: Vec<String> = lines.by_ref().take(20).collect();
    assert_eq!(seen.len(), 20, "the run prints");
    let ports = world.kill_hub();
    world.start_hub(&ports);
    seen.extend(lines);
    let output = child.wait_with_output().expect("the command ends");
    let expected: Vec<String> = (1..=200).map(|n| n.to_string()).collect();
    assert_eq!(seen, expected, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Connecting again"), "it says so");
    let id = world.cortex(&["run", "ls", "--json"]).expect(0).value()[0]["id"].clone();
    let kept = world.cortex(&["run", "logs", id.as_str().expect("an id")]).expect(0).text();
    assert_eq!(kept.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn r12_3_a_link_that_is_cut_for_5_seconds_costs_no_line_and_doubles_none() {
    let mut world = hub().start();
    let cable = Cable::to(&world.hub().grpc);
    world.join_at(&cable.address(), "a", "permissive");
    let count = "i=0; while [ $i -lt 350 ]; do i=$((i+1)); echo $i; sleep 0.02; done";
    let mut child = world.command(&["exec", "a", "--", "sh", "-c", count]).spawn().expect("start");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut seen: Vec<String> = lines.by_ref().take(20).collect();
    cable.cut();
    std::thread::sleep(Duration::from_secs(5));
    cable.mend();
    seen.extend(lines);
    let output = child.wait_with_output().expect("the command ends");
    let expected: Vec<String> = (1..=350).map(|n| n.to_string()).collect();
    assert_eq!(seen, expected, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn r12_3_a_killed_nodes_run_is_settled_as_lost_within_12_seconds() {
    let mut world = hub().open_node("a").start();
    let accepted = world.cortex(&["exec", "a", "--detach", "--json", "--", "sleep", "300"]).expect(0).value();
    let id = accepted["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&id, "running", Duration::from_secs(10));
    let began = Instant::now();
    world.kill_node("a");
    let run = world.run_reaches(&id, "lost", Duration::from_secs(20));
    assert!(began.elapsed() <= Duration::from_secs(12), "it took {:?}", began.elapsed());
    assert!(run["diagnostic"].as_str().is_some_and(|text| !text.is_empty()), "{run}");
}

#[test]
fn a_hub_that_is_restarted_serves_within_2_seconds_and_finds_its_nodes() {
    let mut world = hub().node("a").start();
    let ports = world.kill_hub();
    let began = Instant::now();
    world.start_hub(&ports);
    assert!(began.elapsed() <= Duration::from_secs(2), "it took {:?}", began.elapsed());
    world.node_reaches("a", "online", Duration::from_secs(10));
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
}
