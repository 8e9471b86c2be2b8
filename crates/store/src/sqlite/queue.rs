//! A bounded queue to a thread, which can be closed while both ends are in use.
//! Full is answered at once; nothing waits to get in.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::StoreError;

/// The end into which callers put.
pub(super) struct Queue<T>(Mutex<Option<SyncSender<T>>>);

/// The end from which threads take; several may share it.
pub(super) type Jobs<T> = Arc<Mutex<Receiver<T>>>;

impl<T> Queue<T> {
    /// Both ends of a queue with room for `max` jobs.
    pub(super) fn new(max: usize) -> (Self, Jobs<T>) {
        let (put, take) = sync_channel(max);
        (Self(Mutex::new(Some(put))), Arc::new(Mutex::new(take)))
    }

    /// Puts a job in, or says at once why not.
    pub(super) fn put(&self, job: T) -> Result<(), StoreError> {
        let put = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let put = put.as_ref().ok_or(StoreError::Closed)?;
        put.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Full,
            TrySendError::Disconnected(_) => StoreError::Closed,
        })
    }

    /// Lets nothing more in. The threads end when they have taken what is there.
    pub(super) fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

/// Waits for the next job; `None` when the queue is closed and empty.
pub(super) fn take<T>(jobs: &Jobs<T>) -> Option<T> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Takes a job that is there already.
pub(super) fn take_waiting<T>(jobs: &Jobs<T>) -> Option<T> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).try_recv().ok()
}
