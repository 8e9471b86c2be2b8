//! What people decide: who is a member, by which rules, and what of a halted or drifted one becomes.

use super::super::member::clashes;
use super::super::{Member, Mode, Role, Rules, clash};
use super::Unlocked;
use super::draft::{Draft, halted, path};
use crate::error::{Code, Refusal};
use crate::event::EventKind;
use crate::files::path::FilePath;
use crate::id::{LockEpoch, MemberId, NodeId, Revision};
use crate::limits::WORKSPACE_MEMBERS_MAX;
use crate::sync::HaltId;
use crate::words::count;

impl Draft<'_> {
    pub(super) fn attach(
        &mut self,
        id: MemberId,
        node: NodeId,
        path: FilePath,
        role: Role,
        by: &str,
    ) -> Result<(), Refusal> {
        if !role.fits(self.ws.mode) {
            let (name, role) = (&self.ws.name, role.as_str());
            let (whose, hint) = match self.ws.mode {
                Mode::HubPrimary => ("the hub", "Choose the role `peer` or `follower`."),
                Mode::NodePrimary => ("a node", "Choose the role `follower`, or `lead` when it has none."),
            };
            let message = format!("Workspace {name} is led by {whose}: no member is a {role}.");
            return Err(Refusal::new(Code::InvalidArgument, message).hint(hint));
        }
        if self.members.len() >= WORKSPACE_MEMBERS_MAX {
            let message = format!("Workspace {} has {WORKSPACE_MEMBERS_MAX} members.", self.ws.name);
            return Err(Refusal::new(Code::Quota, message).hint("Detach members that are not needed."));
        }
        if role == Role::Lead && self.members.iter().any(|member| member.role == Role::Lead) {
            return Err(Refusal::new(Code::Conflict, format!("Workspace {} has a lead.", self.ws.name))
                .hint("Detach that member first."));
        }
        if self.members.iter().any(|member| member.id == id) {
            return Err(Refusal::new(Code::Conflict, format!("Member {id} is there already.")));
        }
        if let Some(other) = clash(node, &path, self.members) {
            return Err(clashes(&path, other));
        }
        let member = Member {
            id,
            workspace: self.ws.id,
            node,
            path,
            role,
            root: None,
            intent: self.ws.head,
            observed: None,
            news: 0,
            received: None,
            merged: None,
            agreed: None,
            begun: None,
            reached: Revision(0),
            settled: None,
            halt: None,
            accepted: None,
            unavailable: None,
            repair: false,
            conflicts: 0,
            drift_since: None,
        };
        self.tell_of(EventKind::MemberAttached, &member, Some(by), role.as_str());
        self.put(member);
        Ok(())
    }

    pub(super) fn detach(&mut self, id: MemberId, by: &str) -> Result<(), Refusal> {
        let member = self.member(id)?;
        self.tell_of(EventKind::MemberDetached, &member, Some(by), "");
        self.gone.push(id);
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        rules: Option<Rules>,
        bytes_max: Option<u64>,
        by: &str,
        lock: Option<LockEpoch>,
    ) -> Result<(), Refusal> {
        self.ws.check_lock(lock)?;
        let is_rescanned = rules.as_ref().is_some_and(|rules| *rules != self.ws.rules);
        if let Some(rules) = rules {
            rules.check()?;
            self.ws.rules = rules;
        }
        self.ws.bytes_max = bytes_max.unwrap_or(self.ws.bytes_max);
        if is_rescanned {
            // By other rules a folder has another tree.
            let now = self.now;
            self.change_all(|member| {
                member.see(None, now);
                (member.received, member.merged, member.settled) = (None, None, None);
            });
        }
        self.tell(EventKind::WorkspaceChanged, Some(by), None);
        Ok(())
    }

    pub(super) fn accept(&mut self, id: MemberId, halt: HaltId, by: &str) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        match &member.halt {
            Some(present) if present.id == halt => {}
            Some(present) => {
                let message = format!("The sync of {} is halted by another halt.", path(&member));
                return Err(Refusal::new(Code::Conflict, message)
                    .hint("Look at what this one would remove before you let it pass.")
                    .detail("halt", present.id.to_string()));
            }
            None => {
                let message = format!("The sync of {} is not halted.", path(&member));
                return Err(Refusal::new(Code::Conflict, message));
            }
        }
        member.halt = None;
        member.accepted = Some(halt);
        self.tell_of(EventKind::MemberState, &member, Some(by), "accepted");
        self.put(member);
        Ok(())
    }

    pub(super) fn resync(&mut self, id: MemberId, repair: bool, by: &str) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        if let Some(halt) = &member.halt {
            return Err(halted(&member, halt.id));
        }
        if repair && member.role != Role::Follower {
            let message = format!("What a {} changes is no drift.", member.role.as_str());
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Use `--repair` with followers; what a source changed becomes a revision."));
        }
        member.see(None, self.now);
        (member.settled, member.merged, member.unavailable) = (None, None, None);
        (member.repair, member.conflicts) = (repair, 0);
        self.tell_of(EventKind::MemberState, &member, Some(by), "resync");
        self.put(member);
        Ok(())
    }

    pub(super) fn remove(&mut self, by: &str, lock: Option<LockEpoch>) -> Result<(), Refusal> {
        self.ws.check_lock(lock)?;
        if self.ws.lock.is_some() {
            self.end_lock(Unlocked::GivenBack, Some(by));
        }
        self.ws.removed_at = Some(self.now);
        self.gone = self.members.iter().map(|member| member.id).collect();
        self.changed.clear();
        let detail = count(self.members.len(), "member", "members");
        self.tell(EventKind::WorkspaceRemoved, Some(by), Some(detail));
        Ok(())
    }
}
