//! A node in this process, and its enrolment.

use std::path::{Path, PathBuf};

use cortex_core::Refusal;
use cortex_core::invite::InviteText;
use cortex_core::name::Name;
use cortex_node::NodeConfig;
use cortex_node::enrol::EnrolConfig;
use tokio_util::sync::CancellationToken;

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

/// Runs an enrolled node until `shutdown`, or until it is refused for good. `hub` is another
/// address of the hub than the one at which it joined.
pub(crate) async fn run(
    data_dir: &Path,
    path: Option<String>,
    hub: Option<String>,
    shutdown: CancellationToken,
    on_attached: impl Fn(Attached) + Send,
) -> Result<(), Refusal> {
    let usual = NodeConfig::new(data_dir);
    let path = path.map_or(usual.path, Into::into);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    cortex_node::run(NodeConfig { path, version, hub, ..NodeConfig::new(data_dir) }, shutdown, on_attached)
        .await
}
