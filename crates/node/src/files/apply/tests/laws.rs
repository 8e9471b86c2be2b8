//! Whatever the three trees are: the folder becomes what the planner says, and a crash loses nothing.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use cortex_core::files::content::ContentId;
use cortex_core::sync::{Act, Entry, Inputs, Mode, NameRules, Plan, Push, RootState, Seen, Side, SideCounts};
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;
use super::support::{Folder, MIRROR, Made, NEXT, PUSH, Shop, ask, cut_off, noise, run};
use crate::files::fault::Fault;
use crate::files::seam::{Plain, Synced};
use crate::files::support::rounds;

/// A folder as it is written down.
type Model = BTreeMap<RelPath, Leaf>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leaf {
    File(u8, bool),
    Link(u8),
    Dir,
}

/// Content is long for one number in sixteen.
fn content(number: u8) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        number if number.is_multiple_of(16) => {
            noise(number.into(), (1 << 20) + 200_000 + usize::from(number))
        }
        number => noise(number.into(), usize::from(number) * 7),
    }
}

fn entry(leaf: &Leaf) -> Entry {
    match leaf {
        Leaf::File(number, exec) => {
            let bytes = content(*number);
            Entry::File { id: ContentId::of(&bytes), map: None, size: bytes.len() as u64, exec: *exec }
        }
        Leaf::Link(number) => Entry::Link { target: format!("to/{number}").into() },
        Leaf::Dir => Entry::Dir,
    }
}

fn names() -> Vec<String> {
    ["a", "b", "ملف", "x.txt", ".h", "c.ignored"]
        .map(str::to_owned)
        .into_iter()
        .chain([("م".repeat(127))])
        .collect()
}

#[derive(Clone, Debug)]
pub(super) enum Edit {
    Put(Index, Index, Leaf),
    Remove(Index),
    Move(Index, Index, Index),
}

pub(super) fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    let leaf = prop_oneof![
        6 => (0_u8..40, any::<bool>()).prop_map(|(number, exec)| Leaf::File(number, exec)),
        1 => (0_u8..3).prop_map(Leaf::Link),
        4 => Just(Leaf::Dir),
    ];
    let edit = prop_oneof![
        6 => (any::<Index>(), any::<Index>(), leaf).prop_map(|(at, name, leaf)| Edit::Put(at, name, leaf)),
        2 => any::<Index>().prop_map(Edit::Remove),
        1 => (any::<Index>(), any::<Index>(), any::<Index>()).prop_map(|(from, to, name)| Edit::Move(from, to, name)),
    ];
    proptest::collection::vec(edit, 0..most)
}

fn remove(model: &mut Model, path: &RelPath) {
    model.retain(|at, _| at.below(path).is_none());
}

fn place(model: &Model, at: Index, name: Index) -> Option<RelPath> {
    let mut folders = vec![RelPath::root()];
    folders.extend(model.iter().filter(|(_, leaf)| **leaf == Leaf::Dir).map(|(path, _)| path.clone()));
    let names = names();
    at.get(&folders).join(name.get(&names[..]).as_str()).ok()
}

fn edited(mut model: Model, edits: &[Edit]) -> Model {
    for edit in edits {
        match edit {
            Edit::Put(at, name, leaf) => {
                let Some(path) = place(&model, *at, *name) else { continue };
                // What is ignored is a file here.
                if path.name().ends_with(".ignored") && !matches!(leaf, Leaf::File(..)) {
                    continue;
                }
                remove(&mut model, &path);
                model.insert(path, leaf.clone());
            }
            Edit::Remove(at) if !model.is_empty() => {
                let path = at.get(&model.keys().cloned().collect::<Vec<_>>()).clone();
                remove(&mut model, &path);
            }
            Edit::Move(from, at, name) if !model.is_empty() => {
                let from = from.get(&model.keys().cloned().collect::<Vec<_>>()).clone();
                let Some(to) = place(&model, *at, *name) else { continue };
                if to.below(&from).is_some()
                    || from.below(&to).is_some()
                    || to.name().ends_with(".ignored")
                    || from.name().ends_with(".ignored")
                {
                    continue;
                }
                remove(&mut model, &to);
                let moved: Vec<(RelPath, Leaf)> = model
                    .iter()
                    .filter(|(path, _)| path.below(&from).is_some())
                    .map(|(p, l)| (p.clone(), l.clone()))
                    .collect();
                remove(&mut model, &from);
                for (path, leaf) in moved {
                    let below = path.below(&from).expect("it is");
                    let path = if below.is_empty() {
                        to.clone()
                    } else {
                        RelPath::parse(&format!("{to}/{below}")).expect("a path")
                    };
                    model.insert(path, leaf);
                }
            }
            Edit::Remove(_) | Edit::Move(..) => {}
        }
    }
    model
}

