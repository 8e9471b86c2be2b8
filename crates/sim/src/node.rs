//! A node of the world: the driver that `cortex_node` is, over a simulated disk and processes.

mod files;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use cortex_core::id::{Epoch, Generation, LinkId, NodeId, OpId, RunId};
use cortex_core::journal::Record;
use cortex_core::limits;
use cortex_core::link::{Backoff, NodeLink};
use cortex_core::message::{Envelope, Frame, Hello, Start, ToHub, ToNode};
use cortex_core::node::Facts;
use cortex_core::node_files::NodeFiles;
use cortex_core::node_runs::{Action, NodeRuns, Signal};
use cortex_core::run::{EndCause, Ended};
use cortex_core::sandbox::{Ground, Level, Place};
use cortex_core::stream::{Positions, Stream};
use cortex_core::time::Timestamp;

use crate::check::Happened;
use crate::log::printed;
use crate::net::{Context, NodeWake};
use crate::people::ENDLESS;
pub(crate) use files::ClerkWake;

pub(crate) struct Node {
    pub(crate) index: usize,
    pub(crate) id: NodeId,
    pub(crate) up: bool,
    pub(crate) frozen_until: u64,
    /// What came while it was frozen.
    pub(crate) held: VecDeque<NodeWake>,
    pub(crate) runs: NodeRuns,
    /// Tasks that it works on at once.
    slots: u32,
    /// Its clock gains or loses: thousandths of the true time.
    rate: u64,
    life: u64,
    instance: u64,
    /// Its attempts to attach.
    dials: u64,
    link: Option<(LinkId, NodeLink)>,
    backoff: Backoff,
    timer_at: Option<u64>,
    /// Set when the hub said not to come back.
    pub(crate) stopped: bool,
    processes: BTreeMap<RunId, Process>,
    spool: BTreeMap<RunId, VecDeque<Piece>>,
    disk: Disk,
    clerks: files::Clerks,
    /// Paths at which somebody looks for what a clerk left behind.
    looks: BTreeMap<OpId, String>,
    /// Whether somebody works on files in this world.
    does_files: bool,
    pattern: Bytes,
}

/// What survives: the numbers at once, the journal from its last sync on.
#[derive(Default)]
struct Disk {
    numbers: (Generation, Epoch),
    journal: Vec<Record>,
    synced: usize,
    syncing: bool,
}

#[derive(Clone, Debug)]
struct Process {
    steps: u64,
    large: bool,
    code: i32,
    stubborn: bool,
    began: u64,
    written: Positions,
    dying: bool,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    position: u64,
    stream: Stream,
    offset: u64,
    len: u64,
}

/// What every simulated machine has: all walls, a folder for work, and nothing of its own to say.
pub(crate) fn ground() -> Ground {
    let place = Place { home: String::new(), work: vec!["/w".to_owned()] };
    Ground { level: Some(Level::Full), place }
}

fn standing(mut runs: NodeRuns) -> NodeRuns {
    runs.stand_on(ground());
    runs
}

impl Node {
    pub(crate) fn new(
        index: usize,
        id: NodeId,
        rate: u64,
        slots: u32,
        does_files: bool,
        pattern: Bytes,
    ) -> Self {
        Self {
            index,
            id,
            up: false,
            frozen_until: 0,
            held: VecDeque::new(),
            runs: standing(NodeRuns::restore(Generation(0), Epoch(0), [])),
            slots,
            rate,
            life: 0,
            instance: 0,
            dials: 0,
            link: None,
            backoff: Backoff::new(),
            timer_at: None,
            stopped: false,
            processes: BTreeMap::new(),
            spool: BTreeMap::new(),
            disk: Disk::default(),
            clerks: files::Clerks::default(),
            looks: BTreeMap::new(),
            does_files,
            pattern,
        }
    }

    pub(crate) fn link(&self) -> Option<LinkId> {
        self.link.as_ref().map(|(link, _)| *link)
    }

    /// Processes, spools: what must be empty when nothing runs.
    pub(crate) fn entries(&self) -> usize {
        self.processes.len() + self.spool.len() + self.runs.held() + self.clerks.entries() + self.looks.len()
    }

