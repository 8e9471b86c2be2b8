//! The walls around a run on Linux. Never here: what a policy allows, and which program runs.

pub(crate) mod base;
pub(crate) mod cgroup;
pub(crate) mod confine;
pub mod filter;
pub(crate) mod host;
pub(crate) mod identity;
pub mod landlock;
mod layers;
pub(crate) mod limits;
mod mounts;
pub(crate) mod probe;
pub(crate) mod program;
pub(crate) mod room;
pub(crate) mod rules;
mod scratch;
pub(crate) mod step;
mod syscalls;
mod trees;
pub(crate) mod walls;
