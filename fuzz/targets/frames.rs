//! Bytes on the node port: whatever they are, they become a message, or are ignored, or refused. What
//! became a message is the same after it was written and read again.
#![no_main]

use cortex_wire::convert::transfer::{carry_from_bytes, carry_to_bytes};
use cortex_wire::convert::{to_hub_from_proto, to_hub_into_proto, to_node_from_proto, to_node_into_proto};
use cortex_wire::mesh;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = mesh::AttachRequest::decode(bytes)
        && let Ok(Some(message)) = to_hub_from_proto(request)
    {
        let again = to_hub_from_proto(to_hub_into_proto(message.clone()));
        assert_eq!(again.as_ref(), Ok(&Some(message)));
    }
    if let Ok(response) = mesh::AttachResponse::decode(bytes)
        && let Ok(Some(message)) = to_node_from_proto(response)
    {
        let again = to_node_from_proto(to_node_into_proto(message.clone()));
        assert_eq!(again.as_ref(), Ok(&Some(message)));
    }
    if let Ok(Some(carry)) = carry_from_bytes(bytes.to_vec().into()) {
        let again = carry_from_bytes(carry_to_bytes(carry.clone()));
        assert_eq!(again.as_ref(), Ok(&Some(carry)));
    }
});
