//! Every error of the HTTP door is `application/problem+json` (RFC 9457) with our members beside
//! `type`, `title` and `status`. A handler only says [`Failure`]; the outermost layer, which knows
//! the request's id, writes the body. So no answer can bypass the form.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use cortex_core::{Code, Refusal};
use cortex_wire::error::{Problem, surface};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// A refused request.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why.
    pub refusal: Refusal,
    /// A status that says more than the code's own, such as 405.
    pub status: StatusCode,
}

impl Failure {
    /// A refusal under a status of its own.
    pub const fn with_status(refusal: Refusal, status: StatusCode) -> Self {
        Self { refusal, status }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(surface(refusal.code).http);
        Self { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        response.extensions_mut().insert(self);
        response
    }
}

/// A refusal about one field of a request.
pub(crate) fn invalid(message: impl Into<String>) -> Failure {
    Refusal::new(Code::InvalidArgument, message).into()
}

#[derive(Serialize)]
struct Body9457<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    #[serde(flatten)]
    problem: &'a Problem,
}

/// The answer with its final form: what failed gets its body here. Returns the code, if any.
pub(super) fn finish(response: Response, request_id: &str) -> (Response, Option<Code>) {
    let failure = response.extensions().get::<Failure>().cloned();
    let Some(failure) = failure.or_else(|| foreign(&response)) else { return (response, None) };
    let problem = Problem::new(&failure.refusal, request_id);
    let title = failure.status.canonical_reason().unwrap_or("Refused");
    let body = Body9457 { r#type: &problem.docs, title, status: failure.status.as_u16(), problem: &problem };
    let text = serde_json::to_string(&body).unwrap_or_default();
    let (mut parts, _) = response.into_parts();
    parts.status = failure.status;
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    parts.headers.remove(header::CONTENT_LENGTH);
    extra_headers(&failure, &mut parts.headers);
    (Response::from_parts(parts, Body::from(text)), Some(failure.refusal.code))
}

fn extra_headers(failure: &Failure, headers: &mut http::HeaderMap) {
    if failure.status == StatusCode::UNAUTHORIZED {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cortex\""));
    }
    let told = failure.refusal.details.iter().find(|(name, _)| *name == "retry_after_s");
    let wait = told.map(|(_, seconds)| seconds.as_str()).or_else(|| {
        let busy = failure.status == StatusCode::TOO_MANY_REQUESTS
            || failure.status == StatusCode::SERVICE_UNAVAILABLE;
        busy.then_some("1")
    });
    if let Some(value) = wait.and_then(|seconds| HeaderValue::from_str(seconds).ok()) {
        headers.insert(header::RETRY_AFTER, value);
    }
}

/// An error that the framework answered by itself, without our form.
fn foreign(response: &Response) -> Option<Failure> {
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    let code = match status {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE => Code::TooLarge,
        _ if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    };
    let title = status.canonical_reason().unwrap_or("error");
    Some(Failure::with_status(Refusal::new(code, format!("The request was not served: {title}.")), status))
}
