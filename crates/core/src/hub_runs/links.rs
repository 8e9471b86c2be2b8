//! Links that come and go: what a node that is back is told of each run, and what is lost with
//! one that is not.

use std::collections::BTreeMap;

use super::open::Open;
use super::{Action, HubRuns};
use crate::id::{LinkId, RunId};
use crate::limits;
use crate::message::{RunReport, Start, ToNode};
use crate::run::{Command, Ended};
use crate::stream::Positions;
use crate::time::Timestamp;

impl HubRuns {
    /// After a hub restart: a stored run that is not final, with what its log holds. Call
    /// [`Self::await_node`] once after the last.
    pub fn restore(&mut self, start: Start, started: bool, kept: Positions, cancelled: bool) {
        let cancel = cancelled.then_some(limits::KILL_GRACE_MS);
        let run = start.run;
        self.open.insert(run, Open { started, cancel, ..Open::new(start, kept) });
    }

    /// After a hub restart: gives the node `ms` to come back with the restored runs.
    pub fn await_node(&mut self, now: Timestamp, ms: u64) {
        if !self.open.is_empty() {
            self.grace_until = Some(now.plus_ms(ms));
        }
    }

    /// A link came up and Hello was answered with Welcome. Whatever link was there is over.
    pub fn attached(&mut self, link: LinkId, reports: Vec<RunReport>) {
        self.link = Some(link);
        self.grace_until = None;
        let mut reported: BTreeMap<RunId, RunReport> = reports.into_iter().map(|r| (r.run, r)).collect();
        let open: Vec<RunId> = self.open.keys().copied().collect();
        for run in open {
            match reported.remove(&run) {
                Some(report) => self.take_up(run, &report),
                None => self.not_reported(run),
            }
        }
        for (run, report) in reported {
            self.came_late(run, report.ended);
            self.actions.push_back(Action::Send(ToNode::Forget { run }));
        }
    }

    /// A run that is over here: how it ended is told to the store all the same, which keeps what it is
    /// worth of it.
    pub(super) fn came_late(&mut self, run: RunId, ended: Option<Ended>) {
        let end = ended.map(|ended| Action::Decide(run, Command::End(ended)));
        self.actions.extend(end);
    }

    /// A link ended. Nothing happens when it is not the current one.
    pub fn detached(&mut self, link: LinkId, now: Timestamp) {
        if self.link != Some(link) {
            return;
        }
        self.link = None;
        self.grace_until = (!self.open.is_empty()).then(|| now.plus_ms(limits::GRACE_MS));
        for (run, open) in &self.open {
            if open.ending.is_none() {
                self.actions.push_back(Action::Decide(*run, Command::Disconnect));
            }
        }
    }

    /// The node is removed or shut out: its link counts no more, and all its runs are given up.
    pub fn abandon(&mut self, diagnostic: &str) {
        self.link = None;
        self.grace_until = None;
        let open: Vec<RunId> = self.open.keys().copied().collect();
        for run in open {
            self.lose(run, diagnostic);
        }
    }

    fn take_up(&mut self, run: RunId, report: &RunReport) {
        let Some(open) = self.open.get_mut(&run) else { return };
        // The end, or the loss, waits for its commit or its log; the node is told when both are
        // done. Told earlier, it would forget a run that a hub which crashes takes up again.
        if open.ending.is_some() {
            if open.lost {
                self.came_late(run, report.ended.clone());
            }
            return;
        }
        open.receiver.resume();
        let (from, granted) = (open.receiver.next().total(), open.receiver.granted());
        self.actions.push_back(Action::Decide(run, Command::Reattach));
        if let Some(level) = report.started
            && !open.started
        {
            open.started = true;
            self.actions.push_back(Action::Decide(run, Command::Start(level)));
        }
        // A cut goes first, so that what is resumed is its end and not the output before it.
        let wish = open.wish().filter(|_| report.ended.is_none() || open.cut);
        let (cut, asked) = if open.cut { (wish, None) } else { (None, wish) };
        self.actions.extend(cut.map(Action::Send));
        self.actions.push_back(Action::Send(ToNode::Resume { run, from, granted }));
        self.actions.extend(asked.map(Action::Send));
    }

    /// The node came back and does not hold this run. When it never said that it had started,
    /// the command may not have arrived: it is sent again, and the node's journal sees to it that
    /// it runs once.
    fn not_reported(&mut self, run: RunId) {
        let Some(open) = self.open.get(&run) else { return };
        if open.ending.is_some() {
            return;
        }
        if open.started {
            self.lose(run, "The node came back without this run; what became of the command is not known.");
            return;
        }
        let (start, wish) = (open.start.clone(), open.wish());
        self.actions.push_back(Action::Decide(run, Command::Reattach));
        self.actions.push_back(Action::Send(ToNode::Start(start)));
        self.actions.extend(wish.map(Action::Send));
    }
}
