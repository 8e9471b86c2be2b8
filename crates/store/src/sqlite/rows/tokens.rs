//! API tokens.

use std::sync::LazyLock;

use cortex_core::id::TokenId;
use cortex_core::token::{Role, Token};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, many, one};
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, name, role, secret_hash, created_at, expires_at, revoked_at"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM tokens WHERE id = ?1");
const NEWEST: &str = concat!("SELECT ", columns!(), " FROM tokens ORDER BY id DESC");
static PUT: LazyLock<String> = LazyLock::new(|| upsert("tokens", columns!()));

pub(in super::super) fn get(conn: &Connection, id: TokenId) -> Result<Option<Token>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn newest(conn: &Connection) -> Result<Vec<Token>, StoreError> {
    many(conn, NEWEST, [], decode)
}

pub(in super::super) fn put(conn: &Connection, token: &Token) -> Result<(), WriteError> {
    let params = params![
        token.id.key(),
        token.name.as_str(),
        token.role.as_str(),
        token.secret_hash.as_slice(),
        token.created_at.0,
        token.expires_at.map(|at| at.0),
        token.revoked_at.map(|at| at.0),
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::token_name(token)),
        Err(error) => Err(failed(error).into()),
    }
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Token, StoreError> {
    Ok(Token {
        id: row.id()?,
        name: row.name()?,
        role: row.parsed(Role::parse)?,
        secret_hash: row.hash()?,
        created_at: row.time()?,
        expires_at: row.optional_time()?,
        revoked_at: row.optional_time()?,
    })
}
