//! A node of Cortex Hub: joins a hub, dials out to it, and executes runs under its policy.
//!
//! `cortex_core::node_runs` and `cortex_core::link` decide; this crate drives them: it has the
//! clock, the sockets, the processes and the files. One task (`actor`) owns all state; each run
//! has a task (`run::worker`) and a guard process (`run::guard`) of its own. Never here: listening
//! sockets, a shell around a command, rights that the hub's policy did not give.

mod actor;
mod bulk;
mod ceiling;
mod channel;
mod clock;
pub mod enrol;
mod facts;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
mod identity;
mod journal;
mod link;
pub mod local;
mod node;
mod policy;
mod proof;
mod recover;
mod run;
pub mod sandbox;
mod tls;
pub mod trial;

pub use node::{Attached, NodeConfig, is_enrolled, run};
pub use run::nursery::{GUARD_ARG, run_if_guard};
pub use tls::HUB_NAME;
