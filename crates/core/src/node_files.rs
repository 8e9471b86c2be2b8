//! The node's side of operations on files: what to journal, to hand to a clerk, to let take effect, and to
//! answer. A machine; its driver does what the actions say and puts back what happened.
//!
//! Rules held here: an operation that changes files happens at most once per id, and is remembered before
//! anything of it begins (I4); of a task nothing of an old attempt takes effect once a newer one, or its
//! fence, was heard of (ABUSE 63); changes whose paths touch follow one another in the order in which they
//! came; nothing takes effect before it was checked a second time, when all of it is prepared; what became
//! of it is journaled before it is answered, and told until the hub has settled it; what a node process
//! that died left open is looked up, and is done or unknown, never done again.
//!
//! Reads are not journaled and not remembered: their link ends them.

mod ends;
mod local;
mod memory;
mod orders;
mod transfers;
mod turns;
mod watches;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::error::{Code, Refusal};
use crate::files::answer::FileAnswer;
use crate::files::ask::{FileAsk, FileReport};
use crate::files::content::ContentId;
use crate::files::fence::{Attempts, LockEpochs};
use crate::id::{OpId, TransferId, WatchId};
use crate::journal::{FileAccepted, Record};
use crate::message::{ToHub, ToNode};
use crate::node_runs::{Gate, Leave};
use crate::time::Timestamp;
use crate::transfer::TransferAsk;
use crate::watch::WatchAsk;
use local::{Local, Phase};
use transfers::Moving;
use watches::Watches;

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on the current link.
    Send(ToHub),
    /// Write this down. [`Record::FileAccepted`] is to be durable before [`NodeFiles::journaled`] is called;
    /// for the others nobody waits.
    Journal(Record),
    /// Have a clerk do it. One that changes files is prepared first, without an effect that anybody can
    /// see, and then waits ([`NodeFiles::prepared`]) for [`Action::Commit`] or [`Action::Abort`]. What
    /// came of it goes to [`NodeFiles::performed`]; when the clerk died without a word,
    /// [`NodeFiles::lost`] is called, after it is certain that it does nothing more.
    Perform {
        /// What.
        ask: Box<FileAsk>,
        /// What it may use.
        leave: Box<Leave>,
    },
    /// What was prepared takes effect.
    Commit(OpId),
    /// Kill its clerk, and say so with [`NodeFiles::lost`].
    Abort(OpId),
    /// A clerk is gone that had this in hand: remove what it left beside its path, unless that is
    /// somebody's, and call [`NodeFiles::recovered`] with the file that is at the path.
    Recover {
        /// What it was.
        accepted: FileAccepted,
        /// What it was about to give its file, if it came so far.
        intended: Option<ContentId>,
    },
    /// Have a clerk do this transfer. [`NodeFiles::may_change`] is asked before each batch of changes, and
    /// [`NodeFiles::transferred`] called when it is over, whatever came of it.
    Transfer {
        /// What.
        ask: Box<TransferAsk>,
        /// What it may use.
        leave: Box<Leave>,
    },
    /// Kill the clerk of this transfer.
    EndTransfer(TransferId),
    /// Watch this folder, in place of what was watched under its id, and say with [`NodeFiles::watched`] what is
    /// seen.
    Watch {
        /// Which.
        ask: Box<WatchAsk>,
        /// What the watch may use.
        leave: Box<Leave>,
    },
    /// Watch this one no more.
    Unwatch(WatchId),
}

/// A file that was found at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it holds.
    pub etag: ContentId,
    /// Bytes of it.
    pub bytes: u64,
}

/// The machine.
#[derive(Debug, Default)]
pub struct NodeFiles {
    /// Whether a Welcome of the current link was taken.
    linked: bool,
    /// Reads under way, and what changes files until the hub has settled it.
    open: BTreeMap<OpId, Local>,
    /// Those of them that have not ended, as they came.
    turns: BTreeMap<u64, OpId>,
    next_turn: u64,
    settled: BTreeSet<OpId>,
    settled_order: VecDeque<OpId>,
    attempts: Attempts,
    locks: LockEpochs,
    /// Folders that hold what the node itself lives by.
    reserved: Vec<String>,
    /// Transfers under way.
    moving: BTreeMap<TransferId, Moving>,
    watches: Watches,
    actions: VecDeque<Action>,
}

