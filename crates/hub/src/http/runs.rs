//! `/api/v1/runs`: start, list, show, cancel, standard input. Output is in `output`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cortex_core::id::{NodeId, RunId};
use cortex_core::limits::{self, IDEMPOTENCY_KEY_BYTES_MAX};
use cortex_core::name::printable;
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::run::{Run, RunSpec, RunState};
use cortex_core::{Code, Refusal};
use cortex_store::RunFilter;
use cortex_wire::error::Problem;
use cortex_wire::http::{InputTaken, Page, RunCancel, RunRefused, RunRequest, RunView, RunsAccepted};
use futures::future::Either;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use crate::http::extract::{Args, JsonBody, RawBody, page_limit, parse, path_id};
use crate::http::guard::RequestId;
use crate::http::problem::{Failure, invalid};
use crate::http::run_stream::{self, Wanted};
use crate::http::shut_out::until_shut_out;
use crate::http::{Api, view};
use crate::service::runs::{Begun, Leave, StartRuns};
use crate::service::standing::Place;
use crate::service::{Caller, targets};

/// Which runs to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListArgs {
    /// Only of this node, by name or id.
    node: Option<String>,
    /// Only in one of these states, separated by commas.
    state: Option<String>,
    /// At most so many; 100 when missing.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Where the bytes of standard input belong.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct InputArgs {
    /// Of the first byte of the body in all of standard input.
    offset: u64,
    /// Nothing comes after this body.
    eof: bool,
}

/// A target as it was named, found or not.
type Target = (String, Result<Arc<Node>, Refusal>);

/// Runs, newest first.
#[utoipa::path(get, path = "/api/v1/runs", tag = "runs", params(ListArgs),
    responses((status = 200, body = Page<RunView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<ListArgs>,
) -> Result<Json<Page<RunView>>, Failure> {
    let limit = page_limit(args.limit)?;
    let (runs, next) = api.runs.list(&caller, filter(&api, &caller, &args)?, limit).await?;
    let next_cursor = next.map(|next| next.to_string());
    let names = names(&api, runs.iter().map(|run| run.node)).await?;
    let items = runs.iter().map(|run| view::run(run, &names[&run.node])).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// Starts a command on one or many nodes.
///
/// With `Accept: application/x-ndjson` the answer is a stream of `RunEvent` lines; leaving it leaves the
/// runs alone, and nodes that `parallel` still holds back are not started.
#[utoipa::path(post, path = "/api/v1/runs", tag = "runs", request_body = RunRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key on the same node is the same run.")),
    responses((status = 202, body = RunsAccepted), (status = 200, description = "NDJSON of RunEvent.")))]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    JsonBody(request): JsonBody<RunRequest>,
) -> Result<Response, Failure> {
    let lines = run_stream::wants_lines(&headers);
    if request.parallel == Some(0) {
        return Err(invalid("`parallel` must be above 0."));
    }
    if request.parallel.is_some() && !lines {
        let refusal = Refusal::new(Code::InvalidArgument, "`parallel` needs an answer that is a stream.");
        return Err(refusal.hint("Send `Accept: application/x-ndjson`, or leave `parallel` out.").into());
    }
    let targets = targets_of(&api, &caller, &request)?;
    let parallel = request.parallel;
    let leave = request.ask.clone().map_or(Leave::Policy, Leave::Ask);
    let order = Order {
        leave,
        spec: spec(request)?,
        key: idempotency_key(&headers)?,
        traceparent: traceparent(&headers),
        caller,
        request_id: id.0,
    };
    if lines {
        return Ok(stream_runs(api, targets, order, parallel).await);
    }
    accept_runs(&api, targets, order).await
}

