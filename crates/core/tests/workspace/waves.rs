//! Waves over disks of nodes: whoever carries steps out keeps nothing in mind between two of them, and is
//! cut off in the middle of any. What is left are rows, the trees that the hub holds, and the disks.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::files::content::TreeId;
use cortex_core::sync::{self, End, Rule};
use cortex_core::workspace::{Command, Complete, MemberState, Mode, Planning, Role, Source, Step, next};
use proptest::prelude::*;

use super::rows::{ADA, Rows, halt_id, member, root, whole};

const NODES: u8 = 4;

/// Paths with contents.
type Tree = BTreeMap<u8, u8>;

fn id(tree: &Tree) -> TreeId {
    let bytes: Vec<u8> = tree.iter().flat_map(|(path, content)| [*path, *content]).collect();
    TreeId::of(&bytes)
}

/// Where a step is cut off, or meddled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    None,
    /// What came of it is not stored.
    BeforeRow,
    /// The commit is stored, and no more is done.
    AfterCommit,
    /// Half of the node's steps are done.
    InApply,
    /// Somebody writes on the node between the plan and its steps.
    Meddled(u8, u8),
}

#[derive(Clone, Debug)]
enum Act {
    Work { node: u8, cut: Cut },
    Write { node: u8, path: u8, content: Option<u8>, told: bool },
    Edit { path: u8, content: Option<u8> },
    Empty(u8),
    Net { node: u8, up: bool },
    Lock,
    Unlock,
    Resync { node: u8, repair: bool },
    Accept(u8),
    Detach(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let node = || 0..NODES;
    let content = || prop::option::weighted(0.8, 1_u8..5);
    let cut = prop_oneof![
        6 => Just(Cut::None),
        1 => Just(Cut::BeforeRow),
        1 => Just(Cut::AfterCommit),
        1 => Just(Cut::InApply),
        1 => (0_u8..5, 1_u8..5).prop_map(|(path, content)| Cut::Meddled(path, content)),
    ];
    prop_oneof![
        12 => (node(), cut).prop_map(|(node, cut)| Act::Work { node, cut }),
        4 => (node(), 0_u8..5, content(), any::<bool>())
            .prop_map(|(node, path, content, told)| Act::Write { node, path, content, told }),
        2 => (0_u8..5, content()).prop_map(|(path, content)| Act::Edit { path, content }),
        1 => node().prop_map(Act::Empty),
        2 => (node(), any::<bool>()).prop_map(|(node, up)| Act::Net { node, up }),
        1 => Just(Act::Lock),
        1 => Just(Act::Unlock),
        1 => (node(), any::<bool>()).prop_map(|(node, repair)| Act::Resync { node, repair }),
        1 => node().prop_map(Act::Accept),
        1 => (0_u8..12).prop_map(Act::Detach),
    ]
}

struct Node {
    disk: Tree,
    is_up: bool,
    /// Somebody, and not a sync, wrote here.
    is_touched: bool,
}

struct World {
    rows: Rows,
    /// What the hub's chunk store holds.
    held: BTreeMap<TreeId, Tree>,
    nodes: Vec<Node>,
}

impl World {
    fn new(mode: Mode) -> Self {
        let empty = Tree::new();
        let mut world = Self { rows: Rows::new(mode, id(&empty)), held: BTreeMap::new(), nodes: Vec::new() };
        world.hold(&empty);
        for number in 0..NODES {
            let role = match (mode, number) {
                (Mode::NodePrimary, 0) => Role::Lead,
                (Mode::HubPrimary, 0 | 1) => Role::Peer,
                _ => Role::Follower,
            };
            world.rows.attach(number, role).expect("attached");
            world.nodes.push(Node { disk: Tree::new(), is_up: true, is_touched: false });
        }
        world
    }

    /// The chunk store takes a tree and proves it.
    fn hold(&mut self, tree: &Tree) -> Complete {
        self.held.insert(id(tree), tree.clone());
        whole(id(tree))
    }

