//! The part of the port on workspaces and skills. Decisions of `cortex_core::workspace` and
//! `cortex_core::skill` run over it: a [`Tx`] is their table and their library.
//!
//! Rows name trees. A tree that a row may name is kept whole in the chunk store before, and what rows name
//! is what its collection leaves: see [`SyncRead::each_root`].
//!
//! Never here: decisions, trees and their content, and how long what has ended is kept.

use cortex_core::event::Event;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::skill::{self, Mount, SkillRow};
use cortex_core::time::WallTime;
use cortex_core::workspace::{Decided, Member, RevisionRow, Workspace, table};

use crate::{StoreError, Tx, WriteError};

/// A path that two sides had changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredConflict {
    /// In which workspace.
    pub workspace: WorkspaceId,
    /// The revision that has both versions, or whose version got the name.
    pub revision: Revision,
    /// Whose folder is the other side.
    pub member: MemberId,
    /// The path.
    pub path: RelPath,
    /// Where the version that lost its name is kept; `None` when both stay where they are.
    pub copy: Option<RelPath>,
    /// The hub's version, if a file.
    pub hub: Option<ContentId>,
    /// The node's version, if a file.
    pub node: Option<ContentId>,
    /// When, on the hub's wall clock.
    pub at: WallTime,
}

/// Called with each root in turn; what it fails with ends the walk.
pub type VisitRoot<'v> = &'v mut dyn FnMut(TreeId) -> Result<(), StoreError>;

/// Reading workspaces and skills. Each method costs one query, but for
/// [`SyncRead::each_root`].
pub trait SyncRead {
    /// A workspace by id, removed ones too.
    fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError>;
    /// A workspace by name among those that were not removed.
    fn workspace_named(&self, name: &Name) -> Result<Option<Workspace>, StoreError>;
    /// All workspaces that were not removed, by name.
    fn workspaces(&self) -> Result<Vec<Workspace>, StoreError>;
    /// How many there are that were not removed.
    fn workspace_count(&self) -> Result<usize, StoreError>;
    /// Removed workspaces and when that was, those that were removed first in front, at most `limit`.
    fn removed_workspaces(&self, limit: usize) -> Result<Vec<(WorkspaceId, WallTime)>, StoreError>;

    /// A member by id.
    fn member(&self, id: MemberId) -> Result<Option<Member>, StoreError>;
    /// All members of a workspace, by id.
    fn members_of(&self, workspace: WorkspaceId) -> Result<Vec<Member>, StoreError>;
    /// All members on a node, by id.
    fn members_on(&self, node: NodeId) -> Result<Vec<Member>, StoreError>;

