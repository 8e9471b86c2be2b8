//! A node in this process, and its enrolment.

use std::path::{Path, PathBuf};

use cortex_core::invite::InviteText;
use cortex_core::name::Name;
use cortex_core::{Code, Refusal};
use tokio_util::sync::CancellationToken;

/// What is known once a node's link is up.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    /// Its name.
    pub(crate) node: String,
    /// Its UUID.
    pub(crate) node_id: String,
    /// Epoch of the link.
    pub(crate) epoch: u64,
    /// Level of its sandbox.
    pub(crate) sandbox: String,
}

/// A node that has joined.
#[derive(Clone, Debug)]
pub(crate) struct Enrolled {
    /// Its name.
    pub(crate) name: String,
    /// Its UUID.
    pub(crate) node_id: String,
}

/// The part of a run's process tree that this program plays itself. Does not return when it is
/// that part. It must come before anything else in `main`.
pub(crate) const fn run_if_guard() {}

/// Whether a node has joined from this data directory.
pub(crate) fn is_enrolled(data_dir: &Path) -> bool {
    data_dir.join("identity.json").exists()
}

/// Joins a hub.
#[expect(clippy::unused_async, reason = "the node crate is merged into this place")]
pub(crate) async fn enrol(
    hub: String,
    invite: InviteText,
    name: Name,
    data_dir: PathBuf,
) -> Result<Enrolled, Refusal> {
    let what = format!("There is no node in this build: {hub} {invite:?} {name} {}.", data_dir.display());
    Err(Refusal::new(Code::Internal, what))
}

/// Runs an enrolled node until `shutdown`, or until it is refused for good. `hub` is another
/// address of the hub than the one at which it joined.
#[expect(clippy::unused_async, reason = "the node crate is merged into this place")]
pub(crate) async fn run(
    data_dir: PathBuf,
    path: Option<String>,
    hub: Option<String>,
    shutdown: CancellationToken,
    on_attached: impl Fn(Attached) + Send + Sync + 'static,
) -> Result<(), Refusal> {
    drop((shutdown, on_attached, hub));
    Err(Refusal::new(
        Code::Internal,
        format!("There is no node in this build: {} {path:?}.", data_dir.display()),
    ))
}
