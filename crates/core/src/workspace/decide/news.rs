//! What nodes and plans say of members.

use super::super::{Begun, Complete, Member, Planning, RootIdentity, Settled, Step, next};
use super::draft::{Draft, path};
use crate::error::{Code, Refusal};
use crate::event::EventKind;
use crate::files::content::TreeId;
use crate::id::MemberId;
use crate::sync::{self, Cause, Halt, Rule};

impl Draft<'_> {
    /// Another folder at the path of a member is not its folder emptied: nothing of it counts. A look that began
    /// before somebody asked for one may not have seen what he did first.
    pub(super) fn observed(
        &mut self,
        id: MemberId,
        root: Option<RootIdentity>,
        (tree, news): (TreeId, u64),
    ) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        member.root = member.root.or(root);
        if let (Some(known), Some(found)) = (member.root, root)
            && !known.is(&found)
        {
            member.unavailable = Some(Rule::RootUnavailable);
        } else {
            member.unavailable = None;
            let is_newest = member.news == news;
            let is_seen = member.observed.is_some_and(|observed| observed.tree == tree);
            member.see((is_newest || is_seen).then_some(tree), self.now);
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

    /// What was sent may be older or newer than what was seen last, and comes by another way: it is taken
    /// over as it is, and then the folder is looked at again.
    pub(super) fn received(&mut self, id: MemberId, complete: &Complete) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        self.must_be_next(&member, &Step::Send)?;
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

    pub(super) fn merged(
        &mut self,
        id: MemberId,
        planning: &Planning,
        agreed: &Complete,
    ) -> Result<(), Refusal> {
        self.must_be_next(&self.member(id)?, &Step::Merge(*planning))?;
        self.take_over(id, planning, agreed)
    }

    /// The hub has all that was sent.
    pub(super) fn take_over(
        &mut self,
        id: MemberId,
        planning: &Planning,
        agreed: &Complete,
    ) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        (member.received, member.merged) = (None, Some(planning.node));
        (member.agreed, member.accepted) = (Some(agreed.tree()), None);
        // Nothing is ever written to a lead: what still differs stays so.
        let is_end = !member.role.is_target();
        member.settled = is_end.then_some(Settled { revision: self.ws.head, tree: planning.node });
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
        self.must_be_next(&member, &Step::Apply(*planning))?;
        member.settled = Some(Settled { revision: planning.to, tree: planning.node });
        self.end_apply(&mut member, planning, agreed, planning.node);
        member.repair = false;
        self.put(member);
        Ok(())
    }

    /// From here on the folder may have anything between what it had and what it is to have.
    pub(super) fn begin(&mut self, id: MemberId, planning: &Planning) -> Result<(), Refusal> {
        let mut member = self.member(id)?;
        self.must_be_next(&member, &Step::Apply(*planning))?;
        member.begun = Some(Begun { revision: planning.to, tree: planning.hub });
        member.received = None;
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
        let begun = Some(Begun { revision: planning.to, tree: planning.hub });
        if member.begun != begun || member.agreed != planning.agreed {
            let message = format!("Nobody has begun to bring {} to revision {}.", path(&member), planning.to);
            return Err(Refusal::new(Code::Conflict, message).hint("Read the present state and plan again."));
        }
        let is_newest = member.news == planning.news;
        let is_seen = member.observed.is_some_and(|observed| observed.tree == tree);
        member.see((is_newest || is_seen).then_some(tree), self.now);
        // A plan of which no step could be done is not made again until something else has changed.
        let is_idle = tree == planning.node && member.agreed == Some(agreed.tree());
        member.settled = is_idle.then_some(Settled { revision: planning.to, tree });
        self.end_apply(&mut member, planning, agreed, tree);
        member.repair &= planning.mode != (sync::Mode::FromHub { repair: true });
        self.count_conflicts(&mut member, conflicts);
        self.put(member);
        Ok(())
    }

    fn end_apply(&self, member: &mut Member, planning: &Planning, agreed: &Complete, tree: TreeId) {
        let is_as_it_was = member.agreed == Some(agreed.tree());
        member.agreed = Some(agreed.tree());
        (member.begun, member.received) = (None, None);
        // What was taken over once is news again when the folder was written since and taken back to it.
        member.merged = member.merged.filter(|merged| *merged == tree && is_as_it_was);
        member.reached = planning.to;
        if member.accepted == planning.accepted {
            member.accepted = None;
        }
    }

    /// Refuses what came of a plan that would not be made any more: another one is due.
    fn must_be_planned(&self, member: &Member, planning: &Planning) -> Result<(), Refusal> {
        let is_merge = matches!(next(&self.ws, member, true), Step::Merge(_));
        let step = if is_merge { Step::Merge(*planning) } else { Step::Apply(*planning) };
        self.must_be_next(member, &step)
    }

    /// Refuses what came of a step that would not be asked for any more.
    pub(super) fn must_be_next(&self, member: &Member, step: &Step) -> Result<(), Refusal> {
        if next(&self.ws, member, true) == *step { Ok(()) } else { Err(self.has_changed(member)) }
    }

    fn has_changed(&self, member: &Member) -> Refusal {
        let message = format!("Workspace {} or {} has changed since the plan.", self.ws.name, path(member));
        Refusal::new(Code::Conflict, message).hint("Read the present state and plan again.")
    }
}
