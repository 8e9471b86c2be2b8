//! The network between a node and the hub, which can be cut: every connection breaks, and new
//! ones are closed at once, until it is mended.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// One cable.
pub(crate) struct Cable {
    address: SocketAddr,
    whole: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Cable {
    /// A cable that ends at `hub`.
    pub(crate) fn to(hub: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address");
        let cable = Self { address, whole: Arc::new(AtomicBool::new(true)), open: Arc::default() };
        let (whole, open, hub) = (Arc::clone(&cable.whole), Arc::clone(&cable.open), hub.to_owned());
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if !whole.load(Ordering::SeqCst) {
                    continue;
                }
                // A hub that is down takes no connection, and whoever dialled hears that.
                if let Ok(far) = TcpStream::connect(&hub) {
                    join(&near, &far, &open);
                }
            }
        });
        cable
    }

    /// Where the node dials.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.whole.store(false, Ordering::SeqCst);
        for stream in self.open.lock().expect("nobody panicked with it").drain(..) {
            // One that has ended by itself cannot be shut down again.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Lets new connections through.
    pub(crate) fn mend(&self) {
        self.whole.store(true, Ordering::SeqCst);
    }
}

fn join(near: &TcpStream, far: &TcpStream, open: &Mutex<Vec<TcpStream>>) {
    let both = |stream: &TcpStream| stream.try_clone().expect("a second handle");
    open.lock().expect("nobody panicked with it").extend([both(near), both(far)]);
    for (from, to) in [(both(near), both(far)), (both(far), both(near))] {
        std::thread::spawn(move || carry(from, to));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut buffer) {
        if read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}
