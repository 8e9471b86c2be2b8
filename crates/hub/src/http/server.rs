//! The HTTP listener: HTTP/1.1 on each connection, with bounds on their number, on the time for a
//! request's head and on the time between requests. A stalled reader stalls its own connection, and
//! is closed with it; one that vanished without a word is found out by keep-alive probes.
//!
//! HTTP/2 is not spoken on the plain port: browsers do not, and its floods need not be met here.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use cortex_core::Refusal;
use cortex_core::limits::{
    HEAD_MS_MAX, HTTP_CONNECTIONS_MAX, HTTP_IDLE_MS_MAX, HTTP_KEEPALIVE_MS, HTTP_KEEPALIVE_RETRY_MS,
    HTTP_KEEPALIVE_TRIES, LISTEN_BACKLOG,
};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::App;
use crate::http::pace::{Answer, Pace, Paced, Progress, Writing};
use crate::metrics::Metrics;

/// How long open requests have after the hub was told to stop.
const DRAIN: Duration = Duration::from_secs(2);
/// Wait after the system had no room for another connection.
const NO_ROOM: Duration = Duration::from_millis(50);

const PACE: Pace =
    Pace { head: Duration::from_millis(HEAD_MS_MAX), idle: Duration::from_millis(HTTP_IDLE_MS_MAX) };

/// Who sent a request, as far as its connection tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source(pub(super) IpAddr);

/// Ends the connection that a request came on; a handler cancels it when its reader has stalled.
#[derive(Clone, Debug)]
pub(super) struct Connection(pub(super) CancellationToken);

/// Serves until `shutdown`, then lets open requests end for two seconds.
pub async fn serve(
    listener: Arc<TcpListener>,
    app: App,
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
        let Some((stream, source, place)) = accepted else { continue };
        let (app, shutdown, count) = (app.clone(), shutdown.clone(), metrics.connection());
        // Ends with its connection, and at the latest when this function does.
        connections.spawn(async move {
            serve_one(stream, source, move |request| app.clone().answer(request), PACE, shutdown).await;
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
) -> Option<(TcpStream, Source, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Small answers must not wait for an acknowledgement; one without it is only slower.
            drop(stream.set_nodelay(true));
            if let Err(error) = watch_peer(&stream) {
                tracing::debug!(%error, "a connection is served without keep-alive probes");
            }
            Some((stream, Source(peer.ip()), place))
        }
        Err(error) => {
            tracing::debug!(%error, "a connection could not be accepted");
            tokio::time::sleep(NO_ROOM).await;
            None
        }
    }
}

/// Has the system find out when the peer of a silent connection has vanished. `TCP_USER_TIMEOUT`
/// is not set: it would also end the connection of one who is there and does not read for a while,
/// such as a pager on the output of a run.
fn watch_peer(stream: &TcpStream) -> std::io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_millis(HTTP_KEEPALIVE_MS))
        .with_interval(Duration::from_millis(HTTP_KEEPALIVE_RETRY_MS))
        .with_retries(HTTP_KEEPALIVE_TRIES);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

