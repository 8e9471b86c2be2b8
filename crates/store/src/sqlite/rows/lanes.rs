//! Lanes, and how many tasks there are of what.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{LaneId, NodeId, TokenId, UserId};
use cortex_core::name::{Name, Selector};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::{Kind, Owner, Priority, TaskState};
use rusqlite::types::Value;
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, many, one, signed};
use crate::StoreError;

macro_rules! columns {
    () => {
        "id, token, user, kind, priority, selector, prefer, excluded"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM lanes WHERE id = ?1");
const ALL: &str = concat!(
    "SELECT ",
    columns!(),
    ", counts.tasks, counts.open FROM lanes CROSS JOIN pool_counts AS counts \
     ON counts.of = 'lane' AND counts.key = lanes.id ORDER BY id"
);
pub(super) const BY_KEY: &str = "SELECT id FROM lanes WHERE token IS ?1 AND user IS ?2 AND kind = ?3 \
                                 AND priority = ?4 AND selector = ?5 AND prefer = ?6 AND excluded = ?7";
const PUT: &str =
    concat!("INSERT OR REPLACE INTO lanes (", columns!(), ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)");
const DELETE: &str = "DELETE FROM lanes WHERE id = ?1";
const MADE: &str = "SELECT value FROM numbers WHERE name = 'lanes_made'";
const PUT_MADE: &str = "UPDATE numbers SET value = ?1 WHERE name = 'lanes_made'";
const COUNTED: &str = "SELECT key, tasks, open FROM pool_counts WHERE of = ?1";
const OPEN: &str = "SELECT open FROM pool_counts WHERE of = 'party' AND key = ?1";
const COUNT: &str = "INSERT INTO pool_counts (of, key, tasks, open) VALUES (?1, ?2, ?3, ?4) \
                     ON CONFLICT (of, key) DO UPDATE SET tasks = excluded.tasks, open = excluded.open";
const COUNT_NONE: &str = "DELETE FROM pool_counts WHERE of = ?1 AND key = ?2";

/// What is counted of a lane, a party, or all tasks in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Counted {
    /// Tasks in whatever state; of a party those that are open.
    pub(in super::super) tasks: u64,
    /// Those that have not ended; of a state none.
    pub(in super::super) open: u64,
}

pub(in super::super) fn get(conn: &Connection, id: LaneId) -> Result<Option<LaneKey>, StoreError> {
    Ok(one(conn, BY_ID, [signed(id.0)], decode)?.map(|(_, key)| key))
}

pub(in super::super) fn all(conn: &Connection) -> Result<Vec<(LaneId, LaneKey, Counted)>, StoreError> {
    many(conn, ALL, [], |row| {
        let (id, key) = decode(row)?;
        Ok((id, key, counted(row)?))
    })
}

pub(in super::super) fn by_key(conn: &Connection, key: &LaneKey) -> Result<Option<LaneId>, StoreError> {
    let params = params![
        key.owner.token.as_ref().map(Id::key),
        key.owner.user.as_ref().map(Id::key),
        key.kind.as_str(),
        key.priority.get(),
        key.selector.to_string(),
        key.prefer.to_string(),
        excluded_bytes(&key.excluded),
    ];
    one(conn, BY_KEY, params, |row| row.number().map(LaneId))
}

/// Keeps a lane, or removes it.
pub(in super::super) fn set(conn: &Connection, id: LaneId, key: Option<&LaneKey>) -> Result<(), StoreError> {
    let Some(key) = key else {
        return execute(conn, DELETE, [signed(id.0)]).map(drop).map_err(failed);
    };
    let params = params![
        signed(id.0),
        key.owner.token.as_ref().map(Id::key),
        key.owner.user.as_ref().map(Id::key),
        key.kind.as_str(),
        key.priority.get(),
        key.selector.to_string(),
        key.prefer.to_string(),
        excluded_bytes(&key.excluded),
    ];
    execute(conn, PUT, params).map(drop).map_err(failed)
}

pub(in super::super) fn made(conn: &Connection) -> Result<LaneId, StoreError> {
    let made = one(conn, MADE, [], |row| row.number().map(LaneId))?;
    made.ok_or_else(|| StoreError::Damaged("the number `lanes_made` is missing".to_owned()))
}

pub(in super::super) fn set_made(conn: &Connection, made: LaneId) -> Result<(), StoreError> {
    execute(conn, PUT_MADE, [signed(made.0)]).map(drop).map_err(failed)
}

pub(in super::super) fn open_of(conn: &Connection, party: Owner) -> Result<u64, StoreError> {
    Ok(one(conn, OPEN, params![party_bytes(party)], |row| row.number())?.unwrap_or(0))
}

pub(in super::super) fn parties(conn: &Connection) -> Result<BTreeMap<Owner, u64>, StoreError> {
    let rows = many(conn, COUNTED, ["party"], |row| Ok((row.bytes(party)?, counted(row)?.open)))?;
    Ok(rows.into_iter().collect())
}

pub(in super::super) fn states(conn: &Connection) -> Result<BTreeMap<TaskState, u64>, StoreError> {
    let rows =
        many(conn, COUNTED, ["state"], |row| Ok((row.parsed(TaskState::parse)?, counted(row)?.tasks)))?;
    Ok(rows.into_iter().collect())
}

/// Of what something is counted.
#[derive(Clone, Copy, Debug)]
pub(in super::super) enum CountOf {
    Lane(LaneId),
    Party(Owner),
    State(TaskState),
}

/// Keeps a count; of what there is none, there is no row.
pub(in super::super) fn set_count(
    conn: &Connection,
    of: CountOf,
    counted: Counted,
) -> Result<(), StoreError> {
    let (of, key) = match of {
        CountOf::Lane(id) => ("lane", Value::from(signed(id.0))),
        CountOf::Party(party) => ("party", Value::from(party_bytes(party))),
        CountOf::State(state) => ("state", Value::from(state.as_str().to_owned())),
    };
    let done = if counted == Counted::default() {
        execute(conn, COUNT_NONE, params![of, key])
    } else {
        execute(conn, COUNT, params![of, key, signed(counted.tasks), signed(counted.open)])
    };
    done.map(drop).map_err(failed)
}

/// A party as a key: what it is, and its id.
pub(in super::super) fn party_bytes(party: Owner) -> Vec<u8> {
    match (party.user, party.token) {
        (Some(user), _) => [b"u", user.as_bytes().as_slice()].concat(),
        (None, Some(token)) => [b"t", token.as_bytes().as_slice()].concat(),
        (None, None) => b"-".to_vec(),
    }
}

/// The token of an owner as a part of a key; empty when it has none.
pub(in super::super) fn token_bytes(owner: Owner) -> Vec<u8> {
    owner.token.map(|token| token.as_bytes().to_vec()).unwrap_or_default()
}

fn party(bytes: &[u8]) -> Option<Owner> {
    let (what, id) = bytes.split_first()?;
    match (*what, id.is_empty()) {
        (b'u', _) => Some(Owner { token: None, user: Some(UserId::from_slice(id)?) }),
        (b't', _) => Some(Owner { token: Some(TokenId::from_slice(id)?), user: None }),
        (b'-', true) => Some(Owner { token: None, user: None }),
        _ => None,
    }
}

fn excluded_bytes(nodes: &BTreeSet<NodeId>) -> Vec<u8> {
    nodes.iter().flat_map(|node| *node.as_bytes()).collect()
}

fn counted(row: &mut Columns<'_, '_>) -> Result<Counted, StoreError> {
    Ok(Counted { tasks: row.number()?, open: row.number()? })
}

fn decode(row: &mut Columns<'_, '_>) -> Result<(LaneId, LaneKey), StoreError> {
    let id = row.number().map(LaneId)?;
    let owner = Owner { token: row.optional_id()?, user: row.optional_id()? };
    let key = LaneKey {
        owner,
        kind: row.parsed(kind)?,
        priority: row.small(|number| Priority::new(number).ok())?,
        selector: row.parsed(|text| Selector::parse(text).ok())?,
        prefer: row.parsed(|text| Selector::parse(text).ok())?,
        excluded: row.id_list()?.into_iter().collect(),
    };
    Ok((id, key))
}

fn kind(text: &str) -> Option<Kind> {
    if text == Kind::COMMAND {
        return Some(Kind::command());
    }
    Name::parse(text).ok().and_then(|name| Kind::payload(name).ok())
}
