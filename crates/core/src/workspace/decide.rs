//! The decision: what may follow what in one workspace. The store runs it inside one transaction, so of
//! two writers that both saw the same head one is told that it has moved.

mod draft;
mod locks;
mod members;
mod news;

use super::{
    Complete, Member, Mode, Planning, RevisionKind, RevisionRow, Role, RootIdentity, Rules, Workspace,
};
use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::files::content::TreeId;
use crate::files::path::FilePath;
use crate::id::{LockEpoch, MemberId, NodeId, Revision, WorkspaceId};
use crate::name::Name;
use crate::sync::{Halt, HaltId, Rule};
use crate::time::WallTime;
use draft::Draft;

/// What a commit comes from.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// Somebody wrote through the hub.
    Edit,
    /// Somebody brought a whole tree.
    Import,
    /// A merge took over what a member changed.
    Member {
        /// Which one.
        id: MemberId,
        /// What was planned.
        planning: Box<Planning>,
        /// What is agreed on with it from then on: its own tree as it was sent, except where a path was
        /// held, which stays as it was agreed. The hub's new tree holds all of it, under its name or
        /// beside it, so what differs afterwards is the hub's change.
        agreed: Complete,
        /// Paths that both sides had changed.
        conflicts: u64,
    },
}

/// What may happen to a workspace. `lock` is the epoch of the lock that the writer holds, if any.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// A tree becomes the head.
    Commit {
        /// The tree.
        complete: Complete,
        /// The head that it was made from.
        expect: Revision,
        /// What it comes from.
        source: Source,
        /// Who.
        by: String,
        /// Why.
        note: String,
        /// Under which lock.
        lock: Option<LockEpoch>,
    },
    /// The tree of an earlier revision becomes the head, as a new revision.
    Restore {
        /// That revision.
        of: RevisionRow,
        /// Its tree.
        complete: Complete,
        /// Who.
        by: String,
        /// Under which lock.
        lock: Option<LockEpoch>,
    },
    /// Rules or the bound change; what is `None` stays.
    Change {
        /// The rules; each member is scanned anew by them.
        rules: Option<Rules>,
        /// Bytes that one tree may have.
        bytes_max: Option<u64>,
        /// Who.
        by: String,
        /// Under which lock.
        lock: Option<LockEpoch>,
    },
    /// A folder becomes a member.
    Attach {
        /// Its id from then on.
        id: MemberId,
        /// On which node.
        node: NodeId,
        /// Which folder.
        path: FilePath,
        /// What it does.
        role: Role,
        /// Who.
        by: String,
    },
    /// It is no member any more; the folder stays as it is.
    Detach {
        /// Which one.
        member: MemberId,
        /// Who.
        by: String,
    },
    /// Its node tells what is there.
    Observed {
        /// Of which member.
        member: MemberId,
        /// Which folder it looked at; `None` when there was none yet, or its node does not tell.
        root: Option<RootIdentity>,
        /// The tree.
        tree: TreeId,
        /// [`Member::news`](super::Member::news) when the look began.
        news: u64,
    },
    /// Its node, or a plan, found that the folder is gone, is none, or cannot be looked at.
    Unavailable {
        /// Of which member.
        member: MemberId,
        /// What is wrong.
        rule: Rule,
    },
    /// Its node has sent its tree, and the hub has it whole.
    Received {
        /// Of which member.
        member: MemberId,
        /// The tree.
        complete: Complete,
    },
    /// A plan halted.
    Halt {
        /// Of which member.
        member: MemberId,
        /// What was planned.
        planning: Planning,
        /// The halt.
        halt: Halt,
    },
    /// A merge had no step: the hub has all that the member changed.
    Merged {
        /// Of which member.
        member: MemberId,
        /// What was planned.
        planning: Planning,
        /// As in [`Source::Member`].
        agreed: Complete,
    },
    /// A plan for the node had no step.
    Settled {
        /// Of which member.
        member: MemberId,
        /// What was planned.
        planning: Planning,
        /// What both sides agree on.
        agreed: Complete,
    },
    /// The steps of a plan on the node are about to be carried out.
    Begin {
        /// Of which member.
        member: MemberId,
        /// What was planned.
        planning: Planning,
    },
    /// The steps of a plan on the node were carried out.
    Applied {
        /// Of which member.
        member: MemberId,
        /// What was planned.
        planning: Planning,
        /// The tree that the node has afterwards, looked at again.
        tree: TreeId,
        /// What both sides agree on.
        agreed: Complete,
        /// Paths that both sides had changed and that no commit has told of.
        conflicts: u64,
    },
    /// A person lets a halt pass.
    Accept {
        /// Of which member.
        member: MemberId,
        /// This one, and no other.
        halt: HaltId,
        /// Who.
        by: String,
    },
    /// A person has a member looked at anew, and has seen its conflicts.
    Resync {
        /// Which one.
        member: MemberId,
        /// Its drift ends: the workspace's version gets its name back, its own is kept beside it.
        repair: bool,
        /// Who.
        by: String,
    },
    /// Somebody wants to be the only writer.
    Lock {
        /// Who.
        holder: String,
        /// For how long from each extension, milliseconds.
        ttl_ms: u64,
    },
    /// The holder is still at it.
    Extend {
        /// Of which lock.
        epoch: LockEpoch,
    },
    /// The holder gives it back.
    Unlock {
        /// Which lock.
        epoch: LockEpoch,
    },
    /// Somebody else ends it.
    BreakLock {
        /// Who.
        by: String,
    },
    /// It was not extended in its time, as [`super::LockLeases`] says.
    Expire {
        /// Which lock.
        epoch: LockEpoch,
    },
    /// The workspace ends; folders of members stay as they are.
    Remove {
        /// Who.
        by: String,
        /// Under which lock.
        lock: Option<LockEpoch>,
    },
}

