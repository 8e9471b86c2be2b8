//! What the hub keeps, and what it promises about it.
//!
//! Kept: nodes, invites, users, grants, tokens, locks, policies, questions to people, runs (not
//! their output, which lives in segment files of the hub), the event log, the audit log, a few
//! numbers (generation), the tasks of the work pool ([`PoolRead`]), and operations that change files
//! ([`FilesRead`]), workspaces and skills ([`SyncRead`]). Not kept here: presence, heartbeats, link state, meters — these are observations
//! and live in memory.
//!
//! **Promise.** [`StoreExt::write`] answers `Ok` only after the transaction is committed and
//! synced to disk. An `Err` from the closure leaves nothing behind. An `Err` of the store itself
//! ([`StoreError`]) means that nothing is promised: [`StoreError::Timeout`] may still be
//! committed later, so a caller repeats it only with an idempotency key.
//!
//! **No promise** of fairness between callers, nor that two reads see one state: use one
//! [`StoreExt::read`] closure for what must agree.
//!
//! Decisions of `cortex_core` run inside the closures: read, decide, put, all in one
//! transaction. Writes are executed one after another (serialisable), in the order in which they
//! were accepted; many of them share one commit.
//!
//! Never here: decisions, tokio tasks per request, knowledge of HTTP or gRPC.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::audit::AuditRow;
use cortex_core::consent::{Consent, ConsentRule, Standing};
use cortex_core::event::Event;
use cortex_core::id::{
    ConsentId, Epoch, Generation, InviteId, LockId, NodeId, Revision, RunId, Seq, TokenId, UserId,
};
use cortex_core::invite::Invite;
use cortex_core::lock::Lock;
use cortex_core::name::Name;
use cortex_core::node::{AuditHead, Node};
use cortex_core::run::{Run, RunState};
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use cortex_core::user::{RoleGrant, User};

pub mod blobs;
pub mod chain;
mod conflict;
mod files;
pub mod memory;
mod pool;
pub mod sqlite;
mod sync;

pub use files::{FilesRead, FilesTx};
pub use pool::{PoolRead, PoolTx, TaskFilter};
pub use sync::{StoredConflict, SyncRead, SyncTx, VisitRoot};

/// Why the store could not do its work. The closure's own refusals are not among these.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The queue of the writer, or of the readers, is full. Nothing was done.
    #[error("the store's queue is full")]
    Full,
    /// No answer within the deadline. The write may still be committed.
    #[error("the store did not answer within {0:?}")]
    Timeout(Duration),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// Another process has the data directory. Its lock goes with it.
    #[error("another hub{} holds {}", .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), .lock.display())]
    InUse {
        /// The lock file that it holds.
        lock: PathBuf,
        /// That process, when its lock file says so.
        pid: Option<u32>,
    },
    /// The disk or the database said no, or the closure panicked. Nothing of this transaction is
    /// kept. One exception: its commit failed and the process ended before the disk took another
    /// write; then it may be found at the next start, so a caller repeats it with an idempotency
    /// key.
    #[error("the store failed: {0}")]
    Failed(String),
    /// What is stored cannot be read: damaged, or written by a newer version.
    #[error("the store cannot be read: {0}")]
    Damaged(String),
}

/// What a write closure may fail with.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The decision said no; nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A row of the event log with its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Its position; without holes except by trimming at the front.
    pub seq: Seq,
    /// The event.
    pub event: Event,
}

/// A row of the audit log with its number and chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedAudit {
    /// Its position; without holes.
    pub seq: Seq,
    /// The row.
    pub row: AuditRow,
    /// blake3 over the hash of the row before (zeros for the first), `seq`, and every field,
    /// each with its length in front.
    pub hash: [u8; 32],
}

/// One revision of a node's policy: bytes and their signature, which the store never reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPolicy {
    /// Whose.
    pub node: NodeId,
    /// Raised by each change.
    pub revision: Revision,
    /// What the hub's authority signed.
    pub document: Vec<u8>,
    /// Its signature.
    pub signature: Vec<u8>,
    /// Who made it.
    pub changed_by: String,
    /// When.
    pub changed_at: WallTime,
}

/// A profile that a hub keeps beside the built-in ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProfile {
    /// Its name.
    pub name: Name,
    /// The text of its document, which the store never reads.
    pub document: String,
    /// Who changed it last.
    pub changed_by: String,
    /// When.
    pub changed_at: WallTime,
}

