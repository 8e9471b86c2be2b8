//! From a request to checked values. What cannot be read is `invalid_argument` and names the field.

use std::time::Duration;

use axum::body::{Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::{Json, RequestExt as _};
use cortex_core::id::Revision;
use cortex_core::limits::{
    BODY_BYTES_MAX, FILE_INLINE_BYTES_MAX, HEAD_MS_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX,
};
use cortex_core::{Code, Refusal};
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http::problem::{Failure, invalid};
use crate::service::Caller;
use crate::service::files::too_long;

/// A JSON body. An empty one counts as `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let kind = content_type(request.headers());
        let bytes = read_body(request).await?;
        if kind.as_deref() != Some("application/json") && !(bytes.is_empty() && kind.is_none()) {
            return Err(wrong_type("application/json"));
        }
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        match Json::<T>::from_bytes(text) {
            Ok(Json(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(invalid(format!("The body cannot be read: {}.", told(&rejection.body_text()))))
            }
        }
    }
}

/// A body of plain bytes.
pub(crate) struct RawBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for RawBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let kind = content_type(request.headers());
        let bytes = read_body(request).await?;
        // A page of another site can send text and forms without asking, and nothing else.
        if kind.as_deref() != Some("application/octet-stream") && !(bytes.is_empty() && kind.is_none()) {
            return Err(wrong_type("application/octet-stream"));
        }
        Ok(Self(bytes))
    }
}

/// Content of a file: plain bytes, as many as one call carries.
pub(crate) struct FileBody(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for FileBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let kind = content_type(request.headers());
        let bytes = read_within(request, FILE_INLINE_BYTES_MAX, too_long("The content")).await?;
        if kind.as_deref() != Some("application/octet-stream") && !(bytes.is_empty() && kind.is_none()) {
            return Err(wrong_type("application/octet-stream"));
        }
        Ok(Self(bytes))
    }
}

/// The query string.
pub(crate) struct Args<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Args<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(invalid(format!("The query cannot be read: {}.", told(&rejection.body_text()))))
            }
        }
    }
}

/// Who asks; put there by the check of rights.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        let caller = std::future::ready(parts.extensions.get::<Self>().cloned()).await;
        caller.ok_or_else(|| Refusal::new(Code::Unauthenticated, "The request has no API token.").into())
    }
}

/// Which page of a list.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageArgs {
    /// At most so many items; 100 when missing, at most 1000.
    pub(crate) limit: Option<usize>,
    /// `next_cursor` of the page before.
    pub(crate) cursor: Option<String>,
}

impl PageArgs {
    /// The checked limit.
    pub(crate) fn limit(&self) -> Result<usize, Failure> {
        page_limit(self.limit)
    }
}

/// Checks the `limit` of a list.
pub(crate) fn page_limit(limit: Option<usize>) -> Result<usize, Failure> {
    match limit.unwrap_or(PAGE_ITEMS_DEFAULT) {
        0 => Err(invalid("`limit` must be above 0.")),
        limit => Ok(limit.min(PAGE_ITEMS_MAX)),
    }
}

/// A value of a request that has a text form, such as an id.
pub(crate) fn parse<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, Failure> {
    let shown = cortex_core::name::printable(text, 80);
    text.parse().map_err(|_| invalid(format!("`{field}` is `{shown}`, which cannot be read.")))
}

/// The id in a path. One that cannot be read is not there either.
pub(crate) fn path_id<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Failure> {
    let shown = cortex_core::name::printable(text, 80);
    text.parse().map_err(|_| Refusal::new(Code::NotFound, format!("There is no {what} `{shown}`.")).into())
}

/// The revision that `If-Match` names.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Failure> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let number = text.trim_start_matches("W/").trim_matches('"').parse();
    number.map(|number| Some(Revision(number))).map_err(|_| invalid("`If-Match` is not an ETag of a policy."))
}

async fn read_body(request: Request) -> Result<Bytes, Failure> {
    let refusal = Refusal::new(Code::TooLarge, format!("The body is longer than {BODY_BYTES_MAX} bytes."));
    read_within(request, BODY_BYTES_MAX, refusal).await
}

/// A body of at most `max` bytes; a longer one is refused with `too_large`.
async fn read_within(request: Request, max: usize, too_large: Refusal) -> Result<Bytes, Failure> {
    // What says itself that it is too long is not read at all.
    if request.body().size_hint().lower() > max as u64 {
        return Err(too_large.into());
    }
    let request = request.with_limited_body();
    let body = Limited::new(request.into_body(), max);
    let read = tokio::time::timeout(Duration::from_millis(HEAD_MS_MAX), body.collect()).await;
    match read {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large.into()),
        Ok(Err(_)) => Err(invalid("The body broke off.")),
        Err(_) => {
            let message = format!("The body did not come within {} s.", HEAD_MS_MAX / 1000);
            Err(Failure::with_status(Refusal::new(Code::Timeout, message), StatusCode::REQUEST_TIMEOUT))
        }
    }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("?");
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn wrong_type(needed: &str) -> Failure {
    let refusal = Refusal::new(Code::InvalidArgument, format!("The body is not `{needed}`."))
        .hint(format!("Send it with `Content-Type: {needed}`."));
    Failure::with_status(refusal, StatusCode::UNSUPPORTED_MEDIA_TYPE)
}

/// The framework's sentence, which names the field, without its lead.
fn told(text: &str) -> String {
    let text = text.split_once(": ").map_or(text, |(_lead, rest)| rest);
    cortex_core::name::printable(text, 300)
}
