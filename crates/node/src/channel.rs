//! A gRPC channel over one TLS stream that was dialled before, so that failures of the network
//! and of TLS are told apart from those of the protocol. It never dials by itself.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cortex_core::Refusal;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
pub(crate) use tonic::transport::Channel;
use tonic::transport::{Endpoint, Uri};

use crate::tls::{HUB_NAME, unreachable};

/// HTTP/2 windows: bulk of one link fits a round trip.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Content comes in frames of up to so many bytes: as many as one message has.
const FRAME_BYTES: u32 = 256 * 1024;
/// HTTP/2 keep-alive, beside the protocol's own heartbeats: both ends notice a dead peer.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(4);

/// Begins HTTP/2 on the stream.
pub(crate) async fn over(stream: TlsStream<TcpStream>, hub: &str) -> Result<Channel, Refusal> {
    connect(stream, hub, |endpoint| {
        endpoint
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
    })
    .await
}

/// Begins HTTP/2 on a stream for content: its windows grow with what the way to the hub holds.
pub(crate) async fn for_content(stream: TlsStream<TcpStream>, hub: &str) -> Result<Channel, Refusal> {
    connect(stream, hub, |endpoint| endpoint.http2_adaptive_window(true).max_frame_size(FRAME_BYTES)).await
}

async fn connect(
    stream: TlsStream<TcpStream>,
    hub: &str,
    windows: impl FnOnce(Endpoint) -> Endpoint,
) -> Result<Channel, Refusal> {
    let stream = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: Uri| {
        let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
        std::future::ready(
            taken.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)),
        )
    });
    let endpoint = Endpoint::try_from(format!("http://{HUB_NAME}"))
        .map_err(|error| unreachable(hub, &error))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true);
    windows(endpoint).connect_with_connector(connector).await.map_err(|error| unreachable(hub, &error))
}
