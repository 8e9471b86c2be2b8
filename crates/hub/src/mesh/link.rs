//! The hub's end of one link: what waits to go out, in lanes, and how the link ends. Edges take
//! messages out with [`Link::poll_out`]; whoever pushes never waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use cortex_core::Refusal;
use cortex_core::id::{Epoch, LinkId, NodeId};
use cortex_core::message::{Envelope, ToNode};
use cortex_core::outbox::{Lane, Outbox};
use cortex_core::time::Timestamp;
use futures::task::AtomicWaker;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// One link. Shared between its reader, its writer and the mesh.
pub struct Link {
    id: LinkId,
    node: NodeId,
    epoch: AtomicU64,
    protocol: AtomicU32,
    heard: AtomicU64,
    out: Mutex<Out>,
    waker: AtomicWaker,
    closed: CancellationToken,
    drained: CancellationToken,
}

#[derive(Default)]
struct Out {
    outbox: Outbox<ToNode>,
    end: End,
}

/// How far the link's end has come.
#[derive(Default)]
enum End {
    #[default]
    Open,
    /// The farewell goes out next.
    Goodbye(Refusal, Option<u64>),
    /// Then why.
    Status(Refusal),
    Done,
}

/// What goes out next.
#[derive(Debug)]
pub enum Outgoing {
    /// A message.
    Message(Envelope<ToNode>),
    /// The last thing: why the link ended.
    Refused(Refusal),
}

impl Link {
    pub(super) fn new(id: LinkId, node: NodeId, now: Timestamp) -> Self {
        Self {
            id,
            node,
            epoch: AtomicU64::new(0),
            protocol: AtomicU32::new(0),
            heard: AtomicU64::new(now.0),
            out: Mutex::default(),
            waker: AtomicWaker::new(),
            closed: CancellationToken::new(),
            drained: CancellationToken::new(),
        }
    }

    /// Its number within this hub process.
    pub const fn id(&self) -> LinkId {
        self.id
    }

    /// Whose it is.
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Its epoch; 0 before Welcome.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }

    pub(super) fn set_epoch(&self, epoch: Epoch) {
        self.epoch.store(epoch.0, Ordering::Release);
    }

    /// The protocol version that its node speaks; 0 before Hello.
    pub fn protocol(&self) -> u32 {
        self.protocol.load(Ordering::Acquire)
    }

    pub(super) fn set_protocol(&self, protocol: u32) {
        self.protocol.store(protocol, Ordering::Release);
    }

    /// Whether another operation on files may be put behind what waits: asked before it is accepted.
    pub(super) fn has_room(&self) -> bool {
        self.lock().outbox.has_room()
    }

    /// When the node was last heard on it.
    pub fn heard(&self) -> Timestamp {
        Timestamp(self.heard.load(Ordering::Relaxed))
    }

    /// The node was heard.
    pub fn hear(&self, now: Timestamp) {
        self.heard.store(now.0, Ordering::Relaxed);
    }

    /// Queues a message. `false` when its lane is full: standard input is then refused to its
    /// caller; anything else means that the node does not read, and the link is closed. Operations on files
    /// and transfers were admitted before ([`Self::has_room`]), at most as many as may be open, and are
    /// queued.
    pub fn send(&self, message: ToNode) -> bool {
        let lane = message.lane();
        let full = {
            let mut out = self.lock();
            if !matches!(out.end, End::Open) {
                return true;
            }
            if matches!(
                message,
                ToNode::FileAsk(_)
                    | ToNode::FileCancel { .. }
                    | ToNode::TransferAsk(_)
                    | ToNode::TransferCancel { .. }
            ) {
                out.outbox.push_admitted(message);
                false
            } else {
                out.outbox.push(lane, message).is_err()
            }
        };
        if full && lane == Lane::Control {
            let refusal = Refusal::new(
                cortex_core::Code::Quota,
                "The node does not read what the hub sends; the link is closed.",
            );
            self.close(refusal, Some(cortex_core::limits::BACKOFF_MS_MAX));
        }
        self.waker.wake();
        !full
    }

    /// Ends the link: what waits is dropped, the farewell goes out, and nothing after it.
    /// `retry_after_ms` is `None` for a node that is not to come back.
    pub fn close(&self, refusal: Refusal, retry_after_ms: Option<u64>) {
        {
            let mut out = self.lock();
            if !matches!(out.end, End::Open) {
                return;
            }
            tracing::info!(node_id = %self.node, link = %self.id, code = %refusal.code, "link is closed");
            out.outbox = Outbox::new();
            out.end = End::Goodbye(refusal, retry_after_ms);
        }
        self.closed.cancel();
        self.waker.wake();
    }

    /// The other end is gone: nothing goes out any more.
    pub fn hang_up(&self) {
        let mut out = self.lock();
        out.outbox = Outbox::new();
        out.end = End::Done;
        drop(out);
        self.drained.cancel();
        self.closed.cancel();
        self.waker.wake();
    }

    /// Whether the link is ending or has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Resolves when the link is ending.
    pub fn closed(&self) -> WaitForCancellationFuture<'_> {
        self.closed.cancelled()
    }

    /// Resolves when all was taken out, the farewell too, or nobody takes it.
    pub fn drained(&self) -> WaitForCancellationFuture<'_> {
        self.drained.cancelled()
    }

    /// The next thing to send; `None` at the end.
    pub fn poll_out(&self, context: &mut Context<'_>) -> Poll<Option<Outgoing>> {
        if let Poll::Ready(next) = self.take() {
            return Poll::Ready(next);
        }
        self.waker.register(context.waker());
        // Something may have come between the look and the registration.
        self.take()
    }

    fn take(&self) -> Poll<Option<Outgoing>> {
        let mut out = self.lock();
        if let Some(message) = out.outbox.pop() {
            return Poll::Ready(Some(self.wrap(message)));
        }
        match std::mem::replace(&mut out.end, End::Done) {
            End::Open => {
                out.end = End::Open;
                Poll::Pending
            }
            End::Goodbye(refusal, retry_after_ms) => {
                out.end = End::Status(refusal.clone());
                Poll::Ready(Some(self.wrap(ToNode::Goodbye { refusal, retry_after_ms })))
            }
            End::Status(refusal) => Poll::Ready(Some(Outgoing::Refused(refusal))),
            End::Done => {
                self.drained.cancel();
                Poll::Ready(None)
            }
        }
    }

    fn wrap(&self, message: ToNode) -> Outgoing {
        Outgoing::Message(Envelope { epoch: self.epoch(), message })
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("id", &self.id).field("node", &self.node).finish_non_exhaustive()
    }
}
