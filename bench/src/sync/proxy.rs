//! A relay of TCP connections on loopback that counts bytes, and cuts all connections at a byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const PIECE: usize = 64 << 10;

/// A running relay. Ended when dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    /// Bytes of both directions so far.
    passed: AtomicU64,
    /// Where all connections are cut, counted as `passed` is; `u64::MAX`: nowhere.
    cut_at: AtomicU64,
    /// How many cuts there were.
    cuts: watch::Sender<u64>,
}

impl Proxy {
    /// Starts a relay to `target` on a free port.
    pub(crate) async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            passed: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            cuts: watch::Sender::new(0),
        });
        let accepting = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(relay(client, target, Arc::clone(&state)));
                }
            }
        });
        Ok(Self { address, state, accepting })
    }

    /// Bytes of both directions so far.
    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::Relaxed)
    }

    /// Cuts all connections once so many more bytes have passed; later ones are whole.
    pub(crate) fn cut_after(&self, bytes: u64) {
        self.state.cut_at.store(self.passed() + bytes, Ordering::Relaxed);
    }

    /// How often it has cut.
    pub(crate) fn cuts(&self) -> u64 {
        *self.state.cuts.borrow()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn relay(client: TcpStream, target: SocketAddr, state: Arc<State>) {
    let mut cut = state.cuts.subscribe();
    // A target that is not there ends the client's connection, as without a relay.
    let Ok(server) = TcpStream::connect(target).await else { return };
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let both = async {
        tokio::join!(pump(from_client, to_server, &state), pump(from_server, to_client, &state));
    };
    tokio::select! {
        () = both => {}
        _ = cut.changed() => {}
    }
}

/// Moves bytes in one direction to their end, the cut, or an error, all of which end the connection.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State) {
    let mut piece = vec![0; PIECE];
    while let Ok(read) = from.read(&mut piece).await {
        if read == 0 {
            break;
        }
        let cut_at = state.cut_at.load(Ordering::Relaxed);
        let before = state.passed.fetch_add(read as u64, Ordering::Relaxed);
        let over = (before + read as u64).saturating_sub(cut_at);
        let kept = read.saturating_sub(usize::try_from(over).unwrap_or(usize::MAX));
        state.passed.fetch_sub((read - kept) as u64, Ordering::Relaxed);
        if to.write_all(&piece[..kept]).await.is_err() {
            return;
        }
        if kept < read && state.cut_at.swap(u64::MAX, Ordering::Relaxed) != u64::MAX {
            state.cuts.send_modify(|cuts| *cuts += 1);
            return;
        }
    }
    // The other end is told; an error means that it knows.
    drop(to.shutdown().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    drop(tokio::io::copy(&mut read, &mut write).await);
                });
            }
        });
        address
    }

    async fn exchange(proxy: &Proxy, bytes: usize) -> usize {
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        drop(stream.write_all(&vec![7; bytes]).await);
        let mut got = vec![0; bytes];
        let mut have = 0;
        while have < bytes {
            match stream.read(&mut got[have..]).await {
                Ok(0) | Err(_) => break,
                Ok(read) => have += read,
            }
        }
        have
    }

    #[tokio::test]
    async fn bytes_of_both_directions_are_counted() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        assert_eq!(exchange(&proxy, 1000).await, 1000);
        assert_eq!(proxy.passed(), 2000);
    }

    #[tokio::test]
    async fn a_cut_comes_at_its_byte_and_once() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        proxy.cut_after(1500);
        assert_eq!(exchange(&proxy, 1000).await, 500);
        assert_eq!((proxy.passed(), proxy.cuts()), (1500, 1));
        assert_eq!(exchange(&proxy, 1000).await, 1000);
        assert_eq!(proxy.cuts(), 1);
    }
}
