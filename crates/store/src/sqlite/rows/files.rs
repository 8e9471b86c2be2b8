//! Operations that change files.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cortex_core::files::content::ContentId;
use cortex_core::files::entity::{FileEnd, FileOutcome, FileState, FileTask};
use cortex_core::files::op::Verb;
use cortex_core::files::path::FilePath;
use cortex_core::id::{Attempt, NodeId, OpId, Revision, TaskId};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, json, limit, many, one, signed};
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, node, verb, path, source, digest, caller, token, key, task, attempt, policy_revision, \
         accepted_at, ended_at, state, etag, bytes, created, removed, made, refusal"
    };
}

pub(super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM file_ops WHERE id = ?1");
pub(super) const BY_KEY: &str =
    concat!("SELECT ", columns!(), " FROM file_ops WHERE caller = ?1 AND node = ?2 AND key = ?3");
pub(super) const OPEN: &str =
    concat!("SELECT ", columns!(), " FROM file_ops WHERE ended_at IS NULL ORDER BY node, id");
pub(super) const OPEN_OF: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM file_ops WHERE ended_at IS NULL AND node = ?1 ORDER BY id LIMIT ?2"
);
pub(super) const ENDED: &str =
    "SELECT id, ended_at FROM file_ops WHERE ended_at IS NOT NULL ORDER BY ended_at, id LIMIT ?1";
/// By the index alone, without the rows.
pub(super) const ENDED_COUNT: &str = "SELECT count(*) FROM file_ops WHERE ended_at IS NOT NULL";
const DELETE: &str = "DELETE FROM file_ops WHERE id = ?1 AND ended_at IS NOT NULL";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("file_ops", columns!()));

/// A refusal as it is kept: code, message, hint, and the details by name.
type Told = (String, String, String, BTreeMap<String, String>);

pub(in super::super) fn get(conn: &Connection, id: OpId) -> Result<Option<FileTask>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn by_key(
    conn: &Connection,
    caller: &str,
    node: NodeId,
    key: &str,
) -> Result<Option<FileTask>, StoreError> {
    one(conn, BY_KEY, params![caller, node.key(), key], decode)
}

pub(in super::super) fn open(conn: &Connection) -> Result<Vec<FileTask>, StoreError> {
    many(conn, OPEN, [], decode)
}

pub(in super::super) fn open_of(
    conn: &Connection,
    node: NodeId,
    count: usize,
) -> Result<Vec<FileTask>, StoreError> {
    many(conn, OPEN_OF, params![node.key(), limit(count)], decode)
}

pub(in super::super) fn ended(conn: &Connection, count: usize) -> Result<Vec<(OpId, WallTime)>, StoreError> {
    many(conn, ENDED, [limit(count)], |row| Ok((row.id()?, row.time()?)))
}

pub(in super::super) fn ended_count(conn: &Connection) -> Result<u64, StoreError> {
    Ok(one(conn, ENDED_COUNT, [], |row| row.number())?.unwrap_or_default())
}

pub(in super::super) fn remove(conn: &Connection, ops: &[OpId]) -> Result<usize, StoreError> {
    let mut delete = conn.prepare_cached(DELETE).map_err(failed)?;
    let mut gone = 0;
    for id in ops {
        gone += delete.execute([id.key()]).map_err(failed)?;
    }
    Ok(gone)
}

pub(in super::super) fn put(conn: &Connection, task: &FileTask) -> Result<(), WriteError> {
    let (state, mut etag, mut bytes, mut created, mut removed, mut made, mut refusal) =
        (state_text(&task.state), None, None, None, None, None, None);
    match task.end() {
        None => {}
        Some(Ok(FileOutcome::Written { etag: id, bytes: count, created: is_new })) => {
            (etag, bytes, created) = (Some(*id.as_bytes()), Some(signed(*count)), Some(*is_new));
        }
        Some(Ok(FileOutcome::Done { removed: gone, made: new })) => {
            (removed, made) = (Some(signed(*gone)), Some(signed(*new)));
        }
        Some(Err(told)) => refusal = Some(refusal_text(told)?),
    }
    let params = params![
        task.id.key(),
        task.node.key(),
        task.verb.as_str(),
        task.path.as_str(),
        task.source.as_ref().map(FilePath::as_str),
        task.digest.as_bytes(),
        task.caller,
        task.token.as_ref().map(Id::key),
        task.key,
        task.attempt.as_ref().map(|(task, _)| task.key()),
        task.attempt.map(|(_, attempt)| signed(attempt.0)),
        signed(task.policy_revision.0),
        task.at.0,
        task.ended_at.map(|at| at.0),
        state,
        etag,
        bytes,
        created,
        removed,
        made,
        refusal,
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::file_op_key(task)),
        Err(error) => Err(failed(error).into()),
    }
}

const fn state_text(state: &FileState) -> &'static str {
    match state {
        FileState::Accepted => "accepted",
        FileState::Ended(Ok(FileOutcome::Written { .. })) => "written",
        FileState::Ended(Ok(FileOutcome::Done { .. })) => "done",
        FileState::Ended(Err(_)) => "refused",
    }
}

fn refusal_text(refusal: &Refusal) -> Result<String, StoreError> {
    let details: BTreeMap<String, String> =
        refusal.details.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let told: Told =
        (refusal.code.as_str().to_owned(), refusal.message.clone(), refusal.hint.clone(), details);
    json(&told)
}

/// A code of a later version is `internal` here, as everywhere.
fn refusal((code, message, hint, details): Told) -> Refusal {
    let bare = Refusal::new(Code::parse(&code).unwrap_or(Code::Internal), message).hint(hint);
    details.into_iter().fold(bare, |refusal, (name, value)| refusal.detail_named(&name, value))
}

fn decode(row: &mut Columns<'_, '_>) -> Result<FileTask, StoreError> {
    let path = |text: &str| FilePath::parse(text).ok();
    Ok(FileTask {
        id: row.id()?,
        node: row.id()?,
        verb: row.parsed(Verb::parse)?,
        path: row.parsed(path)?,
        source: row.optional_parsed(path)?,
        digest: row.hash().map(ContentId::new)?,
        caller: row.take()?,
        token: row.optional_id()?,
        key: row.take()?,
        attempt: attempt(row)?,
        policy_revision: row.number().map(Revision)?,
        at: row.time()?,
        ended_at: row.optional_time()?,
        state: state(row)?,
    })
}

fn attempt(row: &mut Columns<'_, '_>) -> Result<Option<(TaskId, Attempt)>, StoreError> {
    let (task, attempt) = (row.optional_id()?, row.optional_number()?);
    Ok(task.zip(attempt.map(Attempt)))
}

fn state(row: &mut Columns<'_, '_>) -> Result<FileState, StoreError> {
    let state: String = row.take()?;
    let end: FileEnd = match state.as_str() {
        "accepted" => return Ok(FileState::Accepted),
        "written" => Ok(FileOutcome::Written {
            etag: row.hash().map(ContentId::new)?,
            bytes: row.number()?,
            created: row.take()?,
        }),
        "done" => {
            row.skip(3);
            Ok(FileOutcome::Done { removed: row.number()?, made: row.number()? })
        }
        "refused" => {
            row.skip(5);
            Err(refusal(row.json()?))
        }
        _ => return Err(StoreError::Damaged(format!("column state: unknown text `{state}`"))),
    };
    Ok(FileState::Ended(end))
}