    pub(crate) fn handle(&mut self, wake: NodeWake, hub_life: Option<u64>, cx: &mut Context) {
        let life = self.life;
        match wake {
            NodeWake::Start if !self.up => self.start(cx),
            NodeWake::Dial { life: l } if l == life && self.up => self.dial(hub_life, cx),
            NodeWake::Timer { life: l } if l == life && self.up => self.timer(cx),
            NodeWake::JournalSync { life: l } if l == life && self.up => self.journal_synced(),
            NodeWake::Spawned { life: l, run } if l == life && self.up => self.spawned(run, cx),
            NodeWake::Step { life: l, run } if l == life && self.up => self.step(run, cx),
            NodeWake::Die { life: l, run, signal } if l == life && self.up => self.die(run, signal, cx),
            NodeWake::Frame { link, envelope } if self.link() == Some(link) => self.frame(envelope, cx),
            NodeWake::Closed { link } if self.link() == Some(link) => self.closed(None, cx),
            NodeWake::Clerk { life: l, op, wake } if l == life && self.up => self.clerk(op, wake, cx),
            // Thawing is the world's: it hands out what was held.
            NodeWake::Thaw
            | NodeWake::Start
            | NodeWake::Dial { .. }
            | NodeWake::Timer { .. }
            | NodeWake::JournalSync { .. }
            | NodeWake::Spawned { .. }
            | NodeWake::Step { .. }
            | NodeWake::Die { .. }
            | NodeWake::Clerk { .. }
            | NodeWake::Frame { .. }
            | NodeWake::Closed { .. } => return,
        }
        self.pump(cx);
    }

    /// The node process ends with all its processes; with the power also what was not synced.
    pub(crate) fn crash(&mut self, power: bool, silent: bool, cx: &mut Context) {
        if !self.up {
            return;
        }
        if power {
            self.disk.journal.truncate(self.disk.synced);
        }
        self.disk.synced = self.disk.journal.len();
        self.disk.syncing = false;
        if let Some((link, _)) = self.link.take() {
            if silent {
                cx.cut(link);
            } else {
                cx.closed_by_node(link);
            }
        }
        for run in self.processes.keys() {
            cx.note(Happened::Killed { node: self.index, run: *run });
        }
        self.up = false;
        self.life += 1;
        self.processes.clear();
        self.spool.clear();
        self.crash_clerks(power, cx);
        cx.note(Happened::NodeCrashed { node: self.index });
    }

    /// The link ends at this side only.
    pub(crate) fn hang_up(&mut self, cx: &mut Context) {
        if let Some(link) = self.link() {
            cx.closed_by_node(link);
            self.closed(None, cx);
        }
    }

    /// Sends garbage for a run that lives: beyond a gap, or at an offset that cannot be.
    pub(crate) fn be_rude(&mut self, cx: &mut Context) {
        let Some(link) = self.link().filter(|_| self.runs.is_linked()) else { return };
        let Some((run, process)) = self.processes.first_key_value() else { return };
        cx.note(Happened::Rude { node: self.index });
        let beyond = if cx.random.chance(50) { 500 } else { 0 };
        let (position, offset) = (process.written.total() + beyond, process.written.stdout + beyond + 1);
        let data = Bytes::from_static(b"garbage");
        cx.send_to_hub(
            link,
            ToHub::Output(Frame { run: *run, stream: Stream::Stdout, position, offset, data }),
        );
    }

    /// A frame of an older link comes on the one that is here.
    pub(crate) fn replay(&mut self, envelope: Envelope<ToNode>, cx: &mut Context) {
        let older = envelope.epoch < self.runs.numbers().1;
        if self.up && self.link.is_some() && older {
            self.frame(envelope, cx);
            self.pump(cx);
        }
    }

