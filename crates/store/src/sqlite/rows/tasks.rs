//! Tasks: what was submitted (`task_specs`, written once), what changes (`tasks`), their timelines,
//! late reports, and who waits for whom.

mod list;
mod related;

use std::sync::Arc;

use cortex_core::id::{Attempt, LaneId, TaskId};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::{
    Backoff, Concurrency, Decided, Holder, Lease, Owner, Progress, Said, Step, Task, TaskResult, TaskSpec,
    TaskState, Work,
};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, json, one, signed};
use super::lanes::{party_bytes, token_bytes};
use super::timeline;
use crate::{StoreError, WriteError, conflict};

pub(in super::super) use list::{due, ended, expiring, leased, list, next_due, next_expiry};
pub(in super::super) use related::{
    evidence, front, has_waiters, head, parked, put_evidence, remove, steps, waiting_for, working,
};

#[cfg(test)]
pub(super) use {list::queries as list_queries, related::queries as related_queries};

/// Both halves of a task, as [`decode`] takes them.
macro_rules! columns {
    () => {
        "tasks.id, length(tasks.timeline), tasks.lane, tasks.state, tasks.parked, tasks.attempt, tasks.tries, tasks.waits_for, \
         tasks.due_at, tasks.ready_at, tasks.expires_at, tasks.node, tasks.run, tasks.token, \
         tasks.lease_ms, tasks.leased_at, tasks.ended_at, tasks.cancelled_by, tasks.code, tasks.signal, \
         tasks.message, tasks.output, tasks.steps, tasks.progress, tasks.key, tasks.room, specs.caller, \
         specs.idempotency_key, specs.traceparent, specs.schedule, specs.submitted_at, specs.argv, \
         specs.cwd, specs.env, specs.timeout_ms, specs.stdin, specs.attempts_max, \
         specs.backoff_initial_ms, specs.backoff_factor, specs.backoff_max_ms, specs.backoff_jitter, \
         specs.start_within_ms, specs.start_within_pauses, specs.lease_ms, specs.after, specs.labels, \
         specs.payload"
    };
}
use columns;

pub(super) const BY_ID: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM tasks CROSS JOIN task_specs AS specs ON specs.n = tasks.spec WHERE tasks.id = ?1"
);
pub(super) const BY_KEY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM task_specs AS specs CROSS JOIN tasks ON tasks.id = specs.id \
     WHERE specs.party = ?1 AND specs.key_token = ?2 AND specs.idempotency_key = ?3"
);
pub(super) const PLACE: &str =
    "SELECT lane, state, parked, ready_at, length(timeline) FROM tasks WHERE id = ?1";
const SUBMIT: &str = "INSERT INTO task_specs (id, party, caller, idempotency_key, traceparent, schedule, \
     submitted_at, argv, cwd, env, timeout_ms, stdin, attempts_max, backoff_initial_ms, backoff_factor, \
     backoff_max_ms, backoff_jitter, start_within_ms, start_within_pauses, lease_ms, after, labels, payload, key_token) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, \
     ?22, ?23, ?24)";
const AFTER: &str = "INSERT OR IGNORE INTO task_after (after, task) VALUES (?1, ?2)";
const INSERT: &str = "INSERT INTO tasks (id, lane, state, parked, attempt, tries, waits_for, due_at, ready_at, \
     expires_at, node, run, token, lease_ms, leased_at, ended_at, cancelled_by, code, signal, message, output, \
     steps, timeline, progress, spec, key, room) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
     ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27)";
macro_rules! changing {
    () => {
        "UPDATE tasks SET lane = ?2, state = ?3, parked = ?4, attempt = ?5, tries = ?6, waits_for = ?7, \
         due_at = ?8, ready_at = ?9, expires_at = ?10, node = ?11, run = ?12, token = ?13, lease_ms = ?14, \
         leased_at = ?15, ended_at = ?16, cancelled_by = ?17, code = ?18, signal = ?19, message = ?20, \
         output = ?21, steps = ?22, progress = ?24, timeline = "
    };
}
const UPDATE: &str = concat!(changing!(), "CAST(timeline || ?23 AS BLOB) WHERE id = ?1");
/// With a timeline that begins anew, see [`MOVE`].
const UPDATE_ANEW: &str = concat!(changing!(), "?23 WHERE id = ?1");
/// Puts the timeline aside.
const MOVE: &str = "INSERT INTO task_steps (task, n, timeline) SELECT id, (SELECT coalesce(max(n), 0) + 1 FROM task_steps \
     WHERE task = ?1), timeline FROM tasks WHERE id = ?1";

