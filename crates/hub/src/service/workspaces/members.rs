//! Which folders are members, and what people decide of them.

use std::sync::Arc;

use cortex_core::files::path::FilePath;
use cortex_core::id::{MemberId, WorkspaceId};
use cortex_core::name::printable;
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::sync::HaltId;
use cortex_core::workspace::{Command, Member, MemberState, Role};
use cortex_core::{Code, Refusal};

use super::{Inner, Shown, Workspaces};
use crate::clock::new_member_id;
use crate::service::{Caller, targets};

/// What to do with members that differ.
#[derive(Clone, Debug, Default)]
pub struct Resync {
    /// Which, as `NODE` or `NODE:PATH`; all when empty.
    pub members: Vec<String>,
    /// The halt that is let pass.
    pub accept: Option<HaltId>,
    /// Drift ends.
    pub repair: bool,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Resynced {
    /// The workspace.
    pub shown: Shown,
    /// Members that were passed over, as `NODE:PATH`, and why.
    pub refused: Vec<(String, Refusal)>,
}

impl Workspaces {
    /// Makes a folder a member. Needs `workspaces:write`; to follow `files:write` on its node, to lead
    /// `files:read`, for a peer both; and what the policy of the node lets a transfer do there.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `node_not_found`, `policy_denied`, `path_outside_roots`, `conflict`,
    /// `invalid_argument`, `quota`.
    pub async fn attach(
        &self,
        caller: &Caller,
        name: &str,
        (node, path): (&str, FilePath),
        role: Role,
    ) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let (node, path) = self.0.placed(caller, node, path, role)?;
        let member = new_member_id(&self.0.context.clock);
        let said = [format!("{}:{}", node.name, path.as_str()), role.as_str().to_owned()];
        let command = Command::Attach { id: member, node: node.id, path, role, by: caller.actor() };
        self.0.decide_for(caller, id, command, "workspace.attach", &said).await?;
        self.0.shown(caller, id)
    }

    /// Makes it none any more; the folder stays as it is. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn detach(&self, caller: &Caller, name: &str, which: &str) -> Result<Shown, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let found = self.0.chosen(caller, id, &[which.to_owned()])?;
        for (said, member) in found {
            let command = Command::Detach { member: member.id, by: caller.actor() };
            self.0.decide_for(caller, id, command, "workspace.detach", &[said]).await?;
        }
        self.0.shown(caller, id)
    }

    /// Has members looked at anew; ends drift, or lets a halt pass. Needs `workspaces:write`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`; why, when no member could be resynced.
    pub async fn resync(&self, caller: &Caller, name: &str, order: Resync) -> Result<Resynced, Refusal> {
        caller.anywhere(Right::WorkspacesWrite)?;
        let id = self.0.find(name)?;
        let mut found = self.0.chosen(caller, id, &order.members)?;
        if let Some(halt) = order.accept {
            // One id names the halt of one plan: others are left as they are.
            found.retain(|(_, member)| member.halt.as_ref().is_some_and(|present| present.id == halt));
            if found.is_empty() {
                return Err(Refusal::new(Code::NotFound, "No member is halted by this halt.")
                    .hint("Read `cortex workspace status NAME` and use the id of a halt that it shows."));
            }
        } else if order.repair && order.members.is_empty() {
            found.retain(|(_, member)| member.role == Role::Follower);
        }
        let (mut refused, mut done) = (Vec::new(), 0);
        for (said, member) in found {
            let by = caller.actor();
            let command = match order.accept {
                Some(halt) => Command::Accept { member: member.id, halt, by },
                None => Command::Resync { member: member.id, repair: order.repair, by },
            };
            let mut words = vec![said.clone()];
            words.extend(order.repair.then(|| "repair".to_owned()));
            words.extend(order.accept.map(|halt| halt.to_string()));
            match self.0.decide_for(caller, id, command, "workspace.resync", &words).await {
                Ok(_) => done += 1,
                Err(refusal) => refused.push((said, refusal)),
            }
        }
        if done == 0
            && let Some((_, refusal)) = refused.pop()
        {
            return Err(refusal);
        }
        Ok(Resynced { shown: self.0.shown(caller, id)?, refused })
    }

    /// How a member stands that somebody waits for.
    pub fn state(&self, member: MemberId) -> Option<MemberState> {
        let (ws, row) = self.0.row(member)?;
        Some(row.shown(&ws, self.0.mesh.presence(row.node).is_some()))
    }
}

impl Inner {
    /// Where a member is to be, as things are at this moment.
    pub(super) fn placed(
        &self,
        caller: &Caller,
        node: &str,
        path: FilePath,
        role: Role,
    ) -> Result<(Arc<Node>, FilePath), Refusal> {
        let node = targets::find(&self.context.directory, caller, node)?;
        if role.is_source() {
            caller.on(Right::FilesRead, &node)?;
            self.judge(&node, &path, false)?;
        }
        if role.is_target() {
            caller.on(Right::FilesWrite, &node)?;
            self.judge(&node, &path, true)?;
        }
        Ok((node, path))
    }

    /// Members of the workspace as `NODE` or `NODE:PATH`, on nodes that the caller sees; all without any.
    pub(super) fn chosen(
        &self,
        caller: &Caller,
        id: WorkspaceId,
        which: &[String],
    ) -> Result<Vec<(String, Member)>, Refusal> {
        let members: Vec<Member> = self.roster().members_of(id).cloned().collect();
        let seen: Vec<(String, String, Member)> = members
            .into_iter()
            .filter_map(|member| {
                let node = self.context.directory.node(member.node).filter(|node| caller.sees(node))?;
                let (name, path) = (node.name.to_string(), member.path.as_str().to_owned());
                Some((name.clone(), format!("{name}:{path}"), member))
            })
            .collect();
        if which.is_empty() {
            return Ok(seen.into_iter().map(|(_, whole, member)| (whole, member)).collect());
        }
        let mut found: Vec<(String, Member)> = Vec::new();
        for text in which {
            let fits = |name: &str, whole: &str, member: &Member| {
                text == name || text == whole || *text == member.id.to_string()
            };
            let of: Vec<_> = seen.iter().filter(|(name, whole, member)| fits(name, whole, member)).collect();
            if of.is_empty() {
                let message = format!("The workspace has no member `{}`.", printable(text, 200));
                return Err(Refusal::new(Code::NotFound, message)
                    .hint("List the members with `cortex workspace status NAME` and use one of those."));
            }
            for (_, whole, member) in of {
                if !found.iter().any(|(_, known)| known.id == member.id) {
                    found.push((whole.clone(), member.clone()));
                }
            }
        }
        Ok(found)
    }
}
