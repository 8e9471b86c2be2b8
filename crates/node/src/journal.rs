//! What this node has taken on, so that no command id is executed twice (invariant I4): an
//! append-only file of checksummed records, written by one thread of its own.
//!
//! What was taken on is on disk before it is acknowledged; all that wait share one sync. Other records
//! are written without waiting. A torn tail is dropped at the start, and what a later build wrote is
//! kept unread; the file is rewritten when it has grown far beyond what it says. Never here: deciding what is journaled.

mod file;
mod record;
mod thread;

pub(crate) use file::JournalFile;
pub(crate) use thread::{Ack, Id, Journal};
