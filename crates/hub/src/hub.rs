//! A hub from start to stop: opens what it keeps, binds both ports, starts the workers, and ends
//! in the opposite order. Nothing is decided here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::consent::Standing;
use cortex_core::event::{Event, EventKind};
use cortex_core::id::Seq;
use cortex_core::pool::quota::Quota;
use cortex_core::{Code, Refusal};
use cortex_store::memory::MemoryStore;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{CommitHook, ConsentFilter, Store, StoreError, Tx};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::board::Board;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::files;
use crate::http::{About, Api, ApiParts, App, Door};
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::runlog::RunLogs;
use crate::service::audit::Audit;
use crate::service::consents::Consents;
use crate::service::enrol::Enrol;
use crate::service::events::Events;
use crate::service::files::Files;
use crate::service::invites::Invites;
use crate::service::locks::{self, Locks};
use crate::service::nodes::Nodes;
use crate::service::policies::{self, Policies};
use crate::service::pool::Pool;
use crate::service::runs::Runs;
use crate::service::sessions::Sessions;
use crate::service::skills::Skills;
use crate::service::tokens::Tokens;
use crate::service::transfers::Transfers;
use crate::service::users::Users;
use crate::service::users::passwords::Passwords;
use crate::service::workspaces::Workspaces;
use crate::service::{Context, store_refusal};
use crate::transfer::chunks::Chunks;
use crate::workers::supervisor::Supervisor;
use crate::{grpc, http, workers};

/// Where the output of runs stands in the data directory.
const RUNS: &str = "runs";
/// Where the chunk store stands there.
const CHUNKS: &str = "chunks";
/// How long the HTTP door has to drain.
const HTTP_DRAIN: Duration = Duration::from_millis(2_500);
/// How long nodes and workers have to end.
const WORKERS_DRAIN: Duration = Duration::from_secs(5);
/// How long what links left behind has to end, and to be written.
const MESH_DRAIN: Duration = Duration::from_secs(2);
/// How long the store has to answer what it accepted.
const STORE_DRAIN: Duration = Duration::from_secs(10);

/// How to start a hub.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept; made when it is missing, for its owner alone.
    pub data_dir: PathBuf,
    /// Where people and programs call; port 0 lets the system choose.
    pub http: SocketAddr,
    /// Where nodes dial; port 0 lets the system choose.
    pub grpc: SocketAddr,
    /// `https://hub.lan:7440`, when others reach the hub under a name.
    pub public_url: Option<String>,
    /// What keeps.
    pub store: StoreKind,
    /// Leave to serve HTTP without TLS beyond this machine, behind a proxy that adds it.
    pub allow_plain_http: bool,
    /// Tasks of the work pool that one party may have open.
    pub tasks_per_owner: u64,
}

/// What keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreKind {
    /// SQLite in the data directory.
    #[default]
    Sqlite,
    /// Memory: all is gone with the process. For tests and trials.
    Memory,
}

impl StoreKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Memory => "memory",
        }
    }
}

/// What became of the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Where nodes dial.
    pub grpc: SocketAddr,
    /// The administrator's first token.
    pub token_file: PathBuf,
    /// Whether the data directory was empty before.
    pub first_start: bool,
}

/// A running hub.
pub struct Hub {
    started: Started,
    context: Context,
    mesh: Mesh,
    transfers: Transfers,
    chunks: Chunks,
    workspaces: Workspaces,
    skills: Skills,
    doors: Supervisor,
    workers: Supervisor,
}

impl Hub {
    /// Starts a hub: both ports listen when this returns.
    ///
    /// # Errors
    /// `BadConfig` when an address or the data directory cannot be used, and what the store says.
    pub async fn start(config: Config) -> Result<Self, Refusal> {
        Self::start_with(config, |store| store).await
    }

