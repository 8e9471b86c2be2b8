//! The node-facing half of the hub, over real TLS.

mod joining;
mod links;
mod runs;
mod support;
