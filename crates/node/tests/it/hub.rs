//! A hub that does what a test says: real TLS and gRPC, no decisions.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cortex_core::id::{Epoch, Generation, InviteId, NodeId, Revision, RunId};
use cortex_core::invite::InviteText;
use cortex_core::limits;
use cortex_core::message::{Envelope, Hello, SignedPolicy, Start, ToHub, ToNode, Welcome};
use cortex_core::policy::Policy;
use cortex_core::run::{Ended, RunSpec};
use cortex_core::sandbox::Level;
use cortex_core::stream::{Positions, Stream};
use cortex_core::time::WallTime;
use cortex_wire::mesh::enrolment_service_server::{EnrolmentService, EnrolmentServiceServer};
use cortex_wire::mesh::mesh_service_server::{MeshService, MeshServiceServer};
use cortex_wire::{convert, mesh};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SigningKey as _,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

pub const SECRET: [u8; 32] = *b"a secret that only one hub sees!";
/// Longer than anything in these tests takes.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub type Authority = CertifiedIssuer<'static, KeyPair>;

pub struct Hub {
    pub addr: SocketAddr,
    pub authority: Authority,
    /// Whether certificates are past half of their life when they are given out.
    pub aged: Arc<AtomicBool>,
    no: Arc<Mutex<Option<Status>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    links: mpsc::Receiver<Link>,
    server: tokio::task::JoinHandle<()>,
}

/// One link as the hub has it.
pub struct Link {
    pub hello: Hello,
    pub epoch: Epoch,
    from: mpsc::Receiver<Envelope<ToHub>>,
    to: mpsc::Sender<Result<mesh::AttachResponse, Status>>,
    signer: Arc<KeyPair>,
    generation: Generation,
}

pub fn node_id() -> NodeId {
    NodeId::mint(7, &[7; 10])
}

pub fn invite_id() -> InviteId {
    InviteId::mint(8, &[8; 10])
}

pub fn run_id(n: u8) -> RunId {
    RunId::mint(1_000 + u64::from(n), &[n; 10])
}

pub fn policy(profile: &str) -> Policy {
    Policy::from_profile(node_id(), profile, Revision(1), WallTime(0)).expect("a known profile")
}

pub fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// The server's chain and key in PEM.
pub fn server_identity(authority: &Authority) -> (String, String) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec![cortex_node::HUB_NAME.to_owned()]).expect("parameters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let leaf = params.signed_by(&key, authority).expect("signed");
    (format!("{}{}", leaf.pem(), authority.pem()), key.serialize_pem())
}

impl Hub {
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), authority()).await
    }

    pub async fn start_at(addr: SocketAddr, authority: Authority) -> Self {
        let listener = tokio::net::TcpListener::bind(addr).await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (chain, key) = server_identity(&authority);
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key))
            .client_ca_root(Certificate::from_pem(authority.pem()))
            .client_auth_optional(true);
        let (links_in, links) = mpsc::channel(16);
        let signer = Arc::new(KeyPair::from_pem(&authority.key().serialize_pem()).expect("its own key"));
        let aged = Arc::new(AtomicBool::new(false));
        let (no, requests) = (Arc::<Mutex<Option<Status>>>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let enrolment = Enrolment {
            authority: authority.pem(),
            key: authority.key().serialize_pem(),
            aged: Arc::clone(&aged),
            no: Arc::clone(&no),
            requests: Arc::clone(&requests),
        };
        let server = Server::builder()
            .tls_config(tls)
            .expect("TLS")
            .add_service(EnrolmentServiceServer::new(enrolment))
            .add_service(MeshServiceServer::new(Mesh { links: links_in, signer }));
        let server = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.expect("served");
        });
        Self { addr, authority, aged, no, requests, links, server }
    }

    /// From here on joins are heard and get this for an answer, or what they asked for.
    pub fn answer_joins(&self, no: Option<Status>) {
        *self.no.lock().expect("nobody panicked with it") = no;
    }

    /// The public keys of all joins so far.
    pub fn requested_keys(&self) -> Vec<Vec<u8>> {
        self.requests.lock().expect("nobody panicked with it").clone()
    }

    pub fn invite(&self) -> InviteText {
        let authority = *blake3::hash(self.authority.der()).as_bytes();
        InviteText { authority, id: invite_id(), secret: SECRET }
    }

    pub async fn link(&mut self) -> Link {
        tokio::time::timeout(PATIENCE, self.links.recv()).await.expect("in time").expect("a link")
    }

    /// A link that is welcomed.
    pub async fn welcomed(&mut self, epoch: u64, profile: &str) -> Link {
        let mut link = self.link().await;
        link.welcome(epoch, policy(profile)).await;
        link
    }

    pub async fn stop(self) -> (SocketAddr, Authority) {
        self.server.abort();
        // Ended by the abort.
        let _ended = self.server.await;
        (self.addr, self.authority)
    }
}

impl Link {
    pub async fn welcome(&mut self, epoch: u64, policy: Policy) {
        self.welcome_of(1, epoch, policy).await;
    }

