//! Parts of the work pool that stand still.

use std::sync::LazyLock;

use cortex_core::pool::pause::{Part, Pause};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, execute, failed, many};
use super::upsert;
use crate::StoreError;

macro_rules! columns {
    () => {
        "part, by, since, message, drained_at"
    };
}

const ALL: &str = concat!("SELECT ", columns!(), " FROM pauses ORDER BY part");
const REMOVE: &str = "DELETE FROM pauses WHERE part = ?1";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("pauses", columns!()));

pub(in super::super) fn all(conn: &Connection) -> Result<Vec<Pause>, StoreError> {
    many(conn, ALL, [], decode)
}

pub(in super::super) fn put(conn: &Connection, pause: &Pause) -> Result<(), StoreError> {
    let drained_at = pause.drained_at.map(|at| at.0);
    let params = params![pause.part.to_string(), pause.by, pause.since.0, pause.message, drained_at];
    execute(conn, &PUT, params).map(drop).map_err(failed)
}

pub(in super::super) fn remove(conn: &Connection, part: &Part) -> Result<bool, StoreError> {
    execute(conn, REMOVE, [part.to_string()]).map(|gone| gone > 0).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Pause, StoreError> {
    Ok(Pause {
        part: row.parsed(|text| Part::parse(text).ok())?,
        by: row.take()?,
        since: row.time()?,
        message: row.take()?,
        drained_at: row.optional_time()?,
    })
}
