//! Questions to people, and their lasting answers.

use std::sync::LazyLock;

use cortex_core::consent::{Consent, ConsentRule, Pattern, Standing};
use cortex_core::id::{ConsentId, NodeId};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use rusqlite::{Connection, ToSql, params};

use super::super::codec::{Columns, Id, execute, failed, json, limit, many, one, signed};
use super::upsert;
use crate::{ConsentFilter, StoreError};

macro_rules! columns {
    () => {
        "id, run, node, caller, token, user, argv, cwd, env, timeout_ms, stdin, key, traceparent, reason, rule, notes, standing, \
         answered_by, note, created_at, expires_at, answered_at"
    };
}

macro_rules! rule_columns {
    () => {
        "id, node, token, pattern, exact, cwd, env, stdin, until, made_by, made_at, ended_at"
    };
}

const BY_ID: &str = concat!("SELECT ", columns!(), " FROM consents WHERE id = ?1");
pub(super) const BY_KEY: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM consents WHERE caller = ?1 AND node = ?2 AND key = ?3 ORDER BY id DESC LIMIT 1"
);
/// By the index alone, without the rows.
pub(super) const PENDING: &str = "SELECT count(*) FROM consents WHERE standing = 'pending'";
pub(super) const ALIKE: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM consents WHERE node = ?1 AND +standing IN ('approved', 'denied') \
     AND json_extract(argv, '$[0]') = ?2 ORDER BY id DESC LIMIT ?3"
);
const DELETE: &str = "DELETE FROM consents WHERE id IN \
     (SELECT id FROM consents WHERE answered_at < ?1 ORDER BY answered_at, id LIMIT ?2)";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("consents", columns!()));
pub(super) const RULES: &str =
    concat!("SELECT ", rule_columns!(), " FROM consent_rules WHERE ended_at IS NULL ORDER BY id");
static PUT_RULE: LazyLock<String> = LazyLock::new(|| upsert("consent_rules", rule_columns!()));

pub(in super::super) fn get(conn: &Connection, id: ConsentId) -> Result<Option<Consent>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super) fn list(
    conn: &Connection,
    filter: &ConsentFilter,
    count: usize,
) -> Result<Vec<Consent>, StoreError> {
    // Every id is below seventeen bytes of ones.
    let before = filter.before.map_or(vec![u8::MAX; 17], |id| id.as_bytes().to_vec());
    let count = limit(count);
    let (standing, token) = (filter.standing.map(Standing::as_str), filter.token.as_ref().map(Id::key));
    let mut params: Vec<&dyn ToSql> = vec![&before, &count];
    params.extend(standing.as_ref().map(|standing| standing as &dyn ToSql));
    params.extend(token.as_ref().map(|token| token as &dyn ToSql));
    many(conn, list_sql(standing.is_some(), token.is_some()), params.as_slice(), decode)
}

pub(in super::super) fn by_key(
    conn: &Connection,
    caller: &str,
    node: NodeId,
    key: &str,
) -> Result<Option<Consent>, StoreError> {
    one(conn, BY_KEY, params![caller, node.key(), key], decode)
}

pub(in super::super) fn pending(conn: &Connection) -> Result<usize, StoreError> {
    let count: Option<u64> = one(conn, PENDING, [], |row| row.number())?;
    Ok(usize::try_from(count.unwrap_or(0)).unwrap_or(usize::MAX))
}

pub(in super::super) fn alike(
    conn: &Connection,
    node: NodeId,
    program: &str,
    count: usize,
) -> Result<Vec<Consent>, StoreError> {
    many(conn, ALIKE, params![node.key(), program, limit(count)], decode)
}

