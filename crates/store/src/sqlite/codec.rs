//! Between columns and values. What is stored and cannot be read is `Damaged`, whichever column.

use cortex_core::id::{
    ConsentId, GrantId, InviteId, LockId, MemberId, NodeId, OpId, RunId, ScheduleId, TaskId, TokenId, UserId,
    WorkspaceId,
};
use cortex_core::name::Name;
use cortex_core::time::WallTime;
use rusqlite::types::{FromSql, ToSqlOutput};
use rusqlite::{Connection, ErrorCode, Params, Row, ToSql, ffi};

use crate::StoreError;

/// SQLite's error as ours.
pub(super) fn failed(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreError::Damaged(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}

/// Whether a unique index said no.
pub(super) fn is_unique(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_CONSTRAINT_UNIQUE)
}

/// Reads at most one row.
pub(super) fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl FnOnce(&mut Columns<'_, '_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(None) };
    decode(&mut Columns { row, at: 0 }).map(Some)
}

/// Reads all rows.
pub(super) fn many<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&mut Columns<'_, '_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query(params).map_err(failed)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        found.push(decode(&mut Columns { row, at: 0 })?);
    }
    Ok(found)
}

/// Reads all rows one by one, and keeps none.
pub(super) fn each(
    conn: &Connection,
    sql: &str,
    mut visit: impl FnMut(&mut Columns<'_, '_>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        visit(&mut Columns { row, at: 0 })?;
    }
    Ok(())
}

/// Runs a statement that answers nothing. Returns how many rows it changed.
pub(super) fn execute(conn: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<usize> {
    conn.prepare_cached(sql)?.execute(params)
}

/// A count as SQLite takes it for LIMIT.
pub(super) fn limit(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// An unsigned number in SQLite's signed column, bit by bit. Order is kept below 2^63, which is
/// all that revisions and positions reach.
pub(super) const fn signed(number: u64) -> i64 {
    number.cast_signed()
}

/// A list or map as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(error.to_string()))
}

/// One of our ids as the sixteen bytes of a column.
pub(super) struct Key<'i>(&'i [u8; 16]);

impl ToSql for Key<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(self.0.as_slice()))
    }
}

/// The ids, which are alike.
pub(super) trait Id: Sized {
    fn key(&self) -> Key<'_>;
    fn read(bytes: &[u8]) -> Option<Self>;
}

macro_rules! ids {
    ($($id:ty),*) => { $(
        impl Id for $id {
            fn key(&self) -> Key<'_> {
                Key(self.as_bytes())
            }
            fn read(bytes: &[u8]) -> Option<Self> {
                Self::from_slice(bytes)
            }
        }
    )* };
}
ids!(
    NodeId,
    RunId,
    InviteId,
    TokenId,
    UserId,
    GrantId,
    LockId,
    ConsentId,
    TaskId,
    ScheduleId,
    OpId,
    WorkspaceId,
    MemberId
);

/// The columns of a row, taken one after the other in the order of the query.
pub(super) struct Columns<'r, 's> {
    row: &'r Row<'s>,
    at: usize,
}

impl Columns<'_, '_> {
    /// A value that SQLite knows.
    pub(super) fn take<T: FromSql>(&mut self) -> Result<T, StoreError> {
        let value = self.row.get(self.at).map_err(|error| self.damaged(&error.to_string()))?;
        self.at += 1;
        Ok(value)
    }

