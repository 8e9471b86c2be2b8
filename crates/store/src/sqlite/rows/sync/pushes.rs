//! What was pushed to folders last.

use cortex_core::files::path::FilePath;
use cortex_core::id::NodeId;
use cortex_core::limits::PUSHES_KEPT_MAX;
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, one, signed};
use super::{bytes, optional_tree, path};
use crate::{StoreError, StoredPush};

pub(in super::super) const BY_FOLDER: &str =
    "SELECT node, dest, root, begun, at FROM pushes WHERE node = ?1 AND dest = ?2";
const PUT: &str = "INSERT OR REPLACE INTO pushes (node, dest, root, begun, at) VALUES (?, ?, ?, ?, ?)";
const COUNT: &str = "SELECT count(*) FROM pushes";
pub(in super::super) const TRIM: &str = "DELETE FROM pushes WHERE (node, dest) IN \
     (SELECT node, dest FROM pushes ORDER BY at, node, dest LIMIT ?1)";

pub(in super::super::super) fn get(
    conn: &Connection,
    node: NodeId,
    dest: &FilePath,
) -> Result<Option<StoredPush>, StoreError> {
    one(conn, BY_FOLDER, params![node.key(), dest.as_str()], decode)
}

pub(in super::super::super) fn put(conn: &Connection, push: &StoredPush) -> Result<(), StoreError> {
    let (root, begun) = (bytes(push.root), bytes(push.begun));
    let params = params![push.node.key(), push.dest.as_str(), root, begun, push.at.0];
    execute(conn, PUT, params).map_err(failed)?;
    let kept = one(conn, COUNT, [], |row| row.number())?.unwrap_or_default();
    let beyond = kept.saturating_sub(PUSHES_KEPT_MAX as u64);
    if beyond > 0 {
        execute(conn, TRIM, [signed(beyond)]).map_err(failed)?;
    }
    Ok(())
}

pub(in super::super::super) fn remove_of(conn: &Connection, node: NodeId) -> Result<usize, StoreError> {
    execute(conn, "DELETE FROM pushes WHERE node = ?1", [node.key()]).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<StoredPush, StoreError> {
    Ok(StoredPush {
        node: row.id()?,
        dest: row.parsed(path)?,
        root: optional_tree(row)?,
        begun: optional_tree(row)?,
        at: row.time()?,
    })
}
