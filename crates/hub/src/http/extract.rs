//! From a request to checked values. What cannot be read is `invalid_argument` and names the field.

use std::time::Duration;

use axum::Json;
use axum::body::{BodyDataStream, Bytes, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use bytes::BytesMut;
use cortex_core::files::path::FilePath;
use cortex_core::id::Revision;
use cortex_core::limits::{
    BODY_BYTES_MAX, BODY_IDLE_MS_MAX, FILE_BODY_BYTES_MAX, FILE_INLINE_BYTES_MAX, HEAD_MS_MAX,
    PACK_BODY_BYTES_MAX, PACK_MS_MAX, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX,
};
use cortex_core::{Code, Refusal};
use futures::StreamExt as _;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::http::problem::{Failure, invalid};
use crate::service::Caller;
use crate::service::files::{Body, too_long};

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

/// Content of a file: plain bytes. What fits in one message is read; of more the rest is still to come.
pub(crate) enum FileBody {
    /// All of it.
    Whole(Bytes),
    /// It comes in pieces.
    Pieces {
        /// How many bytes, when the caller says.
        len: Option<u64>,
        /// They.
        body: Body,
    },
}

impl<S: Send + Sync> FromRequest<S> for FileBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let kind = content_type(request.headers());
        let told = request.body().size_hint();
        if told.lower() > FILE_BODY_BYTES_MAX {
            return Err(too_long().into());
        }
        let octets = kind.as_deref() == Some("application/octet-stream");
        // Who says no length may say no type, as long as there is nothing.
        if !octets && (kind.is_some() || told.lower() > 0) {
            return Err(wrong_type("application/octet-stream"));
        }
        let mut pieces = pieces(request.into_body());
        if told.lower() > FILE_INLINE_BYTES_MAX as u64 {
            return Ok(Self::Pieces { len: told.exact(), body: pieces });
        }
        let mut front = BytesMut::new();
        let read = async {
            while let Some(piece) = pieces.next().await {
                front.extend_from_slice(&piece?);
                if front.len() > FILE_INLINE_BYTES_MAX {
                    break;
                }
            }
            Ok::<(), Failure>(())
        };
        tokio::time::timeout(Duration::from_millis(HEAD_MS_MAX), read)
            .await
            .map_err(|_late| too_slow(HEAD_MS_MAX))??;
        if front.len() > FILE_INLINE_BYTES_MAX {
            let front = futures::stream::iter([Ok(front.freeze())]);
            return Ok(Self::Pieces { len: told.exact(), body: front.chain(pieces).boxed() });
        }
        if !octets && !front.is_empty() {
            return Err(wrong_type("application/octet-stream"));
        }
        Ok(Self::Whole(front.freeze()))
    }
}

/// One pack, whose body is read when there is a place for it ([`PackBody::read`]).
pub(crate) struct PackBody(Request);

impl<S: Send + Sync> FromRequest<S> for PackBody {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let kind = content_type(request.headers());
        if kind.as_deref() != Some("application/octet-stream") {
            return Err(wrong_type("application/octet-stream"));
        }
        std::future::ready(Ok(Self(request))).await
    }
}

impl PackBody {
    /// The pack.
    pub(crate) async fn read(self) -> Result<Bytes, Failure> {
        let message = format!("The body is longer than a pack can be, {PACK_BODY_BYTES_MAX} bytes.");
        let too_large = Refusal::new(Code::TooLarge, message).hint("Send the packs one by one.");
        read_bounded(self.0, PACK_BODY_BYTES_MAX, PACK_MS_MAX, too_large).await
    }
}

/// The pieces of a body. One that does not come in its time, or breaks off, is the last.
fn pieces(body: axum::body::Body) -> Body {
    let idle = Duration::from_millis(BODY_IDLE_MS_MAX);
    let next = move |body: Option<BodyDataStream>| async move {
        let mut body = body?;
        match tokio::time::timeout(idle, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(_broken))) => {
                let refusal = Refusal::new(Code::InvalidArgument, "The body broke off; nothing was changed.")
                    .hint("Send it again, whole.");
                Some((Err(refusal), None))
            }
            Err(_idle) => {
                let message = format!("Nothing of the body came for {} s.", idle.as_secs());
                Some((Err(Refusal::new(Code::Timeout, message)), None))
            }
        }
    };
    futures::stream::unfold(Some(body.into_data_stream()), next).boxed()
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

/// `NODE:PATH`.
pub(crate) fn place(text: &str) -> Result<(String, FilePath), Refusal> {
    let (node, path) = text.split_once(':').ok_or_else(|| {
        let shown = cortex_core::name::printable(text, 200);
        Refusal::new(Code::InvalidArgument, format!("`{shown}` is no `NODE:PATH`."))
            .hint("Name the node and an absolute path on it: `build-1:/srv/notes`.")
    })?;
    Ok((node.to_owned(), FilePath::parse(path)?))
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
    read_bounded(request, max, HEAD_MS_MAX, too_large).await
}

/// The same, within so many milliseconds.
async fn read_bounded(
    request: Request,
    max: usize,
    ms_max: u64,
    too_large: Refusal,
) -> Result<Bytes, Failure> {
    // What says itself that it is too long is not read at all.
    if request.body().size_hint().lower() > max as u64 {
        return Err(too_large.into());
    }
    // Of what a length claims, the system gives memory only as the bytes come.
    let claimed = request.body().size_hint().exact().map_or(0, |len| len as usize);
    let mut body = Limited::new(request.into_body(), max);
    let read = async {
        // Each piece is copied and given back, so that the connection reads the next one into its place.
        let mut bytes = BytesMut::with_capacity(claimed);
        while let Some(frame) = body.frame().await.transpose()? {
            if let Ok(piece) = frame.into_data() {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(bytes.freeze())
    };
    match tokio::time::timeout(Duration::from_millis(ms_max), read).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large.into()),
        Ok(Err(_)) => Err(invalid("The body broke off.")),
        Err(_) => Err(too_slow(ms_max)),
    }
}

fn too_slow(ms_max: u64) -> Failure {
    let message = format!("The body did not come within {} s.", ms_max / 1000);
    Failure::with_status(Refusal::new(Code::Timeout, message), StatusCode::REQUEST_TIMEOUT)
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
