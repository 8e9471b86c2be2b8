//! `MeshService.Attach`: one task reads a link, the response stream writes it. Both end together.

use std::error::Error as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cortex_core::limits::BACKOFF_MS_MAX;
use cortex_core::link::HubLink;
use cortex_core::message::{Envelope, Hello, ToHub, ToNode};
use cortex_core::node::Node;
use cortex_core::time::Timestamp;
use cortex_core::{Code, Refusal};
use cortex_wire::convert::{to_hub_from_proto, to_node_into_proto};
use cortex_wire::error::{refusal_from_status, refusal_into_status, surface};
use cortex_wire::mesh::mesh_service_server::MeshService;
use cortex_wire::mesh::{AttachRequest, AttachResponse, TransferRequest};
use tokio_util::task::TaskTracker;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

use super::connection::{Peer, Used};
use super::transfer;
use crate::authority::{self, Authority, Identity};
use crate::mesh::{Link, Mesh, Outgoing};

/// A node may ask for a fresh certificate once in this time on one link.
const RENEW_MS_MIN: u64 = 60_000;
/// When a node comes back that was sent away for a moment.
const RETRY_MS: u64 = 1_000;

/// The service.
pub(super) struct Door {
    mesh: Mesh,
    authority: Arc<Authority>,
    tasks: TaskTracker,
}

impl Door {
    pub(super) const fn new(mesh: Mesh, authority: Arc<Authority>, tasks: TaskTracker) -> Self {
        Self { mesh, authority, tasks }
    }
}

impl Door {
    /// The node that may call, by the certificate of its connection.
    fn admit<T>(&self, request: &Request<T>) -> Result<(Arc<Node>, Option<Peer>), Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        if let Err(status) = refuse_token(request.metadata()) {
            if let Some(identity) = peer.as_ref().and_then(|peer| peer.identity.as_ref()) {
                self.mesh.audit_refusal(identity.node, &refusal_from_status(&status));
            }
            return Err(status);
        }
        let identity = peer.as_ref().and_then(|peer| peer.identity.clone()).ok_or_else(|| {
            let refusal =
                Refusal::new(Code::Unauthenticated, "A link needs the certificate of an enrolled node.")
                    .hint("Join the hub with an invite: `cortex join`.");
            refusal_into_status(&refusal)
        })?;
        let admitted = self.authority.lasts(&identity).and_then(|()| self.mesh.admit(&identity));
        let node = admitted.map_err(|refusal| {
            self.mesh.audit_refusal(identity.node, &refusal);
            refusal_into_status(&refusal)
        })?;
        Ok((node, peer))
    }
}

#[tonic::async_trait]
impl MeshService for Door {
    type AttachStream = Writer;

    async fn attach(&self, request: Request<Streaming<AttachRequest>>) -> Result<Response<Writer>, Status> {
        let (node, peer) = self.admit(&request)?;
        let link = self.mesh.open_link(node.id);
        let span = tracing::info_span!("link", node = %node.name, node_id = %node.id, link = %link.id());
        let reader = Reader {
            mesh: self.mesh.clone(),
            authority: Arc::clone(&self.authority),
            guard: Attached { mesh: self.mesh.clone(), link: Arc::clone(&link) },
            node,
            watch: HubLink::new(self.mesh.now()),
            peer,
            used: None,
            renewed: None,
        };
        self.tasks.spawn(reader.run(request.into_inner()).instrument(span));
        Ok(Response::new(Writer { link }))
    }

    type TransferStream = transfer::Writer;

    async fn transfer(
        &self,
        request: Request<Streaming<TransferRequest>>,
    ) -> Result<Response<transfer::Writer>, Status> {
        let (node, peer) = self.admit(&request)?;
        transfer::open(&self.mesh, &node, peer.as_ref(), request.into_inner()).await
    }
}

/// An API token has no business at this door (ABUSE 14).
pub(super) fn refuse_token(metadata: &MetadataMap) -> Result<(), Status> {
    if metadata.get("authorization").is_none() {
        return Ok(());
    }
    let refusal = Refusal::new(Code::WrongAudience, "An API token was shown at the node port.");
    Err(refusal_into_status(&refusal))
}

