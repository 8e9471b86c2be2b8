//! What an abuser has: nodes made by hand, raw bytes on both ports, and a look at the hub's process.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_core::invite::InviteText;
use cortex_core::limits::PROTOCOL;
use cortex_core::{Code, Refusal};
use cortex_wire::error::refusal_from_status;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use cortex_wire::mesh::{self, AttachRequest, AttachResponse, attach_request, attach_response};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream as AsyncTcp;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::world::World;

/// How long an answer may take.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Runs asynchronous code of a test.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ended = runtime.block_on(work);
    runtime.shutdown_background();
    ended
}

/// A refusal with its gRPC code.
pub(crate) fn refused(status: &tonic::Status) -> (tonic::Code, Code) {
    (status.code(), refusal_from_status(status).code)
}

/// An invite's text, taken apart.
pub(crate) fn parse(created: &Value) -> InviteText {
    InviteText::parse(created["invite"].as_str().expect("an invite")).expect("it is one")
}

fn authority(world: &World) -> String {
    std::fs::read_to_string(world.path("hub").join("authority.crt")).expect("the authority")
}

/// An HTTP/2 connection to the nodes' port.
pub(crate) async fn channel(world: &World, identity: Option<Identity>) -> Channel {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority(world)))
        .domain_name("hub.cortex.internal");
    let tls = match identity {
        Some(identity) => tls.identity(identity),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("https://{}", world.hub().grpc)).expect("an address");
    endpoint.tls_config(tls).expect("TLS").connect().await.expect("connected")
}

/// A bare TLS connection to the nodes' port.
pub(crate) async fn tls(world: &World, identity: Option<&FakeNode>) -> TlsStream<AsyncTcp> {
    tls_by(world, identity, &rustls::version::TLS13).await.expect("a handshake")
}

/// The same by one version of TLS alone.
pub(crate) async fn tls_by(
    world: &World,
    identity: Option<&FakeNode>,
    version: &'static rustls::SupportedProtocolVersion,
) -> std::io::Result<TlsStream<AsyncTcp>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority(world).as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("a version that this program knows")
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(node) => {
            let key = PrivateKeyDer::from_pem_slice(node.key_pem.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![node.certificate.clone()], key).expect("an identity")
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = AsyncTcp::connect(&world.hub().grpc).await.expect("the port listens");
    let name = ServerName::try_from("hub.cortex.internal").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A request to join, by hand.
pub(crate) fn join_request(id: &[u8], secret: &[u8], name: &str, key: &rcgen::KeyPair) -> mesh::EnrolRequest {
    let csr = rcgen::CertificateParams::default().serialize_request(key).expect("a request");
    mesh::EnrolRequest {
        recovery_key_der: Vec::new().into(),
        invite_id: Bytes::copy_from_slice(id),
        secret: Bytes::copy_from_slice(secret),
        name: name.to_owned(),
        csr_der: Bytes::copy_from_slice(csr.der()),
        protocol: PROTOCOL,
    }
}

/// A machine that joined, without our program.
#[derive(Clone)]
pub(crate) struct FakeNode {
    pub(crate) key_pem: String,
    pub(crate) certificate: CertificateDer<'static>,
}

/// One link of it.
pub(crate) struct FakeLink {
    pub(crate) epoch: u64,
    pub(crate) up: mpsc::Sender<AttachRequest>,
    pub(crate) down: tonic::Streaming<AttachResponse>,
}

impl FakeNode {
    /// Joins the hub of `world`.
    pub(crate) async fn join(world: &World, name: &str, profile: &str) -> Self {
        let invite = parse(&world.invite(&["--profile", profile]).0);
        let key = rcgen::KeyPair::generate().expect("a key");
        let request = join_request(invite.id.as_bytes(), &invite.secret, name, &key);
        let mut client = EnrolmentServiceClient::new(channel(world, None).await);
        let joined = client.enrol(request).await.expect("it joins").into_inner();
        let certificate = CertificateDer::from(joined.certificate_chain_der[0].to_vec());
        Self { key_pem: key.serialize_pem(), certificate }
    }

    /// As tonic takes it.
    pub(crate) fn identity(&self) -> Identity {
        use base64::Engine as _;
        let der = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{der}\n-----END CERTIFICATE-----\n");
        Identity::from_pem(pem, &self.key_pem)
    }

    /// A link on which nothing was said.
    pub(crate) async fn dial(&self, world: &World) -> Result<FakeLink, tonic::Status> {
        let (up, requests) = mpsc::channel(64);
        let mut client = MeshServiceClient::new(channel(world, Some(self.identity())).await);
        let down = client.attach(ReceiverStream::new(requests)).await?.into_inner();
        Ok(FakeLink { epoch: 0, up, down })
    }

    /// A link that was welcomed.
    pub(crate) async fn attach(&self, world: &World) -> FakeLink {
        let mut link = self.dial(world).await.expect("dialled");
        link.say(attach_request::Message::Hello(hello(PROTOCOL))).await;
        link.until(|m| matches!(m, attach_response::Message::Welcome(_)).then_some(())).await;
        link
    }
}

/// A Hello of a protocol version.
pub(crate) fn hello(protocol: u32) -> mesh::Hello {
    let facts = Some(mesh::Facts { os: "linux".to_owned(), ..mesh::Facts::default() });
    mesh::Hello { protocol, instance: 7, generation: 1, facts, ..mesh::Hello::default() }
}

impl FakeLink {
    /// Sends a message with the link's epoch.
    pub(crate) async fn say(&self, message: attach_request::Message) {
        let request = AttachRequest { epoch: self.epoch, message: Some(message) };
        // A closed link is seen by the one who listens.
        let _closed = self.up.send(request).await;
    }

    /// The next message, or how the link ended.
    pub(crate) async fn hear(&mut self) -> Result<attach_response::Message, tonic::Status> {
        loop {
            let next = tokio::time::timeout(SOON, self.down.message()).await.expect("an answer in time")?;
            let ended = || tonic::Status::unavailable("the stream ended");
            let response = next.ok_or_else(ended)?;
            self.epoch = response.epoch;
            if let Some(message) = response.message {
                return Ok(message);
            }
        }
    }

    /// Waits for a message of a kind.
    pub(crate) async fn until<T>(&mut self, want: impl Fn(&attach_response::Message) -> Option<T>) -> T {
        loop {
            let message = self.hear().await.expect("the link is open");
            if let Some(found) = want(&message) {
                return found;
            }
        }
    }

    /// Waits for the command that was sent, and gives its id.
    pub(crate) async fn started(&mut self) -> Bytes {
        self.until(|m| {
            if let attach_response::Message::RunStart(start) = m { Some(start.run_id.clone()) } else { None }
        })
        .await
    }

    /// Listens until the link ends, and says how.
    pub(crate) async fn ended(&mut self) -> (tonic::Code, Code) {
        loop {
            if let Err(status) = self.hear().await {
                return refused(&status);
            }
        }
    }
}

/// An answer of the API.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Answer {
    /// Our code.
    pub(crate) fn code(&self) -> String {
        let body = self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        value["code"].as_str().or(value["error"]["code"].as_str()).unwrap_or("none").to_owned()
    }
}