/// Bytes of a timeline in the row of its task: beyond it goes aside, so that a change stays cheap
/// however long the timeline is.
const TIMELINE_BYTES_MAX: usize = 768;

/// Where a task stands, as the counts and orders know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Place {
    pub(in super::super) lane: LaneId,
    pub(in super::super) state: TaskState,
    /// Since when it waits for a claim, when it is not parked.
    pub(in super::super) standing: Option<WallTime>,
    /// Bytes of the timeline in its row.
    timeline: usize,
}

impl Place {
    fn of(task: &Task, lane: LaneId, timeline: usize) -> Self {
        let standing = task.ready_at.filter(|_| task.state == TaskState::Ready && !task.parked);
        Self { lane, state: task.state, standing, timeline }
    }
}

/// Gives the lane of a number.
pub(in super::super) type LaneOf<'f> = dyn Fn(LaneId) -> Result<Arc<LaneKey>, StoreError> + 'f;

pub(in super::super) fn get(
    conn: &Connection,
    id: TaskId,
    lane_of: &LaneOf<'_>,
) -> Result<Option<(Task, Place)>, StoreError> {
    one(conn, BY_ID, [id.key()], |row| decode(row, lane_of))
}

pub(in super::super) fn by_key(
    conn: &Connection,
    owner: Owner,
    key: &str,
    lane_of: &LaneOf<'_>,
) -> Result<Option<(Task, Place)>, StoreError> {
    one(conn, BY_KEY, params![party_bytes(owner.party()), token_bytes(owner), key], |row| {
        decode(row, lane_of)
    })
}

/// Where a task stands; nothing when it is not there.
pub(in super::super) fn place(conn: &Connection, id: TaskId) -> Result<Option<Place>, StoreError> {
    one(conn, PLACE, [id.key()], |row| {
        let lane = row.number().map(LaneId)?;
        let state = row.parsed(TaskState::parse)?;
        let parked: bool = row.take()?;
        let ready_at = row.optional_time()?;
        let standing = ready_at.filter(|_| state == TaskState::Ready && !parked);
        Ok(Place { lane, state, standing, timeline: usize::try_from(row.number()?).unwrap_or(usize::MAX) })
    })
}

/// Keeps what was submitted, and returns its number. Nothing is written when the key is taken.
pub(in super::super) fn submit(conn: &Connection, task: &Task) -> Result<i64, WriteError> {
    let spec = &task.spec;
    let (run, payload) = match &spec.work {
        Work::Command(run) => (Some(run), None),
        Work::Payload { bytes, .. } => (None, Some(bytes)),
    };
    let labels = (!spec.labels.is_empty()).then(|| json(&spec.labels)).transpose()?;
    let env = run.filter(|run| !run.env.is_empty()).map(|run| json(&run.env)).transpose()?;
    let after: Vec<u8> = spec.after.iter().flat_map(|id| *id.as_bytes()).collect();
    let params = params![
        task.id.key(),
        party_bytes(task.owner.party()),
        task.caller,
        task.idempotency_key,
        task.traceparent,
        task.schedule.as_ref().map(Id::key),
        task.submitted_at.0,
        run.map(|run| json(&run.argv)).transpose()?,
        run.and_then(|run| run.cwd.as_ref()),
        env,
        run.and_then(|run| run.timeout_ms).map(signed),
        run.map(|run| run.stdin),
        spec.attempts_max,
        signed(spec.backoff.initial_ms),
        spec.backoff.factor_percent,
        signed(spec.backoff.max_ms),
        spec.backoff.jitter_percent,
        spec.start_within_ms.map(signed),
        spec.start_within_pauses,
        signed(spec.lease_ms),
        (!after.is_empty()).then_some(after),
        labels,
        payload,
        token_bytes(task.owner),
    ];
    match execute(conn, SUBMIT, params) {
        Ok(_) => {}
        Err(error) if is_unique(&error) => return Err(conflict::task_key(task)),
        Err(error) => return Err(failed(error).into()),
    }
    let number = conn.last_insert_rowid();
    for after in &spec.after {
        execute(conn, AFTER, params![after.key(), task.id.key()]).map_err(failed)?;
    }
    Ok(number)
}

