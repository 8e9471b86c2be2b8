//! What is to be done next for one member, from its rows alone: the whole logic of a sync wave. Whoever
//! carries a step out stores what came of it as a command and asks again; a step that was cut off is
//! asked for again, and each may be done twice.

use super::{Member, Role, Workspace};
use crate::files::content::TreeId;
use crate::id::Revision;
use crate::sync::{self, HaltId};

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
    /// Three trees are planned and the plan is carried out. Ends with [`super::Command::Halt`] when it
    /// halts; with [`super::Command::Settled`] when it has no step; else, first of what it has,
    /// [`super::Command::Commit`] for its steps at the hub, then [`super::Command::Applied`] for those on
    /// the node.
    Plan(Planning),
    /// Nothing can be done until something happens.
    Wait(Waits),
    /// A safety rule stopped it; a person goes on.
    Stopped(HaltId),
}

/// What a plan is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planning {
    /// The revision that the node is to have, and whose number a commit has to name.
    pub to: Revision,
    /// The hub's tree: that of the revision.
    pub hub: TreeId,
    /// The node's tree.
    pub node: TreeId,
    /// How often the node had been seen with another tree.
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

/// What comes next for `member`, whose node is here or not.
pub fn next(ws: &Workspace, member: &Member, online: bool) -> Step {
    if ws.removed_at.is_some() {
        return Step::Nothing;
    }
    if let Some(halt) = &member.halt {
        return Step::Stopped(halt.id);
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
    if member.has_its_revision(ws) || (member.is_settled(ws, observed) && !member.repair) {
        return Step::Nothing;
    }
    let is_locked = ws.lock.is_some();
    let mode = match (member.role, is_locked) {
        (Role::Lead, true) => return Step::Wait(Waits::Lock),
        (Role::Lead, false) => sync::Mode::FromNode,
        (Role::Peer, false) => sync::Mode::TwoWay,
        // It gets what the holder of the lock makes, and what it changes itself waits for the lock's end.
        (Role::Peer, true) => sync::Mode::FromHub { repair: false },
        (Role::Follower, _) => sync::Mode::FromHub { repair: member.repair },
    };
    let is_held = [member.agreed, member.received].contains(&Some(observed));
    if mode.writes(sync::End::Hub) && !is_held {
        return Step::Send;
    }
    Step::Plan(Planning {
        to: ws.head,
        hub: ws.tree,
        node: observed,
        news: member.news,
        agreed: member.agreed,
        mode,
        accepted: member.accepted,
    })
}
