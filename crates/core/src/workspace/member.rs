//! One folder of one node that belongs to a workspace: what its rows say, and the state that follows.

use super::{Mode, Workspace};
use crate::error::{Code, Refusal};
use crate::files::content::TreeId;
use crate::files::path::FilePath;
use crate::id::{MemberId, NodeId, Revision, WorkspaceId};
use crate::name::printable;
use crate::sync::{Halt, HaltId, Rule};
use crate::time::WallTime;

/// What a member does in its workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The source of a workspace that a node leads. Never written.
    Lead,
    /// Changes here and changes at the hub go both ways.
    Peer,
    /// Gets what the workspace has. What it changes by itself is drift, and never a revision.
    Follower,
}

impl Role {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Lead, Self::Peer, Self::Follower];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lead => "lead",
            Self::Peer => "peer",
            Self::Follower => "follower",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text)
    }

    /// Whether a workspace of this mode has such members.
    pub const fn fits(self, mode: Mode) -> bool {
        match (self, mode) {
            (Self::Follower, _) | (Self::Peer, Mode::HubPrimary) | (Self::Lead, Mode::NodePrimary) => true,
            (Self::Peer, Mode::NodePrimary) | (Self::Lead, Mode::HubPrimary) => false,
        }
    }

    /// Whether its changes become revisions.
    pub const fn is_source(self) -> bool {
        match self {
            Self::Lead | Self::Peer => true,
            Self::Follower => false,
        }
    }

    /// Whether a sync writes its folder.
    pub const fn is_target(self) -> bool {
        match self {
            Self::Peer | Self::Follower => true,
            Self::Lead => false,
        }
    }
}

/// Tells a folder from another that has its path (SYNC rule 2): a mount over it, or a copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootIdentity {
    /// The random bytes that were put into it when it became a member; [`RootIdentity::UNMARKED`] of one into
    /// which nothing may be written.
    pub marker: [u8; 32],
    /// The device that it lies on.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
}

impl RootIdentity {
    /// In place of a marker where there is none.
    pub const UNMARKED: [u8; 32] = [0; 32];

    /// Whether the folder that is found is this one. One that was not marked may have been since.
    pub fn is(&self, found: &Self) -> bool {
        let is_marked_so = self.marker == found.marker || self.marker == Self::UNMARKED;
        is_marked_so && (self.dev, self.ino) == (found.dev, found.ino)
    }
}

/// The tree that a node was last seen with: its own word, not checked by the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The tree.
    pub tree: TreeId,
    /// When the node said so, on the hub's wall clock.
    pub at: WallTime,
}

/// A revision that a node is being brought to. Until that has ended, its folder may have some of it and
/// some of what it had before: it is brought there first, whatever the head is by then, so that what a sync
/// wrote is never taken for what the node changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// The revision.
    pub revision: Revision,
    /// Its tree.
    pub tree: TreeId,
}

/// The two ends for which the last plan had no step left: another plan for the same would have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The hub's end.
    pub revision: Revision,
    /// The node's end.
    pub tree: TreeId,
}

/// One member, as the hub keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: MemberId,
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// On which node.
    pub node: NodeId,
    /// Its folder there.
    pub path: FilePath,
    /// What it does.
    pub role: Role,
    /// Which folder that is; `None` until its node has told.
    pub root: Option<RootIdentity>,
    /// The revision at which it should be.
    pub intent: Revision,
    /// The tree that it was last seen with; `None` when it has to be looked at.
    pub observed: Option<Observed>,
    /// How often it was seen with another tree, or has to be looked at again: what was planned or done
    /// before is told by it from what came after.
    pub news: u64,
    /// A tree of it that the hub holds whole, and has not taken over yet.
    pub received: Option<TreeId>,
    /// The tree of it that the hub took over last, if its folder was not written since.
    pub merged: Option<TreeId>,
    /// What the next plan starts from: what both sides had when they were last alike, or what the hub took
    /// over since. The hub holds it whole. `None` until then, which is the empty tree.
    pub agreed: Option<TreeId>,
    /// The revision that its folder is being brought to.
    pub begun: Option<Begun>,
    /// The revision that it reached last; 0 when none.
    pub reached: Revision,
    /// The last plan that had nothing to do, see [`Settled`].
    pub settled: Option<Settled>,
    /// The halt that stopped it.
    pub halt: Option<Halt>,
    /// The halt that a person let pass, until a plan has used it.
    pub accepted: Option<HaltId>,
    /// Why its folder cannot be looked at.
    pub unavailable: Option<Rule>,
    /// The next plan ends its drift.
    pub repair: bool,
    /// Paths that both sides changed, since somebody last asked for a resync.
    pub conflicts: u64,
    /// Since when it is known to drift.
    pub drift_since: Option<WallTime>,
}