    /// A revision; `None` also when it was thinned out.
    fn revision(&self, workspace: WorkspaceId, n: Revision) -> Result<Option<RevisionRow>, StoreError>;
    /// Revisions below that one, newest first, at most `limit`.
    fn revisions(
        &self,
        workspace: WorkspaceId,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<RevisionRow>, StoreError>;
    /// All revisions of a workspace and when they were made, oldest first.
    fn revision_times(&self, workspace: WorkspaceId) -> Result<Vec<(Revision, WallTime)>, StoreError>;

    /// Paths of a workspace that two sides had changed, in falling order of revision, member and path;
    /// `skip` of them left out, at most `limit`.
    fn conflicts(
        &self,
        workspace: WorkspaceId,
        skip: usize,
        limit: usize,
    ) -> Result<Vec<StoredConflict>, StoreError>;

    /// The newest revision of a skill, a removed one too.
    fn skill(&self, name: &Name) -> Result<Option<SkillRow>, StoreError>;
    /// The newest revision of each skill that was not removed, by name.
    fn skills(&self) -> Result<Vec<SkillRow>, StoreError>;
    /// Revisions of a skill below that one, newest first, at most `limit`.
    fn skill_revisions(
        &self,
        name: &Name,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<SkillRow>, StoreError>;

    /// All folders that follow skills, by node and path.
    fn skill_mounts(&self) -> Result<Vec<Mount>, StoreError>;

    /// Visits every tree that a row names and that is to stay with its content, out of one consistent view, a
    /// row at a time; one that is named twice comes twice: each revision that is kept, what members sent, are
    /// agreed on with and are being brought to, revisions of skills since each was last removed, and what mounts were brought to. Not what
    /// members were only seen with: the hub may not have it.
    fn each_root(&self, visit: VisitRoot<'_>) -> Result<(), StoreError>;
}

/// Writing workspaces and skills, within one transaction.
pub trait SyncTx: SyncRead {
    /// Keeps what was decided, not its events. Refused `Conflict` when the head is not the one that it was
    /// decided on, when a second live workspace would have the name, and when a second member would have
    /// the folder. Conflicts of members that are gone go with them.
    fn put_workspace(&mut self, decided: &Decided) -> Result<(), WriteError>;
    /// Removes those of these revisions that are not the head, and returns how many went.
    fn remove_revisions(&mut self, workspace: WorkspaceId, gone: &[Revision]) -> Result<usize, StoreError>;
    /// Removes a workspace that was removed, with its history; whether there was such a one.
    fn remove_workspace(&mut self, id: WorkspaceId) -> Result<bool, StoreError>;
    /// Inserts or replaces conflicts of one workspace; the oldest beyond
    /// [`cortex_core::limits::WORKSPACE_CONFLICTS_MAX`] go.
    fn put_conflicts(
        &mut self,
        workspace: WorkspaceId,
        conflicts: &[StoredConflict],
    ) -> Result<(), StoreError>;
    /// Removes the conflicts of a member: somebody has seen them. Returns how many went.
    fn remove_conflicts(&mut self, member: MemberId) -> Result<usize, StoreError>;
    /// Keeps the next revision of a skill, or the newest one again. Any other is refused `Conflict`. The
    /// oldest beyond [`cortex_core::limits::SKILL_REVISIONS_KEPT`] go.
    fn put_skill(&mut self, row: &SkillRow) -> Result<(), WriteError>;
    /// Inserts a mount, or replaces the one of this folder.
    fn put_skill_mount(&mut self, mount: &Mount) -> Result<(), StoreError>;
    /// Removes a mount; whether there was one.
    fn remove_skill_mount(&mut self, node: NodeId, path: &FilePath) -> Result<bool, StoreError>;
}

/// The trees that a member's row names.
pub(crate) fn roots_of_member(member: &Member) -> impl Iterator<Item = TreeId> {
    let begun = member.begun.map(|begun| begun.tree);
    [member.received, member.agreed, begun].into_iter().flatten()
}

impl table::Table for dyn Tx + '_ {
    type Error = WriteError;

    fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, WriteError> {
        Ok(SyncRead::workspace(self, id)?)
    }

    fn workspace_named(&self, name: &Name) -> Result<Option<Workspace>, WriteError> {
        Ok(SyncRead::workspace_named(self, name)?)
    }

    fn workspace_count(&self) -> Result<usize, WriteError> {
        Ok(SyncRead::workspace_count(self)?)
    }

    fn member(&self, id: MemberId) -> Result<Option<Member>, WriteError> {
        Ok(SyncRead::member(self, id)?)
    }

    fn members_of(&self, workspace: WorkspaceId) -> Result<Vec<Member>, WriteError> {
        Ok(SyncRead::members_of(self, workspace)?)
    }

    fn members_on(&self, node: NodeId) -> Result<Vec<Member>, WriteError> {
        Ok(SyncRead::members_on(self, node)?)
    }

    fn put(&mut self, decided: &Decided) -> Result<(), WriteError> {
        self.put_workspace(decided)?;
        for event in &decided.events {
            self.append_event(event)?;
        }
        Ok(())
    }
}

impl skill::Library for dyn Tx + '_ {
    type Error = WriteError;

    fn newest(&self, name: &Name) -> Result<Option<SkillRow>, WriteError> {
        Ok(self.skill(name)?)
    }

    fn count(&self) -> Result<usize, WriteError> {
        Ok(self.skills()?.len())
    }

    fn put(&mut self, row: &SkillRow, event: &Event) -> Result<(), WriteError> {
        self.put_skill(row)?;
        self.append_event(event)?;
        Ok(())
    }
}
