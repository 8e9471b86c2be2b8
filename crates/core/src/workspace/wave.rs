//! What is to be done next for one member, from its rows alone: the whole logic of a sync wave. Whoever
//! carries a step out stores what came of it as a command and asks again; a step that was cut off is
//! asked for again, and each may be done twice.
//!
//! A source goes round: its tree is sent, the hub takes it over, and the folder is brought to the head. What
//! the folder gets next is taken over in the next round, so neither direction waits for a node that never
//! rests.

use super::{Member, Role, Workspace};
use crate::files::content::TreeId;
use crate::id::Revision;
use crate::sync::{self, HaltId, Push};

/// The next step for a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is nothing to do: it is in sync, or differs in what the sync leaves alone.
    Nothing,
    /// Its node looks at the folder. Ends with [`super::Command::Observed`] or
    /// [`super::Command::Unavailable`].
    Scan,
    /// Its node sends what the hub lacks of its tree. Ends with [`super::Command::Received`].
    Send,
    /// The hub takes over what the node changed; the node is not asked. Ends with
    /// [`super::Command::Commit`] for the steps of the plan, with [`super::Command::Merged`] when it has
    /// none, or with [`super::Command::Halt`].
    Merge(Planning),
    /// The folder is brought to a revision. The node plans. Ends with [`super::Command::Halt`], or with
    /// [`super::Command::Settled`] when there is no step; else [`super::Command::Begin`] is stored before
    /// the first step, and [`super::Command::Applied`] after the last.
    Apply(Planning),
    /// Nothing can be done until something happens.
    Wait(Waits),
    /// A safety rule stopped it; a person goes on.
    Stopped(HaltId),
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planning {
    /// The revision that the node is to have, or whose number a commit has to name.
    pub to: Revision,
    /// The hub's tree: that of the revision.
    pub hub: TreeId,
    /// The node's tree: of a merge the one that was sent, else the one that was seen.
    pub node: TreeId,
    /// How often the node had been seen with another tree; 0 for a merge, which is of what was sent,
    /// whatever was seen since.
    pub news: u64,
    /// The agreed one; `None` when there is none yet, which is the empty tree.
    pub agreed: Option<TreeId>,
    /// Which side may write which.
    pub mode: sync::Mode,
    /// The halt that a person let pass.
    pub accepted: Option<HaltId>,
}

/// What a member waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waits {
    /// Its node is away.
    Node,
    /// Its folder cannot be looked at; news of it go on.
    Folder,
    /// The workspace is locked, and what the lead has is not taken over meanwhile.
    Lock,
}

/// How a folder is brought to a revision: what is as it was agreed on is replaced, what changed since is
/// held. A source's changes are taken over in the next round, a follower's are drift.
const fn apply_mode(member: &Member) -> sync::Mode {
    match member.role {
        Role::Follower => sync::Mode::FromHub { repair: member.repair },
        Role::Lead | Role::Peer => sync::Mode::Push(Push { first: false, force: false, delete: true }),
    }
}

/// What comes next for `member`, whose node is here or not.
pub fn next(ws: &Workspace, member: &Member, online: bool) -> Step {
    if ws.removed_at.is_some() {
        return Step::Nothing;
    }
    if let Some(halt) = &member.halt {
        return Step::Stopped(halt.id);
    }
    if let Some(planning) = merge(ws, member) {
        return Step::Merge(planning);
    }
    if !online {
        return Step::Wait(Waits::Node);
    }
    if member.unavailable.is_some() {
        return Step::Wait(Waits::Folder);
    }
    let Some(observed) = member.observed.map(|observed| observed.tree) else {
        return Step::Scan;
    };
    let is_quiet = member.has_its_revision(ws) || (member.is_settled(ws, observed) && !member.repair);
    if member.begun.is_none() && is_quiet {
        return Step::Nothing;
    }
    if member.role == Role::Lead {
        return if ws.lock.is_some() { Step::Wait(Waits::Lock) } else { Step::Send };
    }
    let is_turn_of_node = member.begun.is_none() && member.merged.is_none();
    if is_turn_of_node && member.has_news(ws, observed) {
        return Step::Send;
    }
    let (to, hub) = member.begun.map_or((ws.head, ws.tree), |begun| (begun.revision, begun.tree));
    Step::Apply(Planning {
        to,
        hub,
        node: observed,
        news: member.news,
        agreed: member.agreed,
        mode: apply_mode(member),
        accepted: member.accepted,
    })
}

/// The merge that is due, if one is.
fn merge(ws: &Workspace, member: &Member) -> Option<Planning> {
    let mode = match member.role {
        Role::Lead => sync::Mode::FromNode,
        Role::Peer => sync::Mode::Merge,
        Role::Follower => return None,
    };
    let may_merge = ws.lock.is_none() && member.unavailable.is_none() && !member.has_its_revision(ws);
    let node = member.received.filter(|_| may_merge)?;
    let (to, hub, agreed, accepted) = (ws.head, ws.tree, member.agreed, member.accepted);
    Some(Planning { to, hub, node, news: 0, agreed, mode, accepted })
}
