//! Policies: every revision that is kept, as bytes.

use cortex_core::id::{NodeId, Revision};
use cortex_core::limits::POLICY_REVISIONS_KEPT;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, limit, many, one, signed};
use crate::{StoreError, StoredPolicy, WriteError, conflict};

macro_rules! columns {
    () => {
        "node, revision, document, signature, changed_by, changed_at"
    };
}

pub(super) const NEWEST: &str =
    concat!("SELECT ", columns!(), " FROM policy_revisions WHERE node = ?1 ORDER BY revision DESC LIMIT 1");
const LIVE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM policy_revisions AS one WHERE node IN (SELECT id FROM nodes WHERE removed_at IS NULL) \
     AND revision = (SELECT max(revision) FROM policy_revisions WHERE node = one.node) ORDER BY node"
);
pub(super) const HISTORY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM policy_revisions WHERE node = ?1 AND revision < ?2 ORDER BY revision DESC LIMIT ?3"
);
const PUT: &str = concat!(
    "INSERT INTO policy_revisions (",
    columns!(),
    ") SELECT ?1, ?2, ?3, ?4, ?5, ?6 \
     WHERE NOT EXISTS (SELECT 1 FROM policy_revisions WHERE node = ?1 AND revision >= ?2)"
);
/// Nothing while there are no more than are kept: what is compared with is null then.
pub(super) const TRIM: &str = "DELETE FROM policy_revisions WHERE node = ?1 AND revision < \
     (SELECT revision FROM policy_revisions WHERE node = ?1 ORDER BY revision DESC LIMIT 1 OFFSET ?2)";

pub(in super::super) fn get(conn: &Connection, node: NodeId) -> Result<Option<StoredPolicy>, StoreError> {
    one(conn, NEWEST, [node.key()], decode)
}

pub(in super::super) fn live(conn: &Connection) -> Result<Vec<StoredPolicy>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super) fn history(
    conn: &Connection,
    node: NodeId,
    before: Option<Revision>,
    count: usize,
) -> Result<Vec<StoredPolicy>, StoreError> {
    let before = before.map_or(i64::MAX, |before| signed(before.0));
    many(conn, HISTORY, params![node.key(), before, limit(count)], decode)
}

pub(in super::super) fn put(conn: &Connection, policy: &StoredPolicy) -> Result<(), WriteError> {
    let params = params![
        policy.node.key(),
        signed(policy.revision.0),
        policy.document,
        policy.signature,
        policy.changed_by,
        policy.changed_at.0,
    ];
    if execute(conn, PUT, params).map_err(failed)? > 0 {
        let last_kept = limit(POLICY_REVISIONS_KEPT - 1);
        execute(conn, TRIM, params![policy.node.key(), last_kept]).map_err(failed)?;
        return Ok(());
    }
    let stored = get(conn, policy.node)?.map(|stored| stored.revision);
    Err(conflict::policy_revision(policy, stored.unwrap_or_default()))
}

fn decode(row: &mut Columns<'_, '_>) -> Result<StoredPolicy, StoreError> {
    Ok(StoredPolicy {
        node: row.id()?,
        revision: row.number().map(Revision)?,
        document: row.take()?,
        signature: row.take()?,
        changed_by: row.take()?,
        changed_at: row.time()?,
    })
}
