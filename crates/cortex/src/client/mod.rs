//! The HTTP client of every command: one connection to the hub, kept alive, over plain HTTP/1.1.
//!
//! The token is read from a file, goes into one header, and never into a URL, message or log.
//! Every call has a deadline. It never goes through a proxy.

mod body;
mod bytes;
mod lines;
mod socket;
mod target;

use std::time::Duration;

use ::bytes::Bytes;
use cortex_core::{Code, Refusal};
use cortex_wire::error::Problem;
use cortex_wire::http::Page;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

pub(crate) use body::Source;
use body::{Body, Watch};
pub(crate) use bytes::{Content, Part};
pub(crate) use lines::{Lines, ServerEvents};
pub(crate) use target::{Target, encode};

use crate::error::{Failure, Result};

/// Largest answer that is no stream.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long the hub may take to answer; above its own deadline for the store.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Pause before the event stream is asked for once more.
const EVENTS_PAUSE: Duration = Duration::from_millis(500);

/// The detail of a refusal that says that the hub may have acted.
const SENT: &str = "sent";

/// Whether the hub may have acted although no answer came.
pub(crate) fn was_sent(failure: &Failure) -> bool {
    matches!(failure, Failure::Refused(refused) if refused.problem.details.contains_key(SENT))
}

/// NDJSON, the form of streams of run events.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// Server-sent events.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";
/// JSON.
const JSON: &str = "application/json";
/// Bytes as they are.
const OCTETS: &str = "application/octet-stream";

/// A connection to the hub, opened when it is first needed and again when it was closed.
pub(crate) struct Client {
    target: Target,
    open: Option<SendRequest<Body>>,
}

/// A call: what is asked for, beside the method and path.
#[derive(Default)]
pub(crate) struct Call {
    /// The body and its type.
    pub(crate) body: Option<(&'static str, Body)>,
    /// What is wanted; JSON when missing.
    pub(crate) accept: Option<&'static str>,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// How long its answer may take; [`ANSWER_MAX`] when missing.
    pub(crate) patience: Option<Duration>,
}

impl Call {
    /// A call with a JSON body.
    pub(crate) fn json<B: Serialize + ?Sized>(body: &B) -> Result<Self> {
        let bytes = serde_json::to_vec(body).map_err(|error| internal(error.to_string()))?;
        Ok(Self { body: Some((JSON, Body::whole(bytes))), ..Self::default() })
    }

    /// A call with bytes as its body.
    pub(crate) fn bytes(body: Bytes) -> Self {
        Self { body: Some((OCTETS, Body::whole(body))), ..Self::default() }
    }

    /// A call whose body is read while it is sent.
    pub(crate) fn source(source: Source) -> Self {
        Self { body: Some((OCTETS, Body::Source(source))), ..Self::default() }
    }

    /// A call that wants this type of answer.
    pub(crate) fn accept(mut self, accept: &'static str) -> Self {
        self.accept = Some(accept);
        self
    }

    /// A call whose answer may take so long: it tells what came of long work.
    pub(crate) fn patient(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// A call with one more header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Client {
    /// A client for that hub; nothing is sent yet.
    pub(crate) const fn new(target: Target) -> Self {
        Self { target, open: None }
    }

    /// Another connection to the same hub, for calls beside a stream.
    pub(crate) fn another(&self) -> Self {
        Self::new(self.target.clone())
    }

    /// Where it goes.
    pub(crate) const fn target(&self) -> &Target {
        &self.target
    }

    /// `GET`, answered by JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T> {
        self.call(Method::GET, path, Call::default()).await
    }

    /// `POST` of JSON, answered by JSON.
    pub(crate) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T> {
        self.call(Method::POST, path, Call::json(body)?).await
    }

