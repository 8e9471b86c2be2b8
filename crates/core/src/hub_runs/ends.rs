//! The end of a run, from the report or the loss to the moment when store and log keep it all.

use super::{Action, HubRuns};
use crate::id::RunId;
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

    /// The hub does not wait for this run any more: it is lost, whatever its node says later.
    pub fn give_up(&mut self, run: RunId, diagnostic: &str) {
        self.lose(run, diagnostic);
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
        open.ending = Some(arrived);
        self.actions.push_back(Action::Finish(run));
        self.actions.push_back(Action::Decide(run, command));
    }

    /// Tells the node to let go, once the store and the log both keep everything.
    fn close_if_done(&mut self, run: RunId) {
        let Some(open) = self.open.get(&run) else { return };
        let Some(arrived) = open.ending else { return };
        if !open.committed || open.receiver.durable() < arrived {
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