/// Which runs to list. All conditions must hold. Newest first.
#[derive(Clone, Debug, Default)]
pub struct RunFilter {
    /// Only of this node.
    pub node: Option<NodeId>,
    /// Only in one of these states; all when empty.
    pub states: Vec<RunState>,
    /// Only older than (accepted before) this one: the cursor.
    pub before: Option<RunId>,
}

/// Which questions to list. All conditions must hold. Newest first.
#[derive(Clone, Debug, Default)]
pub struct ConsentFilter {
    /// Only those that stand there.
    pub standing: Option<Standing>,
    /// Only those of this token.
    pub token: Option<TokenId>,
    /// Only older than this one: the cursor.
    pub before: Option<ConsentId>,
}

/// Which audit rows to list. Oldest first.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this node.
    pub node: Option<NodeId>,
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only after this row: the cursor.
    pub after: Seq,
    /// Only the newest rows: the order stays oldest first.
    pub newest: bool,
}

/// One consistent view. Each method costs one query.
pub trait Read: PoolRead + FilesRead + SyncRead {
    /// The generation of this store; raised by a restore.
    fn generation(&self) -> Result<Generation, StoreError>;

    /// A node by id, removed ones too.
    fn node(&self, id: NodeId) -> Result<Option<Node>, StoreError>;
    /// A node by name among those that are not removed.
    fn node_named(&self, name: &Name) -> Result<Option<Node>, StoreError>;
    /// All nodes that are not removed, by name.
    fn nodes(&self) -> Result<Vec<Node>, StoreError>;

    /// An invite by id.
    fn invite(&self, id: InviteId) -> Result<Option<Invite>, StoreError>;
    /// The invite by which a node joined.
    fn invite_of(&self, node: NodeId) -> Result<Option<Invite>, StoreError>;
    /// All invites, newest first, at most `limit`.
    fn invites(&self, limit: usize) -> Result<Vec<Invite>, StoreError>;

    /// A token by id.
    fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError>;
    /// All tokens, revoked and expired ones too, newest first.
    fn tokens(&self) -> Result<Vec<Token>, StoreError>;

    /// A user by id, removed ones too.
    fn user(&self, id: UserId) -> Result<Option<User>, StoreError>;
    /// A user by name among those that are not removed.
    fn user_named(&self, name: &Name) -> Result<Option<User>, StoreError>;
    /// All users that are not removed, by name.
    fn users(&self) -> Result<Vec<User>, StoreError>;
    /// All grants of roles that were not taken back, oldest first.
    fn grants(&self) -> Result<Vec<RoleGrant>, StoreError>;

    /// A lock by id.
    fn lock(&self, id: LockId) -> Result<Option<Lock>, StoreError>;
    /// All locks that were not lifted, expired ones too, oldest first.
    fn locks(&self) -> Result<Vec<Lock>, StoreError>;

    /// A question by id.
    fn consent(&self, id: ConsentId) -> Result<Option<Consent>, StoreError>;
    /// Questions, newest first, at most `limit`.
    fn consents(&self, filter: &ConsentFilter, limit: usize) -> Result<Vec<Consent>, StoreError>;
    /// The newest question that was asked with this key by this caller on this node.
    fn consent_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<Consent>, StoreError>;
    /// How many questions wait.
    fn consents_pending(&self) -> Result<usize, StoreError>;
    /// Questions about the same program on this node that somebody answered, newest first, at most
    /// `limit`.
    fn consents_alike(&self, node: NodeId, program: &str, limit: usize) -> Result<Vec<Consent>, StoreError>;
    /// All lasting answers that were not ended, expired ones too, oldest first.
    fn consent_rules(&self) -> Result<Vec<ConsentRule>, StoreError>;

