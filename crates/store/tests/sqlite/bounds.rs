//! Groups, full queues, deadlines, failed commits.

use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cortex_core::id::Seq;
use cortex_core::{Code, Refusal};
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{LoggedEvent, Store, StoreError, StoreExt, WriteError};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{SOON, event, node_id, run, run_id};

struct Bench {
    store: Arc<SqliteStore>,
    stall_ms: Arc<AtomicU64>,
    faults: Arc<AtomicU32>,
    heard: Arc<Mutex<Vec<LoggedEvent>>>,
    _dir: TempDir,
}

fn bench(options: SqliteOptions) -> Bench {
    let dir = TempDir::new().expect("a temporary directory");
    let (stall_ms, faults) = (Arc::<AtomicU64>::default(), Arc::<AtomicU32>::default());
    let heard = Arc::<Mutex<Vec<LoggedEvent>>>::default();
    let ear = Arc::clone(&heard);
    let options = SqliteOptions {
        stall_ms: Some(Arc::clone(&stall_ms)),
        commit_fault: Some(Arc::clone(&faults)),
        ..options
    };
    let hook: cortex_store::CommitHook =
        Arc::new(move |commit| ear.lock().expect("whole").extend_from_slice(commit.events));
    let store = SqliteStore::open(dir.path(), options, Some(hook)).expect("the store opens");
    Bench { store: Arc::new(store), stall_ms, faults, heard, _dir: dir }
}

impl Bench {
    /// A write of one event, on a task of its own.
    fn spawn(&self, deadline: Duration) -> JoinHandle<Result<Seq, WriteError>> {
        let store = Arc::clone(&self.store);
        tokio::spawn(async move { store.write(deadline, |tx| Ok(tx.append_event(&event("x"))?)).await })
    }

    /// Stalls the writer, and returns when it stands still with one write in its hands.
    async fn stall(&self) -> JoinHandle<Result<Seq, WriteError>> {
        self.stall_ms.store(30_000, Ordering::Relaxed);
        let (begun, wait) = tokio::sync::oneshot::channel();
        let store = Arc::clone(&self.store);
        let held = tokio::spawn(async move {
            let work = move |tx: &mut dyn cortex_store::Tx| {
                begun.send(()).map_err(|()| StoreError::Closed)?;
                Ok(tx.append_event(&event("held"))?)
            };
            store.write(SOON, work).await
        });
        wait.await.expect("the writer has taken it");
        held
    }

    fn go_on(&self) {
        self.stall_ms.store(0, Ordering::Relaxed);
    }

