//! One stream, as whoever asked for it has it. What is on its way in one direction waits for nothing of the
//! other; both are bounded by the windows of the connection and a few frames.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::limits::TRANSFER_IDLE_MS;
use cortex_core::transfer::Carry;
use cortex_core::{Code, Refusal};
use cortex_wire::convert::transfer::{Given, Sent, carry_from_bytes, carry_to_bytes, given_into, sent_from};
use cortex_wire::mesh::{TransferRequest, TransferResponse};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tokio::sync::mpsc;

use super::tickets::Running;

/// How long one end waits for what the other owes it.
const IDLE: Duration = Duration::from_millis(TRANSFER_IDLE_MS);

/// Both directions, which may be taken apart. Dropped, the stream is over for both ends.
#[derive(Debug)]
pub struct TransferStream {
    /// The way to the node.
    pub sending: Sending,
    /// The way from it.
    pub receiving: Receiving,
}

/// The way to the node. Once both are dropped the stream is over.
#[derive(Debug)]
pub struct Sending {
    out: mpsc::Sender<TransferResponse>,
    shared: Arc<Shared>,
}

/// The way from the node. It is to be read all the time: a clerk that cannot say what it wants does not
/// take what it wanted.
pub struct Receiving {
    inbound: BoxStream<'static, Result<TransferRequest, Refusal>>,
    shared: Arc<Shared>,
}

struct Shared {
    running: Running,
    /// What the connection is used for.
    _kept: Box<dyn Any + Send + Sync>,
}

impl TransferStream {
    /// A stream over these ends. `kept` lives as long as it does.
    pub(crate) fn new(
        inbound: BoxStream<'static, Result<TransferRequest, Refusal>>,
        out: mpsc::Sender<TransferResponse>,
        running: Running,
        kept: Box<dyn Any + Send + Sync>,
    ) -> Self {
        let shared = Arc::new(Shared { running, _kept: kept });
        Self {
            sending: Sending { out, shared: Arc::clone(&shared) },
            receiving: Receiving { inbound, shared },
        }
    }
}

impl Sending {
    /// Says something to the clerk; waits while that is behind.
    ///
    /// # Errors
    /// `node_offline` when the stream is over, `timeout` when nothing was taken for too long.
    pub async fn send(&self, carry: Carry) -> Result<(), Refusal> {
        self.give(Given::Frame(carry_to_bytes(carry))).await
    }

    /// Says why the stream ends before its time.
    pub async fn refuse(&self, refusal: Refusal) {
        // Whoever is gone needs no reason.
        let _told = self.give(Given::Refused(refusal)).await;
    }

    async fn give(&self, given: Given) -> Result<(), Refusal> {
        let sent = self.out.send(given_into(given));
        tokio::select! {
            () = self.shared.running.link_gone.cancelled() => Err(gone()),
            sent = tokio::time::timeout(IDLE, sent) => match sent {
                Ok(sent) => sent.map_err(|_| gone()),
                Err(_idle) => Err(idle("took")),
            },
        }
    }
}

impl Receiving {
    /// What the clerk says next; `None` when it says nothing more. Frames that this build does not know are
    /// passed over. Nothing is lost when this is dropped before its end.
    ///
    /// # Errors
    /// The node's refusal; `node_offline` when the stream broke, `timeout` when nothing came for too long,
    /// `invalid_argument` for what is no frame.
    pub async fn recv(&mut self) -> Result<Option<Carry>, Refusal> {
        loop {
            let next = tokio::select! {
                () = self.shared.running.link_gone.cancelled() => return Err(gone()),
                next = tokio::time::timeout(IDLE, self.inbound.next()) => {
                    next.map_err(|_idle| idle("gave"))?
                }
            };
            let request = match next {
                None => return Ok(None),
                Some(Ok(request)) => request,
                Some(Err(_broken)) => return Err(gone()),
            };
            match sent_from(request)? {
                Some(Sent::Frame(frame)) => {
                    if let Some(carry) = carry_from_bytes(frame)? {
                        return Ok(Some(carry));
                    }
                }
                Some(Sent::Refused(refusal)) => return Err(refusal),
                Some(Sent::Open { .. }) => {
                    let message = "A stream for content was opened twice.";
                    return Err(Refusal::new(Code::InvalidArgument, message));
                }
                None => {}
            }
        }
    }
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving").finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("running", &self.running).finish_non_exhaustive()
    }
}

fn gone() -> Refusal {
    Refusal::new(Code::NodeOffline, "The stream of the content ended before the content did.")
        .hint("Wait until the node is back, then try again.")
}

fn idle(what: &str) -> Refusal {
    let message = format!("The node {what} nothing of the content for {} s.", IDLE.as_secs());
    Refusal::new(Code::Timeout, message).hint("Try again; look at the node's disk when it happens again.")
}
