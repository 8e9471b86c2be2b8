//! Trees that are derived from one another by random edits.

use std::collections::BTreeMap;

use cortex_core::files::content::ContentId;
use cortex_core::files::path::RelPath;
use cortex_core::id::Revision;
use cortex_core::sync::{
    DeleteLimits, Entry, Inputs, Mode, NameRules, Plan, Problem, RootState, Seen, Side, plan,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::disk::{Disk, counts};

/// Names that meet: by case, by form, with and without endings, and one that a copy might have.
const NAMES: &[&str] =
    &["a", "A", "b", "B.txt", "b.txt", "é", "e\u{301}", "ملف", "a.conflict-n1-7", "CON", ".x"];

#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Put(Index, usize, Entry),
    Make(Index, usize),
    Remove(Index),
    Rename(Index, Index, usize),
    Retype(Index, Entry),
    Chmod(Index),
    Hide(Index, Seen),
}

pub(crate) fn file(content: u8, exec: bool) -> Entry {
    Entry::File { id: ContentId::of(&[content]), map: None, size: 1, exec }
}

pub(crate) fn link(text: &'static str) -> Entry {
    Entry::Link { target: text.into() }
}

fn leaf() -> impl Strategy<Value = Entry> {
    prop_oneof![
        6 => (0_u8..12, any::<bool>()).prop_map(|(content, exec)| file(content, exec)),
        1 => prop::sample::select(vec!["a", "../b"]).prop_map(link),
    ]
}

fn edit(hides: bool) -> impl Strategy<Value = Edit> {
    let name = 0..NAMES.len();
    let hidden = prop_oneof![Just(Seen::Ignored), Just(Seen::Blocked(Problem::Unreadable))];
    prop_oneof![
        6 => (any::<Index>(), name.clone(), leaf()).prop_map(|(at, name, leaf)| Edit::Put(at, name, leaf)),
        3 => (any::<Index>(), name.clone()).prop_map(|(at, name)| Edit::Make(at, name)),
        3 => any::<Index>().prop_map(Edit::Remove),
        2 => (any::<Index>(), any::<Index>(), name).prop_map(|(from, to, name)| Edit::Rename(from, to, name)),
        2 => (any::<Index>(), prop_oneof![leaf(), Just(Entry::Dir)]).prop_map(|(at, to)| Edit::Retype(at, to)),
        1 => any::<Index>().prop_map(Edit::Chmod),
        u32::from(hides) => (any::<Index>(), hidden).prop_map(|(at, seen)| Edit::Hide(at, seen)),
    ]
}

pub(crate) fn edits(hides: bool, most: usize) -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec(edit(hides), 0..most)
}

/// Does what a person can do to a disk; what is impossible changes nothing.
pub(crate) fn play(disk: &mut Disk, edits: &[Edit]) {
    for edit in edits {
        let all: Vec<RelPath> = disk.entries.keys().cloned().collect();
        let some = |at: &Index| (!all.is_empty()).then(|| at.get(&all).clone());
        let folder = |at: &Index| {
            let mut folders: Vec<RelPath> = all.iter().filter(|path| disk.is_dir(path)).cloned().collect();
            folders.push(RelPath::root());
            at.get(&folders).clone()
        };
        let place = |at: &Index, name: usize| {
            folder(at).join(NAMES[name]).ok().filter(|path| path.parts().count() < 5)
        };
        match edit {
            Edit::Put(at, name, leaf) => put(disk, place(at, *name), leaf),
            Edit::Make(at, name) => put(disk, place(at, *name), &Entry::Dir),
            Edit::Remove(at) => remove(disk, some(at)),
            Edit::Rename(from, to, name) => rename(disk, some(from), place(to, *name)),
            Edit::Retype(at, to) => {
                let path = some(at);
                remove(disk, path.clone());
                put(disk, path, to);
            }
            Edit::Chmod(at) => {
                if let Some(Seen::Entry(Entry::File { exec, .. })) =
                    some(at).and_then(|path| disk.entries.get_mut(&path))
                {
                    *exec = !*exec;
                }
            }
            Edit::Hide(at, seen) => {
                let path = some(at);
                remove(disk, path.clone());
                if let Some(path) = path.filter(|path| free(disk, path)) {
                    disk.entries.insert(path, seen.clone());
                }
            }
        }
    }
}

fn free(disk: &Disk, path: &RelPath) -> bool {
    let mut probe = disk.clone();
    let put = cortex_core::sync::Step {
        path: path.clone(),
        expect: Seen::Absent,
        act: cortex_core::sync::Act::MakeDir,
    };
    probe.apply(&put).is_ok()
}

fn put(disk: &mut Disk, path: Option<RelPath>, entry: &Entry) {
    let Some(path) = path else { return };
    let is_there = disk.entries.get(&path).is_some_and(|seen| {
        seen.entry().is_some_and(|there| (*there == Entry::Dir) == (*entry == Entry::Dir))
    });
    if is_there || free(disk, &path) {
        disk.entries.insert(path, Seen::Entry(entry.clone()));
    }
}

fn remove(disk: &mut Disk, path: Option<RelPath>) {
    if let Some(path) = path {
        disk.entries.retain(|other, _| other.below(&path).is_none());
    }
}

