//! Paths that two sides had changed.

use cortex_core::files::content::ContentId;
use cortex_core::files::path::RelPath;
use cortex_core::id::{MemberId, Revision, WorkspaceId};
use cortex_core::limits::WORKSPACE_CONFLICTS_MAX;
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, limit, many, one, signed};
use crate::{StoreError, StoredConflict};

macro_rules! columns {
    () => {
        "workspace, revision, member, path, copy, hub, node, at"
    };
}

pub(in super::super) const NEWEST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM conflicts WHERE workspace = ?1 ORDER BY revision DESC, member DESC, path DESC LIMIT ?3 OFFSET ?2"
);
const PUT: &str =
    concat!("INSERT OR REPLACE INTO conflicts (", columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
const COUNT: &str = "SELECT count(*) FROM conflicts WHERE workspace = ?1";
const TRIM: &str = "DELETE FROM conflicts WHERE (workspace, revision, member, path) IN \
     (SELECT workspace, revision, member, path FROM conflicts WHERE workspace = ?1 \
      ORDER BY revision, member, path LIMIT ?2)";

pub(in super::super::super) fn newest(
    conn: &Connection,
    workspace: WorkspaceId,
    skip: usize,
    count: usize,
) -> Result<Vec<StoredConflict>, StoreError> {
    many(conn, NEWEST, params![workspace.key(), limit(skip), limit(count)], decode)
}

pub(in super::super::super) fn put(
    conn: &Connection,
    workspace: WorkspaceId,
    conflicts: &[StoredConflict],
) -> Result<(), StoreError> {
    let mut put = conn.prepare_cached(PUT).map_err(failed)?;
    for conflict in conflicts {
        let params = params![
            workspace.key(),
            signed(conflict.revision.0),
            conflict.member.key(),
            conflict.path.as_str(),
            conflict.copy.as_ref().map(RelPath::as_str),
            conflict.hub.as_ref().map(ContentId::as_bytes),
            conflict.node.as_ref().map(ContentId::as_bytes),
            conflict.at.0,
        ];
        put.execute(params).map_err(failed)?;
    }
    let kept = one(conn, COUNT, [workspace.key()], |row| row.number())?.unwrap_or_default();
    let beyond = kept.saturating_sub(WORKSPACE_CONFLICTS_MAX as u64);
    if beyond > 0 {
        execute(conn, TRIM, params![workspace.key(), signed(beyond)]).map_err(failed)?;
    }
    Ok(())
}

pub(in super::super::super) fn remove_of(conn: &Connection, member: MemberId) -> Result<usize, StoreError> {
    execute(conn, "DELETE FROM conflicts WHERE member = ?1", [member.key()]).map_err(failed)
}

pub(in super::super::super) fn remove_all(
    conn: &Connection,
    workspace: WorkspaceId,
) -> Result<(), StoreError> {
    execute(conn, "DELETE FROM conflicts WHERE workspace = ?1", [workspace.key()]).map_err(failed)?;
    Ok(())
}

fn decode(row: &mut Columns<'_, '_>) -> Result<StoredConflict, StoreError> {
    let path = |text: &str| RelPath::parse(text).ok();
    Ok(StoredConflict {
        workspace: row.id()?,
        revision: row.number().map(Revision)?,
        member: row.id()?,
        path: row.parsed(path)?,
        copy: row.optional_parsed(path)?,
        hub: row.optional_hash()?.map(ContentId::new),
        node: row.optional_hash()?.map(ContentId::new),
        at: row.time()?,
    })
}