/// What goes to the node.
pub(super) struct Writer {
    link: Arc<Link>,
}

impl tokio_stream::Stream for Writer {
    type Item = Result<AttachResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.link.poll_out(context).map(|next| {
            next.map(|out| match out {
                Outgoing::Message(envelope) => Ok(to_node_into_proto(envelope)),
                Outgoing::Refused(refusal) => Err(refusal_into_status(&refusal)),
            })
        })
    }
}

impl Drop for Writer {
    /// The connection is gone, or the last word was said.
    fn drop(&mut self) {
        self.link.hang_up();
    }
}

/// Takes the link out of the mesh, whichever way its reader ends.
struct Attached {
    mesh: Mesh,
    link: Arc<Link>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.mesh.detach(&self.link);
        self.link.hang_up();
    }
}

/// What comes from the node.
struct Reader {
    mesh: Mesh,
    authority: Arc<Authority>,
    guard: Attached,
    node: Arc<Node>,
    watch: HubLink,
    peer: Option<Peer>,
    used: Option<Used>,
    renewed: Option<Timestamp>,
}

impl Reader {
    async fn run(mut self, mut stream: Streaming<AttachRequest>) {
        let link = Arc::clone(&self.guard.link);
        loop {
            let received = tokio::select! {
                biased;
                () = link.closed() => break,
                received = self.receive(&mut stream) => received,
            };
            let handled = match received {
                Ok(Some(envelope)) => self.take_in(envelope).await,
                Ok(None) => break,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = handled {
                self.mesh.audit_refusal(self.node.id, &refusal);
                let retry = retry_after(&refusal);
                link.close(refusal, retry);
                break;
            }
        }
        // The node is away from this moment on, however long its farewell takes.
        self.mesh.detach(&link);
        if link.is_closed() {
            self.linger(&link).await;
        }
    }

    /// The farewell is still to be taken out by the writer; the guard must not drop it before.
    async fn linger(&self, link: &Link) {
        let patience = std::time::Duration::from_secs(2);
        let _said = tokio::time::timeout(patience, link.drained()).await;
    }

    /// The next message that this build knows; `None` when the node has hung up.
    async fn receive(
        &mut self,
        stream: &mut Streaming<AttachRequest>,
    ) -> Result<Option<Envelope<ToHub>>, Refusal> {
        loop {
            let deadline = self.watch.poll_timeout().map_or(Timestamp(u64::MAX), |(at, _)| at);
            let at = self.mesh.instant(deadline);
            let Ok(message) = tokio::time::timeout_at(at, stream.message()).await else {
                self.watch.handle_timeout(self.mesh.now())?;
                continue;
            };
            let Some(message) = message.map_err(|status| unreadable(&status))? else { return Ok(None) };
            if let Some(envelope) = to_hub_from_proto(message)? {
                return Ok(Some(envelope));
            }
            tracing::trace!("a message of a newer node is ignored");
        }
    }

    async fn take_in(&mut self, envelope: Envelope<ToHub>) -> Result<(), Refusal> {
        let now = self.mesh.now();
        let Envelope { epoch, message } = envelope;
        self.watch.handle(&message, now)?;
        let link = Arc::clone(&self.guard.link);
        link.hear(now);
        if let ToHub::Hello(hello) = message {
            return self.greet(&link, *hello).await;
        }
        if epoch != link.epoch() {
            let message = format!("A frame of epoch {epoch} came on the link of epoch {}.", link.epoch());
            return Err(Refusal::new(Code::StaleEpoch, message));
        }
        match message {
            ToHub::Heartbeat { seq } => self.mesh.heartbeat(&link, seq),
            ToHub::Renew { csr } => self.renew(&link, &csr)?,
            ToHub::Hello(_) => {}
            ToHub::FileAnswered { op, answer } => self.mesh.file_answered(&link, op, answer),
            ToHub::Started { .. }
            | ToHub::Output(_)
            | ToHub::Ended { .. }
            | ToHub::OutputLost { .. }
            | ToHub::InputTaken { .. }
            | ToHub::Refused { .. } => self.mesh.handle(&link, message),
            ToHub::TransferNews(news) => self.mesh.transfer_news(&link, news),
            ToHub::WatchNews(news) => self.mesh.watch_news(&link, news),
        }
        Ok(())
    }

    async fn greet(&mut self, link: &Arc<Link>, hello: Hello) -> Result<(), Refusal> {
        self.mesh.attach(link, hello).await?;
        if let Some(peer) = self.peer.take() {
            self.used = Some(peer.use_it());
        }
        Ok(())
    }

    /// Answers with a fresh certificate for the same key.
    fn renew(&mut self, link: &Link, csr: &Bytes) -> Result<(), Refusal> {
        let now = self.mesh.now();
        if self.renewed.is_some_and(|at| now < at.plus_ms(RENEW_MS_MIN)) {
            return Err(Refusal::new(Code::RateLimited, "The node asks for certificates too often.")
                .detail("retry_after_s", (RENEW_MS_MIN / 1_000).to_string()));
        }
        self.renewed = Some(now);
        // The record may have changed since the link began.
        let (node, key_hash) = (self.node.id, self.node.key_hash);
        self.mesh.admit(&Identity { node, key_hash, lasts: (0, 0) })?;
        if authority::request_key_hash(csr) != Some(self.node.key_hash) {
            return Err(Refusal::new(
                Code::InvalidArgument,
                "A certificate is renewed with the key of the node.",
            ));
        }
        let signed = self.authority.sign_node(csr, self.node.id)?;
        let chain = signed.chain_der.into_iter().map(Bytes::from).collect();
        link.send(ToNode::Certificate { chain });
        tracing::info!("certificate renewed");
        Ok(())
    }
}

/// What the transport says of a message that cannot be read.
pub(super) fn unreadable(status: &Status) -> Refusal {
    let broke = || Refusal::new(Code::HubUnreachable, "The connection of the node broke.");
    // A reset or a broken connection has the error of the transport behind it, whatever its code;
    // what is wrong with a message has not.
    if status.source().is_some() {
        return broke();
    }
    match status.code() {
        // tonic's words for a message above the bound, before any memory is taken for it.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Refusal::new(Code::TooLarge, "A message of the node is above the bound of 5 MiB.")
        }
        tonic::Code::Unimplemented | tonic::Code::InvalidArgument | tonic::Code::Internal => {
            Refusal::new(Code::InvalidArgument, "A message of the node cannot be read.")
        }
        tonic::Code::Ok
        | tonic::Code::Cancelled
        | tonic::Code::Unknown
        | tonic::Code::DeadlineExceeded
        | tonic::Code::NotFound
        | tonic::Code::AlreadyExists
        | tonic::Code::PermissionDenied
        | tonic::Code::FailedPrecondition
        | tonic::Code::Aborted
        | tonic::Code::Unavailable
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => broke(),
    }
}

/// When a node that is sent away may come back; `None`: never by itself.
fn retry_after(refusal: &Refusal) -> Option<u64> {
    if matches!(refusal.code, Code::NodeRevoked | Code::ClonedIdentity) {
        return None;
    }
    Some(if surface(refusal.code).retryable { RETRY_MS } else { BACKOFF_MS_MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_is_not_told_as_a_message_that_cannot_be_read() {
        for code in [tonic::Code::Internal, tonic::Code::ResourceExhausted, tonic::Code::Unknown] {
            let mut reset = Status::new(code, "h2 protocol error");
            reset.set_source(Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)));
            assert_eq!(unreadable(&reset).code, Code::HubUnreachable, "{code:?}");
        }
        let message = Status::internal("failed to decode Protobuf message");
        assert_eq!(unreadable(&message).code, Code::InvalidArgument);
        assert_eq!(unreadable(&Status::out_of_range("too large")).code, Code::TooLarge);
    }
}