fn write(model: &Model) -> Folder {
    let folder = Folder::new();
    for (path, leaf) in model {
        let path = path.as_str();
        match leaf {
            Leaf::Dir => std::fs::create_dir(folder.at(path)).expect("made"),
            Leaf::Link(number) => {
                std::os::unix::fs::symlink(format!("to/{number}"), folder.at(path)).expect("linked")
            }
            Leaf::File(number, exec) => {
                folder.write(path, content(*number));
                folder.set_mode(path, if *exec { 0o755 } else { 0o644 });
            }
        }
    }
    folder
}

fn is_ignored(path: &RelPath) -> bool {
    path.name().ends_with(".ignored")
}

/// What a planner is told of all of a tree.
fn seen(model: &Model) -> BTreeMap<RelPath, Seen> {
    let seen = |(path, leaf): (&RelPath, &Leaf)| {
        let seen = if is_ignored(path) { Seen::Ignored } else { Seen::Entry(entry(leaf)) };
        (path.clone(), seen)
    };
    model.iter().map(seen).collect()
}

/// Without what is ignored: that is in no tree.
fn tracked(model: &Model) -> BTreeMap<RelPath, Entry> {
    model
        .iter()
        .filter(|(path, _)| !is_ignored(path))
        .map(|(path, leaf)| (path.clone(), entry(leaf)))
        .collect()
}

fn counts(entries: &BTreeMap<RelPath, Entry>) -> SideCounts {
    SideCounts {
        files: entries.values().filter(|entry| **entry != Entry::Dir).count() as u64,
        root_entries: entries.keys().filter(|path| path.parts().count() == 1).count() as u64,
    }
}

/// The plan over all of the three trees, and what a folder has after its steps.
fn planned(target: &Model, local: &Model, base: &Model, mode: Mode) -> (Plan, BTreeMap<RelPath, Entry>) {
    let (agreed, hub, tree) = (tracked(base), tracked(target), tracked(local));
    let hub_seen = hub.iter().map(|(path, entry)| (path.clone(), Seen::Entry(entry.clone()))).collect();
    let asked = ask(&Folder::new().tree(), mode);
    let plan = sync::plan(&Inputs {
        agreed: &agreed,
        agreed_counts: counts(&agreed),
        hub: Side { entries: &hub_seen, counts: counts(&hub), root: RootState::Dir },
        node: Side { entries: &seen(local), counts: counts(&tree), root: RootState::Dir },
        mode,
        limits: asked.limits,
        names: NameRules::default(),
        node_name: &asked.node_name,
        revision: asked.revision,
        accepted: None,
    });
    let mut after: BTreeMap<RelPath, Entry> =
        local.iter().map(|(path, leaf)| (path.clone(), entry(leaf))).collect();
    for step in &plan.to_node {
        match &step.act {
            Act::Put(entry) => {
                after.insert(step.path.clone(), entry.clone());
            }
            Act::MakeDir => {
                after.insert(step.path.clone(), Entry::Dir);
            }
            Act::RemoveFile | Act::RemoveDir => {
                after.remove(&step.path);
            }
            Act::Exec(to) => {
                if let Some(Entry::File { exec, .. }) = after.get_mut(&step.path) {
                    *exec = *to;
                }
            }
            Act::Keep { copy } => {
                let entry = after.remove(&step.path).expect("it is there");
                after.insert(copy.clone(), entry);
            }
        }
    }
    (plan, after)
}

