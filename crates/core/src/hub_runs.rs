//! The hub's side of the runs of one node: what to send, to decide in the store, to append to
//! the logs. A machine that outlives links; the driver in `cortex_hub` does what the actions say.
//!
//! Rules held here: frames of any link but the current one have no effect; output is taken once
//! and without a gap, or with an explicit mark (I5); an end is told to the store once, and to
//! the node only after the store and the log keep it; a node that does not come back within its
//! grace loses its runs, with a diagnostic; nothing is ever started again that may have started.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::error::{Code, Refusal};
use crate::id::{LinkId, RunId};
use crate::limits;
use crate::message::{Frame, RunReport, Start, ToHub, ToNode};
use crate::run::{Command, Ended};
use crate::stream::{Accepted, Positions, Receiver, Stream};
use crate::time::Timestamp;

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on the current link.
    Send(ToNode),
    /// Apply to the stored run. For [`Command::End`] and [`Command::Lose`], call
    /// [`HubRuns::settled`] after the commit; a refusal (it was final already) counts as that.
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

#[derive(Clone, Debug)]
struct Open {
    start: Start,
    started: bool,
    receiver: Receiver,
    cancel: Option<u64>,
    /// The decision of its end was handed out; the commit is awaited.
    ending: Option<Ending>,
    /// How much standard input its process has taken, as far as told.
    input_taken: u64,
    /// Its end is committed.
    committed: bool,
    /// The node is to be told to forget it, not that it was settled.
    lost: bool,
}

#[derive(Clone, Debug)]
struct Ending {
    /// How far its output had arrived: the log must be durable up to here.
    arrived: u64,
    /// To be handed out again should the store not take it.
    command: Command,
    /// When that is, after a store that did not take it.
    retry_at: Option<Timestamp>,
}

/// The machine, one per enrolled node.
#[derive(Debug, Default)]
pub struct HubRuns {
    link: Option<LinkId>,
    /// The latest moment that was told, for waits that begin in calls without one.
    now: Timestamp,
    grace_until: Option<Timestamp>,
    open: BTreeMap<RunId, Open>,
    actions: VecDeque<Action>,
}

impl HubRuns {
    /// A node without runs and without a link.
    pub fn new() -> Self {
        Self::default()
    }

    /// After a hub restart: a stored run that is not final, with what its log holds. Call
    /// [`Self::await_node`] once after the last.
    pub fn restore(&mut self, start: Start, started: bool, kept: Positions, cancelled: bool) {
        let cancel = cancelled.then_some(limits::KILL_GRACE_MS);
        let run = start.run;
        self.open.insert(run, Open { started, cancel, ..Open::new(start, kept) });
    }

    /// After a hub restart: gives the node `ms` to come back with the restored runs.
    pub fn await_node(&mut self, now: Timestamp, ms: u64) {
        self.now = now;
        if !self.open.is_empty() {
            self.grace_until = Some(now.plus_ms(ms));
        }
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
        self.now = now;
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
        if self.link.is_some() {
            self.actions.push_back(Action::Send(ToNode::Cancel { run, grace_ms }));
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
        for run in reported.into_keys() {
            self.actions.push_back(Action::Send(ToNode::Forget { run }));
        }
    }

    /// A link ended. Nothing happens when it is not the current one.
    pub fn detached(&mut self, link: LinkId, now: Timestamp) {
        if self.link != Some(link) {
            return;
        }
        self.now = now;
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

    /// A frame about a run, on `link`. Hello, heartbeats and renewals are not for here.
    pub fn handle(&mut self, link: LinkId, message: ToHub) {
        if self.link != Some(link) {
            return;
        }
        match message {
            ToHub::Started { run } => self.handle_started(run),
            ToHub::Output(frame) => self.handle_output(frame),
            ToHub::Ended { run, ended } => self.handle_ended(run, ended),
            ToHub::OutputLost { run, first_kept } => self.handle_lost_output(run, first_kept),
            ToHub::InputTaken { run, upto } => self.handle_input_taken(run, upto),
            ToHub::Refused { run, refusal } => self.handle_refused(run, &refusal),
            ToHub::Hello(_) | ToHub::Heartbeat { .. } | ToHub::Renew { .. } => {}
        }
    }

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

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let grace = self.grace_until.map(|at| (at, "the node's grace to come back"));
        let retries = self.open.values().filter_map(|open| open.ending.as_ref()?.retry_at);
        grace.into_iter().chain(retries.map(|at| (at, "an end that the store did not take"))).min()
    }

    /// A moment that was asked for is here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        self.retry_ends();
        if self.grace_until.is_none_or(|at| at > now) {
            return;
        }
        self.grace_until = None;
        let open: Vec<RunId> = self.open.keys().copied().collect();
        for run in open {
            self.lose(run, "The node was cut off and did not come back in time; what became of the command is not known.");
        }
    }

