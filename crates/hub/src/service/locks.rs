//! Locks: made, listed, removed, and what follows from one at once: who it holds on is refused, and
//! what it had running ends without a grace.
//!
//! Never here: a run that is let go on because its node is away; it is ended when that is back.

use std::collections::BTreeMap;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{LockId, NodeId, TokenId, UserId};
use cortex_core::limits::LOCKS_MAX;
use cortex_core::lock::{self, Lock, Locks as All, Named, Target};
use cortex_core::name::Name;
use cortex_core::rights::Right;
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::tokens::keep_an_administrator;
use super::{Caller, Context, anew, targets, tokens, users};
use crate::clock::new_lock_id;
use crate::directory::Directory;
use crate::mesh::{Asker, Mesh};

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Locks {
    context: Context,
    mesh: Mesh,
}

/// A lock with the name of what it holds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The lock.
    pub lock: Lock,
    /// `token:ci`; the id when nothing of that name is left.
    pub target: String,
}

/// What a transaction made of the locks.
struct Changed {
    shown: Shown,
    all: All,
}

impl Locks {
    /// The use cases over `mesh`.
    pub const fn new(context: Context, mesh: Mesh) -> Self {
        Self { context, mesh }
    }

    /// Makes a lock. Needs `locks:write`. When this returns, nothing is started any more by those
    /// it holds on, and the end of their open runs is on its way.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`, `too_large`, `not_found`, `node_not_found`, `quota`,
    /// `conflict` when no lasting administrator would be left.
    pub async fn put(
        &self,
        caller: &Caller,
        target: &str,
        message: String,
        ttl_ms: Option<u64>,
    ) -> Result<Shown, Refusal> {
        caller.anywhere(Right::LocksWrite)?;
        lock::check(&message, ttl_ms)?;
        let (now, directory) = (self.context.clock.wall(), self.context.directory.clone());
        let (named, id) = (Named::parse(target)?, new_lock_id(&self.context.clock));
        let caller = caller.clone();
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            caller.anywhere(Right::LocksWrite)?;
            let (target, words) = found(tx, (&directory, &caller), &named, now)?;
            let expires_at = ttl_ms.map(|ms| now.plus_ms(ms));
            let (created_by, created_at) = (caller.actor(), now);
            let (lifted_at, lifted_by) = (None, None);
            let lock = Lock { id, target, message, created_by, created_at, expires_at, lifted_at, lifted_by };
            tx.put_lock(&lock)?;
            let mut all = All::new(tx.locks()?);
            if all.count(now) > LOCKS_MAX {
                let refusal =
                    Refusal::new(Code::Quota, format!("At most {LOCKS_MAX} locks may hold at once."));
                return Err(refusal.hint("Remove locks with `cortex lock rm ID`.").into());
            }
            let over = all.beyond(LOCKS_MAX, now);
            if !over.is_empty() {
                for ended in over {
                    tx.put_lock(&Lock { lifted_at: Some(now), lifted_by: Some("hub".to_owned()), ..ended })?;
                }
                all = All::new(tx.locks()?);
            }
            if matches!(lock.target, Target::User(_) | Target::Token(_)) {
                keep_an_administrator(tx, now, || {
                    format!("This lock would leave no administrator: `{words}`.")
                })?;
            }
            let shown = Shown { lock, target: words };
            record(tx, &shown, EventKind::LockCreated, "lock.create", &caller, now)?;
            Ok(Changed { shown, all })
        };
        let locks = self.clone();
        let changed = self.context.commit(work, move |changed: &Changed| locks.hold(changed)).await?;
        Ok(changed.shown)
    }

    /// Removes a lock. Needs `locks:write`. Removing it twice changes nothing.
    ///
    /// # Errors
    /// `forbidden`, `not_found`.
    pub async fn lift(&self, caller: &Caller, id: LockId) -> Result<Shown, Refusal> {
        caller.anywhere(Right::LocksWrite)?;
        let (now, caller) = (self.context.clock.wall(), caller.clone());
        let directory = self.context.directory.clone();
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            caller.anywhere(Right::LocksWrite)?;
            let mut lock = tx.lock(id)?.ok_or_else(|| unknown(id))?;
            let before = lock.lifted_at;
            if before.is_none() {
                lock.lifted_at = Some(now);
                lock.lifted_by = Some(caller.actor());
                tx.put_lock(&lock)?;
            }
            let target = words(&lock.target, &Names::of(tx, &directory)?);
            let shown = Shown { lock, target };
            if before.is_none() {
                record(tx, &shown, EventKind::LockRemoved, "lock.remove", &caller, now)?;
            }
            Ok(Changed { shown, all: All::new(tx.locks()?) })
        };
        let (directory, board) = (self.context.directory.clone(), self.context.board.clone());
        let after = move |changed: &Changed| {
            directory.put_locks(changed.all.clone());
            // What was locked may be handed out.
            board.wake_all();
        };
        Ok(self.context.commit(work, after).await?.shown)
    }

    /// All locks that were not removed, expired ones too, oldest first. Needs `locks:read`.
    ///
    /// # Errors
    /// `forbidden`, `store_unavailable`.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<Shown>, Refusal> {
        caller.anywhere(Right::LocksRead)?;
        let directory = self.context.directory.clone();
        self.context
            .view(move |view| {
                let names = Names::of(view, &directory)?;
                let shown = |lock: Lock| Shown { target: words(&lock.target, &names), lock };
                Ok(view.locks()?.into_iter().map(shown).collect())
            })
            .await
    }

    /// Ends what the locks that hold do not allow: a hub that ended between a lock and its effect
    /// begins with this.
    pub fn enforce(&self) {
        enforce(&self.context, &self.mesh);
    }

    /// In the order of the commits: first nobody is let in any more, then what runs ends.
    fn hold(&self, changed: &Changed) {
        self.context.directory.put_locks(changed.all.clone());
        let (lock, directory) = (&changed.shown.lock, &self.context.directory);
        let ended = self.mesh.cut_runs(|run| is_held(lock, run, directory), &format!("lock:{}", lock.id));
        let (locks, now) = (&changed.all, self.context.clock.wall());
        let ended = ended + self.mesh.end_files(|by| on_file(locks, by, directory, now));
        let ended = ended + self.mesh.end_transfers(|by| on_file(locks, by, directory, now));
        tracing::info!(target = %changed.shown.target, lock = %lock.id, ended, "a lock holds");
    }
}

