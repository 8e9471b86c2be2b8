//! People.

use std::sync::LazyLock;

use cortex_core::id::UserId;
use cortex_core::name::Name;
use cortex_core::user::{PasswordHash, User};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, json, many, one};
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, name, password, groups, created_at, removed_at"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM users WHERE id = ?1");
pub(super) const BY_NAME: &str =
    concat!("SELECT ", columns!(), " FROM users WHERE name = ?1 AND removed_at IS NULL");
const LIVE: &str = concat!("SELECT ", columns!(), " FROM users WHERE removed_at IS NULL ORDER BY name");
static PUT: LazyLock<String> = LazyLock::new(|| upsert("users", columns!()));

pub(in super::super) fn get(conn: &Connection, id: UserId) -> Result<Option<User>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn named(conn: &Connection, name: &Name) -> Result<Option<User>, StoreError> {
    one(conn, BY_NAME, [name.as_str()], decode)
}

pub(in super::super) fn live(conn: &Connection) -> Result<Vec<User>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super) fn put(conn: &Connection, user: &User) -> Result<(), WriteError> {
    let params = params![
        user.id.key(),
        user.name.as_str(),
        user.password.as_ref().map(PasswordHash::reveal),
        json(&user.groups.iter().map(Name::as_str).collect::<Vec<_>>())?,
        user.created_at.0,
        user.removed_at.map(|at| at.0),
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::user_name(user)),
        Err(error) => Err(failed(error).into()),
    }
}

fn decode(row: &mut Columns<'_, '_>) -> Result<User, StoreError> {
    Ok(User {
        id: row.id()?,
        name: row.name()?,
        password: row.take::<Option<String>>()?.map(PasswordHash::new),
        groups: row.names()?,
        created_at: row.time()?,
        removed_at: row.optional_time()?,
    })
}
