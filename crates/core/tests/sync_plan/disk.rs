//! A disk that takes no step that a real one would refuse.

use std::collections::BTreeMap;

use cortex_core::files::names::fold_key;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Act, Entry, Seen, SideCounts, Step};

/// What lies in a folder, the root not included. What is ignored or blocked is there as well, and
/// nothing is known of what is below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) entries: BTreeMap<RelPath, Seen>,
    /// It does not tell large letters from small ones.
    pub(crate) folds: bool,
}

pub(crate) fn rel(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

impl Disk {
    pub(crate) fn entry(&self, path: &RelPath) -> Option<&Entry> {
        self.entries.get(path).and_then(Seen::entry)
    }

    pub(crate) fn is_dir(&self, path: &RelPath) -> bool {
        path.is_root() || self.entry(path) == Some(&Entry::Dir)
    }

    pub(crate) fn below(&self, folder: &RelPath) -> Vec<RelPath> {
        let inside = |path: &&RelPath| *path != folder && path.below(folder).is_some();
        self.entries.keys().filter(inside).cloned().collect()
    }

    pub(crate) fn counts(&self) -> SideCounts {
        counts(self.entries.iter().filter_map(|(path, seen)| Some((path, seen.entry()?))))
    }

    /// Does one step, or says why a disk would refuse it.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<(), String> {
        let there = self.entries.get(&step.path).cloned().unwrap_or(Seen::Absent);
        if there != step.expect {
            return Err(format!("{step:?} found {there:?}"));
        }
        let expects_leaf = there.entry().is_some_and(|entry| *entry != Entry::Dir);
        match &step.act {
            Act::Put(Entry::Dir) => return Err(format!("{step:?} puts a folder")),
            Act::Put(_) if there.entry() == Some(&Entry::Dir) => {
                return Err(format!("{step:?} puts over a folder"));
            }
            Act::Put(entry) => {
                self.room_for(&step.path)?;
                self.entries.insert(step.path.clone(), Seen::Entry(entry.clone()));
            }
            Act::MakeDir if there != Seen::Absent => return Err(format!("{step:?} makes what is there")),
            Act::MakeDir => {
                self.room_for(&step.path)?;
                self.entries.insert(step.path.clone(), Seen::Entry(Entry::Dir));
            }
            Act::RemoveFile if !expects_leaf => return Err(format!("{step:?} removes no file")),
            Act::RemoveFile => {
                self.entries.remove(&step.path);
            }
            Act::RemoveDir if there.entry() != Some(&Entry::Dir) => {
                return Err(format!("{step:?} removes no folder"));
            }
            Act::RemoveDir => {
                let inside = self.below(&step.path);
                if !inside.is_empty() {
                    return Err(format!("{step:?} is not empty: {inside:?}"));
                }
                self.entries.remove(&step.path);
            }
            Act::Exec(to) => {
                let Some(Seen::Entry(Entry::File { exec, .. })) = self.entries.get_mut(&step.path) else {
                    return Err(format!("{step:?} is no file"));
                };
                *exec = *to;
            }
            Act::Keep { .. } if !expects_leaf => return Err(format!("{step:?} keeps no file")),
            Act::Keep { copy } => {
                if self.entries.contains_key(copy) || copy.parent() != step.path.parent() {
                    return Err(format!("{step:?} has no such place"));
                }
                self.entries.remove(&step.path);
                self.room_for(copy)?;
                self.entries.insert(copy.clone(), there);
            }
        }
        Ok(())
    }

    /// Whether a name can be written: its folder is there, and no other spelling of it is.
    fn room_for(&self, path: &RelPath) -> Result<(), String> {
        let folder = path.parent().expect("not the root");
        if !self.is_dir(&folder) {
            return Err(format!("{path} has no folder"));
        }
        let clashes = |other: &&RelPath| {
            *other != path
                && other.parent().as_ref() == Some(&folder)
                && fold_key(other.name().as_bytes()) == fold_key(path.name().as_bytes())
        };
        match self.entries.keys().find(clashes) {
            Some(other) if self.folds => Err(format!("{path} would overwrite {other}")),
            Some(_) | None => Ok(()),
        }
    }

    pub(crate) fn apply_all(&mut self, steps: &[Step]) -> Result<(), String> {
        steps.iter().try_for_each(|step| self.apply(step))
    }
}

pub(crate) fn counts<'a>(entries: impl Iterator<Item = (&'a RelPath, &'a Entry)>) -> SideCounts {
    let mut counts = SideCounts::default();
    for (path, entry) in entries {
        counts.files += u64::from(*entry != Entry::Dir);
        counts.root_entries += u64::from(path.parts().count() == 1);
    }
    counts
}
