//! `MeshService.Transfer`: a node opens a stream with its ticket, and whoever waits for that gets it.

use std::time::Duration;

use cortex_core::limits::{CARRIES_WAITING_MAX, HELLO_MS_MAX};
use cortex_core::node::Node;
use cortex_core::{Code, Refusal};
use cortex_wire::convert::transfer::{Sent, sent_from};
use cortex_wire::error::refusal_into_status;
use cortex_wire::mesh::{TransferRequest, TransferResponse};
use futures::StreamExt as _;
use futures::stream::Map;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use super::attach::unreadable;
use super::connection::Peer;
use crate::mesh::Mesh;
use crate::transfer::TransferStream;

/// What goes to the node.
pub(super) type Writer = Map<ReceiverStream<TransferResponse>, fn(TransferResponse) -> Said>;

/// One message of it.
type Said = Result<TransferResponse, Status>;

/// Takes the first message of a stream and gives it to whoever waits.
pub(super) async fn open(
    mesh: &Mesh,
    node: &Node,
    peer: Option<&Peer>,
    mut inbound: Streaming<TransferRequest>,
) -> Result<Response<Writer>, Status> {
    let opened = first(&mut inbound).await.and_then(|(ticket, epoch)| mesh.redeem(ticket, node.id, epoch));
    let redeemed = opened.map_err(|refusal| {
        mesh.audit_refusal(node.id, &refusal);
        refusal_into_status(&refusal)
    })?;
    let (out, frames) = mpsc::channel(CARRIES_WAITING_MAX);
    let used = peer.map(Peer::use_it);
    let inbound = inbound.map(|message| message.map_err(|status| unreadable(&status))).boxed();
    let stream = TransferStream::new(inbound, out, redeemed.running, Box::new(used));
    // Whoever went away in between has ended it by that.
    let _taken = redeemed.give.send(stream);
    Ok(Response::new(ReceiverStream::new(frames).map(Ok as fn(TransferResponse) -> Said)))
}

type Shown = (cortex_core::files::ask::Ticket, cortex_core::id::Epoch);

async fn first(inbound: &mut Streaming<TransferRequest>) -> Result<Shown, Refusal> {
    let none = || Refusal::new(Code::InvalidArgument, "A stream for content begins with its ticket.");
    let read = async {
        loop {
            let message = inbound.message().await.map_err(|status| unreadable(&status))?;
            match sent_from(message.ok_or_else(none)?)? {
                Some(Sent::Open { ticket, epoch }) => return Ok((ticket, epoch)),
                Some(Sent::Frame(_) | Sent::Refused(_)) => return Err(none()),
                None => {}
            }
        }
    };
    let late = |_late| Err(Refusal::new(Code::Timeout, "No ticket came on a stream for content."));
    tokio::time::timeout(Duration::from_millis(HELLO_MS_MAX), read).await.unwrap_or_else(late)
}
