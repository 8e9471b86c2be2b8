//! The walls around a run on Linux. Never here: what a policy allows, and which program runs.

pub mod filter;
pub mod landlock;
mod syscalls;
