//! `/api/v1/login`, `/api/v1/logout` and `/api/v1/password`. A password is in the body of one request,
//! and nowhere else.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cortex_core::name::Name;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{LoggedIn, Login, PasswordChange};
use http::StatusCode;

use crate::http::extract::JsonBody;
use crate::http::problem::Failure;
use crate::http::server::Source;
use crate::http::{Api, view};
use crate::secret::Secret;
use crate::service::Caller;
use crate::service::audit::Rejected;

/// Begins a session. The answer is the only place where its secret is seen.
#[utoipa::path(post, path = "/api/v1/login", tag = "users", request_body = Login,
    responses((status = 201, body = LoggedIn)))]
pub(super) async fn login(
    State(api): State<Api>,
    source: Option<Extension<Source>>,
    JsonBody(login): JsonBody<Login>,
) -> Result<Response, Failure> {
    let source = source.map(|Extension(source)| source.0);
    let password = Secret::new(login.password.0);
    match api.sessions.login(&login.user, password, source).await {
        Ok(begun) => {
            let token = begun.secret.reveal().to_owned();
            let (user, expires_at) = (begun.user.to_string(), view::time(begun.expires_at));
            Ok((StatusCode::CREATED, Json(LoggedIn { token, user, expires_at })).into_response())
        }
        Err(refusal) => {
            tell(&api, &login.user, source, &refusal);
            Err(refusal.into())
        }
    }
}

/// Ends the session that it is called with.
#[utoipa::path(post, path = "/api/v1/logout", tag = "users", responses((status = 204)))]
pub(super) async fn logout(State(api): State<Api>, caller: Caller) -> Result<StatusCode, Failure> {
    api.sessions.logout(&caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sets the caller's own password. Its other sessions end.
#[utoipa::path(post, path = "/api/v1/password", tag = "users", request_body = PasswordChange,
    responses((status = 204)))]
pub(super) async fn password(
    State(api): State<Api>,
    caller: Caller,
    source: Option<Extension<Source>>,
    JsonBody(change): JsonBody<PasswordChange>,
) -> Result<StatusCode, Failure> {
    let source = source.map(|Extension(source)| source.0);
    let (current, new) = (Secret::new(change.current.0), Secret::new(change.new.0));
    api.sessions.set_password(&caller, current, new, source).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has the refusal kept in the audit log. A name is told when somebody has it: another one may be a
/// password that was typed in its place.
fn tell(api: &Api, user: &str, source: Option<std::net::IpAddr>, refusal: &Refusal) {
    if !matches!(refusal.code, Code::Unauthenticated | Code::RateLimited) {
        return;
    }
    let name = Name::parse(user).ok();
    let known = name.filter(|name| api.context.directory.user_named(name).is_some());
    let asked = known
        .map_or_else(|| "POST /api/v1/login".to_owned(), |name| format!("POST /api/v1/login, user {name}"));
    let rejected = Rejected { source, refusal: refusal.clone(), asked };
    if let Some(keeping) = api.audit.rejected(rejected, api.shutdown.clone()) {
        drop(api.mesh.spawn(keeping));
    }
}
