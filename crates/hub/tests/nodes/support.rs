//! A hub without its HTTP half, and nodes made by hand: a tonic client on real TLS.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use cortex_core::access::Who;
use cortex_core::id::{Epoch, InviteId, NodeId, TokenId};
use cortex_core::invite::Invite;
use cortex_core::limits::PROTOCOL;
use cortex_core::message::{Envelope, Frame, Hello, RunReport, ToHub, ToNode};
use cortex_core::name::Name;
use cortex_core::node::{Facts, Node};
use cortex_core::run::{EndCause, Ended, Run, RunSpec};
use cortex_core::stream::{Positions, Stream};
use cortex_core::token::{Role, Token, TokenKind};
use cortex_core::{Code, Refusal};
use cortex_hub::authority::Authority;
use cortex_hub::bus::Bus;
use cortex_hub::clock::{Clock, new_invite_id, random};
use cortex_hub::directory::Directory;
use cortex_hub::mesh::Mesh;
use cortex_hub::runlog::RunLogs;
use cortex_hub::service::enrol::Enrol;
use cortex_hub::service::runs::{Follower, Runs, StartRuns, Update};
use cortex_hub::service::{Caller, Context};
use cortex_store::memory::MemoryStore;
use cortex_store::{
    AuditFilter, LoggedAudit, ReadFn, Store, StoreError, StoreExt, StoreStats, WriteError, WriteFn,
};
use cortex_wire::convert::{to_hub_into_proto, to_node_from_proto};
use cortex_wire::error::refusal_from_status;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use cortex_wire::mesh::{AttachRequest, AttachResponse, EnrolRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

pub(crate) const SOON: Duration = Duration::from_secs(8);

/// A store that can be made to sleep.
pub(crate) struct Sleepy {
    inner: Arc<MemoryStore>,
    pub(crate) sleep_ms: AtomicU64,
    /// Writes are answered so much later than they are stored.
    pub(crate) late_ms: AtomicU64,
    /// Its queue is full.
    pub(crate) full: AtomicBool,
    /// The answer to the next write is held back that long after it was committed.
    pub(crate) answer_ms: AtomicU64,
    pub(crate) writes: AtomicU64,
}

impl Sleepy {
    /// Sleeps as long as it is told to, looked up anew in between.
    async fn nap(&self, deadline: Duration) -> Result<(), StoreError> {
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < Duration::from_millis(self.sleep_ms.load(Ordering::SeqCst)) {
            if begun.elapsed() >= deadline {
                return Err(StoreError::Timeout(deadline));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Store for Sleepy {
    async fn write_boxed(&self, work: WriteFn, deadline: Duration) -> Result<(), WriteError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            return Err(StoreError::Full.into());
        }
        self.nap(deadline).await?;
        let answer_ms = self.answer_ms.swap(0, Ordering::SeqCst);
        let written = self.inner.write_boxed(work, deadline).await;
        let late = Duration::from_millis(self.late_ms.load(Ordering::SeqCst).max(answer_ms));
        tokio::time::sleep(late.min(deadline)).await;
        if late < deadline { written } else { Err(StoreError::Timeout(deadline).into()) }
    }

    async fn read_boxed(&self, work: ReadFn, deadline: Duration) -> Result<(), StoreError> {
        self.nap(deadline).await?;
        self.inner.read_boxed(work, deadline).await
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn close(&self) {}
}

/// What outlives a restart of the hub.
pub(crate) struct Kept {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Arc<MemoryStore>,
}

impl Kept {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        Self { dir, store: Arc::new(MemoryStore::new(None)) }
    }
}

/// The node-facing half of a hub.
pub(crate) struct TestHub {
    pub(crate) context: Context,
    pub(crate) store: Arc<Sleepy>,
    pub(crate) mesh: Mesh,
    pub(crate) runs: Runs,
    pub(crate) enrol: Enrol,
    pub(crate) authority: Arc<Authority>,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: tokio::task::JoinHandle<Result<(), Refusal>>,
    authority_pem: String,
}

impl TestHub {
    pub(crate) async fn start(kept: &Kept) -> Self {
        Self::start_at(kept, Clock::default()).await
    }

    pub(crate) async fn start_at(kept: &Kept, clock: Clock) -> Self {
        let store = Arc::new(Sleepy {
            inner: Arc::clone(&kept.store),
            sleep_ms: AtomicU64::new(0),
            late_ms: AtomicU64::new(0),
            full: AtomicBool::new(false),
            answer_ms: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        });
        let shared: Arc<dyn Store> = Arc::clone(&store) as Arc<dyn Store>;
        let (directory, bus) = (Directory::default(), Bus::new(clock));
        let board = cortex_hub::board::Board::new(clock);
        let context = Context { store: shared, clock, directory, bus, board };
        let nodes = kept.store.read_now(|view| view.nodes()).expect("nodes");
        nodes.into_iter().for_each(|node| context.directory.put_node(node));
        for token in [Role::Viewer, Role::Operator, Role::Admin].map(token) {
            kept.store.write_now(|tx| tx.put_token(&token)).expect("kept");
            context.directory.put_token(token);
        }
        let authority = Authority::open_or_create(kept.dir.path()).expect("authority");
        let authority = Arc::new(authority.with_clock(clock));
        cortex_hub::service::policies::settle(&context, &authority).await.expect("policies");
        let logs = RunLogs::open(&kept.dir.path().join("runs")).expect("logs");
        let mesh = Mesh::new(context.clone(), logs.clone());
        mesh.restore().await.expect("restored");
        let enrol = Enrol::new(context.clone(), Arc::clone(&authority));
        let runs = Runs::new(context.clone(), mesh.clone(), logs, kept.dir.path());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
        let address = listener.local_addr().expect("address");
        let shutdown = CancellationToken::new();
        let (timers, over) = (mesh.clone(), shutdown.clone());
        drop(tokio::spawn(async move { timers.run_timers(over).await }));
        let serving = tokio::spawn(cortex_hub::grpc::serve(
            listener,
            Arc::clone(&authority),
            mesh.clone(),
            enrol.clone(),
            shutdown.clone(),
        ));
        let authority_pem = read(kept.dir.path(), "authority.crt");
        Self { context, store, mesh, runs, enrol, authority, address, shutdown, serving, authority_pem }
    }

    pub(crate) fn stall(&self, ms: u64) {
        self.store.sleep_ms.store(ms, Ordering::SeqCst);
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, self.serving).await.expect("in time").expect("no panic").expect("served");
        self.mesh.stop(Duration::from_secs(2)).await;
    }

    pub(crate) async fn invite(&self, change: impl FnOnce(&mut Invite)) -> (InviteId, [u8; 32]) {
        let secret = random::<32>();
        let now = self.context.clock.wall();
        let mut invite = Invite {
            id: new_invite_id(&self.context.clock),
            secret_hash: cortex_hub::secret::hash(&secret),
            labels: [("role".to_owned(), "ci".to_owned())].into(),
            profile: "ci".to_owned(),
            created_by: "token:admin".to_owned(),
            created_at: now,
            expires_at: now.plus_ms(60_000),
            used_by: None,
            used_at: None,
            revoked_at: None,
            owner: None,
            max_profile: None,
        };
        change(&mut invite);
        let id = invite.id;
        self.context
            .store
            .write(SOON, move |tx| {
                tx.put_invite(&invite)?;
                Ok(())
            })
            .await
            .expect("invite");
        (id, secret)
    }

    pub(crate) async fn channel(&self, identity: Option<Identity>) -> Channel {
        self.try_channel(identity).await.expect("connected")
    }

    /// `None` when the handshake fails.
    pub(crate) async fn try_channel(&self, identity: Option<Identity>) -> Option<Channel> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.authority_pem))
            .domain_name("hub.cortex.internal");
        let tls = match identity {
            Some(identity) => tls.identity(identity),
            None => tls,
        };
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).expect("address");
        endpoint.tls_config(tls).expect("TLS").connect().await.ok()
    }

    pub(crate) async fn enrol(
        &self,
        request: EnrolRequest,
    ) -> Result<cortex_wire::mesh::EnrolResponse, Refusal> {
        let mut client = EnrolmentServiceClient::new(self.channel(None).await);
        client
            .enrol(request)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| refusal_from_status(&status))
    }

    /// A node that joined and is not connected.
    pub(crate) async fn node(&self, name: &str) -> FakeNode {
        let (id, secret) = self.invite(|_| ()).await;
        let key = rcgen::KeyPair::generate().expect("key");
        let joined = self.enrol(join_request(id, &secret, name, &key)).await.expect("joined");
        FakeNode::new(&joined, &key)
    }

    pub(crate) fn record(&self, node: &FakeNode) -> Arc<Node> {
        self.context.directory.node(node.id).expect("known node")
    }

    pub(crate) async fn run(&self, node: &FakeNode, argv: &[&str]) -> Result<Run, Refusal> {
        self.run_with(node, argv, None, false).await
    }

    pub(crate) async fn run_with(
        &self,
        node: &FakeNode,
        argv: &[&str],
        key: Option<&str>,
        stdin: bool,
    ) -> Result<Run, Refusal> {
        let spec =
            RunSpec { argv: argv.iter().map(|arg| (*arg).to_owned()).collect(), stdin, ..RunSpec::default() };
        let request = StartRuns {
            nodes: vec![self.record(node)],
            spec,
            key: key.map(str::to_owned),
            traceparent: None,
        };
        let mut answers = self.runs.start(&caller(Role::Operator), request).await;
        answers.remove(0).1
    }

    /// The audit log.
    pub(crate) async fn audit(&self) -> Vec<LoggedAudit> {
        let rows = self.context.store.read(SOON, |view| view.audit(&AuditFilter::default(), 1_000));
        rows.await.expect("audit")
    }

    /// Waits until the run is as it should be.
    pub(crate) async fn until_run(&self, run: &Run, what: &str, is: impl Fn(&Run) -> bool) {
        let look =
            async || is(&self.runs.get(&caller(Role::Viewer), run.id).await.expect("known")).then_some(());
        eventually(what, look).await;
    }

    /// Waits until the stored record of the node is as it should be.
    pub(crate) async fn until_stored(&self, node: NodeId, what: &str, is: impl Fn(&Node) -> bool) {
        let look = async || {
            let stored = self.store.read(SOON, move |view| view.node(node)).await.expect("read");
            is(&stored.expect("the node")).then_some(())
        };
        eventually(what, look).await;
    }

    /// Follows a run to its end: its output, marks and final row.
    pub(crate) async fn finish(&self, run: &Run) -> (Vec<u8>, Vec<Positions>, Run) {
        collect(self.runs.follow(&caller(Role::Viewer), run.id).await.expect("followed")).await
    }
}

