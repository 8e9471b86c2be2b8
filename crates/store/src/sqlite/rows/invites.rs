//! Invites.

use std::sync::LazyLock;

use cortex_core::id::{InviteId, NodeId};
use cortex_core::invite::Invite;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, json, limit, many, one};
use super::upsert;
use crate::StoreError;

macro_rules! columns {
    () => {
        "id, secret_hash, labels, profile, created_by, created_at, expires_at, used_by, used_at, \
         revoked_at, owner, max_profile"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM invites WHERE id = ?1");
const OF: &str = concat!("SELECT ", columns!(), " FROM invites WHERE used_by = ?1");
const NEWEST: &str = concat!("SELECT ", columns!(), " FROM invites ORDER BY id DESC LIMIT ?1");
static PUT: LazyLock<String> = LazyLock::new(|| upsert("invites", columns!()));

pub(in super::super) fn get(conn: &Connection, id: InviteId) -> Result<Option<Invite>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn of(conn: &Connection, node: NodeId) -> Result<Option<Invite>, StoreError> {
    one(conn, OF, [node.key()], decode)
}

pub(in super::super) fn newest(conn: &Connection, count: usize) -> Result<Vec<Invite>, StoreError> {
    many(conn, NEWEST, [limit(count)], decode)
}

pub(in super::super) fn put(conn: &Connection, invite: &Invite) -> Result<(), StoreError> {
    let params = params![
        invite.id.key(),
        invite.secret_hash.as_slice(),
        json(&invite.labels)?,
        invite.profile,
        invite.created_by,
        invite.created_at.0,
        invite.expires_at.0,
        invite.used_by.as_ref().map(Id::key),
        invite.used_at.map(|at| at.0),
        invite.revoked_at.map(|at| at.0),
        invite.owner.as_ref().map(Id::key),
        invite.max_profile,
    ];
    execute(conn, &PUT, params).map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Invite, StoreError> {
    Ok(Invite {
        id: row.id()?,
        secret_hash: row.hash()?,
        labels: row.json()?,
        profile: row.take()?,
        created_by: row.take()?,
        created_at: row.time()?,
        expires_at: row.time()?,
        used_by: row.optional_id()?,
        used_at: row.optional_time()?,
        revoked_at: row.optional_time()?,
        owner: row.optional_id()?,
        max_profile: row.take()?,
    })
}