/// Ends the open runs that some lock holds on.
pub(crate) fn enforce(context: &Context, mesh: &Mesh) {
    let (locks, now) = (context.directory.locks(), context.clock.wall());
    let held = |run: &Run| {
        let by_caller = run.token.is_some_and(|token| locks.on_caller(token, run.user, now).is_some());
        let node = context.directory.node(run.node);
        by_caller || node.is_some_and(|node| locks.on_node(node.id, &node.labels, now).is_some())
    };
    mesh.cut_runs(held, "lock");
    mesh.end_files(|by| on_file(&locks, by, &context.directory, now));
    mesh.end_transfers(|by| on_file(&locks, by, &context.directory, now));
}

/// Why an open operation on files, or a transfer, ends, when some lock holds on it.
pub(crate) fn on_file(locks: &All, by: &Asker, directory: &Directory, now: WallTime) -> Option<Refusal> {
    let on_caller = by.token.and_then(|token| locks.on_caller(token, by.user, now));
    let node = directory.node(by.node);
    let on_node = || node.as_ref().and_then(|node| locks.on_node(node.id, &node.labels, now));
    on_caller.or_else(on_node).map(Lock::refusal)
}

fn is_held(lock: &Lock, run: &Run, directory: &Directory) -> bool {
    match &lock.target {
        Target::User(user) => run.user == Some(*user),
        Target::Token(token) => run.token == Some(*token),
        Target::Node(node) => run.node == *node,
        Target::Label(key, value) => {
            directory.node(run.node).is_some_and(|node| node.labels.get(key) == Some(value))
        }
    }
}

