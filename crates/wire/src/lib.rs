//! Every byte that crosses a process: protobuf messages, HTTP shapes, events, errors.
//!
//! What comes from outside is parsed once, at this door, into types of `cortex_core`; nothing
//! behind it sees protobuf or JSON. Never here: decisions, sockets, storage.

pub mod convert;
pub mod diff;
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

include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_of_calls_is_that_of_the_descriptors() {
        assert!(super::RPCS.contains(&("cortex.mesh.v1.MeshService", "Attach")), "{:?}", super::RPCS);
        assert!(super::RPCS.contains(&("cortex.mesh.v1.EnrolmentService", "Enrol")));
    }
}
