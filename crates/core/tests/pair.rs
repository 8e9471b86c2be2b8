//! The machines of both ends of a node's runs against a model, over a perfect link and over one
//! that is cut at any time: a run ends once, its output at the hub is a prefix of the truth and
//! in the end the whole of it, and its command is executed at most once.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the driver of a model does only what the model is about"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use cortex_core::hub_runs::{self, HubRuns};
use cortex_core::id::{Epoch, Generation, LinkId, NodeId, Revision, RunId};
use cortex_core::journal::Record;
use cortex_core::message::{Envelope, Frame, Start, ToHub, ToNode, Welcome};
use cortex_core::node_runs::{self, NodeRuns};
use cortex_core::policy::Policy;
use cortex_core::run::{Command, EndCause, Ended, RunSpec};
use cortex_core::sandbox::{Ground, Level};
use cortex_core::stream::{Positions, Stream};
use cortex_core::time::{Timestamp, WallTime};
use proptest::prelude::*;
use proptest::test_runner::Config;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

const T0: Timestamp = Timestamp(0);

prop_state_machine! {
    #![proptest_config(Config { cases: 192, failure_persistence: None, ..Config::default() })]

    #[test]
    fn over_a_perfect_link_every_run_ends_once_with_all_its_output(sequential 1..60 => Pair<Perfect>);

    #[test]
    fn over_a_link_that_is_cut_every_run_ends_once_with_all_its_output(sequential 1..60 => Pair<Lossy>);
}

#[derive(Clone, Debug)]
enum Step {
    Submit(u8),
    /// Journal rows get durable and processes appear.
    Advance,
    Write(u8, bool, u16),
    Exit(u8),
    ToHub(u8),
    ToNode(u8),
    Commit(bool),
    Sync,
    Cut,
    Connect,
}

struct Perfect;
struct Lossy;

trait Kind: 'static {
    const LOSSY: bool;
}

impl Kind for Perfect {
    const LOSSY: bool = false;
}

impl Kind for Lossy {
    const LOSSY: bool = true;
}

/// The model: which runs were asked for. Each must end once.
impl<K: Kind> ReferenceStateMachine for Model<K> {
    type State = BTreeSet<u8>;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self::State> {
        Just(BTreeSet::new()).boxed()
    }

    fn transitions(_: &Self::State) -> BoxedStrategy<Step> {
        let run = 0_u8..4;
        let mut steps = vec![
            (2, run.clone().prop_map(Step::Submit).boxed()),
            (3, Just(Step::Advance).boxed()),
            (
                4,
                (run.clone(), any::<bool>(), 1_u16..60_000)
                    .prop_map(|(r, e, n)| Step::Write(r, e, n))
                    .boxed(),
            ),
            (2, run.prop_map(Step::Exit).boxed()),
            (4, (1_u8..9).prop_map(Step::ToHub).boxed()),
            (4, (1_u8..9).prop_map(Step::ToNode).boxed()),
            (2, prop::bool::weighted(0.8).prop_map(Step::Commit).boxed()),
            (2, Just(Step::Sync).boxed()),
        ];
        if K::LOSSY {
            steps.push((2, Just(Step::Cut).boxed()));
            steps.push((2, Just(Step::Connect).boxed()));
        }
        prop::strategy::Union::new_weighted(steps).boxed()
    }

    fn apply(mut state: Self::State, step: &Step) -> Self::State {
        if let Step::Submit(run) = step {
            state.insert(*run);
        }
        state
    }
}

struct Model<K>(std::marker::PhantomData<K>);

struct Pair<K> {
    hub: HubRuns,
    node: NodeRuns,
    to_hub: VecDeque<ToHub>,
    to_node: VecDeque<Envelope<ToNode>>,
    links: u64,
    clock: Timestamp,
    up: bool,
    pending: VecDeque<node_runs::Action>,
    decisions: VecDeque<(RunId, Command)>,
    spawned: BTreeMap<RunId, u32>,
    live: BTreeSet<RunId>,
    truth: BTreeMap<RunId, Vec<(Positions, Stream, u64)>>,
    written: BTreeMap<RunId, Positions>,
    log: BTreeMap<RunId, Positions>,
    marks: u32,
    ended: BTreeMap<RunId, Option<i32>>,
    exits: i32,
    kind: std::marker::PhantomData<K>,
}

impl<K: Kind> StateMachineTest for Pair<K> {
    type SystemUnderTest = Self;
    type Reference = Model<K>;

