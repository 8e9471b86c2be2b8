//! Workspaces.

use std::sync::LazyLock;

use cortex_core::id::{LockEpoch, Revision, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::time::WallTime;
use cortex_core::workspace::{Holding, Mode, Rules, Workspace};
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, is_unique, json, limit, many, one, signed};
use super::super::upsert;
use super::tree;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, name, mode, head, tree, exclude, ignore_files, vcs, links, bytes_max, epoch, lock_holder, \
         lock_ttl_ms, lock_until, owner, created_at, removed_at"
    };
}

pub(in super::super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM workspaces WHERE id = ?1");
pub(in super::super) const BY_NAME: &str =
    concat!("SELECT ", columns!(), " FROM workspaces WHERE name = ?1 AND removed_at IS NULL");
pub(in super::super) const LIVE: &str =
    concat!("SELECT ", columns!(), " FROM workspaces WHERE removed_at IS NULL ORDER BY name");
pub(in super::super) const COUNT: &str = "SELECT count(*) FROM workspaces WHERE removed_at IS NULL";
pub(in super::super) const REMOVED: &str = "SELECT id, removed_at FROM workspaces WHERE removed_at IS NOT NULL \
     ORDER BY removed_at, id LIMIT ?1";
const HEAD: &str = "SELECT head FROM workspaces WHERE id = ?1";
const HOLDER: &str = "SELECT id FROM workspaces WHERE name = ?1 AND removed_at IS NULL";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("workspaces", columns!()));

pub(in super::super::super) fn get(
    conn: &Connection,
    id: WorkspaceId,
) -> Result<Option<Workspace>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super::super) fn named(
    conn: &Connection,
    name: &Name,
) -> Result<Option<Workspace>, StoreError> {
    one(conn, BY_NAME, [name.as_str()], decode)
}

pub(in super::super::super) fn live(conn: &Connection) -> Result<Vec<Workspace>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super::super) fn count(conn: &Connection) -> Result<usize, StoreError> {
    let count = one(conn, COUNT, [], |row| row.number())?.unwrap_or_default();
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

pub(in super::super::super) fn removed(
    conn: &Connection,
    count: usize,
) -> Result<Vec<(WorkspaceId, WallTime)>, StoreError> {
    many(conn, REMOVED, [limit(count)], |row| Ok((row.id()?, row.time()?)))
}

pub(in super::super::super) fn head(
    conn: &Connection,
    id: WorkspaceId,
) -> Result<Option<Revision>, StoreError> {
    one(conn, HEAD, [id.key()], |row| row.number().map(Revision))
}

/// The live workspace of that name.
pub(in super::super::super) fn holder(
    conn: &Connection,
    name: &Name,
) -> Result<Option<WorkspaceId>, StoreError> {
    one(conn, HOLDER, [name.as_str()], |row| row.id())
}

pub(in super::super::super) fn remove(conn: &Connection, id: WorkspaceId) -> Result<bool, StoreError> {
    let gone = execute(conn, "DELETE FROM workspaces WHERE id = ?1 AND removed_at IS NOT NULL", [id.key()]);
    Ok(gone.map_err(failed)? > 0)
}

pub(in super::super::super) fn put(conn: &Connection, ws: &Workspace) -> Result<(), WriteError> {
    let params = params![
        ws.id.key(),
        ws.name.as_str(),
        ws.mode.as_str(),
        signed(ws.head.0),
        ws.tree.as_bytes(),
        json(&ws.rules.exclude)?,
        ws.rules.ignore_files,
        ws.rules.vcs,
        ws.rules.links_outside,
        signed(ws.bytes_max),
        signed(ws.epoch.0),
        ws.lock.as_ref().map(|holding| holding.holder.as_str()),
        ws.lock.as_ref().map(|holding| signed(holding.ttl_ms)),
        ws.lock.as_ref().map(|holding| holding.until.0),
        ws.owner,
        ws.created_at.0,
        ws.removed_at.map(|at| at.0),
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::workspace_name(ws)),
        Err(error) => Err(failed(error).into()),
    }
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Workspace, StoreError> {
    Ok(Workspace {
        id: row.id()?,
        name: row.name()?,
        mode: row.parsed(Mode::parse)?,
        head: row.number().map(Revision)?,
        tree: tree(row)?,
        rules: Rules {
            exclude: row.json()?,
            ignore_files: row.take()?,
            vcs: row.take()?,
            links_outside: row.take()?,
        },
        bytes_max: row.number()?,
        epoch: row.number().map(LockEpoch)?,
        lock: holding(row)?,
        owner: row.take()?,
        created_at: row.time()?,
        removed_at: row.optional_time()?,
    })
}

fn holding(row: &mut Columns<'_, '_>) -> Result<Option<Holding>, StoreError> {
    let (holder, ttl_ms, until): (Option<String>, _, _) =
        (row.take()?, row.optional_number()?, row.optional_time()?);
    let times = ttl_ms.zip(until);
    Ok(holder.zip(times).map(|(holder, (ttl_ms, until))| Holding { holder, ttl_ms, until }))
}
