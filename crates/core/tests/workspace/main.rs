//! Workspaces: the laws of their decisions over random commands, and waves that are cut at any moment.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it expects, and all else is wrong alike"
)]

mod laws;
mod rows;
mod rules;
mod waves;