    fn init_test(_: &BTreeSet<u8>) -> Self {
        let mut pair = Self {
            hub: HubRuns::new(),
            node: node(),
            to_hub: VecDeque::new(),
            to_node: VecDeque::new(),
            links: 0,
            clock: T0,
            up: false,
            pending: VecDeque::new(),
            decisions: VecDeque::new(),
            spawned: BTreeMap::new(),
            live: BTreeSet::new(),
            truth: BTreeMap::new(),
            written: BTreeMap::new(),
            log: BTreeMap::new(),
            marks: 0,
            ended: BTreeMap::new(),
            exits: 0,
            kind: std::marker::PhantomData,
        };
        pair.connect();
        pair
    }

    fn apply(mut pair: Self, _: &BTreeSet<u8>, step: Step) -> Self {
        pair.step(step);
        pair
    }

    fn check_invariants(pair: &Self, _: &BTreeSet<u8>) {
        assert!(pair.spawned.values().all(|times| *times <= 1), "executed twice");
        assert_eq!(pair.marks, 0, "nothing was lost");
        for (run, at) in &pair.log {
            assert!(pair.written[run].covers(*at), "{run}: more than was written");
        }
    }

    fn teardown(mut pair: Self, asked: BTreeSet<u8>) {
        for _ in 0..60 {
            pair.step(Step::Connect);
            pair.step(Step::Advance);
            (0..4).for_each(|run| pair.step(Step::Exit(run)));
            for step in [Step::ToNode(255), Step::ToHub(255), Step::Commit(true), Step::Sync] {
                pair.step(step);
            }
        }
        Self::check_invariants(&pair, &asked);
        for run in asked.iter().map(|run| id(*run)) {
            assert!(pair.ended.contains_key(&run), "{run} ended");
            let (log, written) = (pair.log.get(&run), pair.written.get(&run));
            assert_eq!(log.copied().unwrap_or_default(), written.copied().unwrap_or_default(), "{run}");
        }
        assert_eq!((pair.hub.len(), pair.node.held()), (0, 0), "nothing is left");
    }
}

impl<K> Pair<K> {
    fn step(&mut self, step: Step) {
        match step {
            Step::Submit(run) if !self.written.contains_key(&id(run)) => {
                self.written.insert(id(run), Positions::default());
                self.hub.submit(start(run), self.clock);
            }
            Step::Submit(_) => {}
            Step::Advance => self.advance(),
            Step::Write(run, stderr, len) => self.write(id(run), stderr, u64::from(len)),
            Step::Exit(run) => self.exit(id(run)),
            Step::ToHub(count) => (0..count).for_each(|_| self.one_to_hub()),
            Step::ToNode(count) => (0..count).for_each(|_| self.one_to_node()),
            Step::Commit(works) => self.commit(works),
            Step::Sync => self.sync(),
            Step::Cut => self.cut(),
            Step::Connect => self.connect(),
        }
        self.carry_out();
    }

    fn connect(&mut self) {
        if self.up {
            return;
        }
        self.up = true;
        self.links += 1;
        let reports = self.node.reports();
        let policy = Policy::strict(NodeId::mint(1, &[0; 10]), WallTime(0));
        let welcome =
            Welcome { generation: Generation(1), name: "n".into(), policy: policy.into(), audit_head: None };
        self.to_node.push_back(Envelope { epoch: Epoch(self.links), message: ToNode::Welcome(welcome) });
        self.hub.attached(LinkId(self.links), reports);
        self.carry_out();
    }

    /// What is on its way is lost.
    fn cut(&mut self) {
        if std::mem::take(&mut self.up) {
            self.to_hub.clear();
            self.to_node.clear();
            self.node.disconnected();
            self.hub.detached(LinkId(self.links), self.clock);
        }
    }

    fn one_to_hub(&mut self) {
        if let Some(message) = self.to_hub.pop_front() {
            self.hub.handle(LinkId(self.links), message);
        }
        self.carry_out();
    }

    fn one_to_node(&mut self) {
        if let Some(envelope) = self.to_node.pop_front() {
            self.node.handle(envelope, T0);
        }
        self.carry_out();
    }

    fn advance(&mut self) {
        while let Some(action) = self.pending.pop_front() {
            match action {
                node_runs::Action::Journal(Record::Accepted(run)) => self.node.journaled(run),
                node_runs::Action::Spawn { start, .. } => {
                    *self.spawned.entry(start.run).or_default() += 1;
                    self.live.insert(start.run);
                    self.node.spawned(start.run, T0);
                }
                other => panic!("not kept: {other:?}"),
            }
            self.carry_out();
        }
    }