    /// An unsigned number.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        self.take::<i64>().map(i64::cast_unsigned)
    }

    /// An unsigned number or nothing.
    pub(super) fn optional_number(&mut self) -> Result<Option<u64>, StoreError> {
        Ok(self.take::<Option<i64>>()?.map(i64::cast_unsigned))
    }

    /// A moment.
    pub(super) fn time(&mut self) -> Result<WallTime, StoreError> {
        self.take().map(WallTime)
    }

    /// A moment or nothing.
    pub(super) fn optional_time(&mut self) -> Result<Option<WallTime>, StoreError> {
        Ok(self.take::<Option<i64>>()?.map(WallTime))
    }

    /// An id.
    pub(super) fn id<T: Id>(&mut self) -> Result<T, StoreError> {
        self.optional_id()?.ok_or_else(|| self.damaged("an id is missing"))
    }

    /// An id or nothing.
    pub(super) fn optional_id<T: Id>(&mut self) -> Result<Option<T>, StoreError> {
        let bytes = self.blob()?.map(|bytes| T::read(bytes));
        let id = bytes.map(|id| id.ok_or_else(|| self.damaged("an id has not sixteen bytes"))).transpose()?;
        self.at += 1;
        Ok(id)
    }

    /// A list of ids, one after the other; nothing is none.
    pub(super) fn id_list<T: Id>(&mut self) -> Result<Vec<T>, StoreError> {
        let (ids, rest) = self.blob()?.unwrap_or_default().as_chunks::<16>();
        let ids: Option<Vec<T>> = ids.iter().map(|id| T::read(id)).collect();
        let ids = ids.filter(|_| rest.is_empty());
        let ids = ids.ok_or_else(|| self.damaged("an id has not sixteen bytes"))?;
        self.at += 1;
        Ok(ids)
    }

    /// What some bytes stand for.
    pub(super) fn bytes<T>(&mut self, read: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, StoreError> {
        let value = self.blob()?.and_then(read).ok_or_else(|| self.damaged("unknown bytes"))?;
        self.at += 1;
        Ok(value)
    }

    /// What must be there, of what may be missing.
    pub(super) fn present<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let begin = self.at;
        let value = read(self)?;
        value.ok_or_else(|| Self { row: self.row, at: begin }.damaged("it is missing"))
    }

    /// Leaves columns out.
    pub(super) const fn skip(&mut self, columns: usize) {
        self.at += columns;
    }

    /// A number of one byte.
    pub(super) fn small<T>(&mut self, make: impl FnOnce(u8) -> Option<T>) -> Result<T, StoreError> {
        let number: u8 = self.row.get(self.at).map_err(|error| self.damaged(&error.to_string()))?;
        let value = make(number).ok_or_else(|| self.damaged("unknown number"))?;
        self.at += 1;
        Ok(value)
    }

    /// A hash.
    pub(super) fn hash(&mut self) -> Result<[u8; 32], StoreError> {
        let hash = self.blob()?.and_then(|bytes| bytes.try_into().ok());
        let hash = hash.ok_or_else(|| self.damaged("a hash has not thirty-two bytes"))?;
        self.at += 1;
        Ok(hash)
    }

    /// A hash or nothing.
    pub(super) fn optional_hash(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        let hash = self.blob()?.map(|bytes| bytes.try_into());
        let hash = hash.transpose().map_err(|_| self.damaged("a hash has not thirty-two bytes"))?;
        self.at += 1;
        Ok(hash)
    }

    /// A name.
    pub(super) fn name(&mut self) -> Result<Name, StoreError> {
        self.parsed(|text| Name::parse(text).ok())
    }

    /// A list of names.
    pub(super) fn names<T: FromIterator<Name>>(&mut self) -> Result<T, StoreError> {
        let names: Vec<String> =
            serde_json::from_str(self.text()?).map_err(|error| self.damaged(&error.to_string()))?;
        let names = names.iter().map(|name| Name::parse(name)).collect::<Result<_, _>>();
        let names = names.map_err(|refusal| self.damaged(&refusal.message))?;
        self.at += 1;
        Ok(names)
    }

    /// A text of a closed list.
    pub(super) fn parsed<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, StoreError> {
        let value = self.text().and_then(|text| parse(text).ok_or_else(|| self.damaged("unknown text")))?;
        self.at += 1;
        Ok(value)
    }

    /// A text of a closed list, or nothing.
    pub(super) fn optional_parsed<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, StoreError> {
        let text = self.row.get_ref(self.at).map_err(failed)?.as_str_or_null();
        let text = text.map_err(|error| self.damaged(&error.to_string()))?;
        let value = text.map(|text| parse(text).ok_or_else(|| self.damaged("unknown text"))).transpose()?;
        self.at += 1;
        Ok(value)
    }

    /// A list or map.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let value = serde_json::from_str(self.text()?).map_err(|error| self.damaged(&error.to_string()))?;
        self.at += 1;
        Ok(value)
    }

    /// A list or map, or nothing.
    pub(super) fn optional_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let text = self.row.get_ref(self.at).map_err(failed)?.as_str_or_null();
        let text = text.map_err(|error| self.damaged(&error.to_string()))?;
        let value = text.map(serde_json::from_str).transpose();
        let value = value.map_err(|error| self.damaged(&error.to_string()))?;
        self.at += 1;
        Ok(value)
    }

    fn text(&self) -> Result<&str, StoreError> {
        let value = self.row.get_ref(self.at).map_err(failed)?;
        value.as_str().map_err(|error| self.damaged(&error.to_string()))
    }

    fn blob(&self) -> Result<Option<&[u8]>, StoreError> {
        let value = self.row.get_ref(self.at).map_err(failed)?;
        value.as_blob_or_null().map_err(|error| self.damaged(&error.to_string()))
    }

    fn damaged(&self, why: &str) -> StoreError {
        let column = self.row.as_ref().column_name(self.at).unwrap_or("?");
        StoreError::Damaged(format!("column {column}: {why}"))
    }
}