    fn start(&mut self, cx: &mut Context) {
        self.up = true;
        self.instance = cx.random.next();
        self.timer_at = None;
        self.backoff = Backoff::new();
        let (generation, epoch) = self.disk.numbers;
        self.runs = standing(NodeRuns::restore(generation, epoch, self.disk.journal.iter().cloned()));
        let now = self.local(cx);
        self.clerks.machine = NodeFiles::restore(self.disk.journal.iter().cloned(), now);
        let life = self.life;
        let wait = cx.random.between(1, 100);
        cx.node_after(wait, self.index, NodeWake::Dial { life });
    }

    fn local(&self, cx: &Context) -> Timestamp {
        Timestamp(cx.now * self.rate / 1_000)
    }

    fn dial(&mut self, hub_life: Option<u64>, cx: &mut Context) {
        if self.link.is_some() || self.stopped {
            return;
        }
        let connected = hub_life.and_then(|life| cx.connect(self.index, life));
        let Some(link) = connected else {
            self.redial(None, cx);
            return;
        };
        self.link = Some((link, NodeLink::new(self.local(cx))));
        self.dials += 1;
        let (generation, epoch) = self.runs.numbers();
        let hello = Hello {
            protocol: limits::PROTOCOL,
            instance: self.instance,
            dial: self.dials,
            generation,
            epoch,
            facts: Facts { slots: self.slots, ..Facts::default() },
            ceiling: None,
            audit_head: None,
            runs: self.runs.reports(),
            files: self.clerks.machine.reports(),
        };
        cx.send_to_hub(link, ToHub::Hello(Box::new(hello)));
    }

    fn redial(&mut self, asked: Option<u64>, cx: &mut Context) {
        let wait = self.backoff.next_ms(cx.random.next(), asked);
        let life = self.life;
        cx.node_after(wait, self.index, NodeWake::Dial { life });
    }

    fn closed(&mut self, asked: Option<u64>, cx: &mut Context) {
        self.link = None;
        self.runs.disconnected();
        self.clerks.machine.disconnected();
        self.redial(asked, cx);
    }

    fn timer(&mut self, cx: &mut Context) {
        self.timer_at = None;
        let now = self.local(cx);
        self.runs.handle_timeout(now);
        self.clerks.machine.handle_timeout(now);
        let Some((link, machine)) = &mut self.link else { return };
        let link = *link;
        match machine.handle_timeout(now) {
            Ok(Some(heartbeat)) => cx.send_to_hub(link, heartbeat),
            Ok(None) => {}
            Err(_) => {
                cx.closed_by_node(link);
                self.closed(None, cx);
            }
        }
    }

    fn frame(&mut self, envelope: Envelope<ToNode>, cx: &mut Context) {
        let now = self.local(cx);
        if let Some((_, link)) = &mut self.link {
            link.heard(now);
            if let ToNode::HeartbeatAck { seq } = &envelope.message {
                link.handle_ack(*seq, now);
            }
        }
        let (epoch, before) = (envelope.epoch, self.runs.numbers().1);
        let welcome = matches!(envelope.message, ToNode::Welcome(_));
        let linked = self.runs.is_linked();
        // What was handed out before is not this frame's doing.
        self.pump(cx);
        if let ToNode::Start(start) = &envelope.message
            && linked
            && epoch == before
        {
            let revision = self.runs.policy().map_or(0, |policy| policy.revision.0);
            cx.note(Happened::Judged { node: self.index, run: start.run, revision });
        }
        if self.file_frame(&envelope, cx) {
            return;
        }
        self.runs.handle(envelope, now);
        if welcome && self.runs.is_linked() && epoch > before {
            self.clerks.machine.welcomed();
            self.backoff.reset();
            cx.note(Happened::Welcomed { node: self.index, epoch: epoch.0 });
        }
        if !welcome && (epoch != before || !linked) {
            self.judge_stale(epoch, cx);
        }
    }

    /// Notes whether a frame of another epoch had an effect.
    fn judge_stale(&mut self, epoch: Epoch, cx: &mut Context) {
        let mut effect = false;
        while let Some(action) = self.runs.poll_action() {
            effect |= !matches!(&action, Action::Send(ToHub::Refused { .. }) | Action::Close { .. });
            self.act(action, cx);
        }
        cx.note(Happened::StaleFrame { node: self.index, epoch: epoch.0, effect });
    }

