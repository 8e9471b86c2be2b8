//! What concerns several tasks, and what belongs to one: heads of lanes, concurrency keys,
//! dependencies, timelines, late reports.

use cortex_core::id::{Attempt, LaneId, TaskId};
use cortex_core::limits::EVIDENCE_MAX;
use cortex_core::pool::{Evidence, Holder, Step, TaskResult};
use rusqlite::{Connection, params};

use super::super::super::codec::{Id, execute, failed, limit, many, one, signed};
use super::super::super::ledger::{LOOK_UP, Stands};
use super::{holder, told};
use crate::StoreError;

const FRONT: &str = "SELECT ready_at, id FROM tasks INDEXED BY tasks_standing WHERE lane = ?1 AND state = 'ready' AND parked = 0 \
                    ORDER BY ready_at, id LIMIT ?2";
const HAS_WAITERS: &str = "SELECT EXISTS (SELECT 1 FROM task_after)";
const WAITING: &str = "SELECT waiting.task FROM task_after AS waiting CROSS JOIN tasks \
                       ON tasks.id = waiting.task WHERE waiting.after = ?1 AND tasks.state = 'scheduled' \
                       ORDER BY waiting.task";
const WORKING: &str = "SELECT count(*) FROM tasks INDEXED BY tasks_working WHERE key = ?1 AND key IS NOT NULL AND state = 'leased'";
/// The next lane and limit after ?2 and ?3, and its oldest.
const PARKED: &str = "SELECT lane, room, id FROM tasks INDEXED BY tasks_parked WHERE key = ?1 AND state = 'ready' AND parked = 1 \
                      AND (lane, room) > (?2, ?3) ORDER BY lane, room, ready_at, id LIMIT 1";
const STEPS_ASIDE: &str = "SELECT timeline FROM task_steps WHERE task = ?1 ORDER BY n";
const STEPS: &str = "SELECT timeline FROM tasks WHERE id = ?1";
const EVIDENCE: &str = "SELECT at, attempt, node, run, token, code, signal, message, output \
                        FROM task_evidence WHERE task = ?1 ORDER BY n";
const PUT_EVIDENCE: &str = "INSERT INTO task_evidence \
     (task, n, at, attempt, node, run, token, code, signal, message, output) \
     VALUES (?1, (SELECT coalesce(max(n), 0) + 1 FROM task_evidence WHERE task = ?1), \
     ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
const TRIM_EVIDENCE: &str = "DELETE FROM task_evidence WHERE task = ?1 \
     AND n <= (SELECT max(n) FROM task_evidence WHERE task = ?1) - ?2";
const SPEC: &str = "SELECT specs.n, specs.after FROM tasks CROSS JOIN task_specs AS specs \
                    ON specs.n = tasks.spec WHERE tasks.id = ?1";

/// The tasks of a lane that are first, up to [`LOOK_UP`].
pub(in super::super::super) fn front(conn: &Connection, lane: LaneId) -> Result<Vec<Stands>, StoreError> {
    first(conn, lane, LOOK_UP)
}

pub(in super::super::super) fn head(conn: &Connection, lane: LaneId) -> Result<Option<Stands>, StoreError> {
    Ok(first(conn, lane, 1)?.pop())
}

fn first(conn: &Connection, lane: LaneId, count: usize) -> Result<Vec<Stands>, StoreError> {
    many(conn, FRONT, params![signed(lane.0), limit(count)], |row| Ok((row.time()?, row.id()?)))
}

/// Whether a task was ever submitted to wait for another that is kept still.
pub(in super::super::super) fn has_waiters(conn: &Connection) -> Result<bool, StoreError> {
    Ok(one(conn, HAS_WAITERS, [], |row| row.take())?.unwrap_or(true))
}

pub(in super::super::super) fn waiting_for(conn: &Connection, id: TaskId) -> Result<Vec<TaskId>, StoreError> {
    many(conn, WAITING, [id.key()], |row| row.id())
}

pub(in super::super::super) fn working(conn: &Connection, key: &str) -> Result<u32, StoreError> {
    Ok(one(conn, WORKING, [key], |row| row.take())?.unwrap_or(0))
}