    /// The same with something between the hub and its store, for tests of a store that stalls.
    pub async fn start_with(
        config: Config,
        wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Result<Self, Refusal> {
        refuse_plain_http(&config)?;
        let clock = Clock::default();
        let bus = Bus::new(clock);
        let (opened, directory) = (config.clone(), Directory::default());
        let hook = hook(&bus, &directory);
        let (store, logs) = blocking(move || open(&opened, hook)).await?;
        let quota = Quota { own: config.tasks_per_owner, ..Quota::default() };
        let board = Board::with_quota(clock, quota);
        let context = Context { store: wrap(store), clock, directory, bus, board };
        load(&context).await?;
        let (dir, fleet) = (config.data_dir.clone(), !context.directory.nodes().is_empty());
        let authority = Arc::new(blocking(move || open_authority(&dir, fleet)).await?);
        policies::settle(&context, &authority).await?;
        let token_file = config.data_dir.join("admin.token");
        let tokens = Tokens::new(context.clone());
        let first_start = tokens.begin(&token_file).await?;
        let mesh = Mesh::new(context.clone(), logs.clone());
        mesh.restore().await?;
        locks::enforce(&context, &mesh);
        let (metrics, dir) = (Metrics::default(), config.data_dir.clone());
        let of = (context.clone(), mesh.clone(), metrics.clone());
        let transfers = blocking(move || Transfers::open(of.0, of.1, of.2, &dir)).await?;
        let (kind, dir) = (config.store, config.data_dir.join(CHUNKS));
        let blobs = blocking(move || match kind {
            StoreKind::Sqlite => Chunks::folder(&dir),
            StoreKind::Memory => Ok(Chunks::memory()),
        });
        let chunks = Chunks::new(blobs.await?, transfers.io());
        let of = (context.clone(), mesh.clone(), transfers.clone());
        let workspaces = Workspaces::open(of.0, of.1, of.2, chunks.clone()).await?;
        let of = (context.clone(), mesh.clone(), transfers.clone());
        let skills = Skills::open(of.0, of.1, of.2, chunks.clone(), workspaces.clone()).await?;

        let http = http::bind(config.http)?;
        let grpc = http::bind(config.grpc)?;
        let started = Started { http: local(&http)?, grpc: local(&grpc)?, token_file, first_start };
        let hub = Self {
            started,
            context: context.clone(),
            mesh: mesh.clone(),
            transfers,
            chunks,
            workspaces,
            skills,
            doors: Supervisor::default(),
            workers: Supervisor::default(),
        };
        let parts = Parts { config, authority, logs, tokens, metrics };
        hub.context.commit(announce(&hub.context), |_| ()).await?;
        hub.serve(parts, http, grpc);
        tracing::info!(http = %hub.started.http, grpc = %hub.started.grpc, first_start, "the hub serves");
        Ok(hub)
    }

    /// Where it listens.
    pub const fn started(&self) -> &Started {
        &self.started
    }

    /// Ends when a worker failed that the hub cannot be without; then stop it.
    pub async fn failed(&self) -> Refusal {
        tokio::select! {
            refusal = self.doors.failed() => refusal,
            refusal = self.workers.failed() => refusal,
        }
    }

    /// Stops: HTTP drains, nodes are told, the store answers what it accepted. Output that is not on
    /// disk by then was not acknowledged: its node sends it again.
    pub async fn stop(self) {
        // Those who wait for them are told while the door drains.
        self.transfers.stop();
        self.workspaces.stop();
        self.skills.stop();
        let doors = self.doors.stop(HTTP_DRAIN).await;
        let workers = self.workers.stop(WORKERS_DRAIN).await;
        self.mesh.stop(MESH_DRAIN).await;
        if !doors || !workers {
            tracing::warn!(doors, workers, "not everything ended in time");
        }
        match tokio::time::timeout(MESH_DRAIN, self.mesh.flush_last_seen()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => tracing::warn!("when nodes were last heard could not be written"),
        }
        if tokio::time::timeout(STORE_DRAIN, self.context.store.close()).await.is_err() {
            tracing::warn!("the store did not close in time");
        }
    }

    fn serve(&self, parts: Parts, http: TcpListener, grpc: TcpListener) {
        let enrol = Enrol::new(self.context.clone(), Arc::clone(&parts.authority));
        let api = self.api(&parts);
        workers::start(&self.workers, &api);
        serve_grpc(&self.workers, grpc, parts.authority, self.mesh.clone(), enrol);
        serve_http(&self.doors, http, api);
    }

    /// Memory is another log after each start: no anchor could fit it.
    fn audit(&self, config: &Config) -> Audit {
        let audit = Audit::new(self.context.clone());
        match config.store {
            StoreKind::Sqlite => audit.anchored(&config.data_dir),
            StoreKind::Memory => audit,
        }
    }

    fn api(&self, parts: &Parts) -> Api {
        let context = self.context.clone();
        let (mesh, passwords, metrics) = (self.mesh.clone(), Passwords::default(), parts.metrics.clone());
        let runs = Runs::new(context.clone(), mesh.clone(), parts.logs.clone(), &parts.config.data_dir);
        Api::from(ApiParts {
            consents: Consents::new(context.clone(), mesh.clone(), runs.clone()),
            nodes: Nodes::new(context.clone(), mesh.clone()),
            invites: Invites::new(context.clone(), Arc::clone(&parts.authority)),
            locks: Locks::new(context.clone(), mesh.clone()),
            tokens: parts.tokens.clone(),
            users: Users::new(context.clone(), passwords.clone()),
            sessions: Sessions::new(context.clone(), passwords),
            policies: Policies::new(context.clone(), mesh.clone(), Arc::clone(&parts.authority)),
            audit: self.audit(&parts.config),
            events: Events::new(context.clone()),
            pool: Pool::new(context.clone(), mesh.clone()),
            runs,
            files: Files::new(context.clone(), mesh.clone(), metrics.clone())
                .with_copies(self.workspaces.clone()),
            transfers: self.transfers.clone(),
            chunks: self.chunks.clone(),
            workspaces: self.workspaces.clone(),
            skills: self.skills.clone(),
            metrics,
            workers: self.workers.clone(),
            door: Door::new(parts.config.public_url.as_deref()),
            about: Arc::new(About {
                store: parts.config.store.as_str(),
                join_addr: join_addr(parts.config.public_url.as_deref(), self.started.grpc),
                grpc: self.started.grpc,
                began: Instant::now(),
            }),
            shutdown: CancellationToken::new(),
            context,
            mesh,
        })
    }
}

/// What only the start needs.
struct Parts {
    config: Config,
    authority: Arc<Authority>,
    logs: RunLogs,
    tokens: Tokens,
    metrics: Metrics,
}

fn serve_http(doors: &Supervisor, listener: TcpListener, api: Api) {
    let (listener, metrics) = (Arc::new(listener), api.metrics.clone());
    let streams = api.shutdown.clone();
    let app = App::new(api);
    doors.spawn(workers::HTTP, move |shutdown| {
        let (listener, app, metrics) = (Arc::clone(&listener), app.clone(), metrics.clone());
        let (streams, stopping) = (streams.clone(), shutdown.clone());
        async move {
            let serve = http::serve(listener, app, metrics, shutdown);
            tokio::pin!(serve);
            tokio::select! {
                ended = serve.as_mut() => return ended,
                () = stopping.cancelled() => streams.cancel(),
            }
            serve.await
        }
    });
}

fn serve_grpc(
    workers: &Supervisor,
    listener: TcpListener,
    authority: Arc<Authority>,
    mesh: Mesh,
    enrol: Enrol,
) {
    let mut once = Some((listener, authority, mesh, enrol));
    workers.spawn(workers::GRPC, move |shutdown| {
        let parts = once.take();
        async move {
            let Some((listener, authority, mesh, enrol)) = parts else {
                return Err(Refusal::new(Code::Internal, "The node port cannot be served a second time."));
            };
            grpc::serve(listener, authority, mesh, enrol, shutdown).await
        }
    });
}

fn refuse_plain_http(config: &Config) -> Result<(), Refusal> {
    if config.http.ip().is_loopback() || config.allow_plain_http {
        return Ok(());
    }
    let message = format!(
        "`http` is {}, which is reachable from outside, and HTTP is served without TLS.",
        config.http
    );
    Err(Refusal::new(Code::BadConfig, message).hint(
        "Bind it to 127.0.0.1 behind a proxy that adds TLS, or set `allow_plain_http` for a network that you trust.",
    ))
}

/// What follows each commit: subscribers hear of its events, and the head of the audit log moves.
fn hook(bus: &Bus, directory: &Directory) -> CommitHook {
    let (bus, directory) = (bus.clone(), directory.clone());
    Arc::new(move |commit| {
        bus.publish(commit.events);
        if let Some(head) = commit.audit {
            directory.audit().advance(head);
        }
    })
}

/// Opens what is kept in the data directory. Blocks.
fn open(config: &Config, hook: CommitHook) -> Result<(Arc<dyn Store>, RunLogs), Refusal> {
    files::private_dir(&config.data_dir).map_err(|error| {
        let message = format!("`data_dir` {} cannot be made: {error}.", config.data_dir.display());
        Refusal::new(Code::BadConfig, message)
            .hint("Choose a directory that can be written with `--data-dir`.")
    })?;
    let store: Arc<dyn Store> = match config.store {
        StoreKind::Sqlite => {
            let opened = SqliteStore::open(&config.data_dir, SqliteOptions::default(), Some(hook));
            Arc::new(opened.map_err(|error| open_refusal(config, error))?)
        }
        StoreKind::Memory => Arc::new(MemoryStore::new(Some(hook))),
    };
    let logs = RunLogs::open(&config.data_dir.join(RUNS))?;
    Ok((store, logs))
}

/// Opens the authority in the data directory, and makes it only where no node could trust another.
fn open_authority(dir: &Path, fleet: bool) -> Result<Authority, Refusal> {
    if fleet && !Authority::has_key(dir)? { Authority::open(dir) } else { Authority::open_or_create(dir) }
}

fn open_refusal(config: &Config, error: StoreError) -> Refusal {
    let dir = config.data_dir.display();
    if let StoreError::InUse { lock, pid } = &error {
        let (who, stop) = pid.map_or_else(
            || (String::new(), "Stop that hub".to_owned()),
            |pid| (format!(", process {pid},"), format!("Stop that hub (`kill {pid}`)")),
        );
        return Refusal::new(Code::Conflict, format!("Another hub{who} uses the data directory {dir}."))
            .hint(format!(
                "{stop}, or start this one with another `--data-dir`. It holds {}, which is free once it has ended.",
                lock.display()
            ));
    }
    let message = format!("The store in {dir} cannot be opened: {error}.");
    let refusal = store_refusal(error);
    Refusal { message, ..refusal }
}

async fn load(context: &Context) -> Result<(), Refusal> {
    let (nodes, tokens, locks, head) = context
        .view(|view| Ok((view.nodes()?, view.tokens()?, view.locks()?, view.events_span()?.1)))
        .await?;
    let (users, grants) = context.view(|view| Ok((view.users()?, view.grants()?))).await?;
    let waiting = ConsentFilter { standing: Some(Standing::Pending), ..ConsentFilter::default() };
    let (questions, lasting) =
        context.view(move |view| Ok((view.consents(&waiting, usize::MAX)?, view.consent_rules()?))).await?;
    questions.iter().for_each(|question| context.directory.put_consent(question));
    lasting.into_iter().for_each(|rule| context.directory.put_consent_rule(rule));
    context.bus.begin(Seq(head.0));
    let audit = context.view(|view| view.audit_head()).await?;
    if audit.seq > Seq(0) {
        context.directory.audit().advance(audit);
    }
    nodes.into_iter().for_each(|node| context.directory.put_node(node));
    tokens.into_iter().for_each(|token| context.directory.put_token(token));
    context.directory.put_locks(cortex_core::lock::Locks::new(locks));
    users.into_iter().for_each(|user| context.directory.put_user(user));
    context.board.load(context.view(Board::stored).await?);
    grants.into_iter().for_each(|grant| context.directory.put_grant(grant));
    Ok(())
}

fn announce(context: &Context) -> impl FnOnce(&mut dyn Tx) -> Result<Seq, cortex_store::WriteError> + use<> {
    let event = Event::new(EventKind::HubStarted, context.clock.wall());
    let event = event.actor("hub").detail(env!("CARGO_PKG_VERSION"));
    move |tx| Ok(tx.append_event(&event)?)
}

/// Where a joining node is told to dial.
fn join_addr(public_url: Option<&str>, grpc: SocketAddr) -> String {
    let public = public_url.and_then(|url| url.parse::<::http::Uri>().ok());
    match public.as_ref().and_then(::http::Uri::host) {
        Some(host) => format!("{host}:{}", grpc.port()),
        None => grpc.to_string(),
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, Refusal> {
    listener
        .local_addr()
        .map_err(|error| Refusal::new(Code::Internal, format!("A port has no address: {error}.")))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|_| {
        Err(Refusal::new(Code::Internal, "Opening the data directory ended unexpectedly."))
    })
}

#[cfg(test)]
mod tests;
