//! Revisions of skills.

use cortex_core::files::content::ContentId;
use cortex_core::id::Revision;
use cortex_core::limits::SKILL_REVISIONS_KEPT;
use cortex_core::name::Name;
use cortex_core::skill::SkillRow;
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, limit, many, one, signed};
use super::tree;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "name, n, tree, content, by, source, at, removed_at"
    };
}

pub(in super::super) const NEWEST: &str =
    concat!("SELECT ", columns!(), " FROM skills WHERE name = ?1 ORDER BY n DESC LIMIT 1");
pub(in super::super) const BEFORE: &str =
    concat!("SELECT ", columns!(), " FROM skills WHERE name = ?1 AND n < ?2 ORDER BY n DESC LIMIT ?3");
const LIVE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM skills AS skill WHERE removed_at IS NULL \
      AND n = (SELECT max(n) FROM skills WHERE name = skill.name) ORDER BY name"
);
const PUT: &str = concat!("INSERT OR REPLACE INTO skills (", columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
const TRIM: &str = "DELETE FROM skills WHERE name = ?1 AND n <= \
     (SELECT n FROM skills WHERE name = ?1 ORDER BY n DESC LIMIT 1 OFFSET ?2)";

pub(in super::super::super) fn newest(
    conn: &Connection,
    name: &Name,
) -> Result<Option<SkillRow>, StoreError> {
    one(conn, NEWEST, [name.as_str()], decode)
}

pub(in super::super::super) fn live(conn: &Connection) -> Result<Vec<SkillRow>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super::super) fn before(
    conn: &Connection,
    name: &Name,
    before: Option<Revision>,
    count: usize,
) -> Result<Vec<SkillRow>, StoreError> {
    let before = before.map_or(i64::MAX, |n| signed(n.0));
    many(conn, BEFORE, params![name.as_str(), before, limit(count)], decode)
}

pub(in super::super::super) fn put(conn: &Connection, row: &SkillRow) -> Result<(), WriteError> {
    let head = newest(conn, &row.name)?.map(|head| head.n).unwrap_or_default();
    if row.n != head && row.n != head.next() || row.n == Revision(0) {
        return Err(conflict::skill_revision(row, head));
    }
    let params = params![
        row.name.as_str(),
        signed(row.n.0),
        row.tree.as_bytes(),
        row.content.as_bytes(),
        row.by,
        row.from.as_ref().map(Id::key),
        row.at.0,
        row.removed_at.map(|at| at.0),
    ];
    execute(conn, PUT, params).map_err(failed)?;
    execute(conn, TRIM, params![row.name.as_str(), limit(SKILL_REVISIONS_KEPT)]).map_err(failed)?;
    Ok(())
}

fn decode(row: &mut Columns<'_, '_>) -> Result<SkillRow, StoreError> {
    Ok(SkillRow {
        name: row.name()?,
        n: row.number().map(Revision)?,
        tree: tree(row)?,
        content: row.hash().map(ContentId::new)?,
        by: row.take()?,
        from: row.optional_id()?,
        at: row.time()?,
        removed_at: row.optional_time()?,
    })
}
