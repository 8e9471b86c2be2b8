//! What outlives the node process: operations taken up from the journal, ends held until the hub has
//! settled them, the ids that were settled, and the fences.

use std::collections::BTreeMap;

use super::NodeFiles;
use super::local::{Local, Phase};
use crate::files::content::ContentId;
use crate::files::entity::{FileEnd, unknown_outcome};
use crate::id::OpId;
use crate::journal::{FileAccepted, Record};
use crate::time::Timestamp;

/// What the journal says of one operation, as far as it was read.
struct Row {
    accepted: FileAccepted,
    intended: Option<ContentId>,
    end: Option<FileEnd>,
    place: usize,
}

impl NodeFiles {
    /// Begins from what the disk remembers. Of what was taken on and has no end nobody knows whether it
    /// was done: what it left behind is looked for, and with what is found there it ends.
    pub fn restore(journal: impl IntoIterator<Item = Record>, now: Timestamp) -> Self {
        let mut files = Self::new();
        let mut rows: BTreeMap<OpId, Row> = BTreeMap::new();
        for (place, record) in journal.into_iter().enumerate() {
            match record {
                Record::FileAccepted(accepted) => {
                    if let Some((task, attempt)) = accepted.attempt {
                        files.attempts.raise(task, attempt);
                    }
                    rows.insert(accepted.op, Row { accepted, intended: None, end: None, place });
                }
                Record::FileIntended(op, etag) => {
                    if let Some(row) = rows.get_mut(&op) {
                        row.intended = Some(etag);
                    }
                }
                Record::FileEnded(op, end) => {
                    if let Some(row) = rows.get_mut(&op) {
                        row.end = Some(end);
                    }
                }
                Record::FileSettled(op) => {
                    rows.remove(&op);
                    files.remember_settled(op);
                }
                Record::Attempt(task, attempt) => {
                    files.attempts.raise(task, attempt);
                }
                Record::Accepted(_) | Record::Ended(..) | Record::Settled(_) => {}
            }
        }
        let mut rows: Vec<Row> = rows.into_values().collect();
        rows.sort_by_key(|row| row.place);
        rows.into_iter().for_each(|row| files.take_up(row, now));
        files
    }

    fn take_up(&mut self, row: Row, now: Timestamp) {
        let op = row.accepted.op;
        let unknown = || unknown_outcome(op, "the node process ended while it was under way");
        let phase = match row.end {
            Some(end) => Phase::Ended(end),
            None => Phase::Recovering(row.intended, Err(unknown())),
        };
        let local = Local { journaled: true, ..Local::of(row.accepted, phase) };
        if local.phase.end().is_some() {
            self.open.insert(op, local);
        } else {
            self.take_on(local);
            self.recover(op, now);
        }
    }
}
