//! Work that goes on for the life of the hub. Spawned in one place, the supervisor.

pub mod supervisor;
