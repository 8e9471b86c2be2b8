//! The node process's life: take the data directory, restore what the journal says, then let the
//! actor work until it is told to stop. Never here: frames, runs, timers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cortex_core::id::{Epoch, NodeId};
use cortex_core::journal::Record;
use cortex_core::node_runs::NodeRuns;
use cortex_core::policy::Policy;
use cortex_core::sandbox::{Ground, LayerState, Level, Place};
use cortex_core::{Code, Refusal};
use rustls_pki_types::CertificateDer;
use tokio_util::sync::CancellationToken;

use crate::actor::{self, Parts};
use crate::ceiling::{self, Ceilings};
use crate::enrol::blocking;
use crate::facts;
use crate::identity::{DataDir, Identity};
use crate::journal::{Journal, JournalFile};
use crate::policy;
use crate::run::guards::Guards;
use crate::run::program::Surroundings;
use crate::sandbox::confine::Sandbox;
use crate::sandbox::identity::RunUser;
use crate::sandbox::probe::{Wishes, probe, unmade};

/// The journal's file in the data directory.
const JOURNAL: &str = "journal";
/// The folder of spilled output in the data directory. It never outlives the process.
const SPOOL: &str = "spool";

/// What a node process needs.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where the identity, the journal and spilled output are.
    pub data_dir: PathBuf,
    /// The program that becomes the guard of a run when its first argument is
    /// [`crate::GUARD_ARG`]; it must call [`crate::run_if_guard`] first.
    pub guard_exe: PathBuf,
    /// The folders in which programs are looked up, as in `PATH`.
    pub path: OsString,
    /// The version to tell the hub.
    pub version: String,
    /// Output of one run that is kept for a hub that does not take it; at most
    /// [`cortex_core::limits::SPOOL_BYTES_MAX`].
    pub spool_bytes_max: u64,
    /// Another address of the hub than the one at which the node joined: `host:port`.
    pub hub: Option<String>,
    /// As whom runs behind walls execute when the node process is root: a system user's name, or
    /// `uid:gid`. The user `cortex-run` where it exists, else a number of its own, when this says
    /// nothing.
    pub run_user: Option<String>,
    /// The folders that the node's owner gives for work; made for the runs' user when they are not
    /// there. The first one holds the runs' home directory.
    pub work: Vec<PathBuf>,
    /// Folders beside the data directory that no run may see.
    pub reserved: Vec<PathBuf>,
    /// The highest level of the sandbox that is used, for machines on which a higher one breaks
    /// what has to work there.
    pub level_max: Level,
    /// Tasks of the pool that it works on at once, at most [`cortex_core::limits::SLOTS_MAX`]; as
    /// many as the machine has processors when this says nothing.
    pub slots: Option<u32>,
}

impl NodeConfig {
    /// The data directory as given; this very program as guard; this process's own `PATH`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            guard_exe: PathBuf::from("/proc/self/exe"),
            path: std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            spool_bytes_max: cortex_core::limits::SPOOL_BYTES_MAX,
            hub: None,
            run_user: None,
            work: vec![usual_work()],
            reserved: Vec::new(),
            level_max: Level::Full,
            slots: None,
        }
    }
}

/// Where work is done when the owner does not say.
fn usual_work() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return "/var/lib/cortex-work".into();
    }
    std::env::var_os("HOME").map_or_else(|| "/".into(), PathBuf::from).join("cortex-work")
}

/// A link was welcomed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The node's name in the hub's record.
    pub node: String,
    /// Its identity.
    pub node_id: NodeId,
    /// The link's epoch.
    pub epoch: Epoch,
    /// Level of the sandbox.
    pub sandbox: &'static str,
}

/// Whether a node has joined a hub from this data directory.
pub fn is_enrolled(data_dir: &Path) -> bool {
    data_dir.join(crate::identity::IDENTITY).exists()
}

