//! The hub's side of the runs of one node: what to send, to decide in the store, to append to
//! the logs. A machine that outlives links; the driver in `cortex_hub` does what the actions say.
//!
//! Rules held here: frames of any link but the current one have no effect; output is taken once
//! and without a gap, or with an explicit mark (I5); an end is told to the store once, and to
//! the node only after the store and the log keep it; a node that does not come back within its
//! grace loses its runs, with a diagnostic; nothing is ever started again that may have started.

mod decisions;
mod ends;
mod frames;
mod links;
mod open;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::error::{Code, Refusal};
use crate::id::{LinkId, RunId};
use crate::limits;
use crate::message::{Start, ToNode};
use crate::run::Command;
use crate::stream::{Positions, Stream};
use crate::time::Timestamp;
pub use decisions::{Decision, Decisions};
use open::Open;

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on the current link.
    Send(ToNode),
    /// Apply to the stored run, by way of [`Decisions`]. For [`Command::End`] and [`Command::Lose`],
    /// call [`HubRuns::settled`] after the commit; a refusal (it was final already) counts as that.
    Decide(RunId, Command),
    /// Append to the run's log; call [`HubRuns::written`] and [`HubRuns::synced`] as it gets on,
    /// with positions in the common order of both streams, marked gaps included.
    Append {
        /// Which run.
        run: RunId,
        /// Which stream.
        stream: Stream,
        /// Offset of the first byte in its stream.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Output up to these positions was lost at the node: put a mark into the log. It counts
    /// like bytes: once it is written or synced, so is all before `to.total()`. A mark that goes
    /// no further than the log's end is a repeat.
    Mark {
        /// Which run.
        run: RunId,
        /// Where the output goes on.
        to: Positions,
    },
    /// Flush and sync the run's log soon: its end is known.
    Finish(RunId),
    /// Standard input was taken over up to here.
    InputTaken(RunId, u64),
    /// The run is over and settled: its memory can go.
    Closed(RunId),
    /// The node broke the protocol: close the link.
    CloseLink(Refusal),
}

/// The machine, one per enrolled node.
#[derive(Debug, Default)]
pub struct HubRuns {
    link: Option<LinkId>,
    grace_until: Option<Timestamp>,
    open: BTreeMap<RunId, Open>,
    actions: VecDeque<Action>,
}

impl HubRuns {
    /// A node without runs and without a link.
    pub fn new() -> Self {
        Self::default()
    }

    /// Open runs.
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

    /// How far a run's output has arrived.
    pub fn received(&self, run: RunId) -> Option<Positions> {
        self.open.get(&run).map(|open| open.receiver.next())
    }

    /// Whether another run may be opened; asked before it is accepted durably.
    pub fn admit(&self) -> Result<(), Refusal> {
        if self.open.len() < limits::RUNS_OPEN_PER_NODE_MAX {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Quota,
            format!(
                "The node has {} open runs, which is the most it may have.",
                limits::RUNS_OPEN_PER_NODE_MAX
            ),
        )
        .hint("Wait for one to end, or end one with `cortex run cancel`."))
    }

    /// A run that was accepted durably. Sent at once, or when the node comes back.
    pub fn submit(&mut self, start: Start, now: Timestamp) {
        let run = start.run;
        if self.open.contains_key(&run) {
            return;
        }
        if self.link.is_some() {
            self.actions.push_back(Action::Send(ToNode::Start(start.clone())));
        } else if self.grace_until.is_none() {
            self.grace_until = Some(now.plus_ms(limits::GRACE_MS));
        }
        self.open.insert(run, Open::new(start, Positions::default()));
    }

    /// Somebody asks for the end of a run. Remembered across links.
    pub fn cancel(&mut self, run: RunId, grace_ms: u64) {
        let Some(open) = self.open.get_mut(&run) else { return };
        open.cancel = Some(grace_ms);
        self.send_wish(run);
    }

    /// A lock ends a run: at once, and whatever of its output has not arrived is not waited for.
    /// Remembered across links.
    pub fn cut(&mut self, run: RunId) {
        let Some(open) = self.open.get_mut(&run) else { return };
        open.cut = true;
        self.send_wish(run);
    }

    fn send_wish(&mut self, run: RunId) {
        let wish = self.open.get(&run).and_then(Open::wish);
        if self.link.is_some() {
            self.actions.extend(wish.map(Action::Send));
        }
    }

    /// Standard input for a run. `Err` when it cannot be delivered: unknown run, node away, or
    /// more than `INPUT_BYTES_MAX` that the process has not taken (`quota`; wait for
    /// [`Action::InputTaken`]).
    pub fn input(&mut self, run: RunId, offset: u64, data: Bytes, eof: bool) -> Result<(), Refusal> {
        let Some(open) = self.open.get(&run) else {
            return Err(Refusal::new(Code::NotFound, format!("Run {run} is not open.")));
        };
        let end = offset.saturating_add(data.len() as u64);
        if end.saturating_sub(open.input_taken) > limits::INPUT_BYTES_MAX {
            let bound = limits::INPUT_BYTES_MAX;
            let message = format!("Run {run} has not read its input so far; at most {bound} bytes may wait.");
            return Err(Refusal::new(Code::Quota, message).hint("Wait until the process reads, then go on."));
        }
        if self.link.is_none() {
            return Err(Refusal::new(Code::NodeOffline, "The node is away; its input cannot be delivered."));
        }
        self.actions.push_back(Action::Send(ToNode::Input { run, offset, data, eof }));
        Ok(())
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        self.grace_until.map(|at| (at, "the node's grace to come back"))
    }

    /// A moment that was asked for is here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.grace_until.is_none_or(|at| at > now) {
            return;
        }
        self.grace_until = None;
        let open: Vec<RunId> = self.open.keys().copied().collect();
        for run in open {
            self.lose(run, "The node was cut off and did not come back in time; what became of the command is not known.");
        }
    }
}
