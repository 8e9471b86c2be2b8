//! What every request passes before a handler sees it: an id, the check of Host and Origin
//! (against DNS rebinding), no secret in the URL, and the caller's token and role.
//!
//! A token is never logged, and a query string is never logged at all.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use cortex_core::invite::to_hex;
use cortex_core::token::Token;
use cortex_core::{Code, Refusal};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::access::{self, Needs};
use crate::clock;
use crate::http::Api;
use crate::http::problem::{self, Failure};
use crate::http::server::Source;
use crate::secret;
use crate::service::Caller;
use crate::service::audit::Rejected;

/// The id of a request, in its answer and in the log.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(pub(crate) String);

/// Outermost: names the request, counts it, logs it, and gives what failed its form.
pub(super) async fn observe<A: Future<Output = Response>>(
    api: &Api,
    mut request: Request,
    answer: impl FnOnce(Request) -> A,
) -> Response {
    let began = Instant::now();
    let id = RequestId(to_hex(&clock::random::<8>()));
    request.extensions_mut().insert(id.clone());
    let method = request.method().clone();
    let head = method == Method::HEAD;
    let response = match check_door(api, &request) {
        Ok(()) => answer(request).await,
        Err(failure) => failure.into_response(),
    };
    let route =
        response.extensions().get::<Matched>().map_or_else(|| "other".to_owned(), |route| route.0.clone());
    let (mut response, code) = problem::finish(response, &id.0);
    if head {
        *response.body_mut() = axum::body::Body::empty();
    }
    decorate(response.headers_mut(), &id);
    let (status, seconds) = (response.status().as_u16(), began.elapsed().as_secs_f64());
    api.metrics.request(known_method(&method), &route, status, seconds);
    if let Some(code) = code {
        api.metrics.refused(code);
    }
    tracing::debug!(request_id = %id.0, %method, route, status, code = code.map(Code::as_str), "request");
    response
}

/// The pattern by which a request was routed, told to the outermost layer.
#[derive(Clone, Debug)]
struct Matched(String);

/// Behind the router: the caller's token, and whether its role reaches what the route needs.
pub(super) async fn authorise(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let Some(path) = path else { return next.run(request).await };
    let mut response = match admit(&api, &path, &mut request).await {
        Ok(()) => {
            let (caller, method) = (request.extensions().get::<Caller>().cloned(), request.method().clone());
            let response = next.run(request).await;
            if let (Some(caller), Some(refusal)) = (caller, wanting(&path, &response)) {
                tell_refused(&api, &caller, &refusal, format!("{method} {path}")).await;
            }
            response
        }
        Err(refusal) => Failure::from(refusal).into_response(),
    };
    response.extensions_mut().insert(Matched(path));
    response
}

async fn admit(api: &Api, path: &str, request: &mut Request) -> Result<(), Refusal> {
    let Some(entry) = access::route(request.method().as_str(), path) else {
        // A method that the path does not have is answered by the router; a route without a row
        // is a defect, and closed.
        if access::routes().any(|(_, known, _)| known == path) {
            return Ok(());
        }
        tracing::error!(path, "a route has no row in the table of rights");
        return Err(Refusal::new(Code::Internal, "This route has no rule for who may call it."));
    };
    if entry.needs == Needs::Nothing {
        return Ok(());
    }
    let asked = format!("{} {path}", request.method());
    let caller = match authenticate(api, request.headers()) {
        Ok(caller) => caller,
        Err(Unknown { refusal, token }) => {
            let of = token.map(|token| format!(", token {}", token.name)).unwrap_or_default();
            tell_rejected(api, request, &refusal, asked + &of);
            return Err(refusal);
        }
    };
    if let Err(refusal) = api.context.refuse_locked(&caller).and_then(|()| entry.admit(&caller)) {
        tell_refused(api, &caller, &refusal, asked).await;
        return Err(refusal);
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Doors whose use cases keep a row of each refusal, with the command that it is about.
const KEPT_INSIDE: &[&str] = &[
    "/api/v1/nodes/{node}/fs",
    "/api/v1/nodes/{node}/fs/search",
    "/api/v1/runs",
    "/api/v1/runs/{id}/rerun",
    "/api/v1/consents/{id}/approve",
    "/api/v1/consents/{id}/deny",
];

/// The refusal for want of a right that a use case answered with, unless that keeps it itself.
fn wanting(path: &str, response: &Response) -> Option<Refusal> {
    let refusal = &response.extensions().get::<Failure>()?.refusal;
    let wants = matches!(refusal.code, Code::Forbidden | Code::WrongAudience | Code::Locked);
    (wants && !KEPT_INSIDE.contains(&path)).then(|| refusal.clone())
}

/// Has the refusal of a known caller kept in the audit log before it is answered.
async fn tell_refused(api: &Api, caller: &Caller, refusal: &Refusal, asked: String) {
    if let Some((keeping, kept)) = api.audit.refused(caller, refusal, asked, api.shutdown.clone()) {
        drop(api.mesh.spawn(keeping));
        let _kept = kept.await;
    }
}

/// Why nobody is known to ask.
struct Unknown {
    refusal: Refusal,
    /// The token that was shown, when it is one that was good before.
    token: Option<Arc<Token>>,
}

impl From<Refusal> for Unknown {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, token: None }
    }
}

