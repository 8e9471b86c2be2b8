//! Dialling the hub: one attempt gives the two ends of a control stream. Never here: what is said
//! on it, and when to try again (`node`).

use cortex_core::message::{Envelope, ToHub};
use cortex_core::{Code, Refusal, limits};
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use cortex_wire::{convert, mesh};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::channel::{self, Channel};
use crate::identity::Credentials;
use crate::tls;

/// Both directions of a control stream.
#[derive(Debug)]
pub(crate) struct Link {
    /// Out; full means that the network is behind, and everything waits in the machines.
    pub(crate) out: mpsc::Sender<mesh::AttachRequest>,
    inbound: tonic::Streaming<mesh::AttachResponse>,
}

/// Dials and says Hello. The hub answers with its first message on the stream.
pub(crate) async fn attach(
    hub: &str,
    credentials: &Credentials,
    hello: Envelope<ToHub>,
) -> Result<Link, Refusal> {
    let stream = tls::dial(hub, tls::attach_config(credentials)?).await?;
    let channel = channel::over(stream, hub).await?;
    let (out, frames) = mpsc::channel(limits::LINK_QUEUE_FRAMES_MAX);
    // The queue is empty and its other end is here.
    let _queued = out.try_send(convert::to_hub_into_proto(hello));
    let mut client = MeshServiceClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let answer = client.attach(ReceiverStream::new(frames)).await.map_err(|status| refused(hub, &status))?;
    Ok(Link { out, inbound: answer.into_inner() })
}

impl Link {
    /// The next message, not yet looked into.
    pub(crate) async fn next(&mut self, hub: &str) -> Result<mesh::AttachResponse, Refusal> {
        match self.inbound.message().await {
            Ok(Some(frame)) => Ok(frame),
            Ok(None) => Err(tls::unreachable(hub, &"it closed the connection")),
            Err(status) => Err(refused(hub, &status)),
        }
    }
}

/// What comes on a stream for content.
#[derive(Debug)]
pub(crate) struct Frames {
    hub: String,
    inbound: tonic::Streaming<mesh::TransferResponse>,
}

impl Frames {
    /// The next message; `None` when nothing more comes.
    pub(crate) async fn next(&mut self) -> Result<Option<mesh::TransferResponse>, Refusal> {
        self.inbound.message().await.map_err(|status| refused(&self.hub, &status))
    }
}

/// Opens a stream for content; what goes out on it comes from `frames`.
pub(crate) async fn transfer(
    hub: &str,
    channel: Channel,
    frames: mpsc::Receiver<mesh::TransferRequest>,
) -> Result<Frames, Refusal> {
    let mut client = MeshServiceClient::new(channel)
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
    let answer =
        client.transfer(ReceiverStream::new(frames)).await.map_err(|status| refused(hub, &status))?;
    Ok(Frames { hub: hub.to_owned(), inbound: answer.into_inner() })
}

/// A status with a code of ours is the hub's word; any other is the network's.
pub(crate) fn refused(hub: &str, status: &tonic::Status) -> Refusal {
    let refusal = cortex_wire::error::refusal_from_status(status);
    if refusal.code == Code::Internal || refusal.code == Code::HubUnreachable {
        return tls::unreachable(hub, &status.message());
    }
    refusal
}
