//! Every byte that crosses a process: protobuf messages, HTTP shapes, events, errors.
//!
//! What comes from outside is parsed once, at this door, into types of `cortex_core`; nothing
//! behind it sees protobuf or JSON. Never here: decisions, sockets, storage.

pub mod convert;
pub mod error;
pub mod http;
pub mod policy;

/// Types generated from `proto/`.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]
pub mod mesh {
    tonic::include_proto!("cortex.mesh.v1");
}
