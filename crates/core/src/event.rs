//! What happened, as one closed list. Flat on purpose: a row of the durable log is an event.

use crate::id::{NodeId, RunId};
use crate::time::WallTime;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $text:literal;)*) => {
        /// Everything that can happen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind { $($(#[$doc])* $variant,)* }

        impl EventKind {
            /// All kinds: a simulation that never sees one of them has not tested it.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A machine enrolled.
    NodeJoined = "node.joined";
    /// A node's link is up.
    NodeOnline = "node.online";
    /// A node's link ended.
    NodeOffline = "node.offline";
    /// Name or labels changed.
    NodeChanged = "node.changed";
    /// The node was removed and its identity revoked.
    NodeRemoved = "node.removed";
    /// Two machines used one identity.
    NodeQuarantined = "node.quarantined";
    /// An invite was made.
    InviteCreated = "invite.created";
    /// An invite was revoked.
    InviteRevoked = "invite.revoked";
    /// A run was accepted and is on its way.
    RunAccepted = "run.accepted";
    /// Its process runs.
    RunStarted = "run.started";
    /// Its node is away; the run waits for it.
    RunDisconnected = "run.disconnected";
    /// Its node came back with it.
    RunReattached = "run.reattached";
    /// Somebody asked for its end.
    RunCancelRequested = "run.cancel_requested";
    /// It ended; `detail` is the final state.
    RunEnded = "run.ended";
    /// The policy refused it.
    RunDenied = "run.denied";
    /// A file was changed, or may have been; `subject` is its path on the node, `detail` the verb.
    FileChanged = "file.changed";
    /// A rule refused a change of a file; `subject` is its path, `detail` the verb and the code.
    FileDenied = "file.denied";
    /// A workspace was made; `subject` is its name, here and below.
    WorkspaceCreated = "workspace.created";
    /// Its rules changed.
    WorkspaceChanged = "workspace.changed";
    /// It was removed; the folders of its members stay as they are.
    WorkspaceRemoved = "workspace.removed";
    /// It has a new revision; `detail` is its number and kind.
    WorkspaceRevision = "workspace.revision";
    /// Somebody has its lock; `detail` is the epoch.
    WorkspaceLocked = "workspace.locked";
    /// Its lock ended; `detail` is the epoch, and `unlocked`, `expired` or `broken`.
    WorkspaceUnlocked = "workspace.unlocked";
    /// A folder of the node became a member; `detail` is its path and role.
    MemberAttached = "member.attached";
    /// A folder of the node is no member any more; `detail` is its path.
    MemberDetached = "member.detached";
    /// A member is in sync, or cannot be reached; `detail` is its path and state.
    MemberState = "member.state";
    /// A member differs from its revision, and the sync leaves it so; `detail` is its path. Likewise a mount of a
    /// skill, which `subject` names then.
    DriftFound = "drift.found";
    /// It does not any more; `detail` is its path.
    DriftCleared = "drift.cleared";
    /// A safety rule stopped the sync of a member; `detail` is its path, the halt and its rules.
    SyncHalted = "sync.halted";
    /// Both sides changed the same; `detail` is the member's path and how many paths.
    SyncConflict = "sync.conflict";
    /// A skill has a new revision; `subject` is its name, `detail` the revision.
    SkillPromoted = "skill.promoted";
    /// A skill was removed; `subject` is its name.
    SkillRemoved = "skill.removed";
    /// A folder of the node follows a skill; `subject` is its name, `detail` the path.
    SkillMounted = "skill.mounted";
    /// It does not any more; likewise.
    SkillUnmounted = "skill.unmounted";
    /// A folder is pushed to, or pulled from; `subject` is the transfer, `detail` the kind and the path.
    TransferStarted = "transfer.started";
    /// A transfer ended at its node; `subject` is the transfer, `detail` the kind and how it ended.
    TransferEnded = "transfer.ended";
    /// A task was submitted; `subject` is its id, here and below.
    TaskSubmitted = "task.submitted";
    /// It waits for a claim: its time came, what it waited for is done, or it is tried again.
    TaskReady = "task.ready";
    /// Somebody works on it; `detail` is the attempt.
    TaskLeased = "task.leased";
    /// Its worker says how far it is, at most once in [`crate::limits::PROGRESS_EVENT_MS`]; `detail` is
    /// `DONE` or `DONE/TOTAL`.
    TaskProgress = "task.progress";
    /// Its lease ended without a result; `detail` says how.
    TaskReleased = "task.released";
    /// An attempt failed, and it will be tried again.
    TaskFailed = "task.failed";
    /// It is done.
    TaskDone = "task.done";
    /// It failed for the last time.
    TaskDead = "task.dead";
    /// Somebody asked for its end.
    TaskCancelRequested = "task.cancel_requested";
    /// It was cancelled.
    TaskCancelled = "task.cancelled";
    /// It did not start in its time.
    TaskExpired = "task.expired";
    /// Its priority changed.
    TaskBumped = "task.bumped";
    /// An attempt that had ended reported; `detail` is its number.
    TaskStaleReport = "task.stale_report";
    /// A schedule was made, changed, or removed; `subject` is its name.
    ScheduleChanged = "schedule.changed";
    /// A part of the pool was paused, drained, or goes on; `subject` is which.
    PoolPaused = "pool.paused";
    /// A node's policy has a new revision.
    PolicyChanged = "policy.changed";
    /// A token was made.
    TokenCreated = "token.created";
    /// A token was revoked.
    TokenRevoked = "token.revoked";
    /// A person is asked about a command.
    ConsentAsked = "consent.asked";
    /// Somebody, or a lasting answer, answered; `detail` is `approved` or `denied`.
    ConsentAnswered = "consent.answered";
    /// A question ended without an answer; `detail` is `expired` or `withdrawn`.
    ConsentEnded = "consent.ended";
    /// A lasting answer was given.
    ConsentRuleMade = "consent.rule_made";
    /// A lasting answer was ended.
    ConsentRuleEnded = "consent.rule_ended";
    /// A lock was made; `subject` is what it holds on.
    LockCreated = "lock.created";
    /// A lock was removed before its end.
    LockRemoved = "lock.removed";
    /// The audit log is not what was written.
    AuditBroken = "audit.broken";
    /// The hub serves.
    HubStarted = "hub.started";
}

/// One thing that happened. Arguments of commands, contents and secrets are never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// When, on the hub's wall clock.
    pub at: WallTime,
    /// The node concerned.
    pub node: Option<NodeId>,
    /// The run concerned.
    pub run: Option<RunId>,
    /// Who caused it, such as `token:admin` or `node:build-2`.
    pub actor: Option<String>,
    /// The thing concerned by name or id, when it is neither node nor run.
    pub subject: Option<String>,
    /// One word or sentence more.
    pub detail: Option<String>,
}

impl Event {
    /// An event that names nothing yet.
    pub const fn new(kind: EventKind, at: WallTime) -> Self {
        Self { kind, at, node: None, run: None, actor: None, subject: None, detail: None }
    }

    /// Names the node.
    #[must_use]
    pub const fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    /// Names the run.
    #[must_use]
    pub const fn run(mut self, run: RunId) -> Self {
        self.run = Some(run);
        self
    }

    /// Names who caused it.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = Some(actor.into());
        self
    }

    /// Names the thing concerned.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Says more.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}
