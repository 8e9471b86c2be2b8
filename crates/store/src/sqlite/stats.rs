//! What the store counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{StoreError, StoreStats};

/// Counters that the callers and the writer share. Each stands for itself; no order is promised
/// between them.
#[derive(Default)]
pub(super) struct Counters {
    writes: AtomicU64,
    commits: AtomicU64,
    queued: AtomicU64,
    last_commit_us: AtomicU64,
    refused_full: AtomicU64,
    reopened: AtomicU64,
}

impl Counters {
    /// A write is about to be queued. Counted before it is, since the writer may take it at once.
    pub(super) fn enqueued(&self) {
        self.queued.fetch_add(1, Ordering::Relaxed);
    }

    /// It was not queued after all.
    pub(super) fn not_enqueued(&self, error: &StoreError) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        if matches!(error, StoreError::Full) {
            self.refused_full.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The writer took `count` writes.
    pub(super) fn taken(&self, count: usize) {
        self.queued.fetch_sub(count as u64, Ordering::Relaxed);
    }

    /// One commit with `writes` in it.
    pub(super) fn committed(&self, writes: usize, took: Duration) {
        self.writes.fetch_add(writes as u64, Ordering::Relaxed);
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.last_commit_us.store(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The database was opened anew.
    pub(super) fn reopened(&self) {
        self.reopened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> StoreStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreStats {
            writes: read(&self.writes),
            commits: read(&self.commits),
            queued: read(&self.queued),
            last_commit_us: read(&self.last_commit_us),
            refused_full: read(&self.refused_full),
            reopened: read(&self.reopened),
        }
    }
}
