//! A hub in this process.

use std::net::SocketAddr;
use std::path::PathBuf;

use cortex_core::Refusal;
use cortex_hub::hub::{Config, Hub, StoreKind};

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
}

/// A hub whose ports listen.
pub(crate) struct Running {
    hub: Hub,
    /// Where its API listens.
    pub(crate) http: SocketAddr,
    /// Where nodes dial in.
    pub(crate) grpc: SocketAddr,
    /// The administrator's token.
    pub(crate) token_file: PathBuf,
}

/// Starts it; returns once both ports listen.
pub(crate) async fn start(settings: Settings) -> Result<Running, Refusal> {
    let Settings { data_dir, http, grpc, public_url, allow_plain_http } = settings;
    let store = StoreKind::Sqlite;
    let hub = Hub::start(Config { data_dir, http, grpc, public_url, store, allow_plain_http }).await?;
    let started = hub.started().clone();
    Ok(Running { hub, http: started.http, grpc: started.grpc, token_file: started.token_file })
}

impl Running {
    /// Waits until it fails.
    pub(crate) async fn failed(&self) -> Refusal {
        self.hub.failed().await
    }

    /// Ends it after what it has accepted is durable.
    pub(crate) async fn stop(self) {
        self.hub.stop().await;
    }
}
