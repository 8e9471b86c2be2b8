//! A node process that is killed takes everything with it that it ran.

use std::time::{Duration, Instant};

use crate::SOON;
use crate::world::{hub, marked};

/// Forks twice, each time into a session of its own, and ends on nothing but KILL; so do those that
/// it forks. Makes the file READY when all are there.
const STUBBORN: &str = r#"
deaf="trap '' TERM HUP INT QUIT"
eval "$deaf"
setsid sh -c "$deaf; (setsid sh -c \"$deaf; touch READY; while :; do sleep 1; done\" &); while :; do sleep 1; done" &
while :; do sleep 1; done
"#;

#[test]
fn nothing_of_a_run_is_left_when_the_node_process_is_killed_and_the_run_is_lost_with_a_reason() {
    let mut world = hub().open_node("a").start();
    let ready = world.path("ready");
    let script = STUBBORN.replace("READY", &ready.display().to_string());
    let line = ["exec", "a", "--detach", "--json", "--", "sh", "-c", &script];
    let accepted = world.cortex(&line).expect(0).value();
    let id = accepted["run_id"].as_str().expect("an id").to_owned();
    world.eventually("the whole tree", SOON, |_| ready.exists().then_some(()));
    let mark = format!("CORTEX_RUN_ID={id}");
    assert!(marked(&mark).len() >= 3, "the whole tree is marked");
    world.kill_node("a");
    let since = Instant::now();
    while !marked(&mark).is_empty() {
        assert!(since.elapsed() < Duration::from_secs(5), "{:?} are left", marked(&mark));
        std::thread::sleep(Duration::from_millis(20));
    }
    world.start_node("a");
    let run = world.run_reaches(&id, "lost", SOON);
    assert!(run["diagnostic"].as_str().is_some_and(|text| text.contains("node process")), "{run}");
}