/// Goes from lane to lane, so that it costs one look-up for each and not one for each task.
pub(in super::super::super) fn parked(conn: &Connection, key: &str) -> Result<Vec<TaskId>, StoreError> {
    let mut found = Vec::new();
    let mut last = (-1_i64, -1_i64);
    let next = |last: (i64, i64)| {
        one(conn, PARKED, params![key, last.0, last.1], |row| Ok(((row.take()?, row.take()?), row.id()?)))
    };
    while let Some((place, id)) = next(last)? {
        last = place;
        found.push(id);
    }
    Ok(found)
}

pub(in super::super::super) fn steps(conn: &Connection, id: TaskId) -> Result<Vec<Step>, StoreError> {
    let mut steps: Vec<Step> = many(conn, STEPS_ASIDE, [id.key()], told)?.into_iter().flatten().collect();
    steps.extend(one(conn, STEPS, [id.key()], told)?.into_iter().flatten());
    Ok(steps)
}

pub(in super::super::super) fn evidence(conn: &Connection, id: TaskId) -> Result<Vec<Evidence>, StoreError> {
    many(conn, EVIDENCE, [id.key()], |row| {
        Ok(Evidence {
            at: row.time()?,
            attempt: row.number().map(Attempt)?,
            holder: row.present(holder)?,
            result: TaskResult {
                code: row.take()?,
                signal: row.take()?,
                message: row.take()?,
                output: row.take()?,
            },
        })
    })
}

pub(in super::super::super) fn put_evidence(
    conn: &Connection,
    id: TaskId,
    evidence: &Evidence,
) -> Result<(), StoreError> {
    let Evidence { at, attempt, holder, result } = evidence;
    let (node, run) = (holder.node(), holder.run());
    let token = match holder {
        Holder::Worker { token } => Some(token),
        Holder::Node { .. } => None,
    };
    let params = params![
        id.key(),
        at.0,
        signed(attempt.0),
        node.as_ref().map(Id::key),
        run.as_ref().map(Id::key),
        token.map(Id::key),
        result.code,
        result.signal,
        result.message,
        result.output,
    ];
    execute(conn, PUT_EVIDENCE, params).map_err(failed)?;
    execute(conn, TRIM_EVIDENCE, params![id.key(), EVIDENCE_MAX as i64]).map(drop).map_err(failed)
}

/// Removes a task with all that belongs to it.
pub(in super::super::super) fn remove(conn: &Connection, id: TaskId) -> Result<(), StoreError> {
    let spec = one(conn, SPEC, [id.key()], |row| Ok((row.take::<i64>()?, row.id_list::<TaskId>()?)))?;
    let Some((number, after)) = spec else { return Ok(()) };
    for after in after {
        let params = params![after.key(), id.key()];
        execute(conn, "DELETE FROM task_after WHERE after = ?1 AND task = ?2", params).map_err(failed)?;
    }
    execute(conn, "DELETE FROM task_specs WHERE n = ?1", [number]).map_err(failed)?;
    for sql in [
        "DELETE FROM tasks WHERE id = ?1",
        "DELETE FROM task_steps WHERE task = ?1",
        "DELETE FROM task_evidence WHERE task = ?1",
    ] {
        execute(conn, sql, [id.key()]).map_err(failed)?;
    }
    Ok(())
}

/// The queries that must come in order out of an index, with its name.
#[cfg(test)]
pub(in super::super) fn queries() -> Vec<(String, &'static str)> {
    [
        (FRONT, "COVERING INDEX tasks_standing"),
        (WAITING, "PRIMARY KEY"),
        (WORKING, "COVERING INDEX tasks_working"),
        (PARKED, "COVERING INDEX tasks_parked (key=? AND (lane,room)>(?,?))"),
        (STEPS_ASIDE, "PRIMARY KEY"),
        (STEPS, "PRIMARY KEY"),
        (EVIDENCE, "PRIMARY KEY"),
        (SPEC, "PRIMARY KEY"),
    ]
    .map(|(sql, index)| (sql.to_owned(), index))
    .to_vec()
}