pub(crate) async fn collect(mut follower: Follower) -> (Vec<u8>, Vec<Positions>, Run) {
    let (mut output, mut lost) = (Vec::new(), Vec::new());
    loop {
        match tokio::time::timeout(2 * SOON, follower.next())
            .await
            .expect("an update in time")
            .transpose()
            .expect("readable")
        {
            Some(Update::Output { data, .. }) => output.extend_from_slice(&data),
            Some(Update::Lost(to)) => lost.push(to),
            Some(Update::State(_)) => {}
            Some(Update::Ended(run)) => return (output, lost, *run),
            None => panic!("the stream ended without an end"),
        }
    }
}

/// The node `a`, its link, and a run whose start has come over it.
pub(crate) async fn begun(hub: &TestHub) -> (FakeNode, FakeLink, Run) {
    let node = hub.node("a").await;
    let mut link = node.attach(hub, Vec::new()).await.expect("welcome");
    let run = hub.run(&node, &["true"]).await.expect("accepted");
    link.expect(is_start).await;
    (node, link, run)
}

/// The caller with this role that every hub of these tests knows.
pub(crate) fn caller(role: Role) -> Caller {
    Caller::new(Who::of(Arc::new(token(role))))
}

fn token(role: Role) -> Token {
    let number = role as u8;
    Token {
        id: TokenId::mint(1, &[number; 10]),
        name: Name::parse(&format!("tester-{}", role.as_str())).expect("name"),
        role,
        secret_hash: [number; 32],
        created_at: cortex_core::time::WallTime(0),
        expires_at: None,
        revoked_at: None,
        kind: TokenKind::Api,
        user: None,
        rights: None,
        nodes: None,
        tools: None,
    }
}

