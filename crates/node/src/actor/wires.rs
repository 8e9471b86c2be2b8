//! Everything that the actor waits for, in one place: the link, dialling, runs, journal, file
//! work, time. Nothing is decided here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cortex_core::journal::Record;
use cortex_core::message::{Envelope, SignedPolicy, ToHub};
use cortex_core::{Code, Refusal, limits};
use cortex_wire::mesh;
use futures::future::BoxFuture;
use rcgen::PublicKeyData as _;
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::files::News;
use crate::enrol::{blocking, key_failed, request};
use crate::identity::{DataDir, Identity};
use crate::journal::{Ack, Journal};
use crate::link::{self, Link};
use crate::run::worker::Event;
use crate::{proof, recover, tls};

/// Time after which a renewal that was not answered is asked for again.
pub(super) const RENEW_RETRY_MS: u64 = 10 * 60 * 1_000;

/// What can happen.
pub(super) enum Happening {
    /// A message came, or the link broke.
    Frame(Result<Box<mesh::AttachResponse>, Refusal>),
    /// A dial ended.
    Dialled(Result<Link, Refusal>),
    /// A run has news.
    Event(Event),
    /// An operation on files has.
    Files(News),
    /// The journal has.
    Ack(Ack),
    /// The link's numbers are on disk, or not.
    Remembered(Result<(), Refusal>),
    /// The certificate that holds is to be renewed at this wall time.
    Renewable(Result<i64, Refusal>),
    /// A certificate request is there.
    Request(Result<Vec<u8>, Refusal>),
    /// The process is to end.
    Shutdown,
    /// The deadline came.
    Timeout,
    /// Something that was waited for is possible or done.
    Progress,
}

/// Work on files of the data directory, one after the other.
pub(super) struct FileWork {
    remembers: bool,
    work: Box<dyn FnOnce() -> Happening + Send>,
}

impl FileWork {
    /// Keeps the identity with its new numbers.
    pub(super) fn remember(dir: &Arc<DataDir>, identity: Identity) -> Self {
        let dir = Arc::clone(dir);
        let work = Box::new(move || Happening::Remembered(dir.write_identity(&identity)));
        Self { remembers: true, work }
    }

    /// Keeps the policy that holds. Without it on disk the node goes on by what it holds in memory;
    /// after a restart it would take an older revision for good.
    pub(super) fn policy(dir: &Arc<DataDir>, signed: SignedPolicy) -> Self {
        let dir = Arc::clone(dir);
        let work = move || {
            if let Err(refusal) = dir.write_policy(&signed) {
                tracing::error!(code = %refusal.code, "the policy cannot be kept: {refusal}");
            }
            Happening::Progress
        };
        Self { remembers: false, work: Box::new(work) }
    }

    /// Keeps a fresh certificate, and looks when it is to be renewed.
    pub(super) fn certificate(dir: &Arc<DataDir>, chain: Vec<Bytes>) -> Self {
        let dir = Arc::clone(dir);
        let work = move || Happening::Renewable(renew(&dir, &chain).and_then(|()| renewable_at(&dir)));
        Self { remembers: false, work: Box::new(work) }
    }

    /// Looks when the certificate is to be renewed.
    pub(super) fn look_at_certificate(dir: &Arc<DataDir>) -> Self {
        let dir = Arc::clone(dir);
        Self { remembers: false, work: Box::new(move || Happening::Renewable(renewable_at(&dir))) }
    }

    /// Makes a certificate request with the node's own key.
    pub(super) fn request(dir: &Arc<DataDir>) -> Self {
        let dir = Arc::clone(dir);
        Self { remembers: false, work: Box::new(move || Happening::Request(make_request(&dir))) }
    }
}

/// The ends that the actor waits on.
pub(super) struct Wires {
    hub: String,
    link: Option<Link>,
    dialling: Option<BoxFuture<'static, Result<Link, Refusal>>>,
    events: mpsc::Receiver<Event>,
    news: mpsc::Receiver<News>,
    journal: Journal,
    waiting: VecDeque<FileWork>,
    working: Option<(bool, BoxFuture<'static, Result<Happening, Refusal>>)>,
    shutdown: CancellationToken,
    shutdown_told: bool,
}

impl Wires {
    pub(super) fn new(
        journal: Journal,
        events: mpsc::Receiver<Event>,
        news: mpsc::Receiver<News>,
        shutdown: CancellationToken,
        hub: String,
    ) -> Self {
        Self {
            hub,
            link: None,
            dialling: None,
            events,
            news,
            journal,
            waiting: VecDeque::new(),
            working: None,
            shutdown,
            shutdown_told: false,
        }
    }

