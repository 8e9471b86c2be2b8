//! `/api/v1/locks`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_wire::http::{LockRequest, LockView, Page};
use http::StatusCode;

use crate::http::extract::{Args, JsonBody, PageArgs, path_id};
use crate::http::problem::Failure;
use crate::http::{Api, view};
use crate::service::Caller;

/// Locks that were not removed, oldest first; expired ones too.
#[utoipa::path(get, path = "/api/v1/locks", tag = "locks", params(PageArgs),
    responses((status = 200, body = Page<LockView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<LockView>>, Failure> {
    let limit = page.limit()?;
    let now = api.context.clock.wall();
    let shown = api.locks.list(&caller).await?;
    let mut items: Vec<LockView> = shown.iter().map(|shown| view::lock(shown, now)).collect();
    // Ids sort by creation, so the id is the cursor.
    items.retain(|item| page.cursor.as_deref().is_none_or(|after| item.id.as_str() > after));
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(Page { items, next_cursor }))
}

/// Makes a lock. With the answer nothing is started any more by those it holds on, and what they had
/// running is being ended.
#[utoipa::path(post, path = "/api/v1/locks", tag = "locks", request_body = LockRequest,
    responses((status = 201, body = LockView)))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<LockRequest>,
) -> Result<Response, Failure> {
    let LockRequest { target, ttl_ms, message } = request;
    let shown = api.locks.put(&caller, &target, message, ttl_ms).await?;
    let now = api.context.clock.wall();
    Ok((StatusCode::CREATED, Json(view::lock(&shown, now))).into_response())
}

/// Removes a lock.
#[utoipa::path(delete, path = "/api/v1/locks/{id}", tag = "locks", params(("id" = String, Path)),
    responses((status = 200, body = LockView)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<LockView>, Failure> {
    let shown = api.locks.lift(&caller, path_id("lock", &id)?).await?;
    Ok(Json(view::lock(&shown, api.context.clock.wall())))
}
