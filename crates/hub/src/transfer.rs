//! Streams for content between the hub and the processes that work on a node's files: leave for one is a
//! ticket, and whoever asked for it gets the stream. Never here: what goes over a stream, and gRPC.

mod stream;
mod tickets;

pub use stream::{Receiving, Sending, TransferStream};
pub use tickets::Opening;
pub(crate) use tickets::{Redeemed, Tickets};
