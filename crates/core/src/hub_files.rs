//! The hub's side of the operations on files of one node: what to send, to decide in the store, and to
//! answer. A machine that outlives links; the driver in `cortex_hub` does what the actions say.
//!
//! Rules held here: what is said on any link but the current one has no effect; one that changes files is
//! sent once, and what came of it is stored before anybody hears of it; nobody is told that nothing was
//! done unless that is certain, and a node's report is proof of that, since it lists all that it has
//! taken on; a caller is answered within its time, with `unknown_outcome` when nobody knows; what the node
//! then says is stored all the same, however late; a node is told that an end is stored for as long as it
//! does not know.
//!
//! An operation that changes files ends by its node's word, or when the node is given up, and not by a
//! clock: while the node is away it stays open, and nobody waits for it.

mod frames;
mod links;
mod open;

use std::collections::{BTreeMap, VecDeque};

use crate::error::{Code, Refusal};
use crate::files::answer::FileAnswer;
use crate::files::ask::FileAsk;
use crate::files::entity::{FileEnd, FileOutcome, unknown_outcome};
use crate::id::{Attempt, LinkId, OpId, TaskId};
use crate::limits;
use crate::message::ToNode;
use crate::time::Timestamp;
use open::{Open, Step};

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on the current link.
    Send(ToNode),
    /// Answer the caller. Comes once for each operation that was submitted.
    Answer(OpId, Result<FileAnswer, Refusal>),
    /// Apply to the stored operation, with [`crate::files::entity::decide`]; call [`HubFiles::settled`]
    /// after the commit. A refusal (it was final already) counts as that.
    Decide(OpId, FileEnd),
    /// The operation is over: its memory can go.
    Closed(OpId),
}

/// The machine, one per enrolled node.
#[derive(Debug, Default)]
pub struct HubFiles {
    link: Option<LinkId>,
    grace_until: Option<Timestamp>,
    open: BTreeMap<OpId, Open>,
    actions: VecDeque<Action>,
}

impl HubFiles {
    /// A node without operations and without a link.
    pub fn new() -> Self {
        Self::default()
    }

    /// Open operations.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The current link.
    pub const fn link(&self) -> Option<LinkId> {
        self.link
    }

    /// Whether another operation may be opened; asked before it is accepted.
    ///
    /// # Errors
    /// `quota`.
    pub fn admit(&self) -> Result<(), Refusal> {
        let max = limits::FILE_OPS_OPEN_PER_NODE_MAX;
        if self.open.len() < max {
            return Ok(());
        }
        let message = format!("The node has {max} open operations on files, which is the most it may have.");
        Err(Refusal::new(Code::Quota, message).hint("Wait for some of them to end, then ask again."))
    }

    /// An operation that was accepted; durably, when it changes files. Sent at once, or when the node is
    /// back: a node that was away before was asked for nothing.
    pub fn submit(&mut self, ask: FileAsk, now: Timestamp) {
        let op = ask.id;
        if self.open.contains_key(&op) {
            return;
        }
        let mut open = Open::new(&ask, now);
        if self.link.is_none() && open.reads {
            self.actions.push_back(Action::Answer(op, Err(away())));
            self.actions.push_back(Action::Closed(op));
            return;
        }
        if self.link.is_some() {
            self.actions.push_back(Action::Send(ToNode::FileAsk(Box::new(ask))));
        } else {
            open.step = Step::Unsent(Box::new(ask));
            self.grace_until.get_or_insert(now.plus_ms(limits::GRACE_MS));
        }
        self.open.insert(op, open);
    }

    /// Nobody waits for it any more, or a lock ends it: as far as it has not been done. Remembered across
    /// links. The reason is what it ends with.
    pub fn cancel(&mut self, op: OpId, why: Refusal) {
        let Some(open) = self.open.get_mut(&op) else { return };
        if open.reads {
            self.send(ToNode::FileCancel { op });
            self.close(op, Err(why));
            return;
        }
        match open.step {
            Step::Unsent(_) => self.finish(op, Err(why)),
            Step::Sent => {
                open.cancel.get_or_insert(why);
                self.send(ToNode::FileCancel { op });
            }
            Step::Ending(_) => {}
        }
    }

