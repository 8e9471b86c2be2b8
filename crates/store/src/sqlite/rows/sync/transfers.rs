//! Transfers: those that are open, and the last that have ended.

use std::sync::LazyLock;

use cortex_core::id::TransferId;
use cortex_core::limits::TRANSFER_ROWS_KEPT_MAX;
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, limit, many, one, signed};
use super::super::upsert;
use super::{bytes, optional_tree, path};
use crate::{StoreError, StoredTransfer, TransferEnd, TransferFilter, TransferKind};

macro_rules! columns {
    () => {
        "id, kind, node, workspace, dest, root, whole, base, options, caller, token, at, outcome, ended_at"
    };
}

pub(in super::super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM transfers WHERE id = ?1");
pub(in super::super) const OPEN: &str =
    concat!("SELECT ", columns!(), " FROM transfers WHERE ended_at IS NULL ORDER BY id");
pub(in super::super) const ALL: &str =
    concat!("SELECT ", columns!(), " FROM transfers WHERE id < ?1 ORDER BY id DESC LIMIT ?2");
pub(in super::super) const OF: &str =
    concat!("SELECT ", columns!(), " FROM transfers WHERE node = ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3");
pub(in super::super) const ENDED_COUNT: &str = "SELECT count(*) FROM transfers WHERE ended_at IS NOT NULL";
const TRIM: &str = "DELETE FROM transfers WHERE id IN \
     (SELECT id FROM transfers WHERE ended_at IS NOT NULL ORDER BY ended_at, id LIMIT ?1)";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("transfers", columns!()));

/// Above every id.
const LAST: [u8; 17] = [0xff; 17];

pub(in super::super::super) fn get(
    conn: &Connection,
    id: TransferId,
) -> Result<Option<StoredTransfer>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super::super) fn open(conn: &Connection) -> Result<Vec<StoredTransfer>, StoreError> {
    many(conn, OPEN, [], decode)
}

pub(in super::super::super) fn list(
    conn: &Connection,
    filter: &TransferFilter,
    count: usize,
) -> Result<Vec<StoredTransfer>, StoreError> {
    let before: &[u8] = filter.before.as_ref().map_or(&LAST, |id| id.as_bytes());
    match filter.node {
        Some(node) => many(conn, OF, params![node.key(), before, limit(count)], decode),
        None => many(conn, ALL, params![before, limit(count)], decode),
    }
}

pub(in super::super::super) fn put(conn: &Connection, transfer: &StoredTransfer) -> Result<(), StoreError> {
    let params = params![
        transfer.id.key(),
        transfer.kind.as_str(),
        transfer.node.key(),
        transfer.workspace.as_ref().map(Id::key),
        transfer.dest.as_str(),
        bytes(transfer.root),
        transfer.whole,
        bytes(transfer.base),
        transfer.options,
        transfer.caller,
        transfer.token.as_ref().map(Id::key),
        transfer.at.0,
        transfer.end.map(|(end, _)| end.as_str()),
        transfer.end.map(|(_, at)| at.0),
    ];
    execute(conn, &PUT, params).map_err(failed)?;
    if transfer.end.is_some() {
        let kept = one(conn, ENDED_COUNT, [], |row| row.number())?.unwrap_or_default();
        let beyond = kept.saturating_sub(TRANSFER_ROWS_KEPT_MAX as u64);
        if beyond > 0 {
            execute(conn, TRIM, [signed(beyond)]).map_err(failed)?;
        }
    }
    Ok(())
}

fn decode(row: &mut Columns<'_, '_>) -> Result<StoredTransfer, StoreError> {
    Ok(StoredTransfer {
        id: row.id()?,
        kind: row.parsed(TransferKind::parse)?,
        node: row.id()?,
        workspace: row.optional_id()?,
        dest: row.parsed(path)?,
        root: optional_tree(row)?,
        whole: row.take()?,
        base: optional_tree(row)?,
        options: row.take()?,
        caller: row.take()?,
        token: row.optional_id()?,
        at: row.time()?,
        end: row.optional_parsed(TransferEnd::parse)?.zip(row.optional_time()?),
    })
}
