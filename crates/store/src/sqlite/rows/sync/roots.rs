//! The trees that are to stay, as [`crate::SyncRead::each_root`] says.

use cortex_core::files::content::TreeId;
use rusqlite::Connection;

use super::super::super::codec::each;
use crate::StoreError;
use crate::sync::VisitRoot;

/// The columns that name one.
pub(in super::super) const QUERIES: &[&str] = &[
    "SELECT tree FROM revisions",
    "SELECT tree FROM workspaces",
    "SELECT received FROM members",
    "SELECT agreed FROM members",
    "SELECT begun_tree FROM members",
    "SELECT tree FROM skills AS skill WHERE n > (SELECT coalesce(max(n), 0) FROM skills \
     WHERE name = skill.name AND removed_at IS NOT NULL)",
    "SELECT tree FROM skill_mounts",
];

pub(in super::super::super) fn visit(conn: &Connection, visit: VisitRoot<'_>) -> Result<(), StoreError> {
    for sql in QUERIES {
        each(conn, sql, |row| row.optional_hash()?.map_or(Ok(()), |tree| visit(TreeId::new(tree))))?;
    }
    Ok(())
}
