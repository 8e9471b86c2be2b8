//! `/api/v1/pool`: figures, and what workers that are no nodes do: claim, extend, report.

use axum::extract::{Path, State};
use axum::{Extension, Json};
use cortex_core::Refusal;
use cortex_core::id::{Attempt, TaskId};
use cortex_core::name::Name;
use cortex_core::pool::Kind;
use cortex_core::rights::Right;
use cortex_wire::error::Problem;
use cortex_wire::http::{
    ClaimRequest, Claimed, LeaseExtend, LeaseExtended, LeaseReport, PoolReport, PoolReportAnswer,
    PoolReportHow, PoolReported, PoolStats, TaskView,
};

use crate::http::extract::{JsonBody, path_id};
use crate::http::guard::RequestId;
use crate::http::problem::Failure;
use crate::http::tasks::{shown, wait};
use crate::http::{Api, task_view};
use crate::service::Caller;
use crate::service::pool::Report;
use crate::service::standing::Place;

/// The pool at a glance: tasks by state for who sees all tasks, and the nodes that one sees.
#[utoipa::path(get, path = "/api/v1/pool/stats", tag = "pool", responses((status = 200, body = PoolStats)))]
pub(super) async fn stats(State(api): State<Api>, caller: Caller) -> Result<Json<PoolStats>, Failure> {
    Ok(Json(task_view::stats(&api.pool.stats(&caller).await?)))
}

/// Claims payloads of some kinds, for a worker that is no node. With `wait_s` the answer waits for the
/// first of them.
///
/// A worker whose connection ends before it is answered has nothing: what it was about to get is given
/// back. An answer that is lost on its way is left to its lease.
#[utoipa::path(post, path = "/api/v1/pool/claims", tag = "pool", request_body = ClaimRequest,
    responses((status = 200, body = Claimed)))]
pub(super) async fn claim(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<ClaimRequest>,
) -> Result<Json<Claimed>, Failure> {
    let kinds = request.kinds.iter().map(|kind| Name::parse(kind).and_then(Kind::payload));
    let kinds = kinds.collect::<Result<Vec<_>, Refusal>>()?;
    let wait = wait(request.wait_s.unwrap_or(0))?;
    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
    let given = tokio::select! {
        biased;
        refusal = api.standing(&caller, Right::PoolWork, Place::Everywhere).ended() => return Err(refusal.into()),
        given = api.pool.claim(&caller, kinds, request.max.unwrap_or(1), wait_ms) => given?.take(),
        () = api.shutdown.cancelled() => Vec::new(),
    };
    Ok(Json(Claimed { items: given.iter().map(task_view::claimed).collect() }))
}

/// Up to 256 reports of a worker, in one commit. Each is answered on its own, in their order: one that is
/// refused does not hold up the others.
#[utoipa::path(post, path = "/api/v1/pool/reports", tag = "pool", request_body = Vec<PoolReport>,
    responses((status = 200, body = PoolReported)))]
pub(super) async fn reports(
    State(api): State<Api>,
    caller: Caller,
    Extension(id): Extension<RequestId>,
    JsonBody(reports): JsonBody<Vec<PoolReport>>,
) -> Result<Json<PoolReported>, Failure> {
    let reports = reports.into_iter().map(read).collect::<Result<Vec<_>, Failure>>()?;
    let answers = api.pool.reports(&caller, reports).await?;
    let items = answers.into_iter().map(|answer| match answer {
        Ok(task) => PoolReportAnswer { state: Some(task.state.as_str().to_owned()), error: None },
        Err(refusal) => PoolReportAnswer { state: None, error: Some(Problem::new(&refusal, &id.0)) },
    });
    Ok(Json(PoolReported { items: items.collect() }))
}