    /// The newest policy of a node; `None` means that nobody has set one, which is STRICT.
    fn policy(&self, node: NodeId) -> Result<Option<StoredPolicy>, StoreError>;
    /// The newest policy of each node that is not removed, by node.
    fn policies(&self) -> Result<Vec<StoredPolicy>, StoreError>;
    /// Policies of a node below that revision, newest first, at most `limit`.
    fn policy_history(
        &self,
        node: NodeId,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<StoredPolicy>, StoreError>;
    /// All profiles that are kept, by name.
    fn profiles(&self) -> Result<Vec<StoredProfile>, StoreError>;

    /// A run by id.
    fn run(&self, id: RunId) -> Result<Option<Run>, StoreError>;
    /// The run that was accepted with this key by this caller on this node.
    fn run_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<Run>, StoreError>;
    /// Runs, newest first, at most `limit`.
    fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<Run>, StoreError>;
    /// All runs that are not final, oldest first: what a restarted hub takes up again.
    fn open_runs(&self) -> Result<Vec<Run>, StoreError>;
    /// Final runs and when they ended, those that ended first in front, at most `limit`.
    fn ended_runs(&self, limit: usize) -> Result<Vec<(RunId, WallTime)>, StoreError>;
    /// How many runs have a time of their end.
    fn ended_count(&self) -> Result<u64, StoreError>;

    /// Events after `after`, oldest first, at most `limit`.
    fn events(&self, after: Seq, limit: usize) -> Result<Vec<LoggedEvent>, StoreError>;
    /// The oldest and newest numbers in the log; (1, 0) when it was never written.
    fn events_span(&self) -> Result<(Seq, Seq), StoreError>;

    /// Audit rows, oldest first, at most `limit`.
    fn audit(&self, filter: &AuditFilter, limit: usize) -> Result<Vec<LoggedAudit>, StoreError>;
    /// Number and hash of the newest audit row; zero and [`chain::CHAIN_START`] when there is none.
    fn audit_head(&self) -> Result<AuditHead, StoreError>;
}

/// One transaction: sees its own writes; all of it is kept or nothing.
pub trait Tx: Read + PoolTx + FilesTx + SyncTx {
    /// Inserts or replaces a node. A second live node of the same name is refused `Conflict`.
    fn put_node(&mut self, node: &Node) -> Result<(), WriteError>;
    /// Raises the node's epoch by one and returns it. One write, no read of the row by the caller.
    fn next_epoch(&mut self, id: NodeId) -> Result<Option<Epoch>, StoreError>;
    /// Writes when nodes were last heard, and nothing else of them.
    fn observe_nodes(&mut self, seen: &[(NodeId, WallTime)]) -> Result<(), StoreError>;
    /// Inserts or replaces an invite.
    fn put_invite(&mut self, invite: &Invite) -> Result<(), StoreError>;
    /// Inserts or replaces a token. A second live token of the same name is refused `Conflict`.
    fn put_token(&mut self, token: &Token) -> Result<(), WriteError>;
    /// Removes sessions that were ended, or ended by themselves, before then, the oldest first, at most
    /// `batch` at once. Returns how many went.
    fn trim_sessions(&mut self, before: WallTime, batch: usize) -> Result<u64, StoreError>;
    /// Inserts or replaces a user. A second live user of the same name is refused `Conflict`.
    fn put_user(&mut self, user: &User) -> Result<(), WriteError>;
    /// Inserts or replaces a grant of a role.
    fn put_grant(&mut self, grant: &RoleGrant) -> Result<(), StoreError>;
    /// Inserts or replaces a lock.
    fn put_lock(&mut self, lock: &Lock) -> Result<(), StoreError>;
    /// Inserts or replaces a question.
    fn put_consent(&mut self, consent: &Consent) -> Result<(), StoreError>;
    /// Inserts or replaces a lasting answer.
    fn put_consent_rule(&mut self, rule: &ConsentRule) -> Result<(), StoreError>;
    /// Removes questions that were answered, or ended, before then, the oldest answers first, at most
    /// `batch` at once. Returns how many went.
    fn trim_consents(&mut self, before: WallTime, batch: usize) -> Result<u64, StoreError>;
    /// Writes what a node witnesses of the audit log, and nothing else of it. An older head than the
    /// one that is kept changes nothing.
    fn observe_audit(&mut self, node: NodeId, head: AuditHead) -> Result<(), StoreError>;
    /// Appends a policy. A revision not above the newest is refused `Conflict`. The oldest beyond
    /// `POLICY_REVISIONS_KEPT` of the node go.
    fn put_policy(&mut self, policy: &StoredPolicy) -> Result<(), WriteError>;
    /// Inserts or replaces a profile.
    fn put_profile(&mut self, profile: &StoredProfile) -> Result<(), StoreError>;
    /// Removes a profile; whether there was one.
    fn remove_profile(&mut self, name: &Name) -> Result<bool, StoreError>;
    /// Inserts or replaces a run. A second run of the same caller, node and key is refused
    /// `Conflict`.
    fn put_run(&mut self, run: &Run) -> Result<(), WriteError>;
    /// Appends to the event log. The number is known at once, and public after the commit.
    fn append_event(&mut self, event: &Event) -> Result<Seq, StoreError>;
    /// Appends to the audit log and chains the row.
    fn append_audit(&mut self, row: &AuditRow) -> Result<Seq, StoreError>;
    /// Removes the oldest events beyond the newest `keep`, at most `batch` at once. Returns how
    /// many went.
    fn trim_events(&mut self, keep: u64, batch: u64) -> Result<u64, StoreError>;
    /// Removes those of these runs that are final, and returns how many went. One that is open,
    /// or not there, is left out.
    fn remove_runs(&mut self, runs: &[RunId]) -> Result<usize, StoreError>;
    /// Has `work` called when this transaction is committed, and only then: before the hook hears
    /// of its events, so that whoever reacts to an event finds what it tells of. The rules are the
    /// hook's: it must not block, nor use the store that calls it.
    fn after_commit(&mut self, work: AfterFn);
}

/// See [`Tx::after_commit`].
pub type AfterFn = Box<dyn FnOnce() + Send>;

/// A write, type-erased. It may be called at most once; state it returns travels by capture.
pub type WriteFn = Box<dyn FnOnce(&mut dyn Tx) -> Result<(), WriteError> + Send>;
/// A read, type-erased.
pub type ReadFn = Box<dyn FnOnce(&dyn Read) -> Result<(), StoreError> + Send>;

/// Calls what transactions left to be done. A panic of one is its own affair: what is committed is
/// committed.
fn call_after(work: Vec<AfterFn>) {
    for work in work {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
            tracing::error!("what follows a commit panicked");
        }
    }
}

