//! One operation as the hub holds it, from its acceptance until its end is durable.

use crate::error::Refusal;
use crate::files::answer::FileAnswer;
use crate::files::ask::FileAsk;
use crate::id::{Attempt, TaskId};
use crate::limits;
use crate::time::Timestamp;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Its node was away when it was accepted.
    Unsent(Box<FileAsk>),
    /// The node may have it.
    Sent,
    /// Its end is on its way to the store, and this is the answer to its caller, until it is given.
    Ending(Option<Result<FileAnswer, Refusal>>),
}

#[derive(Clone, Debug)]
pub(super) struct Open {
    /// Whether it changes nothing.
    pub(super) reads: bool,
    pub(super) attempt: Option<(TaskId, Attempt)>,
    pub(super) step: Step,
    /// Whether a caller waits for its answer.
    pub(super) waits: bool,
    /// Until when.
    pub(super) deadline: Option<Timestamp>,
    /// Why it is to end, once somebody wished that.
    pub(super) cancel: Option<Refusal>,
    /// The attempt that followed its own.
    pub(super) fence: Option<Attempt>,
}

impl Open {
    pub(super) fn new(ask: &FileAsk, now: Timestamp) -> Self {
        let ms = ask.deadline_ms.min(limits::FILE_OP_MS_MAX) + limits::FILE_ANSWER_MS;
        Self {
            reads: ask.op.is_read(),
            waits: true,
            deadline: Some(now.plus_ms(ms)),
            ..Self::restored(ask.attempt)
        }
    }

    /// One that a hub which ended had accepted. Nobody waits for it, and its node may have it.
    pub(super) const fn restored(attempt: Option<(TaskId, Attempt)>) -> Self {
        Self {
            reads: false,
            attempt,
            step: Step::Sent,
            waits: false,
            deadline: None,
            cancel: None,
            fence: None,
        }
    }

    pub(super) const fn is_unsent(&self) -> bool {
        matches!(self.step, Step::Unsent(_))
    }

    /// The time that is left of it at the node, milliseconds.
    pub(super) fn left_ms(&self, now: Timestamp) -> u64 {
        let until = self.deadline.map_or(0, |at| at.0.saturating_sub(limits::FILE_ANSWER_MS));
        until.saturating_sub(now.0).max(1)
    }
}
