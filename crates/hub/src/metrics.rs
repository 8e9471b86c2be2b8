//! What the hub counts, for `/metrics`. Labels are from closed lists: routes as they are written in
//! the router, classes of statuses, codes; never a name or an id.

mod pool;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use cortex_core::Code;
use cortex_core::files::op::Verb;
use cortex_store::blobs::BlobFigures;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::bus::Bus;
use crate::mesh::Mesh;
use crate::service::Context;
use crate::service::pool::Kept;
use crate::service::transfers::{Kind, Stage};
use crate::workers::supervisor::Supervisor;

type Labels<const N: usize> = [(&'static str, String); N];

/// Upper bounds of the buckets of times, seconds.
const SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0];

/// Counters of the HTTP door. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Labels<3>, Counter>,
    seconds: Histogram,
    refusals: Family<Labels<1>, Counter>,
    run_starts: Family<Labels<1>, Counter>,
    file_ops: Family<Labels<2>, Counter>,
    file_op_seconds: Family<Labels<1>, Histogram>,
    transfers: Family<Labels<1>, Gauge>,
    transfer_ends: Family<Labels<1>, Counter>,
    transfer_bytes: Family<Labels<1>, Counter>,
    connections: prometheus_client::metrics::gauge::Gauge<i64, std::sync::atomic::AtomicI64>,
    accepted: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Histogram::new(SECONDS),
            refusals: Family::default(),
            run_starts: Family::default(),
            file_ops: Family::default(),
            file_op_seconds: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            transfers: Family::default(),
            transfer_ends: Family::default(),
            transfer_bytes: Family::default(),
            connections: prometheus_client::metrics::gauge::Gauge::default(),
            accepted: Counter::default(),
        }
    }
}

/// Counts one open connection for as long as it lives.
pub struct ConnectionCount(Metrics);

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

impl Metrics {
    /// An answered request; `route` is the router's own pattern.
    pub fn request(&self, method: &str, route: &str, status: u16, seconds: f64) {
        let class = format!("{}xx", status / 100);
        let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", class)];
        self.requests.get_or_create(&labels).inc();
        self.seconds.observe(seconds);
    }

    /// A refusal that was answered.
    pub fn refused(&self, code: Code) {
        self.refusals.get_or_create(&[("code", code.as_str().to_owned())]).inc();
    }

    /// A run that was accepted or refused.
    pub fn run_start(&self, accepted: bool) {
        let outcome = if accepted { "accepted" } else { "refused" };
        self.run_starts.get_or_create(&[("outcome", outcome.to_owned())]).inc();
    }

    /// An operation on files that was answered after so long; without a code it was done.
    pub fn file_op(&self, verb: Verb, code: Option<Code>, seconds: f64) {
        let (verb, code) = (verb.as_str().to_owned(), code.map_or("ok", Code::as_str).to_owned());
        self.file_ops.get_or_create(&[("verb", verb.clone()), ("code", code)]).inc();
        self.file_op_seconds.get_or_create(&[("verb", verb)]).observe(seconds);
    }

    /// A transfer at a node came from one stage to another: from none when it begins.
    pub fn transfer_stage(&self, from: Option<Stage>, to: Option<Stage>) {
        let label = |stage: Stage| [("state", stage.as_str().to_owned())];
        if let Some(from) = from.filter(|from| !from.is_over()) {
            self.transfers.get_or_create(&label(from)).dec();
        }
        match to {
            Some(to) if to.is_over() => drop(self.transfer_ends.get_or_create(&label(to)).inc()),
            Some(to) => drop(self.transfers.get_or_create(&label(to)).inc()),
            None => {}
        }
    }

    /// Content of a transfer went over the connection to a node, or came to the hub to stay.
    pub fn transfer_bytes(&self, kind: Kind, bytes: u64) {
        let direction = match kind {
            Kind::Push => "to_node",
            Kind::Pull => "from_node",
            Kind::Import => "to_hub",
        };
        self.transfer_bytes.get_or_create(&[("direction", direction.to_owned())]).inc_by(bytes);
    }

    /// A connection came; what is returned says when it went.
    pub fn connection(&self) -> ConnectionCount {
        self.accepted.inc();
        self.connections.inc();
        ConnectionCount(self.clone())
    }

    /// All figures in the OpenMetrics text format.
    /// Of the pool's tasks there are some only when `kept` is there.
    pub fn render(
        &self,
        context: &Context,
        mesh: &Mesh,
        workers: &Supervisor,
        kept: Option<&Kept>,
        stored: &Stored,
    ) -> String {
        let mut registry = Registry::with_prefix("cortex");
        self.register_http(&mut registry);
        register_mesh(&mut registry, context, mesh);
        register_store(&mut registry, context, &context.bus);
        register_workers(&mut registry, workers);
        pool::register(&mut registry, &context.board, kept);
        stored.register(&mut registry);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            "# the figures could not be written\n# EOF\n".clone_into(&mut text);
        }
        text
    }

    fn register_http(&self, registry: &mut Registry) {
        registry.register("http_requests", "Answered requests.", self.requests.clone());
        registry.register_with_unit(
            "http_request",
            "From request to head of the answer.",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("http_refusals", "Refusals by code.", self.refusals.clone());
        registry.register("http_connections", "Open connections.", self.connections.clone());
        registry.register("http_connections_accepted", "Connections so far.", self.accepted.clone());
        registry.register("run_starts", "Runs asked for over HTTP.", self.run_starts.clone());
        registry.register("file_ops", "Operations on files by what came of them.", self.file_ops.clone());
        registry.register_with_unit(
            "file_op",
            "From an operation on files to its answer.",
            Unit::Seconds,
            self.file_op_seconds.clone(),
        );
        registry.register("transfers", "Transfers at nodes by how far they are.", self.transfers.clone());
        registry.register("transfer_ends", "Ended transfers at nodes.", self.transfer_ends.clone());
        registry.register_with_unit(
            "transfer",
            "Content on connections to nodes, as it was packed.",
            Unit::Bytes,
            self.transfer_bytes.clone(),
        );
    }
}