/// What a commit added to the logs.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'c> {
    /// Its events, in order.
    pub events: &'c [LoggedEvent],
    /// The newest audit row, when it has any.
    pub audit: Option<AuditHead>,
}

impl Commit<'_> {
    fn is_empty(&self) -> bool {
        self.events.is_empty() && self.audit.is_none()
    }
}

/// Called on the store's own thread after each commit that added to a log, before any of the
/// callers hears of it. It must not block, nor write to the store that calls it.
pub type CommitHook = Arc<dyn Fn(&Commit<'_>) + Send + Sync>;

/// What the store has done, for `/metrics` and `status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Transactions that were committed.
    pub writes: u64,
    /// Commits: each took one or more of them.
    pub commits: u64,
    /// Writes that wait.
    pub queued: u64,
    /// Time of the last commit with its sync, microseconds.
    pub last_commit_us: u64,
    /// Writes refused because the queue was full.
    pub refused_full: u64,
    /// Times the database was reopened after a failed sync.
    pub reopened: u64,
}

/// The port. [`StoreExt`] has the typed calls.
#[async_trait::async_trait]
pub trait Store: Send + Sync {
    /// See [`StoreExt::write`].
    async fn write_boxed(&self, work: WriteFn, deadline: Duration) -> Result<(), WriteError>;
    /// See [`StoreExt::read`].
    async fn read_boxed(&self, work: ReadFn, deadline: Duration) -> Result<(), StoreError>;
    /// Figures.
    fn stats(&self) -> StoreStats;
    /// Ends after all accepted writes are answered. Later calls fail with `Closed`.
    async fn close(&self);
}

/// Typed calls over [`Store`].
pub trait StoreExt: Store {
    /// Runs `work` in one transaction and answers after it is durable.
    fn write<T, F>(&self, deadline: Duration, work: F) -> impl Future<Output = Result<T, WriteError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Tx) -> Result<T, WriteError> + Send + 'static,
    {
        async move {
            let (put, take) = slot();
            let work: WriteFn = Box::new(move |tx| work(tx).map(put));
            self.write_boxed(work, deadline).await?;
            take().ok_or(WriteError::Store(StoreError::Closed))
        }
    }

    /// Runs `work` over one consistent view.
    fn read<T, F>(&self, deadline: Duration, work: F) -> impl Future<Output = Result<T, StoreError>> + Send
    where
        T: Send + 'static,
        F: FnOnce(&dyn Read) -> Result<T, StoreError> + Send + 'static,
    {
        async move {
            let (put, take) = slot();
            let work: ReadFn = Box::new(move |view| work(view).map(put));
            self.read_boxed(work, deadline).await?;
            take().ok_or(StoreError::Closed)
        }
    }
}

impl<S: Store + ?Sized> StoreExt for S {}

/// A place for one value that a closure on another thread fills.
fn slot<T: Send + 'static>() -> (impl FnOnce(T) + Send + 'static, impl FnOnce() -> Option<T> + Send) {
    let cell = Arc::new(std::sync::Mutex::new(None));
    let filled = Arc::clone(&cell);
    let put = move |value| {
        if let Ok(mut place) = filled.lock() {
            *place = Some(value);
        }
    };
    let take = move || cell.lock().ok().and_then(|mut place| place.take());
    (put, take)
}
