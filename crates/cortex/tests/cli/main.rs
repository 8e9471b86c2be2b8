//! The program without a hub: help, usage, configuration, secrets, and what a client makes of a
//! hub's answers, which a few lines of HTTP give here.

mod answers;
mod fake;
mod files;
mod giver;
mod program;
mod pull;
mod push;
mod streams;
mod taker;
mod usage;
mod waits;
