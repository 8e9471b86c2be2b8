//! Runs.

use std::sync::LazyLock;

use cortex_core::id::{Attempt, NodeId, Revision, RunId, TaskId};
use cortex_core::run::{Run, RunSpec, RunState};
use cortex_core::stream::Positions;
use cortex_core::time::WallTime;
use rusqlite::{Connection, ToSql, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, json, limit, many, one, signed};
use super::upsert;
use crate::{RunFilter, StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, node, argv, cwd, env, timeout_ms, stdin, state, caller, policy_revision, idempotency_key, \
         traceparent, accepted_at, started_at, ended_at, code, signal, duration_ms, stdout_bytes, \
         stderr_bytes, cancelled_by, diagnostic, token, user, sandbox, consent, task, attempt"
    };
}

pub(super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM runs WHERE id = ?1");
pub(super) const BY_KEY: &str =
    concat!("SELECT ", columns!(), " FROM runs WHERE caller = ?1 AND node = ?2 AND idempotency_key = ?3");
static DELETE: LazyLock<String> =
    LazyLock::new(|| format!("DELETE FROM runs WHERE id = ?1 AND state IN ({})", quoted(RunState::is_final)));
static PUT: LazyLock<String> = LazyLock::new(|| upsert("runs", columns!()));
pub(super) static OPEN: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM runs WHERE state IN ({}) ORDER BY id",
        columns!(),
        quoted(|state| !state.is_final())
    )
});
pub(super) static ENDED: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT id, ended_at FROM runs WHERE ended_at IS NOT NULL AND +state IN ({}) \
         ORDER BY ended_at, id LIMIT ?1",
        quoted(RunState::is_final)
    )
});
/// By the index alone, without the rows.
pub(super) const ENDED_COUNT: &str = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL";

pub(in super::super) fn get(conn: &Connection, id: RunId) -> Result<Option<Run>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn by_key(
    conn: &Connection,
    caller: &str,
    node: NodeId,
    key: &str,
) -> Result<Option<Run>, StoreError> {
    one(conn, BY_KEY, params![caller, node.key(), key], decode)
}

pub(in super::super) fn list(
    conn: &Connection,
    filter: &RunFilter,
    count: usize,
) -> Result<Vec<Run>, StoreError> {
    let node = filter.node.as_ref().map(Id::key);
    // Every id is below seventeen bytes of ones.
    let before = filter.before.map_or(vec![u8::MAX; 17], |id| id.as_bytes().to_vec());
    let count = limit(count);
    let mut params: Vec<&dyn ToSql> = vec![&before, &count];
    params.extend(node.as_ref().map(|node| node as &dyn ToSql));
    many(conn, &list_sql(filter), params.as_slice(), decode)
}

/// Each state of each node is in order in an index: the answer is merged from the wanted ones and
/// nothing is sorted, however many runs there are.
pub(super) fn list_sql(filter: &RunFilter) -> String {
    let all = filter.states.is_empty();
    let arm =
        |condition: &str| format!(concat!("SELECT ", columns!(), " FROM runs WHERE {}id < ?1"), condition);
    let arms: Vec<String> = match (filter.node.is_some(), all) {
        (false, true) => vec![arm("")],
        (false, false) => {
            wanted(filter).map(|state| arm(&format!("state = '{}' AND ", state.as_str()))).collect()
        }
        (true, _) => {
            let of_node = |state: &RunState| arm(&format!("node = ?3 AND state = '{}' AND ", state.as_str()));
            wanted(filter).map(|state| of_node(&state)).collect()
        }
    };
    format!("{} ORDER BY id DESC LIMIT ?2", arms.join(" UNION ALL "))
}

/// The states of the filter, each once and in one order, so that few different queries exist.
fn wanted(filter: &RunFilter) -> impl Iterator<Item = RunState> + '_ {
    let all = filter.states.is_empty();
    RunState::ALL.iter().copied().filter(move |state| all || filter.states.contains(state))
}

pub(in super::super) fn open(conn: &Connection) -> Result<Vec<Run>, StoreError> {
    many(conn, &OPEN, [], decode)
}

pub(in super::super) fn put(conn: &Connection, run: &Run) -> Result<(), WriteError> {
    let params = params![
        run.id.key(),
        run.node.key(),
        json(&run.spec.argv)?,
        run.spec.cwd,
        json(&run.spec.env)?,
        run.spec.timeout_ms.map(signed),
        run.spec.stdin,
        run.state.as_str(),
        run.caller,
        signed(run.policy_revision.0),
        run.idempotency_key,
        run.traceparent,
        run.accepted_at.0,
        run.started_at.map(|at| at.0),
        run.ended_at.map(|at| at.0),
        run.code,
        run.signal,
        run.duration_ms.map(signed),
        signed(run.output.stdout),
        signed(run.output.stderr),
        run.cancelled_by,
        run.diagnostic,
        run.token.as_ref().map(Id::key),
        run.user.as_ref().map(Id::key),
        run.sandbox,
        run.consent.as_ref().map(Id::key),
        run.task.as_ref().map(|(task, _)| task.key()),
        run.task.map(|(_, attempt)| signed(attempt.0)),
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::run_key(run)),
        Err(error) => Err(failed(error).into()),
    }
}

pub(in super::super) fn ended(conn: &Connection, count: usize) -> Result<Vec<(RunId, WallTime)>, StoreError> {
    many(conn, &ENDED, [limit(count)], |row| Ok((row.id()?, row.time()?)))
}

pub(in super::super) fn ended_count(conn: &Connection) -> Result<u64, StoreError> {
    Ok(one(conn, ENDED_COUNT, [], |row| row.number())?.unwrap_or_default())
}

pub(in super::super) fn remove(conn: &Connection, runs: &[RunId]) -> Result<usize, StoreError> {
    let mut delete = conn.prepare_cached(&DELETE).map_err(failed)?;
    let mut gone = 0;
    for id in runs {
        gone += delete.execute([id.key()]).map_err(failed)?;
    }
    Ok(gone)
}

fn task(row: &mut Columns<'_, '_>) -> Result<Option<(TaskId, Attempt)>, StoreError> {
    let (task, attempt) = (row.optional_id()?, row.optional_number()?);
    Ok(task.zip(attempt.map(Attempt)))
}

fn quoted(wanted: impl Fn(RunState) -> bool) -> String {
    let states = RunState::ALL.iter().filter(|state| wanted(**state));
    states.map(|state| format!("'{}'", state.as_str())).collect::<Vec<_>>().join(", ")
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Run, StoreError> {
    Ok(Run {
        id: row.id()?,
        node: row.id()?,
        spec: RunSpec {
            argv: row.json()?,
            cwd: row.take()?,
            env: row.json()?,
            timeout_ms: row.optional_number()?,
            stdin: row.take()?,
        },
        state: row.parsed(RunState::parse)?,
        caller: row.take()?,
        policy_revision: row.number().map(Revision)?,
        idempotency_key: row.take()?,
        traceparent: row.take()?,
        accepted_at: row.time()?,
        started_at: row.optional_time()?,
        ended_at: row.optional_time()?,
        code: row.take()?,
        signal: row.take()?,
        duration_ms: row.optional_number()?,
        output: Positions { stdout: row.number()?, stderr: row.number()? },
        cancelled_by: row.take()?,
        diagnostic: row.take()?,
        token: row.optional_id()?,
        user: row.optional_id()?,
        sandbox: row.take()?,
        consent: row.optional_id()?,
        task: task(row)?,
    })
}
