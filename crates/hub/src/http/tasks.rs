//! `/api/v1/pool/tasks`: submit, list, look at, explain, steer.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use cortex_core::limits::CLAIM_WAIT_MS_MAX;
use cortex_core::name::printable;
use cortex_core::pool::desk::Submitted;
use cortex_core::pool::{Priority, Task, TaskState};
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use cortex_store::TaskFilter;
use cortex_wire::error::Problem;
use cortex_wire::http::{
    Page, TaskAnswer, TaskExplained, TaskPriority, TaskRequest, TaskStory, TaskSubmission, TaskView,
    TasksSubmitted,
};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use tokio::time::Instant;

use crate::http::extract::{Args, JsonBody, page_limit, parse, path_id};
use crate::http::guard::RequestId;
use crate::http::problem::{Failure, invalid};
use crate::http::runs::{idempotency_key, names, traceparent};
use crate::http::{Api, task_view};
use crate::service::Caller;
use crate::service::pool::{Story, Submit, owner_of};
use crate::service::standing::Place;

/// Which tasks to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListArgs {
    /// Only in one of these states, separated by commas.
    state: Option<String>,
    /// Only with this label, `KEY=VALUE`.
    label: Option<String>,
    /// Only one's own.
    own: bool,
    /// At most so many; 100 when missing.
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// How long to wait for news of a task.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct GetArgs {
    /// Wait at most so many seconds, up to 50, until it has ended or has more than `after` steps.
    wait_s: Option<u64>,
    /// Steps of its timeline that are known already; all when missing, so that its end is waited for.
    after: Option<u32>,
}

/// Tasks, newest first: one's own, and with `tasks:read` on all nodes those of others.
#[utoipa::path(get, path = "/api/v1/pool/tasks", tag = "pool", params(ListArgs),
    responses((status = 200, body = Page<TaskView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Args(args): Args<ListArgs>,
) -> Result<Json<Page<TaskView>>, Failure> {
    let limit = page_limit(args.limit)?;
    let (tasks, next) = api.pool.list(&caller, filter(&caller, &args)?, limit).await?;
    let next_cursor = next.map(|next| next.to_string());
    let names = names(&api, tasks.iter().flat_map(task_view::nodes)).await?;
    let items = tasks.iter().map(|task| task_view::task(task, &names)).collect();
    Ok(Json(Page { items, next_cursor }))
}

/// Submits one task, or up to 1000 in an array, in one commit.
///
/// One is answered 202 with the task, or 200 when an earlier submission with its key made it. Many are
/// answered 202 with one answer for each, in their order: what is wrong with one does not hold up the
/// others.
#[utoipa::path(post, path = "/api/v1/pool/tasks", tag = "pool", request_body = TaskSubmission,
    params(("Idempotency-Key" = Option<String>, Header, description = "Of a single task: the same key is the same task. The same as its `key`.")),
    responses((status = 202, body = TaskView), (status = 200, body = TaskView)))]
pub(super) async fn submit(
    State(api): State<Api>,
    caller: Caller,
    Extension(id): Extension<RequestId>,
    headers: HeaderMap,
    JsonBody(submission): JsonBody<TaskSubmission>,
) -> Result<Response, Failure> {
    let (key, traceparent) = (idempotency_key(&headers)?, traceparent(&headers));
    match submission {
        TaskSubmission::One(mut request) => {
            if key.is_some() && request.key.is_some() && key != request.key {
                return Err(invalid("`key` and the header `Idempotency-Key` differ."));
            }
            request.key = request.key.or(key);
            let task = task_view::submit(*request, traceparent)?;
            let mut answers = api.pool.submit(&caller, vec![task]).await?;
            let submitted = answers.pop().ok_or_else(unanswered)??;
            one(&api, &submitted).await
        }
        TaskSubmission::Many(_) if key.is_some() => {
            Err(Refusal::new(Code::InvalidArgument, "The header `Idempotency-Key` is for a single task.")
                .hint("Give each task of the array its own `key`.")
                .into())
        }
        TaskSubmission::Many(requests) => many(&api, &caller, requests, traceparent, &id).await,
    }
}

