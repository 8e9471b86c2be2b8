//! The real program: a hub, its nodes, and commands that really run. Every test has a hub and
//! data directories of its own; a WARN or ERROR in their logs that a test did not list fails it.

#![expect(clippy::print_stdout, reason = "what was measured or left out belongs to a test's output")]

mod aborted;
mod aged;
mod cable;
mod consents;
mod content;
mod crates;
mod doors;
mod every;
mod exec;
mod faults;
mod files;
mod fs;
mod imports;
mod joining;
mod locks;
mod mirror;
mod pages;
mod people;
mod recovery;
mod runs;
mod secrets;
mod skills;
mod tasks;
mod transfers;
mod up;
mod users;
mod watches;
mod work;
mod workspaces;
mod world;
mod zombie;
