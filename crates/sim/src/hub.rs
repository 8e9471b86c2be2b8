//! The hub of the world: the driver that `cortex_hub` is, over the memory store and simulated
//! logs. The store and the logs survive a crash; all else here is memory.

mod files;
mod pool;
mod store;
mod table;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use cortex_core::event::EventKind;
use cortex_core::hub_files::HubFiles;
use cortex_core::hub_runs::{Action, Decision, HubRuns};
use cortex_core::id::{Attempt, Epoch, LinkId, NodeId, OpId, RunId};
use cortex_core::limits;
use cortex_core::link::HubLink;
use cortex_core::message::{Envelope, Hello, ToHub, ToNode, Welcome};
use cortex_core::outbox::{Lane, Outbox};
use cortex_core::registry::{Attached, Dial, Registry};
use cortex_core::run::Command;
use cortex_core::time::WallTime;
use cortex_store::memory::MemoryStore;

use crate::check::Happened;
use crate::log::{Log, printed};
use crate::net::{Context, Wake};
pub(crate) use files::FileJob;
pub(crate) use pool::{Answer, Place, PoolJob, Steer};
pub(crate) use store::{Job, LEAKED, token_of};

pub(crate) struct Hub {
    pub(crate) up: bool,
    pub(crate) life: u64,
    pub(crate) ids: Vec<NodeId>,
    pub(crate) places: Vec<Place>,
    pub(crate) store: MemoryStore,
    pub(crate) logs: BTreeMap<RunId, Log>,
    pub(crate) registry: Registry,
    pub(crate) runs: Vec<HubRuns>,
    pub(crate) owner: BTreeMap<RunId, usize>,
    files: Vec<HubFiles>,
    /// Requests of editors that wait for an answer of a node.
    edits: BTreeMap<OpId, (usize, usize)>,
    /// The attempts of the tasks for which editors work, as the store has them.
    pub(crate) attempts: Vec<Attempt>,
    links: BTreeMap<LinkId, End>,
    flushing: BTreeSet<RunId>,
    jobs: VecDeque<store::Queued>,
    deciding: Vec<store::Deciding>,
    next_job: u64,
    last_done: u64,
    pub(crate) slow_store: (u64, u64),
    pub(crate) refusing_until: u64,
    timer_at: Option<u64>,
    pool: pool::Pool,
    /// Ids that were made of a counter, so that they have an order.
    minted: u64,
    pattern: Bytes,
}

/// One end of a link.
struct End {
    node: usize,
    machine: HubLink,
    outbox: Outbox<ToNode>,
    epoch: Epoch,
    /// Taken when the store has answered, or the time for that is over.
    hello: Option<Hello>,
    open: bool,
    pumping: bool,
}

impl Hub {
    pub(crate) fn new(ids: Vec<NodeId>, places: Vec<Place>, pattern: Bytes) -> Self {
        let hub = Self {
            up: false,
            life: 0,
            runs: ids.iter().map(|_| HubRuns::new()).collect(),
            store: MemoryStore::new(None),
            logs: BTreeMap::new(),
            registry: Registry::new(),
            owner: BTreeMap::new(),
            files: files::machines(&ids),
            edits: BTreeMap::new(),
            attempts: vec![Attempt(1); 2],
            links: BTreeMap::new(),
            flushing: BTreeSet::new(),
            jobs: VecDeque::new(),
            deciding: ids.iter().map(|_| store::Deciding::default()).collect(),
            next_job: 0,
            last_done: 0,
            slow_store: (0, 0),
            refusing_until: 0,
            timer_at: None,
            pool: pool::Pool::default(),
            minted: 500_000_000,
            ids,
            places,
            pattern,
        };
        store::enrol(&hub.store, &hub.ids, &hub.places, WallTime(0));
        hub
    }

