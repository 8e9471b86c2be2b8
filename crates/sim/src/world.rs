//! One world from one seed: what is next happens, until all is at peace.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use cortex_core::event::EventKind;
use cortex_core::id::{NodeId, RunId, Seq};
use cortex_core::name::Labels;
use cortex_core::run::RunSpec;
use cortex_store::{AuditFilter, RunFilter, TaskFilter};

use crate::check::{self, Happened, Peace, Violation};
use crate::editors::Editors;
use crate::faults::{self, FAULTS_MS, Transition};
use crate::hub::{FileJob, Hub, Job, LEAKED, Place, Steer, token_of};
use crate::net::{Context, NodeWake, Wake};
use crate::node::Node;
use crate::people::{self, People};
use crate::random::Random;
use crate::worker::{Worker, WorkerWake};

/// Time after the last fault in which all must be online and settled (I8).
const DRAIN_MS: u64 = 60_000;
/// Time after that in which counts of the past run out (I9).
const IDLE_MS: u64 = 75_000;
/// Wakes of one world; more mean that something runs in circles.
const WAKES_MAX: u64 = 2_000_000;

/// What a seed led to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What did not hold.
    pub violations: Vec<Violation>,
    /// Kinds of events that occurred.
    pub kinds: BTreeSet<EventKind>,
    /// Digest of everything that happened, in order and with its time, and of the history in words.
    pub trace_hash: u64,
    /// The history, one line each; empty unless it was asked for.
    pub trace: Vec<String>,
}

/// Plays the world of `seed`.
pub fn run(seed: u64) -> Report {
    World::new(seed).play(seed, false)
}

/// The same, with its history in words.
pub fn run_told(seed: u64) -> Report {
    World::new(seed).play(seed, true)
}

