//! Simulated nodes: real enrolment, real TLS, real frames; a run ends when it is to start. Thousands fit in one
//! process.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use cortex_core::id::{Epoch, Generation};
use cortex_core::invite::InviteText;
use cortex_core::limits::{BACKOFF_MS_MAX, BACKOFF_MS_MIN, HEARTBEAT_MS, PROTOCOL};
use cortex_core::message::{Envelope, Hello, ToHub, ToNode};
use cortex_core::node::Facts;
use cortex_core::run::{EndCause, Ended};
use cortex_core::sandbox::Level;
use cortex_wire::{convert, mesh};
use hyper_util::rt::TokioIo;
use mesh::enrolment_service_client::EnrolmentServiceClient;
use mesh::mesh_service_client::MeshServiceClient;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::hub::Hub;

/// The name in the hub's certificate, whatever its address.
const HUB_NAME: &str = "hub.cortex.internal";
/// Handshakes of the swarm at once: a storm is measured by `reconnect`, not by every case.
const DIALS_AT_ONCE: usize = 64;

/// What the nodes did, counted over all of them.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) attached: AtomicU64,
    pub(crate) attaches: AtomicU64,
    pub(crate) acks: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Runs that were started, each ended at once.
    pub(crate) runs: AtomicU64,
    /// Runs that the hub has settled.
    pub(crate) settled: AtomicU64,
}

/// How a swarm beats.
#[derive(Clone, Copy)]
pub(crate) enum Beat {
    /// As real nodes do.
    Normal,
    /// The next one as soon as the last is answered.
    Flood,
}

/// Enrolled simulated nodes that attach, stay and come back until dropped.
pub(crate) struct Swarm {
    pub(crate) counts: Arc<Counts>,
    tasks: tokio::task::JoinSet<()>,
}

struct Member {
    instance: u64,
    slots: u32,
    address: String,
    tls: Arc<rustls::ClientConfig>,
    counts: Arc<Counts>,
    beat: Beat,
    dials: Arc<Semaphore>,
}

impl Swarm {
    /// Enrols and attaches `size` nodes named `prefix`0, `prefix`1, …
    pub(crate) async fn start(hub: &Hub, prefix: &str, size: usize, beat: Beat) -> Result<Self> {
        Self::with_slots(hub, prefix, size, beat, 0).await
    }

    /// The same for nodes that take so many tasks at once, and end what they are to start with 0.
    pub(crate) async fn with_slots(
        hub: &Hub,
        prefix: &str,
        size: usize,
        beat: Beat,
        slots: u32,
    ) -> Result<Self> {
        let authority = authority(hub.dir())?;
        let counts = Arc::new(Counts::default());
        let dials = Arc::new(Semaphore::new(DIALS_AT_ONCE));
        let mut tasks = tokio::task::JoinSet::new();
        let mut api = crate::api::Api::connect(hub).await?;
        let channel = dial(&hub.grpc, anonymous(&authority)?).await?;
        for index in 0..size {
            let invite =
                InviteText::parse(&api.invite().await?).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            let tls = enrol(channel.clone(), &authority, &invite, &format!("{prefix}{index}")).await?;
            let member = Member {
                instance: index as u64,
                slots,
                address: hub.grpc.clone(),
                tls: Arc::new(tls),
                counts: Arc::clone(&counts),
                beat,
                dials: Arc::clone(&dials),
            };
            tasks.spawn(member.live());
        }
        let swarm = Self { counts, tasks };
        swarm.wait_attached(size as u64, Duration::from_secs(120)).await?;
        Ok(swarm)
    }

