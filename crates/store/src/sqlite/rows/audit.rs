//! The audit log. Rows are added and read, never changed or removed.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::{Revision, Seq};
use rusqlite::{Connection, ToSql, params};

use super::super::codec::{Columns, Id, execute, failed, json, limit, many, one, signed};
use crate::chain::CHAIN_START;
use crate::{AuditFilter, LoggedAudit, StoreError};

macro_rules! columns {
    () => {
        "seq, at, actor, action, outcome, reason, node, run, policy_revision, argv, detail, token, \
         policy_hash, consent, hash"
    };
}

const HEAD: &str = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
const APPEND: &str =
    concat!("INSERT INTO audit (", columns!(), ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");

pub(in super::super) fn list(
    conn: &Connection,
    filter: &AuditFilter,
    count: usize,
) -> Result<Vec<LoggedAudit>, StoreError> {
    let after = i64::try_from(filter.after.0).unwrap_or(i64::MAX);
    let count = limit(count);
    let node = filter.node.as_ref().map(Id::key);
    let mut params: Vec<&dyn ToSql> = vec![&after, &count];
    let mut conditions = Vec::new();
    if let Some(node) = &node {
        params.push(node);
        conditions.push("node = ?3");
    }
    if let Some(actor) = &filter.actor {
        params.push(actor);
        conditions.push(if node.is_some() { "actor = ?4" } else { "actor = ?3" });
    }
    let mut rows = many(conn, &list_sql(&conditions, filter.newest), params.as_slice(), decode)?;
    if filter.newest {
        rows.reverse();
    }
    Ok(rows)
}

/// After ?1, at most ?2, further conditions from ?3 on.
pub(super) fn list_sql(conditions: &[&str], newest: bool) -> String {
    let further: String = conditions.iter().flat_map(|condition| [" AND ", condition]).collect();
    let order = if newest { " ORDER BY seq DESC LIMIT ?2" } else { " ORDER BY seq LIMIT ?2" };
    [concat!("SELECT ", columns!(), " FROM audit WHERE seq > ?1"), &further, order].concat()
}

/// Number and hash of the last row.
pub(in super::super) fn head(conn: &Connection) -> Result<(Seq, [u8; 32]), StoreError> {
    let head = one(conn, HEAD, [], |row| Ok((row.number().map(Seq)?, row.hash()?)))?;
    Ok(head.unwrap_or((Seq(0), CHAIN_START)))
}

pub(in super::super) fn append(
    conn: &Connection,
    seq: Seq,
    row: &AuditRow,
    hash: &[u8; 32],
) -> Result<(), StoreError> {
    let params = params![
        signed(seq.0),
        row.at.0,
        row.actor,
        row.action,
        row.outcome.as_str(),
        row.reason,
        row.node.as_ref().map(Id::key),
        row.run.as_ref().map(Id::key),
        row.policy_revision.map(|revision| signed(revision.0)),
        json(&row.argv)?,
        row.detail,
        row.token.as_ref().map(Id::key),
        row.policy_hash.as_ref().map(<[u8; 32]>::as_slice),
        row.consent.as_ref().map(Id::key),
        hash.as_slice(),
    ];
    execute(conn, APPEND, params).map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<LoggedAudit, StoreError> {
    Ok(LoggedAudit {
        seq: row.number().map(Seq)?,
        row: AuditRow {
            at: row.time()?,
            actor: row.take()?,
            action: row.take()?,
            outcome: row.parsed(Outcome::parse)?,
            reason: row.take()?,
            node: row.optional_id()?,
            run: row.optional_id()?,
            policy_revision: row.optional_number()?.map(Revision),
            argv: row.json()?,
            detail: row.take()?,
            token: row.optional_id()?,
            policy_hash: row.optional_hash()?,
            consent: row.optional_id()?,
        },
        hash: row.hash()?,
    })
}
