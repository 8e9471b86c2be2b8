//! Folders that follow skills.

use cortex_core::files::path::FilePath;
use cortex_core::id::{NodeId, Revision};
use cortex_core::skill::Mount;
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, many, signed};
use super::{bytes, optional_tree, path};
use crate::StoreError;

macro_rules! columns {
    () => {
        "node, path, skill, pin, reached, tree, by, at"
    };
}

pub(in super::super) const ALL: &str =
    concat!("SELECT ", columns!(), " FROM skill_mounts ORDER BY node, path");
const PUT: &str =
    concat!("INSERT OR REPLACE INTO skill_mounts (", columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)");

pub(in super::super::super) fn all(conn: &Connection) -> Result<Vec<Mount>, StoreError> {
    many(conn, ALL, [], decode)
}

pub(in super::super::super) fn put(conn: &Connection, row: &Mount) -> Result<(), StoreError> {
    let (reached, tree) = row.reached.unzip();
    let params = params![
        row.node.key(),
        row.path.as_str(),
        row.skill.as_str(),
        row.pin.map(|n| signed(n.0)),
        reached.map(|n| signed(n.0)),
        bytes(tree),
        row.by,
        row.at.0,
    ];
    execute(conn, PUT, params).map_err(failed)?;
    Ok(())
}

pub(in super::super::super) fn remove(
    conn: &Connection,
    node: NodeId,
    path: &FilePath,
) -> Result<bool, StoreError> {
    let gone = "DELETE FROM skill_mounts WHERE node = ?1 AND path = ?2";
    Ok(execute(conn, gone, params![node.key(), path.as_str()]).map_err(failed)? > 0)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Mount, StoreError> {
    let node = row.id()?;
    let path = row.parsed(path)?;
    let skill = row.name()?;
    let pin = row.optional_number()?.map(Revision);
    let reached = row.optional_number()?.map(Revision);
    let tree = optional_tree(row)?;
    Ok(Mount { skill, node, path, pin, reached: reached.zip(tree), by: row.take()?, at: row.time()? })
}
