//! Workspaces: a named tree with members, whose head moves from revision to revision, and folders of
//! nodes that follow it or lead it.
//!
//! Two numbers of a member say where a sync stands: the revision at which it should be, and the tree
//! that its node was last seen with. Both are rows, a wave is what makes the second equal the first, and
//! [`next`] answers from these rows alone what is to be done: whoever crashed in the middle goes on from
//! there (SYNC 10).
//!
//! Never here: how trees are made the same, which is [`crate::sync`], and whether the bytes are there,
//! of which [`Complete`] is the proof.

mod cover;
mod decide;
pub mod history;
mod leases;
mod member;
pub mod table;
mod wave;

use crate::error::{Code, Refusal};
use crate::files::content::TreeId;
use crate::id::{LockEpoch, MemberId, Revision, WorkspaceId};
use crate::limits;
use crate::name::{Name, printable};
use crate::time::WallTime;

pub use self::cover::{Cover, Folder, Quoted, Writer};
pub use self::decide::{Command, Decided, NewWorkspace, Source, Unlocked, admit, create, decide};
pub use self::leases::LockLeases;
pub use self::member::{Begun, Member, MemberState, Observed, Role, RootIdentity, Settled, clash};
pub use self::wave::{Planning, Step, Waits, next};

/// Whose changes make revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// The hub's, and those of members that are peers.
    HubPrimary,
    /// Those of one member, the lead, and of nobody else.
    NodePrimary,
}

impl Mode {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HubPrimary => "hub",
            Self::NodePrimary => "node",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::HubPrimary, Self::NodePrimary].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// What of a folder belongs to the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Patterns that are left out, in the form of `.gitignore`; at most
    /// [`limits::WORKSPACE_EXCLUDES_MAX`] of 1 to [`limits::WORKSPACE_EXCLUDE_BYTES_MAX`] bytes.
    pub exclude: Vec<String>,
    /// Whether `.gitignore` and `.cortexignore` in the folder are heeded.
    pub ignore_files: bool,
    /// Whether `.git` and its like belong to it.
    pub vcs: bool,
    /// Whether links that lead out of the folder are kept, as text; else they are a problem that is told.
    pub links_outside: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { exclude: Vec::new(), ignore_files: true, vcs: false, links_outside: true }
    }
}

impl Rules {
    /// Checks the bounds.
    ///
    /// # Errors
    /// `too_large`, `invalid_argument`.
    pub fn check(&self) -> Result<(), Refusal> {
        let (count_max, bytes_max) = (limits::WORKSPACE_EXCLUDES_MAX, limits::WORKSPACE_EXCLUDE_BYTES_MAX);
        if self.exclude.len() > count_max || self.exclude.iter().any(|pattern| pattern.len() > bytes_max) {
            let message = format!("A workspace has at most {count_max} patterns of {bytes_max} bytes.");
            return Err(Refusal::new(Code::TooLarge, message)
                .hint("Use fewer patterns, or keep them in a `.cortexignore` of the folder."));
        }
        let is_bad = |pattern: &&String| pattern.is_empty() || pattern.contains(char::is_control);
        if let Some(pattern) = self.exclude.iter().find(is_bad) {
            let message = format!("`{}` is no pattern of files.", printable(pattern, 120));
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Write one pattern per entry, such as `target/` or `*.o`."));
        }
        Ok(())
    }
}

/// Who holds the lock of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Who: `token:<name>`.
    pub holder: String,
    /// For how long it holds from its last extension, milliseconds.
    pub ttl_ms: u64,
    /// When it ends if nobody extends it: for people. What ends it is [`LockLeases`].
    pub until: WallTime,
}

/// One workspace, as the hub keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, of its own among those that were not removed.
    pub name: Name,
    /// Whose changes make revisions.
    pub mode: Mode,
    /// The newest revision. The first is 1.
    pub head: Revision,
    /// The tree of that revision.
    pub tree: TreeId,
    /// What belongs to the tree.
    pub rules: Rules,
    /// Bytes that one tree of it may have.
    pub bytes_max: u64,
    /// The number of the lock that was given last; 0 when none ever was.
    pub epoch: LockEpoch,
    /// Who holds that lock; `None` when it has ended.
    pub lock: Option<Holding>,
    /// Who made it.
    pub owner: String,
    /// When it was made.
    pub created_at: WallTime,
    /// When it was removed; its rows are kept for its history.
    pub removed_at: Option<WallTime>,
}