    fn tell(&mut self, number: u8) {
        let tree = id(&self.nodes[usize::from(number)].disk);
        let news = Command::Observed { member: member(number), root: root(number), tree };
        // Of one that was detached nothing is known.
        let told = self.rows.decide(news);
        assert_eq!(told.is_ok(), self.rows.member(number).is_some());
    }

    fn play(&mut self, act: &Act) {
        match *act {
            Act::Work { node, cut } => {
                self.work(node, cut);
            }
            Act::Write { node, path, content, told } => {
                self.write(node, path, content);
                if told && self.nodes[usize::from(node)].is_up {
                    self.tell(node);
                }
            }
            Act::Edit { path, content } => {
                let mut tree = self.held[&self.rows.ws.tree].clone();
                put(&mut tree, path, content);
                self.hold(&tree);
                // Refused when a node leads, or under a lock.
                let _refused = self.rows.edit(id(&tree)).is_err();
            }
            Act::Empty(node) => {
                let node = &mut self.nodes[usize::from(node)];
                (node.disk, node.is_touched) = (Tree::new(), true);
            }
            Act::Net { node, up } => {
                self.nodes[usize::from(node)].is_up = up;
                if up {
                    self.tell(node);
                }
            }
            Act::Lock => {
                let _held =
                    self.rows.decide(Command::Lock { holder: ADA.to_owned(), ttl_ms: 60_000 }).is_err();
            }
            Act::Unlock => {
                let _free = self.rows.decide(Command::Unlock { epoch: self.rows.ws.epoch }).is_err();
            }
            Act::Resync { node, repair } => {
                let by = ADA.to_owned();
                let _halted = self.rows.decide(Command::Resync { member: member(node), repair, by }).is_err();
            }
            Act::Accept(node) => self.accept(node),
            Act::Detach(node) => {
                let by = ADA.to_owned();
                let _unknown = self.rows.decide(Command::Detach { member: member(node), by }).is_err();
            }
        }
    }

    fn write(&mut self, number: u8, path: u8, content: Option<u8>) {
        let node = &mut self.nodes[usize::from(number)];
        put(&mut node.disk, path, content);
        node.is_touched = true;
    }

    fn accept(&mut self, number: u8) {
        let halt = self.rows.member(number).and_then(|row| row.halt.as_ref()).map(|halt| halt.id);
        if let Some(halt) = halt {
            let by = ADA.to_owned();
            self.rows.decide(Command::Accept { member: member(number), halt, by }).expect("its own id");
        }
    }

    /// One step of one member, by somebody who knows nothing but rows. Tells whether there was one.
    fn work(&mut self, number: u8, cut: Cut) -> bool {
        let Some(row) = self.rows.member(number) else { return false };
        let node = &self.nodes[usize::from(number)];
        match next(&self.rows.ws, row, node.is_up) {
            Step::Nothing | Step::Wait(_) | Step::Stopped(_) => return false,
            Step::Scan => {
                if cut != Cut::BeforeRow {
                    self.tell(number);
                }
            }
            Step::Send => {
                let complete = self.hold(&node.disk.clone());
                if cut != Cut::BeforeRow {
                    self.rows.decide(Command::Received { member: member(number), complete }).expect("seen");
                }
            }
            Step::Plan(planning) => self.plan(number, planning, cut),
        }
        true
    }

