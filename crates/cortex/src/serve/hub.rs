//! A hub in this process.

use std::net::SocketAddr;
use std::path::PathBuf;

use cortex_core::{Code, Refusal};

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
    /// Where its API listens.
    pub(crate) http: SocketAddr,
    /// Where nodes dial in.
    pub(crate) grpc: SocketAddr,
    /// The administrator's token.
    pub(crate) token_file: PathBuf,
}

/// Starts it; returns once both ports listen.
#[expect(clippy::unused_async, reason = "the hub crate is merged into this place")]
pub(crate) async fn start(settings: Settings) -> Result<Running, Refusal> {
    Err(Refusal::new(Code::Internal, format!("There is no hub in this build: {settings:?}.")))
}

impl Running {
    /// Waits until it fails.
    pub(crate) async fn failed(&self) -> Refusal {
        std::future::pending().await
    }

    /// Ends it after what it has accepted is durable.
    #[expect(clippy::unused_async, reason = "the hub crate is merged into this place")]
    pub(crate) async fn stop(self) {}
}