/// Writes the row of a task: a first one, to what was submitted under a number, or in the place of
/// the one that stood at `old`. Returns where it stands.
pub(in super::super) fn put(
    conn: &Connection,
    decided: &Decided,
    lane: LaneId,
    row: Result<i64, Place>,
) -> Result<Place, StoreError> {
    let Decided { task, steps, .. } = decided;
    let told = timeline::encode(steps);
    let before = row.map_or_else(|old| old.timeline, |_| 0);
    let is_moved = before > 0 && before + told.len() > TIMELINE_BYTES_MAX;
    if is_moved {
        execute(conn, MOVE, [task.id.key()]).map_err(failed)?;
    }
    write(conn, task, lane, &told, row.ok(), is_moved)?;
    let timeline = if is_moved { told.len() } else { before + told.len() };
    Ok(Place::of(task, lane, timeline))
}

fn write(
    conn: &Connection,
    task: &Task,
    lane: LaneId,
    told: &[u8],
    submitted: Option<i64>,
    is_anew: bool,
) -> Result<(), StoreError> {
    let holder = task.lease.map(|lease| lease.holder);
    let (node, run) = (holder.and_then(|it| it.node()), holder.and_then(|it| it.run()));
    let token = match holder {
        Some(Holder::Worker { token }) => Some(token),
        Some(Holder::Node { .. }) | None => None,
    };
    let result = task.result.as_ref();
    let concurrency = task.spec.concurrency.as_ref();
    let sql = match (submitted, is_anew) {
        (Some(_), _) => INSERT,
        (None, false) => UPDATE,
        (None, true) => UPDATE_ANEW,
    };
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let changing = params![
        task.id.key(),
        signed(lane.0),
        task.state.as_str(),
        task.parked,
        signed(task.attempt.0),
        task.tries,
        task.waits_for,
        task.due_at.map(|at| at.0),
        task.ready_at.map(|at| at.0),
        task.expires_at.map(|at| at.0),
        node.as_ref().map(Id::key),
        run.as_ref().map(Id::key),
        token.as_ref().map(Id::key),
        task.lease.map(|lease| signed(lease.ms)),
        task.lease.map(|lease| lease.since.0),
        task.ended_at.map(|at| at.0),
        task.cancelled_by,
        result.and_then(|result| result.code),
        result.and_then(|result| result.signal),
        result.and_then(|result| result.message.as_ref()),
        result.map(|result| &result.output),
        task.steps,
        told,
        task.progress.as_ref().map(progress_text).transpose()?,
    ];
    for (index, value) in changing.iter().enumerate() {
        statement.raw_bind_parameter(index + 1, value).map_err(failed)?;
    }
    if let Some(number) = submitted {
        statement.raw_bind_parameter(25, number).map_err(failed)?;
        statement.raw_bind_parameter(26, concurrency.map(|it| &it.key)).map_err(failed)?;
        statement.raw_bind_parameter(27, concurrency.map(|it| it.limit)).map_err(failed)?;
    }
    statement.raw_execute().map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>, lane_of: &LaneOf<'_>) -> Result<(Task, Place), StoreError> {
    let id = row.id()?;
    let timeline = usize::try_from(row.number()?).unwrap_or(usize::MAX);
    let number = row.number().map(LaneId)?;
    let lane = lane_of(number)?;
    let state = row.parsed(TaskState::parse)?;
    let parked = row.take()?;
    let (attempt, tries, waits_for) = (row.number().map(Attempt)?, row.take()?, row.take()?);
    let (due_at, ready_at, expires_at) = (row.optional_time()?, row.optional_time()?, row.optional_time()?);
    let lease = lease(row)?;
    let (ended_at, cancelled_by) = (row.optional_time()?, row.take()?);
    let result = result(row)?;
    let steps = row.take()?;
    let progress = row.optional_json()?.map(progress);
    let (key, room): (Option<String>, Option<u32>) = (row.take()?, row.take()?);
    let concurrency = key.zip(room).map(|(key, limit)| Concurrency { key, limit });
    let task = Task {
        id,
        owner: lane.owner,
        caller: row.take()?,
        idempotency_key: row.take()?,
        traceparent: row.take()?,
        schedule: row.optional_id()?,
        submitted_at: row.time()?,
        spec: Arc::new(spec(row, &lane, concurrency)?),
        priority: lane.priority,
        state,
        attempt,
        tries,
        parked,
        waits_for,
        due_at,
        ready_at,
        expires_at,
        lease,
        progress,
        excluded: lane.excluded.clone(),
        ended_at,
        result,
        cancelled_by,
        steps,
    };
    let place = Place::of(&task, number, timeline);
    Ok((task, place))
}

