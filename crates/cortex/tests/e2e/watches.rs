//! Folders that their nodes watch, against a real hub and real nodes: an edit is elsewhere soon, and what is at
//! rest costs nothing.

use std::fs;
use std::time::{Duration, Instant};

use crate::workspaces::{Scene, WS};
use crate::world::canary::metrics;

/// What the tests wait for takes a second or less; a machine with much to do takes longer.
const SOON: Duration = Duration::from_secs(20);
/// Longer than from a change to the look that follows.
const REST: Duration = Duration::from_millis(1_000);
/// Between two looks at a folder that is not watched.
const BY_TIME: Duration = Duration::from_secs(10);

impl Scene {
    fn figure(&self, name: &str) -> u64 {
        let text = metrics(&self.world.hub().http);
        let count = text.lines().find_map(|line| line.strip_prefix(&format!("cortex_{name} ")));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    }

    /// How often the hub asked for a folder, or to bring one to a revision.
    fn asks(&self) -> u64 {
        self.figure("folder_asks_total")
    }

    fn are_watched(&self, nodes: &[&str]) {
        self.world.eventually("all are watched", SOON, |_| {
            nodes.iter().all(|node| self.member(node)["watch"] == "events").then_some(())
        });
    }

    /// Until nothing is asked for longer than a change takes to be told and looked at.
    fn rests(&self) -> u64 {
        self.world.eventually("it comes to rest", SOON, |_| {
            let before = self.asks();
            std::thread::sleep(REST);
            (self.asks() == before).then_some(before)
        })
    }
}

#[test]
fn an_edit_at_the_lead_is_at_the_follower_soon_and_a_workspace_at_rest_asks_for_nothing() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", "src/x", "1\n");
    scene.write("a", "target/out", "1\n");
    scene.ws(&["create", WS, "--lead", &scene.place("a"), "--exclude", "target/"]).expect(0);
    scene.attach("b", &["--wait"]);
    scene.are_watched(&["a", "b"]);
    assert_eq!(scene.figure("folders_watched"), 2);
    let at_rest = scene.rests();
    // What is left out is quiet, and so is a look itself.
    scene.write("a", "target/out", "2\n");
    std::thread::sleep(REST);
    assert_eq!(scene.asks(), at_rest);

    let begun = Instant::now();
    scene.write("a", "src/x", "2\n");
    scene.world.eventually("the edit", SOON, |_| (scene.read("b", "src/x") == "2\n").then_some(()));
    let took = begun.elapsed();
    eprintln!("an edit was at the follower after {took:?}");
    assert!(took < BY_TIME, "{took:?}");
}

#[test]
fn an_edit_in_a_folder_that_is_new_and_one_of_a_follower_are_known_as_soon() {
    let scene = Scene::new(&["a", "b"]);
    scene.write("a", "src/x", "1\n");
    scene.lead("a", &[]);
    scene.attach("b", &["--wait"]);
    scene.are_watched(&["a", "b"]);
    let begun = Instant::now();
    scene.write("a", "new/مجلد/y", "y\n");
    let there = scene.folder("b").join("new/مجلد/y");
    scene.world.eventually("a new folder", SOON, |_| there.exists().then_some(()));
    scene.write("a", "new/مجلد/y", "again\n");
    scene.world.eventually("an edit in it", SOON, |_| {
        (fs::read_to_string(&there).is_ok_and(|text| text == "again\n")).then_some(())
    });
    scene.write("b", "src/x", "its own\n");
    scene.reaches("b", "drifted");
    assert!(begun.elapsed() < BY_TIME, "{:?}", begun.elapsed());
}

#[test]
fn a_node_that_comes_back_is_looked_at_and_watched_again() {
    let mut scene = Scene::new(&["a", "b"]);
    scene.write("a", "x", "1\n");
    scene.lead("a", &[]);
    scene.attach("b", &["--wait"]);
    scene.are_watched(&["a", "b"]);
    scene.world.kill_node("a");
    scene.reaches("a", "offline");
    assert_eq!(scene.member("a")["watch"], "scan");
    scene.write("a", "x", "2\n");
    scene.world.start_node("a");
    scene.world.eventually("what it did meanwhile", SOON, |_| (scene.read("b", "x") == "2\n").then_some(()));
    scene.are_watched(&["a", "b"]);
    scene.write("a", "x", "3\n");
    scene.world.eventually("the edit", SOON, |_| (scene.read("b", "x") == "3\n").then_some(()));
}