pub(crate) fn join_request(id: InviteId, secret: &[u8], name: &str, key: &rcgen::KeyPair) -> EnrolRequest {
    let csr = rcgen::CertificateParams::default().serialize_request(key).expect("request");
    EnrolRequest {
        recovery_key_der: bytes::Bytes::new(),
        invite_id: Bytes::copy_from_slice(id.as_bytes()),
        secret: Bytes::copy_from_slice(secret),
        name: name.to_owned(),
        csr_der: Bytes::copy_from_slice(csr.der()),
        protocol: PROTOCOL,
    }
}

/// A machine that joined.
#[derive(Clone)]
pub(crate) struct FakeNode {
    pub(crate) id: NodeId,
    pub(crate) identity: Identity,
    pub(crate) instance: u64,
}

/// One link of it.
pub(crate) struct FakeLink {
    pub(crate) epoch: Epoch,
    pub(crate) up: mpsc::Sender<AttachRequest>,
    pub(crate) down: Streaming<AttachResponse>,
    _channel: Channel,
}

impl FakeNode {
    /// A machine with what it was told at its join.
    pub(crate) fn new(joined: &cortex_wire::mesh::EnrolResponse, key: &rcgen::KeyPair) -> Self {
        Self {
            id: NodeId::from_slice(&joined.node_id).expect("id"),
            identity: Identity::from_pem(pem(&joined.certificate_chain_der[0]), key.serialize_pem()),
            instance: u64::from_le_bytes(random()),
        }
    }