async fn serve_one<A: Future<Output = Response>>(
    stream: TcpStream,
    source: Source,
    answer: impl Fn(Request) -> A,
    pace: Pace,
    shutdown: CancellationToken,
) {
    let ended = CancellationToken::new();
    let mark = Connection(ended.clone());
    let progress = Progress::new(pace);
    let (reading, writing) = stream.into_split();
    let writing = Writing::new(writing, progress.clone());
    let paced = tokio::io::join(Paced::new(reading, progress.clone()), writing);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        let answering = progress.begin();
        request.extensions_mut().insert(mark.clone());
        request.extensions_mut().insert(source);
        let response = answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(response.await.map(|body| Answer::new(body, answering))) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // The stream keeps the time, and knows an idle connection from a head that drips in.
        .header_read_timeout(None::<Duration>)
        .half_close(false)
        .serve_connection(TokioIo::new(paced), service);
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

/// Binds a listener. Port 0 lets the system choose. Needs a runtime.
pub fn bind(addr: SocketAddr) -> Result<TcpListener, Refusal> {
    let listen = || {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As the system's default for servers: a port whose old connections linger is free.
        socket.set_reuseaddr(true)?;
        socket.bind(addr)?;
        socket.listen(LISTEN_BACKLOG)
    };
    listen().map_err(|error: std::io::Error| {
        Refusal::new(cortex_core::Code::BadConfig, format!("{addr} cannot be bound: {error}."))
            .hint("Choose another address or port, or end the program that holds it.")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::Router;
    use axum::response::IntoResponse as _;
    use tower::ServiceExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Nothing here takes that long unless it hangs.
    const SOON: Duration = Duration::from_secs(10);
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    /// Far more than the buffers of a [`connection`] in the system hold.
    const LARGE: usize = 4 * 1024 * 1024;

    /// A connection that is served at this pace, and its server's end.
    async fn served(head: Duration, idle: Duration) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let router = Router::new()
            .route("/", axum::routing::get(|| async { "here" }))
            .route("/large", axum::routing::get(|| async { vec![b'x'; LARGE] }));
        let server = tokio::spawn(async move {
            let (stream, peer) = listener.accept().await.expect("a connection");
            SockRef::from(&stream).set_send_buffer_size(64 * 1024).expect("an option");
            let (pace, source) = (Pace { head, idle }, Source(peer.ip()));
            let answer = |request| async { router.clone().oneshot(request).await.into_response() };
            serve_one(stream, source, answer, pace, CancellationToken::new()).await;
        });
        let client = TcpSocket::new_v4().expect("a socket");
        client.set_recv_buffer_size(64 * 1024).expect("an option");
        (client.connect(addr).await.expect("connected"), server)
    }

    async fn connection(head: Duration, idle: Duration) -> TcpStream {
        served(head, idle).await.0
    }

    async fn ask(client: &mut TcpStream) {
        client.write_all(REQUEST).await.expect("sent");
        answer(client).await;
    }

    async fn answer(client: &mut TcpStream) {
        let mut text = Vec::new();
        while !text.ends_with(b"here") {
            let read = tokio::time::timeout(SOON, client.read_buf(&mut text)).await.expect("in time");
            assert_ne!(read.expect("read"), 0, "the connection ended: {}", String::from_utf8_lossy(&text));
        }
    }

    /// Waits until the hub ends the connection.
    async fn until_closed(client: &mut TcpStream) {
        let mut byte = [0];
        let read = tokio::time::timeout(SOON, client.read(&mut byte)).await.expect("in time");
        assert!(matches!(read, Ok(0) | Err(_)), "the connection goes on");
    }

    #[tokio::test]
    async fn a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() {
        let mut client = connection(Duration::from_millis(200), SOON).await;
        for _ in 0..3 {
            ask(&mut client).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let (first, rest) = REQUEST.split_at(10);
        client.write_all(first).await.expect("sent");
        client.write_all(rest).await.expect("sent");
        answer(&mut client).await;
    }

    #[tokio::test]
    async fn a_head_that_drips_in_is_cut_off_also_behind_a_whole_request() {
        for requests in 0..2 {
            let mut client = connection(Duration::from_millis(300), 10 * SOON).await;
            for _ in 0..requests {
                ask(&mut client).await;
            }
            let began = Instant::now();
            let dripping = async {
                for byte in REQUEST.iter().take(REQUEST.len() - 1).cycle() {
                    if client.write_all(&[*byte]).await.is_err() || began.elapsed() > SOON {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            dripping.await;
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
            assert!(began.elapsed() >= Duration::from_millis(300), "it had its time");
        }
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_closed_before_and_behind_a_request() {
        let mut silent = connection(Duration::from_millis(200), 10 * SOON).await;
        until_closed(&mut silent).await;
        let mut idle = connection(SOON, Duration::from_millis(200)).await;
        ask(&mut idle).await;
        until_closed(&mut idle).await;
    }

    #[tokio::test]
    async fn who_reads_a_long_answer_slowly_gets_its_end_although_that_takes_longer_than_idling_may() {
        let idle = Duration::from_secs(1);
        let mut client = connection(SOON, idle).await;
        client.write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let (began, mut received) = (Instant::now(), 0);
        let mut some = vec![0; 32 * 1024];
        while received < LARGE {
            let read = tokio::time::timeout(SOON, client.read(&mut some)).await.expect("in time");
            let read = read.expect("the connection lives");
            assert_ne!(read, 0, "cut off after {received} bytes and {:?}", began.elapsed());
            received += read;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() > 2 * idle, "it was slow: {:?}", began.elapsed());
        until_closed(&mut client).await;
    }

    #[tokio::test]
    async fn who_does_not_read_the_end_of_an_answer_at_all_is_cut_off() {
        let (mut client, server) = served(SOON, Duration::from_millis(300)).await;
        client.write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        tokio::time::timeout(SOON, server).await.expect("in time").expect("no panic");
    }

    #[tokio::test]
    async fn peers_that_vanish_are_probed_for() {
        let listener = Arc::new(bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port"));
        let addr = listener.local_addr().expect("an address");
        let places = Arc::new(Semaphore::new(1));
        let (_client, accepted) = tokio::join!(TcpStream::connect(addr), accept(&listener, &places));
        let (stream, _, _) = accepted.expect("a connection");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("an option"));
        let seconds = |time: std::io::Result<Duration>| time.expect("an option").as_secs();
        assert_eq!((seconds(socket.tcp_keepalive_time()), seconds(socket.tcp_keepalive_interval())), (15, 5));
        assert_eq!(socket.tcp_keepalive_retries().expect("an option"), 3);
    }
}