impl Workspace {
    /// Refuses a write that may not be done under the lock as it stands. `quoted` is the epoch of the
    /// writer's own lock.
    ///
    /// # Errors
    /// `locked` when another has the lock; `stale_epoch` when the writer's own has ended.
    pub fn check_lock(&self, quoted: Option<LockEpoch>) -> Result<(), Refusal> {
        match (&self.lock, quoted) {
            (None, None) => Ok(()),
            (Some(_), Some(epoch)) if epoch == self.epoch => Ok(()),
            (Some(holding), None) => Err(self.locked(holding)),
            (_, Some(epoch)) => Err(self.stale(epoch)),
        }
    }

    /// Refuses one who says the number of a lock that another holds: a number is no secret.
    ///
    /// # Errors
    /// `locked`.
    pub fn check_holder(&self, actor: &str) -> Result<(), Refusal> {
        match &self.lock {
            Some(holding) if holding.holder != actor => Err(self.locked(holding)),
            Some(_) | None => Ok(()),
        }
    }

    fn locked(&self, holding: &Holding) -> Refusal {
        let holder = printable(&holding.holder, 120);
        let message = format!(
            "Workspace {} is locked by {holder}, for {} s at most unless it is extended.",
            self.name,
            holding.ttl_ms.div_ceil(1000)
        );
        Refusal::new(Code::Locked, message)
            .hint(format!(
                "Wait for the lock to end, or ask its holder; `cortex workspace unlock {} --break` ends it.",
                self.name
            ))
            .detail("epoch", self.epoch.to_string())
            .detail("holder", holder)
            .detail("until_ms", holding.until.0.to_string())
    }

    fn stale(&self, epoch: LockEpoch) -> Refusal {
        let message = format!("The lock {epoch} of workspace {} does not hold.", self.name);
        Refusal::new(Code::StaleEpoch, message)
            .hint("Read what is there, take the lock again with `cortex workspace lock`, and decide anew.")
            .detail("epoch", self.epoch.to_string())
    }
}

/// How a revision came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevisionKind {
    /// Written through the hub.
    Edit,
    /// Brought in as a whole.
    Import,
    /// Taken from a member.
    Sync,
    /// Taken from a member after a person let a halt pass.
    Resync,
    /// The tree of an earlier revision.
    Restore,
}

impl RevisionKind {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Edit, Self::Import, Self::Sync, Self::Resync, Self::Restore];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Import => "import",
            Self::Sync => "sync",
            Self::Resync => "resync",
            Self::Restore => "restore",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

/// One revision. It never changes, and its number is never given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevisionRow {
    /// Of which workspace.
    pub workspace: WorkspaceId,
    /// Its number.
    pub n: Revision,
    /// Its tree.
    pub tree: TreeId,
    /// The revision before it; `None` of the first. It may have been thinned out since.
    pub parent: Option<Revision>,
    /// How it came to be.
    pub kind: RevisionKind,
    /// From which member, if from one.
    pub member: Option<MemberId>,
    /// Who caused it.
    pub by: String,
    /// When, on the hub's wall clock.
    pub at: WallTime,
    /// Files and links of its tree.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Why, in the words of who caused it; at most [`limits::REVISION_NOTE_BYTES_MAX`] bytes.
    pub note: String,
}

/// Proof that the hub's chunk store holds a tree whole (SYNC rule 18): a decision that makes a row name a
/// tree takes one, and uses it up.
#[derive(Debug, PartialEq, Eq)]
pub struct Complete {
    tree: TreeId,
    files: u64,
    bytes: u64,
}

impl Complete {
    /// Says: «I have walked this tree from its top; each object and each chunk that it names is in the chunk
    /// store, durable, within what the caller may use, and pinned until the transaction of the decision has
    /// ended». Only the chunk store may say so; `files` (with links) and `bytes` are what it counted.
    pub const fn walked_in_the_chunk_store(tree: TreeId, files: u64, bytes: u64) -> Self {
        Self { tree, files, bytes }
    }

    /// The tree.
    pub const fn tree(&self) -> TreeId {
        self.tree
    }

    /// Files and links in it.
    pub const fn files(&self) -> u64 {
        self.files
    }

    /// Bytes of its files.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}