impl Command {
    /// The one member that it is about. Then [`decide`] needs no other; else it needs all.
    pub const fn member(&self) -> Option<MemberId> {
        match self {
            Self::Detach { member, .. }
            | Self::Observed { member, .. }
            | Self::Unavailable { member, .. }
            | Self::Received { member, .. }
            | Self::Halt { member, .. }
            | Self::Merged { member, .. }
            | Self::Settled { member, .. }
            | Self::Begin { member, .. }
            | Self::Applied { member, .. }
            | Self::Accept { member, .. }
            | Self::Resync { member, .. } => Some(*member),
            Self::Commit { .. }
            | Self::Restore { .. }
            | Self::Change { .. }
            | Self::Attach { .. }
            | Self::Lock { .. }
            | Self::Extend { .. }
            | Self::Unlock { .. }
            | Self::BreakLock { .. }
            | Self::Expire { .. }
            | Self::Remove { .. } => None,
        }
    }
}

/// How a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unlocked {
    /// Its holder gave it back.
    GivenBack,
    /// It was not extended in its time.
    Expired,
    /// Somebody else ended it.
    Broken,
}

impl Unlocked {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GivenBack => "unlocked",
            Self::Expired => "expired",
            Self::Broken => "broken",
        }
    }
}

/// What a decision came to: rows to put, all in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The workspace.
    pub ws: Workspace,
    /// Members that are new or changed.
    pub members: Vec<Member>,
    /// Members that are none any more.
    pub gone: Vec<MemberId>,
    /// The revision that was made.
    pub revision: Option<RevisionRow>,
    /// What is told.
    pub events: Vec<Event>,
}

impl Decided {
    /// The head that it was decided on; 0 for a workspace that is new. Whoever keeps the rows checks that
    /// it still is.
    pub fn expected_head(&self) -> Revision {
        match &self.revision {
            Some(revision) => revision.parent.unwrap_or_default(),
            None => self.ws.head,
        }
    }
}

/// A workspace that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewWorkspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name.
    pub name: Name,
    /// Whose changes make revisions.
    pub mode: Mode,
    /// What belongs to the tree.
    pub rules: Rules,
    /// Bytes that one tree of it may have.
    pub bytes_max: u64,
    /// Who makes it.
    pub owner: String,
}

/// Refuses a workspace that may not be, or not with a tree of so many entries and bytes.
///
/// # Errors
/// Those of [`create`].
pub fn admit(new: &NewWorkspace, entries: u64, bytes: u64) -> Result<(), Refusal> {
    new.rules.check()?;
    draft::check_size(&new.name, new.bytes_max, (entries, bytes))
}

/// Makes a workspace with its first revision; `complete` is the tree that it begins with, which may be
/// the empty one.
///
/// # Errors
/// `too_large`, `invalid_argument`, `quota`.
pub fn create(new: NewWorkspace, complete: Complete, now: WallTime) -> Result<Decided, Refusal> {
    admit(&new, complete.files(), complete.bytes())?;
    let ws = Workspace {
        id: new.id,
        name: new.name,
        mode: new.mode,
        head: Revision(0),
        tree: complete.tree(),
        rules: new.rules,
        bytes_max: new.bytes_max,
        epoch: LockEpoch(0),
        lock: None,
        owner: new.owner,
        created_at: now,
        removed_at: None,
    };
    let by = ws.owner.clone();
    let mut draft = Draft::new(&ws, &[], now);
    draft.tell(EventKind::WorkspaceCreated, Some(&by), None);
    draft.put_head(&complete, RevisionKind::Import, None, by, String::new());
    Ok(draft.decided())
}

/// Applies `command`. `members` are those of this workspace: all, or the one that the command is about.
///
/// # Errors
/// `not_found` for a workspace that was removed and for a member that is none; `conflict` when the head
/// has moved, and for what cannot follow; `locked` and `stale_epoch` for writes that the lock forbids;
/// `sync_halted` for what a halted member may not; `invalid_argument`, `too_large`, `quota`.
pub fn decide(
    ws: &Workspace,
    members: &[Member],
    command: Command,
    now: WallTime,
) -> Result<Decided, Refusal> {
    if ws.removed_at.is_some() {
        return Err(Refusal::new(Code::NotFound, format!("There is no workspace {}.", ws.name))
            .hint("List the workspaces with `cortex workspace ls` and use one of those names."));
    }
    let mut draft = Draft::new(ws, members, now);
    draft.apply(command)?;
    Ok(draft.decided())
}
