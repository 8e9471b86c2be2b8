//! `/api/v1/events`: server-sent events with resume.

use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use cortex_core::Refusal;
use cortex_core::event::EventKind;
use cortex_core::id::Seq;
use cortex_core::name::printable;
use cortex_core::rights::Right;
use cortex_core::subscribers::Filter;
use cortex_wire::error::{ErrorBody, Problem};
use cortex_wire::http::{EventGap, EventView};
use futures::{StreamExt as _, stream};
use http::HeaderMap;
use serde::{Deserialize, Serialize};

use crate::http::extract::{Args, parse};
use crate::http::guard::RequestId;
use crate::http::problem::{Failure, invalid};
use crate::http::server::Connection;
use crate::http::shut_out::until_shut_out;
use crate::http::{Api, view};
use crate::service::events::{Feed, Followed};
use crate::service::standing::Place;
use crate::service::{Caller, targets};

/// Time between two comments on a silent stream, so that proxies keep it and dead peers are seen.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events to follow.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowArgs {
    /// Begin after this number; 0 is the beginning of the log. `Last-Event-ID` goes before it.
    after: Option<String>,
    /// Names or ids of nodes, separated by commas.
    node: Option<String>,
    /// Ids of runs, separated by commas.
    run: Option<String>,
    /// Kinds such as `run.ended`, separated by commas.
    kind: Option<String>,
}

/// Events as they happen, after `Last-Event-ID` or `after`, or from now on. `id:` is the number,
/// `event:` the kind; `event: gap` says that numbers were trimmed.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(FollowArgs),
    responses((status = 200, body = EventView, content_type = "text/event-stream")))]
pub(super) async fn follow(
    State(api): State<Api>,
    Extension(id): Extension<RequestId>,
    caller: Caller,
    connection: Option<Extension<Connection>>,
    headers: HeaderMap,
    Args(args): Args<FollowArgs>,
) -> Result<Response, Failure> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let after = match last.or(args.after.clone()).filter(|text| !text.is_empty()) {
        Some(text) => Some(Seq(parse("Last-Event-ID", &text)?)),
        None => None,
    };
    let pruned = connection.map(|Extension(connection)| connection.0).unwrap_or_default();
    let feed = api.events.follow(&caller, after, filter(&api, &caller, &args)?, pruned)?;
    let of = id.clone();
    let events = stream::unfold(Some(feed), move |feed| next(feed, of.clone()));
    let open = api.standing(&caller, Right::EventsRead, Place::Somewhere);
    let events = until_shut_out(open, events, move |refusal| vec![Ok(failed(&refusal, &id))]);
    let events = events.take_until(api.shutdown.clone().cancelled_owned());
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
    std::future::ready(Ok(sse.into_response())).await
}

type Next = Option<(Result<sse::Event, Infallible>, Option<Feed>)>;

/// The next event; after a failure of the log the stream ends, and the client resumes.
async fn next(feed: Option<Feed>, id: RequestId) -> Next {
    let mut feed = feed?;
    match feed.next().await {
        Ok(Some(Followed::Event(seq, event))) => {
            let shape = sse::Event::default().id(seq.to_string()).event(event.kind.as_str());
            Some((Ok(data(shape, &view::event(seq, &event))), Some(feed)))
        }
        Ok(Some(Followed::Gap { from, to })) => {
            let shape = sse::Event::default().id(to.0.saturating_sub(1).to_string()).event("gap");
            Some((Ok(data(shape, &EventGap { from: from.0, to: to.0 })), Some(feed)))
        }
        Ok(None) => None,
        Err(refusal) => Some((Ok(failed(&refusal, &id)), None)),
    }
}

fn failed(refusal: &Refusal, id: &RequestId) -> sse::Event {
    let body = ErrorBody { error: Problem::new(refusal, id.0.as_str()) };
    data(sse::Event::default().event("error"), &body)
}

fn data<T: Serialize>(event: sse::Event, body: &T) -> sse::Event {
    event.data(serde_json::to_string(body).unwrap_or_default())
}

fn filter(api: &Api, caller: &Caller, args: &FollowArgs) -> Result<Filter, Failure> {
    let nodes = parts(args.node.as_deref()).map(|text| targets::id_of(&api.context.directory, caller, text));
    let kinds = parts(args.kind.as_deref()).map(|text| {
        EventKind::parse(text).ok_or_else(|| {
            invalid(format!("`kind` is `{}`, which is no kind of event.", printable(text, 80)))
        })
    });
    Ok(Filter {
        nodes: nodes.collect::<Result<_, _>>()?,
        runs: parts(args.run.as_deref()).map(|text| parse("run", text)).collect::<Result<_, _>>()?,
        kinds: kinds.collect::<Result<_, _>>()?,
    })
}

fn parts(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty())
}
