//! One transaction that many writes share: each in a savepoint, one commit for all. A write that is alone
//! has the transaction for itself: SQLite keeps a copy of each page that is changed in a savepoint.
//!
//! Never here: the queue, threads, a second try of anything.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cortex_core::node::AuditHead;
use rusqlite::Connection;

use super::codec::{execute, failed};
use super::ledger::Ledger;
use super::view::{Heads, Logs, View};
use crate::{AfterFn, LoggedEvent, StoreError, WriteError, WriteFn};

/// What one write ended with, until the commit.
pub(super) type Outcome = Result<(), WriteError>;

/// An open transaction. Dropping it without [`Group::commit`] rolls everything back.
pub(super) struct Group<'c> {
    conn: &'c Connection,
    ledger: &'c mut Ledger,
    begun: Heads,
    heads: Heads,
    events: Vec<LoggedEvent>,
    after: Vec<AfterFn>,
    is_alone: bool,
    open: bool,
}

/// What a commit made public.
pub(super) struct Committed {
    pub(super) heads: Heads,
    pub(super) events: Vec<LoggedEvent>,
    /// The newest audit row, when there is one more.
    pub(super) audit: Option<AuditHead>,
    /// What the writes left to be done then.
    pub(super) after: Vec<AfterFn>,
}

impl<'c> Group<'c> {
    /// Begins, for so many writes; from here on nobody else can write.
    pub(super) fn begin(
        conn: &'c Connection,
        heads: Heads,
        ledger: &'c mut Ledger,
        writes: usize,
    ) -> Result<Self, StoreError> {
        execute(conn, "BEGIN IMMEDIATE", []).map_err(failed)?;
        let (events, after, is_alone) = (Vec::new(), Vec::new(), writes == 1);
        Ok(Self { conn, ledger, begun: heads, heads, events, after, is_alone, open: true })
    }

    /// Runs one write. The inner result is its own; the outer one is an error when the whole group
    /// is lost.
    pub(super) fn run(&mut self, work: WriteFn) -> Result<Outcome, StoreError> {
        self.savepoint("SAVEPOINT work")?;
        self.ledger.begin();
        let mut view = View::new(self.conn, Logs::new(self.heads, self.ledger));
        let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut view))).unwrap_or_else(|_| {
            Err(StoreError::Failed("the write panicked; nothing of it is kept".to_owned()).into())
        });
        let Logs { heads, mut events, mut after, .. } = view.logs;
        // SQLite gives the whole transaction up by itself after some errors of the disk.
        if self.conn.is_autocommit() {
            self.open = false;
            let why = outcome.err().map_or_else(|| "SQLite gave it up".to_owned(), |error| error.to_string());
            return Err(StoreError::Failed(format!("the transaction was lost: {why}")));
        }
        if outcome.is_ok() {
            self.heads = heads;
            self.events.append(&mut events);
            self.after.append(&mut after);
        } else {
            self.ledger.roll_back();
            self.savepoint("ROLLBACK TO work")?;
        }
        self.savepoint("RELEASE work")?;
        if self.is_alone && outcome.is_err() {
            self.open = false;
            execute(self.conn, "ROLLBACK", []).map_err(failed)?;
        }
        Ok(outcome)
    }

    /// What keeps the writes of a group apart.
    fn savepoint(&self, sql: &str) -> Result<(), StoreError> {
        if self.is_alone { Ok(()) } else { execute(self.conn, sql, []).map(drop).map_err(failed) }
    }

    /// Makes all of it durable; of one that was alone and failed there is nothing.
    pub(super) fn commit(mut self) -> Result<Committed, StoreError> {
        if self.open {
            self.ledger.flush(self.conn)?;
            execute(self.conn, "COMMIT", []).map_err(failed)?;
            self.open = false;
        }
        let (events, after) = (std::mem::take(&mut self.events), std::mem::take(&mut self.after));
        Ok(Committed { heads: self.heads, audit: self.heads.audit_since(&self.begun), events, after })
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        // A failure leaves the transaction to the end of the connection, which is dropped then.
        if self.open
            && let Err(error) = execute(self.conn, "ROLLBACK", [])
        {
            tracing::debug!(%error, "the failed group was not rolled back by hand");
        }
    }
}