    /// All pages of a list, up to `limit` items.
    pub(crate) async fn list<T: DeserializeOwned>(&mut self, path: &str, limit: usize) -> Result<Vec<T>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let asked = (limit - items.len()).min(cortex_core::limits::PAGE_ITEMS_MAX);
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page_path = format!("{path}{joint}limit={asked}");
            if let Some(cursor) = &cursor {
                page_path.push_str("&cursor=");
                page_path.push_str(&encode(cursor));
            }
            let page: Page<T> = self.get(&page_path).await?;
            items.extend(page.items);
            if page.next_cursor.is_none() || items.len() >= limit || page.next_cursor == cursor {
                items.truncate(limit);
                return Ok(items);
            }
            cursor = page.next_cursor;
        }
    }

    /// Any call that is answered by JSON.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        call: Call,
    ) -> Result<T> {
        let bytes = self.bytes(method, path, call).await?;
        serde_json::from_slice(&bytes).map_err(|error| not_our_answer(&error.to_string()))
    }

    /// Any call of which only the success is of interest.
    pub(crate) async fn done(&mut self, method: Method, path: &str, call: Call) -> Result {
        self.bytes(method, path, call).await.map(drop)
    }

    /// Any call, with the headers of its answer.
    pub(crate) async fn answer(
        &mut self,
        method: Method,
        path: &str,
        call: Call,
    ) -> Result<(HeaderMap, Bytes)> {
        let response = self.send(method, path, call).await?;
        let headers = response.headers().clone();
        Ok((headers, whole(response).await?))
    }

    /// A call that is answered by a stream of lines.
    pub(crate) async fn lines(&mut self, method: Method, path: &str, call: Call) -> Result<Lines> {
        let response = self.send(method, path, call).await?;
        self.open = None;
        Ok(Lines::new(response.into_body()))
    }

    /// The body of a `GET` as bytes, piece by piece.
    pub(crate) async fn body(&mut self, path: &str) -> Result<Lines> {
        self.lines(Method::GET, path, Call::default().accept(OCTETS)).await
    }

    /// The bytes that a `GET` is answered with, however many there are.
    pub(crate) async fn content(&mut self, path: &str, call: Call) -> Result<Content> {
        Content::new(self.send(Method::GET, path, call.accept(OCTETS)).await?)
    }

    /// The event stream, from the newest event or after the one that is named.
    pub(crate) async fn events(&mut self, last_event_id: Option<&str>) -> Result<ServerEvents> {
        let mut call = Call::default().accept(EVENT_STREAM);
        if let Some(id) = last_event_id {
            call = call.header("last-event-id", id);
        }
        Ok(ServerEvents::new(self.lines(Method::GET, "/events", call).await?))
    }

    /// The event stream once more, on a connection of its own, for as long as the configuration allows.
    pub(crate) async fn events_again(&self, last_event_id: Option<&str>) -> Result<ServerEvents> {
        let until = Instant::now() + self.target.reconnect_max;
        loop {
            match self.another().events(last_event_id).await {
                Ok(events) => return Ok(events),
                Err(failure) if !failure.is_transport() || Instant::now() > until => return Err(failure),
                Err(_) => sleep(EVENTS_PAUSE).await,
            }
        }
    }

    async fn bytes(&mut self, method: Method, path: &str, call: Call) -> Result<Bytes> {
        let response = self.send(method, path, call).await?;
        whole(response).await
    }

    /// Sends, and turns every answer that is no success into its refusal.
    async fn send(&mut self, method: Method, path: &str, call: Call) -> Result<Response<Incoming>> {
        let patience = call.patience.unwrap_or(ANSWER_MAX);
        let request = self.request(method, path, call)?;
        let response = self.exchange(request, patience).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(refusal(status, &whole(response).await?))
    }

    fn request(&self, method: Method, path: &str, call: Call) -> Result<Request<Body>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}/api/v1{path}", self.target.prefix))
            .header(header::HOST, &self.target.authority)
            .header(header::USER_AGENT, concat!("cortex/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT, call.accept.unwrap_or(JSON));
        if let Some(token) = &self.target.token {
            request = request.header(header::AUTHORIZATION, token.header());
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let body = call.body.map(|(kind, bytes)| (header::HeaderValue::from_static(kind), bytes));
        let (kind, bytes) = body.unzip();
        if let Some(kind) = kind {
            request = request.header(header::CONTENT_TYPE, kind);
        }
        request.body(bytes.unwrap_or_default()).map_err(|error| {
            Failure::usage(
                format!("The request cannot be made: {error}."),
                "Check the names and ids that you gave.",
            )
        })
    }

    async fn exchange(&mut self, request: Request<Body>, patience: Duration) -> Result<Response<Incoming>> {
        let mut sender = self.sender().await?;
        let watch = request.body().watch();
        let Some(answer) = patiently(sender.send_request(request), watch.as_deref(), patience).await else {
            return Err(broken(&format!("it did not answer within {} s", patience.as_secs())));
        };
        // A source that failed broke the connection off on purpose, so that nothing is done by half.
        let why = |error: hyper::Error| {
            let failed = watch.as_ref().and_then(|watch| watch.failed());
            failed.unwrap_or_else(|| broken(&error.to_string()))
        };
        let response = answer.map_err(why)?;
        self.open = Some(sender);
        Ok(response)
    }

    /// The open connection when it can still be used, or a new one.
    async fn sender(&mut self) -> Result<SendRequest<Body>> {
        if let Some(mut sender) = self.open.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<SendRequest<Body>> {
        let target = &self.target;
        let dial = timeout(target.connect_max, TcpStream::connect((target.host.as_str(), target.port)));
        let stream = match dial.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(unreachable(target, &error.to_string())),
            Err(_) => return Err(unreachable(target, "it did not answer in time")),
        };
        // Without it a small request waits for the acknowledgement of the one before.
        stream.set_nodelay(true).map_err(|error| unreachable(target, &error.to_string()))?;
        let (sender, connection) = handshake(TokioIo::new(socket::Socket::new(stream)))
            .await
            .map_err(|error| unreachable(target, &error.to_string()))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the hub ended");
            }
        });
        Ok(sender)
    }
}

