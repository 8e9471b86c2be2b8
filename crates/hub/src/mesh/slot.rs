//! One node as the mesh holds it while it has a link or open runs: its machine, its link, and the
//! decisions that wait for the store, in their order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::hub_runs::{Decisions, HubRuns};
use cortex_core::id::{NodeId, RunId};
use cortex_core::run::Run;
use cortex_core::time::Timestamp;
use tokio::sync::{Notify, watch};

use super::files::FileSlot;
use super::link::Link;
use crate::runlog::RunLog;

/// A run that is not settled, or was a moment ago.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) node: NodeId,
    pub(crate) log: Arc<RunLog>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Somebody asked for its end before it was handed to its node.
    pub(super) wish: Mutex<Option<Wish>>,
}

/// How a run is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// TERM, this grace in milliseconds, KILL.
    Cancel(u64),
    /// At once.
    Cut,
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
    pub(super) files: FileSlot,
    pub(super) link: Option<Arc<Link>>,
    pub(super) live: BTreeMap<RunId, Arc<Live>>,
    pub(super) decisions: Decisions,
    pub(super) deciding: bool,
    pub(super) timer: Option<Timestamp>,
    /// Runs that are being accepted.
    pub(super) reserved: usize,
    /// Standard input found its lane full.
    pub(super) input_refused: bool,
    /// Taken out of the mesh: whoever holds it looks the node up again.
    pub(super) dead: bool,
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
    /// Whether nothing is held for the node.
    pub(super) fn is_idle(&self) -> bool {
        self.link.is_none()
            && self.runs.is_empty()
            && self.files.is_idle()
            && self.decisions.is_empty()
            && !self.deciding
            && self.reserved == 0
    }
}
