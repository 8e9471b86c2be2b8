//! Schedules of the work pool. What their tasks are is kept as one text: it is read only when a task is
//! made of it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cortex_core::id::ScheduleId;
use cortex_core::name::{Name, Selector};
use cortex_core::pool::schedule::{Missed, Schedule};
use cortex_core::pool::{Backoff, Concurrency, Kind, Owner, Priority, TaskSpec, Work};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::super::codec::{Columns, Id, execute, failed, is_unique, json, limit, many, one};
use super::lanes::party_bytes;
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, party, name, token, user, caller, cron, zone, missed, spec, priority, is_on, next_at, last_at, \
         created_at"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM schedules WHERE id = ?1");
const ALL: &str = concat!("SELECT ", columns!(), " FROM schedules ORDER BY name, id");
pub(super) const DUE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM schedules WHERE is_on = 1 AND next_at <= ?1 ORDER BY next_at, id LIMIT ?2"
);
pub(super) const NEXT: &str =
    "SELECT next_at FROM schedules WHERE is_on = 1 AND next_at IS NOT NULL ORDER BY next_at LIMIT 1";
const REMOVE: &str = "DELETE FROM schedules WHERE id = ?1";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("schedules", columns!()));

/// What is submitted, as text.
#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Command>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Payload>,
    selector: String,
    prefer: String,
    attempts_max: u32,
    backoff: (u64, u32, u64, u32),
    start_within_ms: Option<u64>,
    start_within_pauses: bool,
    lease_ms: u64,
    concurrency: Option<(String, u32)>,
    labels: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Command {
    argv: Vec<String>,
    cwd: Option<String>,
    env: Vec<(String, String)>,
    timeout_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Payload {
    kind: String,
    bytes: Vec<u8>,
}

pub(in super::super) fn get(conn: &Connection, id: ScheduleId) -> Result<Option<Schedule>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn all(conn: &Connection) -> Result<Vec<Schedule>, StoreError> {
    many(conn, ALL, [], decode)
}

pub(in super::super) fn due(
    conn: &Connection,
    now: WallTime,
    count: usize,
) -> Result<Vec<Schedule>, StoreError> {
    many(conn, DUE, params![now.0, limit(count)], decode)
}

pub(in super::super) fn next(conn: &Connection) -> Result<Option<WallTime>, StoreError> {
    one(conn, NEXT, [], |row| row.time())
}

pub(in super::super) fn put(conn: &Connection, schedule: &Schedule) -> Result<(), WriteError> {
    let params = params![
        schedule.id.key(),
        party_bytes(schedule.owner.party()),
        schedule.name.as_str(),
        schedule.owner.token.as_ref().map(Id::key),
        schedule.owner.user.as_ref().map(Id::key),
        schedule.caller,
        schedule.cron,
        schedule.zone,
        schedule.missed.as_str(),
        json(&Text::of(&schedule.spec))?,
        schedule.priority.get(),
        schedule.is_on,
        schedule.next_at.map(|at| at.0),
        schedule.last_at.map(|at| at.0),
        schedule.created_at.0,
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::schedule_name(schedule)),
        Err(error) => Err(failed(error).into()),
    }
}

pub(in super::super) fn remove(conn: &Connection, id: ScheduleId) -> Result<bool, StoreError> {
    execute(conn, REMOVE, [id.key()]).map(|gone| gone > 0).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Schedule, StoreError> {
    let id = row.id()?;
    row.skip(1);
    Ok(Schedule {
        id,
        name: row.name()?,
        owner: Owner { token: row.optional_id()?, user: row.optional_id()? },
        caller: row.take()?,
        cron: row.take()?,
        zone: row.take()?,
        missed: row.parsed(Missed::parse)?,
        spec: Arc::new(spec(row.json()?)?),
        priority: row.small(|number| Priority::new(number).ok())?,
        is_on: row.take()?,
        next_at: row.optional_time()?,
        last_at: row.optional_time()?,
        created_at: row.time()?,
    })
}

impl Text {
    fn of(spec: &TaskSpec) -> Self {
        let (command, payload) = match &spec.work {
            Work::Command(RunSpec { argv, cwd, env, timeout_ms, stdin: _ }) => {
                let (argv, cwd, env) = (argv.clone(), cwd.clone(), env.clone());
                (Some(Command { argv, cwd, env, timeout_ms: *timeout_ms }), None)
            }
            Work::Payload { kind, bytes } => {
                (None, Some(Payload { kind: kind.as_str().to_owned(), bytes: bytes.clone() }))
            }
        };
        let Backoff { initial_ms, factor_percent, max_ms, jitter_percent } = spec.backoff;
        Self {
            command,
            payload,
            selector: spec.selector.to_string(),
            prefer: spec.prefer.to_string(),
            attempts_max: spec.attempts_max,
            backoff: (initial_ms, factor_percent, max_ms, jitter_percent),
            start_within_ms: spec.start_within_ms,
            start_within_pauses: spec.start_within_pauses,
            lease_ms: spec.lease_ms,
            concurrency: spec.concurrency.as_ref().map(|it| (it.key.clone(), it.limit)),
            labels: spec.labels.clone(),
        }
    }
}

fn spec(text: Text) -> Result<TaskSpec, StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("the {what} of a schedule cannot be read"));
    let selector = |text: &str| Selector::parse(text).map_err(|_| damaged("selector"));
    let work = match (text.command, text.payload) {
        (Some(Command { argv, cwd, env, timeout_ms }), _) => {
            Work::Command(RunSpec { argv, cwd, env, timeout_ms, stdin: false })
        }
        (None, Some(Payload { kind, bytes })) => {
            let kind = Name::parse(&kind).and_then(Kind::payload).map_err(|_| damaged("kind"))?;
            Work::Payload { kind, bytes }
        }
        (None, None) => return Err(damaged("work")),
    };
    let (initial_ms, factor_percent, max_ms, jitter_percent) = text.backoff;
    Ok(TaskSpec {
        work,
        selector: selector(&text.selector)?,
        prefer: selector(&text.prefer)?,
        attempts_max: text.attempts_max,
        backoff: Backoff { initial_ms, factor_percent, max_ms, jitter_percent },
        start_within_ms: text.start_within_ms,
        start_within_pauses: text.start_within_pauses,
        lease_ms: text.lease_ms,
        after: Vec::new(),
        concurrency: text.concurrency.map(|(key, limit)| Concurrency { key, limit }),
        labels: text.labels,
    })
}
