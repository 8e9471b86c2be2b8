//! A hub and the disks of four nodes, with the planner in between.

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::sync::{
    self, DeleteLimits, Entry, Inputs, NameRules, Plan, RootState, Seen, Side, SideCounts,
};
use cortex_core::workspace::{Command, Complete, MemberState, Mode, Planning, Role, Source, Step, next};
use proptest::sample::Index;

use super::disk::{Disk, counts, rel};
use super::rows::{ADA, Rows, member, root, whole};
use super::trees::{Edit, play};

pub(crate) const NODES: u8 = 4;

/// A tree of the hub.
pub(crate) type Tree = BTreeMap<RelPath, Entry>;

/// Where a step is cut off, or meddled with.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    None,
    /// What came of it is not stored.
    BeforeRow,
    /// Some of the node's steps are done.
    InApply(usize),
    /// Somebody takes all back when its steps are done, before that is told.
    Undone,
    /// Somebody makes a folder on the node before its steps are done.
    Made(&'static str),
    /// Somebody writes on the node while its steps are done.
    Meddled(usize, Vec<Edit>),
}

#[derive(Clone, Debug)]
pub(crate) enum Act {
    Work { node: u8, cut: Cut },
    Write { node: u8, edits: Vec<Edit>, told: bool },
    Edit(Vec<Edit>),
    Net { node: u8, up: bool },
    Lock,
    Unlock,
    Resync { node: u8, repair: bool },
    Accept(u8),
    Detach(u8),
    Restore(Index),
}

struct Node {
    disk: Disk,
    is_up: bool,
    /// Somebody, and not a sync, wrote here.
    is_touched: bool,
    /// What somebody wrote here, and nobody who saw it removed.
    own: BTreeSet<ContentId>,
}

pub(crate) struct World {
    pub(crate) rows: Rows,
    /// What the hub's chunk store holds.
    held: BTreeMap<TreeId, Tree>,
    nodes: Vec<Node>,
    /// Each writes in a folder of its own.
    is_apart: bool,
    /// Each content is written once.
    written: u64,
    /// What somebody wrote where it becomes a revision, and nobody who saw it removed.
    live: BTreeSet<ContentId>,
    /// What may be there twice: it was renamed or made executable, which is a version of its own, or an old
    /// revision was restored.
    moved: BTreeSet<ContentId>,
}

pub(crate) fn id(tree: &Tree) -> TreeId {
    TreeId::of(format!("{tree:?}").as_bytes())
}

fn entries(disk: &Disk) -> Tree {
    disk.entries.iter().filter_map(|(path, seen)| Some((path.clone(), seen.entry()?.clone()))).collect()
}

fn disk_of(tree: &Tree) -> Disk {
    let seen = tree.iter().map(|(path, entry)| (path.clone(), Seen::Entry(entry.clone())));
    Disk { entries: seen.collect(), folds: false }
}

fn contents(tree: &Tree) -> BTreeMap<ContentId, usize> {
    let mut found = BTreeMap::new();
    for entry in tree.values() {
        if let Entry::File { id, .. } = entry {
            *found.entry(*id).or_default() += 1;
        }
    }
    found
}

fn patched(base: &Tree, changes: &[(RelPath, Option<Entry>)], failed: &BTreeSet<RelPath>) -> Tree {
    let mut tree = base.clone();
    for (path, entry) in changes.iter().filter(|(path, _)| !failed.contains(path)) {
        match entry {
            Some(entry) => tree.insert(path.clone(), entry.clone()),
            None => tree.remove(path),
        };
    }
    for path in tree.keys() {
        let folder = path.parent().expect("not the root");
        assert!(folder.is_root() || tree.get(&folder) == Some(&Entry::Dir), "{path} is in no folder");
    }
    tree
}

