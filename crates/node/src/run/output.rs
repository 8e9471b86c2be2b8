//! Reads a process's pipes into the spool. Ends when the PROCESS has ended, with what is in the
//! pipes then: a child in the background may hold them open for days. Never here: sending.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortex_core::id::RunId;
use cortex_core::limits;
use cortex_core::stream::Stream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::spool::Spool;
use super::worker::Event;

/// Bytes read from each pipe after the process's end, at most: the largest that a pipe holds.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
/// Wait before a spool that could not write is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// The reader of one run.
#[derive(Debug)]
pub(crate) struct Output {
    /// Which.
    pub(crate) run: RunId,
    /// Where the bytes go.
    pub(crate) spool: Arc<Spool>,
    /// Who is told.
    pub(crate) events: mpsc::Sender<Event>,
    /// Whether more may be read.
    pub(crate) may_read: watch::Receiver<bool>,
    /// Bytes that the run may write; what comes beyond is not kept, and `over` says so.
    pub(crate) bytes_max: Option<u64>,
    /// Cancelled when the run wrote more.
    pub(crate) over: CancellationToken,
    /// Open pipes.
    pub(crate) stdout: Option<pipe::Receiver>,
    /// Open pipes.
    pub(crate) stderr: Option<pipe::Receiver>,
}

impl Output {
    /// Reads until `exited`, and then what is left in the pipes.
    pub(crate) async fn pump(mut self, exited: &CancellationToken) {
        let mut buffer = vec![0; limits::FRAME_BYTES_MAX];
        loop {
            let stream = tokio::select! {
                biased;
                stream = self.readable() => stream,
                () = exited.cancelled() => break,
            };
            self.read(stream, &mut buffer, pipe::Receiver::try_read).await;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut left = DRAIN_BYTES_MAX;
            while left > 0 {
                let read = self.read(stream, &mut buffer, read_now).await;
                if read == 0 {
                    break;
                }
                left = left.saturating_sub(read);
            }
        }
    }

    /// Waits until one of the pipes has something and there is room for it.
    async fn readable(&mut self) -> Stream {
        // An error means that nobody decides any more; the owner is about to end this.
        drop(self.may_read.wait_for(|may| *may).await);
        tokio::select! {
            stream = ready(Stream::Stdout, self.stdout.as_ref()) => stream,
            stream = ready(Stream::Stderr, self.stderr.as_ref()) => stream,
        }
    }

    /// Reads once without waiting; how many bytes there were.
    async fn read(
        &mut self,
        stream: Stream,
        buffer: &mut [u8],
        once: impl Fn(&pipe::Receiver, &mut [u8]) -> io::Result<usize>,
    ) -> usize {
        let slot = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let Some(pipe) = slot else { return 0 };
        match once(pipe, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Ok(0) | Err(_) => {
                *slot = None;
                0
            }
            Ok(read) => {
                self.keep(stream, Bytes::copy_from_slice(&buffer[..read])).await;
                read
            }
        }
    }

    /// Puts bytes into the spool. While that fails (a full disk) the process waits; nothing is
    /// lost, and what the hub takes in makes room in memory.
    async fn keep(&mut self, stream: Stream, mut data: Bytes) {
        if let Some(left) = &mut self.bytes_max {
            let len = data.len() as u64;
            if len > *left {
                self.over.cancel();
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            }
            *left = left.saturating_sub(len);
            if data.is_empty() {
                return;
            }
        }
        let len = data.len() as u64;
        let mut told = false;
        while let Err(error) = self.spool.append(stream, data.clone()).await {
            if !told {
                tracing::warn!(run = %self.run, %error, "output waits: the spool cannot be written");
                told = true;
            }
            tokio::time::sleep(RETRY).await;
        }
        // The receiver is gone only when the node process ends.
        let _told = self.events.send(Event::Wrote { run: self.run, stream, len }).await;
    }
}

/// Reads past what the runtime knows of the pipe: its readiness may lag behind the exit, and what
/// the process wrote last is in the pipe all the same.
fn read_now(pipe: &pipe::Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    nix::unistd::read(pipe, buffer).map_err(io::Error::from)
}

async fn ready(stream: Stream, pipe: Option<&pipe::Receiver>) -> Stream {
    match pipe {
        Some(pipe) => {
            // An error shows again in the read that follows.
            let _ready = pipe.readable().await;
            stream
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::spool::Read;
    use super::*;

    /// With one thread nobody polls the pipes for the runtime between the write and the pump, so it
    /// cannot have heard of what is in them: the case of a process that writes and exits at once.
    #[tokio::test(flavor = "current_thread")]
    async fn what_was_written_last_is_kept_though_the_runtime_has_not_heard_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Arc::new(Spool::new(folder.path().join("run")));
        let (stdout, mut stdout_end) = io::pipe().expect("a pipe");
        let (stderr, mut stderr_end) = io::pipe().expect("a pipe");
        let (events, mut told) = mpsc::channel(8);
        let (_may_read_in, may_read) = watch::channel(true);
        let output = Output {
            run: RunId::mint(1, &[0; 10]),
            spool: Arc::clone(&spool),
            events,
            may_read,
            bytes_max: None,
            over: CancellationToken::new(),
            stdout: Some(pipe::Receiver::from_owned_fd(stdout.into()).expect("a receiver")),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr.into()).expect("a receiver")),
        };
        stdout_end.write_all(b"last words").expect("written");
        stderr_end.write_all(b"and why").expect("written");
        let exited = CancellationToken::new();
        exited.cancel();
        output.pump(&exited).await;
        let kept = |stream, offset, text| Read::Here(stream, offset, Bytes::from_static(text));
        assert_eq!(spool.read(0, 100), kept(Stream::Stdout, 0, b"last words"));
        assert_eq!(spool.read(10, 100), kept(Stream::Stderr, 0, b"and why"));
        let told = std::iter::from_fn(|| told.try_recv().ok()).count();
        assert_eq!(told, 2, "the actor hears of both");
    }
}
