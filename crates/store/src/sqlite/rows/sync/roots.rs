//! The trees that are to stay, as [`crate::SyncRead::each_root`] says.

use cortex_core::files::content::TreeId;
use rusqlite::Connection;

use super::super::super::codec::each;
use crate::sync::VisitRoot;
use crate::{StoreError, StoredRoot};

/// Which columns name one, and whether its content stays.
pub(in super::super) const QUERIES: &[(&str, bool)] = &[
    ("SELECT tree FROM revisions", true),
    ("SELECT tree FROM workspaces", true),
    ("SELECT received FROM members", true),
    ("SELECT agreed FROM members", true),
    ("SELECT begun_tree FROM members", true),
    (
        "SELECT tree FROM skills AS skill WHERE \
         (SELECT removed_at FROM skills WHERE name = skill.name ORDER BY n DESC LIMIT 1) IS NULL",
        true,
    ),
    ("SELECT root FROM transfers WHERE ended_at IS NULL AND whole", true),
    ("SELECT base FROM transfers WHERE ended_at IS NULL", false),
    ("SELECT root FROM pushes", false),
    ("SELECT begun FROM pushes", false),
];

pub(in super::super::super) fn visit(conn: &Connection, visit: VisitRoot<'_>) -> Result<(), StoreError> {
    for (sql, content) in QUERIES {
        each(conn, sql, |row| match row.optional_hash()? {
            Some(tree) => visit(StoredRoot { tree: TreeId::new(tree), content: *content }),
            None => Ok(()),
        })?;
    }
    Ok(())
}