impl World {
    pub(crate) fn new(mode: Mode, is_apart: bool) -> Self {
        let empty = Tree::new();
        let mut world = Self {
            rows: Rows::new(mode, id(&empty)),
            held: BTreeMap::new(),
            nodes: Vec::new(),
            is_apart,
            written: 0,
            live: BTreeSet::new(),
            moved: BTreeSet::new(),
        };
        world.hold(&empty);
        for number in 0..NODES {
            let role = match (mode, number) {
                (Mode::NodePrimary, 0) => Role::Lead,
                (Mode::HubPrimary, 0..=2) => Role::Peer,
                _ => Role::Follower,
            };
            world.rows.attach(number, role).expect("attached");
            let (disk, own) = (Disk::default(), BTreeSet::new());
            world.nodes.push(Node { disk, is_up: true, is_touched: false, own });
        }
        world
    }

    pub(crate) fn head(&self) -> &Tree {
        &self.held[&self.rows.ws.tree]
    }

    pub(crate) fn disk(&self, number: u8) -> Tree {
        entries(&self.nodes[usize::from(number)].disk)
    }

    /// The chunk store takes a tree and proves it.
    fn hold(&mut self, tree: &Tree) -> Complete {
        self.held.insert(id(tree), tree.clone());
        whole(id(tree))
    }

    pub(crate) fn tell(&mut self, number: u8) {
        let tree = id(&self.disk(number));
        let news = self.rows.member(number).map_or(0, |member| member.news);
        let told = Command::Observed { member: member(number), root: Some(root(number)), tree, news };
        // Of one that was detached nothing is known.
        let told = self.rows.decide(told);
        assert_eq!(told.is_ok(), self.rows.member(number).is_some());
    }

