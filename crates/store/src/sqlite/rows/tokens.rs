//! API tokens.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use cortex_core::id::TokenId;
use cortex_core::name::Selector;
use cortex_core::rights::Rights;
use cortex_core::time::WallTime;
use cortex_core::token::{NodeScope, Role, Token, TokenKind, Tool};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, is_unique, limit, many, one};
use super::upsert;
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, name, role, secret_hash, created_at, expires_at, revoked_at, kind, user, rights, nodes, \
         tools"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM tokens WHERE id = ?1");
const NEWEST: &str = concat!("SELECT ", columns!(), " FROM tokens ORDER BY id DESC");
const DELETE: &str = "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens \
     WHERE kind = 'session' AND (revoked_at < ?1 OR expires_at < ?1) ORDER BY id LIMIT ?2)";
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
        token.kind.as_str(),
        token.user.as_ref().map(Id::key),
        token.rights.map(|rights| rights.to_string()),
        token.nodes.as_ref().map(scope_text),
        token.tools.as_ref().map(tools_text),
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::token_name(token)),
        Err(error) => Err(failed(error).into()),
    }
}

pub(in super::super) fn trim(conn: &Connection, before: WallTime, batch: usize) -> Result<u64, StoreError> {
    execute(conn, DELETE, params![before.0, limit(batch)]).map(|gone| gone as u64).map_err(failed)
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
        kind: row.parsed(TokenKind::parse)?,
        user: row.optional_id()?,
        rights: row.optional_parsed(|text| Rights::parse(text).ok())?,
        nodes: row.optional_parsed(scope)?,
        tools: row.optional_parsed(tools)?,
    })
}

fn scope_text(scope: &NodeScope) -> String {
    match scope {
        NodeScope::Nodes(nodes) => format!("nodes:{}", joined(nodes)),
        NodeScope::Selector(selector) => format!("selector:{selector}"),
    }
}

fn scope(text: &str) -> Option<NodeScope> {
    match text.split_once(':')? {
        ("nodes", list) => parts(list).map(|id| id.parse().ok()).collect::<Option<_>>().map(NodeScope::Nodes),
        ("selector", selector) => Selector::parse(selector).ok().map(NodeScope::Selector),
        _ => None,
    }
}

fn tools_text(tools: &BTreeSet<Tool>) -> String {
    joined(tools.iter().map(|tool| tool.as_str()))
}

fn tools(text: &str) -> Option<BTreeSet<Tool>> {
    parts(text).map(Tool::parse).collect()
}

fn joined(items: impl IntoIterator<Item = impl ToString>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|part| !part.is_empty())
}
