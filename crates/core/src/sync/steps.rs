//! From verdicts to steps, in an order in which each finds what it needs.

use super::plan::Inputs;
use super::rows::Row;
use super::tree::{End, Entry, Seen};
use super::verdict::Verdict;
use crate::files::path::RelPath;

/// One thing to do on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where.
    pub path: RelPath,
    /// What must still be there; else the step is not done, and the path is planned anew (SYNC rule 6).
    pub expect: Seen,
    /// What to do.
    pub act: Act,
}

impl Step {
    /// What lies at the path when it was done. Whoever carries it out and finds that there already, in place
    /// of what is expected, has nothing to do and counts it as done: else what both sides agree on would
    /// lack a folder that has files in it.
    pub fn after(&self) -> Seen {
        match &self.act {
            Act::Put(entry) => Seen::Entry(entry.clone()),
            Act::MakeDir => Seen::Entry(Entry::Dir),
            Act::RemoveFile | Act::RemoveDir | Act::Keep { .. } => Seen::Absent,
            Act::Exec(exec) => {
                let Seen::Entry(Entry::File { id, map, size, .. }) = self.expect else {
                    return self.expect.clone();
                };
                Seen::Entry(Entry::File { id, map, size, exec: *exec })
            }
        }
    }
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts a file or link: a new one when nothing is expected, else in place of a file or link.
    Put(Entry),
    /// Makes a folder; nothing is expected.
    MakeDir,
    /// Removes a file or link.
    RemoveFile,
    /// Removes a folder, if it is empty.
    RemoveDir,
    /// Sets or takes the exec bit of a file.
    Exec(bool),
    /// Gives a file or link another name in its folder, which is free.
    Keep {
        /// The other name.
        copy: RelPath,
    },
}

/// The steps of one side by when they come.
#[derive(Default)]
struct Phases {
    keeps: Vec<Step>,
    /// Removals that make place, children last.
    early: Vec<Step>,
    dirs: Vec<Step>,
    puts: Vec<Step>,
    /// All other removals, children last. They come after the puts, so that a file that only moves can
    /// be copied from where it was.
    late: Vec<Step>,
}

impl Phases {
    fn into_steps(mut self) -> Vec<Step> {
        let mut steps = self.keeps;
        steps.extend(self.early.into_iter().rev());
        steps.append(&mut self.dirs);
        steps.append(&mut self.puts);
        steps.extend(self.late.into_iter().rev());
        steps
    }
}

/// The verdicts, and what goes with them.
pub(super) struct Decided<'a, 't> {
    pub(super) rows: &'a [Row<'t>],
    pub(super) verdicts: &'a [Verdict<'t>],
    /// The copies' names of the rows that have one, by row.
    pub(super) copies: &'a std::collections::BTreeMap<usize, RelPath>,
    /// Removals on the node that make place for another spelling.
    pub(super) in_the_way: &'a std::collections::BTreeSet<usize>,
}

/// The steps on one side, in order.
pub(super) fn steps(inputs: &Inputs<'_>, decided: &Decided<'_, '_>, end: End) -> Vec<Step> {
    let mut phases = Phases::default();
    // Whether the removal of a row comes early; what is in a folder goes with it.
    let mut early = vec![false; decided.rows.len()];
    for (index, row) in decided.rows.iter().enumerate() {
        let verdict = &decided.verdicts[index];
        let have = row.entry(end);
        if verdict.leaves_all() {
            continue;
        }
        let wanted = verdict.wanted();
        let changes_kind = matches!((have, wanted), (Some(have), Some(wanted))
            if (*have == Entry::Dir) != (*wanted == Entry::Dir));
        early[index] = changes_kind
            || (end == End::Node && decided.in_the_way.contains(&index))
            || row.above.is_some_and(|above| early[above]);
        let mut have = have;
        if let (Verdict::Aside { from, leaf, .. }, Some(copy)) = (verdict, decided.copies.get(&index)) {
            if *from == end {
                let act = Act::Keep { copy: copy.clone() };
                phases.keeps.push(Step { path: row.path.clone(), expect: seen(have), act });
                have = None;
            } else if inputs.mode.is_two_sided() {
                let act = Act::Put((*leaf).clone());
                phases.puts.push(Step { path: copy.clone(), expect: Seen::Absent, act });
            }
        }
        change(&mut phases, row.path, have, wanted, early[index]);
    }
    phases.into_steps()
}

fn seen(entry: Option<&Entry>) -> Seen {
    entry.map_or(Seen::Absent, |entry| Seen::Entry(entry.clone()))
}

/// The steps that make `wanted` of `have`.
fn change(phases: &mut Phases, path: &RelPath, have: Option<&Entry>, wanted: Option<&Entry>, is_early: bool) {
    if have == wanted {
        return;
    }
    let step = |expect: Option<&Entry>, act| Step { path: path.clone(), expect: seen(expect), act };
    let have_dir = have == Some(&Entry::Dir);
    let mut expect = have;
    if let Some(gone) = have
        && (wanted.is_none() || have_dir || wanted == Some(&Entry::Dir))
    {
        let act = if have_dir { Act::RemoveDir } else { Act::RemoveFile };
        let removals = if is_early { &mut phases.early } else { &mut phases.late };
        removals.push(step(Some(gone), act));
        expect = None;
    }
    match (wanted, expect) {
        (None, _) => {}
        (Some(Entry::Dir), _) => phases.dirs.push(step(expect, Act::MakeDir)),
        (Some(wanted @ Entry::File { exec, .. }), Some(expected)) if wanted.has_content_of(expected) => {
            phases.puts.push(step(expect, Act::Exec(*exec)));
        }
        (Some(wanted @ (Entry::File { .. } | Entry::Link { .. })), _) => {
            phases.puts.push(step(expect, Act::Put(wanted.clone())));
        }
    }
}
