//! What outlives the node process: runs taken up from the journal, ends held until the hub has
//! settled them, and the ids that were settled.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::local::{Local, Phase, ended_before};
use super::{Action, NodeRuns};
use crate::id::{Epoch, Generation, RunId};
use crate::journal::Record;
use crate::limits;
use crate::policy::Site;
use crate::run::{EndCause, Ended};

impl NodeRuns {
    /// Begins from what the disk remembers. Runs that were accepted and have no end are reported
    /// as `unknown_outcome`: their processes died with the node process, or were never started.
    pub fn restore(generation: Generation, epoch: Epoch, journal: impl IntoIterator<Item = Record>) -> Self {
        let mut runs = Self {
            epoch,
            generation,
            linked: false,
            policy: None,
            name: String::new(),
            audit_head: None,
            site: Site::default(),
            runs: BTreeMap::new(),
            spool_bytes_max: limits::SPOOL_BYTES_MAX,
            settled: BTreeSet::new(),
            settled_order: VecDeque::new(),
            last_sent: None,
            actions: VecDeque::new(),
        };
        for record in journal {
            runs.replay(record);
        }
        runs.settle_unknown_outcomes();
        runs.disconnected();
        runs
    }

    /// Keeps an end without output, to be told until the hub settles it.
    pub(super) fn hold_ended(&mut self, run: RunId, ended: Ended) {
        self.runs.insert(run, ended_before(ended.clone()));
        self.actions.push_back(Action::Journal(Record::Ended(run, ended)));
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
        self.remember_settled(run);
        self.actions.push_back(Action::Journal(Record::Settled(run)));
        self.actions.push_back(Action::Drop(run));
    }

    fn remember_settled(&mut self, run: RunId) {
        if self.settled.insert(run) {
            self.settled_order.push_back(run);
        }
        while self.settled_order.len() > limits::JOURNAL_SETTLED_MAX {
            if let Some(oldest) = self.settled_order.pop_front() {
                self.settled.remove(&oldest);
            }
        }
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::Accepted(run) => {
                self.runs.insert(run, Local::new(Phase::Running));
            }
            Record::Ended(run, ended) => {
                self.runs.insert(run, ended_before(ended));
            }
            Record::Settled(run) => {
                self.runs.remove(&run);
                self.remember_settled(run);
            }
            Record::FileAccepted(_)
            | Record::FileIntended(..)
            | Record::FileEnded(..)
            | Record::FileSettled(_)
            | Record::Attempt(..) => {}
        }
    }

    /// What was accepted and has no end: nobody saw it. Its output went with the old process.
    fn settle_unknown_outcomes(&mut self) {
        let open: Vec<RunId> = self.runs.iter().filter(|(_, l)| l.is_live()).map(|(id, _)| *id).collect();
        for run in open {
            let diagnostic =
                "The node process ended while this run was open; its processes were ended with it.";
            let ended =
                Ended { diagnostic: Some(diagnostic.to_owned()), ..Ended::new(EndCause::UnknownOutcome) };
            self.runs.insert(run, ended_before(ended.clone()));
            self.actions.push_back(Action::Journal(Record::Ended(run, ended)));
        }
    }
}