    /// A link on which nothing was said.
    pub(crate) async fn dial(&self, hub: &TestHub) -> Result<FakeLink, Refusal> {
        let channel = hub.channel(Some(self.identity.clone())).await;
        let (up, requests) = mpsc::channel(64);
        let mut client = MeshServiceClient::new(channel.clone()).max_encoding_message_size(usize::MAX);
        let attached = client.attach(ReceiverStream::new(requests)).await;
        let down = attached.map_err(|status| refusal_from_status(&status))?.into_inner();
        Ok(FakeLink { epoch: Epoch(0), up, down, _channel: channel })
    }

    pub(crate) fn hello(&self, runs: Vec<RunReport>) -> ToHub {
        ToHub::Hello(Box::new(Hello {
            protocol: PROTOCOL,
            instance: self.instance,
            dial: 0,
            generation: cortex_core::id::Generation(1),
            epoch: Epoch(0),
            facts: Facts { os: "linux".to_owned(), ..Facts::default() },
            ceiling: None,
            audit_head: None,
            runs,
            files: vec![],
        }))
    }

    /// A link that was welcomed.
    pub(crate) async fn attach(&self, hub: &TestHub, runs: Vec<RunReport>) -> Result<FakeLink, Refusal> {
        let mut link = self.dial(hub).await?;
        link.say(self.hello(runs)).await;
        let first = link.hear().await?;
        if let ToNode::Goodbye { refusal, .. } = first {
            return Err(refusal);
        }
        assert!(matches!(first, ToNode::Welcome(_)), "neither Welcome nor Goodbye: {first:?}");
        Ok(link)
    }
}

impl FakeLink {
    pub(crate) async fn say(&self, message: ToHub) {
        self.say_at(self.epoch, message).await;
    }

    pub(crate) async fn say_at(&self, epoch: Epoch, message: ToHub) {
        // A closed link is seen by the one who listens.
        let _closed = self.up.send(to_hub_into_proto(Envelope { epoch, message })).await;
    }

    /// The next message; the refusal with which the stream ended.
    pub(crate) async fn hear(&mut self) -> Result<ToNode, Refusal> {
        let message = tokio::time::timeout(2 * SOON, self.down.message()).await.expect("a message in time");
        match message.map_err(|status| refusal_from_status(&status))? {
            Some(response) => {
                let envelope = to_node_from_proto(response).expect("readable").expect("known");
                self.epoch = envelope.epoch;
                Ok(envelope.message)
            }
            None => Err(Refusal::new(Code::HubUnreachable, "the stream ended")),
        }
    }

    /// Sends a heartbeat every second for as long as somebody waits for it.
    pub(crate) async fn beat(&self) {
        for seq in 1.. {
            self.say(ToHub::Heartbeat { seq }).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits for a message of a kind, passing over the others.
    pub(crate) async fn expect<T>(&mut self, want: impl Fn(&ToNode) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("the link is open");
            if let Some(found) = want(&message) {
                return found;
            }
        }
    }

    /// Listens until the link ends, and says why.
    pub(crate) async fn until_closed(&mut self) -> Refusal {
        loop {
            if let Err(refusal) = self.hear().await {
                return refusal;
            }
        }
    }

    pub(crate) async fn output(&self, run: &Run, at: u64, text: &[u8]) {
        let data = Bytes::copy_from_slice(text);
        self.say(ToHub::Output(Frame {
            run: run.id,
            stream: Stream::Stdout,
            position: at,
            offset: at,
            data,
        }))
        .await;
    }

    pub(crate) async fn exit(&self, run: &Run, written: u64) {
        self.say(ToHub::Ended { run: run.id, ended: exited(written) }).await;
    }
}

pub(crate) fn exited(written: u64) -> Ended {
    Ended {
        cause: EndCause::Exited,
        code: Some(0),
        signal: None,
        duration_ms: 5,
        output: Positions { stdout: written, stderr: 0 },
        diagnostic: None,
    }
}

pub(crate) fn is_start(message: &ToNode) -> Option<cortex_core::id::RunId> {
    if let ToNode::Start(start) = message { Some(start.run) } else { None }
}

pub(crate) fn is_settled(message: &ToNode) -> Option<cortex_core::id::RunId> {
    if let ToNode::Settled { run } = message { Some(*run) } else { None }
}

/// Waits until `done`, looking often, with a deadline.
pub(crate) async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + 2 * SOON;
    while !done() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until there is an answer, with a deadline.
pub(crate) async fn eventually<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + 2 * SOON;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).expect("readable file")
}
