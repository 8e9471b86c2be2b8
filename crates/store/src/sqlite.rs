//! The durable store: one SQLite database in write-ahead mode, one thread that writes, a few that
//! read.
//!
//! The writer takes all that waits, runs each closure in its own savepoint of one transaction,
//! commits once with a sync, hands the events to the hook and then answers everybody. So N callers
//! share one sync, and each still hears of its own write only when it is durable.
//!
//! After a commit or sync that failed, nothing of that group is taken for kept: its callers get an
//! error, the connection is dropped and the database opened anew (a sync that is repeated on the
//! same file would report success for pages that the kernel has given up).
//!
//! Never here: waiting without a deadline, an unbounded queue, decisions.

mod codec;
mod connection;
mod group;
mod ledger;
mod migrate;
mod queue;
mod readers;
mod rows;
mod stats;
mod view;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cortex_core::limits::{STORE_GROUP_MAX, STORE_QUEUE_MAX};
use tokio::sync::watch;

use crate::{CommitHook, ReadFn, Store, StoreError, StoreStats, WriteError, WriteFn};
use connection::Place;
use queue::Queue;
use stats::Counters;

/// How a database is opened, and the hooks by which tests make it misbehave.
#[derive(Clone, Debug)]
pub struct SqliteOptions {
    /// Writes that may wait; more are answered [`StoreError::Full`].
    pub queue_max: usize,
    /// Writes that share one commit at most.
    pub group_max: usize,
    /// Reads that may wait; more are answered [`StoreError::Full`].
    pub read_queue_max: usize,
    /// Threads that read. At least one.
    pub readers: usize,
    /// Pages of the write-ahead log after which they are brought into the database.
    pub checkpoint_pages: u32,
    /// Tests: milliseconds by which the writer puts off each commit. Lowering it also shortens a
    /// stall that is under way.
    pub stall_ms: Option<Arc<AtomicU64>>,
    /// Tests: how many of the coming commits fail as if the disk had refused them.
    pub commit_fault: Option<Arc<AtomicU32>>,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            queue_max: STORE_QUEUE_MAX,
            group_max: STORE_GROUP_MAX,
            read_queue_max: STORE_QUEUE_MAX,
            readers: 2,
            checkpoint_pages: 2_000,
            stall_ms: None,
            commit_fault: None,
        }
    }
}

/// The store in `<dir>/cortex.db`. See the module.
///
/// Dropping it lets the threads end by themselves after the accepted writes, without waiting for
/// them; [`Store::close`] waits, and frees the directory for another store.
pub struct SqliteStore {
    writes: Queue<writer::Job>,
    reads: Queue<readers::Job>,
    counters: Arc<Counters>,
    alive: watch::Receiver<usize>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens or creates the store in `dir`, which is created (0700) when it is missing, and brings
    /// its tables up to date. `hook` is called with the events of each commit that has some.
    ///
    /// Blocks for the time of disk accesses. Fails with [`StoreError::InUse`] when another store
    /// is open on `dir`, and with [`StoreError::Damaged`] when the database cannot be read or was
    /// written by a newer version.
    pub fn open(dir: &Path, options: SqliteOptions, hook: Option<CommitHook>) -> Result<Self, StoreError> {
        let place = Arc::new(Place::take(dir)?);
        let writing = place.connect_writer(&options)?;
        let counters = Arc::new(Counters::default());
        let (writes, write_jobs) = Queue::new(options.queue_max);
        let (reads, read_jobs) = Queue::new(options.read_queue_max);
        let (alive_in, alive) = watch::channel(0);
        let mut threads = Vec::new();
        for index in 0..options.readers.max(1) {
            let reader = readers::Reader::new(Arc::clone(&place), Arc::clone(&read_jobs))?;
            threads.push(spawn(format!("store-read-{index}"), &alive_in, move || reader.serve())?);
        }
        let writer = writer::Writer::new(writing, place, options, hook, Arc::clone(&counters), write_jobs)?;
        threads.push(spawn("store-write".to_owned(), &alive_in, move || writer.serve())?);
        Ok(Self { writes, reads, counters, alive, threads: Mutex::new(threads) })
    }
}

/// Starts a named thread that counts itself among the living until it ends in whatever way.
fn spawn(
    name: String,
    alive: &watch::Sender<usize>,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StoreError> {
    alive.send_modify(|count| *count += 1);
    let guard = Alive(alive.clone());
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _guard = guard;
            work();
        })
        .map_err(|error| StoreError::Failed(format!("no thread for the store: {error}")))
}

struct Alive(watch::Sender<usize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[async_trait::async_trait]
impl Store for SqliteStore {
    async fn write_boxed(&self, work: WriteFn, deadline: Duration) -> Result<(), WriteError> {
        let (job, answer) = writer::Job::new(work);
        self.counters.enqueued();
        if let Err(error) = self.writes.put(job) {
            self.counters.not_enqueued(&error);
            return Err(error.into());
        }
        match tokio::time::timeout(deadline, answer).await {
            Err(_) => Err(StoreError::Timeout(deadline).into()),
            Ok(answer) => answer.unwrap_or(Err(StoreError::Closed.into())),
        }
    }

    async fn read_boxed(&self, work: ReadFn, deadline: Duration) -> Result<(), StoreError> {
        let (job, answer) = readers::Job::new(work);
        self.reads.put(job)?;
        match tokio::time::timeout(deadline, answer).await {
            Err(_) => Err(StoreError::Timeout(deadline)),
            Ok(answer) => answer.unwrap_or(Err(StoreError::Closed)),
        }
    }

    fn stats(&self) -> StoreStats {
        self.counters.snapshot()
    }

    async fn close(&self) {
        self.writes.close();
        self.reads.close();
        // An error means that every thread is gone, which is what is waited for.
        drop(self.alive.clone().wait_for(|count| *count == 0).await);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}