    /// Whether there is a link, or one is being made.
    pub(super) const fn is_connected(&self) -> bool {
        self.link.is_some() || self.dialling.is_some()
    }

    /// Whether numbers are on their way to disk: nothing else of the link is done meanwhile.
    pub(super) fn is_remembering(&self) -> bool {
        self.working.as_ref().is_some_and(|(remembers, _)| *remembers)
            || self.waiting.iter().any(|work| work.remembers)
    }

    pub(super) fn dial(&mut self, dir: &Arc<DataDir>, hello: Envelope<ToHub>) {
        let (hub, dir) = (self.hub.clone(), Arc::clone(dir));
        self.dialling = Some(Box::pin(async move {
            match attach(&hub, &dir, hello.clone()).await {
                Err(refusal) if needs_recovery(&refusal, &dir) => {
                    recover::recover(&dir, &hub).await?;
                    attach(&hub, &dir, hello).await
                }
                attached => attached,
            }
        }));
    }

    pub(super) fn connect(&mut self, link: Link) {
        self.link = Some(link);
    }

    pub(super) fn disconnect(&mut self) {
        self.link = None;
        self.dialling = None;
    }

    /// Gives a record to the journal, or gives it back.
    pub(super) fn journal(&self, record: Record) -> Result<(), Record> {
        self.journal.records.try_send(record).map_err(|error| match error {
            mpsc::error::TrySendError::Full(record) | mpsc::error::TrySendError::Closed(record) => record,
        })
    }

    pub(super) fn write(&mut self, work: FileWork) {
        self.waiting.push_back(work);
        self.begin_file_work();
    }

    /// Waits for the next thing. Sends `staged` when the link has room for it.
    pub(super) async fn next(
        &mut self,
        staged: &mut Option<mesh::AttachRequest>,
        has_backlog: bool,
        deadline: Option<Instant>,
    ) -> Happening {
        let remembering = self.is_remembering();
        let Self { hub, link, dialling, events, news, journal, working, shutdown, shutdown_told, .. } = self;
        let (out, inbound) = match link {
            Some(link) => (Some(link.out.clone()), Some(link)),
            None => (None, None),
        };
        let inbound = inbound.filter(|_| !remembering);
        let out = out.filter(|_| staged.is_some());
        let happening = tokio::select! {
            frame = frame(inbound, hub) => Happening::Frame(frame.map(Box::new)),
            link = optional(dialling) => {
                *dialling = None;
                Happening::Dialled(link)
            }
            Some(event) = events.recv() => Happening::Event(event),
            Some(told) = news.recv() => Happening::Files(told),
            Some(ack) = journal.acks.recv() => Happening::Ack(ack),
            done = file_work(working) => {
                let remembers = working.take().is_some_and(|(remembers, _)| remembers);
                match done {
                    Ok(happening) => happening,
                    Err(refusal) if remembers => Happening::Remembered(Err(refusal)),
                    Err(refusal) => Happening::Renewable(Err(refusal)),
                }
            }
            sent = room(out, staged) => match sent {
                Ok(()) => Happening::Progress,
                Err(()) => Happening::Frame(Err(tls::unreachable(hub, &"the connection broke"))),
            },
            _ = journal.records.reserve(), if has_backlog => Happening::Progress,
            () = shutdown.cancelled(), if !*shutdown_told => {
                *shutdown_told = true;
                Happening::Shutdown
            }
            () = sleep(deadline) => Happening::Timeout,
        };
        self.begin_file_work();
        happening
    }