/// One run.
#[utoipa::path(get, path = "/api/v1/runs/{id}", tag = "runs", params(("id" = String, Path)),
    responses((status = 200, body = RunView)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RunView>, Failure> {
    let run = api.runs.get(&caller, path_id("run", &id)?).await?;
    Ok(Json(shown(&api, &run).await?))
}

/// Asks for the end of a run. It has ended when its state says so.
#[utoipa::path(post, path = "/api/v1/runs/{id}/cancel", tag = "runs", params(("id" = String, Path)),
    request_body = RunCancel, responses((status = 202, body = RunView)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(cancel): JsonBody<RunCancel>,
) -> Result<Response, Failure> {
    let grace_ms = cancel.grace_ms.unwrap_or(limits::KILL_GRACE_MS);
    if grace_ms > limits::KILL_GRACE_MS_MAX {
        return Err(invalid(format!("`grace_ms` must be at most {}.", limits::KILL_GRACE_MS_MAX)));
    }
    let run = api.runs.cancel(&caller, path_id("run", &id)?, grace_ms).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&api, &run).await?)).into_response())
}

/// Starts the command of a run once more, on the same node.
///
/// Arguments, directory, variables, time limit and whether it has standard input are those of the
/// first run; the bytes of its standard input are not kept. The policy is that of today.
#[utoipa::path(post, path = "/api/v1/runs/{id}/rerun", tag = "runs",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "The same key on the same node is the same run.")),
    responses((status = 202, body = RunsAccepted)))]
pub(super) async fn rerun(
    State(api): State<Api>,
    caller: Caller,
    Extension(id): Extension<RequestId>,
    Path(run): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let run = api.runs.get(&caller, path_id("run", &run)?).await?;
    let node = targets::find(&api.context.directory, &caller, &run.node.to_string())?;
    let order = Order {
        leave: Leave::Policy,
        spec: run.spec,
        key: idempotency_key(&headers)?,
        traceparent: traceparent(&headers),
        caller,
        request_id: id.0,
    };
    accept_runs(&api, vec![(node.name.to_string(), Ok(node))], order).await
}

/// Standard input of a run that was started with `stdin`. The answer comes when its node has it.
#[utoipa::path(post, path = "/api/v1/runs/{id}/stdin", tag = "runs", params(("id" = String, Path), InputArgs),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = InputTaken)))]
pub(super) async fn input(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Args(args): Args<InputArgs>,
    RawBody(data): RawBody,
) -> Result<Json<InputTaken>, Failure> {
    let run = path_id("run", &id)?;
    tokio::select! {
        biased;
        refusal = api.standing(&caller, Right::RunsControl, Place::Somewhere).ended() => Err(refusal.into()),
        upto = api.runs.input(&caller, run, args.offset, data, args.eof) => Ok(Json(InputTaken { upto: upto? })),
    }
}

/// The name of a run's node; the id when nothing is known of it.
pub(super) async fn node_name(api: &Api, run: &Run) -> Result<String, Failure> {
    let mut names = names(api, [run.node]).await?;
    Ok(names.remove(&run.node).unwrap_or_default())
}

/// A request to start runs, without its targets.
#[derive(Clone)]
struct Order {
    leave: Leave,
    spec: RunSpec,
    key: Option<String>,
    traceparent: Option<String>,
    caller: Caller,
    request_id: String,
}

impl Order {
    async fn start(&self, api: &Api, nodes: Vec<Arc<Node>>) -> Vec<(Arc<Node>, Result<Begun, Refusal>)> {
        if nodes.is_empty() {
            return Vec::new();
        }
        let (spec, key, traceparent) = (self.spec.clone(), self.key.clone(), self.traceparent.clone());
        let request = StartRuns { nodes, spec, key, traceparent };
        let started = api.runs.begin(&self.caller, request, self.leave.clone()).await;
        for (_, result) in &started {
            match result {
                Ok(Begun::Run(_)) => api.metrics.run_start(true),
                // It is counted with its answer.
                Ok(Begun::Asked(_)) => {}
                Err(_) => api.metrics.run_start(false),
            }
        }
        started
    }
}

