//! Pins: what a live use case relies on. Each has a number that only grows; a pack that is put or found
//! is stamped with the newest number, and a collection leaves what has a stamp at or above the oldest pin
//! that was held when it began.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::BlobError;

/// Held by whoever puts, or relies on what is kept; see the module of [`Blobs`](super::Blobs). It
/// protects in the store that gave it.
#[derive(Debug)]
#[must_use = "what is put or found stays only while the pin is held"]
pub struct Pin {
    number: u64,
    pins: Arc<Pins>,
    /// Packs that failed syncs had lost when this pin first put something since its last sync;
    /// [`NOTHING`] when it put nothing.
    lost_before: AtomicU64,
}

const NOTHING: u64 = u64::MAX;

impl Pin {
    /// Something was put under it, at a time when failed syncs had lost so many packs.
    pub(super) fn has_put(&self, lost: u64) {
        // Another thread may have been first; its number is as good or lower.
        self.lost_before.fetch_min(lost, Ordering::SeqCst);
    }

    /// Starts a sync: how many packs failed syncs had lost before anything that it makes durable.
    pub(super) fn begin_sync(&self) -> Option<u64> {
        Some(self.lost_before.swap(NOTHING, Ordering::SeqCst)).filter(|lost| *lost != NOTHING)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut held = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.live.remove(&self.number);
    }
}

/// Where a collection began: what pins are held from then on is not touched by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Since(pub(super) u64);

/// All pins of a store.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// The newest number that was given out; 0 for none.
    newest: u64,
    live: BTreeSet<u64>,
}

impl Pins {
    pub(super) fn pin(self: &Arc<Self>) -> Result<Pin, BlobError> {
        let mut held = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        held.newest += 1;
        let number = held.newest;
        held.live.insert(number);
        Ok(Pin { number, pins: Arc::clone(self), lost_before: AtomicU64::new(NOTHING) })
    }

    /// What is stamped on a pack that is put, found or condemned.
    pub(super) fn stamp(&self) -> Result<u64, BlobError> {
        Ok(self.0.lock().map_err(|_| BlobError::Poisoned)?.newest)
    }

    /// The oldest pin that is held, or the one that comes next.
    pub(super) fn since(&self) -> Result<Since, BlobError> {
        let held = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        Ok(Since(held.live.first().copied().unwrap_or(held.newest + 1)))
    }

    pub(super) fn count(&self) -> Result<u64, BlobError> {
        Ok(self.0.lock().map_err(|_| BlobError::Poisoned)?.live.len() as u64)
    }
}

/// A pack that is to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condemned {
    /// When.
    pub(super) at: cortex_core::time::WallTime,
    /// The newest pin then. One that was held at that time may rely on what was known before, so while
    /// it lives the pack stays; 0 after a restart, which ends all pins.
    pub(super) stamp: u64,
}

impl Condemned {
    /// Whether the pack may go in a collection that began at `since`.
    pub(super) fn is_over(&self, since: Since, now: cortex_core::time::WallTime, wait_ms: u64) -> bool {
        self.stamp < since.0 && self.at.plus_ms(wait_ms) <= now
    }
}
