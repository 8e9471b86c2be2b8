//! A power cut while a line is appended to a file of a node.

use std::time::{Duration, Instant};

use crate::api::{Answer, Api};
use crate::world::{World, hub};
use crate::{SOON, arm, restart, rounds, wait_for_kill};

/// Every point on the way of an operation that changes files.
const POINTS: &[&str] = &[
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "hub::files_before_ask",
    "hub::files_after_answer",
    "hub::files_before_settle",
    "node::before_journal",
    "node::after_journal",
    "node::files_prepared",
    "node::files_done",
];

/// Asks with one key until it is told what came of it. Whether the line is in the file; `None` when nobody
/// knows, which is told for good.
fn surely(world: &World, path: &str, key: &str) -> Option<()> {
    let until = Instant::now() + 2 * SOON;
    loop {
        let answer = Api::of(world).put_once(path, key, &format!("{key}\n"));
        if answer.as_ref().is_some_and(|answer| answer.status < 300) {
            return Some(());
        }
        if answer.as_ref().and_then(Answer::refusal) == Some("unknown_outcome") {
            // Of one that is under way that is said as well.
            let again = Api::of(world).put_once(path, key, &format!("{key}\n"));
            match again {
                Some(again) if again.status < 300 => return Some(()),
                Some(again) if again.refusal() == Some("unknown_outcome") => return None,
                Some(_) | None => {}
            }
        }
        assert!(Instant::now() < until, "{key} is not told: {answer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_power_cut_at_any_point_of_an_append_loses_no_line_and_doubles_none() {
    let mut world = hub().open_node("a").start();
    let file = world.path("lines");
    let path = format!("/nodes/a/fs?path={}&mode=append&timeout_ms=5000", file.display());
    let mut unknown = 0;
    let mut keys = Vec::new();
    for round in 0..rounds() {
        for point in POINTS {
            let key = format!("{}-{round}", point.replace("::", "-"));
            let armed = arm(&world, point);
            let first = Api::of(&world).put_once(&path, &key, &format!("{key}\n"));
            wait_for_kill(point, &armed);
            restart(&mut world, point);
            let is_told = surely(&world, &path, &key).is_some();
            assert!(is_told || first.is_none_or(|first| first.status >= 300), "{point}: it was acknowledged");
            unknown += usize::from(!is_told);
            keys.push((key, is_told));
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            for (key, is_told) in &keys {
                let lines = text.lines().filter(|line| line == key).count();
                assert!(lines == 1 || (lines == 0 && !is_told), "{point}: {lines} of {key}:\n{text}");
            }
        }
    }
    println!("{} appends, of {unknown} nobody knew", keys.len());
}
