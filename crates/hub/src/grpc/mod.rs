//! The door for nodes: gRPC over TLS 1.3. Translates, and holds no decision.
//!
//! Never here: an unbounded wait. A handshake, a Hello and each silence have their deadlines, and
//! a connection that is used for nothing ends by itself.

mod attach;
mod connection;
mod enrol;
mod transfer;

use std::sync::Arc;
use std::time::Duration;

use cortex_core::limits::{MESSAGE_BYTES_MAX, TLS_HANDSHAKE_MS_MAX};
use cortex_core::{Code, Refusal};
use cortex_wire::mesh::enrolment_service_server::EnrolmentServiceServer;
use cortex_wire::mesh::mesh_service_server::MeshServiceServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

use crate::authority::Authority;
use crate::mesh::Mesh;
use crate::service::enrol::Enrol;
use crate::service::enrol::recover::Recover;
use connection::Connection;

/// Handshakes at once. Far above what one machine can compute in a second, so that ten seconds of
/// slow ones (ABUSE 16) do not keep nodes out; more wait in the listener's backlog.
const HANDSHAKES_MAX: usize = 8_192;
/// A stream for Attach, one for its successor, and some for a node that hurries.
const STREAMS_MAX: u32 = 16;
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// Streams that were reset before they were looked at; more end the connection (ABUSE 25).
const RESETS_PENDING_MAX: usize = 32;
const KEEPALIVE: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// The largest request to join is a few hundred bytes.
const ENROL_BYTES_MAX: usize = 64 * 1024;
/// How long farewells may take at the end.
const FAREWELL: Duration = Duration::from_secs(2);
/// When nodes may come back after a restart of the hub, at the earliest.
const RETRY_AFTER_MS: u64 = 200;

/// Serves nodes until `shutdown`, then says goodbye to all of them.
///
/// # Errors
/// `internal` when TLS or the server cannot be set up.
pub async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    mesh: Mesh,
    enrol: Enrol,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    let acceptor = TlsAcceptor::from(Arc::new(authority.server_config()?));
    let (connections, incoming) = mpsc::channel(64);
    let tasks = TaskTracker::new();
    let accepting = accept(listener, acceptor, connections, tasks.clone(), shutdown.clone());
    let attach = MeshServiceServer::new(attach::Door::new(mesh.clone(), authority, tasks.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);
    let recover = Recover::new(enrol.clone(), mesh.clone());
    tasks.spawn(enrol.clone().run_tally(shutdown.clone()));
    let join = EnrolmentServiceServer::new(enrol::Door::new(enrol, recover))
        .max_decoding_message_size(ENROL_BYTES_MAX);
    let over = shutdown.clone();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
        .add_service(attach)
        .add_service(join)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), async move { over.cancelled().await });
    let farewell = async {
        shutdown.cancelled().await;
        let refusal = Refusal::new(Code::HubUnreachable, "The hub is going down.")
            .hint("The node comes back by itself when the hub serves again.");
        mesh.goodbye(&refusal, RETRY_AFTER_MS);
        tokio::time::sleep(FAREWELL).await;
    };
    let result = tokio::select! {
        ((), served) = async { tokio::join!(accepting, serving) } => served,
        // Whoever is still here does not listen.
        () = farewell => Ok(()),
    };
    tasks.close();
    result.map_err(|error| {
        tracing::error!(%error, "the node port failed");
        Refusal::new(Code::Internal, "The node port failed.")
    })
}

/// Takes connections until `shutdown`. An error of one, or of the listener itself (no file
/// descriptors), never ends it and never makes it spin.
async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: mpsc::Sender<Result<Connection, std::io::Error>>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = async {
            let permit = Arc::clone(&handshakes).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accepted => accepted,
        };
        let Ok(permit) = permit else { return };
        match accepted {
            Ok((stream, _)) => {
                let shaking = shake_hands(stream, acceptor.clone(), connections.clone(), permit);
                tasks.spawn(shaking);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    connections: mpsc::Sender<Result<Connection, std::io::Error>>,
    permit: OwnedSemaphorePermit,
) {
    fail::fail_point!("hub::after_accept");
    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection went before its handshake");
        return;
    }
    let deadline = Duration::from_millis(TLS_HANDSHAKE_MS_MAX);
    match tokio::time::timeout(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            // The server takes them at once; it is gone when the hub stops.
            let _stopped = connections.send(Ok(Connection::new(stream, peer))).await;
        }
        Ok(Err(error)) => tracing::debug!(%error, ?peer, "TLS handshake failed"),
        Err(_) => tracing::debug!(?peer, "TLS handshake took too long"),
    }
    drop(permit);
}
