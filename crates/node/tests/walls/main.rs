//! Walls around runs, on this machine: as root, whose runs become another user, and as an ordinary
//! user, at both levels.

#![expect(unreachable_pub, reason = "modules of one test program share their helpers")]

mod bounds;
mod clerks;
mod disk;
mod escape;
mod nurseries;
mod rooms;
mod support;
mod temporary;
mod transfers;
mod watches;
