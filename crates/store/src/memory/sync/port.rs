//! The port's part on workspaces and skills over the maps.

use std::ops::Deref;

use cortex_core::files::path::FilePath;
use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::limits::{SKILL_REVISIONS_KEPT, WORKSPACE_CONFLICTS_MAX};
use cortex_core::name::Name;
use cortex_core::skill::{Mount, SkillRow};
use cortex_core::time::WallTime;
use cortex_core::workspace::{Decided, Member, RevisionRow, Workspace};

use super::super::read::Held;
use super::super::state::State;
use super::super::tx::Writing;
use super::{ConflictKey, SyncChange};
use crate::sync::VisitRoot;
use crate::{StoreError, StoredConflict, SyncRead, SyncTx, WriteError, conflict};

const FIRST_MEMBER: MemberId = MemberId::new(uuid::Uuid::nil());
const LAST_MEMBER: MemberId = MemberId::new(uuid::Uuid::max());

impl<S: Deref<Target = State>, U> SyncRead for Held<S, U> {
    fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        Ok(self.state.sync.workspaces.get(&id).cloned())
    }

    fn workspace_named(&self, name: &Name) -> Result<Option<Workspace>, StoreError> {
        let sync = &self.state.sync;
        Ok(sync.names.get(name).and_then(|id| sync.workspaces.get(id)).cloned())
    }

    fn workspaces(&self) -> Result<Vec<Workspace>, StoreError> {
        let sync = &self.state.sync;
        Ok(sync.names.values().filter_map(|id| sync.workspaces.get(id)).cloned().collect())
    }

    fn workspace_count(&self) -> Result<usize, StoreError> {
        Ok(self.state.sync.names.len())
    }

    fn removed_workspaces(&self, limit: usize) -> Result<Vec<(WorkspaceId, WallTime)>, StoreError> {
        let all = self.state.sync.workspaces.values();
        let mut removed: Vec<(WallTime, WorkspaceId)> =
            all.filter_map(|ws| Some((ws.removed_at?, ws.id))).collect();
        removed.sort();
        Ok(removed.into_iter().take(limit).map(|(at, id)| (id, at)).collect())
    }

    fn member(&self, id: MemberId) -> Result<Option<Member>, StoreError> {
        Ok(self.state.sync.members.get(&id).cloned())
    }

    fn members_of(&self, workspace: WorkspaceId) -> Result<Vec<Member>, StoreError> {
        let sync = &self.state.sync;
        let ids = sync.members_of.range((workspace, FIRST_MEMBER)..=(workspace, LAST_MEMBER));
        Ok(ids.filter_map(|(_, id)| sync.members.get(id)).cloned().collect())
    }

    fn members_on(&self, node: NodeId) -> Result<Vec<Member>, StoreError> {
        let sync = &self.state.sync;
        let ids = sync.folders.range((node, String::new())..).take_while(|((on, _), _)| *on == node);
        let mut found: Vec<Member> = ids.filter_map(|(_, id)| sync.members.get(id)).cloned().collect();
        found.sort_by_key(|member| member.id);
        Ok(found)
    }

    fn revision(&self, workspace: WorkspaceId, n: Revision) -> Result<Option<RevisionRow>, StoreError> {
        Ok(self.state.sync.revisions.get(&(workspace, n)).cloned())
    }

    fn revisions(
        &self,
        workspace: WorkspaceId,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<RevisionRow>, StoreError> {
        let all = self.state.sync.revisions_of(workspace).rev();
        let older = all.filter(|row| before.is_none_or(|before| row.n < before));
        Ok(older.take(limit).cloned().collect())
    }

    fn revision_times(&self, workspace: WorkspaceId) -> Result<Vec<(Revision, WallTime)>, StoreError> {
        Ok(self.state.sync.revisions_of(workspace).map(|row| (row.n, row.at)).collect())
    }

    fn conflicts(
        &self,
        workspace: WorkspaceId,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<StoredConflict>, StoreError> {
        let all = self.state.sync.conflicts.values().rev().filter(|row| row.workspace == workspace);
        Ok(all.skip(skip).take(limit).cloned().collect())
    }

    fn skill(&self, name: &Name) -> Result<Option<SkillRow>, StoreError> {
        Ok(self.state.sync.newest_skill(name).cloned())
    }

    fn skills(&self) -> Result<Vec<SkillRow>, StoreError> {
        let sync = &self.state.sync;
        let is_newest = |row: &&SkillRow| sync.newest_skill(&row.name).is_some_and(|head| head.n == row.n);
        let live = sync.skills.values().filter(|row| row.removed_at.is_none()).filter(is_newest);
        Ok(live.cloned().collect())
    }

    fn skill_mounts(&self) -> Result<Vec<Mount>, StoreError> {
        Ok(self.state.sync.mounts.values().cloned().collect())
    }

    fn skill_revisions(
        &self,
        name: &Name,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<SkillRow>, StoreError> {
        let before = before.unwrap_or(Revision(u64::MAX));
        let all = self.state.sync.skills.range((name.clone(), Revision(0))..(name.clone(), before));
        Ok(all.rev().take(limit).map(|(_, row)| row.clone()).collect())
    }

    fn each_root(&self, visit: VisitRoot<'_>) -> Result<(), StoreError> {
        self.state.sync.visit(visit)
    }
}

impl Writing<'_> {
    fn drop_conflicts(&mut self, is_gone: impl Fn(&ConflictKey) -> bool) -> usize {
        let gone: Vec<ConflictKey> =
            self.state.sync.conflicts.keys().filter(|key| is_gone(key)).cloned().collect();
        let count = gone.len();
        gone.into_iter().for_each(|key| self.set_sync(SyncChange::Conflict(key, None)));
        count
    }
}

impl SyncTx for Writing<'_> {
    fn put_workspace(&mut self, decided: &Decided) -> Result<(), WriteError> {
        let (ws, sync) = (&decided.ws, &self.state.sync);
        let stored = sync.workspaces.get(&ws.id).map(|row| row.head).unwrap_or_default();
        if stored != decided.expected_head() {
            return Err(conflict::workspace_head(ws, stored));
        }
        if ws.removed_at.is_none() && sync.names.get(&ws.name).is_some_and(|id| *id != ws.id) {
            return Err(conflict::workspace_name(ws));
        }
        for member in &decided.members {
            let holder = sync.folders.get(&(member.node, member.path.to_string()));
            if holder.is_some_and(|id| *id != member.id && !decided.gone.contains(id)) {
                return Err(conflict::member_path(member));
            }
        }
        for id in &decided.gone {
            self.set_sync(SyncChange::Member(*id, None));
            self.remove_conflicts(*id)?;
        }
        self.set_sync(SyncChange::Workspace(ws.id, Some(Box::new(ws.clone()))));
        for member in &decided.members {
            self.set_sync(SyncChange::Member(member.id, Some(Box::new(member.clone()))));
        }
        if let Some(row) = &decided.revision {
            self.set_sync(SyncChange::Revision((row.workspace, row.n), Some(Box::new(row.clone()))));
        }
        Ok(())
    }

    fn remove_revisions(&mut self, workspace: WorkspaceId, gone: &[Revision]) -> Result<usize, StoreError> {
        let head = self.state.sync.workspaces.get(&workspace).map(|ws| ws.head);
        let mut count = 0;
        for n in gone {
            if head != Some(*n) && self.state.sync.revisions.contains_key(&(workspace, *n)) {
                self.set_sync(SyncChange::Revision((workspace, *n), None));
                count += 1;
            }
        }
        Ok(count)
    }

    fn remove_workspace(&mut self, id: WorkspaceId) -> Result<bool, StoreError> {
        if self.state.sync.workspaces.get(&id).is_none_or(|ws| ws.removed_at.is_none()) {
            return Ok(false);
        }
        let revisions: Vec<Revision> = self.state.sync.revisions_of(id).map(|row| row.n).collect();
        self.set_sync(SyncChange::Workspace(id, None));
        revisions.into_iter().for_each(|n| self.set_sync(SyncChange::Revision((id, n), None)));
        self.drop_conflicts(|(workspace, ..)| *workspace == id);
        Ok(true)
    }

    fn put_conflicts(
        &mut self,
        workspace: WorkspaceId,
        conflicts: &[StoredConflict],
    ) -> Result<(), StoreError> {
        for row in conflicts {
            let key = (workspace, row.revision, row.member, row.path.to_string());
            let row = StoredConflict { workspace, ..row.clone() };
            self.set_sync(SyncChange::Conflict(key, Some(Box::new(row))));
        }
        let all = self.state.sync.conflicts.keys().filter(|(of, ..)| *of == workspace);
        let beyond = all.clone().count().saturating_sub(WORKSPACE_CONFLICTS_MAX);
        let gone: Vec<ConflictKey> = all.take(beyond).cloned().collect();
        gone.into_iter().for_each(|key| self.set_sync(SyncChange::Conflict(key, None)));
        Ok(())
    }

    fn remove_conflicts(&mut self, member: MemberId) -> Result<usize, StoreError> {
        Ok(self.drop_conflicts(|(_, _, of, _)| *of == member))
    }

    fn put_skill(&mut self, row: &SkillRow) -> Result<(), WriteError> {
        let head = self.state.sync.newest_skill(&row.name).map(|head| head.n).unwrap_or_default();
        if row.n != head && row.n != head.next() || row.n == Revision(0) {
            return Err(conflict::skill_revision(row, head));
        }
        let of = (row.name.clone(), Revision(0))..=(row.name.clone(), Revision(u64::MAX));
        self.set_sync(SyncChange::Skill((row.name.clone(), row.n), Some(Box::new(row.clone()))));
        let all = self.state.sync.skills.range(of).map(|(key, _)| key);
        let beyond = all.clone().count().saturating_sub(SKILL_REVISIONS_KEPT);
        let gone: Vec<(Name, Revision)> = all.take(beyond).cloned().collect();
        gone.into_iter().for_each(|key| self.set_sync(SyncChange::Skill(key, None)));
        Ok(())
    }

    fn put_skill_mount(&mut self, mount: &Mount) -> Result<(), StoreError> {
        let key = (mount.node, mount.path.to_string());
        self.set_sync(SyncChange::Mount(key, Some(Box::new(mount.clone()))));
        Ok(())
    }

    fn remove_skill_mount(&mut self, node: NodeId, path: &FilePath) -> Result<bool, StoreError> {
        let key = (node, path.to_string());
        let was = self.state.sync.mounts.contains_key(&key);
        self.set_sync(SyncChange::Mount(key, None));
        Ok(was)
    }
}
