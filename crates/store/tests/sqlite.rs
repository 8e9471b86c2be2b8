//! What only the durable store has: groups, bounds, deadlines, a directory of its own, damage,
//! and what is left after a kill or a fault of the disk.
//!
//! `CORTEX_ROUNDS` raises the number of kills and faults; the default keeps the suite short.

mod support;

#[path = "sqlite/bounds.rs"]
mod bounds;
#[path = "sqlite/child.rs"]
mod child;
#[path = "sqlite/directory.rs"]
mod directory;
#[path = "sqlite/faults.rs"]
mod faults;
#[path = "sqlite/kill.rs"]
mod kill;
#[path = "sqlite/pool.rs"]
mod pool;
#[path = "sqlite/steps.rs"]
mod steps;
#[path = "sqlite/story.rs"]
mod story;
