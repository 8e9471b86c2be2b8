//! What the node says of its runs.

use super::{Action, HubRuns};
use crate::error::{Code, Refusal};
use crate::id::{LinkId, RunId};
use crate::message::{Frame, ToHub, ToNode};
use crate::run::{Command, Ended};
use crate::sandbox::Level;
use crate::stream::{Accepted, Positions};

impl HubRuns {
    /// A frame about a run, on `link`. Hello, heartbeats, renewals and answers on files are not
    /// for here.
    pub fn handle(&mut self, link: LinkId, message: ToHub) {
        if self.link != Some(link) {
            return;
        }
        match message {
            ToHub::Started { run, level } => self.handle_started(run, level),
            ToHub::Output(frame) => self.handle_output(frame),
            ToHub::Ended { run, ended } => self.handle_ended(run, ended),
            ToHub::OutputLost { run, first_kept } => self.handle_lost_output(run, first_kept),
            ToHub::InputTaken { run, upto } => self.handle_input_taken(run, upto),
            ToHub::Refused { run, refusal } => self.handle_refused(run, &refusal),
            ToHub::Hello(_)
            | ToHub::Heartbeat { .. }
            | ToHub::Renew { .. }
            | ToHub::FileAnswered { .. }
            | ToHub::TransferNews(_)
            | ToHub::WatchNews(_) => {}
        }
    }

    fn handle_started(&mut self, run: RunId, level: Level) {
        let Some(open) = self.open.get_mut(&run) else {
            // It overtook its own loss: nobody waits for it.
            self.actions.push_back(Action::Send(ToNode::Forget { run }));
            return;
        };
        if !open.started {
            open.started = true;
            self.actions.push_back(Action::Decide(run, Command::Start(level)));
        }
        if let (Some(wish), None) = (open.wish(), &open.ending) {
            // Control goes before commands: the wish may have been there before the run.
            self.actions.push_back(Action::Send(wish));
        }
    }

    fn handle_output(&mut self, frame: Frame) {
        let Frame { run, stream, position, offset, data } = frame;
        let Some(open) = self.open.get_mut(&run) else {
            self.actions.push_back(Action::Send(ToNode::Forget { run }));
            return;
        };
        if open.ending.is_some() {
            // Output after the end: the first end stands (ABUSE 21).
            return;
        }
        match open.receiver.accept(stream, position, offset, data.len() as u64) {
            Accepted::Take { skip } => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
                let (offset, data) = (offset + skip as u64, data.slice(skip..));
                self.actions.push_back(Action::Append { run, stream, offset, data });
            }
            Accepted::Repeat => {}
            Accepted::Gap { from } => {
                let granted = open.receiver.granted();
                self.actions.push_back(Action::Send(ToNode::Resume { run, from, granted }));
            }
            Accepted::Violation => self.actions.push_back(Action::CloseLink(Refusal::new(
                Code::InvalidArgument,
                format!("Output of run {run} at position {position} contradicts what came before or exceeds its credit."),
            ))),
        }
    }

    fn handle_ended(&mut self, run: RunId, mut ended: Ended) {
        let Some(open) = self.open.get_mut(&run) else {
            // Settled before: the node did not hear it.
            self.came_late(run, Some(ended));
            self.actions.push_back(Action::Send(ToNode::Settled { run }));
            return;
        };
        if open.ending.is_some() {
            if open.lost {
                self.came_late(run, Some(ended));
            }
            return;
        }
        let arrived = open.receiver.next();
        // A node process that restarted does not know how much it had given.
        ended.output = ended.output.furthest(arrived);
        if arrived.total() < ended.output.total() {
            // The node sends an end after all the output that it can give, so this is gone.
            self.actions.push_back(Action::Mark { run, to: ended.output });
        }
        self.finish(run, Command::End(ended));
    }

    fn handle_lost_output(&mut self, run: RunId, first_kept: Positions) {
        let Some(open) = self.open.get_mut(&run) else { return };
        if open.ending.is_some() || first_kept == open.receiver.next() {
            return;
        }
        if !open.receiver.skip_to(first_kept) {
            let message = format!("The lost output of run {run} contradicts what came before.");
            self.actions.push_back(Action::CloseLink(Refusal::new(Code::InvalidArgument, message)));
            return;
        }
        let (granted, durable) = (open.receiver.granted(), open.receiver.durable());
        self.actions.push_back(Action::Mark { run, to: first_kept });
        self.actions.push_back(Action::Send(ToNode::Credit { run, granted, durable }));
    }

    fn handle_input_taken(&mut self, run: RunId, upto: u64) {
        let Some(open) = self.open.get_mut(&run) else { return };
        open.input_taken = open.input_taken.max(upto);
        self.actions.push_back(Action::InputTaken(run, upto));
    }

    fn handle_refused(&mut self, run: Option<RunId>, refusal: &Refusal) {
        // A node refuses frames of an older epoch, which the current link never sends: its link
        // state is broken, and a new Hello sets it right. Input may be refused at any time.
        if refusal.code == Code::StaleEpoch && run.is_some() {
            self.actions.push_back(Action::CloseLink(refusal.clone()));
        }
    }
}
