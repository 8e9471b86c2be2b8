//! The second connection to the hub, for content: heartbeats and commands never wait behind it. It is
//! dialled when the first stream is wanted, shared by all of them, and closed a while after the last. Never
//! here: what is said on a stream, and who may have one.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cortex_core::files::ask::Ticket;
use cortex_core::id::Epoch;
use cortex_core::{Refusal, limits};
use cortex_wire::convert::transfer::{Given, Sent, given_from, sent_into};
use cortex_wire::mesh;
use tokio::sync::mpsc;

use crate::channel::{self, Channel};
use crate::enrol::blocking;
use crate::identity::DataDir;
use crate::link::{self, Frames};
use crate::tls;

/// A connection that no stream uses is closed after so long.
const UNUSED_MAX: Duration = Duration::from_secs(60);
/// Time for the dial, and for the hub to take a ticket.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// The connection, when there is one. Cheap to share.
#[derive(Debug)]
pub(crate) struct Bulk {
    hub: String,
    dir: Arc<DataDir>,
    /// One dial at a time.
    dialling: tokio::sync::Mutex<()>,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    channel: Option<Channel>,
    /// Counts the connections, so that an old timer closes no newer one.
    number: u64,
    streams: usize,
    /// Counts the times at which nobody used it.
    idle: u64,
}

/// Counts one stream for as long as it lives.
#[derive(Debug)]
struct Using(Arc<Mutex<Held>>);

/// One stream. Dropped, it is over for both ends.
#[derive(Debug)]
pub(crate) struct Stream {
    /// The way to the hub.
    pub(crate) out: Out,
    /// The way from it.
    pub(crate) inbound: Inbound,
}

/// The way to the hub. Dropped, nothing more comes on it.
#[derive(Debug)]
pub(crate) struct Out(mpsc::Sender<mesh::TransferRequest>);

/// The way from the hub.
#[derive(Debug)]
pub(crate) struct Inbound {
    frames: Frames,
    _using: Using,
}

impl Bulk {
    pub(crate) fn new(hub: String, dir: Arc<DataDir>) -> Self {
        Self { hub, dir, dialling: tokio::sync::Mutex::default(), held: Arc::default() }
    }

    /// Opens the stream of a ticket.
    ///
    /// # Errors
    /// The hub's refusal of the ticket; `hub_unreachable`.
    pub(crate) async fn open(&self, ticket: Ticket, epoch: Epoch) -> Result<Stream, Refusal> {
        let late = |_| Err(tls::unreachable(&self.hub, &"it took no stream for content in time"));
        tokio::time::timeout(OPEN_MAX, self.open_at_once(ticket, epoch)).await.unwrap_or_else(late)
    }

    async fn open_at_once(&self, ticket: Ticket, epoch: Epoch) -> Result<Stream, Refusal> {
        let using = Using::of(&self.held);
        let (channel, number) = self.channel().await?;
        let (out, frames) = mpsc::channel(limits::CARRIES_WAITING_MAX);
        // The queue is empty and its other end is here.
        let _queued = out.try_send(sent_into(Sent::Open { ticket, epoch }));
        match link::transfer(&self.hub, channel, frames).await {
            Ok(frames) => Ok(Stream { out: Out(out), inbound: Inbound { frames, _using: using } }),
            Err(refusal) => {
                if refusal.code == cortex_core::Code::HubUnreachable {
                    self.forget(number);
                }
                Err(refusal)
            }
        }
    }

    /// The connection that is there, or a new one.
    async fn channel(&self) -> Result<(Channel, u64), Refusal> {
        let _one_at_a_time = self.dialling.lock().await;
        let there = |held: &Held| held.channel.clone().map(|channel| (channel, held.number));
        if let Some(there) = there(&lock(&self.held)) {
            return Ok(there);
        }
        let dir = Arc::clone(&self.dir);
        let credentials = blocking(move || dir.credentials()).await?;
        let stream = tls::dial(&self.hub, tls::attach_config(&credentials)?).await?;
        let channel = channel::for_content(stream, &self.hub).await?;
        tracing::debug!("connected to the hub for content");
        let mut held = lock(&self.held);
        held.number += 1;
        held.channel = Some(channel.clone());
        Ok((channel, held.number))
    }

    fn forget(&self, number: u64) {
        let mut held = lock(&self.held);
        if held.number == number {
            held.channel = None;
        }
    }

    /// The link is gone: what comes next is dialled anew.
    pub(crate) fn disconnect(&self) {
        lock(&self.held).channel = None;
    }
}

impl Using {
    fn of(held: &Arc<Mutex<Held>>) -> Self {
        lock(held).streams += 1;
        Self(Arc::clone(held))
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        let idle = {
            let mut held = lock(&self.0);
            held.streams -= 1;
            if held.streams > 0 || held.channel.is_none() {
                return;
            }
            held.idle += 1;
            held.idle
        };
        let held = Arc::clone(&self.0);
        // Without a runtime the node process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                tokio::time::sleep(UNUSED_MAX).await;
                let mut held = lock(&held);
                if held.idle == idle && held.streams == 0 {
                    held.channel = None;
                }
            }));
        }
    }
}

impl Out {
    /// Sends a frame; waits while the hub is behind.
    ///
    /// # Errors
    /// When the stream is over.
    pub(crate) async fn send(&self, frame: Bytes) -> Result<(), Over> {
        self.0.send(sent_into(Sent::Frame(frame))).await.map_err(|_| Over)
    }

    /// Says why the stream ends.
    pub(crate) async fn refuse(&self, refusal: Refusal) -> Result<(), Over> {
        self.0.send(sent_into(Sent::Refused(refusal))).await.map_err(|_| Over)
    }
}

/// The stream is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

impl Inbound {
    /// The next frame; `None` when nothing more comes. Nothing is lost when this is dropped before its end.
    ///
    /// # Errors
    /// The hub's refusal, or that of the network.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let Some(response) = self.frames.next().await? else { return Ok(None) };
            match given_from(response)? {
                Some(Given::Frame(frame)) => return Ok(Some(frame)),
                Some(Given::Refused(refusal)) => return Err(refusal),
                None => {}
            }
        }
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