/// Has the rejection kept in the audit log. The answer waits for nothing.
fn tell_rejected(api: &Api, request: &Request, refusal: &Refusal, asked: String) {
    let source = request.extensions().get::<Source>().map(|source| source.0);
    let rejected = Rejected { source, refusal: refusal.clone(), asked };
    if let Some(keeping) = api.audit.rejected(rejected, api.shutdown.clone()) {
        drop(api.mesh.spawn(keeping));
    }
}

fn authenticate(api: &Api, headers: &HeaderMap) -> Result<Caller, Unknown> {
    let missing = || Refusal::new(Code::Unauthenticated, "The request has no API token.");
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let value = shown.next().ok_or_else(missing)?;
    if shown.next().is_some() {
        let message = "The request has more than one Authorization header.";
        return Err(Refusal::new(Code::Unauthenticated, message).into());
    }
    let (scheme, secret) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        let message = "The Authorization header is not of the kind Bearer.";
        return Err(Refusal::new(Code::Unauthenticated, message).into());
    }
    let secret = secret.trim();
    refuse_foreign(secret)?;
    // The lookup is by hash: what it takes tells nothing about the secrets that are there.
    let token = api.context.directory.token(&secret::hash(secret.as_bytes()));
    let token = token
        .ok_or_else(|| Refusal::new(Code::Unauthenticated, "The API token is not known to this hub."))?;
    match token.check(api.context.clock.wall()) {
        Ok(()) => Ok(Caller::new(api.context.directory.who(token))),
        Err(refusal) => Err(Unknown { refusal, token: Some(token) }),
    }
}

/// Credentials of another door: an invite, a node's certificate or key.
fn refuse_foreign(secret: &str) -> Result<(), Refusal> {
    let what = if secret.starts_with("CXI1.") {
        "an invite, which only joins a node"
    } else if secret.starts_with("-----BEGIN") || secret.starts_with("MII") {
        "a certificate or key, which only serves on the node port"
    } else {
        return Ok(());
    };
    Err(Refusal::new(Code::WrongAudience, format!("The bearer is {what}; the HTTP API takes API tokens.")))
}

fn check_door(api: &Api, request: &Request) -> Result<(), Failure> {
    let forbidden = |message: &str| {
        let hint = "Use the hub's own address, or start the hub with `--public-url` for this one.";
        Failure::with_status(Refusal::new(Code::Forbidden, message).hint(hint), StatusCode::FORBIDDEN)
    };
    let host =
        host_of(request).ok_or_else(|| problem::invalid("The request has no single valid Host header."))?;
    if !api.door.allows(host) {
        return Err(forbidden("The Host header names an address that is not this hub's."));
    }
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && !origin.to_str().is_ok_and(|origin| api.door.allows_origin(origin, host))
    {
        return Err(forbidden("The Origin header names another site."));
    }
    refuse_secret_in_url(request)
}