    /// Closes the link, and waits for what is being kept and for the journal's last records: a policy
    /// that came last must hold after a restart, which takes the data directory.
    pub(super) async fn finish(mut self) {
        self.disconnect();
        while let Some((_, work)) = self.working.take() {
            if let Err(refusal) = work.await {
                tracing::error!(code = %refusal.code, "the data directory was not written to: {refusal}");
            }
            self.begin_file_work();
        }
        let journal = self.journal;
        if let Err(error) = tokio::task::spawn_blocking(move || journal.finish()).await {
            tracing::error!(%error, "the journal was cut off");
        }
    }

    fn begin_file_work(&mut self) {
        if self.working.is_some() {
            return;
        }
        if let Some(FileWork { remembers, work }) = self.waiting.pop_front() {
            self.working = Some((remembers, Box::pin(blocking(move || Ok(work())))));
        }
    }
}

async fn frame(link: Option<&mut Link>, hub: &str) -> Result<mesh::AttachResponse, Refusal> {
    match link {
        Some(link) => link.next(hub).await,
        None => std::future::pending().await,
    }
}

async fn optional<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn file_work(
    working: &mut Option<(bool, BoxFuture<'static, Result<Happening, Refusal>>)>,
) -> Result<Happening, Refusal> {
    match working {
        Some((_, work)) => work.await,
        None => std::future::pending().await,
    }
}

async fn room(
    out: Option<mpsc::Sender<mesh::AttachRequest>>,
    staged: &mut Option<mesh::AttachRequest>,
) -> Result<(), ()> {
    let Some(out) = out else { return std::future::pending().await };
    let permit = out.reserve().await.map_err(|_| ())?;
    if let Some(message) = staged.take() {
        permit.send(message);
    }
    Ok(())
}

async fn sleep(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn attach(hub: &str, dir: &Arc<DataDir>, hello: Envelope<ToHub>) -> Result<Link, Refusal> {
    let dir = Arc::clone(dir);
    let attach = async {
        let credentials = blocking(move || dir.credentials()).await?;
        link::attach(hub, &credentials, hello).await
    };
    let deadline = Duration::from_millis(limits::HELLO_MS_MAX);
    let late = |_| Err(tls::unreachable(hub, &"it did not answer in time"));
    tokio::time::timeout(deadline, attach).await.unwrap_or_else(late)
}

/// Whether the certificate is of no more use: the hub says so, or a recovery was cut off between the
/// certificate and its key.
fn needs_recovery(refusal: &Refusal, dir: &DataDir) -> bool {
    let cut_off = || dir.recovering_key().is_ok_and(|key| key.is_some());
    refusal.code == Code::Unauthenticated || (refusal.code == Code::Internal && cut_off())
}

/// Keeps a fresh certificate when it is this node's.
fn renew(dir: &DataDir, chain: &[Bytes]) -> Result<(), Refusal> {
    let credentials = dir.credentials()?;
    let node = dir.identity()?.map(|identity| identity.node);
    let key = rcgen::KeyPair::from_pem(&credentials.key_pem).map_err(|error| key_failed(&error))?;
    let certificates: Vec<_> = chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let node = node.ok_or_else(|| Refusal::new(Code::BadConfig, "The node has no identity."))?;
    proof::own_chain(&credentials.authority, &certificates, node, &key.subject_public_key_info())?;
    dir.write_chain(chain)
}

/// Half of the certificate's life, in wall milliseconds.
fn renewable_at(dir: &DataDir) -> Result<i64, Refusal> {
    let chain = dir.credentials()?.chain;
    let parsed = chain.first().and_then(|der| x509_parser::parse_x509_certificate(der).ok());
    let (_, certificate) = parsed.ok_or_else(|| {
        Refusal::new(Code::BadConfig, "The node's certificate cannot be read.")
            .hint("Restore the data directory, or remove it and join again with a new invite.")
    })?;
    let validity = certificate.validity();
    let (from, to) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Ok((from + (to - from) / 2).saturating_mul(1_000))
}

fn make_request(dir: &DataDir) -> Result<Vec<u8>, Refusal> {
    let key = rcgen::KeyPair::from_pem(&dir.credentials()?.key_pem).map_err(|error| {
        Refusal::new(Code::BadConfig, format!("The node's key cannot be read: {error}."))
            .hint("Restore the data directory, or remove it and join again with a new invite.")
    })?;
    request(&key)
}
