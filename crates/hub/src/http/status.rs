//! `/api/v1/stats` and `/api/v1/whoami`.

use axum::Json;
use axum::extract::State;
use cortex_core::policy::Mode;
use cortex_wire::http::{StatsView, WhoAmI};

use crate::http::Api;
use crate::service::Caller;

/// The hub at a glance, without a query.
#[utoipa::path(get, path = "/api/v1/stats", tag = "hub", responses((status = 200, body = StatsView)))]
pub(super) async fn stats(State(api): State<Api>) -> Json<StatsView> {
    let store = api.context.store.stats();
    let permissive = api
        .context
        .directory
        .policies()
        .into_iter()
        .filter(|policy| policy.document.mode == Mode::Permissive);
    let mut permissive_nodes: Vec<String> = permissive
        .filter_map(|policy| api.context.directory.node(policy.node))
        .map(|node| node.name.to_string())
        .collect();
    permissive_nodes.sort();
    let space = api.runs.space().await;
    let view = StatsView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: api.about.store.to_owned(),
        grpc: api.about.join_addr.clone(),
        uptime_s: api.about.began.elapsed().as_secs(),
        nodes: api.context.directory.nodes().len(),
        nodes_online: api.mesh.online(),
        runs_open: api.mesh.runs_open(),
        listeners: api.context.bus.listeners(),
        store_queue: store.queued,
        store_writes: store.writes,
        store_commits: store.commits,
        store_commit_us: store.last_commit_us,
        disk_free_bytes: space.map(|space| space.free),
        disk_reserve_bytes: space.map(|space| space.reserve()),
        permissive_nodes,
    };
    Json(view)
}

/// The caller as the hub sees it.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "hub", responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(caller: Caller) -> Json<WhoAmI> {
    let view = WhoAmI { actor: caller.actor(), role: caller.token.role.as_str().to_owned() };
    std::future::ready(Json(view)).await
}
