//! Power cuts at every named point of the hub, the store and the node, over the real program, and
//! what must hold after each: what was acknowledged is there and ends once, nothing runs twice,
//! output has no hole, and an invite joins one node.
//!
//! `CORTEX_ROUNDS` says how often everything is done; once when it is not set. The runner ends a test after
//! three minutes, `cargo test -p cortex --features failpoints --test kill` does not.

#![expect(clippy::print_stdout, reason = "what was counted belongs to a test's output")]

#[path = "../e2e/aged.rs"]
mod aged;
mod api;
mod applies;
mod cancel;
mod consents;
mod exec;
mod files;
mod full;
mod history;
mod imports;
mod join;
#[path = "../../src/kills/points.rs"]
mod points;
mod pool;
mod random;
mod recovery;
mod trees;
mod waves;
#[expect(dead_code, reason = "shared with the e2e tests, which need more of it")]
#[path = "../e2e/world.rs"]
mod world;

use std::path::PathBuf;
use std::time::Duration;

use crate::world::World;

/// How long a point may take to be reached, and a world to come to rest.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// How often everything is done.
pub(crate) fn rounds() -> usize {
    std::env::var("CORTEX_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Makes the next process that comes to `point` end there.
pub(crate) fn arm(world: &World, point: &str) -> PathBuf {
    let file = world.path(&format!("kill-{}", point.replace("::", "-")));
    std::fs::write(&file, "").expect("arm the point");
    file
}

/// Waits until a process has ended at the point.
pub(crate) fn wait_for_kill(point: &str, armed: &std::path::Path) {
    let until = std::time::Instant::now() + SOON;
    while armed.exists() {
        assert!(std::time::Instant::now() < until, "nobody came to {point}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Starts again what has ended at the point, where it was, and waits until the node is online.
pub(crate) fn restart(world: &mut World, point: &str) {
    if point.starts_with("node::") {
        world.kill_node("a");
        world.start_node("a");
    } else {
        let ports = world.kill_hub();
        world.start_hub(&ports);
    }
    world.node_reaches("a", "online", SOON);
}
