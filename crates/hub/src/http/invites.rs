//! `/api/v1/invites`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_wire::http::{InviteCreated, InviteRequest, InviteView, Page};
use http::StatusCode;

use crate::http::extract::{Args, JsonBody, PageArgs, path_id};
use crate::http::problem::Failure;
use crate::http::{Api, view};
use crate::service::Caller;
use crate::service::invites::NewInvite;

/// Invites, newest first: the newest thousand.
#[utoipa::path(get, path = "/api/v1/invites", tag = "invites", params(PageArgs),
    responses((status = 200, body = Page<InviteView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<InviteView>>, Failure> {
    let limit = page.limit()?;
    let invites = api.invites.list(&caller, PAGE_ITEMS_MAX).await?;
    let after = page.cursor.as_deref();
    let passed = |id: &str| after.is_some_and(|after| id >= after);
    let now = api.context.clock.wall();
    let mut items: Vec<InviteView> = invites.iter().map(|invite| view::invite(invite, now)).collect();
    // Ids sort by creation, so the id is the cursor.
    items.retain(|item| !passed(&item.id));
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(Page { items, next_cursor }))
}

/// Makes an invite. The answer is the only place where its secret is seen.
#[utoipa::path(post, path = "/api/v1/invites", tag = "invites", request_body = InviteRequest,
    responses((status = 201, body = InviteCreated)))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<InviteRequest>,
) -> Result<Response, Failure> {
    let InviteRequest { labels, profile, max_profile, owner, ttl_ms } = request;
    let new = NewInvite { labels, profile, max_profile, owner, ttl_ms };
    let (invite, text) = api.invites.create(&caller, new).await?;
    let created = InviteCreated {
        invite: text.reveal(),
        id: invite.id.to_string(),
        expires_at: view::time(invite.expires_at),
        command: format!("cortex join {} --invite-file FILE --name NAME", api.about.join_addr),
    };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// Ends an invite.
#[utoipa::path(delete, path = "/api/v1/invites/{id}", tag = "invites", params(("id" = String, Path)),
    responses((status = 200, body = InviteView)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<InviteView>, Failure> {
    let invite = api.invites.revoke(&caller, path_id("invite", &id)?).await?;
    Ok(Json(view::invite(&invite, api.context.clock.wall())))
}
