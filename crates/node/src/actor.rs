//! The one task that owns the node's state: waits for what happens, lets the machines decide, and
//! carries out their actions. It never blocks, and never waits for a run, the disk or the network
//! but in [`wires::Wires::next`].

mod actions;
mod files;
mod sending;
mod stopping;
mod wires;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::id::RunId;
use cortex_core::journal::Record;
use cortex_core::link::{Backoff, NodeLink};
use cortex_core::message::{Envelope, Hello, ToHub, ToNode};
use cortex_core::node::Facts;
use cortex_core::node_files::NodeFiles;
use cortex_core::node_runs::NodeRuns;
use cortex_core::outbox::{Lane, Outbox};
use cortex_core::run::{EndCause, Ended};
use cortex_core::time::Timestamp;
use cortex_core::transfer::TransferNews;
use cortex_core::{Code, limits};
use cortex_wire::{convert, mesh};
use rustls_pki_types::CertificateDer;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bulk::Bulk;
use crate::clock::{self, Clock};
use crate::files::clerks::Clerks;
use crate::identity::{DataDir, Identity};
use crate::journal::{Ack, Id, Journal};
use crate::link::Link;
use crate::node::Attached;
use crate::policy;
use crate::run::guards::Guards;
use crate::run::input::Input;
use crate::run::program::Surroundings;
use crate::run::protocol::Order;
use crate::run::spool::Spool;
use crate::run::worker::Event;
use crate::sandbox::confine::Sandbox;
use stopping::Stopping;
use wires::{FileWork, Happening, Wires};

/// Events of all runs that wait for the actor. Full: the runs wait.
const EVENTS_MAX: usize = 256;

/// What the actor is made of.
pub(crate) struct Parts {
    pub(crate) dir: Arc<DataDir>,
    pub(crate) identity: Identity,
    pub(crate) facts: Facts,
    pub(crate) authority: CertificateDer<'static>,
    pub(crate) ceiling: Option<String>,
    pub(crate) surroundings: Arc<Surroundings>,
    pub(crate) guards: Arc<Guards>,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) spool: PathBuf,
    pub(crate) runs: NodeRuns,
    pub(crate) journal: Journal,
    /// What the journal remembers, for operations on files.
    pub(crate) records: Vec<Record>,
    /// Folders that hold what the node lives by.
    pub(crate) reserved: Vec<String>,
}

/// What is held for one run, from its start until the hub has settled it.
struct Held {
    spool: Arc<Spool>,
    orders: watch::Sender<Option<Order>>,
    may_read: watch::Sender<bool>,
    input: Arc<Input>,
}

struct Actor<F> {
    clock: Clock,
    dir: Arc<DataDir>,
    identity: Identity,
    facts: Facts,
    /// Whose word a policy is.
    authority: CertificateDer<'static>,
    /// What the owner of the machine allows at most, as the hub is told it.
    ceiling: Option<String>,
    surroundings: Arc<Surroundings>,
    guards: Arc<Guards>,
    sandbox: Arc<Sandbox>,
    spool_folder: PathBuf,
    instance: u64,
    /// Its attempts to attach.
    dials: u64,
    runs: NodeRuns,
    files: files::Files,
    held: BTreeMap<RunId, Held>,
    /// Runs of whose process trees something may be left.
    alive: BTreeSet<RunId>,
    /// Runs whose output is being brought from disk.
    loading: BTreeSet<RunId>,
    /// Records that the journal's thread has no room for. A few for each run and operation that is open.
    backlog: VecDeque<Record>,
    events: mpsc::Sender<Event>,
    outbox: Outbox<ToHub>,
    staged: Option<mesh::AttachRequest>,
    watch: Option<NodeLink>,
    backoff: Backoff,
    dial_at: Option<Timestamp>,
    renew_at: Timestamp,
    /// When a renewal was asked for on this link.
    renewal_asked: Option<Timestamp>,
    stopping: Option<Stopping>,
    on_attached: F,
}

