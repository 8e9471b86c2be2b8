//! A node in this process, and its enrolment.

use std::path::{Path, PathBuf};

use cortex_core::Refusal;
use cortex_core::invite::InviteText;
use cortex_core::name::Name;
use cortex_core::sandbox::Level;
use cortex_node::NodeConfig;
use cortex_node::enrol::EnrolConfig;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

pub(crate) use cortex_node::enrol::Enrolled;
pub(crate) use cortex_node::{Attached, is_enrolled, run_if_guard};

/// Joins a hub.
pub(crate) async fn enrol(
    hub: String,
    invite: InviteText,
    name: Name,
    data_dir: PathBuf,
) -> Result<Enrolled, Refusal> {
    cortex_node::enrol::enrol(EnrolConfig { hub, invite, name, data_dir }).await
}

/// How a node is run, beside its data directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    path: Option<String>,
    hub: Option<String>,
    run_user: Option<String>,
    work: Option<PathBuf>,
    reserved: Vec<PathBuf>,
    level_max: Option<Level>,
}

impl Manner {
    /// As configured for this machine.
    pub(crate) fn new(config: &Config) -> Self {
        let text = |key| config.get(key).map(|value| value.text.clone());
        Self {
            path: text("node.path"),
            hub: None,
            run_user: text("node.run_user"),
            work: text("node.work_dir").map(PathBuf::from),
            reserved: Vec::new(),
            level_max: text("node.sandbox_max").and_then(|level| Level::parse(&level)),
        }
    }

    /// Beside a hub in the same process: at this address, and with its data directory closed to runs.
    pub(crate) fn beside(self, hub: String, hub_dir: PathBuf) -> Self {
        Self { hub: Some(hub), path: None, reserved: vec![hub_dir], ..self }
    }
}

/// Runs an enrolled node until `shutdown`, or until it is refused for good.
pub(crate) async fn run(
    data_dir: &Path,
    manner: Manner,
    shutdown: CancellationToken,
    on_attached: impl Fn(Attached) + Send,
) -> Result<(), Refusal> {
    let usual = NodeConfig::new(data_dir);
    let config = NodeConfig {
        path: manner.path.map_or(usual.path, Into::into),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hub: manner.hub,
        run_user: manner.run_user,
        work: manner.work.map_or(usual.work, |work| vec![work]),
        reserved: manner.reserved,
        level_max: manner.level_max.unwrap_or(usual.level_max),
        ..NodeConfig::new(data_dir)
    };
    cortex_node::run(config, shutdown, on_attached).await
}
