//! The one thread that writes: takes all that waits, commits it as a group, calls what the writes
//! left to be done then, tells the hook, then answers.
//!
//! After a group that failed, the connection is dropped and opened anew, at once or, while the
//! disk stays bad, at the next group. The same connection is never asked to sync again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::SqliteOptions;
use super::codec::{execute, failed};
use super::connection::Place;
use super::group::{Committed, Group, Outcome};
use super::ledger::Ledger;
use super::queue::{Jobs, take, take_waiting};
use super::stats::Counters;
use super::view::Heads;
use crate::{Commit, CommitHook, StoreError, WriteError, WriteFn, call_after};

const REOPENED: &str = "UPDATE numbers SET value = value + 1 WHERE name = 'reopened'";

/// A write that waits for the writer.
pub(super) struct Job {
    work: WriteFn,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<(), WriteError>>;

impl Job {
    /// A job, and where its answer will be.
    pub(super) fn new(work: WriteFn) -> (Self, oneshot::Receiver<Result<(), WriteError>>) {
        let (answer, wait) = oneshot::channel();
        (Self { work, answer }, wait)
    }
}

/// A connection, and the ends of the logs and what is known of the pool as it has committed them.
struct Desk {
    conn: Connection,
    heads: Heads,
    ledger: Ledger,
}

impl Desk {
    fn new(conn: Connection) -> Result<Self, StoreError> {
        let (heads, ledger) = (Heads::load(&conn)?, Ledger::load(&conn)?);
        Ok(Self { conn, heads, ledger })
    }
}

pub(super) struct Writer {
    place: Arc<Place>,
    options: SqliteOptions,
    hook: Option<CommitHook>,
    counters: Arc<Counters>,
    jobs: Jobs<Job>,
    /// None after a failure, until the database is open again.
    desk: Option<Desk>,
}

impl Writer {
    pub(super) fn new(
        conn: Connection,
        place: Arc<Place>,
        options: SqliteOptions,
        hook: Option<CommitHook>,
        counters: Arc<Counters>,
        jobs: Jobs<Job>,
    ) -> Result<Self, StoreError> {
        Ok(Self { place, options, hook, counters, jobs, desk: Some(Desk::new(conn)?) })
    }

    /// Serves until the queue is closed and empty.
    pub(super) fn serve(mut self) {
        while let Some(first) = take(&self.jobs) {
            let group = self.gather(first);
            self.counters.taken(group.len());
            self.handle(group);
        }
    }

    /// All that waits, up to the bound.
    fn gather(&self, first: Job) -> Vec<Job> {
        let more = std::iter::from_fn(|| take_waiting(&self.jobs));
        std::iter::once(first).chain(more.take(self.options.group_max.saturating_sub(1))).collect()
    }

    /// Runs a group to its end. Every caller is answered, whatever happens.
    fn handle(&mut self, group: Vec<Job>) {
        let (works, answers): (Vec<WriteFn>, Vec<Answer>) =
            group.into_iter().map(|job| (job.work, job.answer)).unzip();
        match self.commit(works) {
            Ok((outcomes, public)) => {
                fail::fail_point!("store::after_commit");
                call_after(public.after);
                self.publish(&Commit { events: &public.events, audit: public.audit });
                fail::fail_point!("store::before_answer");
                answers.into_iter().zip(outcomes).for_each(|(answer, outcome)| drop(answer.send(outcome)));
            }
            Err(why) => {
                tracing::error!(error = %why, writes = answers.len(), "a group of writes failed");
                self.reopen();
                answers.into_iter().for_each(|answer| drop(answer.send(Err(again(&why).into()))));
            }
        }
    }

    /// Runs and commits. After an error nothing of the group counts, and the desk is cleared.
    fn commit(&mut self, works: Vec<WriteFn>) -> Result<(Vec<Outcome>, Committed), StoreError> {
        let mut desk = match self.desk.take() {
            Some(desk) => desk,
            None => self.open()?,
        };
        let begun = Instant::now();
        let mut group = Group::begin(&desk.conn, desk.heads, &mut desk.ledger, works.len())?;
        let outcomes = works.into_iter().map(|work| group.run(work)).collect::<Result<Vec<_>, _>>()?;
        self.stall();
        fail::fail_point!("store::before_commit");
        self.simulated_fault()?;
        let public = group.commit()?;
        let kept = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        if kept > 0 {
            self.counters.committed(kept, begun.elapsed());
        }
        desk.heads = public.heads;
        self.desk = Some(desk);
        Ok((outcomes, public))
    }

    /// Tells the hook. Its panic is its own affair: what is committed is committed.
    fn publish(&self, commit: &Commit<'_>) {
        let Some(hook) = self.hook.as_ref().filter(|_| !commit.is_empty()) else { return };
        if catch_unwind(AssertUnwindSafe(|| hook(commit))).is_err() {
            tracing::error!("the commit hook panicked");
        }
    }

    /// Opens anew after a failure, so that the next group finds a connection. When that fails too,
    /// the next group tries again.
    fn reopen(&mut self) {
        self.desk = None;
        match self.open() {
            Ok(desk) => self.desk = Some(desk),
            Err(error) => tracing::error!(%error, "the database could not be opened again"),
        }
    }

    /// Opens anew and writes something at once. That write takes the place of what the failed
    /// commit left in the log: without it, the next start could take those pages for committed.
    fn open(&self) -> Result<Desk, StoreError> {
        let desk = Desk::new(self.place.connect_writer(&self.options)?)?;
        execute(&desk.conn, REOPENED, []).map_err(failed)?;
        self.counters.reopened();
        Ok(desk)
    }

    /// See [`SqliteOptions::stall_ms`].
    fn stall(&self) {
        let Some(stall_ms) = &self.options.stall_ms else { return };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(stall_ms.load(Ordering::Relaxed)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// See [`SqliteOptions::commit_fault`].
    fn simulated_fault(&self) -> Result<(), StoreError> {
        let Some(faults) = &self.options.commit_fault else { return Ok(()) };
        let taken = faults.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        match taken {
            Ok(_) => Err(StoreError::Failed("the commit was refused by a test".to_owned())),
            Err(_) => Ok(()),
        }
    }
}

/// The same error for one more caller.
fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full => StoreError::Full,
        StoreError::Timeout(after) => StoreError::Timeout(*after),
        StoreError::Closed => StoreError::Closed,
        StoreError::InUse { lock, pid } => StoreError::InUse { lock: lock.clone(), pid: *pid },
        StoreError::Failed(why) => StoreError::Failed(why.clone()),
        StoreError::Damaged(why) => StoreError::Damaged(why.clone()),
    }
}