    pub async fn welcome_of(&mut self, generation: u64, epoch: u64, policy: Policy) {
        self.epoch = Epoch(epoch);
        self.generation = Generation(generation);
        let welcome = Welcome {
            generation: self.generation,
            name: "build-2".to_owned(),
            policy: self.signed(&policy),
            audit_head: None,
        };
        self.send(ToNode::Welcome(welcome)).await;
    }

    /// The policy as the hub's authority signs it.
    pub fn signed(&self, policy: &Policy) -> SignedPolicy {
        let document = cortex_wire::policy::write(policy, self.generation).expect("it may be set");
        let text = [cortex_wire::policy::SIGNED, &document].concat();
        let signature = self.signer.sign(&text).expect("signed").into();
        SignedPolicy { policy: None, document, signature }
    }

    pub async fn send(&self, message: ToNode) {
        self.send_as(self.epoch, message).await;
    }

    pub async fn send_as(&self, epoch: Epoch, message: ToNode) {
        self.send_raw(convert::to_node_into_proto(Envelope { epoch, message })).await;
    }

    pub async fn send_raw(&self, frame: mesh::AttachResponse) {
        self.to.send(Ok(frame)).await.expect("the node is there");
    }

    pub async fn start(&self, run: RunId, argv: &[&str]) {
        let argv = argv.iter().map(|arg| (*arg).to_owned()).collect();
        self.start_spec(run, RunSpec { argv, ..RunSpec::default() }).await;
    }

    pub async fn start_spec(&self, run: RunId, spec: RunSpec) {
        let caller = "token:test".to_owned();
        self.send(ToNode::Start(Start {
            run,
            spec,
            caller,
            policy_revision: Revision(1),
            traceparent: None,
            consent: None,
            task: None,
        }))
        .await;
        self.send(ToNode::Resume { run, from: 0, granted: limits::CREDIT_BYTES_START }).await;
    }

    /// The next message that is not a heartbeat; those are answered.
    pub async fn next(&mut self) -> ToHub {
        tokio::time::timeout(PATIENCE, self.next_or_end()).await.expect("in time").expect("the link lives")
    }

    pub async fn next_or_end(&mut self) -> Option<ToHub> {
        loop {
            let message = self.from.recv().await?.message;
            let ToHub::Heartbeat { seq } = message else { return Some(message) };
            self.send(ToNode::HeartbeatAck { seq }).await;
        }
    }