/// What is kept of workspaces.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// The chunk store; `None` when it did not tell.
    pub chunks: Option<BlobFigures>,
    /// Members by how they stand.
    pub members: BTreeMap<&'static str, i64>,
}

impl Stored {
    fn register(&self, registry: &mut Registry) {
        if let Some(chunks) = &self.chunks {
            gauge(registry, "chunks_packs", "Packs of the chunk store.", chunks.packs);
            gauge(registry, "chunks_kept", "Chunks in them.", chunks.chunks);
            gauge(registry, "chunks_bytes", "Bytes of these packs.", chunks.bytes);
            gauge(registry, "chunks_plain_bytes", "Bytes of the chunks, decoded.", chunks.plain_bytes);
            gauge(registry, "chunks_condemned", "Packs that are to go.", chunks.condemned);
            gauge(registry, "chunks_damaged", "Packs that were set aside since the start.", chunks.damaged);
            gauge(registry, "chunks_pins", "Those who rely on what is kept.", chunks.pins);
        }
        let members = Family::<Labels<1>, Gauge>::default();
        for (state, count) in &self.members {
            members.get_or_create(&[("state", (*state).to_owned())]).set(*count);
        }
        registry.register("members", "Members of workspaces by how they stand.", members);
    }
}

fn register_mesh(registry: &mut Registry, context: &Context, mesh: &Mesh) {
    gauge(registry, "nodes", "Enrolled nodes.", context.directory.nodes().len() as u64);
    gauge(registry, "nodes_online", "Connected nodes.", mesh.online() as u64);
    gauge(registry, "runs_open", "Runs that have not ended.", mesh.runs_open() as u64);
    gauge(registry, "file_ops_open", "Operations on files that have not ended.", mesh.file_ops_open() as u64);
    gauge(registry, "tickets", "Tickets for streams of content that nobody has used.", mesh.tickets() as u64);
    gauge(registry, "streams", "Streams of content.", mesh.streams() as u64);
    gauge(registry, "run_followers", "Those who follow the output of a run.", mesh.followers() as u64);
    gauge(registry, "mesh_entries", "Entries of all maps of links and runs.", mesh.entries() as u64);
    let (watched, news) = mesh.watches();
    gauge(registry, "folders_watched", "Folders whose nodes tell of changes.", watched as u64);
    counter(
        registry,
        "watch_news",
        "Changes of folders that nodes told of, and how their watches stand.",
        news,
    );
    let asks = mesh.folder_asks();
    counter(registry, "folder_asks", "Looks at folders of nodes, and folders brought to a revision.", asks);
    counter(registry, "heartbeats", "Heartbeats of all nodes.", mesh.heartbeats());
}

fn register_store(registry: &mut Registry, context: &Context, bus: &Bus) {
    let stats = context.store.stats();
    counter(registry, "store_writes", "Durable transactions.", stats.writes);
    counter(registry, "store_commits", "Commits, each of one or more transactions.", stats.commits);
    counter(registry, "store_refused_full", "Writes refused because the queue was full.", stats.refused_full);
    counter(
        registry,
        "store_reopened",
        "Times the database was opened again after a failed sync.",
        stats.reopened,
    );
    gauge(registry, "store_queue", "Writes that wait.", stats.queued);
    let seconds = ConstGauge::new(stats.last_commit_us as f64 / 1e6);
    registry.register_with_unit("store_last_commit", "Last commit with its sync.", Unit::Seconds, seconds);
    gauge(registry, "event_listeners", "Event listeners.", bus.listeners() as u64);
    counter(registry, "events", "Number of the newest event.", bus.head().0);
}

fn register_workers(registry: &mut Registry, workers: &Supervisor) {
    let families: [Family<Labels<1>, Counter>; 3] = std::array::from_fn(|_| Family::default());
    for (name, stats) in workers.stats() {
        let label = [("worker", name.to_owned())];
        for (family, value) in families.iter().zip([stats.starts, stats.errors, stats.panics]) {
            family.get_or_create(&label).inc_by(value);
        }
    }
    let [starts, errors, panics] = families;
    registry.register("worker_starts", "Starts of a worker.", starts);
    registry.register("worker_errors", "Ends of a worker by an error.", errors);
    registry.register("worker_panics", "Ends of a worker by a panic.", panics);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)));
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    registry.register(name, help, ConstCounter::new(value));
}