/// The actor's life.
pub(crate) async fn live(
    parts: Parts,
    shutdown: CancellationToken,
    on_attached: impl Fn(Attached) + Send,
) -> Result<(), Refusal> {
    let clock = Clock::start();
    let (events, events_in) = mpsc::channel(EVENTS_MAX);
    let (news, news_in) = mpsc::channel(files::NEWS_MAX);
    let hub = parts.identity.hub.clone();
    let bulk = Arc::new(Bulk::new(hub.clone(), Arc::clone(&parts.dir)));
    let mut wires = Wires::new(parts.journal, events_in, news_in, shutdown, hub);
    let mut machine = NodeFiles::restore(parts.records, clock.now());
    machine.reserve(parts.reserved);
    let name = parts.identity.name.clone();
    let clerks = Arc::new(Clerks::new(Arc::clone(&parts.guards), Arc::clone(&parts.sandbox), name));
    let mut actor = Actor {
        clock,
        dir: parts.dir,
        identity: parts.identity,
        facts: parts.facts,
        authority: parts.authority,
        ceiling: parts.ceiling,
        surroundings: parts.surroundings,
        guards: parts.guards,
        sandbox: parts.sandbox,
        spool_folder: parts.spool,
        instance: random(),
        dials: 0,
        runs: parts.runs,
        files: files::Files::new(machine, clerks, bulk, news),
        held: BTreeMap::new(),
        alive: BTreeSet::new(),
        loading: BTreeSet::new(),
        backlog: VecDeque::new(),
        events,
        outbox: Outbox::new(),
        staged: None,
        watch: None,
        backoff: Backoff::new(),
        dial_at: Some(clock.now()),
        renew_at: clock.now().plus_ms(wires::RENEW_RETRY_MS),
        renewal_asked: None,
        stopping: None,
        on_attached,
    };
    let outcome = actor.work(&mut wires).await;
    actor.files.stop();
    drop(actor);
    wires.finish().await;
    outcome
}

impl<F: Fn(Attached) + Send> Actor<F> {
    async fn work(&mut self, wires: &mut Wires) -> Result<(), Refusal> {
        loop {
            self.carry_out(wires);
            self.dial_if_due(wires);
            self.hand_to_journal(wires);
            if let Some(outcome) = self.outcome() {
                return outcome;
            }
            self.stage(wires);
            let deadline = self.deadline(wires).map(|at| self.clock.instant(at));
            let happening = wires.next(&mut self.staged, !self.backlog.is_empty(), deadline).await;
            self.handle(happening, wires);
        }
    }

    fn handle(&mut self, happening: Happening, wires: &mut Wires) {
        let now = self.clock.now();
        match happening {
            Happening::Frame(Ok(frame)) => self.handle_frame(*frame, now),
            Happening::Frame(Err(refusal)) => self.lost(&refusal, None, wires),
            Happening::Dialled(Ok(link)) => self.connected(link, now, wires),
            Happening::Dialled(Err(refusal)) => self.lost(&refusal, None, wires),
            Happening::Event(event) => self.handle_event(event, now),
            Happening::Files(news) => self.handle_file_news(news, now),
            Happening::Ack(ack) => self.handle_ack(ack),
            Happening::Remembered(result) => self.handle_remembered(result, wires),
            Happening::Renewable(result) => self.handle_renewable(result, now),
            Happening::Request(result) => self.handle_request(result),
            Happening::Shutdown => self.begin_stop(Ok(()), now),
            Happening::Timeout => self.handle_timeout(now, wires),
            Happening::Progress => {}
        }
    }

    fn handle_frame(&mut self, frame: mesh::AttachResponse, now: Timestamp) {
        let Some(watch) = &mut self.watch else { return };
        watch.heard(now);
        let (asked, moved) = (convert::asked_op(&frame), convert::asked_transfer(&frame));
        match convert::to_node_from_proto(frame) {
            Ok(Some(envelope)) => {
                tracing::trace!(epoch = %envelope.epoch, "frame from the hub");
                if let ToNode::HeartbeatAck { seq } = envelope.message {
                    watch.handle_ack(seq, now);
                }
                let envelope = self.verified(envelope);
                if self.file_frame(&envelope, now) {
                    return;
                }
                let is_welcome = matches!(envelope.message, ToNode::Welcome(_));
                self.runs.handle(envelope, now);
                if is_welcome && self.runs.is_linked() {
                    let epoch = self.runs.numbers().1;
                    self.files.welcomed(epoch);
                }
            }
            Ok(None) => tracing::debug!("ignored a message of a later version"),
            Err(refusal) => {
                tracing::warn!(code = %refusal.code, "refused a frame of the hub: {refusal}");
                match (asked, moved) {
                    (Some(op), _) => self.send(ToHub::FileAnswered { op, answer: Err(refusal) }),
                    (None, Some(id)) => {
                        self.send(ToHub::TransferNews(TransferNews { id, end: Err(refusal) }));
                    }
                    (None, None) => self.send(ToHub::Refused { run: None, refusal }),
                }
            }
        }
    }

