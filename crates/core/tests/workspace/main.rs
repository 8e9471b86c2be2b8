//! Workspaces: the laws of their decisions over random commands, and waves that are cut at any moment.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects, and all else is wrong alike"
)]

mod cover;
#[path = "../sync_plan/disk.rs"]
mod disk;
mod drift;
mod halts;
mod laws;
mod locks;
mod news;
mod rows;
mod rules;
#[expect(dead_code, reason = "the tests of the planner use the rest")]
#[path = "../sync_plan/trees.rs"]
mod trees;
mod waves;
mod world;

#[expect(clippy::disallowed_methods, reason = "a test may be told how long to play")]
fn rounds(few: u32) -> u32 {
    std::env::var("CORTEX_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(few)
}
