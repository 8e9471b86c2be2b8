//! The node's side of its runs: what to journal, spawn, signal, send. A machine; the driver in
//! `cortex_node` does what the actions say and puts back what happened.
//!
//! Rules held here: a command id is executed at most once, remembered before its process starts
//! (I4); a frame of another epoch has no effect (I3, ABUSE 27); an end is sent only after all the
//! output before it; output waits for credit; what the hub has settled is forgotten but for its
//! id; runs go on while the link is down.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::error::{Code, Refusal};
use crate::id::{Epoch, Generation, RunId};
use crate::limits;
use crate::message::{Envelope, RunReport, Start, ToHub, ToNode};
use crate::policy::Policy;
use crate::run::{EndCause, Ended};
use crate::stream::{Positions, Sender, Stream};
use crate::time::{Timestamp, WallTime};

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on the current link.
    Send(ToHub),
    /// Make this durable, then call [`NodeRuns::journaled`] when it is [`Record::Accepted`].
    Journal(Record),
    /// Start the process; then [`NodeRuns::spawned`] or [`NodeRuns::ended`] with `Failed`.
    Spawn(Start),
    /// Signal the whole tree of the run.
    Signal(RunId, Signal),
    /// Give these bytes to the process, then call [`NodeRuns::input_taken`].
    Input {
        /// Which run.
        run: RunId,
        /// The bytes.
        data: Bytes,
        /// Close standard input after them.
        eof: bool,
    },
    /// Kept output before this position can go.
    Trim(RunId, u64),
    /// The run's kept output can go; its process has ended or is to be killed at once.
    Drop(RunId),
    /// Keep these numbers on disk before anything else of this link is done.
    Remember(Generation, Epoch),
    /// The policy changed; keep it for display.
    PolicyChanged(Policy),
    /// A fresh certificate arrived.
    Certificate(Vec<Bytes>),
    /// The link is over: close it and dial again as said (`None`: stop for good).
    Close {
        /// Why.
        refusal: Refusal,
        /// How long to wait.
        retry_after_ms: Option<u64>,
    },
}

/// A row of the node's journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// This command id was taken on.
    Accepted(RunId),
    /// This run ended.
    Ended(RunId, Ended),
    /// The hub keeps the end of this run, or has given it up.
    Settled(RunId),
}

/// How to end a process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ask.
    Term,
    /// Do not ask.
    Kill,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for its journal row.
    Journaling(Start),
    /// Its process is being started.
    Starting,
    /// Its process runs.
    Running,
    /// It ended; the hub has not settled it.
    Ended(Ended),
}

#[derive(Clone, Debug)]
struct Local {
    phase: Phase,
    written: Positions,
    output: Sender,
    started_told: bool,
    end_told: bool,
    /// Whether the hub has said on this link where its output goes on: an end told before that
    /// would overtake what was sent on the old link and never arrived.
    resumed: bool,
    timeout_ms: Option<u64>,
    deadline: Option<Timestamp>,
    kill_at: Option<Timestamp>,
    cause: Option<EndCause>,
    input_upto: u64,
    input_taken: u64,
    /// Input that came before the process was there.
    input_early: Vec<(Bytes, bool)>,
    /// The hub gave the run up while its process lived: nothing of it is reported.
    forgotten: bool,
    /// The hub sent it again after that: its end is reported, without output.
    recalled: bool,
}

impl Local {
    fn new(phase: Phase, timeout_ms: Option<u64>) -> Self {
        Self {
            phase,
            written: Positions::default(),
            output: Sender::default(),
            started_told: false,
            end_told: false,
            resumed: true,
            timeout_ms,
            deadline: None,
            kill_at: None,
            cause: None,
            input_upto: 0,
            input_taken: 0,
            input_early: Vec::new(),
            forgotten: false,
            recalled: false,
        }
    }