    async fn until(&self, done: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < SOON, "it did not come about: {:?}", self.store.stats());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_wait_share_one_commit() {
    let bench = bench(SqliteOptions::default());
    let held = bench.stall().await;
    let writes: Vec<_> = (0..200).map(|_| bench.spawn(SOON)).collect();
    bench.until(|bench| bench.store.stats().queued == 200).await;
    bench.go_on();
    held.await.expect("no panic").expect("written");
    for write in writes {
        write.await.expect("no panic").expect("written");
    }
    let stats = bench.store.stats();
    assert_eq!((stats.writes, stats.commits, stats.queued), (201, 2, 0));
    assert!(stats.last_commit_us > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_takes_no_more_than_its_bound() {
    let bench = bench(SqliteOptions { group_max: 10, ..SqliteOptions::default() });
    let held = bench.stall().await;
    let writes: Vec<_> = (0..35).map(|_| bench.spawn(SOON)).collect();
    bench.until(|bench| bench.store.stats().queued == 35).await;
    bench.go_on();
    held.await.expect("no panic").expect("written");
    for write in writes {
        write.await.expect("no panic").expect("written");
    }
    assert_eq!(bench.store.stats().commits, 1 + 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_answered_at_once() {
    let bench = bench(SqliteOptions { queue_max: 3, ..SqliteOptions::default() });
    let held = bench.stall().await;
    let writes: Vec<_> = (0..3).map(|_| bench.spawn(SOON)).collect();
    bench.until(|bench| bench.store.stats().queued == 3).await;
    let begun = Instant::now();
    let refused = bench.spawn(SOON).await.expect("no panic");
    assert!(matches!(refused, Err(WriteError::Store(StoreError::Full))), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(bench.store.stats().refused_full, 1);
    bench.go_on();
    held.await.expect("no panic").expect("written");
    for write in writes {
        write.await.expect("no panic").expect("what was accepted is written");
    }
    assert_eq!(bench.spawn(SOON).await.expect("no panic").expect("there is room again"), Seq(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_writer_costs_a_deadline_and_no_read() {
    let bench = bench(SqliteOptions::default());
    let held = bench.stall().await;
    let begun = Instant::now();
    let late = bench.spawn(Duration::from_millis(100)).await.expect("no panic");
    assert!(matches!(late, Err(WriteError::Store(StoreError::Timeout(_)))), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    for _ in 0..20 {
        let seen = bench.store.read(Duration::from_secs(3), |view| view.events(Seq(0), 9)).await;
        assert_eq!(seen.expect("reads go on"), [], "and see nothing of what is not committed");
    }
    bench.go_on();
    held.await.expect("no panic").expect("written");
    bench.until(|bench| bench.store.stats().writes == 2).await;
    let seen = bench.store.read(SOON, |view| view.events(Seq(0), 9)).await.expect("read");
    assert_eq!(seen.len(), 2, "a write that was given up may still be kept, and was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_have_a_bound_and_a_deadline() {
    let bench = bench(SqliteOptions { readers: 1, read_queue_max: 1, ..SqliteOptions::default() });
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (begun, busy) = tokio::sync::oneshot::channel();
    let store = Arc::clone(&bench.store);
    let held = tokio::spawn(async move {
        let work = move |view: &dyn cortex_store::Read| {
            begun.send(()).map_err(|()| StoreError::Closed)?;
            wait.recv().map_err(|_| StoreError::Closed)?;
            view.nodes()
        };
        store.read(SOON, work).await
    });
    busy.await.expect("the reader has taken it");
    let late = bench.store.read(Duration::from_millis(100), |view| view.nodes()).await;
    assert!(matches!(late, Err(StoreError::Timeout(_))), "{late:?}");
    let refused = bench.store.read(SOON, |view| view.nodes()).await;
    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    go.send(()).expect("the reader waits");
    held.await.expect("no panic").expect("read");
    let begun = Instant::now();
    // The read that was given up leaves the queue when the reader comes to it.
    while let Err(error) = bench.store.read(SOON, |view| view.nodes()).await {
        assert!(matches!(error, StoreError::Full) && begun.elapsed() < SOON, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_happen_in_the_order_in_which_they_were_accepted() {
    let bench = bench(SqliteOptions::default());
    let held = bench.stall().await;
    let mut context = Context::from_waker(Waker::noop());
    let mut writes: Vec<_> =
        (0..50).map(|_| Box::pin(bench.store.write(SOON, |tx| Ok(tx.append_event(&event("x"))?)))).collect();
    for write in &mut writes {
        assert!(pin!(write).poll(&mut context).is_pending(), "it is queued by the first poll");
    }
    bench.go_on();
    held.await.expect("no panic").expect("written");
    for (write, number) in writes.into_iter().zip(2..) {
        assert_eq!(write.await.expect("written"), Seq(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_commit_is_an_error_for_its_group_and_the_database_is_opened_anew() {
    let bench = bench(SqliteOptions::default());
    bench.spawn(SOON).await.expect("no panic").expect("written");
    let held = bench.stall().await;
    let mut writes: Vec<_> = (0..5).map(|_| bench.spawn(SOON)).collect();
    let store = Arc::clone(&bench.store);
    writes.push(tokio::spawn(async move {
        store.write(SOON, |_| Err(Refusal::new(Code::Forbidden, "No.").into())).await
    }));
    bench.until(|bench| bench.store.stats().queued == 6).await;
    bench.faults.store(2, Ordering::Relaxed);
    bench.go_on();
    for write in std::iter::once(held).chain(writes) {
        let result = write.await.expect("no panic");
        assert!(matches!(result, Err(WriteError::Store(StoreError::Failed(_)))), "{result:?}");
    }
    let stats = bench.store.stats();
    assert_eq!((stats.writes, stats.commits, stats.reopened), (1, 1, 2));
    assert_eq!(bench.spawn(SOON).await.expect("no panic").expect("it serves again"), Seq(2));
    let logged = bench.store.read(SOON, |view| view.events(Seq(0), 99)).await.expect("read");
    assert_eq!(logged.len(), 2, "nothing of the failed groups is kept");
    assert_eq!(*bench.heard.lock().expect("whole"), logged, "and nobody heard of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_cost_no_commit() {
    let bench = bench(SqliteOptions::default());
    for _ in 0..10 {
        let refused: Result<(), _> =
            bench.store.write(SOON, |_| Err(Refusal::new(Code::Forbidden, "No.").into())).await;
        assert!(matches!(refused, Err(WriteError::Refused(_))));
    }
    assert_eq!((bench.store.stats().writes, bench.store.stats().commits), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_panics_harms_nobody() {
    let dir = TempDir::new().expect("a temporary directory");
    let hook: cortex_store::CommitHook = Arc::new(|_| panic!("on purpose"));
    let store = SqliteStore::open(dir.path(), SqliteOptions::default(), Some(hook)).expect("opens");
    for number in 1..4 {
        let seq = store.write(SOON, |tx| Ok(tx.append_event(&event("x"))?)).await;
        assert_eq!(seq.expect("what is committed is answered"), Seq(number));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_write_is_still_done() {
    let bench = bench(SqliteOptions::default());
    let held = bench.stall().await;
    {
        let mut abandoned = pin!(bench.store.write(SOON, |tx| tx.put_run(&run(1, 1))));
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(abandoned.as_mut().poll(&mut context), Poll::Pending));
    }
    bench.go_on();
    held.await.expect("no panic").expect("written");
    bench.until(|bench| bench.store.stats().writes == 2).await;
    let kept = bench.store.read(SOON, |view| view.run(run_id(1))).await.expect("read");
    assert_eq!(kept.map(|run| run.node), Some(node_id(1)));
}
