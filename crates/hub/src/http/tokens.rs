//! `/api/v1/tokens`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::name::{Name, Selector, printable};
use cortex_core::rights::Rights;
use cortex_core::token::{TokenKind, Tool};
use cortex_core::{Code, Refusal};
use cortex_wire::http::{Page, TokenCreated, TokenRequest, TokenView};
use http::StatusCode;

use crate::http::extract::{Args, JsonBody, PageArgs};
use crate::http::problem::{Failure, invalid};
use crate::http::users::role;
use crate::http::{Api, view};
use crate::service::Caller;
use crate::service::tokens::NewToken;

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
    let items = tokens.iter().map(|token| view::token(token, &api.context.directory, now)).collect();
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
    let (token, secret) = api.tokens.create(&caller, new_token(request)?).await?;
    let record = view::token(&token, &api.context.directory, api.context.clock.wall());
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
    Ok(Json(view::token(&token, &api.context.directory, api.context.clock.wall())))
}

fn new_token(request: TokenRequest) -> Result<NewToken, Failure> {
    let kind = request.kind.as_deref().map_or(Ok(TokenKind::Api), |text| {
        TokenKind::parse(text)
            .ok_or_else(|| invalid(format!("`kind` is `{}`; it must be api or client.", printable(text, 80))))
    })?;
    let rights = request.rights.map(|rights| Rights::parse(&rights.join(","))).transpose()?;
    let tools = request.tools.iter().map(|text| {
        Tool::parse(text).ok_or_else(|| {
            let all: Vec<&str> = Tool::ALL.iter().copied().map(Tool::as_str).collect();
            Failure::from(
                Refusal::new(Code::InvalidArgument, format!("There is no tool `{}`.", printable(text, 80)))
                    .hint(format!("Choose among {}.", all.join(", "))),
            )
        })
    });
    let tools: BTreeSet<Tool> = tools.collect::<Result<_, _>>()?;
    Ok(NewToken {
        name: Name::parse(&request.name)?,
        role: role(&request.role)?,
        kind,
        rights,
        nodes: request.nodes,
        selector: request.selector.as_deref().map(Selector::parse).transpose()?,
        tools: Some(tools).filter(|tools| !tools.is_empty()),
        ttl_ms: request.ttl_ms,
    })
}