/// Lives until `shutdown`, or until the hub says not to come back (that is the `Err`). Calls
/// `on_attached` at each welcome. At shutdown live runs are ended, and the hub is told within
/// about two seconds more.
pub async fn run(
    config: NodeConfig,
    shutdown: CancellationToken,
    on_attached: impl Fn(Attached) + Send,
) -> Result<(), Refusal> {
    let prepared = config.clone();
    let prepared = blocking(move || prepare(&prepared)).await?;
    let (generation, epoch) = (prepared.identity.generation, prepared.identity.epoch);
    let mut runs = NodeRuns::restore(generation, epoch, prepared.records.iter().cloned());
    runs.keep_at_most(config.spool_bytes_max);
    let guards = Arc::new(Guards::new(config.guard_exe.clone().into()));
    let (user, place) = (prepared.run_user, prepared.surroundings.place(&config.work));
    let sandbox = try_walls(&config, &guards, user, place, prepared.identity.name.clone()).await?;
    runs.witness(prepared.identity.audit_head);
    runs.stand_under(prepared.ceilings.judged);
    if let Some(policy) = prepared.policy {
        runs.hold(policy);
    }
    let journal = Journal::start(prepared.journal).map_err(|error| failed(&config.data_dir, &error))?;
    tracing::info!(level = sandbox.level().as_str(), "sandbox tried");
    for layer in &sandbox.layers {
        match layer.state {
            LayerState::Held => {}
            LayerState::Part => tracing::info!(layer = layer.name, "a layer holds in part: {}", layer.note),
            // What its owner switched off is no news.
            LayerState::Missing if config.level_max < Level::Full => {
                tracing::info!(layer = layer.name, "a layer is not there: {}", layer.note);
            }
            LayerState::Missing => tracing::warn!(layer = layer.name, "a layer is missing: {}", layer.note),
        }
    }
    let ground = Ground { place: sandbox.host.place.clone(), level: Some(sandbox.level()) };
    runs.stand_on(ground);
    let mut facts = facts::with_sandbox(prepared.facts, &sandbox);
    facts.slots = config.slots.unwrap_or(facts.cpus).min(cortex_core::limits::SLOTS_MAX);
    let parts = Parts {
        dir: Arc::new(prepared.dir),
        identity: prepared.identity,
        facts,
        sandbox,
        authority: prepared.authority,
        ceiling: prepared.ceilings.told,
        surroundings: Arc::new(prepared.surroundings),
        guards: Arc::clone(&guards),
        spool: config.data_dir.join(SPOOL),
        runs,
        journal,
        records: prepared.records,
        reserved: reserved(&config),
    };
    let outcome = actor::live(parts, shutdown, on_attached).await;
    guards.finish().await;
    outcome
}

/// Folders that hold what the node lives by, as the system calls them.
fn reserved(config: &NodeConfig) -> Vec<String> {
    let folders = config.reserved.iter().chain([&config.data_dir]);
    let real = folders.map(|folder| std::fs::canonicalize(folder).unwrap_or_else(|_| folder.clone()));
    real.filter_map(|folder| folder.into_os_string().into_string().ok()).collect()
}

/// Finds out what holds a run on this machine.
async fn try_walls(
    config: &NodeConfig,
    guards: &Arc<Guards>,
    user: Option<RunUser>,
    place: Place,
    host: String,
) -> Result<Arc<Sandbox>, Refusal> {
    let reserved = config.reserved.iter().chain([&config.data_dir]).cloned().collect();
    let wishes = Wishes { user, place, reserved, level_max: config.level_max, host };
    probe(guards, wishes).await.map(Arc::new).map_err(|error| unmade(&error))
}

struct Prepared {
    run_user: Option<RunUser>,
    dir: DataDir,
    identity: Identity,
    facts: cortex_core::node::Facts,
    authority: CertificateDer<'static>,
    ceilings: Ceilings,
    /// The one that was held before, when it still verifies.
    policy: Option<Policy>,
    surroundings: Surroundings,
    journal: JournalFile,
    records: Vec<Record>,
}

fn prepare(config: &NodeConfig) -> Result<Prepared, Refusal> {
    let run_user = RunUser::find(config.run_user.as_deref())?;
    let dir = DataDir::open(&config.data_dir)?;
    let mut identity = dir.identity()?.ok_or_else(|| not_joined(&config.data_dir))?;
    if let Some(hub) = &config.hub {
        identity.hub.clone_from(hub);
    }
    match std::fs::remove_dir_all(dir.join(SPOOL)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(dir.path(), &error)),
        Ok(()) | Err(_) => {}
    }
    let opened = JournalFile::open(&dir.join(JOURNAL));
    let (journal, records) = opened.map_err(|error| failed(dir.path(), &error))?;
    let facts = facts::discover(&config.path, &config.version);
    let surroundings = Surroundings::new(config.path.clone(), |name| std::env::var_os(name));
    let authority = dir.credentials()?.authority;
    let ceilings = ceiling::read(dir.path());
    let policy = kept_policy(&dir, &identity, &authority)?;
    Ok(Prepared {
        run_user,
        dir,
        identity,
        facts,
        authority,
        ceilings,
        policy,
        surroundings,
        journal,
        records,
    })
}

/// What was kept from an earlier life, when it is still the authority's word for this node and the
/// generation that it knows.
fn kept_policy(
    dir: &DataDir,
    identity: &Identity,
    authority: &CertificateDer<'_>,
) -> Result<Option<Policy>, Refusal> {
    let Some(kept) = dir.kept_policy()? else { return Ok(None) };
    match policy::verify(authority, identity.node, identity.generation, &kept) {
        Ok(policy) => Ok(Some(policy)),
        Err(refusal) => {
            tracing::warn!(code = %refusal.code, "the policy on disk does not hold: {refusal}");
            Ok(None)
        }
    }
}

fn not_joined(path: &Path) -> Refusal {
    Refusal::new(Code::BadConfig, format!("The data directory {} has not joined a hub.", path.display()))
        .hint("Make an invite on the hub with `cortex invite`, and join with `cortex join HUB --invite-file FILE`.")
}

fn failed(path: &Path, error: &std::io::Error) -> Refusal {
    Refusal::new(Code::BadConfig, format!("The data directory {} cannot be used: {error}.", path.display()))
        .hint("Look at its owner and at the space left on its disk, then start again.")
}
