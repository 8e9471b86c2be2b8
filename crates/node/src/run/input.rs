//! Standard input of one run on its way to the process. Bounded: a hub that sends beyond the
//! credit is told so. Never here: offsets and repeats (`cortex_core::node_runs`).

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use cortex_core::limits;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::sync::Notify;

/// Bytes that the process has not taken, and whether more follow.
#[derive(Debug, Default)]
pub(crate) struct Input {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: BytesMut,
    eof: bool,
}

impl Input {
    /// Adds bytes; `false` when they go beyond the bound and were not taken.
    pub(crate) fn push(&self, data: &Bytes, eof: bool) -> bool {
        {
            let mut state = self.lock();
            if (state.waiting.len() + data.len()) as u64 > 2 * limits::INPUT_BYTES_MAX {
                return false;
            }
            state.waiting.extend_from_slice(data);
            state.eof |= eof;
        }
        self.changed.notify_one();
        true
    }

    /// Gives the process what comes, until the end of it; calls `taken` with the bytes in all.
    /// A process that does not read any more takes everything: nobody is to wait for it.
    pub(crate) async fn pump<F: Future<Output = ()>>(
        &self,
        mut pipe: Option<pipe::Sender>,
        taken: impl Fn(u64) -> F,
    ) {
        let mut upto = 0;
        loop {
            let (data, eof) = self.next().await;
            for piece in data.chunks(limits::FRAME_BYTES_MAX) {
                if let Some(open) = &mut pipe
                    && open.write_all(piece).await.is_err()
                {
                    pipe = None;
                }
                upto += piece.len() as u64;
                taken(upto).await;
            }
            if eof {
                return;
            }
        }
    }

    async fn next(&self) -> (Bytes, bool) {
        loop {
            {
                let mut state = self.lock();
                if state.eof || !state.waiting.is_empty() {
                    return (state.waiting.split().freeze(), state.eof);
                }
            }
            self.changed.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete before anything in it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