fn host_of(request: &Request) -> Option<&str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok(),
        (None, None) => request.uri().authority().map(http::uri::Authority::as_str),
        (None | Some(_), Some(_)) => None,
    }
}

/// URLs end up in logs and histories; a secret there is burnt, whether it is good or not.
fn refuse_secret_in_url(request: &Request) -> Result<(), Failure> {
    let url = request.uri();
    let text = url.query().unwrap_or_default();
    let named = text.split('&').filter_map(|pair| pair.split('=').next()).any(|name| {
        matches!(
            name.to_ascii_lowercase().as_str(),
            "token" | "access_token" | "api_key" | "apikey" | "authorization" | "password"
        )
    });
    if !named
        && ![text, url.path()]
            .iter()
            .any(|part| ["cxt_", "cxs_", "CXI1."].iter().any(|secret| part.contains(secret)))
    {
        return Ok(());
    }
    let refusal = Refusal::new(Code::InvalidArgument, "A secret must not be part of a URL.").hint(
        "Send it as `Authorization: Bearer …`, and replace this one, since URLs are logged on their way.",
    );
    Err(refusal.into())
}

/// The names under which the hub may be called.
#[derive(Clone, Debug, Default)]
pub struct Door {
    public: Option<String>,
}

impl Door {
    /// `public_url` is the address under which others reach the hub.
    pub fn new(public_url: Option<&str>) -> Self {
        let authority =
            public_url.and_then(|url| url.parse::<http::Uri>().ok()).and_then(|uri| uri.authority().cloned());
        Self { public: authority.map(|authority| authority.as_str().to_ascii_lowercase()) }
    }

    /// Whether a Host header may say this. A literal address cannot be rebound; a name can, so
    /// only known ones pass.
    fn allows(&self, host: &str) -> bool {
        let name = name_of(host).to_ascii_lowercase();
        let literal = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
        literal || name == "localhost" || self.public.as_deref().is_some_and(|public| name_of(public) == name)
    }

    /// Whether a page of this origin may call: only the hub's own pages.
    fn allows_origin(&self, origin: &str, host: &str) -> bool {
        let Some((scheme, authority)) = origin.split_once("://") else { return false };
        let own = authority.eq_ignore_ascii_case(host)
            || self.public.as_deref().is_some_and(|public| authority.eq_ignore_ascii_case(public));
        matches!(scheme, "http" | "https") && own
    }
}

/// `host:port` without the port.
fn name_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.find(']').map_or(authority, |end| &authority[..=end]);
    }
    authority.rsplit_once(':').map_or(authority, |(name, _port)| name)
}

fn decorate(headers: &mut HeaderMap, id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(&id.0) {
        headers.insert("x-request-id", value);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A label from a closed list, whatever the client sent.
fn known_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_names_and_literal_addresses_are_hosts() {
        let door = Door::new(Some("https://hub.lan:7440"));
        for good in
            ["localhost", "localhost:7440", "127.0.0.1:1", "[::1]:7440", "[::1]", "hub.lan", "HUB.lan:7440"]
        {
            assert!(door.allows(good), "{good}");
        }
        for bad in
            ["evil.example", "localhost.evil.example:7440", "127.0.0.1.evil.example", "", "hub.lan.evil"]
        {
            assert!(!door.allows(bad), "{bad}");
        }
    }

    #[test]
    fn only_the_hubs_own_origin_passes() {
        let door = Door::new(Some("https://hub.lan:7440"));
        assert!(door.allows_origin("http://127.0.0.1:7440", "127.0.0.1:7440"));
        assert!(door.allows_origin("https://hub.lan:7440", "10.0.0.1:7440"));
        for bad in ["null", "http://127.0.0.1:3000", "http://evil.example", "file://127.0.0.1:7440"] {
            assert!(!door.allows_origin(bad, "127.0.0.1:7440"), "{bad}");
        }
    }
}
