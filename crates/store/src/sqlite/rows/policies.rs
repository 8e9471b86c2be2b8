//! Policies.

use std::sync::LazyLock;

use cortex_core::id::{NodeId, Revision};
use cortex_core::policy::{Grant, Mode, Policy};
use cortex_core::time::WallTime;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, json, many, one, signed};
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "node, revision, profile, mode, allow, deny, env, timeout_ms_max, changed_at"
    };
}

const BY_NODE: &str = concat!("SELECT ", columns!(), " FROM policies WHERE node = ?1");
const LIVE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM policies WHERE node IN (SELECT id FROM nodes WHERE removed_at IS NULL) ORDER BY node"
);
const REVISION: &str = "SELECT revision FROM policies WHERE node = ?1";
static PUT: LazyLock<String> = LazyLock::new(|| {
    format!("{} WHERE excluded.revision > policies.revision", upsert("policies", columns!()))
});

pub(in super::super) fn get(conn: &Connection, node: NodeId) -> Result<Option<Policy>, StoreError> {
    one(conn, BY_NODE, [node.key()], decode)
}

pub(in super::super) fn live(conn: &Connection) -> Result<Vec<Policy>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super) fn put(conn: &Connection, policy: &Policy) -> Result<(), WriteError> {
    let allow: Vec<(&str, Option<i64>)> =
        policy.allow.iter().map(|grant| (grant.program.as_str(), grant.until.map(|end| end.0))).collect();
    let params = params![
        policy.node.key(),
        signed(policy.revision.0),
        policy.profile,
        policy.mode.as_str(),
        json(&allow)?,
        json(&policy.deny)?,
        json(&policy.env)?,
        signed(policy.timeout_ms_max),
        policy.changed_at.0,
    ];
    if execute(conn, &PUT, params).map_err(failed)? > 0 {
        return Ok(());
    }
    let stored = one(conn, REVISION, [policy.node.key()], |row| row.number().map(Revision))?;
    Err(conflict::policy_revision(policy, stored.unwrap_or_default()))
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Policy, StoreError> {
    Ok(Policy {
        node: row.id()?,
        revision: row.number().map(Revision)?,
        profile: row.take()?,
        mode: row.parsed(|text| Some(Mode::parse_or_strict(text)))?,
        allow: row.json::<Vec<(String, Option<i64>)>>()?.into_iter().map(grant).collect(),
        deny: row.json()?,
        env: row.json()?,
        timeout_ms_max: row.number()?,
        changed_at: row.time()?,
    })
}

fn grant((program, until): (String, Option<i64>)) -> Grant {
    Grant { program, until: until.map(WallTime) }
}