async fn accept_runs(api: &Api, targets: Vec<Target>, order: Order) -> Result<Response, Failure> {
    let alone = targets.len() == 1;
    let (nodes, missing) = split(targets);
    let mut answer = RunsAccepted { runs: Vec::new(), refused: Vec::new() };
    let refuse = |node: String, refusal: &Refusal| RunRefused { node, error: Problem::new(refusal, "") };
    let mut first = None;
    for (node, refusal) in missing {
        answer.refused.push(refuse(node, &refusal));
        first.get_or_insert(refusal);
    }
    for (node, result) in order.start(api, nodes).await {
        let run = result.and_then(|begun| match begun {
            Begun::Run(run) => Ok(*run),
            Begun::Asked(consent) => Err(view::consent_required(&consent, node.name.as_str())),
        });
        match run {
            Ok(run) => answer.runs.push(view::run(&run, node.name.as_str())),
            Err(refusal) => {
                answer.refused.push(refuse(node.name.to_string(), &refusal));
                first.get_or_insert(refusal);
            }
        }
    }
    if let (true, Some(refusal)) = (alone, first) {
        return Err(refusal.into());
    }
    let location = answer.runs.first().map(|run| format!("/api/v1/runs/{}", run.id));
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    if let Some(value) = location.and_then(|path| header::HeaderValue::from_str(&path).ok()) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

async fn stream_runs(api: Api, targets: Vec<Target>, order: Order, parallel: Option<usize>) -> Response {
    let shutdown = api.shutdown.clone().cancelled_owned();
    let (open, request_id) =
        (api.standing(&order.caller, Right::RunsStart, Place::Somewhere), order.request_id.clone());
    let (nodes, missing) = split(targets);
    let refusals: Vec<_> =
        missing.iter().map(|(node, refusal)| run_stream::refused(node, refusal, &order.request_id)).collect();
    let refusals = stream::iter(refusals);
    let runs = match parallel {
        Some(parallel) => {
            let one_by_one = stream::iter(nodes).map(move |node| {
                let (api, order) = (api.clone(), order.clone());
                let begin = async move {
                    let started = order.start(&api, vec![node]).await;
                    told(&api, &order.caller, started, &order.request_id)
                };
                stream::once(begin).flatten().boxed()
            });
            Either::Left(one_by_one.flatten_unordered(parallel))
        }
        None => {
            let started = order.start(&api, nodes).await;
            Either::Right(told(&api, &order.caller, started, &order.request_id))
        }
    };
    let lines = until_shut_out(open, refusals.chain(runs), move |refusal| {
        vec![run_stream::refused("", &refusal, &request_id)]
    });
    run_stream::answer(lines.take_until(shutdown))
}

/// The lines of started runs: which were accepted, then all of them as they come.
fn told(
    api: &Api,
    caller: &Caller,
    started: Vec<(Arc<Node>, Result<Begun, Refusal>)>,
    request_id: &str,
) -> impl futures::Stream<Item = cortex_wire::http::RunEvent> + Send + use<> {
    let mut heads = Vec::new();
    let mut bodies = Vec::new();
    for (node, result) in started {
        // What comes of it is for who may do this on that node, whatever else the caller may.
        let open = |right| api.standing(caller, right, Place::On(node.id));
        let (shown, of) = (node.name.to_string(), request_id.to_owned());
        let shut = move |refusal| vec![run_stream::refused(&shown, &refusal, &of)];
        match result {
            Ok(Begun::Asked(consent)) => {
                heads.push(run_stream::asked(&consent, node.name.as_str()));
                let (name, id) = (node.name.to_string(), request_id.to_owned());
                let (runs, consents, caller) = (api.runs.clone(), api.consents.clone(), caller.clone());
                let lines = run_stream::wait(runs, consents, caller, consent.id, name, id);
                bodies.push(until_shut_out(open(Right::RunsStart), lines, shut).boxed());
            }
            Ok(Begun::Run(run)) => {
                heads.push(run_stream::accepted(&run, node.name.as_str()));
                let (name, id) = (node.name.to_string(), request_id.to_owned());
                let (runs, caller) = (api.runs.clone(), caller.clone());
                let lines = run_stream::follow(runs, caller, run.id, name, Wanted::default(), id);
                bodies.push(until_shut_out(open(Right::RunsRead), lines, shut).boxed());
            }
            Err(refusal) => heads.push(run_stream::refused(node.name.as_str(), &refusal, request_id)),
        }
    }
    stream::iter(heads).chain(stream::iter(bodies).flatten_unordered(None))
}

fn split(targets: Vec<Target>) -> (Vec<Arc<Node>>, Vec<(String, Refusal)>) {
    let mut nodes = Vec::new();
    let mut missing = Vec::new();
    for (text, target) in targets {
        match target {
            Ok(node) => nodes.push(node),
            Err(refusal) => missing.push((text, refusal)),
        }
    }
    (nodes, missing)
}

fn targets_of(api: &Api, caller: &Caller, request: &RunRequest) -> Result<Vec<Target>, Failure> {
    let mut targets = targets::named(&api.context.directory, caller, &request.nodes);
    if let Some(selector) = &request.selector {
        if !request.nodes.is_empty() {
            return Err(invalid("`nodes` and `selector` exclude each other."));
        }
        let online = |node: &Node| api.mesh.presence(node.id).is_some();
        let found = targets::selected(&api.context.directory, caller, Right::RunsStart, selector, online)?;
        targets = found.into_iter().map(|node| (node.name.to_string(), Ok(node))).collect();
    }
    targets::check_count(targets.len())?;
    Ok(targets)
}

fn spec(request: RunRequest) -> Result<RunSpec, Failure> {
    let spec = RunSpec {
        argv: request.argv,
        cwd: request.cwd,
        env: request.env.into_iter().collect(),
        timeout_ms: request.timeout_ms,
        stdin: request.stdin,
    };
    spec.check()?;
    Ok(spec)
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text.is_empty() || text.len() > IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(invalid(format!(
            "`Idempotency-Key` must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters."
        )));
    }
    Ok(Some(text.to_owned()))
}

