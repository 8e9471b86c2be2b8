//! A world on a seed: the real machines of `cortex_core` and the memory store of `cortex_store`
//! under crash, freeze, delay, loss, repeats and late farewells (RELIABILITY L2, EXAMPLES §15).
//!
//! Never here: a clock, a thread, an unordered map, randomness other than the seed's. What
//! happened is recorded in one history, and the invariants are checked from it alone.

mod check;
mod editors;
mod faults;
mod hub;
mod log;
mod net;
mod node;
mod people;
mod random;
mod worker;
mod world;

pub use check::Violation;
pub use world::{Report, run, run_told};