    fn pump(&mut self, cx: &mut Context) {
        self.pump_files(cx);
        while let Some(action) = self.runs.poll_action() {
            self.act(action, cx);
        }
        let Some(link) = self.link() else {
            self.arm(cx);
            return;
        };
        while let Some((run, position, len)) = self.runs.poll_output() {
            let Some(frame) = self.read(run, position, len) else {
                cx.note(Happened::Broken(format!("spool of {run} lacks {position}")));
                break;
            };
            self.runs.sent(run, frame.data.len() as u64);
            cx.send_to_hub(link, ToHub::Output(frame));
        }
        while let Some(message) = self.runs.poll_end() {
            cx.send_to_hub(link, message);
        }
        self.arm(cx);
    }

    fn arm(&mut self, cx: &mut Context) {
        let link = self.link.as_ref().and_then(|(_, link)| link.poll_timeout());
        let next = [link, self.runs.poll_timeout(), self.clerks.machine.poll_timeout()]
            .into_iter()
            .flatten()
            .map(|(at, _)| at.0)
            .min();
        let Some(next) = next else { return };
        let at = (next * 1_000).div_ceil(self.rate).max(cx.now);
        if self.timer_at.is_none_or(|armed| at < armed || armed <= cx.now) {
            self.timer_at = Some(at);
            let life = self.life;
            cx.node_after(at - cx.now, self.index, NodeWake::Timer { life });
        }
    }

    fn act(&mut self, action: Action, cx: &mut Context) {
        match action {
            Action::Send(message) => {
                if let Some(link) = self.link() {
                    cx.send_to_hub(link, message);
                }
            }
            Action::Journal(record) => self.journal(record, cx),
            Action::Spawn { start, .. } => self.spawn(&start, cx),
            Action::Signal(run, signal) => self.signal(run, signal, cx),
            Action::Input { run, data, .. } => self.runs.input_taken(run, data.len() as u64),
            Action::Trim(run, begin) => {
                if let Some(pieces) = self.spool.get_mut(&run) {
                    pieces.retain(|piece| piece.position + piece.len > begin);
                }
            }
            Action::Drop(run) => drop(self.spool.remove(&run)),
            Action::Remember(generation, epoch) => self.disk.numbers = (generation, epoch),
            Action::PolicyChanged(_) | Action::Certificate(_) => {}
            Action::Close { retry_after_ms, .. } => self.close(retry_after_ms, cx),
        }
    }

    fn close(&mut self, retry_after_ms: Option<u64>, cx: &mut Context) {
        let Some(link) = self.link() else { return };
        cx.closed_by_node(link);
        self.closed(retry_after_ms, cx);
        self.stopped = retry_after_ms.is_none();
    }

    fn journal(&mut self, record: Record, cx: &mut Context) {
        self.disk.journal.push(record);
        if !self.disk.syncing {
            self.disk.syncing = true;
            let wait = if cx.random.chance(10) { 2_000 } else { cx.random.between(1, 30) };
            let life = self.life;
            cx.node_after(wait, self.index, NodeWake::JournalSync { life });
        }
    }

    fn journal_synced(&mut self) {
        self.disk.syncing = false;
        let fresh = self.disk.journal[self.disk.synced..].to_vec();
        self.disk.synced = self.disk.journal.len();
        for record in fresh {
            if let Record::Accepted(run) = record {
                self.runs.journaled(run);
            } else if let Record::FileAccepted(accepted) = record {
                self.clerks.machine.journaled(accepted.op);
            }
        }
    }