    /// The same, with its policy read when that is what the authority signed for this node.
    fn verified(&self, mut envelope: Envelope<ToNode>) -> Envelope<ToNode> {
        let (generation, signed) = match &mut envelope.message {
            ToNode::Welcome(welcome) => (welcome.generation, &mut welcome.policy),
            ToNode::Policy(signed) => (self.runs.numbers().0, signed),
            ToNode::HeartbeatAck { .. }
            | ToNode::Start(_)
            | ToNode::Input { .. }
            | ToNode::Cancel { .. }
            | ToNode::Cut { .. }
            | ToNode::Resume { .. }
            | ToNode::Credit { .. }
            | ToNode::Settled { .. }
            | ToNode::Forget { .. }
            | ToNode::Certificate { .. }
            | ToNode::FileAsk(_)
            | ToNode::FileCancel { .. }
            | ToNode::FileSettled { .. }
            | ToNode::AttemptFence { .. }
            | ToNode::TransferAsk(_)
            | ToNode::TransferCancel { .. }
            | ToNode::Watch(_)
            | ToNode::Unwatch { .. }
            | ToNode::Goodbye { .. } => return envelope,
        };
        match policy::verify(&self.authority, self.identity.node, generation, signed) {
            Ok(policy) => signed.policy = Some(Box::new(policy)),
            Err(refusal) => {
                tracing::error!(code = %refusal.code, "the policy does not hold, so nothing is allowed: {refusal}");
                signed.policy = None;
            }
        }
        envelope
    }

