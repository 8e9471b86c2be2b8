//! The end of an operation, and what is told of it until the hub has settled it.

use super::local::Phase;
use super::{Action, NodeFiles};
use crate::error::Refusal;
use crate::files::answer::FileAnswer;
use crate::files::entity::{FileEnd, FileOutcome, kept, unknown_outcome};
use crate::id::OpId;
use crate::journal::Record;
use crate::limits;

impl NodeFiles {
    /// Ends it. Written down before it is told: what is told and lost on the way is told again.
    pub(super) fn end(&mut self, op: OpId, answer: Result<FileAnswer, Refusal>) {
        let Some(local) = self.open.get_mut(&op).filter(|local| local.phase.end().is_none()) else { return };
        self.turns.remove(&local.turn);
        local.deadline = None;
        if local.reads {
            let is_heard = !local.forgotten;
            self.open.remove(&op);
            if is_heard {
                self.answer(op, answer);
            }
        } else if local.forgotten {
            self.settle(op);
        } else {
            let (end, answer) = kept_of(op, answer);
            local.phase = Phase::Ended(end.clone());
            local.told = self.linked;
            if local.journaled {
                self.actions.push_back(Action::Journal(Record::FileEnded(op, end)));
            }
            self.answer(op, answer);
        }
        self.start_ready();
    }

    /// Tells an end that is kept.
    pub(super) fn tell_end(&mut self, op: OpId) {
        let Some(local) = self.open.get_mut(&op) else { return };
        let Some(end) = local.phase.end().cloned() else { return };
        local.told = self.linked;
        self.answer(op, end.map(FileOutcome::answer));
    }

    /// The hub keeps its end, or wants none: only the id stays. It has no turn by then.
    pub(super) fn settle(&mut self, op: OpId) {
        let Some(local) = self.open.remove(&op) else { return };
        self.remember_settled(op);
        if local.journaled {
            self.actions.push_back(Action::Journal(Record::FileSettled(op)));
        }
    }

    pub(super) fn remember_settled(&mut self, op: OpId) {
        if self.settled.insert(op) {
            self.settled_order.push_back(op);
        }
        while self.settled_order.len() > limits::JOURNAL_OPS_SETTLED_MAX {
            if let Some(oldest) = self.settled_order.pop_front() {
                self.settled.remove(&oldest);
            }
        }
    }
}

/// What is kept of an answer, and what is told. An answer to something else says nothing of this one.
fn kept_of(op: OpId, answer: Result<FileAnswer, Refusal>) -> (FileEnd, Result<FileAnswer, Refusal>) {
    match answer {
        Ok(answer) => match FileOutcome::of(&answer) {
            Some(outcome) => (Ok(outcome), Ok(answer)),
            None => {
                let refusal = unknown_outcome(op, "its answer is one to another operation");
                (Err(refusal.clone()), Err(refusal))
            }
        },
        Err(refusal) => (Err(kept(&refusal)), Err(refusal)),
    }
}
