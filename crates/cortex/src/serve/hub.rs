//! A hub in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cortex_core::{Code, Refusal};
use cortex_hub::hub::{Config, Hub, StoreKind};

use crate::remembered::{self, Found, Remembered};

/// What a hub is started with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Where it keeps everything.
    pub(crate) data_dir: PathBuf,
    /// Where its API listens.
    pub(crate) http: SocketAddr,
    /// Where nodes dial in.
    pub(crate) grpc: SocketAddr,
    /// Its address as other machines see it.
    pub(crate) public_url: Option<String>,
    /// Whether HTTP may listen beyond loopback.
    pub(crate) allow_plain_http: bool,
    /// Open tasks of one party.
    pub(crate) tasks_per_owner: u64,
}

/// A hub whose ports listen.
pub(crate) struct Running {
    hub: Hub,
    /// So that commands on this machine find it.
    remembered: Option<Remembered>,
    /// Where its API listens.
    pub(crate) http: SocketAddr,
    /// Where nodes dial in.
    pub(crate) grpc: SocketAddr,
    /// The administrator's token.
    pub(crate) token_file: PathBuf,
}

/// Starts it; returns once both ports listen.
pub(crate) async fn start(settings: Settings) -> Result<Running, Refusal> {
    let Settings { data_dir, http, grpc, public_url, allow_plain_http, tasks_per_owner } = settings;
    // One path for every later use: the working directory of a reader may be another.
    let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    check_none_runs(&data_dir)?;
    let (dir, store) = (data_dir.clone(), StoreKind::Sqlite);
    let config = Config { data_dir, http, grpc, public_url, store, allow_plain_http, tasks_per_owner };
    let hub = Hub::start(config).await?;
    let started = hub.started().clone();
    let remembered = remember(&dir, started.http, started.grpc);
    Ok(Running { hub, remembered, http: started.http, grpc: started.grpc, token_file: started.token_file })
}

/// Refuses a second hub on a data directory, with the address and process of the first.
pub(crate) fn check_none_runs(data_dir: &Path) -> Result<(), Refusal> {
    let Some(Found { path, http, pid }) = remembered::running(data_dir) else { return Ok(()) };
    let who = pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
    let stop = pid.map(|pid| format!("stop it with `kill {pid}`; ")).unwrap_or_default();
    let message = format!("A hub runs already in {}: {http}{who}.", data_dir.display());
    Err(Refusal::new(Code::Conflict, message).hint(format!(
        "Use that one, beginning with `cortex status`; {stop}or start another with `--data-dir DIR`. It holds {}.",
        path.display()
    )))
}

/// A hub that cannot write it serves all the same: clients can be told its address.
fn remember(dir: &Path, http: SocketAddr, grpc: SocketAddr) -> Option<Remembered> {
    let written = Remembered::write(dir, http, grpc);
    written.inspect_err(|error| tracing::warn!(%error, "hub.json was not written; set CORTEX_HUB")).ok()
}

impl Running {
    /// The API's address as this machine reaches it.
    pub(crate) fn url(&self) -> String {
        remembered::url(self.http)
    }

    /// Waits until it fails.
    pub(crate) async fn failed(&self) -> Refusal {
        self.hub.failed().await
    }

    /// Ends it after what it has accepted is durable.
    pub(crate) async fn stop(self) {
        drop(self.remembered);
        self.hub.stop().await;
    }
}
