//! Roles given to users and groups.

use std::sync::LazyLock;

use cortex_core::name::{Name, Selector};
use cortex_core::token::Role;
use cortex_core::user::{RoleGrant, Subject};
use rusqlite::{Connection, params};

use super::super::codec::{Columns, Id, execute, failed, many};
use super::upsert;
use crate::StoreError;

macro_rules! columns {
    () => {
        "id, subject, role, selector, created_by, created_at, revoked_at"
    };
}

pub(super) const LIVE: &str =
    concat!("SELECT ", columns!(), " FROM grants WHERE revoked_at IS NULL ORDER BY id");
static PUT: LazyLock<String> = LazyLock::new(|| upsert("grants", columns!()));

pub(in super::super) fn live(conn: &Connection) -> Result<Vec<RoleGrant>, StoreError> {
    many(conn, LIVE, [], decode)
}

pub(in super::super) fn put(conn: &Connection, grant: &RoleGrant) -> Result<(), StoreError> {
    let params = params![
        grant.id.key(),
        subject_text(&grant.subject),
        grant.role.as_str(),
        grant.selector.to_string(),
        grant.created_by,
        grant.created_at.0,
        grant.revoked_at.map(|at| at.0),
    ];
    execute(conn, &PUT, params).map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<RoleGrant, StoreError> {
    Ok(RoleGrant {
        id: row.id()?,
        subject: row.parsed(subject)?,
        role: row.parsed(Role::parse)?,
        selector: row.parsed(|text| Selector::parse(text).ok())?,
        created_by: row.take()?,
        created_at: row.time()?,
        revoked_at: row.optional_time()?,
    })
}

fn subject_text(subject: &Subject) -> String {
    match subject {
        Subject::User(id) => format!("user:{id}"),
        Subject::Group(name) => format!("group:{name}"),
    }
}

fn subject(text: &str) -> Option<Subject> {
    match text.split_once(':')? {
        ("user", id) => id.parse().ok().map(Subject::User),
        ("group", name) => Name::parse(name).ok().map(Subject::Group),
        _ => None,
    }
}
