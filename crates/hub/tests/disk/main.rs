//! Disks that fail or stall at a named point. One test per process: the points are the process's.

mod failing;
mod stalled;
