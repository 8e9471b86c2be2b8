//! `/healthz`, `/readyz`, `/metrics` and the OpenAPI document: open to all, and without names.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cortex_core::{Code, Refusal};
use cortex_store::StoreExt as _;
use http::header;

use crate::http::Api;
use crate::http::problem::Failure;
use crate::metrics::Stored;

/// How long the store has to show that it answers.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// The process lives. Asks nothing of anybody.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = String)))]
pub(super) async fn healthz() -> &'static str {
    std::future::ready("ok\n").await
}

/// The hub can serve: its store answers a read within a second, and both ports listen.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = String), (status = 503, description = "The store does not answer.")))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<&'static str, Failure> {
    if api.shutdown.is_cancelled() {
        return Err(Refusal::new(Code::HubUnreachable, "The hub is stopping.").into());
    }
    let answered = api.context.store.read(READY_WITHIN, |view| view.generation()).await;
    answered.map(|_| "ready\n").map_err(|error| {
        let message = format!("The hub's store does not answer: {error}.");
        Refusal::new(Code::StoreUnavailable, message).into()
    })
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String)))]
pub(super) async fn metrics(State(api): State<Api>) -> Response {
    let kept = api.pool.kept().await;
    let chunks = api.chunks.clone();
    // A collection may hold them for a moment.
    let figures = tokio::task::spawn_blocking(move || chunks.blobs().figures().ok()).await;
    let stored = Stored { chunks: figures.ok().flatten(), members: api.workspaces.member_counts() };
    let text = api.metrics.render(&api.context, &api.mesh, &api.workers, kept.as_ref(), &stored);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The description of this API, written once.
pub(super) async fn openapi(document: Arc<str>) -> Response {
    std::future::ready(([(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response())
        .await
}
