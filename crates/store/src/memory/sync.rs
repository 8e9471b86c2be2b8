//! Workspaces, skills and transfers on ordered maps.

mod port;

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{MemberId, NodeId, Revision, TransferId, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::skill::SkillRow;
use cortex_core::time::WallTime;
use cortex_core::workspace::{Member, RevisionRow, Workspace};

use super::state::set;
use crate::sync::{VisitRoot, roots_of_member};
use crate::{StoreError, StoredConflict, StoredPush, StoredRoot, StoredTransfer};

/// By workspace, revision, member and path; paths in the order of their bytes, as a database has them.
type ConflictKey = (WorkspaceId, Revision, MemberId, String);
/// By node and folder.
type PushKey = (NodeId, String);

/// The rows and their indices. Changed by its setters alone, which keep the indices right.
#[derive(Default)]
pub(super) struct Sync {
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    names: BTreeMap<Name, WorkspaceId>,
    members: BTreeMap<MemberId, Member>,
    folders: BTreeMap<PushKey, MemberId>,
    members_of: BTreeSet<(WorkspaceId, MemberId)>,
    revisions: BTreeMap<(WorkspaceId, Revision), RevisionRow>,
    conflicts: BTreeMap<ConflictKey, StoredConflict>,
    skills: BTreeMap<(Name, Revision), SkillRow>,
    transfers: BTreeMap<TransferId, StoredTransfer>,
    ended: BTreeSet<(WallTime, TransferId)>,
    pushes: BTreeMap<PushKey, StoredPush>,
    used: BTreeSet<(WallTime, NodeId, String)>,
}

/// What was there before a change.
pub(super) enum SyncChange {
    Workspace(WorkspaceId, Option<Box<Workspace>>),
    Member(MemberId, Option<Box<Member>>),
    Revision((WorkspaceId, Revision), Option<Box<RevisionRow>>),
    Conflict(ConflictKey, Option<Box<StoredConflict>>),
    Skill((Name, Revision), Option<Box<SkillRow>>),
    Transfer(TransferId, Option<Box<StoredTransfer>>),
    Push(PushKey, Option<Box<StoredPush>>),
}

impl Sync {
    /// Makes a change and hands back the one that takes it back.
    pub(super) fn set(&mut self, change: SyncChange) -> SyncChange {
        match change {
            SyncChange::Workspace(id, row) => {
                let old = self.set_workspace(id, row.map(|row| *row));
                SyncChange::Workspace(id, old.map(Box::new))
            }
            SyncChange::Member(id, row) => {
                let old = self.set_member(id, row.map(|row| *row));
                SyncChange::Member(id, old.map(Box::new))
            }
            SyncChange::Revision(key, row) => {
                let old = set(&mut self.revisions, key, row.map(|row| *row));
                SyncChange::Revision(key, old.map(Box::new))
            }
            SyncChange::Conflict(key, row) => {
                let old = set(&mut self.conflicts, key.clone(), row.map(|row| *row));
                SyncChange::Conflict(key, old.map(Box::new))
            }
            SyncChange::Skill(key, row) => {
                let old = set(&mut self.skills, key.clone(), row.map(|row| *row));
                SyncChange::Skill(key, old.map(Box::new))
            }
            SyncChange::Transfer(id, row) => {
                let old = self.set_transfer(id, row.map(|row| *row));
                SyncChange::Transfer(id, old.map(Box::new))
            }
            SyncChange::Push(key, row) => {
                let old = self.set_push(&key, row.map(|row| *row));
                SyncChange::Push(key, old.map(Box::new))
            }
        }
    }

    fn set_workspace(&mut self, id: WorkspaceId, row: Option<Workspace>) -> Option<Workspace> {
        if let Some(old) = self.workspaces.get(&id).filter(|old| old.removed_at.is_none()) {
            self.names.remove(&old.name);
        }
        if let Some(row) = row.as_ref().filter(|row| row.removed_at.is_none()) {
            self.names.insert(row.name.clone(), id);
        }
        set(&mut self.workspaces, id, row)
    }

    fn set_member(&mut self, id: MemberId, row: Option<Member>) -> Option<Member> {
        if let Some(old) = self.members.get(&id) {
            self.folders.remove(&(old.node, old.path.to_string()));
            self.members_of.remove(&(old.workspace, id));
        }
        if let Some(row) = &row {
            self.folders.insert((row.node, row.path.to_string()), id);
            self.members_of.insert((row.workspace, id));
        }
        set(&mut self.members, id, row)
    }

    fn set_transfer(&mut self, id: TransferId, row: Option<StoredTransfer>) -> Option<StoredTransfer> {
        let end = |row: Option<&StoredTransfer>| row.and_then(|row| row.end).map(|(_, at)| (at, id));
        end(self.transfers.get(&id)).map(|key| self.ended.remove(&key));
        end(row.as_ref()).map(|key| self.ended.insert(key));
        set(&mut self.transfers, id, row)
    }

    fn set_push(&mut self, key: &PushKey, row: Option<StoredPush>) -> Option<StoredPush> {
        let used = |row: &StoredPush| (row.at, row.node, row.dest.to_string());
        self.pushes.get(key).map(|old| self.used.remove(&used(old)));
        row.as_ref().map(|row| self.used.insert(used(row)));
        set(&mut self.pushes, key.clone(), row)
    }

    fn newest_skill(&self, name: &Name) -> Option<&SkillRow> {
        let all = (name.clone(), Revision(0))..=(name.clone(), Revision(u64::MAX));
        self.skills.range(all).next_back().map(|(_, row)| row)
    }

    fn revisions_of(&self, id: WorkspaceId) -> impl DoubleEndedIterator<Item = &RevisionRow> {
        self.revisions.range((id, Revision(0))..=(id, Revision(u64::MAX))).map(|(_, row)| row)
    }

    fn visit(&self, visit: VisitRoot<'_>) -> Result<(), StoreError> {
        let root = |tree, content| StoredRoot { tree, content };
        for row in self.revisions.values() {
            visit(root(row.tree, true))?;
        }
        for row in self.workspaces.values() {
            visit(root(row.tree, true))?;
        }
        for row in self.members.values() {
            roots_of_member(row).try_for_each(&mut *visit)?;
        }
        for row in self.skills.values() {
            if self.newest_skill(&row.name).is_some_and(|newest| newest.removed_at.is_none()) {
                visit(root(row.tree, true))?;
            }
        }
        for row in self.transfers.values().filter(|row| row.end.is_none()) {
            row.root.filter(|_| row.whole).map_or(Ok(()), |tree| visit(root(tree, true)))?;
            row.base.map_or(Ok(()), |tree| visit(root(tree, false)))?;
        }
        for row in self.pushes.values() {
            [row.root, row.begun].into_iter().flatten().try_for_each(|tree| visit(root(tree, false)))?;
        }
        Ok(())
    }
}
