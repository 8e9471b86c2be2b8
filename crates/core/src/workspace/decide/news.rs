//! What nodes and plans say of members.

use super::super::{Complete, Member, Planning, RootIdentity, Settled, Step, next};
use super::draft::{Draft, path};
use crate::error::{Code, Refusal};
use crate::event::EventKind;
use crate::files::content::TreeId;
use crate::id::MemberId;
use crate::sync::{self, Cause, Halt, Rule};

impl Draft<'_> {
    /// Another folder at the path of a member is not its folder emptied: nothing of it counts.
    pub(super) fn observed(&mut self, id: MemberId, root: RootIdentity, tree: TreeId) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        if *member.root.get_or_insert(root) != root {
            member.unavailable = Some(Rule::RootUnavailable);
        } else {
            member.unavailable = None;
            member.see(Some(tree), self.now);
        }
        self.put(member);
        Ok(())
    }

    pub(super) fn unavailable(&mut self, id: MemberId, rule: Rule) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        member.unavailable = Some(rule);
        self.put(member);
        Ok(())
    }

    /// What was sent may be older or newer than what was seen last, and comes by another way: then the
    /// folder is looked at again.
    pub(super) fn received(&mut self, id: MemberId, complete: &Complete) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        if member.unavailable.is_some() || member.root.is_none() {
            let message = format!("The folder {} was not seen to be that of the member.", path(&member));
            return Err(Refusal::new(Code::Conflict, message).hint("Send what is there again after a scan."));
        }
        member.received = Some(complete.tree());
        if member.observed.is_none_or(|observed| observed.tree != complete.tree()) {
            member.see(None, self.now);
        }
        self.put(member);
        Ok(())
    }

    /// A halt that nobody can let pass is the folder's state: it ends when the folder is back.
    pub(super) fn halt(&mut self, id: MemberId, planning: &Planning, halt: Halt) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        self.must_be_planned(&member, planning)?;
        if let Some(cause) = halt.causes.iter().find(|cause| !cause.rule.can_be_accepted()) {
            return self.unavailable(id, cause.rule);
        }
        let rule = |cause: &Cause| format!("{} {}/{}", cause.rule.as_str(), cause.deletes, cause.of);
        let rules: Vec<String> = halt.causes.iter().map(rule).collect();
        self.tell_of(EventKind::SyncHalted, &member, None, &format!("{} {}", halt.id, rules.join(", ")));
        (member.halt, member.accepted) = (Some(halt), None);
        self.put(member);
        Ok(())
    }

    pub(super) fn settled(
        &mut self,
        id: MemberId,
        planning: &Planning,
        agreed: &Complete,
    ) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        self.must_be_planned(&member, planning)?;
        member.settled = Some(Settled { revision: planning.to, tree: planning.node });
        member.agreed = Some(agreed.tree());
        member.reached = planning.to;
        (member.accepted, member.repair) = (None, false);
        self.put(member);
        Ok(())
    }

    /// It was done, whatever has happened at the hub meanwhile. When the node was seen with yet another
    /// tree since the plan, nobody knows which of the two came later.
    pub(super) fn applied(
        &mut self,
        id: MemberId,
        planning: &Planning,
        tree: TreeId,
        agreed: &Complete,
        conflicts: u64,
    ) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        if !member.role.is_target() || planning.to > member.intent {
            let (role, intent, to) = (member.role.as_str(), member.intent, planning.to);
            let message = format!("A {role} that should be at revision {intent} is not written with {to}.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        let is_newest = member.news == planning.news;
        let is_seen = member.observed.is_some_and(|observed| observed.tree == tree);
        member.see((is_newest || is_seen).then_some(tree), self.now);
        member.agreed = Some(agreed.tree());
        if member.accepted == planning.accepted {
            member.accepted = None;
        }
        member.repair &= planning.mode != (sync::Mode::FromHub { repair: true });
        self.count_conflicts(&mut member, conflicts);
        self.put(member);
        Ok(())
    }

    /// Refuses what came of a plan that would not be made any more: another one is due.
    fn must_be_planned(&self, member: &Member, planning: &Planning) -> Result<(), Refusal> {
        if next(&self.ws, member, true) == Step::Plan(*planning) {
            return Ok(());
        }
        let message = format!("Workspace {} or {} has changed since the plan.", self.ws.name, path(member));
        Err(Refusal::new(Code::Conflict, message).hint("Read the present state and plan again."))
    }
}
