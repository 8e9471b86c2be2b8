//! Profiles of policies that a hub keeps beside the built-in ones.

use std::sync::LazyLock;

use cortex_core::name::Name;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, execute, failed, many};
use super::upsert;
use crate::{StoreError, StoredProfile};

macro_rules! columns {
    () => {
        "name, document, changed_by, changed_at"
    };
}

const ALL: &str = concat!("SELECT ", columns!(), " FROM profiles ORDER BY name");
const REMOVE: &str = "DELETE FROM profiles WHERE name = ?1";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("profiles", columns!()));

pub(in super::super) fn all(conn: &Connection) -> Result<Vec<StoredProfile>, StoreError> {
    many(conn, ALL, [], decode)
}

pub(in super::super) fn put(conn: &Connection, profile: &StoredProfile) -> Result<(), StoreError> {
    let params = params![profile.name.as_str(), profile.document, profile.changed_by, profile.changed_at.0];
    execute(conn, &PUT, params).map(drop).map_err(failed)
}

pub(in super::super) fn remove(conn: &Connection, name: &Name) -> Result<bool, StoreError> {
    execute(conn, REMOVE, [name.as_str()]).map(|gone| gone > 0).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<StoredProfile, StoreError> {
    Ok(StoredProfile {
        name: row.name()?,
        document: row.take()?,
        changed_by: row.take()?,
        changed_at: row.time()?,
    })
}
