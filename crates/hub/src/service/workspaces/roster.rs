//! What the rows of workspaces and members say, kept in memory behind each commit, so that whatever looks at
//! all of them asks no store. Decisions are made over the rows.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{MemberId, WorkspaceId};
use cortex_core::workspace::{Decided, Member, Workspace};

/// All workspaces that were not removed, and their members.
#[derive(Debug, Default)]
pub(super) struct Roster {
    workspaces: BTreeMap<WorkspaceId, Workspace>,
    names: BTreeMap<String, WorkspaceId>,
    members: BTreeMap<MemberId, Member>,
    of: BTreeMap<WorkspaceId, BTreeSet<MemberId>>,
}

impl Roster {
    pub(super) fn put(&mut self, ws: Workspace, members: Vec<Member>) {
        let id = ws.id;
        self.names.insert(ws.name.to_string(), id);
        self.workspaces.insert(id, ws);
        for member in members {
            self.of.entry(id).or_default().insert(member.id);
            self.members.insert(member.id, member);
        }
    }

    /// Takes a decision in.
    pub(super) fn follow(&mut self, decided: &Decided) {
        let ws = &decided.ws;
        for gone in &decided.gone {
            self.members.remove(gone);
            if let Some(of) = self.of.get_mut(&ws.id) {
                of.remove(gone);
            }
        }
        if ws.removed_at.is_some() {
            self.workspaces.remove(&ws.id);
            self.of.remove(&ws.id);
            self.names.retain(|_, id| *id != ws.id);
            return;
        }
        self.put(ws.clone(), decided.members.clone());
    }

    pub(super) fn ids(&self) -> Vec<WorkspaceId> {
        self.names.values().copied().collect()
    }

    /// By name or id.
    pub(super) fn named(&self, text: &str) -> Option<WorkspaceId> {
        let by_id = || text.parse().ok().filter(|id| self.workspaces.contains_key(id));
        self.names.get(text).copied().or_else(by_id)
    }

    pub(super) fn get(&self, id: WorkspaceId) -> Option<&Workspace> {
        self.workspaces.get(&id)
    }

    pub(super) fn member(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    pub(super) fn members_of(&self, id: WorkspaceId) -> impl Iterator<Item = &Member> {
        self.of.get(&id).into_iter().flatten().filter_map(|member| self.members.get(member))
    }

    /// Each member with its workspace.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Workspace, &Member)> {
        self.members.values().filter_map(|member| Some((self.workspaces.get(&member.workspace)?, member)))
    }
}