    fn plan(&mut self, number: u8, planning: Planning, cut: Cut) {
        let at = usize::from(number);
        let hub = self.held[&planning.hub].clone();
        let agreed = planning.agreed.map(|agreed| self.held[&agreed].clone()).unwrap_or_default();
        if id(&self.nodes[at].disk) != planning.node && !self.held.contains_key(&planning.node) {
            // The node is asked for what it does not have any more.
            return self.tell(number);
        }
        let seen = self.held.get(&planning.node).unwrap_or(&self.nodes[at].disk).clone();
        if planning.mode.writes(End::Hub) {
            assert!(self.held.contains_key(&planning.node), "what may become a revision was sent before");
        }
        let merged = merge(planning.mode, &hub, &seen, &agreed);
        let is_emptied = seen.is_empty() && agreed.len() >= 2 && planning.mode.writes(End::Hub);
        if is_emptied && merged.hub != hub {
            let halt = super::rows::halt(u8::try_from(agreed.len()).expect("few"), Rule::RootEmptied);
            if planning.accepted != Some(halt.id) {
                assert_eq!(halt.id, halt_id(u8::try_from(agreed.len()).expect("few")));
                if cut != Cut::BeforeRow {
                    self.rows
                        .decide(Command::Halt { member: member(number), planning, halt })
                        .expect("planned");
                }
                return;
            }
        }
        if cut == Cut::BeforeRow {
            return;
        }
        let is_idle = merged.hub == hub && merged.node == seen;
        if is_idle {
            let agreed = self.hold(&merged.agreed);
            self.rows.decide(Command::Settled { member: member(number), planning, agreed }).expect("planned");
            return;
        }
        if merged.hub != hub {
            // What the node had, as the hub's new tree holds all of it.
            let (complete, agreed) = (self.hold(&merged.hub), self.hold(&seen));
            let source = Source::Member { id: member(number), agreed, conflicts: merged.conflicts };
            self.rows
                .decide(Command::Commit {
                    complete,
                    expect: planning.to,
                    source,
                    by: format!("node:{number}"),
                    note: String::new(),
                    lock: None,
                })
                .expect("planned");
        }
        if cut == Cut::AfterCommit || merged.node == seen {
            return;
        }
        if let Cut::Meddled(path, content) = cut {
            self.write(number, path, Some(content));
        }
        let node = &mut self.nodes[at];
        let paths: BTreeSet<u8> = seen.keys().chain(merged.node.keys()).copied().collect();
        let changed: Vec<u8> =
            paths.into_iter().filter(|path| seen.get(path) != merged.node.get(path)).collect();
        let done = if cut == Cut::InApply { changed.len() / 2 } else { changed.len() };
        let mut is_whole = done == changed.len();
        for path in &changed[..done] {
            // The target is looked at again before it is replaced.
            let is_as_planned = node.disk.get(path) == seen.get(path);
            is_whole &= is_as_planned;
            if is_as_planned {
                put(&mut node.disk, *path, merged.node.get(path).copied());
            }
        }
        if cut == Cut::InApply {
            return;
        }
        let tree = id(&node.disk);
        // What both sides agree on when some paths were left: those that are as they were to be.
        let mut left = merged.agreed;
        if !is_whole {
            for path in changed.iter().filter(|path| node.disk.get(path) != merged.node.get(path)) {
                put(
                    &mut left,
                    *path,
                    seen.get(path).filter(|_| merged.hub != hub).or(agreed.get(path)).copied(),
                );
            }
        }
        let agreed = self.hold(&left);
        let conflicts = if merged.hub == hub { merged.conflicts } else { 0 };
        self.rows
            .decide(Command::Applied { member: member(number), planning, tree, agreed, conflicts })
            .expect("it was done");
    }

    /// Everybody comes back, nobody writes, halts are let pass: what is left to do is done.
    fn settle(&mut self) {
        if self.rows.ws.lock.is_some() {
            self.rows.decide(Command::Unlock { epoch: self.rows.ws.epoch }).expect("locked");
        }
        for number in 0..NODES {
            self.nodes[usize::from(number)].is_up = true;
            self.tell(number);
        }
        for _ in 0..60 {
            let mut is_busy = false;
            for number in 0..NODES {
                is_busy |= self.work(number, Cut::None);
                self.accept(number);
            }
            if !is_busy {
                return;
            }
        }
        panic!("the wave does not end: {:?}", self.rows.members);
    }