/// What was named, and how it is called from here on.
fn found(
    tx: &dyn Tx,
    (directory, caller): (&Directory, &Caller),
    named: &Named,
    now: WallTime,
) -> Result<(Target, String), WriteError> {
    match named {
        Named::User(text) => {
            let by_name = Name::parse(text).ok().map(|name| tx.user_named(&name)).transpose()?.flatten();
            let by_id = text.parse::<UserId>().ok().map(|id| tx.user(id)).transpose()?.flatten();
            let user = by_name.or(by_id).filter(|user| user.removed_at.is_none());
            let user = user.ok_or_else(|| users::unknown(text))?;
            Ok((Target::User(user.id), format!("user:{}", user.name)))
        }
        Named::Token(text) => {
            let is_it = |token: &&Token| {
                token.id.to_string() == *text || (token.name.as_str() == text && token.check(now).is_ok())
            };
            let token = tx.tokens()?.iter().find(is_it).cloned().ok_or_else(|| tokens::unknown(text))?;
            Ok((Target::Token(token.id), format!("token:{}", token.name)))
        }
        Named::Node(text) => {
            let seen = targets::find(directory, caller, text)?;
            // One that is being removed may still be seen there.
            let node = super::nodes::live(tx, seen.id)?;
            Ok((Target::Node(node.id), format!("node:{}", node.name)))
        }
        Named::Label(key, value) => {
            Ok((Target::Label(key.clone(), value.clone()), format!("label:{key}={value}")))
        }
    }
}

/// How users, tokens and nodes are called.
struct Names {
    users: BTreeMap<UserId, String>,
    tokens: BTreeMap<TokenId, String>,
    nodes: BTreeMap<NodeId, String>,
}

impl Names {
    fn of(
        view: &(impl cortex_store::Read + ?Sized),
        directory: &Directory,
    ) -> Result<Self, cortex_store::StoreError> {
        Ok(Self {
            users: view.users()?.into_iter().map(|user| (user.id, user.name.to_string())).collect(),
            tokens: directory.tokens().iter().map(|token| (token.id, token.name.to_string())).collect(),
            nodes: directory.nodes().iter().map(|node| (node.id, node.name.to_string())).collect(),
        })
    }
}

fn words(target: &Target, names: &Names) -> String {
    let or_id = |name: Option<&String>, id: String| name.cloned().unwrap_or(id);
    match target {
        Target::User(id) => format!("user:{}", or_id(names.users.get(id), id.to_string())),
        Target::Token(id) => format!("token:{}", or_id(names.tokens.get(id), id.to_string())),
        Target::Node(id) => format!("node:{}", or_id(names.nodes.get(id), id.to_string())),
        Target::Label(key, value) => format!("label:{key}={value}"),
    }
}

fn record(
    tx: &mut dyn Tx,
    shown: &Shown,
    kind: EventKind,
    action: &str,
    caller: &Caller,
    now: WallTime,
) -> Result<(), WriteError> {
    let node = match &shown.lock.target {
        Target::Node(node) => Some(*node),
        Target::User(_) | Target::Token(_) | Target::Label(..) => None,
    };
    let event = Event::new(kind, now).actor(caller.actor()).subject(shown.target.as_str());
    tx.append_event(&Event { node, ..event }.detail(shown.lock.id.to_string()))?;
    let until = shown.lock.expires_at.map_or_else(String::new, |end| format!(", until_ms {}", end.0));
    let detail = Some(format!("{} {}{until}", shown.lock.id, shown.target));
    let row = AuditRow::new(now, caller.actor(), action, Outcome::Allowed);
    tx.append_audit(&AuditRow { node, detail, token: Some(caller.token.id), ..row })?;
    Ok(())
}

fn unknown(id: LockId) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no lock {id}."))
        .hint("List the locks with `cortex lock ls`.")
}
