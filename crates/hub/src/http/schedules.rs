//! `/api/v1/pool/schedules` and `/api/v1/pool/pauses`.

use axum::Json;
use axum::extract::{Path, State};
use cortex_core::name::{Name, printable};
use cortex_core::pool::Work;
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::schedule::{Missed, Schedule};
use cortex_wire::http::{Page, PauseRequest, PauseView, SchedulePatch, ScheduleRequest, ScheduleView};
use http::StatusCode;

use crate::http::extract::JsonBody;
use crate::http::problem::{Failure, invalid};
use crate::http::view::time;
use crate::http::{Api, task_view};
use crate::service::Caller;
use crate::service::pool::{NewSchedule, Submit};

/// Schedules that the caller sees, by name.
#[utoipa::path(get, path = "/api/v1/pool/schedules", tag = "pool",
    responses((status = 200, body = Page<ScheduleView>)))]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
) -> Result<Json<Page<ScheduleView>>, Failure> {
    let items = api.pool.schedules(&caller).await?.iter().map(shown).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Makes a schedule.
#[utoipa::path(post, path = "/api/v1/pool/schedules", tag = "pool", request_body = ScheduleRequest,
    responses((status = 201, body = ScheduleView)))]
pub(super) async fn add(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<ScheduleRequest>,
) -> Result<(StatusCode, Json<ScheduleView>), Failure> {
    let missed = request.missed.as_deref().unwrap_or(Missed::default().as_str());
    let missed = Missed::parse(missed).ok_or_else(|| {
        invalid(format!("`missed` is `{}`; it is `once` or `skip`.", printable(missed, 80)))
    })?;
    let Submit { spec, priority, key, traceparent: _, due_at } = task_view::submit(request.task, None)?;
    if key.is_some() || due_at.is_some() {
        return Err(invalid(
            "The tasks of a schedule have keys and times of their own: leave `key` and `not_before` out.",
        ));
    }
    let new = NewSchedule {
        name: Name::parse(&request.name)?,
        cron: request.cron,
        zone: request.zone.unwrap_or_else(|| "UTC".to_owned()),
        missed,
        spec,
        priority,
    };
    let schedule = api.pool.add_schedule(&caller, new).await?;
    Ok((StatusCode::CREATED, Json(shown(&schedule))))
}

/// Switches a schedule on or off; by its name or id.
#[utoipa::path(patch, path = "/api/v1/pool/schedules/{schedule}", tag = "pool",
    params(("schedule" = String, Path)), request_body = SchedulePatch,
    responses((status = 200, body = ScheduleView)))]
pub(super) async fn switch(
    State(api): State<Api>,
    caller: Caller,
    Path(named): Path<String>,
    JsonBody(patch): JsonBody<SchedulePatch>,
) -> Result<Json<ScheduleView>, Failure> {
    Ok(Json(shown(&api.pool.switch_schedule(&caller, &named, patch.on).await?)))
}

/// Removes a schedule; by its name or id. Its tasks stay.
#[utoipa::path(delete, path = "/api/v1/pool/schedules/{schedule}", tag = "pool",
    params(("schedule" = String, Path)), responses((status = 204)))]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Path(named): Path<String>,
) -> Result<StatusCode, Failure> {
    api.pool.remove_schedule(&caller, &named).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Parts of the pool that stand still.
#[utoipa::path(get, path = "/api/v1/pool/pauses", tag = "pool",
    responses((status = 200, body = Page<PauseView>)))]
pub(super) async fn pauses(State(api): State<Api>, caller: Caller) -> Result<Json<Page<PauseView>>, Failure> {
    let items = api.pool.pauses(&caller).iter().map(|pause| paused(&api, pause)).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

/// Lets a part of the pool stand still: nothing new is handed out there.
#[utoipa::path(post, path = "/api/v1/pool/pauses", tag = "pool", request_body = PauseRequest,
    responses((status = 200, body = PauseView)))]
pub(super) async fn pause(
    State(api): State<Api>,
    caller: Caller,
    JsonBody(request): JsonBody<PauseRequest>,
) -> Result<Json<PauseView>, Failure> {
    let part = api.pool.part(&caller, &request.part)?;
    let pause = api.pool.pause(&caller, part, request.message, request.drain_ms).await?;
    Ok(Json(paused(&api, &pause)))
}

/// Lets a part of the pool go on.
#[utoipa::path(delete, path = "/api/v1/pool/pauses/{part}", tag = "pool",
    params(("part" = String, Path)), responses((status = 204)))]
pub(super) async fn resume(
    State(api): State<Api>,
    caller: Caller,
    Path(part): Path<String>,
) -> Result<StatusCode, Failure> {
    let part = api.pool.part(&caller, &part)?;
    api.pool.resume(&caller, part).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(schedule: &Schedule) -> ScheduleView {
    let argv = match &schedule.spec.work {
        Work::Command(run) => run.argv.clone(),
        Work::Payload { .. } => Vec::new(),
    };
    ScheduleView {
        id: schedule.id.to_string(),
        name: schedule.name.to_string(),
        cron: schedule.cron.clone(),
        zone: schedule.zone.clone(),
        missed: schedule.missed.as_str().to_owned(),
        on: schedule.is_on,
        next_at: schedule.next_at.map(time),
        last_at: schedule.last_at.map(time),
        caller: schedule.caller.clone(),
        argv,
        kind: schedule.spec.work.kind().as_str().to_owned(),
        selector: schedule.spec.selector.to_string(),
        priority: schedule.priority.get(),
        created_at: time(schedule.created_at),
    }
}

fn paused(api: &Api, pause: &Pause) -> PauseView {
    let node = match &pause.part {
        Part::Node(node) => api.context.directory.node(*node).map(|node| node.name.to_string()),
        Part::Label(..) | Part::Kind(_) => None,
    };
    PauseView {
        part: pause.part.to_string(),
        node,
        by: pause.by.clone(),
        since: time(pause.since),
        message: pause.message.clone(),
        drained_at: pause.drained_at.map(time),
    }
}