/// The administrator's token.
pub(crate) fn admin(world: &World) -> String {
    std::fs::read_to_string(&world.hub().token_file).expect("the token").trim().to_owned()
}

/// One request in plain HTTP/1.1. `headers` are whole lines.
pub(crate) fn http(world: &World, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let address = world.hub().http.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).expect("the port listens");
    stream.set_read_timeout(Some(SOON)).expect("a deadline");
    let host = if headers.iter().any(|h| h.to_ascii_lowercase().starts_with("host:")) {
        String::new()
    } else {
        format!("host: {address}\r\n")
    };
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {}\r\n{lines}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("send the head");
    // A server that has answered may have stopped reading.
    let _cut = stream.write_all(body);
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    Answer { status: status.unwrap_or_else(|| panic!("no answer to {method} {path}: {text}")), text }
}

/// One request as the administrator with a body of JSON.
pub(crate) fn api(world: &World, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("authorization: Bearer {}", admin(world));
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let kind: &[&str] =
        if body.is_empty() { &[&bearer] } else { &[&bearer, "content-type: application/json"] };
    http(world, method, path, kind, &body)
}

/// The rows of the audit log that were refused with this reason.
pub(crate) fn audited(world: &World, reason: &str) -> Vec<Value> {
    let rows = world.cortex(&["audit", "export"]).expect(0).lines();
    rows.into_iter().filter(|row| row["outcome"] == "denied" && row["reason"] == reason).collect()
}

/// Waits until a refusal of this node stands in the audit log, once however often it came.
pub(crate) fn link_audited(world: &World, node: &str, reason: &str) {
    let actor = format!("node:{node}");
    let count = world.eventually("the audit row", SOON, |world| {
        let rows = audited(world, reason);
        let of_node = rows.iter().filter(|row| row["actor"] == actor && row["action"] == "node.attach");
        Some(of_node.count()).filter(|count| *count > 0)
    });
    assert_eq!(count, 1, "{reason} of {node} stands once a minute");
}

/// Names of the nodes that the hub knows.
pub(crate) fn nodes(world: &World) -> Vec<String> {
    let list = world.cortex(&["node", "ls", "--json"]).expect(0).value();
    let names = list.as_array().expect("a list").iter();
    names.map(|node| node["name"].as_str().expect("a name").to_owned()).collect()
}