/// What a folder has on the disk, what is ours not counted.
pub(super) fn on_disk(folder: &Folder) -> BTreeMap<RelPath, Entry> {
    let read = |path: &String| {
        let meta = std::fs::symlink_metadata(folder.at(path)).expect("it is there");
        let entry = if meta.is_dir() {
            Entry::Dir
        } else if meta.is_symlink() {
            let target = std::fs::read_link(folder.at(path)).expect("a link");
            Entry::Link { target: target.to_string_lossy().into_owned().into() }
        } else {
            let bytes = folder.read(path);
            let exec = folder.mode(path) & 0o100 != 0;
            Entry::File { id: ContentId::of(&bytes), map: None, size: bytes.len() as u64, exec }
        };
        (RelPath::parse(path).expect("a path"), entry)
    };
    folder.paths().iter().map(read).collect()
}

pub(super) fn contents(entries: &BTreeMap<RelPath, Entry>) -> BTreeSet<ContentId> {
    let id = |entry: &Entry| match entry {
        Entry::File { id, .. } => Some(*id),
        Entry::Link { target } => Some(ContentId::of(target)),
        Entry::Dir => None,
    };
    entries.values().filter_map(id).collect()
}

pub(super) fn modes() -> impl Strategy<Value = Mode> {
    let careful = Push { first: false, force: false, delete: false };
    prop::sample::select(vec![
        PUSH,
        NEXT,
        MIRROR,
        Mode::Push(careful),
        Mode::FromHub { repair: false },
        Mode::FromHub { repair: true },
        Mode::TwoWay,
    ])
}

/// A folder that was changed since what was agreed on, and is brought to a tree.
pub(super) struct Play {
    mode: Mode,
    local: Model,
    target: Made,
    base: Made,
    asked: Ask,
    pub(super) plan: Plan,
    /// What the folder has in the end.
    pub(super) after: BTreeMap<RelPath, Entry>,
    /// Contents that only the folder had.
    pub(super) own: BTreeSet<ContentId>,
    /// Contents that anybody had.
    pub(super) all: BTreeSet<ContentId>,
}

impl Play {
    /// What was agreed on, and what both sides did to it.
    pub(super) fn new(first: &[Edit], target: &[Edit], local: &[Edit], mode: Mode) -> Self {
        let base = edited(Model::new(), first);
        let (target, local) = (edited(base.clone(), target), edited(base.clone(), local));
        let (plan, after) = planned(&target, &local, &base, mode);
        let known = &contents(&tracked(&base)) | &contents(&tracked(&target));
        let theirs = contents(&on_disk(&write(&local)));
        let (target, base) = (write(&target).tree(), write(&base).tree());
        let asked = Ask { base: Some(base.root()), ..ask(&target, mode) };
        let (own, all) = (&theirs - &known, &theirs | &known);
        Self { mode, local, target, base, asked, plan, after, own, all }
    }

    /// The folder as it is before.
    pub(super) fn folder(&self) -> Folder {
        write(&self.local)
    }

    pub(super) fn shop(&self) -> Shop<'static> {
        Shop::of(&[&self.target, &self.base])
    }

    pub(super) fn receive_from(
        &self,
        shop: &mut Shop<'_>,
        to: &Folder,
        seam: &dyn Seam,
    ) -> Result<Applied, Refusal> {
        run(to, &to.tree(), &self.asked, shop, seam)
    }

    pub(super) fn receive(&self, to: &Folder, seam: &dyn Seam) -> Applied {
        self.receive_from(&mut self.shop(), to, seam).expect("received")
    }

    /// Whether the seam let it come to its end.
    pub(super) fn survives(&self, to: &Folder, seam: &dyn Seam) -> bool {
        let killed = catch_unwind(AssertUnwindSafe(|| drop(self.receive(to, seam)))).err();
        if let Some(payload) = killed {
            if payload.is::<Killed>() {
                return false;
            }
            resume_unwind(payload);
        }
        true
    }

    /// Whether what only the folder had has to stay somewhere in it.
    pub(super) fn keeps_own(&self) -> bool {
        self.mode != MIRROR && self.mode != PUSH
    }

    /// Whether the folder ends as the plan says. In a mode of both, copies are told to the other side, which
    /// never hears of it here.
    pub(super) fn is_one_way(&self) -> bool {
        self.mode != Mode::TwoWay
    }
}