struct World {
    cx: Context,
    hub: Hub,
    nodes: Vec<Node>,
    people: People,
    workers: Vec<Worker>,
    editors: Editors,
    seen: usize,
    /// Runs that have a row in the audit log, as far as it was read.
    audited: (Seq, BTreeSet<RunId>),
    hasher: DefaultHasher,
    runs: u64,
    restless: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let count = usize::try_from(seed % 3).unwrap_or(0) + 1;
        let mut cx = Context::new(seed, count);
        let ids: Vec<NodeId> = (0..count).map(|_| NodeId::mint(1, &cx.random.bytes())).collect();
        let pattern = crate::log::pattern();
        // By dice of their own, and not in every world: fate does to the others what it did before.
        let mut pool = (seed % 4 >= 2).then(|| Random::new(seed ^ 0x9001));
        let places: Vec<Place> = (0..count).map(|index| place(index, pool.as_mut())).collect();
        // Some worlds with each kind of other work.
        let does_files = [0, 1, 2, 3, 5, 10, 12].contains(&(seed % 16));
        let mut nodes = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            let rate = cx.random.between(850, 1_150);
            nodes.push(Node::new(index, *id, rate, places[index].slots, does_files, pattern.clone()));
            let wait = cx.random.between(0, 500);
            cx.node_after(wait, index, NodeWake::Start);
        }
        cx.at(0, Wake::HubStart);
        for (at, transition) in faults::plan(&mut cx.random, count) {
            cx.at(at, Wake::Transition(transition));
        }
        let mut workers = Vec::new();
        if let Some(pool) = &mut pool {
            for (at, transition) in faults::pool(pool) {
                cx.at(at, Wake::Transition(transition));
            }
            for index in 0..1 + pool.index(2) {
                // Not in every world either, for the same reason.
                workers.push(Worker::new(index, seed % 16 == 14));
                cx.at(pool.between(0, 2_000), Wake::Worker { worker: index, wake: WorkerWake::Ask });
            }
        }
        if seed % 4 == 3 {
            for (at, transition) in faults::locks(&mut Random::new(seed ^ 0x10c4)) {
                cx.at(at, Wake::Transition(transition));
            }
        }
        if does_files {
            for (at, transition) in faults::files(&mut Random::new(seed ^ 0xf11e), count) {
                cx.at(at, Wake::Transition(transition));
            }
        }
        let hub = Hub::new(ids, places, pattern);
        let people = People::default();
        Self {
            cx,
            hub,
            nodes,
            people,
            workers,
            editors: Editors::default(),
            seen: 0,
            audited: (Seq(0), BTreeSet::new()),
            hasher: DefaultHasher::new(),
            runs: 0,
            restless: Vec::new(),
        }
    }

    fn play(mut self, seed: u64, is_told: bool) -> Report {
        self.until(FAULTS_MS);
        self.heal();
        self.until(FAULTS_MS + DRAIN_MS);
        self.expect_drained();
        self.expect_locks_held();
        self.expect_pool_drained();
        self.until(FAULTS_MS + DRAIN_MS + IDLE_MS);
        self.expect_idle();
        let kinds = self.events().iter().map(|(_, kind)| *kind).collect();
        let peace = self.peace();
        let violations = check::check(&self.cx.history, &peace);
        let told = self.cx.history.iter().filter(|_| is_told);
        let trace: Vec<String> = told.map(|(at, what)| format!("{at:>7} ms {what:?}")).collect();
        trace.hash(&mut self.hasher);
        Report { seed, violations, kinds, trace_hash: self.hasher.finish(), trace }
    }

    fn until(&mut self, end: u64) {
        let mut wakes = 0;
        while let Some(entry) = self.cx.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), wake) = entry.remove_entry();
            self.cx.now = at;
            (at, std::mem::discriminant(&wake)).hash(&mut self.hasher);
            self.dispatch(wake);
            self.look_up_audit();
            wakes += 1;
            if wakes > WAKES_MAX {
                self.restless.push(format!("I8: the world runs in circles at {at} ms"));
                break;
            }
        }
        self.cx.now = end;
    }

    fn dispatch(&mut self, wake: Wake) {
        match wake {
            Wake::Transition(transition) => self.transition(transition),
            Wake::Node { node, wake } => self.node_wake(node, wake),
            Wake::Person { request } => self.people.impatient(request, &mut self.hub, &mut self.cx),
            Wake::Answer { request, answer } => self.people.answered(request, &answer, &mut self.cx),
            Wake::Worker { worker, wake } => self.workers[worker].handle(wake, &mut self.hub, &mut self.cx),
            Wake::Editor { request } => self.editors.impatient(request, &mut self.hub, &mut self.cx),
            Wake::FileAnswer { request, answer } => self.editors.answered(request, answer, &mut self.cx),
            Wake::HubFrame { link, .. } | Wake::HubClosed { link, .. } if !self.cx.carries(link) => {}
            Wake::HubTimer { .. }
            | Wake::StoreDone { .. }
            | Wake::StoreLate { .. }
            | Wake::DecideAgain { .. }
            | Wake::DecideFile { .. }
            | Wake::AttachReady { .. }
            | Wake::Farewell { .. }
            | Wake::LogFlush { .. }
            | Wake::LogSync { .. }
            | Wake::Pump { .. }
            | Wake::ServeNodes { .. }
            | Wake::LookAgain { .. }
            | Wake::PoolTimer { .. }
            | Wake::HubFrame { .. }
            | Wake::HubClosed { .. }
            | Wake::HubStart => self.hub.handle(wake, &mut self.cx),
        }
    }

    fn node_wake(&mut self, index: usize, wake: NodeWake) {
        let node = &mut self.nodes[index];
        let thaws = matches!(wake, NodeWake::Thaw);
        if node.frozen_until > self.cx.now || !(thaws || node.held.is_empty()) {
            if thaws || node.held.is_empty() {
                self.cx.at(node.frozen_until, Wake::Node { node: index, wake: NodeWake::Thaw });
            }
            if !thaws {
                node.held.push_back(wake);
            }
            return;
        }
        if thaws {
            for held in std::mem::take(&mut node.held) {
                self.node_wake(index, held);
            }
            return;
        }
        if let NodeWake::Frame { link, .. } | NodeWake::Closed { link } = &wake
            && !self.cx.carries(*link)
        {
            return;
        }
        let hub_life = self.hub.up.then_some(self.hub.life);
        node.handle(wake, hub_life, &mut self.cx);
    }

    /// I7 is judged at the moment of the effect, against what the store holds then.
    fn look_up_audit(&mut self) {
        while let Some((_, happened)) = self.cx.history.get(self.seen) {
            self.seen += 1;
            let Happened::Spawned { run, .. } = happened else { continue };
            let run = *run;
            let before = self.audited(run);
            self.cx.note(Happened::Audited { run, before });
        }
    }

    /// Whether the audit log has a row of this run at this moment.
    fn audited(&mut self, run: RunId) -> bool {
        let after = self.audited.0;
        let fresh = AuditFilter { after, ..AuditFilter::default() };
        let rows = self.hub.store.read_now(|view| view.audit(&fresh, usize::MAX)).unwrap_or_default();
        for logged in rows {
            self.audited.0 = logged.seq;
            self.audited.1.extend(logged.row.run);
        }
        self.audited.1.contains(&run)
    }

    fn transition(&mut self, transition: Transition) {
        let cx = &mut self.cx;
        let now = cx.now;
        match transition {
            Transition::Exec { .. }
            | Transition::Cancel { .. }
            | Transition::SetPolicy { .. }
            | Transition::Lock { .. } => {
                self.work(transition);
                return;
            }
            Transition::Edit { node } => return self.editors.work(node, &mut self.hub, cx),
            Transition::CancelEdit { node } => self.hub.cancel_edit(node),
            Transition::NextAttempt { task } => {
                self.hub.submit(Job::File(FileJob::Fence { task }), cx);
                return;
            }
            Transition::Submit => return self.people.submit(&mut self.hub, cx),
            Transition::CancelTask => return self.people.steer(Steer::Cancel, &mut self.hub, cx),
            Transition::RetryTask => return self.people.steer(Steer::Retry, &mut self.hub, cx),
            Transition::BumpTask => {
                let priority = people::priority(&mut cx.random);
                return self.people.steer(Steer::Bump(priority), &mut self.hub, cx);
            }
            Transition::SetClock { ahead_ms } => cx.wall_ahead_ms = ahead_ms,
            Transition::HubCrash { power, silent, down_ms } => {
                self.hub.crash(power, silent, cx);
                cx.after(down_ms, Wake::HubStart);
            }
            Transition::NodeCrash { node, power, silent, down_ms } => {
                self.nodes[node].crash(power, silent, cx);
                cx.node_after(down_ms, node, NodeWake::Start);
            }
            Transition::Flap { node } => {
                for round in 0..5 {
                    let again = Transition::NodeCrash { node, power: false, silent: true, down_ms: 10 };
                    cx.after(1 + round * 700, Wake::Transition(again));
                }
            }
            Transition::RacePolicy { node, after } => {
                self.nodes[node].hang_up(cx);
                cx.after(after, Wake::Transition(Transition::SetPolicy { node }));
                for later in [50, 1_000, 3_500] {
                    let run = Transition::Exec { node, large: false, allowed: true, timeout_ms: None };
                    cx.after(after + later, Wake::Transition(run));
                }
            }
            Transition::Freeze { node, ms } => self.nodes[node].frozen_until = now + ms,
            Transition::CutSilently { node } => cx.cut_all_of(Some(node)),
            Transition::HangUp { node } => self.nodes[node].hang_up(cx),
            Transition::Part { node, ms } => {
                cx.parted_until[node] = now + ms;
                cx.cut_all_of(Some(node));
            }
            Transition::SlowLinks { node, delay, ms } => cx.slow[node] = (now + ms, delay),
            Transition::SlowStore { delay, ms } => self.hub.slow_store = (now + ms, delay),
            Transition::RefusingStore { ms } => self.hub.refusing_until = now + ms,
            Transition::Rude { node } => self.nodes[node].be_rude(cx),
            Transition::Replay { node } => {
                let recorded = cx.recorded[node].clone();
                let begin = if recorded.is_empty() { 0 } else { cx.random.index(recorded.len()) };
                for envelope in recorded.into_iter().skip(begin).take(5) {
                    self.nodes[node].replay(envelope, cx);
                }
            }
        }
        self.cx.note(Happened::Fault(format!("{transition:?}")));
    }

    fn work(&mut self, transition: Transition) {
        let cx = &mut self.cx;
        let job = match transition {
            Transition::Exec { node, large, allowed, timeout_ms } => {
                if !self.hub.up || self.hub.runs[node].admit().is_err() {
                    return;
                }
                self.runs += 1;
                let run = RunId::mint(1_800_000_000_000 + self.runs, &cx.random.bytes());
                let program = if allowed { "echo" } else { "nmap" };
                let size = if large { "large" } else { "small" };
                let argv = vec![program.to_owned(), size.to_owned()];
                Job::Accept { node, run, spec: RunSpec { argv, timeout_ms, ..RunSpec::default() } }
            }
            Transition::Cancel { node } => Job::Cancel { node },
            Transition::SetPolicy { node } => Job::SetPolicy { node },
            Transition::Lock { lift } => Job::Lock { lift },
            Transition::HubCrash { .. }
            | Transition::NodeCrash { .. }
            | Transition::Flap { .. }
            | Transition::Freeze { .. }
            | Transition::CutSilently { .. }
            | Transition::HangUp { .. }
            | Transition::Part { .. }
            | Transition::SlowLinks { .. }
            | Transition::SlowStore { .. }
            | Transition::RefusingStore { .. }
            | Transition::Replay { .. }
            | Transition::RacePolicy { .. }
            | Transition::Submit
            | Transition::CancelTask
            | Transition::RetryTask
            | Transition::BumpTask
            | Transition::SetClock { .. }
            | Transition::Edit { .. }
            | Transition::CancelEdit { .. }
            | Transition::NextAttempt { .. }
            | Transition::Rude { .. } => return,
        };
        self.hub.submit(job, cx);
    }

    /// Faults stop: who is down comes up, who is frozen thaws, the network and the disk work.
    fn heal(&mut self) {
        let cx = &mut self.cx;
        self.hub.slow_store = (0, 0);
        self.hub.refusing_until = 0;
        cx.wall_ahead_ms = 0;
        cx.heal_links();
        cx.at(FAULTS_MS, Wake::HubStart);
        let late: Vec<(u64, u64)> =
            cx.queue.iter().filter(|(_, w)| matches!(w, Wake::Transition(_))).map(|(key, _)| *key).collect();
        for key in late {
            cx.queue.remove(&key);
        }
        for node in &mut self.nodes {
            cx.parted_until[node.index] = 0;
            cx.slow[node.index] = (0, 0);
            node.frozen_until = 0;
            cx.at(FAULTS_MS, Wake::Node { node: node.index, wake: NodeWake::Thaw });
            cx.at(FAULTS_MS, Wake::Node { node: node.index, wake: NodeWake::Start });
        }
    }

    fn expect_drained(&mut self) {
        for node in self.nodes.iter().filter(|node| !node.stopped) {
            let here = self.hub.registry.get(node.id).map(|presence| presence.link);
            if here.is_none() || here != node.link() || !node.runs.is_linked() {
                self.restless.push(format!("I8: node {} is not online after the faults", node.index));
            }
            let stored = self.hub.store.read_now(|view| view.policy(node.id)).ok().flatten();
            let held = node.runs.policy();
            if stored.is_some_and(|stored| held.is_none_or(|held| held.revision < stored.revision)) {
                self.restless.push(format!("I8: node {} holds an old policy after the faults", node.index));
            }
        }
        let open = self.hub.store.read_now(|view| view.open_runs()).unwrap_or_default();
        for task in self.hub.store.read_now(|view| view.open_file_ops()).unwrap_or_default() {
            self.restless.push(format!("I8: operation {} has no end", task.id));
        }
        for run in open {
            self.restless.push(format!("I8: {} is still {}", run.id, run.state.as_str()));
        }
    }

    fn expect_pool_drained(&mut self) {
        let kinds: Vec<_> = self.workers.iter().flat_map(|worker| worker.kinds().to_vec()).collect();
        self.restless.extend(self.hub.restless_tasks(&kinds, self.cx.wall()));
        self.restless.append(&mut self.people.wrong);
    }

    /// Nothing of a locked token is accepted after the lock's event.
    fn expect_locks_held(&mut self) {
        let mut locked = false;
        for (run, kind) in self.events() {
            match (kind, run) {
                (EventKind::LockCreated, _) => locked = true,
                (EventKind::LockRemoved, _) => locked = false,
                (EventKind::RunAccepted, Some(run)) if locked && token_of(run) == LEAKED => {
                    self.restless.push(format!("I3: {run} of a locked token was accepted after its lock"));
                }
                _ => {}
            }
        }
    }

    fn expect_idle(&mut self) {
        let online = self.nodes.iter().filter(|node| !node.stopped).count();
        let held: usize = self.nodes.iter().filter(|node| !node.stopped).map(Node::entries).sum();
        let (hub, registry) = (self.hub.entries(), self.hub.registry.entries());
        if hub != 0 || held != 0 || registry != online || self.hub.link_count() != online {
            let links = self.hub.link_count();
            self.restless.push(format!(
                "I9: with {online} nodes: hub {hub} ({:?}), registry {registry}, links {links}, nodes {held}",
                self.hub.leftovers()
            ));
        }
    }

    fn events(&self) -> Vec<(Option<RunId>, EventKind)> {
        let events = self.hub.store.read_now(|view| view.events(Seq(0), usize::MAX)).unwrap_or_default();
        events.into_iter().map(|logged| (logged.event.run, logged.event.kind)).collect()
    }

    fn peace(&self) -> Peace {
        let ends = self.events().into_iter().filter(|(_, kind)| *kind == EventKind::RunEnded);
        let tasks = self.hub.store.read_now(|view| view.tasks(&TaskFilter::default(), usize::MAX));
        let tasks = tasks.unwrap_or_default();
        let late = |id| self.hub.store.read_now(|view| view.task_evidence(id)).unwrap_or_default();
        let brought = |id| late(id).into_iter().map(|one| (one.attempt, one.holder)).collect();
        let accepted = self.cx.history.iter().filter_map(|(_, happened)| {
            if let Happened::FileAccepted { op, .. } = happened { Some(*op) } else { None }
        });
        let file =
            |op| self.hub.store.read_now(|view| view.file_op(op)).ok().flatten().map(|task| (op, task));
        Peace {
            files: accepted.filter_map(file).collect(),
            disks: self.nodes.iter().map(Node::disk).collect(),
            nodes: self.hub.ids.clone(),
            evidence: tasks.iter().map(|task| (task.id, brought(task.id))).collect(),
            tasks: tasks.iter().map(|task| (task.id, task.state)).collect(),
            runs: self
                .hub
                .store
                .read_now(|view| view.runs(&RunFilter::default(), usize::MAX))
                .unwrap_or_default(),
            ends: ends.filter_map(|(run, kind)| Some((run?, kind))).collect(),
            logs: self.hub.logs.iter().map(|(run, log)| (*run, (log.positions(), log.has_marks()))).collect(),
            restless: self.restless.clone(),
        }
    }
}

/// Where a node of this place stands, and how much it does at once; nothing in a world without a pool.
fn place(index: usize, pool: Option<&mut Random>) -> Place {
    let Some(random) = pool else { return Place { labels: Labels::new(), slots: 0 } };
    let site = if index.is_multiple_of(2) { "a" } else { "b" };
    let mut labels = Labels::from([("site".to_owned(), site.to_owned())]);
    if index == 2 {
        labels.insert("gpu".to_owned(), "1".to_owned());
    }
    let slots = if random.chance(8) { 0 } else { random.between(1, 3) };
    Place { labels, slots: u32::try_from(slots).unwrap_or(1) }
}