    fn spawn(&mut self, start: &Start, cx: &mut Context) {
        let run = start.run;
        let durable = &self.disk.journal[..self.disk.synced];
        let journaled = durable.contains(&Record::Accepted(run));
        cx.note(Happened::Spawned { node: self.index, run, journaled });
        let argument = start.spec.argv.get(1).map_or("", String::as_str);
        let steps = cx.random.between(0, if start.task.is_some() { 4 } else { 12 });
        let process = Process {
            steps: if argument == ENDLESS { u64::MAX } else { steps },
            large: argument == "large",
            code: match argument {
                "ok" => 0,
                "flaky" => i32::from(steps.is_multiple_of(2)),
                "fail" => 1,
                _ => i32::from(run.as_bytes()[15] & 7),
            },
            stubborn: cx.random.chance(20),
            began: cx.now,
            written: Positions::default(),
            dying: false,
        };
        self.processes.insert(run, process);
        // A start may hang, and is ended then by the same wishes as a process.
        let hangs = cx.random.chance(5);
        let wait = if hangs { cx.random.between(1_000, 15_000) } else { cx.random.between(1, 40) };
        let life = self.life;
        cx.node_after(wait, self.index, NodeWake::Spawned { life, run });
    }

    fn spawned(&mut self, run: RunId, cx: &mut Context) {
        if !self.processes.contains_key(&run) {
            // Killed while it was being started.
            return;
        }
        let now = self.local(cx);
        if cx.random.chance(3) {
            self.processes.remove(&run);
            cx.note(Happened::Exited { node: self.index, run, output: Positions::default(), code: None });
            self.runs.ended(run, ended(EndCause::Failed, None, None, 0));
            return;
        }
        self.runs.spawned(run, now);
        let life = self.life;
        cx.node_after(cx.now % 50, self.index, NodeWake::Step { life, run });
    }

    fn step(&mut self, run: RunId, cx: &mut Context) {
        let Some(process) = self.processes.get_mut(&run).filter(|process| !process.dying) else { return };
        if process.steps == 0 {
            let duration = cx.now - process.began;
            let output = process.written;
            let code = Some(process.code);
            self.processes.remove(&run);
            cx.note(Happened::Exited { node: self.index, run, output, code });
            self.runs.ended(run, ended(EndCause::Exited, code, None, duration));
            return;
        }
        let is_endless = process.steps == u64::MAX;
        process.steps -= u64::from(!is_endless);
        let stream = if cx.random.chance(70) { Stream::Stdout } else { Stream::Stderr };
        let len = if process.large { 60_000 } else { cx.random.between(1, 300) };
        let (position, offset) = (process.written.total(), process.written.of(stream));
        process.written.advance(stream, len);
        self.spool.entry(run).or_default().push_back(Piece { position, stream, offset, len });
        self.runs.wrote(run, stream, len);
        let slow = if is_endless { 100 } else { 8 };
        let wait =
            if cx.random.chance(slow) { cx.random.between(1_000, 4_000) } else { cx.random.between(1, 400) };
        let life = self.life;
        cx.node_after(wait, self.index, NodeWake::Step { life, run });
    }

    fn signal(&mut self, run: RunId, signal: Signal, cx: &mut Context) {
        let Some(process) = self.processes.get_mut(&run) else { return };
        let number = match signal {
            Signal::Term if process.stubborn => return,
            Signal::Term => 15,
            Signal::Kill => 9,
        };
        if !std::mem::replace(&mut process.dying, true) {
            let wait = cx.random.between(1, 200);
            let life = self.life;
            cx.node_after(wait, self.index, NodeWake::Die { life, run, signal: number });
        }
    }

    fn die(&mut self, run: RunId, signal: i32, cx: &mut Context) {
        let Some(process) = self.processes.remove(&run) else { return };
        cx.note(Happened::Exited { node: self.index, run, output: process.written, code: None });
        self.runs.ended(run, ended(EndCause::Exited, None, Some(signal), cx.now - process.began));
    }

    fn read(&self, run: RunId, position: u64, len_max: u64) -> Option<Frame> {
        let pieces = self.spool.get(&run)?;
        let piece = pieces.iter().find(|p| p.position <= position && position < p.position + p.len)?;
        let skip = position - piece.position;
        let offset = piece.offset + skip;
        let len = (piece.len - skip).min(len_max);
        let data = printed(&self.pattern, run, piece.stream, offset, len);
        Some(Frame { run, stream: piece.stream, position, offset, data })
    }
}

fn ended(cause: EndCause, code: Option<i32>, signal: Option<i32>, duration_ms: u64) -> Ended {
    Ended { cause, code, signal, duration_ms, output: Positions::default(), diagnostic: None }
}
