//! The network and the queue of what comes next. A link keeps its order in each direction; links
//! differ in delay, so frames of an older one may come after those of a newer one.

use std::collections::BTreeMap;

use cortex_core::error::Refusal;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::entity::FileEnd;
use cortex_core::id::{Epoch, LinkId, OpId, RunId};
use cortex_core::message::{Envelope, ToHub, ToNode};
use cortex_core::time::{Timestamp, WallTime};

use crate::check::Happened;
use crate::faults::Transition;
use crate::hub::Answer;
use crate::node::ClerkWake;
use crate::random::Random;
use crate::worker::WorkerWake;

/// Wall clock of the hub at the beginning of the world.
const EPOCH_MS: i64 = 1_800_000_000_000;
/// Longest delay of a link that is not slow.
const USUAL_MS: u64 = 20;

/// What is to come. `life` is the life of the process that asked; another life ignores it.
#[derive(Clone, Debug)]
pub(crate) enum Wake {
    Transition(Transition),
    HubTimer {
        life: u64,
    },
    StoreDone {
        life: u64,
    },
    StoreLate {
        life: u64,
        job: u64,
    },
    DecideAgain {
        life: u64,
        node: usize,
    },
    AttachReady {
        life: u64,
        link: LinkId,
        epoch: Option<Epoch>,
    },
    Farewell {
        life: u64,
        link: LinkId,
    },
    LogFlush {
        life: u64,
        run: RunId,
    },
    LogSync {
        life: u64,
        run: RunId,
    },
    Pump {
        life: u64,
        link: LinkId,
    },
    HubFrame {
        life: u64,
        link: LinkId,
        message: ToHub,
    },
    HubClosed {
        life: u64,
        link: LinkId,
    },
    HubStart,
    ServeNodes {
        life: u64,
    },
    LookAgain {
        life: u64,
    },
    PoolTimer {
        life: u64,
    },
    /// A person looks whether a request was answered.
    Person {
        request: usize,
    },
    Answer {
        request: usize,
        answer: Answer,
    },
    /// An editor looks whether a request was answered.
    Editor {
        request: usize,
    },
    FileAnswer {
        request: usize,
        answer: Result<FileAnswer, Refusal>,
    },
    DecideFile {
        life: u64,
        node: usize,
        op: OpId,
        end: FileEnd,
    },
    Worker {
        worker: usize,
        wake: WorkerWake,
    },
    Node {
        node: usize,
        wake: NodeWake,
    },
}

/// What is to come to a node. A frozen node gets it when it thaws, in the order in which it came.
#[expect(clippy::large_enum_variant, reason = "most of what comes to a node are frames")]
#[derive(Clone, Debug)]
pub(crate) enum NodeWake {
    Timer { life: u64 },
    Dial { life: u64 },
    JournalSync { life: u64 },
    Spawned { life: u64, run: RunId },
    Step { life: u64, run: RunId },
    Die { life: u64, run: RunId, signal: i32 },
    Frame { link: LinkId, envelope: Envelope<ToNode> },
    Closed { link: LinkId },
    Clerk { life: u64, op: OpId, wake: ClerkWake },
    Start,
    Thaw,
}

#[derive(Clone, Debug)]
pub(crate) struct Pipe {
    pub(crate) node: usize,
    hub_life: u64,
    carrying: bool,
    delay: u64,
    to_hub_last: u64,
    to_node_last: u64,
}

/// What every part of the world may use.
pub(crate) struct Context {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) history: Vec<(u64, Happened)>,
    pub(crate) queue: BTreeMap<(u64, u64), Wake>,
    pub(crate) pipes: BTreeMap<LinkId, Pipe>,
    /// Until when each node's network is cut off.
    pub(crate) parted_until: Vec<u64>,
    /// Until when new links of each node are slow, and how slow.
    pub(crate) slow: Vec<(u64, u64)>,
    /// Frames to each node, kept to be repeated on a later link.
    pub(crate) recorded: Vec<Vec<Envelope<ToNode>>>,
    /// How far the hub's wall clock is ahead of the time that passed; it may be behind.
    pub(crate) wall_ahead_ms: i64,
    order: u64,
    links: u64,
}

impl Context {
    pub(crate) fn new(seed: u64, nodes: usize) -> Self {
        Self {
            now: 0,
            random: Random::new(seed),
            history: Vec::new(),
            queue: BTreeMap::new(),
            pipes: BTreeMap::new(),
            parted_until: vec![0; nodes],
            slow: vec![(0, 0); nodes],
            recorded: vec![Vec::new(); nodes],
            wall_ahead_ms: 0,
            order: 0,
            links: 0,
        }
    }

    pub(crate) const fn timestamp(&self) -> Timestamp {
        Timestamp(self.now)
    }

    pub(crate) const fn wall(&self) -> WallTime {
        WallTime(EPOCH_MS + self.wall_ahead_ms).plus_ms(self.now)
    }

    pub(crate) fn at(&mut self, at: u64, wake: Wake) {
        self.order += 1;
        self.queue.insert((at.max(self.now), self.order), wake);
    }