    /// The task is in this attempt: what lower ones ask for on this node ends as far as it has not been
    /// done. Remembered across links, for as long as such an operation is open; without one the node has
    /// nothing to fence.
    pub fn fence(&mut self, task: TaskId, attempt: Attempt) {
        let is_older = |open: &Open| open.attempt.is_some_and(|(of, older)| of == task && older < attempt);
        let older: Vec<OpId> =
            self.open.iter().filter(|(_, open)| is_older(open)).map(|(op, _)| *op).collect();
        let mut is_there = false;
        for op in older {
            let Some(open) = self.open.get_mut(&op) else { continue };
            match open.step {
                Step::Unsent(_) => {
                    let message =
                        format!("Attempt {attempt} of task {task} followed this one. Nothing was done.");
                    let refusal = Refusal::new(Code::StaleAttempt, message);
                    self.finish(op, Err(refusal.detail("attempt", attempt.to_string())));
                }
                Step::Sent => {
                    open.fence = open.fence.max(Some(attempt));
                    is_there = true;
                }
                Step::Ending(_) => {}
            }
        }
        if is_there {
            self.send(ToNode::AttemptFence { task, attempt });
        }
    }

    /// Its end is committed in the store.
    pub fn settled(&mut self, op: OpId) {
        let Some(open) = self.open.get_mut(&op) else { return };
        let Step::Ending(answer) = &mut open.step else { return };
        let Some(answer) = answer.take() else { return };
        self.send(ToNode::FileSettled { op });
        self.close(op, answer);
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let deadlines = self.open.values().filter_map(|open| open.deadline);
        let deadlines = deadlines.map(|at| (at, "the deadline of a caller"));
        let grace = self.grace_until.map(|at| (at, "the node's grace to come back"));
        deadlines.chain(grace).min()
    }

    /// A moment that was asked for is here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let is_over = self.grace_until.is_some_and(|at| at <= now);
        if is_over {
            self.grace_until = None;
        }
        let is_due = |open: &Open| open.deadline.is_some_and(|at| at <= now);
        let due = self.open.iter().filter(|(_, open)| is_over || is_due(open));
        let due: Vec<OpId> = due.map(|(op, _)| *op).collect();
        due.into_iter().for_each(|op| self.time_is_over(op));
    }

    /// Its caller is not kept waiting any longer.
    fn time_is_over(&mut self, op: OpId) {
        let Some(open) = self.open.get_mut(&op) else { return };
        if open.reads {
            let message = "The node did not answer in time.";
            self.cancel(op, Refusal::new(Code::Timeout, message));
            return;
        }
        match open.step {
            Step::Unsent(_) => self.finish(op, Err(away())),
            Step::Sent => {
                self.tell(op, Err(unknown_outcome(op, "the node has not said")));
                let refusal = Refusal::new(Code::Timeout, "Its time was over before anything was changed.");
                self.cancel(op, refusal);
            }
            Step::Ending(_) => self.tell(op, Err(unknown_outcome(op, "its end is not stored so far"))),
        }
    }

    /// Brings the end to the store; the caller hears the answer after that.
    fn end(&mut self, op: OpId, end: FileEnd, answer: Result<FileAnswer, Refusal>) {
        let Some(open) = self.open.get_mut(&op) else { return };
        open.step = Step::Ending(Some(answer));
        self.actions.push_back(Action::Decide(op, end));
    }

    fn finish(&mut self, op: OpId, end: FileEnd) {
        let answer = end.clone().map(FileOutcome::answer);
        self.end(op, end, answer);
    }

    /// Answers the caller, when one waits.
    fn tell(&mut self, op: OpId, answer: Result<FileAnswer, Refusal>) {
        let Some(open) = self.open.get_mut(&op) else { return };
        open.deadline = None;
        if std::mem::take(&mut open.waits) {
            self.actions.push_back(Action::Answer(op, answer));
        }
    }

    fn close(&mut self, op: OpId, answer: Result<FileAnswer, Refusal>) {
        self.tell(op, answer);
        self.open.remove(&op);
        if self.open.is_empty() {
            self.grace_until = None;
        }
        self.actions.push_back(Action::Closed(op));
    }

    fn send(&mut self, message: ToNode) {
        if self.link.is_some() {
            self.actions.push_back(Action::Send(message));
        }
    }
}

/// The end of what was never sent, and of a read that its link took along.
fn away() -> Refusal {
    Refusal::new(Code::NodeOffline, "The node went away; nothing was changed.")
        .hint("Ask again when the node is back.")
}