    pub(crate) fn play(&mut self, act: &Act) {
        match act {
            Act::Work { node, cut } => {
                self.work(*node, cut);
            }
            Act::Write { node, edits, told } => {
                self.write(*node, edits);
                if *told && self.nodes[usize::from(*node)].is_up {
                    self.tell(*node);
                }
            }
            Act::Edit(edits) => {
                let before = self.head().clone();
                let after = self.edited(&before, edits, "hub");
                self.edit(&before, &after);
            }
            Act::Net { node, up } => {
                self.nodes[usize::from(*node)].is_up = *up;
                if *up {
                    self.tell(*node);
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
                let (member, by, repair) = (member(*node), ADA.to_owned(), *repair);
                let _halted = self.rows.decide(Command::Resync { member, repair, by }).is_err();
            }
            Act::Accept(node) => {
                self.accept(*node);
            }
            Act::Detach(node) => {
                // Its lead or a peer takes with it what the hub has not seen of it.
                if let Some(row) = self.rows.member(*node)
                    && row.role == Role::Follower
                {
                    let by = ADA.to_owned();
                    self.rows.decide(Command::Detach { member: member(*node), by }).expect("a member");
                }
            }
            Act::Restore(which) => self.restore(which),
        }
    }

    fn restore(&mut self, which: &Index) {
        if self.is_apart {
            return;
        }
        let of = self.rows.revisions[which.index(self.rows.revisions.len())].clone();
        let (before, after) = (self.head().clone(), self.held[&of.tree].clone());
        let restore = Command::Restore { complete: whole(of.tree), of, by: ADA.to_owned(), lock: None };
        if self.rows.decide(restore).is_ok() {
            self.moved.extend(contents(&after).into_keys());
            let live = self.live.clone();
            self.account(None, &before, &after);
            // What comes back is as it was agreed on: who removed it meanwhile removes it.
            self.live.retain(|id| live.contains(id));
        }
    }

    /// A write through the hub; refused when a node leads, or under a lock.
    fn edit(&mut self, before: &Tree, after: &Tree) {
        self.hold(after);
        if self.rows.edit(id(after)).is_ok() {
            self.account(None, before, after);
        }
    }

    pub(crate) fn write(&mut self, number: u8, edits: &[Edit]) {
        let before = self.disk(number);
        let after = self.edited(&before, edits, &format!("n{number}"));
        self.change(number, &before, &after);
    }

    fn change(&mut self, number: u8, before: &Tree, after: &Tree) {
        let node = &mut self.nodes[usize::from(number)];
        node.disk = disk_of(after);
        node.is_touched |= before != after;
        self.account(Some(number), before, after);
    }

    /// Somebody writes a file on a node or at the hub, or removes it.
    pub(crate) fn put(&mut self, node: Option<u8>, path: &str, content: Option<u8>) {
        let before = node.map_or_else(|| self.head().clone(), |number| self.disk(number));
        let mut after = before.clone();
        match content {
            None => after.remove(&rel(path)),
            Some(content) => {
                let id = ContentId::of(&[content]);
                after.insert(rel(path), Entry::File { id, map: None, size: 1, exec: false })
            }
        };
        match node {
            Some(number) => self.change(number, &before, &after),
            None => self.edit(&before, &after),
        }
    }

    /// Somebody makes a folder at the hub.
    pub(crate) fn make(&mut self, path: &str) {
        let before = self.head().clone();
        let mut after = before.clone();
        after.insert(rel(path), Entry::Dir);
        self.edit(&before, &after);
    }

    /// What becomes of a tree by edits, each content of which is a new one.
    fn edited(&mut self, tree: &Tree, edits: &[Edit], writer: &str) -> Tree {
        let mut unique = |edit: &Edit| {
            self.written += 1;
            let id = ContentId::of(&self.written.to_le_bytes());
            let new = |entry: &Entry| match entry {
                Entry::File { exec, .. } => Entry::File { id, map: None, size: 8, exec: *exec },
                Entry::Dir | Entry::Link { .. } => entry.clone(),
            };
            match edit {
                Edit::Put(at, name, leaf) => Edit::Put(*at, *name, new(leaf)),
                Edit::Retype(at, to) => Edit::Retype(*at, new(to)),
                _ => edit.clone(),
            }
        };
        let edits: Vec<Edit> = edits.iter().map(&mut unique).collect();
        if !self.is_apart {
            let mut disk = disk_of(tree);
            play(&mut disk, &edits);
            return entries(&disk);
        }
        let own = rel(writer);
        let inside = tree.iter().filter_map(|(path, entry)| {
            let rest = path.as_str().strip_prefix(writer)?.strip_prefix('/')?;
            Some((rel(rest), entry.clone()))
        });
        let mut disk = disk_of(&inside.collect());
        play(&mut disk, &edits);
        let mut after = tree.clone();
        after.retain(|path, _| path.below(&own).is_none());
        after.insert(own, Entry::Dir);
        after.extend(
            entries(&disk).into_iter().map(|(path, entry)| (rel(&format!("{writer}/{path}")), entry)),
        );
        after
    }

    /// Notes what a person wrote, and what he removed or replaced.
    fn account(&mut self, node: Option<u8>, before: &Tree, after: &Tree) {
        let is_source =
            node.is_none_or(|number| self.rows.member(number).is_some_and(|row| row.role.is_source()));
        let (was, is) = (contents(before), contents(after));
        let moved = is.keys().filter(|id| {
            let at = |tree: &Tree| -> Vec<(RelPath, Entry)> {
                let has = |entry: &Entry| matches!(entry, Entry::File { id: other, .. } if other == *id);
                tree.iter().filter(|(_, entry)| has(entry)).map(|(p, e)| (p.clone(), e.clone())).collect()
            };
            was.contains_key(id) && at(before) != at(after)
        });
        self.moved.extend(moved);
        for own in self.nodes.iter_mut().map(|node| &mut node.own) {
            own.retain(|id| was.get(id).is_none_or(|count| is.get(id) >= Some(count)));
        }
        self.live.retain(|id| was.get(id).is_none_or(|count| is.get(id) >= Some(count)));
        let new = is.into_keys().filter(|id| !was.contains_key(id));
        match node {
            Some(number) if !is_source => self.nodes[usize::from(number)].own.extend(new),
            Some(_) | None => self.live.extend(new),
        }
    }

    /// A person lets a halt pass. Tells whether there was one.
    fn accept(&mut self, number: u8) -> bool {
        let halt = self.rows.member(number).and_then(|row| row.halt.as_ref()).map(|halt| halt.id);
        if let Some(halt) = halt {
            let by = ADA.to_owned();
            self.rows.decide(Command::Accept { member: member(number), halt, by }).expect("its own id");
        }
        halt.is_some()
    }

    /// One step of one member, by somebody who knows nothing but rows. Tells whether there was one.
    pub(crate) fn work(&mut self, number: u8, cut: &Cut) -> bool {
        let Some(row) = self.rows.member(number) else { return false };
        let is_stored = !matches!(cut, Cut::BeforeRow);
        match next(&self.rows.ws, row, self.nodes[usize::from(number)].is_up) {
            Step::Nothing | Step::Wait(_) | Step::Stopped(_) => return false,
            Step::Scan => {
                if is_stored {
                    self.tell(number);
                }
            }
            Step::Send => {
                let complete = self.hold(&self.disk(number));
                if is_stored {
                    self.rows.decide(Command::Received { member: member(number), complete }).expect("seen");
                }
            }
            Step::Merge(planning) => self.merge(number, planning, is_stored),
            Step::Apply(planning) => self.apply(number, planning, cut),
        }
        true
    }

    fn planned(&self, number: u8, planning: &Planning, node: &Tree) -> Plan {
        let agreed = planning.agreed.map(|agreed| self.held[&agreed].clone()).unwrap_or_default();
        let (hub, node) = (disk_of(&self.held[&planning.hub]), disk_of(node));
        let of = |tree: &Tree| -> SideCounts { counts(tree.iter()) };
        sync::plan(&Inputs {
            agreed: &agreed,
            agreed_counts: of(&agreed),
            hub: Side { entries: &hub.entries, counts: hub.counts(), root: RootState::Dir },
            node: Side { entries: &node.entries, counts: node.counts(), root: RootState::Dir },
            mode: planning.mode,
            limits: DeleteLimits { files: 3, ..DeleteLimits::default() },
            names: NameRules::default(),
            node_name: &format!("n{number}"),
            revision: planning.to,
            accepted: planning.accepted,
        })
    }

    fn halted(&mut self, number: u8, planning: Planning, plan: &Plan, is_stored: bool) -> bool {
        let Some(halt) = plan.halt.clone() else { return false };
        if is_stored {
            self.rows.decide(Command::Halt { member: member(number), planning, halt }).expect("planned");
        }
        true
    }

    fn merge(&mut self, number: u8, planning: Planning, is_stored: bool) {
        let node = self.held[&planning.node].clone();
        let plan = self.planned(number, &planning, &node);
        if self.halted(number, planning, &plan, is_stored) || !is_stored {
            return;
        }
        let base = planning.agreed.map(|agreed| self.held[&agreed].clone()).unwrap_or_default();
        let agreed = patched(&base, &plan.agreed, &BTreeSet::new());
        let agreed = self.hold(&agreed);
        if plan.to_hub.is_empty() {
            self.rows.decide(Command::Merged { member: member(number), planning, agreed }).expect("planned");
            return;
        }
        let mut hub = disk_of(&self.held[&planning.hub]);
        hub.apply_all(&plan.to_hub).expect("a plan that can be carried out");
        let complete = self.hold(&entries(&hub));
        let conflicts = plan.conflicts.len() as u64;
        let source = Source::Member { id: member(number), planning: Box::new(planning), agreed, conflicts };
        let (by, note) = (format!("node:{number}"), String::new());
        let commit = Command::Commit { complete, expect: planning.to, source, by, note, lock: None };
        self.rows.decide(commit).expect("planned");
    }

    fn apply(&mut self, number: u8, planning: Planning, cut: &Cut) {
        assert_ne!(self.rows.member(number).expect("a member").role, Role::Lead, "a lead is never written");
        // The node looks at its folder as it is, which may be another tree than it told last.
        let seen = self.disk(number);
        let plan = self.planned(number, &planning, &seen);
        let is_as_told = id(&seen) == planning.node;
        if plan.halt.is_some() || plan.to_node.is_empty() {
            if !is_as_told {
                return self.tell(number);
            }
            let is_stored = !matches!(cut, Cut::BeforeRow);
            if self.halted(number, planning, &plan, is_stored) || !is_stored {
                return;
            }
            let base = planning.agreed.map(|agreed| self.held[&agreed].clone()).unwrap_or_default();
            let agreed = self.hold(&patched(&base, &plan.agreed, &BTreeSet::new()));
            self.rows.decide(Command::Settled { member: member(number), planning, agreed }).expect("planned");
            return;
        }
        self.rows.decide(Command::Begin { member: member(number), planning }).expect("planned");
        if let Cut::Made(folder) = cut {
            let mut after = seen.clone();
            after.insert(rel(folder), Entry::Dir);
            self.change(number, &seen, &after);
        }
        let mut failed = BTreeSet::new();
        for (done, step) in plan.to_node.iter().enumerate() {
            match cut {
                Cut::InApply(at) if at % plan.to_node.len() == done => return,
                Cut::Meddled(at, edits) if at % plan.to_node.len() == done => self.write(number, edits),
                _ => {}
            }
            // The target is looked at again before it is replaced.
            let disk = &mut self.nodes[usize::from(number)].disk;
            let is_done = disk.entries.get(&step.path).unwrap_or(&Seen::Absent) == &step.after();
            if !is_done && disk.apply(step).is_err() {
                failed.insert(step.path.clone());
            }
        }
        match cut {
            Cut::BeforeRow => return,
            Cut::Undone => {
                let now = self.disk(number);
                self.change(number, &now, &seen);
            }
            _ => {}
        }
        let base = planning.agreed.map(|agreed| self.held[&agreed].clone()).unwrap_or_default();
        let agreed = self.hold(&patched(&base, &plan.agreed, &failed));
        let (tree, conflicts) = (id(&self.disk(number)), plan.conflicts.len() as u64);
        let applied = Command::Applied { member: member(number), planning, tree, agreed, conflicts };
        self.rows.decide(applied).expect("it was done");
    }

    /// Everybody comes back, nobody writes, halts are let pass: what is left to do is done.
    pub(crate) fn settle(&mut self) {
        if self.rows.ws.lock.is_some() {
            self.rows.decide(Command::Unlock { epoch: self.rows.ws.epoch }).expect("locked");
        }
        for number in 0..NODES {
            self.nodes[usize::from(number)].is_up = true;
            self.tell(number);
        }
        for _ in 0..40 {
            let mut is_busy = false;
            for number in 0..NODES {
                is_busy |= self.work(number, &Cut::None);
                is_busy |= self.accept(number);
            }
            if !is_busy {
                return;
            }
        }
        panic!("the wave does not end: {:?}", self.rows.members);
    }

    pub(crate) fn check_settled(&self) {
        let ws = &self.rows.ws;
        let at_hub = contents(self.head());
        for id in &self.live {
            assert!(at_hub.contains_key(id), "somebody wrote {id}, and it is lost");
        }
        for (id, count) in &at_hub {
            assert!(*count == 1 || self.moved.contains(id), "{id} is there {count} times");
        }
        for number in 0..NODES {
            let Some(row) = self.rows.member(number) else { continue };
            let node = &self.nodes[usize::from(number)];
            assert_eq!(next(ws, row, true), Step::Nothing);
            assert_eq!(row.begun, None);
            let on_disk = contents(&self.disk(number));
            assert!(node.own.iter().all(|id| on_disk.contains_key(id)), "a follower lost what is its own");
            let is_same = self.disk(number) == *self.head();
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

    pub(crate) fn check_no_conflict(&self) {
        assert!(
            self.head().keys().all(
                |path| !path.as_str().contains("conflict-n") || path.as_str().contains("a.conflict-n1-7")
            )
        );
        for row in &self.rows.members {
            assert!(row.conflicts == 0 || row.role == Role::Follower, "{row:?}");
        }
    }
}