/// See `0006_progress.sql`.
type ProgressText = (u64, Option<u64>, Option<String>, i64, i64);

fn progress_text(progress: &Progress) -> Result<String, StoreError> {
    let Said { done, total, note } = &progress.said;
    json(&(done, total, note, progress.at.0, progress.told_at.0))
}

fn progress((done, total, note, at, told_at): ProgressText) -> Progress {
    Progress { said: Said { done, total, note }, at: WallTime(at), told_at: WallTime(told_at) }
}

fn lease(row: &mut Columns<'_, '_>) -> Result<Option<Lease>, StoreError> {
    let holder = holder(row)?;
    let (ms, since) = (row.optional_number()?, row.optional_time()?);
    Ok(match (holder, ms, since) {
        (Some(holder), Some(ms), Some(since)) => Some(Lease { holder, ms, since }),
        _ => None,
    })
}

fn holder(row: &mut Columns<'_, '_>) -> Result<Option<Holder>, StoreError> {
    let (node, run, token) = (row.optional_id()?, row.optional_id()?, row.optional_id()?);
    let of_node = node.zip(run).map(|(node, run)| Holder::Node { node, run });
    Ok(of_node.or(token.map(|token| Holder::Worker { token })))
}

fn result(row: &mut Columns<'_, '_>) -> Result<Option<TaskResult>, StoreError> {
    let (code, signal, message) = (row.take()?, row.take()?, row.take()?);
    let output: Option<Vec<u8>> = row.take()?;
    Ok(output.map(|output| TaskResult { code, signal, output, message }))
}

fn spec(
    row: &mut Columns<'_, '_>,
    lane: &LaneKey,
    concurrency: Option<Concurrency>,
) -> Result<TaskSpec, StoreError> {
    let run = if lane.kind.is_command() {
        Some(RunSpec {
            argv: row.json()?,
            cwd: row.take()?,
            env: row.optional_json()?.unwrap_or_default(),
            timeout_ms: row.optional_number()?,
            stdin: row.take()?,
        })
    } else {
        row.skip(5);
        None
    };
    Ok(TaskSpec {
        attempts_max: row.take()?,
        backoff: Backoff {
            initial_ms: row.number()?,
            factor_percent: row.take()?,
            max_ms: row.number()?,
            jitter_percent: row.take()?,
        },
        start_within_ms: row.optional_number()?,
        start_within_pauses: row.take()?,
        lease_ms: row.number()?,
        after: row.id_list()?,
        labels: row.optional_json()?.unwrap_or_default(),
        work: match run {
            Some(run) => Work::Command(run),
            None => Work::Payload { kind: lane.kind.clone(), bytes: row.take()? },
        },
        selector: lane.selector.clone(),
        prefer: lane.prefer.clone(),
        concurrency,
    })
}

/// Steps of bytes that a column holds.
fn told(row: &mut Columns<'_, '_>) -> Result<Vec<Step>, StoreError> {
    timeline::decode(&row.take::<Vec<u8>>()?)
}