    fn check_settled(&self) {
        let ws = &self.rows.ws;
        for number in 0..NODES {
            let Some(row) = self.rows.member(number) else { continue };
            let node = &self.nodes[usize::from(number)];
            assert_eq!(next(ws, row, true), Step::Nothing);
            let is_same = id(&node.disk) == ws.tree;
            match row.state(ws) {
                MemberState::InSync => assert!(is_same, "who is in sync has the tree on its disk"),
                MemberState::Conflict => assert!(is_same || row.role == Role::Follower),
                MemberState::Drifted => {
                    assert!(node.is_touched && row.role == Role::Follower, "only a follower drifts: {row:?}");
                    assert!(row.drift_since.is_some() && !is_same);
                }
                other => panic!("{other:?} after the wave: {row:?}"),
            }
        }
    }
}

fn put(tree: &mut Tree, path: u8, content: Option<u8>) {
    match content {
        Some(content) => tree.insert(path, content),
        None => tree.remove(&path),
    };
}

#[derive(Debug, Default)]
struct Merged {
    hub: Tree,
    node: Tree,
    agreed: Tree,
    conflicts: u64,
}

/// What the planner does, for trees without folders.
fn merge(mode: sync::Mode, hub: &Tree, node: &Tree, agreed: &Tree) -> Merged {
    let mut merged = Merged { hub: hub.clone(), node: node.clone(), agreed: agreed.clone(), conflicts: 0 };
    let paths: BTreeSet<u8> = hub.keys().chain(node.keys()).chain(agreed.keys()).copied().collect();
    for path in paths {
        let (h, n, a) = (hub.get(&path).copied(), node.get(&path).copied(), agreed.get(&path).copied());
        let repair = mode == sync::Mode::FromHub { repair: true };
        let wanted = match mode {
            _ if h == n => Some(h),
            sync::Mode::FromNode => Some(n),
            _ if n == a => Some(h),
            sync::Mode::TwoWay if h == a || h.is_none() => Some(n),
            sync::Mode::TwoWay if n.is_none() => Some(h),
            sync::Mode::FromHub { .. } if !repair || h.is_none() => None,
            sync::Mode::TwoWay | sync::Mode::FromHub { .. } | sync::Mode::Push(_) => {
                if let Some(own) = n {
                    let is_free =
                        |copy: &u8| !merged.hub.contains_key(copy) && !merged.node.contains_key(copy);
                    let copy = (100..=u8::MAX).find(is_free).expect("a free name");
                    merged.node.insert(copy, own);
                    if mode == sync::Mode::TwoWay {
                        merged.hub.insert(copy, own);
                        merged.agreed.insert(copy, own);
                    }
                    merged.conflicts += 1;
                }
                Some(h)
            }
        };
        if let Some(wanted) = wanted {
            for tree in [&mut merged.hub, &mut merged.node, &mut merged.agreed] {
                put(tree, path, wanted);
            }
        }
    }
    merged
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn r16_1_a_wave_that_is_cut_at_any_moment_resumes_from_rows_alone_and_ends(
        is_hub in any::<bool>(),
        acts in prop::collection::vec(act(), 0..70),
    ) {
        let mut world = World::new(if is_hub { Mode::HubPrimary } else { Mode::NodePrimary });
        for act in &acts {
            world.play(act);
        }
        world.settle();
        world.check_settled();
    }
}

proptest! {
    // Each case plays seventy-two waves.
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same wave, cut after each number of steps in turn.
    #[test]
    fn r16_1_every_prefix_of_a_wave_may_be_the_last_before_a_crash(
        is_hub in any::<bool>(),
        writes in prop::collection::vec((0_u8..2, 0_u8..5, prop::option::weighted(0.8, 1_u8..5)), 1..8),
    ) {
        let mode = if is_hub { Mode::HubPrimary } else { Mode::NodePrimary };
        for steps in 0..24 {
            for cut in [Cut::BeforeRow, Cut::AfterCommit, Cut::InApply] {
                let mut world = World::new(mode);
                world.settle();
                for (node, path, content) in &writes {
                    // The lead alone, or two peers.
                    world.write(if is_hub { *node } else { 0 }, *path, *content);
                }
                for number in 0..NODES {
                    world.tell(number);
                }
                for step in 0..steps {
                    world.work(step % NODES, Cut::None);
                }
                world.work(steps % NODES, cut);
                world.settle();
                world.check_settled();
                for row in &world.rows.members {
                    let state = row.state(&world.rows.ws);
                    prop_assert!([MemberState::InSync, MemberState::Conflict].contains(&state), "{:?}", row);
                }
            }
        }
    }
}
