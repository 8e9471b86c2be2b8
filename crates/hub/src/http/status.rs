//! `/api/v1/stats` and `/api/v1/whoami`.

use axum::Json;
use axum::extract::State;
use cortex_core::policy::Mode;
use cortex_core::rights::Right;
use cortex_wire::http::{StatsView, WhoAmI};

use crate::http::{Api, view};
use crate::service::Caller;

/// The hub at a glance, without a query. Of its nodes those count that the caller sees.
#[utoipa::path(get, path = "/api/v1/stats", tag = "hub", responses((status = 200, body = StatsView)))]
pub(super) async fn stats(State(api): State<Api>, caller: Caller) -> Json<StatsView> {
    let (store, directory) = (api.context.store.stats(), &api.context.directory);
    let mut nodes = directory.nodes();
    nodes.retain(|node| caller.has(Right::StatsRead, node));
    let permissive = nodes
        .iter()
        .filter(|node| directory.policy(node.id, node.joined_at).document.mode == Mode::Permissive);
    let permissive_nodes = permissive.map(|node| node.name.to_string()).collect();
    let online = nodes.iter().filter(|node| api.mesh.presence(node.id).is_some()).count();
    let runs_open = nodes.iter().map(|node| api.mesh.runs_open_on(node.id)).sum();
    let space = api.runs.space().await;
    let view = StatsView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        store: api.about.store.to_owned(),
        grpc: api.about.join_addr.clone(),
        uptime_s: api.about.began.elapsed().as_secs(),
        nodes: nodes.len(),
        nodes_online: online,
        runs_open,
        listeners: api.context.bus.listeners(),
        store_queue: store.queued,
        store_writes: store.writes,
        store_commits: store.commits,
        store_commit_us: store.last_commit_us,
        disk_free_bytes: space.map(|space| space.free),
        disk_reserve_bytes: space.map(|space| space.reserve()),
        permissive_nodes,
        audit_broken: api.context.directory.audit().first_doubt(),
    };
    Json(view)
}

/// The caller as the hub sees it.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "hub", responses((status = 200, body = WhoAmI)))]
pub(super) async fn whoami(caller: Caller) -> Json<WhoAmI> {
    let rights = caller.rights_anywhere();
    let view = WhoAmI {
        actor: caller.actor(),
        role: caller.role().as_str().to_owned(),
        kind: caller.token.kind.as_str().to_owned(),
        user: caller.user.as_ref().map(|user| user.name.to_string()),
        rights: view::rights(rights),
        everywhere: caller.rights_everywhere().contains(rights),
        tools: view::tools(&caller.token),
        expires_at: caller.token.expires_at.map(view::time),
    };
    std::future::ready(Json(view)).await
}
