//! Workspaces and skills on ordered maps.

mod port;

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::skill::{Mount, SkillRow};
use cortex_core::workspace::{Member, RevisionRow, Workspace};

use super::state::set;
use crate::sync::{VisitRoot, roots_of_member};
use crate::{StoreError, StoredConflict};

/// By workspace, revision, member and path; paths in the order of their bytes, as a database has them.
type ConflictKey = (WorkspaceId, Revision, MemberId, String);
/// By node and folder.
type FolderKey = (NodeId, String);

/// The rows and their indices. Changed by its setters alone, which keep the indices right.
#[derive(Default)]
pub(super) struct Sync {
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    names: BTreeMap<Name, WorkspaceId>,
    members: BTreeMap<MemberId, Member>,
    folders: BTreeMap<FolderKey, MemberId>,
    members_of: BTreeSet<(WorkspaceId, MemberId)>,
    revisions: BTreeMap<(WorkspaceId, Revision), RevisionRow>,
    conflicts: BTreeMap<ConflictKey, StoredConflict>,
    skills: BTreeMap<(Name, Revision), SkillRow>,
    mounts: BTreeMap<FolderKey, Mount>,
}

/// What was there before a change.
pub(super) enum SyncChange {
    Workspace(WorkspaceId, Option<Box<Workspace>>),
    Member(MemberId, Option<Box<Member>>),
    Revision((WorkspaceId, Revision), Option<Box<RevisionRow>>),
    Conflict(ConflictKey, Option<Box<StoredConflict>>),
    Skill((Name, Revision), Option<Box<SkillRow>>),
    Mount(FolderKey, Option<Box<Mount>>),
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
            SyncChange::Mount(key, row) => {
                let old = set(&mut self.mounts, key.clone(), row.map(|row| *row));
                SyncChange::Mount(key, old.map(Box::new))
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

    fn newest_skill(&self, name: &Name) -> Option<&SkillRow> {
        let all = (name.clone(), Revision(0))..=(name.clone(), Revision(u64::MAX));
        self.skills.range(all).next_back().map(|(_, row)| row)
    }

    fn revisions_of(&self, id: WorkspaceId) -> impl DoubleEndedIterator<Item = &RevisionRow> {
        self.revisions.range((id, Revision(0))..=(id, Revision(u64::MAX))).map(|(_, row)| row)
    }

    fn visit(&self, visit: VisitRoot<'_>) -> Result<(), StoreError> {
        for row in self.revisions.values() {
            visit(row.tree)?;
        }
        for row in self.workspaces.values() {
            visit(row.tree)?;
        }
        for row in self.members.values() {
            roots_of_member(row).try_for_each(&mut *visit)?;
        }
        for row in self.skills.values() {
            let since = (row.name.clone(), row.n)..=(row.name.clone(), Revision(u64::MAX));
            if self.skills.range(since).all(|(_, later)| later.removed_at.is_none()) {
                visit(row.tree)?;
            }
        }
        for (_, tree) in self.mounts.values().filter_map(|row| row.reached) {
            visit(tree)?;
        }
        Ok(())
    }
}
