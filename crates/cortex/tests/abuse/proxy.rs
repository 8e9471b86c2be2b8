//! A network that can fall silent: connections stay open and carry nothing, as with a plug pulled.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// One network.
pub(crate) struct Proxy {
    address: SocketAddr,
    frozen: Arc<AtomicBool>,
    /// Connections of an earlier number were open during a silence, and carry nothing any more.
    number: Arc<AtomicUsize>,
}

impl Proxy {
    /// A network that leads to `hub`.
    pub(crate) fn to(hub: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address");
        let proxy = Self { address, frozen: Arc::default(), number: Arc::default() };
        let (frozen, number, hub) = (Arc::clone(&proxy.frozen), Arc::clone(&proxy.number), hub.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let far = TcpStream::connect(&hub).expect("the hub listens");
                let born = number.load(Ordering::SeqCst);
                let both = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                for (from, to) in [(both(&near), both(&far)), (both(&far), both(&near))] {
                    let (frozen, number) = (Arc::clone(&frozen), Arc::clone(&number));
                    std::thread::spawn(move || {
                        carry(from, to, &frozen, || number.load(Ordering::SeqCst) == born)
                    });
                }
            }
        });
        proxy
    }

    /// Where the node dials.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Carries nothing from here on, in either direction, and closes nothing.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
        self.number.fetch_add(1, Ordering::SeqCst);
    }

    /// New connections are carried again; those from before the silence stay dead.
    pub(crate) fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, frozen: &AtomicBool, alive: impl Fn() -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 {
            break;
        }
        while frozen.load(Ordering::SeqCst) && alive() {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !alive() {
            continue;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Nothing more is said on it; the other direction ends by itself.
    let _closed = to.shutdown(Shutdown::Both);
}
