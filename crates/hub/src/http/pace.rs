//! How long a connection may take: for the head of a request that has begun, and between two
//! requests. The first must be short (a head that drips in holds a place), the second long
//! (a client that asks once a minute keeps its connection). The end of an answer waits for a client
//! that reads slowly in buffers of the connection: as long as it takes some of it, it has time.
//!
//! Bytes of a head that came with the request before are not seen here; such a head has the longer
//! time, which an idle connection has anyway.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::task::AtomicWaker;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The two bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// For a head, from its first byte; for the first one from the connection's beginning.
    pub(super) head: Duration,
    /// From the end of an answer, or the last of it that went out, to the next request's first byte.
    pub(super) idle: Duration,
}

/// What the connection waits for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// A head, until then.
    Head(Instant),
    /// The first byte of a head, until then.
    Idle(Instant),
    /// Its own answer.
    Busy,
}

/// What a connection and its requests know together.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pace: Pace,
    phase: Arc<Mutex<Phase>>,
    /// The connection's task, which must look at the time anew when it is idle.
    task: Arc<AtomicWaker>,
}

impl Progress {
    pub(super) fn new(pace: Pace) -> Self {
        let phase = Phase::Head(Instant::now() + pace.head);
        Self { pace, phase: Arc::new(Mutex::new(phase)), task: Arc::default() }
    }

    /// A head is whole; the connection is busy until what is returned is dropped.
    pub(super) fn begin(&self) -> Answering {
        *self.lock() = Phase::Busy;
        Answering(self.clone())
    }

    fn heard(&self) {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Head(Instant::now() + self.pace.head);
        }
    }

    /// Some of an answer went out; after its end that begins the time anew.
    fn wrote(&self) {
        let mut phase = self.lock();
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Idle(Instant::now() + self.pace.idle);
        }
    }

    fn until(&self) -> Option<Instant> {
        match *self.lock() {
            Phase::Head(until) | Phase::Idle(until) => Some(until),
            Phase::Busy => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Answering(Progress);

impl Drop for Answering {
    fn drop(&mut self) {
        *self.0.lock() = Phase::Idle(Instant::now() + self.0.pace.idle);
        self.0.task.wake();
    }
}

/// The body of an answer; the request is answered when it has ended.
pub(super) struct Answer<B> {
    body: B,
    _answering: Answering,
}

impl<B> Answer<B> {
    pub(super) const fn new(body: B, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The reading half of a stream; reads fail when what it waits for does not come in time.
pub(super) struct Paced<S> {
    stream: S,
    progress: Progress,
    alarm: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, progress: Progress) -> Self {
        let alarm = Box::pin(tokio::time::sleep_until(Instant::now() + progress.pace.head));
        Self { stream, progress, alarm }
    }

    /// Whether the time is over; otherwise the task is woken when it is.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.progress.task.register(context.waker());
        let Some(until) = self.progress.until() else { return Poll::Pending };
        if self.alarm.deadline() != until {
            self.alarm.as_mut().reset(until);
        }
        self.alarm.as_mut().poll(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() && buffer.filled().len() > before {
            self.progress.heard();
        }
        // Bytes that drip in are no reason to wait longer.
        if self.poll_late(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

/// The writing half of a stream.
pub(super) struct Writing<S> {
    stream: S,
    progress: Progress,
}

impl<S> Writing<S> {
    pub(super) const fn new(stream: S, progress: Progress) -> Self {
        Self { stream, progress }
    }

    fn told(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(len)) if len > 0) {
            self.progress.wrote();
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Writing<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.told(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.told(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
