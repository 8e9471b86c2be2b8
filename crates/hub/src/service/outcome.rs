//! Writes whose outcome becomes known, also after their caller stopped waiting: so that what is
//! tried again is never done twice, and what the store has not begun is taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use cortex_core::limits::STORE_MS_MAX;
use cortex_core::{Code, Refusal};
use cortex_store::{Store, StoreError, StoreExt, Tx, WriteError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Stored<T> {
    /// It is stored.
    Done(T),
    /// It was refused: nothing is stored.
    Refused(Refusal),
    /// Nothing is stored, and nothing will be.
    Not(StoreError),
    /// Its time was over when the store had begun with it. Says whether it is stored, or ends
    /// without a word when it is not.
    Open(oneshot::Receiver<T>),
}

/// One transaction. When its time is over before the store has begun with it, it is taken back.
pub(crate) async fn write_once<T, W>(store: &Arc<dyn Store>, deadline: Duration, work: W) -> Stored<T>
where
    T: Send + 'static,
    W: FnOnce(&mut dyn Tx) -> Result<T, WriteError> + Send + 'static,
{
    let turn = Arc::new(Turn::default());
    let (stored, mut outcome) = oneshot::channel();
    let begins = Arc::clone(&turn);
    let written = store.write(deadline, move |tx| {
        if !begins.begin() {
            return Err(Refusal::new(Code::StoreUnavailable, "The write was taken back.").into());
        }
        let value = work(tx)?;
        // Dropped without a word when the commit fails.
        tx.after_commit(Box::new(move || drop(stored.send(value))));
        Ok(())
    });
    match written.await {
        Ok(()) => outcome.try_recv().map_or(Stored::Not(StoreError::Closed), Stored::Done),
        Err(WriteError::Refused(refusal)) => Stored::Refused(refusal),
        Err(WriteError::Store(StoreError::Timeout(_))) if !turn.take_back() => Stored::Open(outcome),
        Err(WriteError::Store(error)) => Stored::Not(error),
    }
}

/// Writes what must be stored, however long it takes: tried again until it is, and stored once.
/// `None` when the hub stops first.
pub(crate) async fn write_surely<T, W>(
    store: &Arc<dyn Store>,
    stop: &CancellationToken,
    what: &str,
    work: impl Fn() -> W,
) -> Option<T>
where
    T: Send + 'static,
    W: FnOnce(&mut dyn Tx) -> Result<T, WriteError> + Send + 'static,
{
    let mut retry = RETRY_MIN;
    loop {
        match write_once(store, Duration::from_millis(STORE_MS_MAX), work()).await {
            Stored::Done(value) => return Some(value),
            Stored::Open(outcome) => {
                tracing::error!("{what} waits for a store that does not answer");
                tokio::select! {
                    stored = outcome => if let Ok(value) = stored { return Some(value) },
                    () = stop.cancelled() => return None,
                }
            }
            Stored::Refused(error) => tracing::error!(%error, "{what} is not stored; it is tried again"),
            Stored::Not(error) => tracing::error!(%error, "{what} is not stored; it is tried again"),
        }
        tokio::select! {
            () = tokio::time::sleep(retry) => retry = (retry * 2).min(RETRY_MAX),
            () = stop.cancelled() => return None,
        }
    }
}

/// Who was first: the store that begins with a write, or the caller who takes it back.
#[derive(Debug, Default)]
struct Turn(AtomicU8);

impl Turn {
    const OPEN: u8 = 0;
    const BEGUN: u8 = 1;
    const TAKEN_BACK: u8 = 2;

    fn begin(&self) -> bool {
        self.settle(Self::BEGUN)
    }

    fn take_back(&self) -> bool {
        self.settle(Self::TAKEN_BACK)
    }

    fn settle(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::OPEN, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64};

    use cortex_core::event::{Event, EventKind};
    use cortex_core::id::Seq;
    use cortex_core::time::WallTime;
    use cortex_store::sqlite::{SqliteOptions, SqliteStore};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn event(tx: &mut dyn Tx) -> Result<Seq, WriteError> {
        Ok(tx.append_event(&Event::new(EventKind::HubStarted, WallTime(0)))?)
    }

    async fn events(store: &Arc<dyn Store>) -> usize {
        store.read(SOON, |view| view.events(Seq(0), 100)).await.expect("events").len()
    }

    /// A store, and for how long each of its commits stalls.
    fn stalling(dir: &std::path::Path) -> (Arc<dyn Store>, Arc<AtomicU64>) {
        let stall_ms = Arc::new(AtomicU64::new(0));
        let options = SqliteOptions { stall_ms: Some(Arc::clone(&stall_ms)), ..SqliteOptions::default() };
        (Arc::new(SqliteStore::open(dir, options, None).expect("a store")), stall_ms)
    }

    #[tokio::test]
    async fn a_write_that_the_store_had_begun_says_later_that_it_is_stored_and_one_behind_it_is_taken_back() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (store, stall_ms) = stalling(dir.path());
        stall_ms.store(60_000, Ordering::Relaxed);
        let short = Duration::from_millis(100);
        let Stored::Open(outcome) = write_once(&store, short, event).await else { panic!("it is begun") };
        let behind = write_once(&store, short, event).await;
        assert!(matches!(behind, Stored::Not(StoreError::Timeout(_))), "{behind:?}");
        stall_ms.store(0, Ordering::Relaxed);
        let stored = tokio::time::timeout(SOON, outcome).await.expect("in time");
        assert_eq!(stored.expect("it is stored"), Seq(1));
        assert!(matches!(write_once(&store, SOON, event).await, Stored::Done(Seq(2))));
        assert_eq!(events(&store).await, 2);
        store.close().await;
    }

    #[tokio::test]
    async fn what_must_be_stored_is_stored_once_by_a_store_that_stalls() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (store, stall_ms) = stalling(dir.path());
        stall_ms.store(STORE_MS_MAX + 500, Ordering::Relaxed);
        let stop = CancellationToken::new();
        let seq = write_surely(&store, &stop, "an event", || event).await;
        assert_eq!((seq, events(&store).await), (Some(Seq(1)), 1));
        store.close().await;
    }

    #[tokio::test]
    async fn a_write_whose_commit_fails_is_not_stored_and_tried_again() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let faults = Arc::new(AtomicU32::new(2));
        let options = SqliteOptions { commit_fault: Some(Arc::clone(&faults)), ..SqliteOptions::default() };
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path(), options, None).expect("a store"));
        assert!(matches!(write_once(&store, SOON, event).await, Stored::Not(StoreError::Failed(_))));
        let stop = CancellationToken::new();
        assert_eq!(write_surely(&store, &stop, "an event", || event).await, Some(Seq(1)));
        assert_eq!(faults.load(Ordering::Relaxed), 0);
        store.close().await;
    }
}
