//! What of one node waits for the store, in its order: the driver takes all of it, has it stored in
//! one transaction, however often that must be tried, and takes the next only then. So a start is
//! stored before its end, and nothing twice.

use std::collections::VecDeque;

use crate::event::Event;
use crate::id::RunId;
use crate::run::Command;

/// One thing to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Apply to the stored run. A refusal (it was final already) changes nothing.
    Run(RunId, Command),
    /// Append to the event log: the node came or went.
    Event(Event),
}

/// The queue of one node.
#[derive(Debug, Default)]
pub struct Decisions {
    waiting: VecDeque<Decision>,
}

impl Decisions {
    /// Queues a decision. A link that comes and goes while the store stalls must not fill the
    /// queue: of each run only the last word about its link stays, so the queue is bounded by the
    /// open runs.
    pub fn push(&mut self, decision: Decision) {
        match &decision {
            Decision::Run(run, Command::Disconnect | Command::Reattach) => {
                self.waiting.retain(|queued| {
                    !matches!(queued, Decision::Run(of, Command::Disconnect | Command::Reattach) if of == run)
                });
            }
            // The first who asks for the end of a run is kept; more of them change nothing.
            Decision::Run(run, Command::Cancel { .. }) if self.cancels(*run) => return,
            Decision::Run(
                _,
                Command::Start(_) | Command::Cancel { .. } | Command::End(_) | Command::Lose { .. },
            ) => {}
            Decision::Event(_) => self.waiting.retain(|queued| !matches!(queued, Decision::Event(_))),
        }
        self.waiting.push_back(decision);
    }

    fn cancels(&self, run: RunId) -> bool {
        let is_cancel =
            |queued: &Decision| matches!(queued, Decision::Run(of, Command::Cancel { .. }) if *of == run);
        self.waiting.iter().any(is_cancel)
    }

    /// All that waits.
    pub fn take(&mut self) -> Vec<Decision> {
        self.waiting.drain(..).collect()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether somebody waits for one of them.
    pub fn is_urgent(&self) -> bool {
        self.waiting.iter().any(Decision::is_urgent)
    }
}

impl Decision {
    /// Whether somebody waits for it.
    pub const fn is_urgent(&self) -> bool {
        match self {
            Self::Run(_, Command::End(_) | Command::Lose { .. } | Command::Cancel { .. })
            | Self::Event(_) => true,
            Self::Run(_, Command::Start(_) | Command::Disconnect | Command::Reattach) => false,
        }
    }

    /// The run that ends with it: to be told with [`super::HubRuns::settled`] once it is stored.
    pub const fn ends(&self) -> Option<RunId> {
        match self {
            Self::Run(run, Command::End(_) | Command::Lose { .. }) => Some(*run),
            Self::Run(
                _,
                Command::Start(_) | Command::Disconnect | Command::Reattach | Command::Cancel { .. },
            )
            | Self::Event(_) => None,
        }
    }
}