/// What is unwound when the process is killed.
pub(super) struct Killed;

/// Kills at the n-th moment, from 1; 0 never.
struct Kill {
    at: u32,
    seen: Cell<u32>,
    may_exchange: bool,
}

impl Kill {
    fn at(at: u32, may_exchange: bool) -> Self {
        Self { at, seen: Cell::new(0), may_exchange }
    }

    fn step(&self) {
        self.seen.set(self.seen.get() + 1);
        if self.seen.get() == self.at {
            resume_unwind(Box::new(Killed));
        }
    }
}

impl Seam for Kill {
    fn sync(&self, fd: std::os::fd::BorrowedFd<'_>, what: Synced) -> Result<(), Fault> {
        self.step();
        let _of = (fd, what);
        Ok(())
    }

    fn pass(&self, _moment: Moment) {
        self.step();
    }

    fn may_exchange(&self) -> bool {
        self.may_exchange
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(48, 3_000)))]

    #[test]
    fn a_folder_becomes_what_the_plan_says_and_then_nothing_is_left_to_do(
        first in edits(25), target in edits(10), local in edits(10), mode in modes(), exchanges in any::<bool>(),
    ) {
        let play = Play::new(&first, &target, &local, mode);
        let to = play.folder();
        let applied = play.receive(&to, &Kill::at(0, exchanges));
        let is_done = applied.end == End::Done || applied.end == End::InSync;
        prop_assert!(play.plan.halt.is_none() == is_done, "{:?}", applied);
        prop_assert_eq!(applied.troubles.count, 0, "{:?}", applied);
        prop_assert_eq!(&on_disk(&to), &play.after, "{:?}", play.plan.to_node);
        prop_assert!(to.is_clean());
        let again = play.receive(&to, &Plain);
        if play.is_one_way() {
            prop_assert_eq!(again.steps.count, 0, "{:?}", again);
        }
    }

    #[test]
    fn a_kill_at_any_moment_loses_nothing_and_the_next_try_comes_to_the_same_end(
        first in edits(25), target in edits(10), local in edits(10), mode in modes(), exchanges in any::<bool>(),
        kills in proptest::collection::vec(any::<Index>(), 1..4), cut in any::<Index>(),
    ) {
        let play = Play::new(&first, &target, &local, mode);
        prop_assume!(play.plan.halt.is_none());
        // How many moments there are.
        let count = Kill::at(0, exchanges);
        play.receive(&play.folder(), &count);
        prop_assume!(count.seen.get() > 0);
        let to = play.folder();
        for kill in kills {
            play.survives(&to, &Kill::at(kill.index(count.seen.get() as usize) as u32 + 1, exchanges));
            let there = contents(&on_disk(&to));
            prop_assert!(!play.keeps_own() || play.own.is_subset(&there), "{:?}", to.paths());
        }
        // A connection that breaks is no kill, but ends a try as well.
        let mut shop = play.shop();
        shop.breaks_after = Some(cut.index(20) as u64);
        if let Err(refusal) = play.receive_from(&mut shop, &to, &Plain) {
            prop_assert_eq!(refusal, cut_off());
        }
        play.receive(&to, &Kill::at(0, exchanges));
        if play.is_one_way() {
            prop_assert_eq!(&on_disk(&to), &play.after, "{:?}", play.plan.to_node);
        }
        prop_assert!(to.is_clean(), "{:?}", std::fs::read_dir(to.at(".cortex/staging")));
    }
}
