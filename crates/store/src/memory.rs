//! The strict reference: every promise of the port on ordered maps, in memory.
//!
//! It is what SQLite must agree with, and what the simulator runs on: no threads, no clock, no
//! randomness, and a write costs what it touches (an undo log, no copies of the whole).
//!
//! A crash of the simulated hub needs no call: each write is whole or absent when it returns, so
//! what a restarted hub finds is this same store. What was not answered was not written.
//!
//! Never here: files, deadlines. A caller's `deadline` cannot pass, since nothing waits.

mod files;
mod pool;
mod read;
mod state;
mod sync;
mod tx;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::node::AuditHead;

use crate::{
    AfterFn, Commit, CommitHook, LoggedEvent, Read, ReadFn, Store, StoreError, StoreStats, Tx, WriteError,
    WriteFn, call_after,
};
use read::Held;
use state::State;

/// A store in memory. See the module.
pub struct MemoryStore {
    hook: Option<CommitHook>,
    /// Held over commit and hook, so that hooks are called in the order of the commits; `state`
    /// is free by then, and a hook may read.
    order: Mutex<()>,
    state: Mutex<State>,
    control: Mutex<Control>,
}

#[derive(Default)]
struct Control {
    closed: bool,
    stats: StoreStats,
}

impl MemoryStore {
    /// An empty store of generation 1.
    pub fn new(hook: Option<CommitHook>) -> Self {
        Self { hook, order: Mutex::default(), state: Mutex::default(), control: Mutex::default() }
    }

    /// Runs `work` in one transaction, at once and on this thread. The hook has been called when
    /// this returns. Not to be called from within a hook or another closure of this store.
    pub fn write_now<T>(
        &self,
        work: impl FnOnce(&mut dyn Tx) -> Result<T, WriteError>,
    ) -> Result<T, WriteError> {
        self.check_open()?;
        let _order = lock(&self.order);
        let mut state = lock(&self.state);
        let before = state.audit.len();
        let (value, events, after) = transact(&mut state, work)?;
        let newest = state.audit.last().filter(|_| state.audit.len() > before);
        let audit = newest.map(|logged| AuditHead { seq: logged.seq, hash: logged.hash });
        drop(state);
        let mut control = lock(&self.control);
        control.stats.writes += 1;
        control.stats.commits += 1;
        drop(control);
        call_after(after);
        let commit = Commit { events: &events, audit };
        if let Some(hook) = self.hook.as_ref().filter(|_| !commit.is_empty()) {
            hook(&commit);
        }
        Ok(value)
    }

    /// Runs `work` over one consistent view, at once and on this thread.
    pub fn read_now<T>(
        &self,
        work: impl FnOnce(&dyn Read) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.check_open()?;
        let state = lock(&self.state);
        catch_unwind(AssertUnwindSafe(|| work(&Held::new(&*state, ()))))
            .unwrap_or_else(|_| Err(StoreError::Failed("the read panicked".to_owned())))
    }

    fn check_open(&self) -> Result<(), StoreError> {
        if lock(&self.control).closed { Err(StoreError::Closed) } else { Ok(()) }
    }
}

/// Runs one transaction; what it did is undone unless it succeeds.
fn transact<T>(
    state: &mut State,
    work: impl FnOnce(&mut dyn Tx) -> Result<T, WriteError>,
) -> Result<(T, Vec<LoggedEvent>, Vec<AfterFn>), WriteError> {
    let mut tx = Held::new(state, tx::Undo::default());
    let result = catch_unwind(AssertUnwindSafe(|| work(&mut tx))).unwrap_or_else(|_| {
        Err(StoreError::Failed("the write panicked; nothing of it is kept".to_owned()).into())
    });
    match result {
        Ok(value) => Ok((value, tx.undo.events, tx.undo.after)),
        Err(error) => {
            tx.roll_back();
            Err(error)
        }
    }
}

/// No closure runs while a lock of ours is held without `catch_unwind`; a poisoned one is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait::async_trait]
impl Store for MemoryStore {
    async fn write_boxed(&self, work: WriteFn, _deadline: Duration) -> Result<(), WriteError> {
        self.write_now(work)
    }

    async fn read_boxed(&self, work: ReadFn, _deadline: Duration) -> Result<(), StoreError> {
        self.read_now(work)
    }

    fn stats(&self) -> StoreStats {
        lock(&self.control).stats
    }

    async fn close(&self) {
        lock(&self.control).closed = true;
    }
}