impl NodeFiles {
    /// A node that knows of no operation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Folders that hold what the node itself lives by: nobody is given anything of them.
    pub fn reserve(&mut self, folders: Vec<String>) {
        self.reserved = folders;
    }

    /// What Hello says of operations that change files: all that are under way, and those that ended and
    /// are not settled. Their ends count as told on this link.
    pub fn reports(&mut self) -> Vec<FileReport> {
        let told = self.open.iter_mut().filter(|(_, local)| !local.reads && !local.forgotten);
        told.map(|(op, local)| {
            let end = local.phase.end().cloned();
            local.told = end.is_some();
            FileReport { op: *op, end }
        })
        .collect()
    }

    /// A Welcome of the current link was taken: what ended since Hello is told.
    pub fn welcomed(&mut self) {
        self.linked = true;
        let ended = self.open.iter().filter(|(_, local)| !local.told && local.phase.end().is_some());
        let ended: Vec<OpId> = ended.map(|(op, _)| *op).collect();
        ended.into_iter().for_each(|op| self.tell_end(op));
    }

    /// The link ended. Changes go on; of reads nobody will hear.
    pub fn disconnected(&mut self) {
        self.linked = false;
        self.open.values_mut().for_each(|local| local.told = false);
        let reads: Vec<OpId> = self.open.iter().filter(|(_, local)| local.reads).map(|(op, _)| *op).collect();
        for op in reads {
            self.forget(op);
        }
        self.end_all_transfers();
        self.drop_watches();
    }

    /// A frame from the hub about files, or about an attempt, that came through this gate. Others are not
    /// for here.
    pub fn handle(&mut self, message: ToNode, gate: &Gate<'_>, now: Timestamp) {
        match message {
            ToNode::FileAsk(ask) => self.handle_ask(*ask, gate, now),
            ToNode::FileCancel { op } => self.handle_cancel(op),
            ToNode::FileSettled { op } => self.handle_settled(op),
            ToNode::AttemptFence { task, attempt } => self.fence(task, attempt),
            ToNode::TransferAsk(ask) => self.handle_transfer(*ask, gate, now),
            ToNode::TransferCancel { id } => {
                self.end_transfer(id, Refusal::new(Code::Timeout, "The hub ended the transfer."));
            }
            ToNode::Watch(ask) => self.handle_watch(*ask, gate),
            ToNode::Unwatch { id } => self.handle_unwatch(id),
            // What the task's earlier attempts asked for is over with it.
            ToNode::Start(start) => {
                let attempt = start.task.into_iter();
                attempt.for_each(|(task, attempt)| self.fence(task, attempt));
            }
            ToNode::Welcome(_)
            | ToNode::HeartbeatAck { .. }
            | ToNode::Input { .. }
            | ToNode::Cancel { .. }
            | ToNode::Cut { .. }
            | ToNode::Resume { .. }
            | ToNode::Credit { .. }
            | ToNode::Settled { .. }
            | ToNode::Forget { .. }
            | ToNode::Policy(_)
            | ToNode::Certificate { .. }
            | ToNode::Goodbye { .. } => {}
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let deadlines = self.turns.values().filter_map(|op| self.open.get(op)?.deadline);
        deadlines.chain(self.transfers_due()).min().map(|at| (at, "an operation's deadline"))
    }

    /// Every operation that is held, for counters: under way, and ended but not settled.
    pub fn held(&self) -> usize {
        self.open.len()
    }

    /// Transfers under way.
    pub fn transfers(&self) -> usize {
        self.moving.len()
    }

    /// Operations that have not ended.
    pub fn live(&self) -> usize {
        self.turns.len()
    }

    fn send(&mut self, message: ToHub) {
        if self.linked {
            self.actions.push_back(Action::Send(message));
        }
    }

    fn answer(&mut self, op: OpId, answer: Result<FileAnswer, Refusal>) {
        self.send(ToHub::FileAnswered { op, answer });
    }

    fn phase(&self, op: OpId) -> Option<&Phase> {
        self.open.get(&op).map(|local| &local.phase)
    }
}
