//! The node's side of its runs: what to journal, spawn, signal, send. A machine; the driver in
//! `cortex_node` does what the actions say and puts back what happened.
//!
//! Rules held here: a command id is executed at most once, remembered before its process starts
//! (I4); a frame of another epoch has no effect (I3, ABUSE 27); an end is sent only after all the
//! output before it; output waits for credit; what the hub has settled is forgotten but for its
//! id; runs go on while the link is down; the time of a run counts from the moment it is taken on,
//! and ends it whatever it is waiting for.

mod gate;
mod local;
mod memory;
mod orders;
mod output;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::error::{Code, Refusal};
use crate::id::{Epoch, Generation, NodeId, Revision, RunId};
use crate::journal::Record;
use crate::limits;
use crate::message::{Envelope, RunReport, SignedPolicy, Start, ToHub, ToNode, Welcome};
use crate::node::AuditHead;
use crate::policy::{Ceiling, Document, Policy, Site};
use crate::run::{EndCause, Ended};
use crate::sandbox::{Ground, Level, Place, Walls};
use crate::time::Timestamp;
pub use gate::{Gate, Leave};
use local::{Local, Phase};

/// What the driver must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send on the current link.
    Send(ToHub),
    /// Make this durable, then call [`NodeRuns::journaled`] when it is [`Record::Accepted`].
    Journal(Record),
    /// Start the process; then [`NodeRuns::spawned`] or [`NodeRuns::ended`] with `Failed`.
    Spawn {
        /// What.
        start: Start,
        /// The walls around it, as the policy had them when it was taken on; `None` when the
        /// policy is PERMISSIVE.
        walls: Option<Box<Walls>>,
    },
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
    /// Keep these numbers, and [`NodeRuns::audit_head`], on disk before anything else of this link
    /// is done.
    Remember(Generation, Epoch),
    /// The policy changed: keep it on disk, and make its walls ready.
    PolicyChanged(SignedPolicy),
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

/// How to end a process tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ask.
    Term,
    /// Do not ask.
    Kill,
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
    /// The newest row of the hub's audit log that it was told of.
    audit_head: Option<AuditHead>,
    site: Site,
    runs: BTreeMap<RunId, Local>,
    /// Output of one run that may be kept for the hub.
    spool_bytes_max: u64,
    settled: BTreeSet<RunId>,
    settled_order: VecDeque<RunId>,
    /// The run that sent last, so that the next one has its turn.
    last_sent: Option<RunId>,
    actions: VecDeque<Action>,
}

