//! A real node whose certificate has ended, and a copy of its disk.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::aged::age;
use crate::world::{Ended, World, hub, program};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a folder");
    for name in ["node.key", "node.crt", "authority.crt", "node.json", "recovery.key", "journal"] {
        std::fs::copy(from.join(name), to.join(name)).expect("copied");
    }
}

fn recoveries(world: &World) -> (u64, u64) {
    let view = world.cortex(&["node", "recoveries", "a", "--json"]).expect(0).value();
    (view["used"].as_u64().expect("a number"), view["left"].as_u64().expect("a number"))
}

#[test]
fn a_node_that_was_away_for_long_comes_back_by_itself_and_a_copy_of_its_disk_is_noticed() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = hub().open_node("a").start();
    let dir = world.path("node-a");
    let mode = dir.join("recovery.key").metadata().expect("the second key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(recoveries(&world), (0, 5));
    world.stop_node("a");
    let copied = world.path("copied");
    copy(&dir, &copied);

    age(&world, &dir);
    let key = std::fs::read(dir.join("node.key")).expect("the key");
    world.start_node("a");
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
    assert_eq!(recoveries(&world), (1, 4));
    assert_ne!(std::fs::read(dir.join("node.key")).expect("the key"), key, "a fresh key");
    assert!(!dir.join("recovering.key").exists());
    world.cortex(&["node", "recoveries", "a", "--set", "7"]).expect(0);
    assert_eq!(recoveries(&world), (1, 7));
    world.stop_node("a");

    std::fs::write(world.path("expected-warnings"), "two machines use one identity\n").expect("listed");
    let mut command = program(&world.path(""));
    command.args(["node", "start", "--json", "--data-dir"]).arg(&copied).env("CORTEX_LOG", "off");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = Ended::of(command.spawn().expect("start the copy"));
    assert_eq!(ended.refusal(), "cloned_identity", "{}", ended.stderr);
    world.node_reaches("a", "quarantined", Duration::from_secs(10));
}