    const fn is_live(&self) -> bool {
        match self.phase {
            Phase::Journaling(_) | Phase::Starting | Phase::Running => true,
            Phase::Ended(_) => false,
        }
    }
}

/// The machine.
#[derive(Debug)]
pub struct NodeRuns {
    epoch: Epoch,
    generation: Generation,
    /// Whether a Welcome of the current link was taken.
    linked: bool,
    policy: Option<Policy>,
    name: String,
    runs: BTreeMap<RunId, Local>,
    settled: BTreeSet<RunId>,
    settled_order: VecDeque<RunId>,
    /// The run that sent last, so that the next one has its turn.
    last_sent: Option<RunId>,
    actions: VecDeque<Action>,
}

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
            runs: BTreeMap::new(),
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

    /// What Hello says of runs: those live, and those ended and not settled.
    pub fn reports(&self) -> Vec<RunReport> {
        let of = |(id, local): (&RunId, &Local)| RunReport {
            run: *id,
            started: local.phase == Phase::Running || local.started_told,
            ended: match &local.phase {
                Phase::Ended(ended) => Some(ended.clone()),
                Phase::Journaling(_) | Phase::Starting | Phase::Running => None,
            },
            kept_from: local.output.begin(),
            end: local.output.end(),
        };
        self.runs.iter().filter(|(_, local)| !local.forgotten).map(of).collect()
    }

    /// The highest epoch and generation seen.
    pub const fn numbers(&self) -> (Generation, Epoch) {
        (self.generation, self.epoch)
    }

    /// Whether a Welcome of the current link was taken.
    pub const fn is_linked(&self) -> bool {
        self.linked
    }

    /// The name in the hub's record; empty before the first Welcome.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The policy that holds; `None` before the first Welcome, which is STRICT with nothing
    /// allowed, since nothing can be asked then.
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Runs whose processes live.
    pub fn live(&self) -> usize {
        self.runs.values().filter(|local| local.is_live()).count()
    }

    /// Every run that is held, for counters: live, and ended but not settled.
    pub fn held(&self) -> usize {
        self.runs.len()
    }

    /// A frame from the hub. `wall` is for grants that end by date.
    pub fn handle(&mut self, envelope: Envelope<ToNode>, now: Timestamp, wall: WallTime) {
        let Envelope { epoch, message } = envelope;
        // Before Welcome there is no epoch to compare, and a hub may well send a node away then.
        if let ToNode::Goodbye { refusal, retry_after_ms } = message.clone()
            && (!self.linked || epoch == self.epoch)
        {
            self.actions.push_back(Action::Close { refusal, retry_after_ms });
            return;
        }
        if let ToNode::Welcome(welcome) = message {
            self.handle_welcome(epoch, welcome);
            return;
        }
        if !self.linked || epoch != self.epoch {
            let refusal = Refusal::new(
                Code::StaleEpoch,
                format!("The frame has epoch {epoch}; this link has {}. Nothing was done.", self.epoch),
            );
            self.send(ToHub::Refused { run: run_of(&message), refusal });
            return;
        }
        match message {
            ToNode::Welcome(_) | ToNode::Goodbye { .. } | ToNode::HeartbeatAck { .. } => {}
            ToNode::Start(start) => self.handle_start(start, wall),
            ToNode::Input { run, offset, data, eof } => self.handle_input(run, offset, data, eof),
            ToNode::Cancel { run, grace_ms } => self.handle_cancel(run, grace_ms, now),
            ToNode::Resume { run, from, granted } => self.handle_resume(run, from, granted),
            ToNode::Credit { run, granted, durable } => self.handle_credit(run, granted, durable),
            ToNode::Settled { run } => self.handle_settled(run),
            ToNode::Forget { run } => self.handle_forget(run),
            ToNode::Policy(policy) => self.handle_policy(policy),
            ToNode::Certificate { chain } => self.actions.push_back(Action::Certificate(chain)),
        }
    }

    /// The link ended. Runs go on; nothing is sent until the next Welcome.
    pub fn disconnected(&mut self) {
        self.linked = false;
        for local in self.runs.values_mut() {
            local.output.hold();
            local.end_told = false;
            local.resumed = false;
        }
    }

    /// The journal row of this run is durable: its process may start.
    pub fn journaled(&mut self, run: RunId) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        let Phase::Journaling(start) = &local.phase else { return };
        let start = start.clone();
        if let Some(cause) = local.cause {
            // It was cancelled or forgotten before it began.
            self.ended(run, unstarted(cause));
            return;
        }
        local.phase = Phase::Starting;
        self.actions.push_back(Action::Spawn(start));
    }

    /// The process is there.
    pub fn spawned(&mut self, run: RunId, now: Timestamp) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if local.phase != Phase::Starting {
            return;
        }
        local.phase = Phase::Running;
        local.deadline = local.timeout_ms.map(|ms| now.plus_ms(ms));
        if let Some(kill_at) = local.kill_at {
            // The wish to end it came between spawn and here.
            let signal = if kill_at <= now { Signal::Kill } else { Signal::Term };
            self.actions.push_back(Action::Signal(run, signal));
        }
        for (data, eof) in std::mem::take(&mut local.input_early) {
            self.actions.push_back(Action::Input { run, data, eof });
        }
        self.tell_started(run);
    }

    /// The process wrote `len` bytes, and the spool has them.
    pub fn wrote(&mut self, run: RunId, stream: Stream, len: u64) {
        if let Some(local) = self.runs.get_mut(&run) {
            local.written.advance(stream, len);
            local.output.wrote(len);
        }
    }

    /// Whether the driver may read more of the process's output: the answer to a full spool is
    /// to let the process wait.
    pub fn may_read(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|local| local.output.kept() < limits::SPOOL_BYTES_MAX)
    }

    /// Where the output of a run stands.
    pub fn written(&self, run: RunId) -> Option<Positions> {
        self.runs.get(&run).map(|local| local.written)
    }

    /// The process took standard input up to here.
    pub fn input_taken(&mut self, run: RunId, upto: u64) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        local.input_taken = local.input_taken.max(upto.min(local.input_upto));
        let upto = local.input_taken;
        self.send(ToHub::InputTaken { run, upto });
    }

    /// The process ended (or could not be started), and all its output was given to
    /// [`Self::wrote`]. The cause of the driver gives way to a wish that was carried out: a
    /// process that died by our TERM was cancelled or timed out, whatever it returned.
    pub fn ended(&mut self, run: RunId, mut ended: Ended) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if !local.is_live() {
            return;
        }
        if let (Some(cause), EndCause::Exited) = (local.cause, ended.cause) {
            ended.cause = cause;
        }
        ended.output = local.written;
        local.phase = Phase::Ended(ended.clone());
        local.deadline = None;
        local.kill_at = None;
        local.input_early.clear();
        if local.recalled {
            self.actions.push_back(Action::Drop(run));
            self.hold_ended(run, ended);
            return;
        }
        if local.forgotten {
            self.forget(run);
            return;
        }
        self.actions.push_back(Action::Journal(Record::Ended(run, ended)));
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next output to send: run, position, at most how many bytes. Runs take turns.
    /// The driver reads the spool there, sends a frame of one stream, calls [`Self::sent`].
    pub fn poll_output(&mut self) -> Option<(RunId, u64, u64)> {
        if !self.linked {
            return None;
        }
        let turn = self.last_sent;
        let after = self.runs.iter().filter(|(id, _)| turn.is_none_or(|turn| **id > turn));
        let upto = self.runs.iter().filter(|(id, _)| turn.is_some_and(|turn| **id <= turn));
        let (run, position, len) =
            after.chain(upto).filter(|(_, local)| !local.forgotten).find_map(|(id, local)| {
                local.output.sendable(limits::FRAME_BYTES_MAX as u64).map(|(at, len)| (*id, at, len))
            })?;
        self.last_sent = Some(run);
        Some((run, position, len))
    }

    /// `len` bytes of output went out.
    pub fn sent(&mut self, run: RunId, len: u64) {
        if let Some(local) = self.runs.get_mut(&run) {
            local.output.sent_bytes(len);
        }
    }

    /// The next end to tell: of a run whose output was sent to the last byte.
    pub fn poll_end(&mut self) -> Option<ToHub> {
        if !self.linked {
            return None;
        }
        let (run, local) = self.runs.iter_mut().find(|(_, local)| {
            !local.end_told
                && local.resumed
                && !local.forgotten
                && !local.is_live()
                && local.output.sent() == local.output.end()
        })?;
        let Phase::Ended(ended) = &local.phase else { return None };
        local.end_told = true;
        Some(ToHub::Ended { run: *run, ended: ended.clone() })
    }

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let deadlines = self.runs.values().filter_map(|l| l.deadline.map(|at| (at, "a run's deadline")));
        let running = self.runs.values().filter(|l| l.phase == Phase::Running);
        let kills = running.filter_map(|l| l.kill_at.map(|at| (at, "a run's grace after TERM")));
        deadlines.chain(kills).min()
    }

    /// A moment that was asked for is here.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let due: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, l)| l.deadline.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for run in due {
            if let Some(local) = self.runs.get_mut(&run) {
                local.deadline = None;
            }
            self.end_process(run, EndCause::TimedOut, limits::KILL_GRACE_MS, now);
        }
        for (run, local) in &mut self.runs {
            if local.kill_at.is_some_and(|at| at <= now) && local.phase == Phase::Running {
                local.kill_at = None;
                self.actions.push_back(Action::Signal(*run, Signal::Kill));
            }
        }
    }

    fn handle_welcome(&mut self, epoch: Epoch, welcome: crate::message::Welcome) {
        if epoch <= self.epoch || welcome.generation < self.generation {
            let refusal = Refusal::new(
                Code::StaleEpoch,
                format!(
                    "The hub gave epoch {epoch} of generation {}; this node has seen {} of {}.",
                    welcome.generation, self.epoch, self.generation
                ),
            )
            .hint(
                "If the hub was restored from a backup on purpose, join this node again with a new invite.",
            );
            self.actions.push_back(Action::Close { refusal, retry_after_ms: Some(limits::BACKOFF_MS_MAX) });
            return;
        }
        if welcome.generation > self.generation {
            // The store was restored: revisions may have gone back, and the hub's word counts.
            self.policy = None;
        }
        self.epoch = epoch;
        self.generation = welcome.generation;
        self.name = welcome.name;
        self.linked = true;
        self.actions.push_back(Action::Remember(self.generation, self.epoch));
        self.handle_policy(welcome.policy);
        let live: Vec<RunId> =
            self.runs.iter().filter(|(_, l)| l.phase == Phase::Running).map(|(id, _)| *id).collect();
        for run in live {
            self.tell_started(run);
            self.tell_input_taken(run);
        }
    }

    fn handle_start(&mut self, start: Start, wall: WallTime) {
        let run = start.run;
        if let Some(local) = self.runs.get_mut(&run) {
            // Under way or ended: a repeat changes nothing. What the hub lacks it learns from the
            // reports and ends.
            local.recalled = local.forgotten;
            return;
        }
        if self.settled.contains(&run) {
            // It was executed, and its result let go. A hub that asks again lost its memory of
            // that (an older store): silence would leave it waiting for ever.
            let diagnostic = "This command was taken on by this node before, and its result is gone.";
            let ended =
                Ended { diagnostic: Some(diagnostic.to_owned()), ..unstarted(EndCause::UnknownOutcome) };
            self.hold_ended(run, ended);
            return;
        }
        let refusal = match &self.policy {
            None => Some(Refusal::new(Code::PolicyDenied, "The node holds no policy, which allows nothing.")),
            Some(policy) => {
                start.spec.check().and_then(|()| policy.check(&start.spec, &self.name, wall)).err()
            }
        };
        // A run without a wish of its own lasts as long as the policy lets any.
        let longest = self.policy.as_ref().map(|policy| policy.timeout_ms_max);
        let timeout_ms = start.spec.timeout_ms.or(longest);
        if let Some(refusal) = refusal {
            self.runs.insert(run, Local::new(Phase::Starting, None));
            let ended = Ended { diagnostic: Some(refusal.message), ..unstarted(EndCause::Denied) };
            self.ended(run, ended);
            return;
        }
        let local = Local { output: Sender::new(), ..Local::new(Phase::Journaling(start), timeout_ms) };
        self.runs.insert(run, local);
        self.actions.push_back(Action::Journal(Record::Accepted(run)));
    }

    fn handle_input(&mut self, run: RunId, offset: u64, data: Bytes, eof: bool) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        let end = offset.saturating_add(data.len() as u64);
        let waiting = end.saturating_sub(local.input_taken);
        let too_early =
            local.phase != Phase::Running && local.input_early.len() >= limits::OUTBOX_INTERACTIVE_MAX;
        let too_much = too_early || waiting > limits::INPUT_BYTES_MAX;
        if !local.is_live() || offset > local.input_upto || too_much {
            let refusal = Refusal::new(
                Code::InvalidArgument,
                format!("Input of run {run} at {offset} does not follow, or is more than may wait."),
            );
            self.send(ToHub::Refused { run: Some(run), refusal });
            return;
        }
        let skip = usize::try_from(local.input_upto - offset).unwrap_or(usize::MAX).min(data.len());
        let fresh = data.slice(skip..);
        local.input_upto += fresh.len() as u64;
        if fresh.is_empty() && !eof {
            return;
        }
        if local.phase == Phase::Running {
            self.actions.push_back(Action::Input { run, data: fresh, eof });
        } else {
            local.input_early.push((fresh, eof));
        }
    }

    fn handle_cancel(&mut self, run: RunId, grace_ms: u64, now: Timestamp) {
        self.end_process(run, EndCause::Cancelled, grace_ms.min(limits::KILL_GRACE_MS_MAX), now);
    }

    fn handle_resume(&mut self, run: RunId, from: u64, granted: u64) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        local.end_told = false;
        local.resumed = true;
        if local.output.resume(from, granted).is_err() {
            // The hub lacks bytes that it had called durable. Where the streams stand is known
            // only at the end, so the mark covers all that was written until here.
            let first_kept = local.written;
            let end = local.output.end();
            let resumed = local.output.resume(end, granted.max(end));
            debug_assert!(resumed.is_ok(), "the end is always kept");
            self.send(ToHub::OutputLost { run, first_kept });
        }
    }

    fn handle_credit(&mut self, run: RunId, granted: u64, durable: u64) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if let Some(begin) = local.output.credit(granted, durable) {
            self.actions.push_back(Action::Trim(run, begin));
        }
    }

    fn handle_settled(&mut self, run: RunId) {
        let Some(local) = self.runs.get(&run) else { return };
        if local.is_live() {
            // A hub never settles what it has not heard the end of.
            self.handle_forget(run);
            return;
        }
        self.forget(run);
    }

    fn handle_forget(&mut self, run: RunId) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if !local.is_live() {
            self.forget(run);
            return;
        }
        local.forgotten = true;
        local.cause.get_or_insert(EndCause::Cancelled);
        if local.phase == Phase::Running {
            self.actions.push_back(Action::Signal(run, Signal::Kill));
        } else {
            local.kill_at = Some(Timestamp(0));
        }
    }

    fn handle_policy(&mut self, policy: Policy) {
        if self.policy.as_ref().is_some_and(|held| policy.revision < held.revision) {
            let refusal = Refusal::new(
                Code::StaleEpoch,
                format!("Policy revision {} is older than the one held.", policy.revision),
            );
            self.send(ToHub::Refused { run: None, refusal });
            return;
        }
        self.policy = Some(policy.clone());
        self.actions.push_back(Action::PolicyChanged(policy));
    }

    fn end_process(&mut self, run: RunId, cause: EndCause, grace_ms: u64, now: Timestamp) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if !local.is_live() {
            return;
        }
        let kill_at = now.plus_ms(grace_ms);
        if let Some(before) = local.kill_at {
            // Asked again: it may be hurried, not put off.
            local.kill_at = Some(before.min(kill_at));
            return;
        }
        local.cause.get_or_insert(cause);
        local.kill_at = Some(kill_at);
        if local.phase == Phase::Running {
            self.actions.push_back(Action::Signal(run, Signal::Term));
        }
    }

    fn tell_started(&mut self, run: RunId) {
        let linked = self.linked;
        let Some(local) = self.runs.get_mut(&run) else { return };
        local.started_told = true;
        if linked && !local.forgotten {
            self.actions.push_back(Action::Send(ToHub::Started { run }));
        }
    }

    fn tell_input_taken(&mut self, run: RunId) {
        let Some(local) = self.runs.get(&run) else { return };
        let upto = local.input_taken;
        if upto > 0 && !local.forgotten {
            self.send(ToHub::InputTaken { run, upto });
        }
    }

    /// Keeps an end without output, to be told until the hub settles it.
    fn hold_ended(&mut self, run: RunId, ended: Ended) {
        self.runs.insert(run, ended_before(ended.clone()));
        self.actions.push_back(Action::Journal(Record::Ended(run, ended)));
    }

    fn forget(&mut self, run: RunId) {
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
                self.runs.insert(run, Local::new(Phase::Running, None));
            }
            Record::Ended(run, ended) => {
                self.runs.insert(run, ended_before(ended));
            }
            Record::Settled(run) => {
                self.runs.remove(&run);
                self.remember_settled(run);
            }
        }
    }

    /// What was accepted and has no end: nobody saw it. Its output went with the old process.
    fn settle_unknown_outcomes(&mut self) {
        let open: Vec<RunId> = self.runs.iter().filter(|(_, l)| l.is_live()).map(|(id, _)| *id).collect();
        for run in open {
            let diagnostic =
                "The node process ended while this run was open; its processes were ended with it.";
            let ended =
                Ended { diagnostic: Some(diagnostic.to_owned()), ..unstarted(EndCause::UnknownOutcome) };
            self.runs.insert(run, ended_before(ended.clone()));
            self.actions.push_back(Action::Journal(Record::Ended(run, ended)));
        }
    }

    fn send(&mut self, message: ToHub) {
        self.actions.push_back(Action::Send(message));
    }
}

/// A run that ended in an earlier life of the node process: its output is gone.
fn ended_before(ended: Ended) -> Local {
    Local::new(Phase::Ended(ended), None)
}

fn unstarted(cause: EndCause) -> Ended {
    Ended { cause, code: None, signal: None, duration_ms: 0, output: Positions::default(), diagnostic: None }
}

fn run_of(message: &ToNode) -> Option<RunId> {
    match message {
        ToNode::Start(start) => Some(start.run),
        ToNode::Input { run, .. }
        | ToNode::Cancel { run, .. }
        | ToNode::Resume { run, .. }
        | ToNode::Credit { run, .. }
        | ToNode::Settled { run }
        | ToNode::Forget { run } => Some(*run),
        ToNode::Welcome(_)
        | ToNode::HeartbeatAck { .. }
        | ToNode::Policy(_)
        | ToNode::Certificate { .. }
        | ToNode::Goodbye { .. } => None,
    }
}
