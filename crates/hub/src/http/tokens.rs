//! `/api/v1/tokens`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::name::{Name, printable};
use cortex_core::token::Role;
use cortex_wire::http::{Page, TokenCreated, TokenRequest, TokenView};
use http::StatusCode;

use crate::http::extract::{Args, JsonBody, PageArgs};
use crate::http::problem::{Failure, invalid};
use crate::http::{Api, view};
use crate::service::Caller;

/// Tokens by name, revoked and expired ones too.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "tokens", params(PageArgs),
    responses((status = 200, body = Page<TokenView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<TokenView>>, Failure> {
    let limit = page.limit()?;
    let now = api.context.clock.wall();
    // A name may be given again after its token has ended, so the cursor is name and id.
    let key = |token: &cortex_core::token::Token| format!("{}~{}", token.name, token.id);
    let mut tokens = api.tokens.list(&caller)?;
    tokens.sort_by_key(|token| key(token));
    tokens.retain(|token| page.cursor.as_ref().is_none_or(|after| key(token) > *after));
    let more = tokens.len() > limit;
    tokens.truncate(limit);
    let next_cursor = tokens.last().filter(|_| more).map(|last| key(last));
    let items = tokens.iter().map(|token| view::token(token, now)).collect();
    std::future::ready(Ok(Json(Page { items, next_cursor }))).await
}

/// Makes a token. The answer is the only place where its secret is seen.
#[utoipa::path(post, path = "/api/v1/tokens", tag = "tokens", request_body = TokenRequest,
    responses((status = 201, body = TokenCreated)))]
pub(super) async fn create(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<TokenRequest>,
) -> Result<Response, Failure> {
    let name = Name::parse(&request.name)?;
    let role = Role::parse(&request.role).ok_or_else(|| {
        let shown = printable(&request.role, 80);
        invalid(format!("`role` is `{shown}`; it must be viewer, operator or admin."))
    })?;
    let (token, secret) = api.tokens.create(&caller, name, role, request.ttl_ms).await?;
    let record = view::token(&token, api.context.clock.wall());
    let created = TokenCreated { token: secret.reveal().to_owned(), record };
    Ok((StatusCode::CREATED, Json(created)).into_response())
}

/// Ends a token, named by its id or its name.
#[utoipa::path(delete, path = "/api/v1/tokens/{token}", tag = "tokens", params(("token" = String, Path)),
    responses((status = 200, body = TokenView)))]
pub(super) async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Path(token): Path<String>,
) -> Result<Json<TokenView>, Failure> {
    let token = api.tokens.revoke(&caller, &token).await?;
    Ok(Json(view::token(&token, api.context.clock.wall())))
}