    fn retry_ends(&mut self) {
        for (run, open) in &mut self.open {
            let Some(ending) = &mut open.ending else { continue };
            if ending.retry_at.is_some_and(|at| at <= self.now) {
                ending.retry_at = None;
                self.actions.push_back(Action::Decide(*run, ending.command.clone()));
            }
        }
    }

    fn take_up(&mut self, run: RunId, report: &RunReport) {
        let Some(open) = self.open.get_mut(&run) else { return };
        // The end, or the loss, waits for its commit or its log; the node is told when both are
        // done. Told earlier, it would forget a run that a hub which crashes takes up again.
        if open.ending.is_some() {
            return;
        }
        open.receiver.resume();
        let (from, granted) = (open.receiver.next().total(), open.receiver.granted());
        self.actions.push_back(Action::Decide(run, Command::Reattach));
        if report.started && !open.started {
            open.started = true;
            self.actions.push_back(Action::Decide(run, Command::Start));
        }
        self.actions.push_back(Action::Send(ToNode::Resume { run, from, granted }));
        if let (Some(grace_ms), None) = (open.cancel, &report.ended) {
            self.actions.push_back(Action::Send(ToNode::Cancel { run, grace_ms }));
        }
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
        let (start, cancel) = (open.start.clone(), open.cancel);
        self.actions.push_back(Action::Decide(run, Command::Reattach));
        self.actions.push_back(Action::Send(ToNode::Start(start)));
        if let Some(grace_ms) = cancel {
            self.actions.push_back(Action::Send(ToNode::Cancel { run, grace_ms }));
        }
    }

    fn handle_started(&mut self, run: RunId) {
        let Some(open) = self.open.get_mut(&run) else {
            // It overtook its own loss: nobody waits for it.
            self.actions.push_back(Action::Send(ToNode::Forget { run }));
            return;
        };
        if !open.started {
            open.started = true;
            self.actions.push_back(Action::Decide(run, Command::Start));
        }
        if let (Some(grace_ms), None) = (open.cancel, &open.ending) {
            // Control goes before commands: the wish may have been there before the run.
            self.actions.push_back(Action::Send(ToNode::Cancel { run, grace_ms }));
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
            self.actions.push_back(Action::Send(ToNode::Settled { run }));
            return;
        };
        if open.ending.is_some() {
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

    fn lose(&mut self, run: RunId, diagnostic: &str) {
        let Some(open) = self.open.get_mut(&run) else { return };
        if open.ending.is_some() {
            return;
        }
        let output = open.receiver.next();
        open.lost = true;
        self.finish(run, Command::Lose { diagnostic: diagnostic.to_owned(), output });
    }

    fn finish(&mut self, run: RunId, command: Command) {
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
        if self.link.is_some() {
            let message = if lost { ToNode::Forget { run } } else { ToNode::Settled { run } };
            self.actions.push_back(Action::Send(message));
        }
        self.actions.push_back(Action::Closed(run));
    }
}

impl Open {
    const fn new(start: Start, kept: Positions) -> Self {
        Self {
            start,
            started: false,
            receiver: Receiver::new(kept),
            cancel: None,
            ending: None,
            input_taken: 0,
            committed: false,
            lost: false,
        }
    }
}
