//! A store under test, with what its hook heard.

use std::sync::{Arc, Mutex};

use cortex_core::node::AuditHead;
use cortex_core::{Code, Refusal};
use cortex_store::memory::MemoryStore;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{CommitHook, LoggedEvent, Read, Store, StoreError, StoreExt, Tx, WriteError};
use tempfile::TempDir;

use crate::support::SOON;

pub(crate) type Heard = Arc<Mutex<Vec<LoggedEvent>>>;
type Heads = Arc<Mutex<Vec<AuditHead>>>;

pub(crate) struct Subject {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) heard: Heard,
    heads: Heads,
    _dir: Option<TempDir>,
}

impl Subject {
    pub(crate) fn memory() -> Self {
        let (heard, heads, hook) = hook();
        Self { store: Arc::new(MemoryStore::new(Some(hook))), heard, heads, _dir: None }
    }

    pub(crate) fn sqlite() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let (heard, heads, hook) = hook();
        let store =
            SqliteStore::open(dir.path(), SqliteOptions::default(), Some(hook)).expect("the store opens");
        Self { store: Arc::new(store), heard, heads, _dir: Some(dir) }
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Tx) -> Result<T, WriteError> + Send + 'static,
    ) -> Result<T, WriteError> {
        self.store.write(SOON, work).await
    }

    /// A write that must succeed.
    pub(crate) async fn put<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Tx) -> Result<T, WriteError> + Send + 'static,
    ) -> T {
        self.write(work).await.expect("the write is good")
    }

    /// A read that must succeed.
    pub(crate) async fn get<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Read) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.read(SOON, work).await.expect("the read is good")
    }

    /// A write that must be refused as a conflict, with an action to take.
    pub(crate) async fn conflicts(
        &self,
        work: impl FnOnce(&mut dyn Tx) -> Result<(), WriteError> + Send + 'static,
    ) {
        assert_conflict(self.write(work).await);
    }

    pub(crate) fn heard(&self) -> Vec<LoggedEvent> {
        self.heard.lock().expect("no hook panics").clone()
    }

    /// The newest audit rows of commits, as the hook heard of them.
    pub(crate) fn heads(&self) -> Vec<AuditHead> {
        self.heads.lock().expect("no hook panics").clone()
    }
}

pub(crate) fn assert_conflict<T: std::fmt::Debug>(result: Result<T, WriteError>) {
    match result {
        Err(WriteError::Refused(refusal)) => {
            assert_eq!(refusal.code, Code::Conflict);
            assert!(!refusal.hint.is_empty() && refusal.hint != Code::Conflict.hint(), "{}", refusal.hint);
        }
        other => panic!("a conflict was expected: {other:?}"),
    }
}

/// A refusal such as a decision makes.
pub(crate) fn no<T>() -> Result<T, WriteError> {
    Err(Refusal::new(Code::Forbidden, "The decision said no.").into())
}

fn hook() -> (Heard, Heads, CommitHook) {
    let (heard, heads) = (Heard::default(), Heads::default());
    let (ear, other_ear) = (Arc::clone(&heard), Arc::clone(&heads));
    let hook: CommitHook = Arc::new(move |commit| {
        ear.lock().expect("no hook panics").extend_from_slice(commit.events);
        other_ear.lock().expect("no hook panics").extend(commit.audit);
    });
    (heard, heads, hook)
}
