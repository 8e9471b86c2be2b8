//! One node as the mesh holds it while it has a link or open runs: its machine, its link, and the
//! decisions that wait for the store, in their order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::event::Event;
use cortex_core::hub_runs::HubRuns;
use cortex_core::id::{NodeId, RunId};
use cortex_core::run::{Command, Run};
use cortex_core::time::Timestamp;
use tokio::sync::{Notify, watch};

use super::link::Link;
use crate::runlog::RunLog;

/// A run that is not settled, or was a moment ago.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) node: NodeId,
    pub(crate) log: Arc<RunLog>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Somebody asked for its end before it was handed to its node: with this grace.
    pub(super) wish: Mutex<Option<u64>>,
}

/// What those who follow a run look at.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Where the log ends.
    pub(crate) end: u64,
    /// The run as it was last committed.
    pub(crate) run: Arc<Run>,
    /// Standard input that the process has taken over.
    pub(crate) input_taken: u64,
}

/// One node.
pub(super) struct Slot {
    pub(super) node: NodeId,
    state: Mutex<SlotState>,
    /// A decision came that should not wait for others.
    pub(super) urgent: Notify,
}

/// Behind the lock of a slot, which is held for short synchronous sections only.
#[derive(Default)]
pub(super) struct SlotState {
    pub(super) runs: HubRuns,
    pub(super) link: Option<Arc<Link>>,
    pub(super) live: BTreeMap<RunId, Arc<Live>>,
    pub(super) decisions: VecDeque<Decision>,
    pub(super) deciding: bool,
    pub(super) timer: Option<Timestamp>,
    /// Runs that are being accepted.
    pub(super) reserved: usize,
    /// Standard input found its lane full.
    pub(super) input_refused: bool,
    /// Taken out of the mesh: whoever holds it looks the node up again.
    pub(super) dead: bool,
}

/// What waits for the store.
#[derive(Clone, Debug)]
pub(super) enum Decision {
    Run(RunId, Command),
    Event(Event),
}

impl Slot {
    pub(super) fn new(node: NodeId) -> Self {
        Self { node, state: Mutex::default(), urgent: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SlotState {
    /// Queues a decision. A link that comes and goes while the store stalls must not fill the
    /// queue: of each run only the last word about its link stays, so the queue is bounded by the
    /// open runs.
    pub(super) fn decide(&mut self, decision: Decision) {
        match &decision {
            Decision::Run(run, Command::Disconnect | Command::Reattach) => {
                self.decisions.retain(|queued| {
                    !matches!(queued, Decision::Run(of, Command::Disconnect | Command::Reattach) if of == run)
                });
            }
            Decision::Run(
                _,
                Command::Start | Command::Cancel { .. } | Command::End(_) | Command::Lose { .. },
            ) => {}
            Decision::Event(_) => self.decisions.retain(|queued| !matches!(queued, Decision::Event(_))),
        }
        self.decisions.push_back(decision);
    }

    /// Whether somebody waits for one of the decisions.
    pub(super) fn is_urgent(&self) -> bool {
        self.decisions.iter().any(Decision::is_urgent)
    }

    /// Whether nothing is held for the node.
    pub(super) fn is_idle(&self) -> bool {
        self.link.is_none()
            && self.runs.is_empty()
            && self.decisions.is_empty()
            && !self.deciding
            && self.reserved == 0
    }
}

impl Decision {
    pub(super) const fn is_urgent(&self) -> bool {
        match self {
            Self::Run(_, Command::End(_) | Command::Lose { .. } | Command::Cancel { .. })
            | Self::Event(_) => true,
            Self::Run(_, Command::Start | Command::Disconnect | Command::Reattach) => false,
        }
    }
}
