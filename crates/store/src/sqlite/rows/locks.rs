//! Locks.

use std::sync::LazyLock;

use cortex_core::id::LockId;
use cortex_core::lock::{Lock, Target};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, many, one};
use super::upsert;
use crate::StoreError;

macro_rules! columns {
    () => {
        "id, target, message, created_by, created_at, expires_at, lifted_at, lifted_by"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM locks WHERE id = ?1");
pub(super) const LIVE: &str =
    concat!("SELECT ", columns!(), " FROM locks WHERE lifted_at IS NULL ORDER BY id");
static PUT: LazyLock<String> = LazyLock::new(|| upsert("locks", columns!()));

pub(in super::super) fn get(conn: &Connection, id: LockId) -> Result<Option<Lock>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn live(conn: &Connection) -> Result<Vec<Lock>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super) fn put(conn: &Connection, lock: &Lock) -> Result<(), StoreError> {
    let params = params![
        lock.id.key(),
        target_text(&lock.target),
        lock.message,
        lock.created_by,
        lock.created_at.0,
        lock.expires_at.map(|at| at.0),
        lock.lifted_at.map(|at| at.0),
        lock.lifted_by,
    ];
    execute(conn, &PUT, params).map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Lock, StoreError> {
    Ok(Lock {
        id: row.id()?,
        target: row.parsed(target)?,
        message: row.take()?,
        created_by: row.take()?,
        created_at: row.time()?,
        expires_at: row.optional_time()?,
        lifted_at: row.optional_time()?,
        lifted_by: row.take()?,
    })
}

fn target_text(target: &Target) -> String {
    match target {
        Target::User(id) => format!("user:{id}"),
        Target::Token(id) => format!("token:{id}"),
        Target::Node(id) => format!("node:{id}"),
        Target::Label(key, value) => format!("label:{key}={value}"),
    }
}

fn target(text: &str) -> Option<Target> {
    match text.split_once(':')? {
        ("user", id) => id.parse().ok().map(Target::User),
        ("token", id) => id.parse().ok().map(Target::Token),
        ("node", id) => id.parse().ok().map(Target::Node),
        ("label", label) => {
            label.split_once('=').map(|(key, value)| Target::Label(key.to_owned(), value.to_owned()))
        }
        _ => None,
    }
}
