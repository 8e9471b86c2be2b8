//! A node in this process, and its enrolment.

use std::path::{Path, PathBuf};

use cortex_core::Refusal;
use cortex_core::invite::InviteText;
use cortex_core::name::Name;
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

/// Runs the enrolled node of this data directory until `shutdown`, or until it is refused for good.
/// `hub` is another address of the hub than the one at which it joined.
pub(crate) async fn run(
    config: &Config,
    data_dir: &Path,
    hub: Option<String>,
    shutdown: CancellationToken,
    on_attached: impl Fn(Attached) + Send,
) -> Result<(), Refusal> {
    cortex_node::run(NodeConfig { hub, ..settings(config, data_dir) }, shutdown, on_attached).await
}

fn settings(config: &Config, data_dir: &Path) -> NodeConfig {
    let usual = NodeConfig::new(data_dir);
    let text = |key| config.get(key).map(|value| value.text.clone());
    let work = config.folders("node.work");
    NodeConfig {
        path: text("node.path").map_or(usual.path, Into::into),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        run_user: text("node.run_user"),
        work: if work.is_empty() { usual.work } else { work },
        // Where a hub of the same machine keeps what no run may see.
        reserved: vec![config.path("hub.data_dir")],
        level_max: config.level("node.level_max").unwrap_or(usual.level_max),
        slots: config.slots("node.slots"),
        ..NodeConfig::new(data_dir)
    }
}