    fn write(&mut self, run: RunId, stderr: bool, len: u64) {
        if self.live.contains(&run) {
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let at = self.written.entry(run).or_default();
            self.truth.entry(run).or_default().push((*at, stream, len));
            at.advance(stream, len);
            self.node.wrote(run, stream, len);
        }
    }

    fn exit(&mut self, run: RunId) {
        if self.live.remove(&run) {
            let output = Positions::default();
            // A code of its own, so that one end is told from another.
            self.exits += 1;
            let (cause, code) = (EndCause::Exited, Some(self.exits));
            self.node
                .ended(run, Ended { cause, code, signal: None, duration_ms: 1, output, diagnostic: None });
        }
    }

    fn commit(&mut self, works: bool) {
        if !works {
            // They stay in their order until the store takes them.
            return;
        }
        for (run, command) in std::mem::take(&mut self.decisions) {
            match command {
                Command::End(ended) => {
                    assert_eq!(ended.cause, EndCause::Exited);
                    // A store keeps the first; a node that was not heard tells the same once more.
                    let first = self.ended.entry(run).or_insert(ended.code);
                    assert_eq!(*first, ended.code, "ended twice");
                    self.hub.settled(run);
                }
                Command::Lose { .. } => panic!("{run} was lost and nobody crashed"),
                Command::Start(_) | Command::Disconnect | Command::Reattach | Command::Cancel { .. } => {}
            }
        }
    }

    fn sync(&mut self) {
        for (run, at) in &self.log {
            self.hub.written(*run, at.total());
            self.hub.synced(*run, at.total());
        }
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.hub.poll_action() {
            self.hub_action(action);
        }
        while let Some(action) = self.node.poll_action() {
            match action {
                node_runs::Action::Send(message) if self.up => self.to_hub.push_back(message),
                node_runs::Action::Journal(Record::Accepted(_)) | node_runs::Action::Spawn { .. } => {
                    self.pending.push_back(action);
                }
                node_runs::Action::Close { .. } => panic!("closed: {action:?}"),
                _ => {}
            }
        }
        while let Some((run, position, len)) = self.node.poll_output().filter(|_| self.up) {
            let frame = self.read(run, position, len);
            self.node.sent(run, frame.data.len() as u64);
            self.to_hub.push_back(ToHub::Output(frame));
        }
        while let Some(end) = self.node.poll_end() {
            self.to_hub.push_back(end);
        }
    }

    fn hub_action(&mut self, action: hub_runs::Action) {
        match action {
            hub_runs::Action::Send(message) => {
                self.to_node.push_back(Envelope { epoch: Epoch(self.links), message });
            }
            hub_runs::Action::Decide(run, command) => self.decisions.push_back((run, command)),
            hub_runs::Action::Append { run, stream, offset, data } => {
                let log = self.log.entry(run).or_default();
                assert_eq!(log.of(stream), offset, "output follows");
                let at = log.total();
                let piece = self.truth[&run]
                    .iter()
                    .find(|(from, _, len)| (from.total()..from.total() + len).contains(&at));
                assert_eq!(
                    piece.map(|(_, stream, _)| *stream),
                    Some(stream),
                    "in the order in which it was written"
                );
                log.advance(stream, data.len() as u64);
            }
            hub_runs::Action::Mark { .. } => self.marks += 1,
            hub_runs::Action::CloseLink(refusal) => panic!("taken for broken: {refusal}"),
            hub_runs::Action::Finish(_) | hub_runs::Action::InputTaken(..) | hub_runs::Action::Closed(_) => {}
        }
    }

    fn read(&self, run: RunId, position: u64, len: u64) -> Frame {
        let mut pieces = self.truth[&run].iter();
        let holds = |from: &Positions, len: u64| (from.total()..from.total() + len).contains(&position);
        let (from, stream, whole) = pieces.find(|(from, _, len)| holds(from, *len)).expect("it was written");
        let skip = position - from.total();
        let data = Bytes::from(vec![0; usize::try_from(len.min(whole - skip)).expect("a frame")]);
        Frame { run, stream: *stream, position, offset: from.of(*stream) + skip, data }
    }
}

fn id(run: u8) -> RunId {
    RunId::mint(1, &[run; 10])
}

fn node() -> NodeRuns {
    let mut node = NodeRuns::restore(Generation(0), Epoch(0), []);
    node.stand_on(Ground { level: Some(Level::Full), ..Ground::default() });
    node
}

fn start(run: u8) -> Start {
    let spec = RunSpec { argv: vec!["echo".into()], ..RunSpec::default() };
    Start {
        run: id(run),
        spec,
        caller: "a".into(),
        policy_revision: Revision(1),
        traceparent: None,
        consent: None,
        task: None,
    }
}