async fn one(api: &Api, submitted: &Submitted) -> Result<Response, Failure> {
    let (status, task) = match submitted {
        Submitted::New(task) => (StatusCode::ACCEPTED, task),
        Submitted::Known(task) => (StatusCode::OK, task),
    };
    let mut response = (status, Json(shown(api, task).await?)).into_response();
    if let Ok(value) = header::HeaderValue::from_str(&format!("/api/v1/pool/tasks/{}", task.id)) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

async fn many(
    api: &Api,
    caller: &Caller,
    requests: Vec<TaskRequest>,
    traceparent: Option<String>,
    id: &RequestId,
) -> Result<Response, Failure> {
    let read = requests.into_iter().map(|request| task_view::submit(request, traceparent.clone()));
    let read: Vec<Result<Submit, Refusal>> = read.collect();
    let good: Vec<Submit> = read.iter().filter_map(|task| task.as_ref().ok().cloned()).collect();
    // An empty array, or one that is too long, is refused there.
    let answers =
        if good.is_empty() && !read.is_empty() { Vec::new() } else { api.pool.submit(caller, good).await? };
    let mut answers = answers.into_iter();
    let all: Vec<Result<Submitted, Refusal>> =
        read.into_iter().map(|task| task.and_then(|_| answers.next().ok_or_else(unanswered)?)).collect();
    let tasks = all.iter().flatten().map(|submitted| match submitted {
        Submitted::New(task) | Submitted::Known(task) => task,
    });
    let names = names(api, tasks.flat_map(task_view::nodes)).await?;
    let items = all.iter().map(|answer| match answer {
        Ok(Submitted::New(task)) => answered(task_view::task(task, &names), false),
        Ok(Submitted::Known(task)) => answered(task_view::task(task, &names), true),
        Err(refusal) => TaskAnswer { error: Some(Problem::new(refusal, &id.0)), ..TaskAnswer::default() },
    });
    Ok((StatusCode::ACCEPTED, Json(TasksSubmitted { items: items.collect() })).into_response())
}

const fn answered(task: TaskView, known: bool) -> TaskAnswer {
    TaskAnswer { task: Some(task), known, error: None }
}

fn unanswered() -> Refusal {
    Refusal::new(Code::Internal, "A task was not answered.")
}

/// One task with its timeline and what came too late. With `wait_s` the answer waits for news.
#[utoipa::path(get, path = "/api/v1/pool/tasks/{id}", tag = "pool", params(("id" = String, Path), GetArgs),
    responses((status = 200, body = TaskStory)))]
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    Args(args): Args<GetArgs>,
) -> Result<Json<TaskStory>, Failure> {
    let id = path_id("task", &id)?;
    let Some(wait_s) = args.wait_s else {
        return Ok(Json(told(&api, &api.pool.story(&caller, id).await?).await?));
    };
    let until = Instant::now() + wait(wait_s)?;
    let story = tokio::select! {
        biased;
        // The rest is what `wait_s=0` would have told.
        () = api.shutdown.cancelled() => api.pool.story(&caller, id).await?,
        refusal = reading(&api, &caller).ended() => return Err(refusal.into()),
        story = api.pool.story_after(&caller, id, args.after.unwrap_or(u32::MAX), until) => story?,
    };
    Ok(Json(told(&api, &story).await?))
}

/// Whoever submits may look at what it has submitted.
fn reading(api: &Api, caller: &Caller) -> crate::service::standing::Standing {
    let reads = caller.rights_anywhere().has(Right::TasksRead);
    api.standing(caller, if reads { Right::TasksRead } else { Right::TasksSubmit }, Place::Somewhere)
}

/// A time to wait, in its bound.
pub(super) fn wait(wait_s: u64) -> Result<Duration, Failure> {
    let most = CLAIM_WAIT_MS_MAX / 1_000;
    if wait_s > most {
        return Err(invalid(format!("`wait_s` must be at most {most}.")));
    }
    Ok(Duration::from_secs(wait_s))
}

/// Why a task waits.
#[utoipa::path(get, path = "/api/v1/pool/tasks/{id}/explain", tag = "pool", params(("id" = String, Path)),
    responses((status = 200, body = TaskExplained)))]
pub(super) async fn explain(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<TaskExplained>, Failure> {
    let explained = api.pool.explain(&caller, path_id("task", &id)?).await?;
    Ok(Json(task_view::explained(&explained)))
}

/// Asks for the end of a task. One that somebody works on has ended when its state says so.
#[utoipa::path(post, path = "/api/v1/pool/tasks/{id}/cancel", tag = "pool", params(("id" = String, Path)),
    responses((status = 202, body = TaskView)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let task = api.pool.cancel(&caller, path_id("task", &id)?).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&api, &task).await?)).into_response())
}

/// Has a task that came to nothing tried again, from the start. One that waits since nodes have denied it
/// is offered to them again.
#[utoipa::path(post, path = "/api/v1/pool/tasks/{id}/retry", tag = "pool", params(("id" = String, Path)),
    responses((status = 202, body = TaskView)))]
pub(super) async fn retry(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let task = api.pool.retry(&caller, path_id("task", &id)?).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&api, &task).await?)).into_response())
}

/// Changes how soon a task is done.
#[utoipa::path(post, path = "/api/v1/pool/tasks/{id}/priority", tag = "pool", params(("id" = String, Path)),
    request_body = TaskPriority, responses((status = 200, body = TaskView)))]
pub(super) async fn priority(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<TaskPriority>,
) -> Result<Json<TaskView>, Failure> {
    let priority = Priority::new(body.priority)?;
    let task = api.pool.bump(&caller, path_id("task", &id)?, priority).await?;
    Ok(Json(shown(&api, &task).await?))
}

fn filter(caller: &Caller, args: &ListArgs) -> Result<TaskFilter, Failure> {
    let states = args.state.as_deref().unwrap_or_default().split(',').filter(|part| !part.is_empty());
    let states = states.map(|text| {
        TaskState::parse(text.trim()).ok_or_else(|| {
            invalid(format!("`state` is `{}`, which is no state of a task.", printable(text, 80)))
        })
    });
    let label = args.label.as_deref().map(|text| {
        let parts = text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        parts.ok_or_else(|| invalid("`label` must be KEY=VALUE."))
    });
    Ok(TaskFilter {
        states: states.collect::<Result<_, _>>()?,
        party: args.own.then(|| owner_of(caller).party()),
        label: label.transpose()?,
        schedule: None,
        before: args.cursor.as_deref().map(|text| parse("cursor", text)).transpose()?,
    })
}

pub(super) async fn shown(api: &Api, task: &Task) -> Result<TaskView, Failure> {
    Ok(task_view::task(task, &names(api, task_view::nodes(task)).await?))
}

async fn told(api: &Api, story: &Story) -> Result<TaskStory, Failure> {
    let names = names(api, task_view::nodes_of_story(story)).await?;
    Ok(task_view::story(story, &names, &api.context.directory))
}
