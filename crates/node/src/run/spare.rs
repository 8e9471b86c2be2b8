//! A guard in waiting, so that a run need not wait for one: most of the time between a command's
//! arrival and its process is the start of the guard.
//!
//! At most one waits. It holds nothing of any run, and ends when the node process does: its
//! control socket is closed then.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::process::{Prepared, Process};
use super::protocol::Launch;

/// The place of the one that waits.
#[derive(Debug)]
pub(crate) struct Spare {
    guard_exe: Arc<Path>,
    waiting: Mutex<Option<Prepared>>,
}

impl Spare {
    /// Nobody waits so far.
    pub(crate) fn new(guard_exe: Arc<Path>) -> Self {
        Self { guard_exe, waiting: Mutex::new(None) }
    }

    /// Starts a process behind the guard that waits, or behind a fresh one when none does or the
    /// one that did was ended meanwhile. For a blocking thread with a runtime.
    pub(crate) fn begin(&self, launch: Launch, with_stdin: bool) -> io::Result<Process> {
        if let Some(prepared) = self.take()
            && let Ok(process) = prepared.launch(launch.clone(), with_stdin)
        {
            return Ok(process);
        }
        Prepared::new(&self.guard_exe)?.launch(launch, with_stdin)
    }

    /// Lets one wait. For a blocking thread with a runtime. A failure is met by the next run.
    pub(crate) fn refill(&self) {
        if self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        match Prepared::new(&self.guard_exe) {
            Ok(prepared) => {
                // Two may have been made at once; the one that is dropped ends by itself.
                drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner).replace(prepared));
            }
            Err(error) => tracing::debug!(%error, "no guard could be started in advance"),
        }
    }

    fn take(&self) -> Option<Prepared> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
