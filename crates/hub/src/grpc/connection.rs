//! A TLS connection with what is known of its peer. One that is used for nothing within its time
//! ends by itself: HTTP/2 alone would let it stay as long as it answers pings.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cortex_core::limits::{ATTACH_STORE_MS_MAX, HELLO_MS_MAX};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::authority::{self, Identity};

/// A Hello, or a join with its commit, is done by then.
const UNUSED_MAX: Duration = Duration::from_millis(HELLO_MS_MAX + 2 * ATTACH_STORE_MS_MAX);

/// A connection.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    idle: Idle,
}

/// How long a connection has served no link.
#[derive(Default)]
struct Idle {
    links: Arc<AtomicUsize>,
    since: Option<Pin<Box<Sleep>>>,
}

/// A link that a connection serves, until this is dropped.
pub(super) struct Used(Arc<AtomicUsize>);

/// What is known of the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: Option<IpAddr>,
    /// The node that its certificate names, when it showed one of our authority.
    pub(super) identity: Option<Identity>,
    links: Arc<AtomicUsize>,
}

impl Connection {
    pub(super) fn new(stream: TlsStream<TcpStream>, address: Option<IpAddr>) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(|chain| chain.first()).and_then(|der| authority::identity(der));
        let idle = Idle::default();
        let peer = Peer { address, identity, links: Arc::clone(&idle.links) };
        Self { stream, peer, idle }
    }
}

impl Idle {
    /// Fails when no link was served for too long. Asked at each read: the other end is pinged, so
    /// there is always a next one.
    fn poll(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.links.load(Ordering::Relaxed) > 0 {
            self.since = None;
            return Ok(());
        }
        let since = self.since.get_or_insert_with(|| Box::pin(tokio::time::sleep(UNUSED_MAX)));
        match since.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Peer {
    /// The connection serves a link.
    pub(super) fn use_it(&self) -> Used {
        Used::of(&self.links)
    }
}

impl Used {
    fn of(links: &Arc<AtomicUsize>) -> Self {
        links.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(links))
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.idle.poll(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_when_it_serves_no_link_for_too_long_also_after_its_last_one() {
        let mut idle = Idle::default();
        let links = Arc::clone(&idle.links);
        let mut is_kept = || idle.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ok();
        assert!(is_kept(), "it has just begun");
        let used = [Used::of(&links), Used::of(&links)];
        tokio::time::sleep(2 * UNUSED_MAX).await;
        assert!(is_kept(), "it serves two links");
        let [first, last] = used;
        drop(first);
        tokio::time::sleep(2 * UNUSED_MAX).await;
        assert!(is_kept(), "it serves one");
        drop(last);
        assert!(is_kept(), "it has just ended");
        tokio::time::sleep(UNUSED_MAX / 2).await;
        assert!(is_kept(), "its time is not over");
        tokio::time::sleep(UNUSED_MAX / 2 + Duration::from_millis(10)).await;
        assert!(!is_kept(), "it has served nothing for its time");
    }
}
