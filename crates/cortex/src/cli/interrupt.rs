//! Ctrl-C and TERM, heard from the moment on which this is made.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Failure, Result};

/// Both signals.
pub(crate) struct Interrupt {
    int: Signal,
    term: Signal,
}

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn new() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(
                    cortex_core::Code::Internal,
                    format!("Signals cannot be heard: {error}."),
                    "Raise the limit on open files.",
                )
            })
        };
        Ok(Self { int: listen(SignalKind::interrupt())?, term: listen(SignalKind::terminate())? })
    }

    /// Waits for one; the answer is the exit status of a command that leaves because of it.
    pub(crate) async fn wait(&mut self) -> u8 {
        tokio::select! {
            _ = self.int.recv() => 130,
            _ = self.term.recv() => 143,
        }
    }
}
