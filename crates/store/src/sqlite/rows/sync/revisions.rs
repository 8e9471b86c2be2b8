//! Revisions of workspaces.

use cortex_core::id::{Revision, WorkspaceId};
use cortex_core::time::WallTime;
use cortex_core::workspace::{RevisionKind, RevisionRow};
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, limit, many, one, signed};
use super::tree;
use crate::StoreError;

macro_rules! columns {
    () => {
        "workspace, n, tree, parent, kind, member, by, at, files, bytes, note"
    };
}

pub(in super::super) const BY_NUMBER: &str =
    concat!("SELECT ", columns!(), " FROM revisions WHERE workspace = ?1 AND n = ?2");
pub(in super::super) const BEFORE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM revisions WHERE workspace = ?1 AND n < ?2 ORDER BY n DESC LIMIT ?3"
);
pub(in super::super) const TIMES: &str = "SELECT n, at FROM revisions WHERE workspace = ?1 ORDER BY n";
const DELETE: &str = "DELETE FROM revisions WHERE workspace = ?1 AND n = ?2 \
     AND n <> (SELECT head FROM workspaces WHERE id = ?1)";
const PUT: &str =
    concat!("INSERT INTO revisions (", columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");

pub(in super::super::super) fn get(
    conn: &Connection,
    workspace: WorkspaceId,
    n: Revision,
) -> Result<Option<RevisionRow>, StoreError> {
    one(conn, BY_NUMBER, params![workspace.key(), signed(n.0)], decode)
}

pub(in super::super::super) fn before(
    conn: &Connection,
    workspace: WorkspaceId,
    before: Option<Revision>,
    count: usize,
) -> Result<Vec<RevisionRow>, StoreError> {
    let before = before.map_or(i64::MAX, |n| signed(n.0));
    many(conn, BEFORE, params![workspace.key(), before, limit(count)], decode)
}

pub(in super::super::super) fn times(
    conn: &Connection,
    workspace: WorkspaceId,
) -> Result<Vec<(Revision, WallTime)>, StoreError> {
    many(conn, TIMES, [workspace.key()], |row| Ok((row.number().map(Revision)?, row.time()?)))
}

pub(in super::super::super) fn remove(
    conn: &Connection,
    workspace: WorkspaceId,
    gone: &[Revision],
) -> Result<usize, StoreError> {
    let mut delete = conn.prepare_cached(DELETE).map_err(failed)?;
    let mut count = 0;
    for n in gone {
        count += delete.execute(params![workspace.key(), signed(n.0)]).map_err(failed)?;
    }
    Ok(count)
}

pub(in super::super::super) fn remove_all(
    conn: &Connection,
    workspace: WorkspaceId,
) -> Result<(), StoreError> {
    execute(conn, "DELETE FROM revisions WHERE workspace = ?1", [workspace.key()]).map_err(failed)?;
    Ok(())
}

pub(in super::super::super) fn put(conn: &Connection, row: &RevisionRow) -> Result<(), StoreError> {
    let params = params![
        row.workspace.key(),
        signed(row.n.0),
        row.tree.as_bytes(),
        row.parent.map(|parent| signed(parent.0)),
        row.kind.as_str(),
        row.member.as_ref().map(Id::key),
        row.by,
        row.at.0,
        signed(row.files),
        signed(row.bytes),
        row.note,
    ];
    execute(conn, PUT, params).map_err(failed)?;
    Ok(())
}

fn decode(row: &mut Columns<'_, '_>) -> Result<RevisionRow, StoreError> {
    Ok(RevisionRow {
        workspace: row.id()?,
        n: row.number().map(Revision)?,
        tree: tree(row)?,
        parent: row.optional_number()?.map(Revision),
        kind: row.parsed(RevisionKind::parse)?,
        member: row.optional_id()?,
        by: row.take()?,
        at: row.time()?,
        files: row.number()?,
        bytes: row.number()?,
        note: row.take()?,
    })
}
