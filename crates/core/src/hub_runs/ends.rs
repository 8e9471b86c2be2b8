//! The end of a run, from the report or the loss to the moment when store and log keep it all.

use super::open::Ending;
use super::{Action, HubRuns};
use crate::id::RunId;
use crate::limits;
use crate::message::ToNode;
use crate::run::Command;

impl HubRuns {
    /// The run's log has taken in all before `position`.
    pub fn written(&mut self, run: RunId, position: u64) {
        let Some(open) = self.open.get_mut(&run) else { return };
        if let Some(granted) = open.receiver.written(position)
            && self.link.is_some()
        {
            let durable = open.receiver.durable();
            self.actions.push_back(Action::Send(ToNode::Credit { run, granted, durable }));
        }
    }

    /// The run's log is safe from a loss of power up to `position`.
    pub fn synced(&mut self, run: RunId, position: u64) {
        let Some(open) = self.open.get_mut(&run) else { return };
        let before = open.receiver.durable();
        open.receiver.synced(position);
        let (granted, durable) = (open.receiver.granted(), open.receiver.durable());
        if self.link.is_some() && durable > before && open.ending.is_none() {
            self.actions.push_back(Action::Send(ToNode::Credit { run, granted, durable }));
        }
        self.close_if_done(run);
    }

    /// The end of the run is committed in the store.
    pub fn settled(&mut self, run: RunId) {
        let Some(open) = self.open.get_mut(&run) else { return };
        open.committed = true;
        self.close_if_done(run);
    }

    /// The store did not take the end of the run: the decision is handed out again after
    /// `SETTLE_RETRY_MS`, whether the node is there or not, until the store takes it.
    pub fn not_settled(&mut self, run: RunId) {
        let at = self.now.plus_ms(limits::SETTLE_RETRY_MS);
        let ending = self.open.get_mut(&run).filter(|open| !open.committed).and_then(|o| o.ending.as_mut());
        if let Some(ending) = ending {
            ending.retry_at = Some(at);
        }
    }

    pub(super) fn retry_ends(&mut self) {
        for (run, open) in &mut self.open {
            let Some(ending) = &mut open.ending else { continue };
            if ending.retry_at.is_some_and(|at| at <= self.now) {
                ending.retry_at = None;
                self.actions.push_back(Action::Decide(*run, ending.command.clone()));
            }
        }
    }

    pub(super) fn lose(&mut self, run: RunId, diagnostic: &str) {
        let Some(open) = self.open.get_mut(&run) else { return };
        if open.ending.is_some() {
            return;
        }
        let output = open.receiver.next();
        open.lost = true;
        self.finish(run, Command::Lose { diagnostic: diagnostic.to_owned(), output });
    }

    pub(super) fn finish(&mut self, run: RunId, command: Command) {
        let Some(open) = self.open.get_mut(&run) else { return };
        let arrived = open.receiver.next().total();
        open.ending = Some(Ending { arrived, command: command.clone(), retry_at: None });
        self.actions.push_back(Action::Finish(run));
        self.actions.push_back(Action::Decide(run, command));
    }

    /// Tells the node to let go, once the store and the log both keep everything.
    fn close_if_done(&mut self, run: RunId) {
        let Some(open) = self.open.get(&run) else { return };
        let Some(ending) = &open.ending else { return };
        if !open.committed || open.receiver.durable() < ending.arrived {
            return;
        }
        let lost = open.lost;
        self.open.remove(&run);
        if self.open.is_empty() {
            self.grace_until = None;
        }
        if self.link.is_some() {
            let message = if lost { ToNode::Forget { run } } else { ToNode::Settled { run } };
            self.actions.push_back(Action::Send(message));
        }
        self.actions.push_back(Action::Closed(run));
    }
}
