//! Work that goes on for the life of the hub. Spawned in one place, the supervisor. Each worker
//! sleeps until its next deadline.

use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::retention::Kept;
use cortex_core::workspace::history;

use crate::http::Api;
use crate::mesh::Mesh;
use crate::service::files;
use crate::service::pool::retention;
use crate::workers::supervisor::{Fate, OnCancel, OnError, Supervisor};

pub(crate) mod chunks;
pub mod supervisor;

/// Time between two writings of when nodes were last heard (DESIGN §4).
const LAST_SEEN_EVERY: Duration = Duration::from_secs(60);

/// The HTTP door.
pub(crate) const HTTP: Fate = restart("http", OnCancel::Wait);
/// The node door. Its listener cannot be taken up again.
pub(crate) const GRPC: Fate = Fate { name: "grpc", on_error: OnError::StopHub, on_cancel: OnCancel::Wait };

/// Starts what has no door.
pub(crate) fn start(workers: &Supervisor, api: &Api) {
    let mesh = api.mesh.clone();
    workers.spawn(restart("mesh-timers", OnCancel::Wait), move |shutdown| {
        let mesh = mesh.clone();
        async move { mesh.run_timers(shutdown).await }
    });
    let mesh = api.mesh.clone();
    workers.spawn(restart("last-seen", OnCancel::Abort), move |_| flush_last_seen(mesh.clone()));
    let events = api.events.clone();
    workers.spawn(restart("event-trim", OnCancel::Wait), move |shutdown| {
        let events = events.clone();
        async move { events.run_trim(shutdown).await }
    });
    let runs = api.runs.clone();
    workers.spawn(restart("run-retention", OnCancel::Wait), move |shutdown| {
        let runs = runs.clone();
        async move { runs.run_retention(Kept::default(), shutdown).await }
    });
    let bus = api.context.bus.clone();
    workers.spawn(restart("listener-pruning", OnCancel::Wait), move |shutdown| {
        let bus = bus.clone();
        async move { bus.run_pruner(shutdown).await }
    });
    let audit = api.audit.clone();
    workers.spawn(restart("audit-anchor", OnCancel::Wait), move |shutdown| {
        let audit = audit.clone();
        async move { audit.run_anchor(shutdown).await }
    });
    let consents = api.consents.clone();
    workers.spawn(restart("consent-expiry", OnCancel::Wait), move |shutdown| {
        let consents = consents.clone();
        async move { consents.run_expiry(shutdown).await }
    });
    let pool = api.pool.clone();
    workers.spawn(restart("pool-nodes", OnCancel::Wait), move |shutdown| {
        let pool = pool.clone();
        async move { pool.run_nodes(shutdown).await }
    });
    let pool = api.pool.clone();
    workers.spawn(restart("pool-timers", OnCancel::Wait), move |shutdown| {
        let pool = pool.clone();
        async move { pool.run_timers(shutdown).await }
    });
    let pool = api.pool.clone();
    workers.spawn(restart("task-retention", OnCancel::Wait), move |shutdown| {
        let pool = pool.clone();
        async move { pool.run_retention(retention::KEPT, shutdown).await }
    });
    let ops = api.files.clone();
    workers.spawn(restart("file-op-retention", OnCancel::Wait), move |shutdown| {
        let ops = ops.clone();
        async move { ops.run_retention(files::KEPT, shutdown).await }
    });
    let workspaces = api.workspaces.clone();
    workers.spawn(restart("waves", OnCancel::Wait), move |shutdown| {
        let workspaces = workspaces.clone();
        async move { workspaces.run_waves(shutdown).await }
    });
    let workspaces = api.workspaces.clone();
    workers.spawn(restart("workspace-history", OnCancel::Wait), move |shutdown| {
        let workspaces = workspaces.clone();
        async move { workspaces.run_history(history::Kept::default(), shutdown).await }
    });
    let skills = api.skills.clone();
    workers.spawn(restart("mounts", OnCancel::Wait), move |shutdown| {
        let skills = skills.clone();
        async move { skills.run_mounts(shutdown).await }
    });
    let (context, kept) = (api.context.clone(), api.chunks.clone());
    workers.spawn(restart("chunk-collect", OnCancel::Wait), move |shutdown| {
        chunks::collect(context.clone(), kept.clone(), shutdown)
    });
    let kept = api.chunks.clone();
    workers
        .spawn(restart("chunk-scrub", OnCancel::Wait), move |shutdown| chunks::scrub(kept.clone(), shutdown));
    let policies = api.policies.clone();
    workers.spawn(restart("policy-expiry", OnCancel::Wait), move |shutdown| {
        let policies = policies.clone();
        async move { policies.run_expiry(shutdown).await }
    });
}

const fn restart(name: &'static str, on_cancel: OnCancel) -> Fate {
    Fate { name, on_error: OnError::Restart, on_cancel }
}

async fn flush_last_seen(mesh: Mesh) -> Result<(), Refusal> {
    loop {
        tokio::time::sleep(LAST_SEEN_EVERY).await;
        mesh.flush_last_seen().await?;
    }
}