    /// Takes all that the run says until its end, giving credit, and checks that nothing is
    /// missing or doubled after `from`.
    pub async fn collect(&mut self, run: RunId, from: Positions) -> Collected {
        let mut got = Collected { next: from, ..Collected::default() };
        loop {
            match self.next().await {
                ToHub::Output(frame) => {
                    assert_eq!(frame.run, run);
                    assert_eq!(frame.position, got.next.total(), "no gap, no repeat");
                    assert_eq!(frame.offset, got.next.of(frame.stream));
                    got.next.advance(frame.stream, frame.data.len() as u64);
                    match frame.stream {
                        Stream::Stdout => got.stdout.extend_from_slice(&frame.data),
                        Stream::Stderr => got.stderr.extend_from_slice(&frame.data),
                    }
                    let durable = got.next.total();
                    self.send(ToNode::Credit { run, granted: durable + limits::CREDIT_BYTES_MAX, durable })
                        .await;
                }
                // An end is told anew on a new link and after a Resume, until it is settled.
                ToHub::Ended { run: other, .. } if other != run => {}
                ToHub::Ended { ended, .. } => {
                    assert_eq!(ended.output, got.next, "all output comes before the end");
                    got.ended = Some(ended);
                    return got;
                }
                ToHub::Started { .. } => got.starts += 1,
                ToHub::InputTaken { upto, .. } => got.input_taken = upto,
                other @ (ToHub::Hello(_)
                | ToHub::Heartbeat { .. }
                | ToHub::OutputLost { .. }
                | ToHub::Refused { .. }
                | ToHub::Renew { .. }
                | ToHub::TransferNews(_)
                | ToHub::WatchNews(_)
                | ToHub::FileAnswered { .. }) => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Starts a command, waits for its end and settles it.
    pub async fn execute(&mut self, run: RunId, argv: &[&str]) -> Collected {
        self.start(run, argv).await;
        let got = self.collect(run, Positions::default()).await;
        self.send(ToNode::Settled { run }).await;
        got
    }

    pub async fn until_started(&mut self, run: RunId) {
        assert_eq!(self.next().await, ToHub::Started { run, level: Level::None });
    }
}

#[derive(Default)]
pub struct Collected {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub next: Positions,
    pub starts: u32,
    pub input_taken: u64,
    ended: Option<Ended>,
}

impl Collected {
    pub fn ended(&self) -> &Ended {
        self.ended.as_ref().expect("it ended")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text")
    }
}

struct Enrolment {
    authority: String,
    key: String,
    aged: Arc<AtomicBool>,
    no: Arc<Mutex<Option<Status>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

/// The key of a certificate request.
struct Requested(Vec<u8>);

impl rcgen::PublicKeyData for Requested {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn requested_key(csr: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::FromDer as _;
    let csr = x509_parser::certification_request::X509CertificationRequest::from_der(csr);
    let (_, csr) = csr.expect("a certificate request");
    csr.certification_request_info.subject_pki.subject_public_key.data.to_vec()
}

/// A certificate (DER) for the key of the request.
pub fn node_certificate(csr: &[u8], authority_key: &str, aged: bool) -> Vec<u8> {
    let key = Requested(requested_key(csr));
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(params, KeyPair::from_pem(authority_key).expect("the key"));
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    let urn = format!("{}{}", cortex_core::node::NODE_URN, node_id());
    params.subject_alt_names = vec![rcgen::SanType::URI(urn.try_into().expect("a URN"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if aged {
        params.not_before = rcgen::date_time_ymd(1975, 1, 1);
        params.not_after = rcgen::date_time_ymd(2060, 1, 1);
    }
    params.signed_by(&key, &issuer).expect("signed").der().to_vec()
}

#[tonic::async_trait]
impl EnrolmentService for Enrolment {
    async fn enrol(
        &self,
        request: Request<mesh::EnrolRequest>,
    ) -> Result<Response<mesh::EnrolResponse>, Status> {
        let request = request.into_inner();
        if request.secret[..] != SECRET {
            let refusal = cortex_core::invite::unknown();
            return Err(cortex_wire::error::refusal_into_status(&refusal));
        }
        let key = requested_key(&request.csr_der);
        self.requests.lock().expect("nobody panicked with it").push(key);
        if let Some(no) = self.no.lock().expect("nobody panicked with it").clone() {
            return Err(no);
        }
        let leaf = node_certificate(&request.csr_der, &self.key, self.aged.load(Ordering::Relaxed));
        let authority = pem_der(&self.authority);
        let hash = *blake3::hash(&[leaf.clone(), authority.clone()].concat()).as_bytes();
        let said = cortex_core::recovery::JoinAnswer {
            node: node_id(),
            name: &request.name,
            generation: Generation(1),
            recoveries_left: 5,
        };
        let statement = cortex_core::recovery::join_statement(invite_id(), &said, &hash);
        let proof = KeyPair::from_pem(&self.key).expect("the key").sign(&statement).expect("signed");
        Ok(Response::new(mesh::EnrolResponse {
            node_id: node_id().as_bytes().to_vec().into(),
            name: request.name,
            certificate_chain_der: vec![leaf.into(), authority.into()],
            generation: 1,
            recoveries_left: 5,
            proof: proof.into(),
        }))
    }

    async fn recover(
        &self,
        _request: Request<mesh::RecoverRequest>,
    ) -> Result<Response<mesh::RecoverResponse>, Status> {
        Err(Status::unimplemented("no test of this hub recovers"))
    }
}

/// A certificate (DER) as PEM.
pub fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn pem_der(pem: &str) -> Vec<u8> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM").to_vec()
}

struct Mesh {
    links: mpsc::Sender<Link>,
    signer: Arc<KeyPair>,
}

#[tonic::async_trait]
impl MeshService for Mesh {
    type TransferStream = tokio_stream::Empty<Result<mesh::TransferResponse, Status>>;

    async fn transfer(
        &self,
        _request: Request<Streaming<mesh::TransferRequest>>,
    ) -> Result<Response<Self::TransferStream>, Status> {
        Err(Status::permission_denied("this hub gives no tickets"))
    }

    type AttachStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<mesh::AttachResponse, Status>> + Send + 'static>>;

    async fn attach(
        &self,
        request: Request<Streaming<mesh::AttachRequest>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        if request.peer_certs().is_none_or(|certs| certs.is_empty()) {
            return Err(Status::unauthenticated("no certificate"));
        }
        let links = self.links.clone();
        let mut frames = request.into_inner();
        let (to, to_node) = mpsc::channel(64);
        let signer = Arc::clone(&self.signer);
        let (from_in, from) = mpsc::channel(1024);
        tokio::spawn(async move {
            let mut opening = Some((links, to, from, signer));
            while let Ok(Some(frame)) = frames.message().await {
                let envelope = convert::to_hub_from_proto(frame).expect("well-formed").expect("known");
                match (opening.take(), envelope.message) {
                    (Some((links, to, from, signer)), ToHub::Hello(hello)) => {
                        let (epoch, generation) = (Epoch(0), Generation(1));
                        let link = Link { hello: *hello, epoch, from, to, signer, generation };
                        // A test that has seen enough does not take further links.
                        let _taken = links.send(link).await;
                    }
                    (Some(_), other) => panic!("the first message must be Hello, not {other:?}"),
                    (None, message) => {
                        if from_in.send(Envelope { epoch: envelope.epoch, message }).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(to_node))))
    }
}
