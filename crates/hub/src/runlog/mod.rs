//! Run output on disk: one file per run, in blocks. What arrives waits in memory for at most
//! half a second, is readable at once, and survives a kill of the hub from the moment of its
//! write and a loss of power from the next sync on.
//!
//! Never here: blocking calls on async threads, a buffer that grows with the output, a reader
//! that costs anything while it does not read.

mod ahead;
mod block;
mod file;
mod index;
mod log;
pub(crate) mod space;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use cortex_core::id::RunId;
use cortex_core::limits::RUN_OUTPUT_BYTES_MAX;
use cortex_core::{Code, Refusal};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::files;
pub use block::Chunk;
pub use log::RunLog;
pub use space::Space;

/// Blocks that are written at the same time, over all runs.
const WRITES_MAX: usize = 8;
/// Reads at the same time, over all runs.
const READS_MAX: usize = 8;

/// How long somebody who only wants to know waits for the disk.
const SPACE_MAX: Duration = Duration::from_secs(1);

/// Hears how far logs have come. Called on async threads; must not block.
pub trait Sink: Send + Sync {
    /// All before `position` is in the run's file.
    fn written(&self, run: RunId, position: u64);
    /// All before `position` survives a loss of power.
    fn synced(&self, run: RunId, position: u64);
}

/// A sink for logs that are only read.
#[derive(Debug)]
struct NoSink;

impl Sink for NoSink {
    fn written(&self, _: RunId, _: u64) {}
    fn synced(&self, _: RunId, _: u64) {}
}

/// What logs may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes that are kept of one run.
    pub run_bytes: u64,
    /// What is known of the disk. Called on threads that may block.
    pub space: fn(&Path) -> io::Result<Space>,
    /// How long a reader waits for the disk.
    pub read_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { run_bytes: RUN_OUTPUT_BYTES_MAX, space: Space::of, read_max: Duration::from_secs(10) }
    }
}

/// The logs of all runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RunLogs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    bounds: Bounds,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    /// The disk is short of room; said once.
    short: AtomicBool,
    tasks: TaskTracker,
}

impl RunLogs {
    /// Uses `dir`, which is made when it is not there.
    ///
    /// # Errors
    /// `bad_config` when the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self, Refusal> {
        Self::with(dir, Bounds::default())
    }

    /// The same with other bounds.
    ///
    /// # Errors
    /// `bad_config` when the directory cannot be made.
    pub fn with(dir: &Path, bounds: Bounds) -> Result<Self, Refusal> {
        let dir = dir.to_owned();
        files::private_dir(&dir).map_err(|error| {
            Refusal::new(Code::BadConfig, format!("{} cannot be used: {error}.", dir.display()))
                .hint("Give the hub a data directory that it may write to.")
        })?;
        let reads = Arc::new(Semaphore::new(READS_MAX));
        let writes = Arc::new(Semaphore::new(WRITES_MAX));
        let (short, tasks) = (AtomicBool::new(false), TaskTracker::new());
        Ok(Self { inner: Arc::new(Inner { dir, bounds, reads, writes, short, tasks }) })
    }

    /// The log of a run that has no output yet. No file is made before there is some.
    pub fn create(&self, run: RunId, sink: Weak<dyn Sink>) -> Arc<RunLog> {
        Arc::new(RunLog::new(Arc::clone(&self.inner), run, sink, file::Found::default()))
    }

    /// Takes up the log of a run that goes on after a restart: a torn tail is cut off, and all
    /// before it is made durable. What it holds is [`RunLog::end`].
    ///
    /// # Errors
    /// `store_unavailable` when the disk fails.
    pub async fn recover(&self, run: RunId, sink: Weak<dyn Sink>) -> Result<Arc<RunLog>, Refusal> {
        let path = file::path(&self.inner.dir, run);
        let found = self
            .inner
            .writing(move || {
                let found = file::scan(&path, true)?;
                file::trim(&path, found.index.end().offset)?;
                Ok(found)
            })
            .await?;
        Ok(Arc::new(RunLog::new(Arc::clone(&self.inner), run, sink, found)))
    }

    /// The log of a run that has ended, for reading.
    ///
    /// # Errors
    /// `store_unavailable` when the disk fails.
    pub async fn kept(&self, run: RunId) -> Result<Arc<RunLog>, Refusal> {
        let path = file::path(&self.inner.dir, run);
        let found = self.inner.reading(move || file::scan(&path, false)).await?;
        let nobody: Weak<dyn Sink> = Weak::<NoSink>::new();
        Ok(Arc::new(RunLog::new(Arc::clone(&self.inner), run, nobody, found)))
    }

    /// Removes the kept output of runs that have ended, and makes that safe from a loss of power.
    /// Output that is not there is removed.
    ///
    /// # Errors
    /// `store_unavailable` when the disk fails; some may be gone then.
    pub async fn remove(&self, runs: &[RunId]) -> Result<(), Refusal> {
        let paths: Vec<PathBuf> = runs.iter().map(|run| file::path(&self.inner.dir, *run)).collect();
        self.inner.writing(move || file::remove(&paths)).await
    }

    /// Room on the disk; `None` when it does not say so in time.
    pub async fn space(&self) -> Option<Space> {
        let inner = Arc::clone(&self.inner);
        let asked = self.inner.reading(move || (inner.bounds.space)(&inner.dir));
        tokio::time::timeout(SPACE_MAX, asked).await.ok()?.ok()
    }

    /// Logs that write or are about to: 0 when everything has ended or is quiet.
    pub fn writing(&self) -> usize {
        self.inner.tasks.len()
    }
}

impl Inner {
    /// Whether a log may write now. Blocks.
    fn has_room(&self, ended: bool) -> io::Result<bool> {
        let space = (self.bounds.space)(&self.dir)?;
        let short = space.is_short();
        if short != self.short.swap(short, Ordering::Relaxed) {
            let (free, reserve) = (space.free, space.reserve());
            if short {
                tracing::warn!(
                    free,
                    reserve,
                    "the disk is short of room: output of runs is held back at its nodes"
                );
            } else {
                tracing::info!(free, reserve, "the disk has room again: output of runs is taken in");
            }
        }
        Ok(space.takes(ended))
    }

    /// Does work that readers wait for. A disk that does not answer in time is told as one that
    /// failed; what hangs on it keeps its place among the readers, and takes none of the writers.
    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        let read = tokio::time::timeout(self.bounds.read_max, on_thread(&self.reads, work)).await;
        told(read.unwrap_or_else(|late| Err(io::Error::new(io::ErrorKind::TimedOut, late))))
    }

    /// Does work that writes; waits as long as the disk does.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, Refusal> {
        told(on_thread(&self.writes, work).await)
    }
}

/// Runs blocking work on a thread for it. The permit is the work's: a caller who goes away leaves
/// the work, and no room for more of it.
async fn on_thread<T: Send + 'static>(
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    done.await.map_err(io::Error::other)?
}

fn told<T>(done: io::Result<T>) -> Result<T, Refusal> {
    done.map_err(|error| {
        tracing::error!(%error, "run output: disk failed");
        Refusal::new(Code::StoreUnavailable, "The hub's disk did not do its work for the output of a run.")
    })
}