    fn handle_event(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::Spawned { run } => {
                tracing::info!(%run, "run started");
                self.runs.spawned(run, now);
            }
            Event::Wrote { run, stream, len } => {
                self.runs.wrote(run, stream, len);
                self.steer_reading(run);
            }
            Event::InputTaken { run, upto } => self.runs.input_taken(run, upto),
            Event::Ended { run, ended } => {
                fail::fail_point!("node::before_end");
                let ended = self.as_stopped(ended);
                tracing::info!(%run, cause = ended.cause.as_str(), code = ended.code, "run ended");
                self.runs.ended(run, ended);
            }
            Event::Gone { run } => {
                self.alive.remove(&run);
            }
            Event::Loaded { run, error } => {
                self.loading.remove(&run);
                if let Some(error) = error {
                    tracing::warn!(%run, %error, "kept output cannot be read from disk; it is tried again");
                }
            }
        }
    }

    fn handle_ack(&mut self, Ack { id, error }: Ack) {
        let run = match (id, &error) {
            (Id::Run(run), _) => run,
            (Id::Op(op), None) => return self.files.machine.journaled(op),
            (Id::Op(op), Some(error)) => return self.files.machine.unjournaled(op, &error.to_string()),
        };
        let Some(error) = error else {
            self.runs.journaled(run);
            return;
        };
        let diagnostic =
            format!("The command was not started: the node's journal cannot be written ({error}).");
        self.runs.ended(run, unstarted(EndCause::Failed, diagnostic));
    }

    fn handle_timeout(&mut self, now: Timestamp, wires: &mut Wires) {
        self.runs.handle_timeout(now);
        self.files.machine.handle_timeout(now);
        self.files.clerks.end_idle(None);
        if let Some(watch) = &mut self.watch {
            match watch.handle_timeout(now) {
                Ok(Some(heartbeat)) => self.send(heartbeat),
                Ok(None) => {}
                Err(refusal) => self.lost(&refusal, None, wires),
            }
        }
        if self.runs.is_linked() && self.renew_at <= now {
            self.renew_at = now.plus_ms(wires::RENEW_RETRY_MS);
            self.renewal_asked = Some(now);
            wires.write(FileWork::request(&self.dir));
        }
        self.go_on_stopping(now);
    }

    /// The next moment at which something is due.
    fn deadline(&self, wires: &Wires) -> Option<Timestamp> {
        let due = [
            self.runs.poll_timeout().map(|(at, _)| at),
            self.files.machine.poll_timeout().map(|(at, _)| at),
            self.files.clerks.idle_for_at_most().map(|left| self.clock.now().plus_ms(left)),
            self.watch.as_ref().and_then(NodeLink::poll_timeout).map(|(at, _)| at),
            self.dial_at.filter(|_| !wires.is_connected()),
            Some(self.renew_at).filter(|_| self.runs.is_linked()),
            self.stopping.as_ref().map(Stopping::due),
        ];
        due.into_iter().flatten().min()
    }

    fn dial_if_due(&mut self, wires: &mut Wires) {
        let due = self.dial_at.is_some_and(|at| at <= self.clock.now());
        if !due || wires.is_connected() || self.stopping.is_some() {
            return;
        }
        self.dial_at = None;
        // By the wall clock, for each link: a machine that slept has not counted the time.
        wires.write(FileWork::look_at_certificate(&self.dir));
        self.dials += 1;
        let (generation, epoch) = self.runs.numbers();
        let hello = Hello {
            protocol: limits::PROTOCOL,
            instance: self.instance,
            dial: self.dials,
            generation,
            epoch,
            facts: Facts { place: self.runs.place().clone(), ..self.facts.clone() },
            ceiling: self.ceiling.clone(),
            audit_head: self.runs.audit_head(),
            runs: self.runs.reports(),
            files: self.files.machine.reports(),
        };
        wires.dial(&self.dir, Envelope { epoch, message: ToHub::Hello(Box::new(hello)) });
    }

    fn connected(&mut self, link: Link, now: Timestamp, wires: &mut Wires) {
        tracing::debug!("connected to the hub");
        self.watch = Some(NodeLink::new(now));
        self.renewal_asked = None;
        wires.connect(link);
    }

    /// The link ended, or did not come about: runs go on, and it is tried again.
    fn lost(&mut self, refusal: &Refusal, asked_ms: Option<u64>, wires: &mut Wires) {
        wires.disconnect();
        self.watch = None;
        self.staged = None;
        self.outbox = Outbox::new();
        let was_linked = self.runs.is_linked();
        self.runs.disconnected();
        self.files.disconnected();
        if is_final(refusal.code) {
            self.begin_stop(Err(refusal.clone()), self.clock.now());
            return;
        }
        if self.stopping.is_some() {
            return;
        }
        let wait_ms = self.backoff.next_ms(random(), asked_ms.or_else(|| asked_by(refusal.code)));
        self.dial_at = Some(self.clock.now().plus_ms(wait_ms));
        if was_linked {
            tracing::info!(code = %refusal.code, wait_ms, "link ended: {refusal}");
        } else {
            tracing::info!(code = %refusal.code, wait_ms, "hub not reached: {refusal}");
        }
    }

    /// Puts a message on its way, when there is a welcomed link; what matters is told anew on the
    /// next one.
    fn send(&mut self, message: ToHub) {
        if self.runs.is_linked() && self.outbox.push(Lane::Control, message).is_err() {
            // Silence follows from it: the hub does not read, so it does not answer either.
            tracing::warn!("a message was dropped: the hub does not read");
        }
    }

    fn steer_reading(&self, run: RunId) {
        let Some(held) = self.held.get(&run) else { return };
        let may = self.runs.may_read(run) && !held.spool.is_crowded();
        held.may_read.send_if_modified(|held| std::mem::replace(held, may) != may);
    }
}

/// Refusals after which dialling again is of no use.
fn is_final(code: Code) -> bool {
    code == Code::NodeRevoked || code == Code::ClonedIdentity
}

/// How long to wait at least after a refusal that only a person can change.
fn asked_by(code: Code) -> Option<u64> {
    let by_a_person = matches!(code, Code::Locked | Code::RecoveriesExhausted | Code::Unauthenticated);
    by_a_person.then_some(limits::RECOVERY_RETRY_MS)
}

fn unstarted(cause: EndCause, diagnostic: String) -> Ended {
    Ended { diagnostic: Some(diagnostic), ..Ended::new(cause) }
}

fn random() -> u64 {
    // Without the system's randomness the clock spreads the nodes well enough.
    getrandom::u64().unwrap_or_else(|_| clock::wall().0.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
