//! Threads that read, each with a connection that cannot write. They go on while the writer
//! stalls: in write-ahead mode readers and the writer do not wait for each other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::codec::failed;
use super::connection::Place;
use super::queue::{Jobs, take};
use super::view::View;
use crate::{ReadFn, StoreError};

/// A read that waits for a thread.
pub(super) struct Job {
    work: ReadFn,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl Job {
    /// A job, and where its answer will be.
    pub(super) fn new(work: ReadFn) -> (Self, oneshot::Receiver<Result<(), StoreError>>) {
        let (answer, wait) = oneshot::channel();
        (Self { work, answer }, wait)
    }
}

pub(super) struct Reader {
    conn: Connection,
    jobs: Jobs<Job>,
    /// Keeps the directory ours while the connection is open.
    _place: Arc<Place>,
}

impl Reader {
    pub(super) fn new(place: Arc<Place>, jobs: Jobs<Job>) -> Result<Self, StoreError> {
        Ok(Self { conn: place.connect_reader()?, jobs, _place: place })
    }

    /// Serves until the queue is closed.
    pub(super) fn serve(self) {
        while let Some(job) = take(&self.jobs) {
            // Nobody waits for it any more: its deadline has passed.
            if job.answer.is_closed() {
                continue;
            }
            let result = self.read(job.work);
            drop(job.answer.send(result));
        }
    }

    fn read(&self, work: ReadFn) -> Result<(), StoreError> {
        let tx = self.conn.unchecked_transaction().map_err(failed)?;
        let view = View::new(&tx, ());
        catch_unwind(AssertUnwindSafe(|| work(&view)))
            .unwrap_or_else(|_| Err(StoreError::Failed("the read panicked".to_owned())))
    }
}