fn read(report: PoolReport) -> Result<(TaskId, Attempt, Report), Failure> {
    let (is_final, result) = (report.result.is_final, report.result);
    if is_final && report.how != PoolReportHow::Fail {
        return Err(crate::http::problem::invalid("`final` is for failures."));
    }
    let what = match report.how {
        PoolReportHow::Finish => Report::Done(task_view::report(result)?),
        PoolReportHow::Fail => Report::Failed(task_view::report(result)?, is_final),
        PoolReportHow::Release if result == LeaseReport::default() => Report::GivenBack,
        PoolReportHow::Release => {
            return Err(crate::http::problem::invalid("What is released has no result."));
        }
    };
    Ok((path_id("task", &report.id)?, Attempt(report.attempt), what))
}

/// The worker is still at it: the lease has its whole length again. Says whether somebody asks for the
/// end of the task. Best at a third of the lease. With `progress` it says how far it is: that is kept in
/// the place of what it said before, and an event tells of it, at most one in 5 s.
#[utoipa::path(post, path = "/api/v1/pool/leases/{id}/{attempt}/extend", tag = "pool",
    params(("id" = String, Path), ("attempt" = u64, Path)), request_body = LeaseExtend,
    responses((status = 200, body = LeaseExtended)))]
pub(super) async fn extend(
    State(api): State<Api>,
    caller: Caller,
    Path(lease): Path<(String, String)>,
    JsonBody(extend): JsonBody<LeaseExtend>,
) -> Result<Json<LeaseExtended>, Failure> {
    let (id, attempt) = named(&lease)?;
    let said = extend.progress.map(task_view::said);
    let cancel_requested = api.pool.extend(&caller, id, attempt, extend.lease_ms, said).await?;
    Ok(Json(LeaseExtended { id: id.to_string(), attempt: attempt.0, cancel_requested }))
}

/// The work is done. A report of an attempt that is over is refused `stale_attempt`, and kept beside the
/// task as evidence.
#[utoipa::path(post, path = "/api/v1/pool/leases/{id}/{attempt}/finish", tag = "pool",
    params(("id" = String, Path), ("attempt" = u64, Path)), request_body = LeaseReport,
    responses((status = 200, body = TaskView)))]
pub(super) async fn finish(
    State(api): State<Api>,
    caller: Caller,
    Path(lease): Path<(String, String)>,
    JsonBody(report): JsonBody<LeaseReport>,
) -> Result<Json<TaskView>, Failure> {
    if report.is_final {
        return Err(crate::http::problem::invalid("`final` is for failures."));
    }
    take(&api, &caller, &lease, Report::Done(task_view::report(report)?)).await
}

/// The work failed: it is tried again after its wait, unless that was its last attempt or `final` says
/// that it would not help.
#[utoipa::path(post, path = "/api/v1/pool/leases/{id}/{attempt}/fail", tag = "pool",
    params(("id" = String, Path), ("attempt" = u64, Path)), request_body = LeaseReport,
    responses((status = 200, body = TaskView)))]
pub(super) async fn fail(
    State(api): State<Api>,
    caller: Caller,
    Path(lease): Path<(String, String)>,
    JsonBody(report): JsonBody<LeaseReport>,
) -> Result<Json<TaskView>, Failure> {
    let is_final = report.is_final;
    take(&api, &caller, &lease, Report::Failed(task_view::report(report)?, is_final)).await
}

/// The worker gives the task back. That is no failed attempt.
#[utoipa::path(post, path = "/api/v1/pool/leases/{id}/{attempt}/release", tag = "pool",
    params(("id" = String, Path), ("attempt" = u64, Path)), responses((status = 200, body = TaskView)))]
pub(super) async fn release(
    State(api): State<Api>,
    caller: Caller,
    Path(lease): Path<(String, String)>,
) -> Result<Json<TaskView>, Failure> {
    take(&api, &caller, &lease, Report::GivenBack).await
}

async fn take(
    api: &Api,
    caller: &Caller,
    lease: &(String, String),
    report: Report,
) -> Result<Json<TaskView>, Failure> {
    let (id, attempt) = named(lease)?;
    let task = api.pool.report(caller, id, attempt, report).await?;
    Ok(Json(shown(api, &task).await?))
}

fn named(lease: &(String, String)) -> Result<(TaskId, Attempt), Failure> {
    let (id, attempt) = lease;
    Ok((path_id("task", id)?, Attempt(path_id("attempt", attempt)?)))
}
