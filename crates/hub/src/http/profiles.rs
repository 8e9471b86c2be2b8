//! `/api/v1/profiles`.

use axum::Json;
use axum::extract::{Path, State};
use cortex_core::policy::Document;
use cortex_wire::http::{Page, ProfileView};
use cortex_wire::policy::DocumentText;
use http::StatusCode;

use crate::http::extract::JsonBody;
use crate::http::problem::Failure;
use crate::http::{Api, view};
use crate::service::Caller;
use crate::service::policies::Profile;

/// All profiles: the built-in ones first, then those that the hub keeps, by name.
#[utoipa::path(get, path = "/api/v1/profiles", tag = "policies",
    responses((status = 200, body = Page<ProfileView>)))]
pub(super) async fn list(State(api): State<Api>, caller: Caller) -> Result<Json<Page<ProfileView>>, Failure> {
    let items = api.policies.profiles(&caller).await?.into_iter().map(shown).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// One profile.
#[utoipa::path(get, path = "/api/v1/profiles/{profile}", tag = "policies",
    params(("profile" = String, Path)), responses((status = 200, body = ProfileView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<ProfileView>, Failure> {
    Ok(Json(shown(api.policies.profile(&caller, &name).await?)))
}

/// Keeps a profile. No node changes by it.
#[utoipa::path(put, path = "/api/v1/profiles/{profile}", tag = "policies",
    params(("profile" = String, Path)), request_body = DocumentText,
    responses((status = 200, body = ProfileView)))]
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody(text): JsonBody<DocumentText>,
) -> Result<Json<ProfileView>, Failure> {
    let document = Document::try_from(text)?;
    Ok(Json(shown(api.policies.put_profile(&caller, &name, document).await?)))
}

/// Removes a profile that the hub keeps. Nodes that were set to it keep what they have.
#[utoipa::path(delete, path = "/api/v1/profiles/{profile}", tag = "policies",
    params(("profile" = String, Path)), responses((status = 204)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Failure> {
    api.policies.remove_profile(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(profile: Profile) -> ProfileView {
    let (changed_by, changed_at) = profile.changed.unzip();
    ProfileView {
        name: profile.name,
        built_in: changed_by.is_none(),
        mode: profile.document.mode.as_str().to_owned(),
        document: DocumentText::from(&profile.document),
        changed_by,
        changed_at: changed_at.map(view::time),
    }
}