    /// Entries of all maps that must be empty when nothing runs; one presence per node stays.
    pub(crate) fn entries(&self) -> usize {
        let runs: usize = self.runs.iter().map(HubRuns::len).sum();
        // What is about to be sent is no leftover: heartbeats are answered at all times.
        let stuck = self.links.values().filter(|end| !end.pumping);
        let waiting: usize = stuck.map(|end| end.outbox.len()).sum();
        let deciding = self.deciding.iter().filter(|deciding| deciding.is_under_way()).count();
        let pool = self.pool.board.entries();
        // A task that nobody can have is postponed for ever, if it wants to be.
        let jobs = self.jobs.iter().filter(|queued| !queued.is_by_the_clock()).count();
        let files: usize = self.files.iter().map(HubFiles::len).sum();
        files
            + self.edits.len()
            + pool
            + runs
            + waiting
            + deciding
            + self.owner.len()
            + jobs
            + self.flushing.len()
    }

    /// What [`Self::entries`] counts, by name.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let open = self.runs.iter().map(|runs| format!("open {}", runs.len()));
        let jobs = self.jobs.iter().map(|queued| format!("{queued:?}"));
        let owned = self.owner.keys().map(|run| format!("owned {run}"));
        let flushing = self.flushing.iter().map(|run| format!("flushing {run}"));
        let files = self.files.iter().map(|files| format!("files {}", files.len()));
        let edits = self.edits.keys().map(|op| format!("edit {op}"));
        open.chain(jobs).chain(owned).chain(flushing).chain(files).chain(edits).collect()
    }

    pub(crate) fn link_count(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn handle(&mut self, wake: Wake, cx: &mut Context) {
        let life = self.life;
        match wake {
            Wake::HubStart if !self.up => self.start(cx),
            Wake::HubTimer { life: l } if self.up && l == life => self.timer(cx),
            Wake::StoreDone { life: l } if self.up && l == life => self.store_done(cx),
            Wake::StoreLate { life: l, job } if self.up && l == life => self.store_late(job, cx),
            Wake::DecideAgain { life: l, node } if self.up && l == life => self.decide_again(node, cx),
            Wake::DecideFile { life: l, node, op, end } if self.up && l == life => {
                self.decide_file_again(node, op, end, cx);
            }
            Wake::AttachReady { life: l, link, epoch } if self.up && l == life => {
                self.attach_ready(link, epoch, cx);
            }
            Wake::Farewell { life: l, link } if self.up && l == life => self.farewell(link, cx),
            Wake::LogFlush { life: l, run } if self.up && l == life => self.log_flush(run, cx),
            Wake::LogSync { life: l, run } if self.up && l == life => self.log_sync(run),
            Wake::Pump { life: l, link } if self.up && l == life => self.pump(link, cx),
            Wake::ServeNodes { life: l } if self.up && l == life => self.serve_again(cx),
            Wake::LookAgain { life: l } if self.up && l == life => self.look_again(cx),
            Wake::PoolTimer { life: l } if self.up && l == life => self.serve_timers(cx),
            Wake::HubFrame { life: l, link, message } if self.up && l == life => {
                self.frame(link, message, cx);
            }
            Wake::HubClosed { life: l, link } if self.up && l == life => {
                let wait = if cx.random.chance(10) { cx.random.between(0, 3_000) } else { 0 };
                cx.after(wait, Wake::Farewell { life, link });
            }
            Wake::HubStart
            | Wake::HubTimer { .. }
            | Wake::StoreDone { .. }
            | Wake::StoreLate { .. }
            | Wake::DecideAgain { .. }
            | Wake::AttachReady { .. }
            | Wake::Farewell { .. }
            | Wake::LogFlush { .. }
            | Wake::LogSync { .. }
            | Wake::Pump { .. }
            | Wake::ServeNodes { .. }
            | Wake::LookAgain { .. }
            | Wake::PoolTimer { .. }
            | Wake::Person { .. }
            | Wake::Answer { .. }
            | Wake::Worker { .. }
            | Wake::Editor { .. }
            | Wake::FileAnswer { .. }
            | Wake::DecideFile { .. }
            | Wake::HubFrame { .. }
            | Wake::HubClosed { .. }
            | Wake::Transition(_)
            | Wake::Node { .. } => return,
        }
        self.carry_out(cx);
    }

    /// The hub process ends: its memory goes, and with the power what was not synced.
    pub(crate) fn crash(&mut self, power: bool, silent: bool, cx: &mut Context) {
        if !self.up {
            return;
        }
        self.up = false;
        self.life += 1;
        for link in self.links.keys() {
            if silent {
                cx.cut(*link);
            } else {
                cx.closed_by_hub(*link);
            }
        }
        for log in self.logs.values_mut() {
            log.crash(power);
        }
        self.lose_jobs(cx);
        self.links.clear();
        self.flushing.clear();
        self.owner.clear();
        self.registry = Registry::new();
        self.runs = self.ids.iter().map(|_| HubRuns::new()).collect();
        self.files = files::machines(&self.ids);
        self.edits.clear();
        self.deciding = self.ids.iter().map(|_| store::Deciding::default()).collect();
        self.timer_at = None;
        self.pool = pool::Pool::default();
        cx.note(Happened::HubCrashed);
    }

    pub(crate) fn submit(&mut self, job: Job, cx: &mut Context) {
        if self.up {
            self.enqueue(job, cx);
        }
    }

    fn frame(&mut self, link: LinkId, message: ToHub, cx: &mut Context) {
        let Some(node) = cx.pipes.get(&link).map(|pipe| pipe.node) else { return };
        let now = cx.timestamp();
        if let ToHub::Hello(_) = &message {
            let end = End {
                node,
                machine: HubLink::new(now),
                outbox: Outbox::new(),
                epoch: Epoch(0),
                hello: None,
                open: true,
                pumping: false,
            };
            self.links.insert(link, end);
        }
        // What a reader still holds of a link that is over goes the same way: it is the machine
        // of the runs that must know which link is the current one.
        if !self.links.get(&link).is_some_and(|end| end.open) {
            self.late_frame(node, link, message, cx);
            return;
        }
        let Some(end) = self.links.get_mut(&link) else { return };
        if let Err(refusal) = end.machine.handle(&message, now) {
            self.close(link, refusal, cx);
            return;
        }
        match message {
            ToHub::Hello(hello) => {
                let slots = hello.facts.slots;
                end.hello = Some(*hello);
                self.enqueue(Job::Attach { link, node, slots }, cx);
                let life = self.life;
                cx.after(limits::ATTACH_STORE_MS_MAX, Wake::AttachReady { life, link, epoch: None });
            }
            ToHub::Heartbeat { seq } => {
                // Heartbeats are read once the link is attached.
                if self.registry.get(self.ids[node]).is_some_and(|presence| presence.link == link) {
                    self.node_heard(node, cx);
                }
                self.send(link, Lane::Control, ToNode::HeartbeatAck { seq }, cx);
            }
            ToHub::Started { .. }
            | ToHub::Output(_)
            | ToHub::Ended { .. }
            | ToHub::OutputLost { .. }
            | ToHub::InputTaken { .. }
            | ToHub::Refused { .. }
            | ToHub::TransferNews(_)
            | ToHub::WatchNews(_)
            | ToHub::Renew { .. } => self.runs[node].handle(link, message),
            ToHub::FileAnswered { op, answer } => self.file_answered(node, link, op, answer),
        }
    }

    /// A frame of a link that is closed here. It may do nothing once another link took over.
    fn late_frame(&mut self, node: usize, link: LinkId, message: ToHub, cx: &mut Context) {
        self.carry_out(cx);
        if let ToHub::FileAnswered { op, answer } = message {
            let superseded = self.files[node].link() != Some(link);
            self.file_answered(node, link, op, answer);
            self.late_file_frame(node, superseded, cx);
            return;
        }
        let runs = &mut self.runs[node];
        let superseded = runs.link() != Some(link);
        runs.handle(link, message);
        while let Some(action) = self.runs[node].poll_action() {
            if superseded {
                cx.note(Happened::LateFrame { node });
            }
            self.act(node, action, cx);
        }
    }

    fn attach_ready(&mut self, link: LinkId, epoch: Option<Epoch>, cx: &mut Context) {
        let Some(end) = self.links.get_mut(&link).filter(|end| end.open) else { return };
        let Some(hello) = end.hello.take() else { return };
        let node = end.node;
        let Some(epoch) = epoch else {
            self.close(link, Refusal::new(Code::StoreUnavailable, "The store does not answer."), cx);
            return;
        };
        end.epoch = epoch;
        let dial = Dial { instance: hello.instance, number: hello.dial };
        let attached = self.registry.attach(self.ids[node], link, epoch, dial, cx.timestamp());
        match attached {
            Attached::Stale => self.close(link, Refusal::new(Code::StaleEpoch, "A newer link is here."), cx),
            Attached::Cloned { displaced } => {
                let refusal = Refusal::new(Code::ClonedIdentity, "Two machines use one identity.");
                self.close(displaced, refusal.clone(), cx);
                self.close(link, refusal, cx);
                self.abandon_files(node);
                self.enqueue(Job::Quarantine { node }, cx);
            }
            Attached::Online { displaced } => {
                if let Some(displaced) = displaced {
                    self.close(displaced, Refusal::new(Code::StaleEpoch, "A newer link took over."), cx);
                }
                self.welcome(link, node, epoch, hello, cx);
            }
        }
    }

    fn welcome(&mut self, link: LinkId, node: usize, epoch: Epoch, hello: Hello, cx: &mut Context) {
        let (generation, policy, quarantined) = store::welcome(&self.store, self.ids[node]);
        if quarantined {
            self.close(link, Refusal::new(Code::ClonedIdentity, "This node is quarantined."), cx);
            self.registry.detach(self.ids[node], link);
            return;
        }
        cx.note(Happened::Online { node, epoch: epoch.0, life: self.life });
        let welcome =
            Welcome { generation, name: format!("node-{node}"), policy: policy.into(), audit_head: None };
        self.send(link, Lane::Control, ToNode::Welcome(welcome), cx);
        self.runs[node].attached(link, hello.runs);
        self.files[node].attached(link, hello.files, true, cx.timestamp());
        self.tell_presence(node, EventKind::NodeOnline, cx);
        self.node_heard(node, cx);
        self.wake_nodes();
    }

    /// Ends a link from this side. Its farewell comes some time later.
    fn close(&mut self, link: LinkId, refusal: Refusal, cx: &mut Context) {
        let Some(end) = self.links.get_mut(&link).filter(|end| end.open) else { return };
        end.open = false;
        let retry_after_ms = if refusal.code == Code::ClonedIdentity { None } else { Some(100) };
        let message = ToNode::Goodbye { refusal, retry_after_ms };
        cx.send_to_node(link, Envelope { epoch: end.epoch, message });
        cx.closed_by_hub(link);
        let (life, wait) = (self.life, cx.random.between(0, 2_000));
        cx.after(wait, Wake::Farewell { life, link });
    }

    fn farewell(&mut self, link: LinkId, cx: &mut Context) {
        let Some(end) = self.links.remove(&link) else { return };
        if self.registry.detach(self.ids[end.node], link) {
            self.tell_presence(end.node, EventKind::NodeOffline, cx);
        }
        self.runs[end.node].detached(link, cx.timestamp());
        self.files[end.node].detached(link, cx.timestamp());
    }

    fn send(&mut self, link: LinkId, lane: Lane, message: ToNode, cx: &mut Context) {
        let Some(end) = self.links.get_mut(&link).filter(|end| end.open) else { return };
        if end.outbox.push(lane, message).is_err() {
            self.close(link, Refusal::new(Code::Quota, "The node does not read."), cx);
            return;
        }
        if !std::mem::replace(&mut end.pumping, true) {
            let (life, wait) = (self.life, cx.random.between(0, 15));
            cx.after(wait, Wake::Pump { life, link });
        }
    }

    fn pump(&mut self, link: LinkId, cx: &mut Context) {
        let Some(end) = self.links.get_mut(&link) else { return };
        end.pumping = false;
        while let Some(message) = end.outbox.pop() {
            if end.open {
                cx.send_to_node(link, Envelope { epoch: end.epoch, message });
            }
        }
    }

    fn timer(&mut self, cx: &mut Context) {
        self.timer_at = None;
        let now = cx.timestamp();
        self.registry.handle_timeout(now);
        for runs in &mut self.runs {
            runs.handle_timeout(now);
        }
        for files in &mut self.files {
            files.handle_timeout(now);
        }
        let silent: Vec<(LinkId, Refusal)> = self
            .links
            .iter()
            .filter(|(_, end)| end.open)
            .filter_map(|(link, end)| end.machine.handle_timeout(now).err().map(|refusal| (*link, refusal)))
            .collect();
        for (link, refusal) in silent {
            self.close(link, refusal, cx);
        }
    }

    /// Does what the machines ask for, and arms the timer for what comes next.
    fn carry_out(&mut self, cx: &mut Context) {
        self.serve_pool(cx);
        self.carry_out_files(cx);
        for node in 0..self.runs.len() {
            while let Some(action) = self.runs[node].poll_action() {
                self.act(node, action, cx);
            }
        }
        let links = self.links.values().filter(|end| end.open).filter_map(|end| end.machine.poll_timeout());
        let runs = self.runs.iter().filter_map(HubRuns::poll_timeout);
        let files = self.files.iter().filter_map(HubFiles::poll_timeout);
        let next =
            links.chain(runs).chain(files).chain(self.registry.poll_timeout()).map(|(at, _)| at.0).min();
        let Some(next) = next else { return };
        if self.timer_at.is_none_or(|armed| next < armed) {
            self.timer_at = Some(next);
            let life = self.life;
            cx.at(next, Wake::HubTimer { life });
        }
    }

    fn act(&mut self, node: usize, action: Action, cx: &mut Context) {
        match action {
            Action::Send(message) => {
                let Some(link) = self.runs[node].link() else { return };
                let lane = message.lane();
                self.send(link, lane, message, cx);
            }
            Action::Decide(run, command) => {
                if let Command::Lose { .. } = command {
                    cx.note(Happened::GivenUp { run });
                }
                self.decide(node, Decision::Run(run, command), cx);
            }
            Action::Append { run, stream, offset, data } => {
                let len = data.len() as u64;
                let good = data == printed(&self.pattern, run, stream, offset, len);
                let follows = self.logs.entry(run).or_default().append(stream, offset, len);
                cx.note(Happened::Appended { run, good: good && follows });
                self.flush_soon(run, cx.random.between(0, limits::OUTPUT_FLUSH_MS), cx);
            }
            Action::Mark { run, to } => {
                self.logs.entry(run).or_default().mark(to);
                cx.note(Happened::Marked { node, run });
                self.flush_soon(run, 100, cx);
            }
            Action::Finish(run) => self.flush_soon(run, 10, cx),
            Action::InputTaken(..) => {}
            Action::Closed(run) => drop(self.owner.remove(&run)),
            Action::CloseLink(refusal) => {
                if let Some(link) = self.runs[node].link() {
                    cx.note(Happened::LinkBroken { node });
                    self.close(link, refusal, cx);
                }
            }
        }
    }

    fn flush_soon(&mut self, run: RunId, ms: u64, cx: &mut Context) {
        if self.flushing.insert(run) {
            let life = self.life;
            cx.after(ms, Wake::LogFlush { life, run });
        }
    }

    fn log_flush(&mut self, run: RunId, cx: &mut Context) {
        let (life, wait) = (self.life, if cx.random.chance(5) { 1_000 } else { cx.random.between(1, 50) });
        let position = self.logs.entry(run).or_default().flush();
        if let Some(node) = self.owner.get(&run) {
            self.runs[*node].written(run, position);
        }
        cx.after(wait, Wake::LogSync { life, run });
    }

    fn log_sync(&mut self, run: RunId) {
        self.flushing.remove(&run);
        let log = self.logs.entry(run).or_default();
        log.flush();
        let position = log.sync();
        if let Some(node) = self.owner.get(&run) {
            self.runs[*node].written(run, position);
            self.runs[*node].synced(run, position);
        }
    }
}
