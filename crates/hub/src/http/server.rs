//! The HTTP listener: HTTP/1.1 on each connection, with bounds on their number and on the time
//! for a request's head. A stalled reader stalls its own connection, and is closed with it.
//!
//! HTTP/2 is not spoken on the plain port: browsers do not, and its floods need not be met here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use cortex_core::Refusal;
use cortex_core::limits::{HEAD_MS_MAX, HTTP_CONNECTIONS_MAX};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::metrics::Metrics;

/// How long open requests have after the hub was told to stop.
const DRAIN: Duration = Duration::from_secs(2);
/// Wait after the system had no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(50);

/// Ends the connection that a request came on; a handler cancels it when its reader has stalled.
#[derive(Clone, Debug)]
pub(super) struct Connection(pub(super) CancellationToken);

/// Serves until `shutdown`, then lets open requests end for two seconds.
pub async fn serve(
    listener: Arc<TcpListener>,
    router: Router,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Result<(), Refusal> {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = shutdown.cancelled() => break,
        };
        let Some((stream, place)) = accepted else { continue };
        let (router, shutdown, count) = (router.clone(), shutdown.clone(), metrics.connection());
        // Ends with its connection, and at the latest when this function does.
        connections.spawn(async move {
            serve_one(stream, router, shutdown).await;
            drop((place, count));
        });
    }
    connections.close();
    if tokio::time::timeout(DRAIN + Duration::from_millis(250), connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "HTTP connections did not end in time");
    }
    Ok(())
}

/// The next connection once there is a place for it; `None` when it could not be taken.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _peer)) => {
            // Small answers must not wait for an acknowledgement; one without it is only slower.
            drop(stream.set_nodelay(true));
            Some((stream, place))
        }
        Err(error) => {
            tracing::debug!(%error, "a connection could not be accepted");
            tokio::time::sleep(NO_ROOM).await;
            None
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let ended = CancellationToken::new();
    let mark = Connection(ended.clone());
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(mark.clone());
        router.clone().oneshot(request.map(axum::body::Body::new))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(HEAD_MS_MAX))
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        // What breaks a connection is the client's affair: its requests are counted elsewhere.
        ended = connection.as_mut() => return drop(ended),
        () = ended.cancelled() => return,
        () = shutdown.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(tokio::time::timeout(DRAIN, connection).await);
}

/// Binds a listener. Port 0 lets the system choose.
pub async fn bind(addr: SocketAddr) -> Result<TcpListener, Refusal> {
    TcpListener::bind(addr).await.map_err(|error| {
        Refusal::new(cortex_core::Code::BadConfig, format!("{addr} cannot be bound: {error}."))
            .hint("Choose another address or port, or end the program that holds it.")
    })
}
