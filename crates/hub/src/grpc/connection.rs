//! A TLS connection with what is known of its peer. One that is used for nothing within its time
//! ends by itself: HTTP/2 alone would let it stay as long as it answers pings.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    unused: Option<Pin<Box<Sleep>>>,
}

/// What is known of the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: Option<IpAddr>,
    /// The node that its certificate names, when it showed one of our authority.
    pub(super) identity: Option<Identity>,
    used: Arc<AtomicBool>,
}

impl Connection {
    pub(super) fn new(stream: TlsStream<TcpStream>, address: Option<IpAddr>) -> Self {
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(|chain| chain.first()).and_then(|der| authority::identity(der));
        let peer = Peer { address, identity, used: Arc::default() };
        Self { stream, peer, unused: Some(Box::pin(tokio::time::sleep(UNUSED_MAX))) }
    }

    fn poll_unused(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let Some(unused) = &mut self.unused else { return Ok(()) };
        if self.peer.used.load(Ordering::Relaxed) {
            self.unused = None;
            return Ok(());
        }
        match unused.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Peer {
    /// The connection serves a link.
    pub(super) fn use_it(&self) {
        self.used.store(true, Ordering::Relaxed);
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
        self.poll_unused(context)?;
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
