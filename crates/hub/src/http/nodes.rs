//! `/api/v1/nodes`.

use axum::Json;
use axum::extract::{Path, State};
use cortex_core::name::{Name, Selector};
use cortex_wire::http::{NodePatch, NodeView, Page, RecoveriesSet, RecoveriesView};
use http::StatusCode;
use serde::Deserialize;

use crate::http::extract::{Args, JsonBody, page_limit};
use crate::http::problem::{Failure, invalid};
use crate::http::{Api, view};
use crate::service::Caller;
use crate::service::nodes::{NodeChange, NodeFilter};

/// Which nodes to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListArgs {
    /// `role=ci,os=linux`.
    selector: Option<String>,
    /// `online` or `offline`.
    state: Option<String>,
    /// Part of the name.
    q: Option<String>,
    /// At most so many; 100 when missing.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Nodes by name.
#[utoipa::path(get, path = "/api/v1/nodes", tag = "nodes", params(ListArgs),
    responses((status = 200, body = Page<NodeView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<ListArgs>,
) -> Result<Json<Page<NodeView>>, Failure> {
    let online = match args.state.as_deref() {
        None => None,
        Some("online") => Some(true),
        Some("offline") => Some(false),
        Some(_) => return Err(invalid("`state` must be `online` or `offline`.")),
    };
    let selector = Selector::parse(args.selector.as_deref().unwrap_or_default())?;
    let limit = page_limit(args.limit)?;
    let filter = NodeFilter { selector, online, text: args.q, after: args.cursor };
    let mut found = api.nodes.list(&caller, &filter, limit + 1);
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| last.node.name.to_string());
    let now = api.context.clock.wall();
    let items = found.iter().map(|status| view::node(status, now)).collect();
    std::future::ready(Ok(Json(Page { items, next_cursor }))).await
}

/// One node by name or id.
#[utoipa::path(get, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = NodeView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<Json<NodeView>, Failure> {
    let status = api.nodes.get(&caller, &node)?;
    std::future::ready(Ok(Json(view::node(&status, api.context.clock.wall())))).await
}

/// Renames or labels a node.
#[utoipa::path(patch, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    request_body = NodePatch, responses((status = 200, body = NodeView)))]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    JsonBody(patch): JsonBody<NodePatch>,
) -> Result<Json<NodeView>, Failure> {
    let name = patch.name.as_deref().map(Name::parse).transpose()?;
    let status = api.nodes.change(&caller, &node, NodeChange { name, labels: patch.labels }).await?;
    Ok(Json(view::node(&status, api.context.clock.wall())))
}

/// Removes a node and revokes its identity.
#[utoipa::path(delete, path = "/api/v1/nodes/{node}", tag = "nodes", params(("node" = String, Path)),
    responses((status = 204)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<StatusCode, Failure> {
    api.nodes.remove(&caller, &node).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How often a node has recovered its identity, and may yet.
#[utoipa::path(get, path = "/api/v1/nodes/{node}/recoveries", tag = "nodes", params(("node" = String, Path)),
    responses((status = 200, body = RecoveriesView)))]
pub(super) async fn recoveries(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
) -> Result<Json<RecoveriesView>, Failure> {
    let (node, recovery) = api.nodes.recoveries(&caller, &node)?;
    std::future::ready(Ok(Json(view::recoveries(&node, &recovery)))).await
}

/// Says how often a node may recover its identity from here on.
#[utoipa::path(put, path = "/api/v1/nodes/{node}/recoveries", tag = "nodes", params(("node" = String, Path)),
    request_body = RecoveriesSet, responses((status = 200, body = RecoveriesView)))]
pub(super) async fn allow_recoveries(
    State(api): State<Api>,
    caller: Caller,
    Path(node): Path<String>,
    JsonBody(set): JsonBody<RecoveriesSet>,
) -> Result<Json<RecoveriesView>, Failure> {
    let (node, recovery) = api.nodes.allow_recoveries(&caller, &node, set.left).await?;
    Ok(Json(view::recoveries(&node, &recovery)))
}
