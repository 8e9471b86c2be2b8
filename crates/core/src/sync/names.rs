//! Names in one folder: which of them a node's disk takes for one, and what the copy of a version that
//! lost its name is called.

use std::collections::{BTreeMap, BTreeSet};

use super::rows::Row;
use super::tree::End;
use super::verdict::Verdict;
use crate::files::names::fold_key;
use crate::files::path::RelPath;
use crate::id::Revision;
use crate::limits::NAME_PART_BYTES_MAX;

/// What the node's disk makes of names (SYNC rule 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameRules {
    /// It does not tell `README` from `readme`.
    pub fold_case: bool,
    /// It is a Windows machine (ABUSE 51).
    pub windows: bool,
}

/// The folder of a path, as text.
pub(super) fn folder_of(path: &RelPath) -> &str {
    path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// What the names of a folding disk say about a plan.
#[derive(Default)]
pub(super) struct Clashes {
    /// Rows to hold: their names are one, and one of them would be written.
    pub(super) held: BTreeSet<usize>,
    /// Rows whose removal makes place for another spelling of their name, and so has to come before it.
    pub(super) in_the_way: BTreeSet<usize>,
}

/// Looks for names that are one to a disk that folds case.
pub(super) fn clashes(rows: &[Row<'_>], verdicts: &[Verdict<'_>]) -> Clashes {
    let mut groups: BTreeMap<(&str, Vec<u8>), Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let key = (folder_of(row.path), fold_key(row.path.name().as_bytes()));
        groups.entry(key).or_default().push(index);
    }
    let mut clashes = Clashes::default();
    for group in groups.into_values().filter(|group| group.len() > 1) {
        let is_there = |index: &usize| rows[*index].seen(End::Node).is_there();
        let stays = |index: &usize| match &verdicts[*index] {
            Verdict::Hold(_) | Verdict::Extra => is_there(index),
            Verdict::Want(_) | Verdict::Aside { .. } => verdicts[*index].wanted().is_some(),
        };
        let staying: Vec<usize> = group.iter().copied().filter(stays).collect();
        match (staying.len(), staying.iter().all(is_there)) {
            (0, _) | (_, true) => {}
            (1, false) => clashes.in_the_way.extend(group.into_iter().filter(is_there)),
            (_, false) => clashes.held.extend(staying),
        }
    }
    clashes
}

/// Names for the copies of one plan: each free in its folder, also on a disk that folds case.
pub(super) struct CopyNames<'t> {
    rows: &'t [Row<'t>],
    node: &'t str,
    revision: Revision,
    /// Keys of the names in the folders that were asked about.
    taken: BTreeMap<&'t str, BTreeSet<Vec<u8>>>,
}

impl<'t> CopyNames<'t> {
    /// Of copies in the `folders` alone; others have no place for any.
    pub(super) fn new(
        rows: &'t [Row<'t>],
        folders: BTreeSet<&'t str>,
        node: &'t str,
        revision: Revision,
    ) -> Self {
        let mut taken: BTreeMap<&str, BTreeSet<Vec<u8>>> =
            folders.into_iter().map(|folder| (folder, BTreeSet::new())).collect();
        if !taken.is_empty() {
            for row in rows {
                if let Some(names) = taken.get_mut(folder_of(row.path)) {
                    names.insert(fold_key(row.path.name().as_bytes()));
                }
            }
        }
        Self { rows, node, revision, taken }
    }

    /// A free name for a copy of the row's file; `None` when no name fits in the bounds of a path.
    pub(super) fn take(&mut self, row: usize) -> Option<RelPath> {
        let path = self.rows[row].path;
        let names = self.taken.get_mut(folder_of(path))?;
        // One name more than there are in the folder is certainly free.
        for number in 0..=names.len() {
            let name = copy_name(path.name(), self.node, self.revision, number);
            let key = fold_key(name.as_bytes());
            if !names.contains(&key) {
                let copy = path.parent()?.join(&name).ok()?;
                names.insert(key);
                return Some(copy);
            }
        }
        None
    }
}

/// `report.txt` as `report.conflict-NODE-REVISION.txt`; with `.NUMBER` after the revision from the second
/// on. Cut at a character when it gets too long for a name.
fn copy_name(name: &str, node: &str, revision: Revision, number: usize) -> String {
    let number = if number == 0 { String::new() } else { format!(".{number}") };
    let mark = format!(".conflict-{node}-{revision}{number}");
    let (stem, ending) = match name.rfind('.') {
        // What begins with a dot has no ending, and one that is long is none.
        Some(at) if at > 0 && name.len() - at <= 16 => name.split_at(at),
        Some(_) | None => (name, ""),
    };
    let room = NAME_PART_BYTES_MAX.saturating_sub(mark.len() + ending.len());
    let cut = (0..=room.min(stem.len())).rev().find(|at| stem.is_char_boundary(*at)).unwrap_or(0);
    format!("{}{mark}{ending}", &stem[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_named_after_its_file_its_node_and_the_revision() {
        for (name, number, copy) in [
            ("report.txt", 0, "report.conflict-n1-7.txt"),
            ("report.txt", 2, "report.conflict-n1-7.2.txt"),
            ("a.tar.gz", 0, "a.tar.conflict-n1-7.gz"),
            ("Makefile", 0, "Makefile.conflict-n1-7"),
            (".bashrc", 0, ".bashrc.conflict-n1-7"),
            ("تقرير.txt", 0, "تقرير.conflict-n1-7.txt"),
            ("v1.a-sentence-and-no-ending", 0, "v1.a-sentence-and-no-ending.conflict-n1-7"),
        ] {
            assert_eq!(copy_name(name, "n1", Revision(7), number), copy);
        }
    }

    #[test]
    fn the_name_of_a_copy_is_a_name_however_long_the_others_are() {
        let node = "n".repeat(63);
        for name in ["م".repeat(127), "x".repeat(255), format!("{}.txt", "م".repeat(125)), "🦀".repeat(63)]
        {
            let copy = copy_name(&name, &node, Revision(u64::MAX), usize::MAX);
            assert!(copy.len() <= NAME_PART_BYTES_MAX, "{} bytes", copy.len());
            assert!(RelPath::parse(&copy).is_ok(), "{copy}");
        }
    }
}
