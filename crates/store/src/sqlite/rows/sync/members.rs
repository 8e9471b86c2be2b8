//! Members of workspaces.

use std::sync::LazyLock;

use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::sync::{Cause, End, Halt, Rule};
use cortex_core::time::WallTime;
use cortex_core::workspace::{Begun, Member, Observed, Role, RootIdentity, Settled};
use rusqlite::{Connection, params};

use super::super::super::codec::{Columns, Id, execute, failed, is_unique, json, many, one, signed};
use super::super::upsert;
use super::{bytes, optional_tree, path};
use crate::{StoreError, WriteError, conflict};

macro_rules! columns {
    () => {
        "id, workspace, node, path, role, marker, dev, ino, intent, observed_tree, observed_at, news, \
         received, merged, agreed, begun_revision, begun_tree, reached, settled_revision, settled_tree, \
         halt, accepted, unavailable, repair, conflicts, drift_since"
    };
}

pub(in super::super) const BY_ID: &str = concat!("SELECT ", columns!(), " FROM members WHERE id = ?1");
pub(in super::super) const OF: &str =
    concat!("SELECT ", columns!(), " FROM members WHERE workspace = ?1 ORDER BY id");
pub(in super::super) const ON: &str =
    concat!("SELECT ", columns!(), " FROM members WHERE node = ?1 ORDER BY id");
pub(in super::super) const AT: &str = "SELECT id FROM members WHERE node = ?1 AND path = ?2";
static PUT: LazyLock<String> = LazyLock::new(|| upsert("members", columns!()));

/// A halt as it is kept: its id, and its causes with rule, side, removals, and of how many.
type Told = (String, Vec<(String, String, u64, u64)>);

pub(in super::super::super) fn get(conn: &Connection, id: MemberId) -> Result<Option<Member>, StoreError> {
    one(conn, BY_ID, [id.key()], decode)
}

pub(in super::super::super) fn of(
    conn: &Connection,
    workspace: WorkspaceId,
) -> Result<Vec<Member>, StoreError> {
    many(conn, OF, [workspace.key()], decode)
}

pub(in super::super::super) fn on(conn: &Connection, node: NodeId) -> Result<Vec<Member>, StoreError> {
    many(conn, ON, [node.key()], decode)
}

/// The member that has this one's folder.
pub(in super::super::super) fn holder(
    conn: &Connection,
    member: &Member,
) -> Result<Option<MemberId>, StoreError> {
    one(conn, AT, params![member.node.key(), member.path.as_str()], |row| row.id())
}

pub(in super::super::super) fn remove(conn: &Connection, id: MemberId) -> Result<(), StoreError> {
    execute(conn, "DELETE FROM members WHERE id = ?1", [id.key()]).map_err(failed)?;
    Ok(())
}

pub(in super::super::super) fn put(conn: &Connection, member: &Member) -> Result<(), WriteError> {
    let params = params![
        member.id.key(),
        member.workspace.key(),
        member.node.key(),
        member.path.as_str(),
        member.role.as_str(),
        member.root.map(|root| root.marker),
        member.root.map(|root| signed(root.dev)),
        member.root.map(|root| signed(root.ino)),
        signed(member.intent.0),
        bytes(member.observed.map(|observed| observed.tree)),
        member.observed.map(|observed| observed.at.0),
        signed(member.news),
        bytes(member.received),
        bytes(member.merged),
        bytes(member.agreed),
        member.begun.map(|begun| signed(begun.revision.0)),
        bytes(member.begun.map(|begun| begun.tree)),
        signed(member.reached.0),
        member.settled.map(|settled| signed(settled.revision.0)),
        bytes(member.settled.map(|settled| settled.tree)),
        member.halt.as_ref().map(halt_text).transpose()?,
        member.accepted.map(|halt| halt.to_string()),
        member.unavailable.map(Rule::as_str),
        member.repair,
        signed(member.conflicts),
        member.drift_since.map(|at| at.0),
    ];
    match execute(conn, &PUT, params) {
        Ok(_) => Ok(()),
        Err(error) if is_unique(&error) => Err(conflict::member_path(member)),
        Err(error) => Err(failed(error).into()),
    }
}

fn halt_text(halt: &Halt) -> Result<String, StoreError> {
    let cause = |cause: &Cause| {
        (cause.rule.as_str().to_owned(), cause.end.as_str().to_owned(), cause.deletes, cause.of)
    };
    let told: Told = (halt.id.to_string(), halt.causes.iter().map(cause).collect());
    json(&told)
}

fn halt((id, causes): Told) -> Result<Halt, StoreError> {
    let damaged = || StoreError::Damaged("column halt: unknown text".to_owned());
    let cause = |(rule, end, deletes, of): (String, String, u64, u64)| {
        Some(Cause { rule: Rule::parse(&rule)?, end: End::parse(&end)?, deletes, of })
    };
    let causes: Option<Vec<Cause>> = causes.into_iter().map(cause).collect();
    Ok(Halt { id: id.parse().map_err(|_| damaged())?, causes: causes.ok_or_else(damaged)? })
}

fn decode(row: &mut Columns<'_, '_>) -> Result<Member, StoreError> {
    Ok(Member {
        id: row.id()?,
        workspace: row.id()?,
        node: row.id()?,
        path: row.parsed(path)?,
        role: row.parsed(Role::parse)?,
        root: root(row)?,
        intent: row.number().map(Revision)?,
        observed: observed(row)?,
        news: row.number()?,
        received: optional_tree(row)?,
        merged: optional_tree(row)?,
        agreed: optional_tree(row)?,
        begun: at(row)?.map(|(revision, tree)| Begun { revision, tree }),
        reached: row.number().map(Revision)?,
        settled: at(row)?.map(|(revision, tree)| Settled { revision, tree }),
        halt: row.optional_json()?.map(halt).transpose()?,
        accepted: row.optional_parsed(|text| text.parse().ok())?,
        unavailable: row.optional_parsed(Rule::parse)?,
        repair: row.take()?,
        conflicts: row.number()?,
        drift_since: row.optional_time()?,
    })
}

fn root(row: &mut Columns<'_, '_>) -> Result<Option<RootIdentity>, StoreError> {
    let (marker, dev, ino) = (row.optional_hash()?, row.optional_number()?, row.optional_number()?);
    Ok(marker.zip(dev.zip(ino)).map(|(marker, (dev, ino))| RootIdentity { marker, dev, ino }))
}

fn observed(row: &mut Columns<'_, '_>) -> Result<Option<Observed>, StoreError> {
    let (tree, at): (_, Option<WallTime>) = (optional_tree(row)?, row.optional_time()?);
    Ok(tree.zip(at).map(|(tree, at)| Observed { tree, at }))
}

/// A revision and a tree.
fn at(
    row: &mut Columns<'_, '_>,
) -> Result<Option<(Revision, cortex_core::files::content::TreeId)>, StoreError> {
    let (revision, tree) = (row.optional_number()?, optional_tree(row)?);
    Ok(revision.map(Revision).zip(tree))
}