fn rename(disk: &mut Disk, from: Option<RelPath>, to: Option<RelPath>) {
    let (Some(from), Some(to)) = (from, to) else { return };
    if to.below(&from).is_some() {
        return;
    }
    let moved: Vec<(RelPath, Seen)> = disk
        .entries
        .iter()
        .filter(|(path, _)| path.below(&from).is_some())
        .map(|(p, s)| (p.clone(), s.clone()))
        .collect();
    let mut after = disk.clone();
    remove(&mut after, Some(from.clone()));
    if !free(&after, &to) {
        return;
    }
    for (path, seen) in moved {
        let rest = path.below(&from).expect("it was below").to_owned();
        let target =
            rest.split('/').filter(|part| !part.is_empty()).try_fold(to.clone(), |at, part| at.join(part));
        after.entries.insert(target.expect("short"), seen);
    }
    *disk = after;
}

/// The three trees, and how they are to meet.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) agreed: BTreeMap<RelPath, Entry>,
    pub(crate) hub: Disk,
    pub(crate) node: Disk,
    pub(crate) mode: Mode,
    pub(crate) names: NameRules,
}

impl World {
    pub(crate) fn with<T>(
        &self,
        agreed: &BTreeMap<RelPath, Entry>,
        hub: &BTreeMap<RelPath, Seen>,
        node: &BTreeMap<RelPath, Seen>,
        ask: impl FnOnce(&Inputs<'_>) -> T,
    ) -> T {
        ask(&Inputs {
            agreed,
            agreed_counts: counts(self.agreed.iter()),
            hub: Side { entries: hub, counts: self.hub.counts(), root: RootState::Dir },
            node: Side { entries: node, counts: self.node.counts(), root: RootState::Dir },
            mode: self.mode,
            // Small trees lose half of their files in most edits; the halts have tests of their own.
            limits: DeleteLimits { files: u64::MAX, percent: 100, percent_from: u64::MAX },
            names: self.names,
            node_name: "n1",
            revision: Revision(7),
            accepted: None,
        })
    }

    /// The plan, with the word of a person when it halts.
    pub(crate) fn accepted(&self) -> Plan {
        self.with(&self.agreed, &self.hub.entries, &self.node.entries, |inputs| {
            let first = plan(inputs);
            match &first.halt {
                None => first,
                Some(halt) => plan(&Inputs { accepted: Some(halt.id), ..*inputs }),
            }
        })
    }

    /// Does a whole plan on both sides and agrees on what it says.
    pub(crate) fn carry_out(&mut self, plan: &Plan) -> Result<(), String> {
        self.hub.apply_all(&plan.to_hub).map_err(|error| format!("hub: {error}"))?;
        self.node.apply_all(&plan.to_node).map_err(|error| format!("node: {error}"))?;
        for (path, entry) in &plan.agreed {
            match entry {
                Some(entry) => self.agreed.insert(path.clone(), entry.clone()),
                None => self.agreed.remove(path),
            };
        }
        Ok(())
    }

    /// The three maps without the folders that are the same in all of them.
    pub(crate) fn pruned(
        &self,
    ) -> (BTreeMap<RelPath, Entry>, BTreeMap<RelPath, Seen>, BTreeMap<RelPath, Seen>) {
        let as_seen: BTreeMap<RelPath, Seen> =
            self.agreed.iter().map(|(path, entry)| (path.clone(), Seen::Entry(entry.clone()))).collect();
        let part = |of: &BTreeMap<RelPath, Seen>, folder: &RelPath| -> Vec<(RelPath, Seen)> {
            let inside = |path: &RelPath| path != folder && path.below(folder).is_some();
            of.iter().filter(|(path, _)| inside(path)).map(|(p, s)| (p.clone(), s.clone())).collect()
        };
        let is_same = |folder: &RelPath| {
            let agreed = part(&as_seen, folder);
            agreed == part(&self.hub.entries, folder) && agreed == part(&self.node.entries, folder)
        };
        let stays = |path: &RelPath| {
            let mut folder = path.parent();
            while let Some(above) = folder {
                if is_same(&above) {
                    return false;
                }
                folder = above.parent();
            }
            true
        };
        let keep = |of: &BTreeMap<RelPath, Seen>| {
            of.iter().filter(|(path, _)| stays(path)).map(|(p, s)| (p.clone(), s.clone())).collect()
        };
        let agreed =
            self.agreed.iter().filter(|(path, _)| stays(path)).map(|(p, e)| (p.clone(), e.clone())).collect();
        (agreed, keep(&self.hub.entries), keep(&self.node.entries))
    }
}

/// Worlds whose three trees have one ancestor.
pub(crate) fn worlds(mode: impl Strategy<Value = Mode>) -> impl Strategy<Value = World> {
    let names =
        (any::<bool>(), any::<bool>()).prop_map(|(fold_case, windows)| NameRules { fold_case, windows });
    let trees = (edits(false, 16), edits(false, 3), edits(true, 8), edits(true, 8));
    (trees, mode, names).prop_map(|((ancestor, agreed, hub, node), mode, names)| {
        // A merge writes no disk of a node.
        let names = if mode == Mode::Merge { NameRules::default() } else { names };
        // The node's disk is what it is from the start: it never had two names that are one to it.
        let mut base = Disk { entries: BTreeMap::new(), folds: names.fold_case };
        play(&mut base, &ancestor);
        let mut agreed_on = base.clone();
        play(&mut agreed_on, &agreed);
        let mut at_hub = Disk { folds: false, ..base.clone() };
        play(&mut at_hub, &hub);
        let mut at_node = base;
        play(&mut at_node, &node);
        let agreed =
            agreed_on.entries.into_iter().filter_map(|(path, seen)| Some((path, seen.entry()?.clone())));
        // Before a first push nothing was agreed on.
        let is_first = matches!(mode, Mode::Push(push) if push.first);
        let agreed = if is_first { BTreeMap::new() } else { agreed.collect() };
        World { agreed, hub: at_hub, node: at_node, mode, names }
    })
}
