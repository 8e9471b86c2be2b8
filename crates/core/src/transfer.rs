//! Transfers: what hub and node say to each other when content moves between them on a stream of its own.
//!
//! The receiver asks. It knows the root of a tree, and asks by hash for what it lacks: objects of the tree
//! from the top down, then chunks of files. The sender answers with packs. Content of one file, for an
//! operation on files, goes over the same streams without packs.

pub mod ask;
pub mod carry;
pub mod end;

pub use self::ask::{ApplyAsk, Filters, SendAsk, TransferAsk, TransferWork};
pub use self::carry::{Carry, DataEnd, LeftOut, Phase, Progress, TreeTold};
pub use self::end::{Noted, PathNote, TransferEnd, TransferNews};