/// The W3C header when it has its form; a wrong one is left out, as the standard says.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let hex = text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit());
    (hex && lengths == [2, 32, 16, 2]).then(|| text.to_owned())
}

fn filter(api: &Api, caller: &Caller, args: &ListArgs) -> Result<RunFilter, Failure> {
    let node = args.node.as_deref().map(|text| targets::id_of(&api.context.directory, caller, text));
    let states = args.state.as_deref().unwrap_or_default().split(',').filter(|part| !part.is_empty());
    let states = states.map(|text| {
        RunState::parse(text.trim()).ok_or_else(|| {
            invalid(format!("`state` is `{}`, which is no state of a run.", printable(text, 80)))
        })
    });
    Ok(RunFilter {
        node: node.transpose()?,
        states: states.collect::<Result<_, _>>()?,
        before: args.cursor.as_deref().map(|text| parse::<RunId>("cursor", text)).transpose()?,
    })
}

async fn shown(api: &Api, run: &Run) -> Result<RunView, Failure> {
    Ok(view::run(run, &node_name(api, run).await?))
}

/// The names of these nodes: from memory, and of removed ones by one look into the store.
pub(super) async fn names(
    api: &Api,
    nodes: impl IntoIterator<Item = NodeId>,
) -> Result<BTreeMap<NodeId, String>, Failure> {
    let mut names = BTreeMap::new();
    let mut removed = Vec::new();
    for id in nodes {
        match api.context.directory.node(id) {
            Some(node) => drop(names.insert(id, node.name.to_string())),
            None => removed.push(id),
        }
    }
    removed.sort();
    removed.dedup();
    if removed.is_empty() {
        return Ok(names);
    }
    let found = api.context.view(move |view| {
        removed.into_iter().map(|id| Ok((id, view.node(id)?.map(|node| node.name.to_string())))).collect()
    });
    let found: Vec<(NodeId, Option<String>)> = found.await?;
    names.extend(found.into_iter().map(|(id, name)| (id, name.unwrap_or_else(|| id.to_string()))));
    Ok(names)
}
