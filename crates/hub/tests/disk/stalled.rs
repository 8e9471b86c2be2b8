//! The runtime's threads while the disk stalls: they never wait for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_core::id::RunId;
use cortex_core::stream::Stream;
use cortex_hub::runlog::{RunLogs, Sink};
use cortex_store::StoreExt;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};

/// How long each access to the disk is held back.
const STALL: Duration = Duration::from_secs(3);
/// How long the probe looks; shorter, so that the stall outlasts it.
const PROBED: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Written(AtomicU64);

impl Sink for Written {
    fn written(&self, _: RunId, position: u64) {
        self.0.store(position, Ordering::SeqCst);
    }

    fn synced(&self, _: RunId, _: u64) {}
}

/// The longest time that this runtime's one thread left a task waiting.
async fn longest_gap() -> Duration {
    let (begun, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while begun.elapsed() < PROBED {
        tokio::time::sleep(Duration::from_millis(2)).await;
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    longest
}

#[tokio::test(flavor = "current_thread")]
async fn r12_5_a_stalled_disk_holds_up_no_thread_of_the_runtime() {
    let scenario = fail::FailScenario::setup();
    let stall = format!("sleep({})", STALL.as_millis());
    for point in ["hub::log_flush", "store::before_commit"] {
        fail::cfg(point, &stall).expect("a failpoint");
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(SqliteStore::open(dir.path(), SqliteOptions::default(), None).expect("a store"));
    let logs = RunLogs::open(&dir.path().join("runs")).expect("logs");
    let written = Arc::new(Written::default());
    let sink: Weak<Written> = Arc::downgrade(&written);
    let log = logs.create(RunId::mint(1, &[3; 10]), sink);
    let commit = tokio::spawn({
        let store = Arc::clone(&store);
        async move { store.write(4 * STALL, |tx| Ok(tx.generation()?)).await }
    });
    log.append(Stream::Stdout, Bytes::from(vec![7; 1024 * 1024]));
    let read = tokio::spawn({
        let log = Arc::clone(&log);
        async move { log.read(0, 1024).await }
    });
    let gap = longest_gap().await;
    assert!(gap < STALL / 6, "a task waited {gap:?} for its thread");
    assert!(!commit.is_finished() && written.0.load(Ordering::SeqCst) == 0, "the disk did stall");
    assert!(read.await.expect("no panic").is_ok_and(|chunks| !chunks.is_empty()), "memory is readable");
    commit.await.expect("no panic").expect("committed after all");
    scenario.teardown();
}
