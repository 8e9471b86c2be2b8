//! The event log.

use cortex_core::event::{Event, EventKind};
use cortex_core::id::Seq;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, limit, many, one, signed};
use crate::{LoggedEvent, StoreError};

pub(super) const AFTER: &str = "SELECT seq, kind, at, node, run, actor, subject, detail FROM events \
                     WHERE seq > ?1 ORDER BY seq LIMIT ?2";
/// What was trimmed counts even when nothing is left.
const SPAN: &str = "SELECT trimmed.value + 1, coalesce((SELECT max(seq) FROM events), trimmed.value) \
                    FROM numbers AS trimmed WHERE trimmed.name = 'events_trimmed'";
const APPEND: &str = "INSERT INTO events (seq, kind, at, node, run, actor, subject, detail) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const DELETE: &str = "DELETE FROM events WHERE seq <= ?1";
const TRIMMED: &str = "UPDATE numbers SET value = ?1 WHERE name = 'events_trimmed'";

pub(in super::super) fn after(
    conn: &Connection,
    after: Seq,
    count: usize,
) -> Result<Vec<LoggedEvent>, StoreError> {
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    many(conn, AFTER, params![after, limit(count)], decode)
}

pub(in super::super) fn span(conn: &Connection) -> Result<(Seq, Seq), StoreError> {
    let span = one(conn, SPAN, [], |row| Ok((Seq(row.number()?), Seq(row.number()?))))?;
    span.ok_or_else(|| StoreError::Damaged("the number `events_trimmed` is missing".to_owned()))
}

pub(in super::super) fn append(conn: &Connection, seq: Seq, event: &Event) -> Result<(), StoreError> {
    let params = params![
        signed(seq.0),
        event.kind.as_str(),
        event.at.0,
        event.node.as_ref().map(Id::key),
        event.run.as_ref().map(Id::key),
        event.actor,
        event.subject,
        event.detail,
    ];
    execute(conn, APPEND, params).map(drop).map_err(failed)
}

pub(in super::super) fn trim(conn: &Connection, keep: u64, batch: u64) -> Result<u64, StoreError> {
    let (oldest, newest) = span(conn)?;
    let kept = (newest.0 + 1).saturating_sub(oldest.0);
    let count = kept.saturating_sub(keep).min(batch);
    if count == 0 {
        return Ok(0);
    }
    let last = signed(oldest.0 + count - 1);
    execute(conn, DELETE, [last]).map_err(failed)?;
    execute(conn, TRIMMED, [last]).map_err(failed)?;
    Ok(count)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<LoggedEvent, StoreError> {
    Ok(LoggedEvent {
        seq: row.number().map(Seq)?,
        event: Event {
            kind: row.parsed(EventKind::parse)?,
            at: row.time()?,
            node: row.optional_id()?,
            run: row.optional_id()?,
            actor: row.take()?,
            subject: row.take()?,
            detail: row.take()?,
        },
    })
}
