//! The port's part on workspaces and skills over a connection.

use cortex_core::files::path::FilePath;
use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::skill::{Mount, SkillRow};
use cortex_core::time::WallTime;
use cortex_core::workspace::{Decided, Member, RevisionRow, Workspace};

use super::super::rows::sync::{conflicts, members, mounts, revisions, roots, skills, workspaces};
use super::{Logs, View};
use crate::{StoreError, StoredConflict, SyncRead, SyncTx, VisitRoot, WriteError, conflict};

impl<L> SyncRead for View<'_, L> {
    fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        workspaces::get(self.conn, id)
    }

    fn workspace_named(&self, name: &Name) -> Result<Option<Workspace>, StoreError> {
        workspaces::named(self.conn, name)
    }

    fn workspaces(&self) -> Result<Vec<Workspace>, StoreError> {
        workspaces::live(self.conn)
    }

    fn workspace_count(&self) -> Result<usize, StoreError> {
        workspaces::count(self.conn)
    }

    fn removed_workspaces(&self, limit: usize) -> Result<Vec<(WorkspaceId, WallTime)>, StoreError> {
        workspaces::removed(self.conn, limit)
    }

    fn member(&self, id: MemberId) -> Result<Option<Member>, StoreError> {
        members::get(self.conn, id)
    }

    fn members_of(&self, workspace: WorkspaceId) -> Result<Vec<Member>, StoreError> {
        members::of(self.conn, workspace)
    }

    fn members_on(&self, node: NodeId) -> Result<Vec<Member>, StoreError> {
        members::on(self.conn, node)
    }

    fn revision(&self, workspace: WorkspaceId, n: Revision) -> Result<Option<RevisionRow>, StoreError> {
        revisions::get(self.conn, workspace, n)
    }

    fn revisions(
        &self,
        workspace: WorkspaceId,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<RevisionRow>, StoreError> {
        revisions::before(self.conn, workspace, before, limit)
    }

    fn revision_times(&self, workspace: WorkspaceId) -> Result<Vec<(Revision, WallTime)>, StoreError> {
        revisions::times(self.conn, workspace)
    }

    fn conflicts(
        &self,
        workspace: WorkspaceId,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<StoredConflict>, StoreError> {
        conflicts::newest(self.conn, workspace, skip, limit)
    }

    fn skill(&self, name: &Name) -> Result<Option<SkillRow>, StoreError> {
        skills::newest(self.conn, name)
    }

    fn skills(&self) -> Result<Vec<SkillRow>, StoreError> {
        skills::live(self.conn)
    }

    fn skill_mounts(&self) -> Result<Vec<Mount>, StoreError> {
        mounts::all(self.conn)
    }

    fn skill_revisions(
        &self,
        name: &Name,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<SkillRow>, StoreError> {
        skills::before(self.conn, name, before, limit)
    }

    fn each_root(&self, visit: VisitRoot<'_>) -> Result<(), StoreError> {
        roots::visit(self.conn, visit)
    }
}

impl SyncTx for View<'_, Logs<'_>> {
    fn put_workspace(&mut self, decided: &Decided) -> Result<(), WriteError> {
        let conn = self.conn;
        let ws = &decided.ws;
        // All that can be refused comes before the first row is written.
        let stored = workspaces::head(conn, ws.id)?.unwrap_or_default();
        if stored != decided.expected_head() {
            return Err(conflict::workspace_head(ws, stored));
        }
        let holder = if ws.removed_at.is_none() { workspaces::holder(conn, &ws.name)? } else { None };
        if holder.is_some_and(|id| id != ws.id) {
            return Err(conflict::workspace_name(ws));
        }
        for member in &decided.members {
            let holder = members::holder(conn, member)?;
            if holder.is_some_and(|id| id != member.id && !decided.gone.contains(&id)) {
                return Err(conflict::member_path(member));
            }
        }
        for id in &decided.gone {
            members::remove(conn, *id)?;
            conflicts::remove_of(conn, *id)?;
        }
        workspaces::put(conn, ws)?;
        for member in &decided.members {
            members::put(conn, member)?;
        }
        if let Some(revision) = &decided.revision {
            revisions::put(conn, revision)?;
        }
        Ok(())
    }

    fn remove_revisions(&mut self, workspace: WorkspaceId, gone: &[Revision]) -> Result<usize, StoreError> {
        revisions::remove(self.conn, workspace, gone)
    }

    fn remove_workspace(&mut self, id: WorkspaceId) -> Result<bool, StoreError> {
        let was_there = workspaces::remove(self.conn, id)?;
        if was_there {
            revisions::remove_all(self.conn, id)?;
            conflicts::remove_all(self.conn, id)?;
        }
        Ok(was_there)
    }

    fn put_conflicts(
        &mut self,
        workspace: WorkspaceId,
        conflicts: &[StoredConflict],
    ) -> Result<(), StoreError> {
        conflicts::put(self.conn, workspace, conflicts)
    }

    fn remove_conflicts(&mut self, member: MemberId) -> Result<usize, StoreError> {
        conflicts::remove_of(self.conn, member)
    }

    fn put_skill(&mut self, row: &SkillRow) -> Result<(), WriteError> {
        skills::put(self.conn, row)
    }

    fn put_skill_mount(&mut self, mount: &Mount) -> Result<(), StoreError> {
        mounts::put(self.conn, mount)
    }

    fn remove_skill_mount(&mut self, node: NodeId, path: &FilePath) -> Result<bool, StoreError> {
        mounts::remove(self.conn, node, path)
    }
}
