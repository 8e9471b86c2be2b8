//! The use cases. HTTP, gRPC and later MCP only translate; what may be done, and by whom, is here.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::access::Who;
use cortex_core::id::TokenId;
use cortex_core::limits::STORE_MS_MAX;
use cortex_core::lock::Locks;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Read, Store, StoreError, StoreExt, Tx, WriteError};
use tokio::runtime::Handle;

use crate::board::Board;
use crate::bus::Bus;
use crate::clock::Clock;
use crate::directory::Directory;

mod asking;
pub mod audit;
pub mod consents;
pub mod enrol;
pub mod events;
pub mod files;
pub mod invites;
pub mod locks;
mod network;
pub mod nodes;
pub(crate) mod outcome;
pub mod policies;
pub mod pool;
mod retention;
pub mod runs;
pub mod sessions;
pub mod skills;
pub mod standing;
pub mod targets;
pub mod tokens;
pub mod transfers;
pub mod users;
mod watching;
pub mod workspaces;

/// How long a use case waits for the store.
pub const STORE_DEADLINE: Duration = Duration::from_millis(STORE_MS_MAX);

/// What every use case needs. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Clock,
    /// What is known without the store.
    pub directory: Directory,
    /// Where committed events go.
    pub bus: Bus,
    /// What is known of the work pool without the store.
    pub board: Board,
}

impl Context {
    /// One transaction, then `after` with what it returned: the maps and links that follow the
    /// store. `after` comes in the order of the commits, before anybody hears of the events of the
    /// transaction, and must not block. Both happen even when the caller goes away in the middle or
    /// stops waiting, since the store has the whole of it, so that a committed change is never one that
    /// this process does not know of: nothing else brings a change to those maps and links.
    pub async fn commit<T, W, A>(&self, work: W, after: A) -> Result<T, Refusal>
    where
        T: Send + 'static,
        W: FnOnce(&mut dyn Tx) -> Result<T, WriteError> + Send + 'static,
        A: FnOnce(&T) + Send + 'static,
    {
        let kept: Arc<Mutex<Option<T>>> = Arc::default();
        let (value, runtime) = (Arc::clone(&kept), Handle::current());
        let work = move |tx: &mut dyn Tx| {
            *lock(&value) = Some(work(tx)?);
            tx.after_commit(Box::new(move || {
                let _runtime = runtime.enter();
                if let Some(value) = &*lock(&value) {
                    after(value);
                }
            }));
            Ok(())
        };
        self.store.write(STORE_DEADLINE, work).await.map_err(write_refusal)?;
        let unexpected = || Refusal::new(Code::Internal, "A change ended unexpectedly.");
        lock(&kept).take().ok_or_else(unexpected)
    }

    /// The caller as it is at this moment, without asking the store: every end that somebody was told of
    /// is in it.
    ///
    /// # Errors
    /// `unauthenticated`, `locked`.
    pub fn still(&self, caller: &Caller) -> Result<Caller, Refusal> {
        let gone = || Refusal::new(Code::Unauthenticated, "The token has ended.");
        let token = self.directory.token(&caller.token.secret_hash).ok_or_else(gone)?;
        token.check(self.clock.wall())?;
        let caller = Caller::new(self.directory.who(token));
        self.refuse_locked(&caller)?;
        Ok(caller)
    }

    /// `locked` when a lock holds on the caller.
    pub fn refuse_locked(&self, caller: &Caller) -> Result<(), Refusal> {
        let locks = self.directory.locks();
        match locks.on_caller(caller.token.id, caller.token.user, self.clock.wall()) {
            Some(lock) => Err(lock.refusal()),
            None => Ok(()),
        }
    }

