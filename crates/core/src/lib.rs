//! What Cortex Hub decides: ids, limits, policy, runs, links. Pure state and functions.
//!
//! Never here: a clock, a socket, a file, a thread, async, serde. Time and randomness are
//! arguments, maps are ordered, so one seed replays one world (DESIGN §2).
//!
//! Two forms: a **decision** is a function over a stored entity (`run::decide`,
//! `invite::redeem`) that the store runs inside one transaction; a **machine** lives with a link
//! or a process (`link`, `hub_runs`, `node_runs`, `outbox`, `subscribers`) and has `handle_*`
//! to put in, `poll_*` to take out and `poll_timeout` to say when it wants to be woken, and why.

pub mod access;
pub mod audit;
pub mod consent;
pub mod error;
pub mod event;
pub mod files;
pub mod hub_files;
pub mod hub_runs;
pub mod id;
pub mod invite;
pub mod journal;
pub mod limits;
pub mod link;
pub mod lock;
pub mod message;
pub mod name;
pub mod node;
pub mod node_files;
pub mod node_runs;
pub mod outbox;
pub mod path;
pub mod policy;
pub mod pool;
pub mod recovery;
pub mod registry;
pub mod retention;
pub mod rights;
pub mod run;
pub mod sandbox;
pub mod skill;
pub mod stream;
pub mod subscribers;
pub mod sync;
pub mod time;
pub mod token;
pub mod transfer;
pub mod user;
pub mod watch;
pub mod words;
pub mod workspace;

pub use error::{Code, Refusal};