/// How a member stands. It follows from rows, and is stored nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemberState {
    /// It was never seen.
    Joining,
    /// Its node says that it has the tree of its revision.
    InSync,
    /// It has not, and a sync is to bring it there.
    Syncing,
    /// It has not, and the sync leaves it so.
    Drifted,
    /// Both sides changed the same paths, and both versions are kept until somebody has looked.
    Conflict,
    /// A safety rule stopped it.
    Halted,
    /// Its node is away.
    Offline,
    /// Its folder is gone, is another one, or cannot be looked at.
    Unavailable,
}

impl MemberState {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::InSync => "in_sync",
            Self::Syncing => "syncing",
            Self::Drifted => "drifted",
            Self::Conflict => "conflict",
            Self::Halted => "halted",
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Member {
    /// It is seen with this tree, or has to be looked at.
    pub(super) fn see(&mut self, tree: Option<TreeId>, now: WallTime) {
        if tree.is_none() || self.observed.map(|observed| observed.tree) != tree {
            self.news += 1;
        }
        self.observed = tree.map(|tree| Observed { tree, at: now });
    }

    /// How it stands, whether its node is here or not.
    pub fn state(&self, ws: &Workspace) -> MemberState {
        if self.unavailable.is_some() {
            return MemberState::Unavailable;
        }
        if self.halt.is_some() {
            return MemberState::Halted;
        }
        let Some(observed) = self.observed else {
            return if self.agreed.is_none() { MemberState::Joining } else { MemberState::Syncing };
        };
        let has_revision = self.has_its_revision(ws);
        // A repair that is asked for is under way.
        let is_settled = self.is_settled(ws, observed.tree) && !self.repair;
        let is_held = self.role == Role::Lead && ws.lock.is_some();
        match (has_revision, is_settled || is_held) {
            (true, _) | (false, true) if self.conflicts > 0 => MemberState::Conflict,
            (true, _) => MemberState::InSync,
            (false, true) => MemberState::Drifted,
            (false, false) => MemberState::Syncing,
        }
    }

    /// The revisions that its row names.
    pub fn revisions(&self) -> impl Iterator<Item = Revision> {
        let begun = self.begun.map(|begun| begun.revision);
        let settled = self.settled.map(|settled| settled.revision);
        [Some(self.intent), Some(self.reached), begun, settled].into_iter().flatten()
    }

    /// How it is shown.
    pub fn shown(&self, ws: &Workspace, online: bool) -> MemberState {
        let state = self.state(ws);
        if online || state == MemberState::Halted { state } else { MemberState::Offline }
    }

    /// Whether its node was last seen with the tree of the revision at which it should be, which is the
    /// head: no other revision's tree is known here.
    pub(super) fn has_its_revision(&self, ws: &Workspace) -> bool {
        let is_there = self.observed.is_some_and(|observed| observed.tree == ws.tree);
        // A sync to another tree may go on writing until its end is told.
        let is_written = self.begun.is_some_and(|begun| begun.tree != ws.tree);
        self.intent == ws.head && is_there && !is_written
    }

    /// Whether another plan would find nothing to do.
    pub(super) fn is_settled(&self, ws: &Workspace, tree: TreeId) -> bool {
        self.settled == Some(Settled { revision: ws.head, tree }) && !self.has_news(ws, tree)
    }

    /// Whether this tree has something that is due to be taken over.
    pub(super) fn has_news(&self, ws: &Workspace, tree: TreeId) -> bool {
        self.role.is_source() && ws.lock.is_none() && ![self.agreed, self.merged].contains(&Some(tree))
    }
}

/// The member whose folder is, contains or lies in this one. Both would be written by two syncs, each
/// of which took the other's for changes. `others` are all members of all workspaces.
pub fn clash<'m>(
    node: NodeId,
    path: &FilePath,
    others: impl IntoIterator<Item = &'m Member>,
) -> Option<&'m Member> {
    let touches =
        |other: &FilePath| path.below(other.as_str()).is_some() || other.below(path.as_str()).is_some();
    others.into_iter().find(|other| other.node == node && touches(&other.path))
}

/// The refusal of such a folder.
pub(super) fn clashes(path: &FilePath, other: &Member) -> Refusal {
    let message = format!(
        "`{}` and the folder `{}` of a member on the same node are one in the other.",
        printable(path.as_str(), 200),
        printable(other.path.as_str(), 200)
    );
    Refusal::new(Code::Conflict, message).hint("Choose a folder beside it, or detach that member first.")
}