    /// Reads from one consistent view.
    pub async fn view<T, F>(&self, work: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(&dyn Read) -> Result<T, StoreError> + Send + 'static,
    {
        self.store.read(STORE_DEADLINE, work).await.map_err(store_refusal)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who asks. What it may do, and where, it knows itself: see [`Who`].
#[derive(Clone, Debug)]
pub struct Caller {
    who: Who,
}

impl Caller {
    /// The caller that was found behind a token.
    pub const fn new(who: Who) -> Self {
        Self { who }
    }
}

impl Deref for Caller {
    type Target = Who;

    fn deref(&self) -> &Who {
        &self.who
    }
}

/// The caller as this transaction finds it, with the rights that are left to it: what it asked for may
/// have waited, and what it makes would outlive the end of its token, its user or its role.
///
/// # Errors
/// `unauthenticated`, `locked`.
fn anew(tx: &dyn Tx, caller: &Caller, now: WallTime) -> Result<Caller, WriteError> {
    let who = principal(tx, caller.token.id, now)??;
    match Locks::new(tx.locks()?).on_caller(who.token.id, who.token.user, now) {
        Some(lock) => Err(lock.refusal().into()),
        None => Ok(Caller::new(who)),
    }
}

/// Who is behind a token in this view of the store.
///
/// # Errors
/// The inner one, `unauthenticated`, when its token has ended, or its user is gone.
fn principal(view: &dyn Read, token: TokenId, now: WallTime) -> Result<Result<Who, Refusal>, StoreError> {
    let gone =
        |what: &str| Ok(Err(Refusal::new(Code::Unauthenticated, format!("The {what} that asked is gone."))));
    let Some(token) = view.token(token)? else { return gone("token") };
    if let Err(refusal) = token.check(now) {
        return Ok(Err(refusal));
    }
    let Some(id) = token.user else { return Ok(Ok(Who::of(Arc::new(token)))) };
    let Some(user) = view.user(id)?.filter(|user| user.removed_at.is_none()) else { return gone("user") };
    let grants = view.grants()?.into_iter().filter(|grant| grant.is_of(&user)).collect();
    Ok(Ok(Who { token: Arc::new(token), user: Some(Arc::new(user)), grants }))
}

/// A failed store as callers see it. The details go to the log, where it is handled.
pub fn store_refusal(error: StoreError) -> Refusal {
    tracing::error!(%error, "store failed");
    Refusal::new(
        Code::StoreUnavailable,
        "The hub's store did not do its work in time; nothing was changed, or it cannot be told whether it was.",
    )
}

/// The refusal of a write, or its failed store.
pub fn write_refusal(error: WriteError) -> Refusal {
    match error {
        WriteError::Refused(refusal) => refusal,
        WriteError::Store(error) => store_refusal(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use cortex_core::event::{Event, EventKind};
    use cortex_core::id::Seq;
    use cortex_store::sqlite::{SqliteOptions, SqliteStore};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_change_whose_caller_goes_away_is_stored_and_known_to_those_who_follow_the_store() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let stall_ms = Arc::new(AtomicU64::new(60_000));
        let options = SqliteOptions { stall_ms: Some(Arc::clone(&stall_ms)), ..SqliteOptions::default() };
        let store = Arc::new(SqliteStore::open(dir.path(), options, None).expect("a store"));
        let clock = Clock::default();
        let context = Context {
            store,
            clock,
            directory: Directory::default(),
            bus: Bus::new(clock),
            board: Board::new(clock),
        };
        let (tell, told) = oneshot::channel();
        let work = |tx: &mut dyn Tx| Ok(tx.append_event(&Event::new(EventKind::HubStarted, WallTime(0)))?);
        let change = context.commit(work, move |seq: &Seq| tell.send(*seq).expect("somebody waits"));
        tokio::time::timeout(Duration::from_millis(50), change).await.expect_err("the store stalls");
        stall_ms.store(0, Ordering::Relaxed);
        let told = tokio::time::timeout(STORE_DEADLINE, told).await.expect("in time").expect("told");
        let stored = context.view(|view| view.events(Seq(0), 10)).await.expect("readable");
        assert_eq!(stored.iter().map(|event| event.seq).collect::<Vec<_>>(), [told]);
        context.store.close().await;
    }
}
