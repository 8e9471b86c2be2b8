//! `/api/v1/users` and `/api/v1/grants`.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cortex_core::name::{Name, Selector, printable};
use cortex_core::token::Role;
use cortex_wire::http::{GrantRequest, Page, PasswordText, RoleGrantView, UserPatch, UserRequest, UserView};
use http::StatusCode;

use crate::http::extract::{Args, JsonBody, PageArgs, path_id};
use crate::http::problem::{Failure, invalid};
use crate::http::{Api, view};
use crate::secret::Secret;
use crate::service::Caller;
use crate::service::users::{Grantee, UserChange};

/// Users by name, with their roles.
#[utoipa::path(get, path = "/api/v1/users", tag = "users", params(PageArgs),
    responses((status = 200, body = Page<UserView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<UserView>>, Failure> {
    let limit = page.limit()?;
    let mut users = api.users.list(&caller)?;
    users.retain(|user| page.cursor.as_deref().is_none_or(|after| user.name.as_str() > after));
    let more = users.len() > limit;
    users.truncate(limit);
    let next_cursor = users.last().filter(|_| more).map(|last| last.name.to_string());
    let grants = api.users.grants(&caller)?;
    let items = users.iter().map(|user| view::user(user, &grants)).collect();
    std::future::ready(Ok(Json(Page { items, next_cursor }))).await
}

/// One user by name or id.
#[utoipa::path(get, path = "/api/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 200, body = UserView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<Json<UserView>, Failure> {
    let user = api.users.get(&caller, &user)?;
    std::future::ready(Ok(Json(view::user(&user, &api.users.grants(&caller)?)))).await
}

/// Adds a user. It can do nothing until it, or one of its groups, is given a role.
#[utoipa::path(post, path = "/api/v1/users", tag = "users", request_body = UserRequest,
    responses((status = 201, body = UserView)))]
pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<UserRequest>,
) -> Result<Response, Failure> {
    let (name, groups) = (Name::parse(&request.name)?, groups(request.groups)?);
    let user = api.users.add(&caller, name, request.password.map(secret), groups).await?;
    Ok((StatusCode::CREATED, Json(view::user(&user, &api.context.directory.grants()))).into_response())
}

/// Changes password and groups. A new password ends the user's sessions.
#[utoipa::path(patch, path = "/api/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    request_body = UserPatch, responses((status = 200, body = UserView)))]
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
    JsonBody(patch): JsonBody<UserPatch>,
) -> Result<Json<UserView>, Failure> {
    let change =
        UserChange { password: patch.password.map(secret), groups: patch.groups.map(groups).transpose()? };
    let user = api.users.change(&caller, &user, change).await?;
    Ok(Json(view::user(&user, &api.context.directory.grants())))
}

/// Removes a user, with its tokens, sessions and roles.
#[utoipa::path(delete, path = "/api/v1/users/{user}", tag = "users", params(("user" = String, Path)),
    responses((status = 204)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(user): Path<String>,
) -> Result<StatusCode, Failure> {
    api.users.remove(&caller, &user).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Roles that were given, oldest first.
#[utoipa::path(get, path = "/api/v1/grants", tag = "users", params(PageArgs),
    responses((status = 200, body = Page<RoleGrantView>)))]
pub(super) async fn grants(
    State(api): State<Api>,
    caller: Caller,
    Args(page): Args<PageArgs>,
) -> Result<Json<Page<RoleGrantView>>, Failure> {
    let limit = page.limit()?;
    let users = api.users.list(&caller)?;
    let mut grants = api.users.grants(&caller)?;
    grants.sort_by_key(|grant| grant.id);
    grants.retain(|grant| page.cursor.as_ref().is_none_or(|after| grant.id.to_string() > *after));
    let more = grants.len() > limit;
    grants.truncate(limit);
    let next_cursor = grants.last().filter(|_| more).map(|last| last.id.to_string());
    let items = grants.iter().map(|grant| view::grant(grant, &users)).collect();
    std::future::ready(Ok(Json(Page { items, next_cursor }))).await
}

/// Gives a user or a group a role. The same one twice is the same one.
#[utoipa::path(post, path = "/api/v1/grants", tag = "users", request_body = GrantRequest,
    responses((status = 201, body = RoleGrantView)))]
pub(super) async fn grant(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<GrantRequest>,
) -> Result<Response, Failure> {
    let grantee = match (request.user, request.group) {
        (Some(user), None) => Grantee::User(user),
        (None, Some(group)) => Grantee::Group(Name::parse(&group)?),
        (Some(_), Some(_)) | (None, None) => return Err(invalid("Name either a `user` or a `group`.")),
    };
    let selector = Selector::parse(request.selector.as_deref().unwrap_or_default())?;
    let grant = api.users.grant(&caller, grantee, role(&request.role)?, selector).await?;
    let users = api.context.directory.users();
    Ok((StatusCode::CREATED, Json(view::grant(&grant, &users))).into_response())
}

/// Takes a role back.
#[utoipa::path(delete, path = "/api/v1/grants/{id}", tag = "users", params(("id" = String, Path)),
    responses((status = 204)))]
pub(super) async fn ungrant(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    api.users.ungrant(&caller, path_id("grant", &id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The role that a request names.
pub(super) fn role(text: &str) -> Result<Role, Failure> {
    Role::parse(text).ok_or_else(|| {
        invalid(format!("`role` is `{}`; it must be viewer, operator or admin.", printable(text, 80)))
    })
}

fn groups(names: BTreeSet<String>) -> Result<BTreeSet<Name>, Failure> {
    Ok(names.iter().map(|name| Name::parse(name)).collect::<Result<_, _>>()?)
}

fn secret(password: PasswordText) -> Secret {
    Secret::new(password.0)
}
