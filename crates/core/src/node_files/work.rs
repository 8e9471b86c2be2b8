//! How an operation gets on: its row is durable, it is prepared, it is done, its clerk died, its time is
//! over.

use super::local::Phase;
use super::{Action, Found, NodeFiles};
use crate::error::{Code, Refusal};
use crate::files::answer::FileAnswer;
use crate::files::content::ContentId;
use crate::files::entity::{FileOutcome, unknown_outcome};
use crate::id::OpId;
use crate::journal::Record;
use crate::limits;
use crate::time::Timestamp;

impl NodeFiles {
    /// The row of this operation is durable: it may begin.
    pub fn journaled(&mut self, op: OpId) {
        let Some(local) = self.open.get_mut(&op) else { return };
        if let Phase::Journaling(ask, leave) = &local.phase {
            local.phase = Phase::Waiting(ask.clone(), leave.clone());
            self.start_ready();
        }
    }

    /// The row of this operation cannot be made durable: it does not begin.
    pub fn unjournaled(&mut self, op: OpId, error: &str) {
        if let Some(Phase::Journaling(..)) = self.phase(op) {
            let message = format!("Nothing was changed: the node's journal cannot be written ({error}).");
            let hint = "Look at the disk of the node's data directory, then start the node again.";
            self.end(op, Err(Refusal::new(Code::Internal, message).hint(hint)));
        }
    }

    /// All of it is prepared, with this content when it writes a file. It takes effect when it still
    /// may: this is the last look at fences, cancels and time before that.
    pub fn prepared(&mut self, op: OpId, intended: Option<ContentId>, now: Timestamp) {
        let Some(local) = self.open.get(&op) else { return };
        if local.reads || !matches!(local.phase, Phase::Preparing) || local.stopped.is_some() {
            return;
        }
        let stale = self.check_fences(local.attempt, local.lock).err();
        let late = local.deadline.is_some_and(|at| at <= now).then(|| too_late(op));
        if let Some(refusal) = stale.or(late) {
            self.abort(op, refusal);
            return;
        }
        let Some(local) = self.open.get_mut(&op) else { return };
        local.phase = Phase::Committing(intended);
        // What takes effect is let be for a while; killed at this point nobody would know.
        local.deadline = local.deadline.max(Some(now.plus_ms(limits::KILL_GRACE_MS)));
        self.actions.extend(intended.map(|etag| Action::Journal(Record::FileIntended(op, etag))));
        self.actions.push_back(Action::Commit(op));
    }

    /// What came of it, from its clerk. One that changes files and was not let take effect has changed
    /// nothing, whatever the clerk says. A refusal after [`Action::Commit`] is taken at its word, so a
    /// clerk that does not know says `unknown_outcome`.
    pub fn performed(&mut self, op: OpId, answer: Result<FileAnswer, Refusal>) {
        let Some(local) = self.open.get_mut(&op) else { return };
        match local.phase {
            Phase::Preparing => {
                let answer = local.stopped.take().map_or(answer, Err);
                self.end(op, answer);
            }
            Phase::Committing(_) => self.end(op, answer),
            Phase::Journaling(..) | Phase::Waiting(..) | Phase::Recovering(..) | Phase::Ended(_) => {}
        }
    }

    /// Its clerk died without a word, and does nothing more.
    pub fn lost(&mut self, op: OpId, now: Timestamp) {
        let Some(local) = self.open.get_mut(&op) else { return };
        let died = || {
            let message = "The process that did it died; nothing was changed.";
            Refusal::new(Code::Internal, message).hint("Try again, and report it if it happens again.")
        };
        let (intended, otherwise) = match &local.phase {
            Phase::Preparing => (None, local.stopped.take().unwrap_or_else(died)),
            Phase::Committing(intended) => {
                (*intended, unknown_outcome(op, "the process that did it ended while it was at it"))
            }
            Phase::Journaling(..) | Phase::Waiting(..) | Phase::Recovering(..) | Phase::Ended(_) => return,
        };
        if local.reads {
            self.end(op, Err(otherwise));
            return;
        }
        local.phase = Phase::Recovering(intended, Err(otherwise));
        self.recover(op, now);
    }

    /// Has what a clerk left behind looked for. It is not waited for without end.
    pub(super) fn recover(&mut self, op: OpId, now: Timestamp) {
        let Some(local) = self.open.get_mut(&op) else { return };
        let Phase::Recovering(intended, _) = local.phase else { return };
        local.deadline = Some(now.plus_ms(limits::FILE_OP_MS));
        let accepted = local.accepted.clone();
        self.actions.push_back(Action::Recover { accepted, intended });
    }

    /// What a clerk left behind is gone, and this file is at the path; `None` when there is none, or when
    /// nobody could look.
    pub fn recovered(&mut self, op: OpId, found: Option<Found>) {
        let Some(Phase::Recovering(intended, otherwise)) = self.phase(op) else { return };
        let done = found.filter(|found| *intended == Some(found.etag));
        let otherwise = otherwise.clone().map(FileOutcome::answer);
        let answer = done.map_or(otherwise, |Found { etag, bytes }| {
            // Whether it was there before nobody remembers.
            Ok(FileOutcome::Written { etag, bytes, created: false }.answer())
        });
        self.end(op, answer);
    }

    /// A moment that was asked for is here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.end_late_transfers(now);
        let is_due =
            |op: &&OpId| self.open.get(op).is_some_and(|local| local.deadline.is_some_and(|at| at <= now));
        let due: Vec<OpId> = self.turns.values().filter(is_due).copied().collect();
        // The last one first: what waits for another one whose time is over does not begin by that.
        for op in due.into_iter().rev() {
            let Some(local) = self.open.get_mut(&op) else { continue };
            local.deadline = None;
            match &local.phase {
                Phase::Journaling(..) | Phase::Waiting(..) => self.end(op, Err(too_late(op))),
                Phase::Preparing | Phase::Committing(_) => self.abort(op, too_late(op)),
                Phase::Recovering(..) => self.recovered(op, None),
                Phase::Ended(_) => {}
            }
        }
    }
}

fn too_late(op: OpId) -> Refusal {
    let message = format!("The time of operation {op} was over before anything was changed.");
    Refusal::new(Code::Timeout, message).hint("Raise `--timeout`, or ask for less at once.")
}
