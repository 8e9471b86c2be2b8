//! What the node says of operations.

use super::open::Step;
use super::{Action, HubFiles};
use crate::error::{Code, Refusal};
use crate::files::answer::FileAnswer;
use crate::files::entity::{FileEnd, FileOutcome, unknown_outcome};
use crate::id::{LinkId, OpId};
use crate::message::ToNode;

impl HubFiles {
    /// The node answers, on `link`.
    pub fn answered(&mut self, link: LinkId, op: OpId, answer: Result<FileAnswer, Refusal>) {
        if self.link != Some(link) {
            return;
        }
        let Some(open) = self.open.get(&op) else {
            // Settled before, or given up: the node did not hear it.
            self.actions.push_back(Action::Send(ToNode::FileSettled { op }));
            return;
        };
        if open.reads {
            self.close(op, answer);
            return;
        }
        let end = match &answer {
            Ok(answer) => FileOutcome::of(answer)
                .ok_or_else(|| unknown_outcome(op, "the node's answer is one to another operation")),
            Err(refusal) => Err(refusal.clone()),
        };
        // An answer that is none is not passed on.
        let answer = if end.is_err() { end.clone().map(FileOutcome::answer) } else { answer };
        self.ended(op, end, answer);
    }

    pub(super) fn ended(&mut self, op: OpId, end: FileEnd, answer: Result<FileAnswer, Refusal>) {
        let Some(open) = self.open.get(&op) else { return };
        if matches!(open.step, Step::Ending(_)) {
            // The first end stands.
            return;
        }
        // The node knows that it was told to end it, and not why.
        let why =
            open.cancel.clone().filter(|_| matches!(&end, Err(refusal) if refusal.code == Code::Timeout));
        match why {
            Some(why) => self.finish(op, Err(why)),
            None => self.end(op, end, answer),
        }
    }
}
