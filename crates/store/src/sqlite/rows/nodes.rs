//! Nodes.

use std::sync::LazyLock;

use cortex_core::id::{Epoch, NodeId, Seq};
use cortex_core::name::Name;
use cortex_core::node::{AuditHead, Facts, Node, Recovery};
use cortex_core::sandbox::{Layer, LayerState, Place};
use cortex_core::time::WallTime;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, json, many, one, signed};
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, name, labels, os, arch, hostname, version, sandbox, cpus, memory_bytes, tools, key_hash, \
         epoch, joined_at, last_seen_at, quarantined, removed_at, owner, recovery_key, recoveries, \
         recoveries_left, recovered_key, audit_seq, audit_hash, ceiling, layers, home, work, slots"
    };
}

pub(super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM nodes WHERE id = ?1");
pub(super) const BY_NAME: &str =
    concat!("SELECT ", columns!(), " FROM nodes WHERE name = ?1 AND removed_at IS NULL");
const LIVE: &str = concat!("SELECT ", columns!(), " FROM nodes WHERE removed_at IS NULL ORDER BY name");
const NEXT_EPOCH: &str = "UPDATE nodes SET epoch = epoch + 1 WHERE id = ?1 RETURNING epoch";
const OBSERVE_AUDIT: &str =
    "UPDATE nodes SET audit_seq = ?2, audit_hash = ?3 WHERE id = ?1 AND coalesce(audit_seq, 0) <= ?2";
const OBSERVE: &str = "UPDATE nodes SET last_seen_at = ?2 WHERE id = ?1";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("nodes", columns!()));

pub(in super::super) fn get(conn: &Connection, id: NodeId) -> Result<Option<Node>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn named(conn: &Connection, name: &Name) -> Result<Option<Node>, StoreError> {
    one(conn, BY_NAME, [name.as_str()], decode)
}

pub(in super::super) fn live(conn: &Connection) -> Result<Vec<Node>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super) fn put(conn: &Connection, node: &Node) -> Result<(), WriteError> {
    let (facts, recovery) = (&node.facts, node.recovery.as_ref());
    let params = params![
        node.id.key(),
        node.name.as_str(),
        json(&node.labels)?,
        facts.os,
        facts.arch,
        facts.hostname,
        facts.version,
        facts.sandbox,
        facts.cpus,
        signed(facts.memory_bytes),
        json(&facts.tools)?,
        node.key_hash.as_slice(),
        signed(node.epoch.0),
        node.joined_at.0,
        node.last_seen_at.map(|at| at.0),
        node.quarantined,
        node.removed_at.map(|at| at.0),
        node.owner.as_ref().map(Id::key),
        recovery.map(|recovery| recovery.key.as_slice()),
        recovery.map_or(0, |recovery| recovery.count),
        recovery.map_or(0, |recovery| recovery.left),
        recovery.and_then(|recovery| recovery.last.as_ref()).map(<[u8; 32]>::as_slice),
        node.audit_seen.map(|head| signed(head.seq.0)),
        node.audit_seen.as_ref().map(|head| head.hash.as_slice()),
        node.ceiling,
        layers_text(&facts.layers)?,
        facts.place.home,
        json(&facts.place.work)?,
        facts.slots,
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::node_name(node)),
        Err(error) => Err(failed(error).into()),
    }
}

pub(in super::super) fn next_epoch(conn: &Connection, id: NodeId) -> Result<Option<Epoch>, StoreError> {
    one(conn, NEXT_EPOCH, [id.key()], |row| row.number().map(Epoch))
}

pub(in super::super) fn observe(conn: &Connection, seen: &[(NodeId, WallTime)]) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(OBSERVE).map_err(failed)?;
    for (id, at) in seen {
        statement.execute(params![id.key(), at.0]).map_err(failed)?;
    }
    Ok(())
}

pub(in super::super) fn observe_audit(
    conn: &Connection,
    node: NodeId,
    head: AuditHead,
) -> Result<(), StoreError> {
    let params = params![node.key(), signed(head.seq.0), head.hash.as_slice()];
    execute(conn, OBSERVE_AUDIT, params).map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Node, StoreError> {
    let mut node = Node {
        id: row.id()?,
        name: row.name()?,
        labels: row.json()?,
        facts: Facts {
            os: row.take()?,
            arch: row.take()?,
            hostname: row.take()?,
            version: row.take()?,
            sandbox: row.take()?,
            cpus: row.take()?,
            memory_bytes: row.number()?,
            tools: row.json()?,
            layers: Vec::new(),
            place: Place::default(),
            slots: 0,
        },
        key_hash: row.hash()?,
        epoch: row.number().map(Epoch)?,
        joined_at: row.time()?,
        last_seen_at: row.optional_time()?,
        quarantined: row.take()?,
        removed_at: row.optional_time()?,
        owner: row.optional_id()?,
        recovery: recovery(row)?,
        audit_seen: audit_seen(row)?,
        ceiling: row.take()?,
    };
    node.facts.layers = layers(row)?;
    node.facts.place = Place { home: row.take()?, work: row.json()? };
    node.facts.slots = row.take()?;
    Ok(node)
}

/// Name, state and note of each layer.
fn layers_text(layers: &[Layer]) -> Result<String, StoreError> {
    json(&layers.iter().map(|layer| (&layer.name, layer.state.as_str(), &layer.note)).collect::<Vec<_>>())
}

fn layers(row: &mut Columns<'_, '_>) -> Result<Vec<Layer>, StoreError> {
    let read: Vec<(String, String, String)> = row.json()?;
    let layer = |(name, state, note): (String, String, String)| Layer {
        name,
        state: LayerState::parse_or_missing(&state),
        note,
    };
    Ok(read.into_iter().map(layer).collect())
}

fn recovery(row: &mut Columns<'_, '_>) -> Result<Option<Recovery>, StoreError> {
    let key: Option<Vec<u8>> = row.take()?;
    let (count, left, last) = (row.take()?, row.take()?, row.optional_hash()?);
    Ok(key.map(|key| Recovery { key, count, left, last }))
}

fn audit_seen(row: &mut Columns<'_, '_>) -> Result<Option<AuditHead>, StoreError> {
    let (seq, hash) = (row.optional_number()?.map(Seq), row.optional_hash()?);
    Ok(seq.zip(hash).map(|(seq, hash)| AuditHead { seq, hash }))
}