/// Before ?1, at most ?2, of the standing ?3, then of the token. There are few that wait, so that
/// their index is the better one.
pub(super) const fn list_sql(of_standing: bool, of_token: bool) -> &'static str {
    match (of_standing, of_token) {
        (true, true) => concat!(
            "SELECT ",
            columns!(),
            " FROM consents WHERE standing = ?3 AND +token = ?4 AND id < ?1 ORDER BY id DESC LIMIT ?2"
        ),
        (true, false) => concat!(
            "SELECT ",
            columns!(),
            " FROM consents WHERE standing = ?3 AND id < ?1 ORDER BY id DESC LIMIT ?2"
        ),
        (false, true) => concat!(
            "SELECT ",
            columns!(),
            " FROM consents WHERE token = ?3 AND id < ?1 ORDER BY id DESC LIMIT ?2"
        ),
        (false, false) => {
            concat!("SELECT ", columns!(), " FROM consents WHERE id < ?1 ORDER BY id DESC LIMIT ?2")
        }
    }
}

pub(in super::super) fn put(conn: &Connection, consent: &Consent) -> Result<(), StoreError> {
    let params = params![
        consent.id.key(),
        consent.run.key(),
        consent.node.key(),
        consent.caller,
        consent.token.key(),
        consent.user.as_ref().map(Id::key),
        json(&consent.spec.argv)?,
        consent.spec.cwd,
        json(&consent.spec.env)?,
        consent.spec.timeout_ms.map(signed),
        consent.spec.stdin,
        consent.key,
        consent.traceparent,
        consent.reason,
        consent.rule,
        json(&consent.notes)?,
        consent.standing.as_str(),
        consent.answered_by,
        consent.note,
        consent.created_at.0,
        consent.expires_at.0,
        consent.answered_at.map(|at| at.0),
    ];
    execute(conn, &PUT, params).map(drop).map_err(failed)
}

pub(in super::super) fn trim(conn: &Connection, before: WallTime, batch: usize) -> Result<u64, StoreError> {
    execute(conn, DELETE, params![before.0, limit(batch)]).map(|gone| gone as u64).map_err(failed)
}

pub(in super::super) fn rules(conn: &Connection) -> Result<Vec<ConsentRule>, StoreError> {
    many(conn, RULES, [], decode_rule)
}

pub(in super::super) fn put_rule(conn: &Connection, rule: &ConsentRule) -> Result<(), StoreError> {
    let params = params![
        rule.id.key(),
        rule.node.key(),
        rule.token.key(),
        json(&rule.pattern.0)?,
        rule.exact,
        rule.cwd,
        json(&rule.env)?,
        rule.stdin,
        rule.until.map(|at| at.0),
        rule.made_by,
        rule.made_at.0,
        rule.ended_at.map(|at| at.0),
    ];
    execute(conn, &PUT_RULE, params).map(drop).map_err(failed)
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Consent, StoreError> {
    Ok(Consent {
        id: row.id()?,
        run: row.id()?,
        node: row.id()?,
        caller: row.take()?,
        token: row.id()?,
        user: row.optional_id()?,
        spec: RunSpec {
            argv: row.json()?,
            cwd: row.take()?,
            env: row.json()?,
            timeout_ms: row.optional_number()?,
            stdin: row.take()?,
        },
        key: row.take()?,
        traceparent: row.take()?,
        reason: row.take()?,
        rule: row.take()?,
        notes: row.json()?,
        standing: row.parsed(Standing::parse)?,
        answered_by: row.take()?,
        note: row.take()?,
        created_at: row.time()?,
        expires_at: row.time()?,
        answered_at: row.optional_time()?,
    })
}

fn decode_rule(row: &mut Columns<'_, '_>) -> Result<ConsentRule, StoreError> {
    Ok(ConsentRule {
        id: row.id()?,
        node: row.id()?,
        token: row.id()?,
        pattern: Pattern(row.json()?),
        exact: row.take()?,
        cwd: row.take()?,
        env: row.json()?,
        stdin: row.take()?,
        until: row.optional_time()?,
        made_by: row.take()?,
        made_at: row.time()?,
        ended_at: row.optional_time()?,
    })
}