impl NodeRuns {
    /// What Hello says of runs: those live, and those ended and not settled.
    pub fn reports(&self) -> Vec<RunReport> {
        let of = |(id, local): (&RunId, &Local)| RunReport {
            run: *id,
            started: (local.phase == Phase::Running || local.started_told).then_some(local.level),
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

    /// What the disk remembers of the hub's audit log.
    pub fn witness(&mut self, head: Option<AuditHead>) {
        self.audit_head = head;
    }

    /// The newest row of the hub's audit log that this node was told of: to be kept on disk with
    /// the numbers, and shown in Hello.
    pub const fn audit_head(&self) -> Option<AuditHead> {
        self.audit_head
    }

    /// What the node found of itself at its start. Before that no walls can be had.
    pub fn stand_on(&mut self, ground: Ground) {
        self.site.ground = ground;
    }

    /// What the owner of the machine allows at most: each of these, whatever the hub says.
    pub fn stand_under(&mut self, ceilings: Vec<Ceiling>) {
        self.site.ceilings = ceilings;
    }

    /// Begins with a policy that was kept from an earlier life of the node process, of that
    /// generation. One that cannot be read is given as [`Policy::unreadable`].
    pub fn hold(&mut self, policy: Policy) {
        self.policy = Some(policy);
    }

    /// The level of the sandbox around runs that have walls.
    pub fn level(&self) -> Level {
        self.site.ground.level.unwrap_or(Level::None)
    }

    /// Where the node has what policies name by purpose.
    pub const fn place(&self) -> &Place {
        &self.site.ground.place
    }

    /// The walls that a run gets that is taken on now; `None` when it gets none.
    pub fn walls(&self) -> Option<Walls> {
        let nothing = Document::nothing();
        let document = self.policy.as_ref().map_or(&nothing, |policy| &policy.document);
        document.walls(&self.site.ground.place, &self.site.ceilings)
    }

    /// Runs whose processes live.
    pub fn live(&self) -> usize {
        self.runs.values().filter(|local| local.is_live()).count()
    }

    /// Every run that is held, for counters: live, and ended but not settled.
    pub fn held(&self) -> usize {
        self.runs.len()
    }

    /// A frame from the hub. The node reads no clock of days: leave that has ended is taken away by
    /// a later revision of the policy.
    pub fn handle(&mut self, envelope: Envelope<ToNode>, now: Timestamp) {
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
        if let Err(refusal) = self.gate(epoch) {
            self.send(ToHub::Refused { run: message.run(), refusal });
            return;
        }
        match message {
            ToNode::Welcome(_) | ToNode::Goodbye { .. } | ToNode::HeartbeatAck { .. } => {}
            ToNode::Start(start) => self.handle_start(start, now),
            ToNode::Input { run, offset, data, eof } => self.handle_input(run, offset, data, eof),
            ToNode::Cancel { run, grace_ms } => self.handle_cancel(run, grace_ms, now),
            ToNode::Cut { run } => self.handle_cut(run, now),
            ToNode::Resume { run, from, granted } => self.handle_resume(run, from, granted),
            ToNode::Credit { run, granted, durable } => self.handle_credit(run, granted, durable),
            ToNode::Settled { run } => self.handle_settled(run, now),
            ToNode::Forget { run } => self.handle_forget(run, now),
            ToNode::Policy(policy) => self.handle_policy(policy),
            ToNode::Certificate { chain } => self.actions.push_back(Action::Certificate(chain)),
            // For the machine of files, which passes the same gate.
            ToNode::FileAsk(_)
            | ToNode::FileCancel { .. }
            | ToNode::FileSettled { .. }
            | ToNode::AttemptFence { .. }
            | ToNode::TransferAsk(_)
            | ToNode::TransferCancel { .. }
            | ToNode::Watch(_)
            | ToNode::Unwatch { .. } => {}
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
        local.phase = Phase::Starting;
        let walls = local.walls.take();
        self.actions.push_back(Action::Spawn { start, walls });
    }

    /// The process is there.
    pub fn spawned(&mut self, run: RunId, now: Timestamp) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if local.phase != Phase::Starting {
            return;
        }
        local.phase = Phase::Running;
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

    /// When to call [`Self::handle_timeout`], and why.
    pub fn poll_timeout(&self) -> Option<(Timestamp, &'static str)> {
        let deadlines = self.runs.values().filter_map(|l| l.deadline.map(|at| (at, "a run's deadline")));
        let kills = self.runs.values().filter_map(|l| l.kill_at.map(|at| (at, "a run's grace after TERM")));
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
            if local.kill_at.is_some_and(|at| at <= now) {
                local.kill_at = None;
                self.actions.push_back(Action::Signal(*run, Signal::Kill));
            }
        }
    }

    fn handle_welcome(&mut self, epoch: Epoch, welcome: Welcome) {
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
            // It is another log, which may be shorter.
            self.audit_head = None;
        }
        if let Some(head) = welcome.audit_head
            && self.audit_head.is_none_or(|seen| seen.seq < head.seq)
        {
            self.audit_head = Some(head);
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

    fn handle_policy(&mut self, signed: SignedPolicy) {
        let Some(policy) = &signed.policy else {
            self.lose_policy();
            return;
        };
        if self.policy.as_ref().is_some_and(|held| policy.revision < held.revision) {
            let refusal = Refusal::new(
                Code::StaleEpoch,
                format!("Policy revision {} is older than the one held.", policy.revision),
            );
            self.send(ToHub::Refused { run: None, refusal });
            return;
        }
        self.policy = Some(Policy::clone(policy));
        self.actions.push_back(Action::PolicyChanged(signed));
    }

    /// A policy came that is not what the authority signed for this node: nothing is allowed from
    /// here on. What the node had seen is not forgotten by that, so that no older one follows.
    fn lose_policy(&mut self) {
        let (node, revision) = self
            .policy
            .as_ref()
            .map_or((NodeId::new(uuid::Uuid::nil()), Revision(0)), |held| (held.node, held.revision));
        self.policy = Some(Policy { revision, ..Policy::unreadable(node) });
        let refusal = Refusal::new(
            Code::PolicyInvalid,
            "The policy cannot be verified: this node starts nothing until it has one that can.",
        );
        self.send(ToHub::Refused { run: None, refusal });
    }

    fn tell_started(&mut self, run: RunId) {
        let linked = self.linked;
        let Some(local) = self.runs.get_mut(&run) else { return };
        local.started_told = true;
        let level = local.level;
        if linked && !local.forgotten {
            self.actions.push_back(Action::Send(ToHub::Started { run, level }));
        }
    }

    fn tell_input_taken(&mut self, run: RunId) {
        let Some(local) = self.runs.get(&run) else { return };
        let upto = local.input_taken;
        if upto > 0 && !local.forgotten {
            self.send(ToHub::InputTaken { run, upto });
        }
    }

    fn send(&mut self, message: ToHub) {
        self.actions.push_back(Action::Send(message));
    }
}