/// The other nodes go on: a command on `a` answers, and not late.
pub(crate) fn others_go_on(world: &World) {
    let began = Instant::now();
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
    assert!(began.elapsed() < Duration::from_secs(5), "a command took {:?}", began.elapsed());
}

/// What the others may be slowed down to whatever their time was without the abuse: tests run
/// beside each other on few cores, and below this it is the scheduler that is measured (427 ms was
/// seen). What an abuse may cost others is a benchmark's business; that it stops nobody is shown here.
const SLOWED_FLOOR: Duration = Duration::from_secs(2);

/// The slowest of 20 commands on `a`: of so few it stands for the p99.
pub(crate) fn slowest(world: &World) -> Duration {
    let one = |_| {
        let began = Instant::now();
        world.cortex(&["exec", "a", "--", "true"]).expect(0);
        began.elapsed()
    };
    (0..20).map(one).max().expect("twenty")
}

/// The others go on, at most twice as slow as `before`.
pub(crate) fn others_are_not_slowed(world: &World, before: Duration) {
    let during = slowest(world);
    assert!(during <= (2 * before).max(SLOWED_FLOOR), "{during:?} where it was {before:?}");
}

/// Lets this process, and those that it starts, have many descriptors; how many.
pub(crate) fn many_descriptors() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the bound");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("raise it as far as it goes");
    hard
}

/// Processor time of the hub since its start, milliseconds.
pub(crate) fn processor_ms(world: &World) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", world.hub().pid())).expect("the hub runs");
    let after_name = text.rsplit(") ").next().expect("its fields");
    let fields: Vec<u64> = after_name.split(' ').map(|word| word.parse().unwrap_or(0)).collect();
    // A tick is 10 ms on every system that this is built for.
    (fields[11] + fields[12]) * 10
}

/// Open descriptors of the hub.
pub(crate) fn descriptors(world: &World) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", world.hub().pid())).expect("the hub runs").count()
}

/// Resident memory of the hub, kibibytes.
pub(crate) fn memory_kib(world: &World) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", world.hub().pid())).expect("the hub runs");
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

/// A refusal as the program prints it with `--json`.
pub(crate) fn code_of(ended: &crate::world::Ended) -> String {
    ended.refusal()
}

/// Kept so that a refusal of the library is told apart from one of the wire.
pub(crate) fn is(refusal: (tonic::Code, Code), grpc: tonic::Code, code: Code) {
    assert_eq!(refusal, (grpc, code));
    assert_eq!(cortex_wire::error::surface(Refusal::new(code, "").code).grpc, grpc, "the table agrees");
}

/// The rule behind such a refusal.
pub(crate) fn rule_of(ended: &crate::world::Ended) -> String {
    ended.value()["error"]["details"]["rule"].as_str().unwrap_or("none").to_owned()
}

/// Sets a node to its own policy with a change.
pub(crate) fn set_document(world: &World, node: &str, change: impl FnOnce(&mut Value)) {
    let mut document = world.cortex(&["policy", "get", node, "--json"]).expect(0).value()["document"].clone();
    change(&mut document);
    let file = world.path(&format!("{node}.document"));
    std::fs::write(&file, document.to_string()).expect("a file");
    world.cortex(&["policy", "set", node, "--file", &file.display().to_string(), "--yes"]).expect(0);
}

/// Sets a node to `dev` with a shell, and lets everybody pass through the world's folder, as they
/// pass through a home directory below which there is a root.
pub(crate) fn develop(world: &World, node: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(world.path(""), std::fs::Permissions::from_mode(0o755)).expect("opened");
    world.cortex(&["policy", "set", node, "dev", "--yes"]).expect(0);
    world.cortex(&["policy", "allow", node, "sh", "--yes"]).expect(0);
}

/// A folder with these programs, from which a node may start them.
pub(crate) fn tools(world: &World, node: &str, programs: &[&str]) -> std::path::PathBuf {
    let folder = world.path("tools");
    std::fs::create_dir_all(&folder).expect("a folder");
    world
        .cortex(&["policy", "allow", node, "--root", &format!("{}:rx", folder.display()), "--yes"])
        .expect(0);
    for program in programs {
        let path = folder.join(program).display().to_string();
        world.cortex(&["policy", "allow", node, &path, "--yes"]).expect(0);
    }
    folder
}

/// The program that attempts what it is told (`attempt.c`), as an allowed tool; its path.
pub(crate) fn attempt(world: &World, node: &str) -> String {
    let program = tools(world, node, &["attempt"]).join("attempt");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/abuse/attempt.c");
    let compiled = std::process::Command::new("cc").args(["-O1", source, "-o"]).arg(&program).status();
    assert!(compiled.expect("a C compiler").success());
    program.display().to_string()
}
