//! Rows on their way through the spool, against a store that stalls.

use std::collections::VecDeque;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex as Plain;

use cortex_store::memory::MemoryStore;
use cortex_store::{AuditFilter, ReadFn, StoreError, StoreStats, WriteError, WriteFn};
use tokio::sync::{oneshot, watch};

use super::*;

const SOON: Duration = Duration::from_secs(10);
/// The store's time runs so much faster than the one outside.
const FASTER: u32 = 100;

/// A write, and who waits for it.
type Waiting = (WriteFn, oneshot::Sender<Result<(), WriteError>>);

/// A store that takes writes into its queue and, while it stalls, does none of them. One that is
/// given up by its caller stays in the queue, as with the real one.
struct Stalling {
    inner: MemoryStore,
    queue: Plain<VecDeque<Waiting>>,
    stalls: watch::Sender<bool>,
}

impl Stalling {
    fn new(stalls: bool) -> Arc<Self> {
        let (inner, queue) = (MemoryStore::new(None), Plain::default());
        Arc::new(Self { inner, queue, stalls: watch::Sender::new(stalls) })
    }

    fn rows(&self) -> Vec<String> {
        let filter = AuditFilter { newest: false, ..AuditFilter::default() };
        let rows = self.inner.read_now(|view| view.audit(&filter, 1_000)).expect("readable");
        rows.into_iter().map(|row| row.row.actor).collect()
    }
}

#[async_trait::async_trait]
impl Store for Stalling {
    async fn write_boxed(&self, work: WriteFn, deadline: Duration) -> Result<(), WriteError> {
        let (done, outcome) = oneshot::channel();
        self.queue.lock().expect("not poisoned").push_back((work, done));
        let mut stalls = self.stalls.subscribe();
        let free = tokio::time::timeout(deadline / FASTER, stalls.wait_for(|stalls| !*stalls)).await;
        drop(free.map_err(|_| StoreError::Timeout(deadline))?);
        loop {
            let next = self.queue.lock().expect("not poisoned").pop_front();
            let Some((work, done)) = next else { break };
            // Who has given up hears nothing.
            let _heard = done.send(self.inner.write_boxed(work, deadline).await);
        }
        outcome.await.map_err(|_| StoreError::Closed)?
    }

    async fn read_boxed(&self, work: ReadFn, deadline: Duration) -> Result<(), StoreError> {
        self.inner.read_boxed(work, deadline).await
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }

    async fn close(&self) {}
}

fn row(actor: &str) -> AuditRow {
    AuditRow::new(WallTime(7), actor.to_owned(), "run.cancel", Outcome::Allowed)
}

fn spool() -> (tempfile::TempDir, Arc<Spool>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = Arc::new(Spool::new(dir.path()));
    (dir, spool)
}

fn importing(spool: &Arc<Spool>, store: &Arc<Stalling>) -> tokio::task::JoinHandle<()> {
    let (spool, store) = (Arc::clone(spool), Arc::clone(store));
    tokio::spawn(async move { spool.import(store, CancellationToken::new()).await })
}

#[tokio::test]
async fn a_row_is_kept_while_the_rows_before_it_wait_for_a_store_that_stalls() {
    let (_dir, spool) = spool();
    let store = Stalling::new(true);
    spool.keep(row("first")).await.expect("kept");
    let import = importing(&spool, &store);
    let queued = async {
        while store.queue.lock().expect("not poisoned").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, queued).await.expect("the import waits for the store");
    spool.keep(row("second")).await.expect("kept as well");
    store.stalls.send_replace(false);
    tokio::time::timeout(SOON, import).await.expect("in time").expect("no panic");
    assert_eq!(store.rows(), ["first", "second"]);
    assert!(!spool.exists());
}

#[tokio::test]
async fn a_store_that_stalls_for_a_minute_gets_each_row_once_however_many_cancels_there_were() {
    let (_dir, spool) = spool();
    let store = Stalling::new(true);
    let mut imports = Vec::new();
    for actor in ["a", "b", "c"] {
        spool.keep(row(actor)).await.expect("kept");
        imports.push(importing(&spool, &store));
    }
    tokio::time::sleep(Duration::from_secs(60) / FASTER).await;
    store.stalls.send_replace(false);
    for import in imports {
        import.await.expect("no panic");
    }
    assert_eq!(store.rows(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_hub_that_stops_does_not_wait_for_a_store_that_stalls_and_its_rows_wait_for_the_next_start() {
    let (dir, spool) = spool();
    let store = Stalling::new(true);
    spool.keep(row("a")).await.expect("kept");
    let stop = CancellationToken::new();
    let import = {
        let (spool, store, stop) = (Arc::clone(&spool), Arc::clone(&store), stop.clone());
        tokio::spawn(async move { spool.import(store, stop).await })
    };
    let queued = async {
        while store.queue.lock().expect("not poisoned").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, queued).await.expect("the import waits for the store");
    stop.cancel();
    tokio::time::timeout(SOON, import).await.expect("it ends").expect("no panic");
    assert!(spool.exists());

    let (next, store) = (Arc::new(Spool::new(dir.path())), Stalling::new(false));
    tokio::time::timeout(SOON, importing(&next, &store)).await.expect("in time").expect("no panic");
    assert_eq!((store.rows(), next.exists()), (vec!["a".to_owned()], false));
}

#[tokio::test]
async fn a_line_that_cannot_be_read_costs_no_other_row() {
    let (dir, spool) = spool();
    let store = Stalling::new(false);
    let path = dir.path().join("audit.spool");
    // Cut in the middle of a character by a kill.
    std::fs::write(&path, b"{\"at\": 7, \"actor\": \"caf\xc3").expect("written");
    spool.keep(row("whole")).await.expect("kept");
    tokio::time::timeout(SOON, importing(&spool, &store)).await.expect("in time").expect("no panic");
    assert_eq!(store.rows(), ["whole"]);
    assert!(!spool.exists());
}

#[tokio::test]
async fn rows_of_an_import_that_a_kill_broke_off_are_imported() {
    let (dir, spool) = spool();
    let store = Stalling::new(false);
    spool.keep(row("before")).await.expect("kept");
    std::fs::rename(dir.path().join("audit.spool"), dir.path().join("audit.importing")).expect("renamed");
    spool.keep(row("after")).await.expect("kept");
    tokio::time::timeout(SOON, importing(&spool, &store)).await.expect("in time").expect("no panic");
    assert_eq!(store.rows(), ["before", "after"]);
}

#[tokio::test]
async fn only_the_owner_reads_the_spool() {
    let (dir, spool) = spool();
    spool.keep(row("a")).await.expect("kept");
    let mode = dir.path().join("audit.spool").metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