    /// Waits until that many are attached.
    pub(crate) async fn wait_attached(&self, size: u64, time: Duration) -> Result<()> {
        let all = async {
            while self.counts.attached.load(Ordering::Relaxed) < size {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(time, all)
            .await
            .with_context(|| format!("{} of {size} attached", self.counts.attached.load(Ordering::Relaxed)))
    }

    /// Ends all of them, links and all.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Member {
    async fn live(self) {
        let mut epoch = Epoch(0);
        let mut failures = 0_u32;
        let instance = self.instance;
        loop {
            let welcomed = AtomicBool::new(false);
            // A lost link is what this loop is there for.
            drop(self.attach(&mut epoch, instance, &welcomed).await);
            if welcomed.load(Ordering::Relaxed) {
                self.counts.attached.fetch_sub(1, Ordering::Relaxed);
                failures = 0;
            } else {
                self.counts.refused.fetch_add(1, Ordering::Relaxed);
            }
            let ceiling = (BACKOFF_MS_MIN << failures.min(10)).min(BACKOFF_MS_MAX);
            failures += 1;
            let jitter = (epoch.0 ^ instance).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
            tokio::time::sleep(Duration::from_millis(BACKOFF_MS_MIN / 2 + jitter % ceiling)).await;
        }
    }

    async fn attach(&self, epoch: &mut Epoch, instance: u64, welcomed: &AtomicBool) -> Result<()> {
        let channel = {
            let _turn = self.dials.acquire().await?;
            dial(&self.address, Arc::clone(&self.tls)).await?
        };
        let (send, frames) = mpsc::channel(2);
        let hello = Hello {
            protocol: PROTOCOL,
            instance,
            dial: 0,
            generation: Generation(0),
            epoch: *epoch,
            facts: Facts { os: "linux".to_owned(), slots: self.slots, ..Facts::default() },
            ceiling: None,
            audit_head: None,
            runs: Vec::new(),
            files: vec![],
        };
        send.send(up(*epoch, ToHub::Hello(Box::new(hello)))).await?;
        let mut answers =
            MeshServiceClient::new(channel).attach(ReceiverStream::new(frames)).await?.into_inner();
        let mut beats = 0;
        let mut due = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let Some(answer) = answer? else { return Ok(()) };
                    let Ok(Some(envelope)) = convert::to_node_from_proto(answer) else { continue };
                    match envelope.message {
                        ToNode::Welcome(_) => {
                            *epoch = envelope.epoch;
                            welcomed.store(true, Ordering::Relaxed);
                            self.counts.attached.fetch_add(1, Ordering::Relaxed);
                            self.counts.attaches.fetch_add(1, Ordering::Relaxed);
                            send.send(up(*epoch, ToHub::Heartbeat { seq: beats })).await?;
                        }
                        ToNode::HeartbeatAck { .. } => {
                            self.counts.acks.fetch_add(1, Ordering::Relaxed);
                            if matches!(self.beat, Beat::Flood) {
                                beats += 1;
                                send.send(up(*epoch, ToHub::Heartbeat { seq: beats })).await?;
                            }
                        }
                        ToNode::Goodbye { .. } => return Ok(()),
                        ToNode::Start(start) => {
                            self.counts.runs.fetch_add(1, Ordering::Relaxed);
                            let run = start.run;
                            send.send(up(*epoch, ToHub::Started { run, level: Level::None })).await?;
                            send.send(up(*epoch, ToHub::Ended { run, ended: well() })).await?;
                        }
                        ToNode::Settled { .. } => {
                            self.counts.settled.fetch_add(1, Ordering::Relaxed);
                        }
                        ToNode::Input { .. }
                        | ToNode::Cancel { .. }
                        | ToNode::Cut { .. }
                        | ToNode::Resume { .. }
                        | ToNode::Credit { .. }
                        | ToNode::Forget { .. }
                        | ToNode::Policy(_)
                        | ToNode::Certificate { .. }
                        | ToNode::FileAsk(_)
                        | ToNode::FileCancel { .. }
                        | ToNode::FileSettled { .. }
                        | ToNode::AttemptFence { .. }
                        | ToNode::TransferAsk(_)
                        | ToNode::TransferCancel { .. }
                        | ToNode::Watch(_)
                        | ToNode::Unwatch { .. } => {}
                    }
                }
                _ = due.tick(), if welcomed.load(Ordering::Relaxed) && matches!(self.beat, Beat::Normal) => {
                    beats += 1;
                    send.send(up(*epoch, ToHub::Heartbeat { seq: beats })).await?;
                }
            }
        }
    }
}

/// The end of a run without output that did what it should.
fn well() -> Ended {
    Ended { code: Some(0), ..Ended::new(EndCause::Exited) }
}

fn up(epoch: Epoch, message: ToHub) -> mesh::AttachRequest {
    convert::to_hub_into_proto(Envelope { epoch, message })
}

/// The hub's authority as its data directory has it.
fn authority(dir: &Path) -> Result<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    Ok(CertificateDer::from_pem_file(dir.join("hub/authority.crt"))?)
}

fn anonymous(authority: &CertificateDer<'static>) -> Result<Arc<rustls::ClientConfig>> {
    Ok(Arc::new(with_h2(builder(authority)?.with_no_client_auth())))
}

fn builder(
    authority: &CertificateDer<'static>,
) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.clone())?;
    Ok(rustls::ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_root_certificates(roots))
}

fn with_h2(mut config: rustls::ClientConfig) -> rustls::ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    config
}

async fn enrol(
    channel: Channel,
    authority: &CertificateDer<'static>,
    invite: &InviteText,
    name: &str,
) -> Result<rustls::ClientConfig> {
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::default().serialize_request(&key)?;
    let request = mesh::EnrolRequest {
        invite_id: invite.id.as_bytes().to_vec().into(),
        secret: invite.secret.to_vec().into(),
        name: name.to_owned(),
        csr_der: csr.der().to_vec().into(),
        protocol: PROTOCOL,
        recovery_key_der: Vec::new().into(),
    };
    let answer = EnrolmentServiceClient::new(channel).enrol(request).await?.into_inner();
    let chain = answer.certificate_chain_der.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(with_h2(builder(authority)?.with_client_auth_cert(chain, key)?))
}

async fn dial(address: &str, tls: Arc<rustls::ClientConfig>) -> Result<Channel> {
    let address = address.to_owned();
    let connect = tower::service_fn(move |_: http::Uri| {
        let (address, tls) = (address.clone(), Arc::clone(&tls));
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(HUB_NAME).map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(TlsConnector::from(tls).connect(name, tcp).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://hub.cortex.internal")
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_connection_window_size(65_535)
        .initial_stream_window_size(65_535);
    Ok(endpoint.connect_with_connector(connect).await?)
}
