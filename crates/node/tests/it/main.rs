//! A whole node against a hub of a few lines: joining, links, runs, the end of processes.

#![expect(unreachable_pub, reason = "modules of one test program share their helpers")]

mod hub;
mod joining;
mod links;
mod node;
mod processes;
mod spool;
mod trees;
mod walls;
mod watches;