    pub(crate) fn after(&mut self, ms: u64, wake: Wake) {
        self.at(self.now + ms, wake);
    }

    pub(crate) fn node_after(&mut self, ms: u64, node: usize, wake: NodeWake) {
        self.after(ms, Wake::Node { node, wake });
    }

    pub(crate) fn note(&mut self, happened: Happened) {
        self.history.push((self.now, happened));
    }

    /// A new link of `node`; `None` when its network is cut off.
    pub(crate) fn connect(&mut self, node: usize, hub_life: u64) -> Option<LinkId> {
        if self.parted_until[node] > self.now {
            return None;
        }
        self.links += 1;
        let link = LinkId(self.links);
        let (until, delay) = self.slow[node];
        let delay = if until > self.now { delay } else { self.random.between(0, USUAL_MS) };
        let (to_hub_last, to_node_last) = (self.now, self.now);
        self.pipes.insert(link, Pipe { node, hub_life, carrying: true, delay, to_hub_last, to_node_last });
        Some(link)
    }

    /// Links that were made slow are so no more.
    pub(crate) fn heal_links(&mut self) {
        self.pipes.values_mut().for_each(|pipe| pipe.delay = pipe.delay.min(USUAL_MS));
    }

    pub(crate) fn send_to_hub(&mut self, link: LinkId, message: ToHub) {
        let Some((at, life)) = self.arrival(link, true) else { return };
        if self.random.chance(2) && repeats_make_sense(&message) {
            let later = at + self.random.between(0, 400);
            self.at(later, Wake::HubFrame { life, link, message: message.clone() });
        }
        self.at(at, Wake::HubFrame { life, link, message });
    }

    pub(crate) fn send_to_node(&mut self, link: LinkId, envelope: Envelope<ToNode>) {
        let Some(node) = self.pipes.get(&link).map(|pipe| pipe.node) else { return };
        let recorded = &mut self.recorded[node];
        if recorded.len() < 200 {
            recorded.push(envelope.clone());
        }
        let Some((at, _)) = self.arrival(link, false) else { return };
        if matches!(envelope.message, ToNode::Start(_) | ToNode::FileAsk(_)) && self.random.chance(30) {
            // A command that comes twice, perhaps long after it was settled.
            let later = at + self.random.between(0, 5_000);
            let envelope = envelope.clone();
            self.at(later, Wake::Node { node, wake: NodeWake::Frame { link, envelope } });
        }
        self.at(at, Wake::Node { node, wake: NodeWake::Frame { link, envelope } });
    }

    /// The node's end is closed: the hub hears of it after all that was sent, if it hears at all.
    pub(crate) fn closed_by_node(&mut self, link: LinkId) {
        if let Some((at, life)) = self.arrival(link, true) {
            self.at(at, Wake::HubClosed { life, link });
        }
    }

    pub(crate) fn closed_by_hub(&mut self, link: LinkId) {
        let Some(node) = self.pipes.get(&link).map(|pipe| pipe.node) else { return };
        if let Some((at, _)) = self.arrival(link, false) {
            self.at(at, Wake::Node { node, wake: NodeWake::Closed { link } });
        }
    }

    /// Whether what is on its way on this link still arrives.
    pub(crate) fn carries(&self, link: LinkId) -> bool {
        self.pipes.get(&link).is_some_and(|pipe| pipe.carrying)
    }

    /// Nothing more arrives on this link, and nobody is told.
    pub(crate) fn cut(&mut self, link: LinkId) {
        if let Some(pipe) = self.pipes.get_mut(&link) {
            pipe.carrying = false;
        }
    }

    pub(crate) fn cut_all_of(&mut self, node: Option<usize>) {
        for pipe in self.pipes.values_mut() {
            if node.is_none_or(|node| node == pipe.node) {
                pipe.carrying = false;
            }
        }
    }

    fn arrival(&mut self, link: LinkId, to_hub: bool) -> Option<(u64, u64)> {
        let jitter = self.random.between(0, 10);
        let pipe = self.pipes.get_mut(&link).filter(|pipe| pipe.carrying)?;
        let last = if to_hub { &mut pipe.to_hub_last } else { &mut pipe.to_node_last };
        *last = (self.now + pipe.delay + jitter).max(*last);
        Some((*last, pipe.hub_life))
    }
}

/// A repeated Hello or end of a link is another fault; what concerns runs may come twice.
const fn repeats_make_sense(message: &ToHub) -> bool {
    match message {
        ToHub::Started { .. }
        | ToHub::Output(_)
        | ToHub::Ended { .. }
        | ToHub::InputTaken { .. }
        | ToHub::FileAnswered { .. } => true,
        ToHub::Hello(_)
        | ToHub::Heartbeat { .. }
        | ToHub::OutputLost { .. }
        | ToHub::Refused { .. }
        | ToHub::TransferNews(_)
        | ToHub::WatchNews(_)
        | ToHub::Renew { .. } => false,
    }
}
