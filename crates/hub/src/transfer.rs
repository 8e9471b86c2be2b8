//! Content on its way through the hub: streams to the processes that work on a node's files, and what is
//! moved over them between callers and nodes.

pub(crate) mod asked;
pub(crate) mod chunks;
pub(crate) mod give;
pub(crate) mod import;
pub(crate) mod io;
pub(crate) mod keep;
pub(crate) mod merge;
pub(crate) mod mirror;
pub(crate) mod pace;
#[cfg(test)]
pub(crate) mod played;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod spool;
mod stream;
mod tickets;

pub use stream::{Receiving, Sending, TransferStream};
pub use tickets::Opening;
pub(crate) use tickets::{Redeemed, Tickets};
