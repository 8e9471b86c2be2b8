//! Calls that need a second look: a node that is not there gets the nearest names.

use cortex_core::Code;
use cortex_wire::http::NodeView;

use crate::client::Client;
use crate::config::nearest;
use crate::error::Failure;

/// Adds the nearest name to `node_not_found`, when the hub did not. A failing list adds nothing.
pub(crate) async fn with_nearest(failure: Failure, client: &Client, asked: &str) -> Failure {
    if failure.code() != Some(Code::NodeNotFound) {
        return failure;
    }
    let nodes = client.another().list::<NodeView>("/nodes", cortex_core::limits::PAGE_ITEMS_MAX).await;
    let nodes = nodes.unwrap_or_default();
    match nearest(asked, nodes.iter().map(|node| node.name.as_str())) {
        Some(name) if name != asked => failure.way("nearest", name.to_owned()),
        Some(_) | None => failure,
    }
}