/// What comes of a request; `None` when nothing does for so long. Time in which its body goes out, or
/// waits for whoever makes it, is not the hub's.
async fn patiently<T>(sent: impl Future<Output = T>, watch: Option<&Watch>, patience: Duration) -> Option<T> {
    let mut sent = std::pin::pin!(sent);
    loop {
        let before = watch.map(Watch::moved);
        match timeout(patience, &mut sent).await {
            Ok(answer) => return Some(answer),
            Err(_) if watch.is_some_and(|watch| watch.waits() || before != Some(watch.moved())) => {}
            Err(_) => return None,
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    match timeout(ANSWER_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(broken(&error.to_string())),
        Err(_) => Err(broken("the answer stopped half way")),
    }
}

/// The refusal that a body holds; by status when it is not one of ours.
fn refusal(status: StatusCode, body: &[u8]) -> Failure {
    if let Ok(problem) = serde_json::from_slice::<Problem>(body) {
        return problem.into();
    }
    let code = match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::Forbidden,
        404 | 405 => Code::NotFound,
        409 | 412 => Code::Conflict,
        413 => Code::TooLarge,
        429 => Code::RateLimited,
        400..=499 => Code::InvalidArgument,
        502..=504 => Code::HubUnreachable,
        _ => Code::Internal,
    };
    Refusal::new(code, format!("The hub answered {status} without saying more."))
        .hint("Check that CORTEX_HUB names a Cortex hub of this version.")
        .into()
}

fn unreachable(target: &Target, why: &str) -> Failure {
    Refusal::new(Code::HubUnreachable, format!("The hub at {} cannot be reached: {why}.", target.url()))
        .into()
}

/// After something was sent: the hub may have done it.
fn broken(why: &str) -> Failure {
    Refusal::new(Code::HubUnreachable, format!("The connection to the hub broke: {why}."))
        .detail(SENT, "true")
        .into()
}

fn not_our_answer(why: &str) -> Failure {
    Refusal::new(Code::VersionUnsupported, format!("The hub's answer cannot be read: {why}."))
        .hint("Check that CORTEX_HUB names a Cortex hub, and install the same version of `cortex` here.")
        .into()
}

fn internal(why: String) -> Failure {
    Refusal::new(Code::Internal, why).into()
}
