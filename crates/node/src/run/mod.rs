//! One run on this machine: its guard, process, output. Never here: the hub, the policy, what is
//! remembered across restarts.

pub(crate) mod bytes;
mod ends;
pub(crate) mod guard;
pub(crate) mod guards;
pub(crate) mod input;
pub(crate) mod nursery;
pub(crate) mod output;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod protocol;
mod signals;
mod spawn;
pub(crate) mod spool;
mod tree;
pub(crate) mod worker;
