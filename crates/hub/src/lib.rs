//! The hub: holds the truth, lets nodes attach over gRPC, and serves people and programs over
//! HTTP. Flow, one way: edge (`grpc`, `http`) → `service` → `store` (a core decision inside one
//! transaction) → commit → events → `bus` → subscribers.
//!
//! Edges hold no logic. Nothing on the path of heartbeats, live control or new connections waits
//! for the store without a deadline, or for a full queue (DESIGN §4).

pub mod access;
pub mod audit_watch;
pub mod authority;
pub mod board;
pub mod bus;
pub mod clock;
pub mod cron;
pub mod directory;
pub mod files;
pub mod folders;
pub mod grpc;
pub mod http;
pub mod hub;
pub mod mesh;
pub mod metrics;
pub mod runlog;
pub mod secret;
pub mod service;
pub mod transfer;
pub mod workers;

pub use hub::{Config, Hub, Started, StoreKind};
