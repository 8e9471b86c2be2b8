//! Stand-in for the node-facing listener.

use std::sync::Arc;

use cortex_core::Refusal;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::mesh::Mesh;
use crate::service::enrol::Enrol;

/// Serves nodes until `shutdown`.
pub async fn serve(
    listener: tokio::net::TcpListener,
    authority: Arc<Authority>,
    mesh: Mesh,
    enrol: Enrol,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    shutdown.cancelled().await;
    drop((listener, authority, mesh, enrol));
    Ok(())
}
