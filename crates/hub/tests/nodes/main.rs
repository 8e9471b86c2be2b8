//! The node-facing half of the hub, over real TLS.

mod content;
mod doors;
mod joining;
mod links;
mod recovery;
mod runs;
mod support;
mod transfers;
