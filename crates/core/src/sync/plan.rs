//! The planner: three trees in, steps out. Total, and the same answer for the same question.

use std::collections::{BTreeMap, BTreeSet};

use super::agreed::agreed;
use super::halts::{self, DeleteLimits, HaltId};
use super::names::{self, Clashes, CopyNames, NameRules};
use super::one_way::OneWay;
use super::rows::{self, Row};
use super::steps::{Decided, steps};
use super::tree::{End, Entry, Seen, Side, SideCounts};
use super::two_way;
use super::verdict::{Below, Conflict, Held, Plan, PlanCounts, Verdict, Why};
use crate::files::names::refuse_windows;
use crate::files::path::RelPath;
use crate::id::Revision;

/// Which side may write which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Both sides change, both are written.
    TwoWay,
    /// Both sides change, and the hub's is written: the first half of [`Mode::TwoWay`]. Afterwards the hub has
    /// all that the node changed, and the node's tree is what the next plan starts from.
    Merge,
    /// The node follows: what it changes is drift, which is listed.
    FromHub {
        /// Ends the drift: the hub's version gets its name back, the node's is kept beside it on the
        /// node.
        repair: bool,
    },
    /// The node leads: the hub mirrors it. What the hub had is in the revisions before.
    FromNode,
    /// A push of the hub's side to a folder of the node.
    Push(Push),
}

impl Mode {
    /// Whether what either side changed counts.
    pub(super) const fn is_two_sided(self) -> bool {
        matches!(self, Self::TwoWay | Self::Merge)
    }

    /// Whether that side is written.
    pub const fn writes(self, end: End) -> bool {
        match (self, end) {
            (Self::TwoWay, _) | (Self::Merge | Self::FromNode, End::Hub) => true,
            (Self::FromHub { .. } | Self::Push(_), End::Node) => true,
            (Self::Merge | Self::FromNode, End::Node) | (Self::FromHub { .. } | Self::Push(_), End::Hub) => {
                false
            }
        }
    }
}

/// How a push treats what is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Push {
    /// Nothing was pushed there before: what differs is replaced. Else what the node changed since then
    /// stays, and is told.
    pub first: bool,
    /// What the node changed is replaced as well.
    pub force: bool,
    /// What the source lacks goes, if it was pushed before and not changed since; with `force` whatever
    /// it is.
    pub delete: bool,
}

/// What the planner is asked.
///
/// The three maps hold each folder that differs anywhere with all its entries, and no folder that is the
/// same in all three (its own entry stands in the folder above, as a folder). A path that one of them has
/// and another lacks is absent there. Each map is a tree: what is above an entry is a folder.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'t> {
    /// What both sides had when they were last alike.
    pub agreed: &'t BTreeMap<RelPath, Entry>,
    /// Of the whole agreed tree.
    pub agreed_counts: SideCounts,
    /// The hub's tree.
    pub hub: Side<'t>,
    /// The node's folder.
    pub node: Side<'t>,
    /// Which side may write which.
    pub mode: Mode,
    /// When removals halt.
    pub limits: DeleteLimits,
    /// What the node's disk makes of names.
    pub names: NameRules,
    /// The node's name, for the names of copies.
    pub node_name: &'t str,
    /// The revision of the hub's tree, for the names of copies.
    pub revision: Revision,
    /// The halt that a person let pass.
    pub accepted: Option<HaltId>,
}

/// What has to happen. Takes O(n log n) time and O(n) memory in the paths of its inputs.
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let rows = rows::rows(inputs);
    let mut held: BTreeMap<usize, Why> = BTreeMap::new();
    // Each round holds rows that the one before did not, and a held folder can only clash with its own
    // siblings: there are at most as many rounds as the deepest path has parts, mostly one.
    let (verdicts, copies, clashes) = loop {
        let verdicts = verdicts(inputs, &rows, &held);
        let clashes =
            if inputs.names.fold_case { names::clashes(&rows, &verdicts) } else { Clashes::default() };
        let (copies, unnamed) = copies(inputs, &rows, &verdicts);
        let before = held.len();
        held.extend(clashes.held.iter().map(|row| (*row, Why::Collision)));
        held.extend(unnamed.into_iter().map(|row| (row, Why::NoCopyName)));
        if held.len() == before {
            break (verdicts, copies, clashes);
        }
    };
    let decided =
        Decided { rows: &rows, verdicts: &verdicts, copies: &copies, in_the_way: &clashes.in_the_way };
    let mut plan = told(inputs, &decided);
    for (end, steps_of) in [(End::Hub, &mut plan.to_hub), (End::Node, &mut plan.to_node)] {
        if inputs.mode.writes(end) {
            *steps_of = steps(inputs, &decided, end);
        }
    }
    plan.halt = halts::judge(inputs, &plan);
    if plan.halt.is_some() {
        plan.to_hub.clear();
        plan.to_node.clear();
        plan.agreed.clear();
    }
    plan
}

/// One verdict per row: what is held is known from above, whether a folder is needed from below.
fn verdicts<'t>(inputs: &Inputs<'_>, rows: &[Row<'t>], held: &BTreeMap<usize, Why>) -> Vec<Verdict<'t>> {
    let one_way = OneWay::of(inputs.mode);
    let mut frozen: Vec<Option<Why>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let above = row.above.and_then(|above| frozen[above]).map(|_| Why::Below);
        let own = || held.get(&index).copied().or_else(|| held_by_itself(inputs, row));
        let barred = || one_way.and_then(|one_way| one_way.bars(row));
        frozen.push(above.or_else(own).or_else(barred));
    }
    let mut below = vec![Below::default(); rows.len()];
    let mut verdicts: Vec<Verdict<'t>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate().rev() {
        let verdict = match (frozen[index], one_way) {
            (Some(why), _) => Verdict::Hold(why),
            (None, Some(one_way)) => one_way.judge(row, below[index]),
            (None, None) => two_way::judge(row, below[index]),
        };
        if let Some(above) = row.above {
            let folder = &mut below[above];
            match &verdict {
                Verdict::Hold(_) | Verdict::Extra => {
                    folder.stays_on_hub |= row.seen(End::Hub).is_there();
                    folder.stays_on_node |= row.seen(End::Node).is_there();
                }
                Verdict::Want(_) | Verdict::Aside { .. } => {
                    let is_wanted = verdict.wanted().is_some();
                    folder.is_needed |= is_wanted;
                    folder.stays_on_hub |= is_wanted && one_way.is_some();
                    folder.stays_on_node |= is_wanted && one_way.is_some();
                }
            }
        }
        verdicts.push(verdict);
    }
    verdicts.reverse();
    verdicts
}

/// Why nothing may be planned for a path whatever the rest says (SYNC rules 9 to 11).
fn held_by_itself(inputs: &Inputs<'_>, row: &Row<'_>) -> Option<Why> {
    let seen = [row.seen(End::Hub), row.seen(End::Node)];
    let problem = seen.into_iter().filter_map(|seen| match seen {
        Seen::Blocked(problem) => Some(*problem),
        Seen::Entry(_) | Seen::Absent | Seen::Ignored => None,
    });
    // Of two problems the one, whichever side is asked about first.
    if let Some(problem) = problem.min() {
        return Some(Why::Blocked(problem));
    }
    if seen.contains(&&Seen::Ignored) {
        return Some(Why::Ignored);
    }
    let is_new = row.entry(End::Hub).is_some() && row.entry(End::Node).is_none();
    (inputs.names.windows && is_new && refuse_windows(row.path.name()).is_err()).then_some(Why::Name)
}

/// The names of copies by row, and the rows for whose copies there is none.
fn copies(
    inputs: &Inputs<'_>,
    rows: &[Row<'_>],
    verdicts: &[Verdict<'_>],
) -> (BTreeMap<usize, RelPath>, Vec<usize>) {
    let aside: Vec<usize> =
        (0..rows.len()).filter(|index| matches!(verdicts[*index], Verdict::Aside { .. })).collect();
    let folders: BTreeSet<&str> = aside.iter().map(|row| names::folder_of(rows[*row].path)).collect();
    let mut names = CopyNames::new(rows, folders, inputs.node_name, inputs.revision);
    let mut copies = BTreeMap::new();
    let mut unnamed = Vec::new();
    for row in aside {
        match names.take(row) {
            Some(copy) => {
                copies.insert(row, copy);
            }
            None => unnamed.push(row),
        }
    }
    (copies, unnamed)
}

/// The plan without its steps: what is agreed on, what is told, what is counted.
fn told(inputs: &Inputs<'_>, decided: &Decided<'_, '_>) -> Plan {
    let mut plan = Plan { agreed: agreed(inputs.mode, decided), ..Plan::default() };
    for (index, (row, verdict)) in decided.rows.iter().zip(decided.verdicts).enumerate() {
        count(&mut plan.counts, row, verdict);
        let (hub, node) = (row.entry(End::Hub), row.entry(End::Node));
        let conflict =
            |copy| Conflict { path: row.path.clone(), copy, hub: hub.cloned(), node: node.cloned() };
        match verdict {
            Verdict::Hold(Why::Below) if is_same(row) => {}
            Verdict::Hold(why) => {
                if *why == Why::Conflict {
                    plan.conflicts.push(conflict(None));
                }
                plan.held.push(Held { path: row.path.clone(), why: *why });
            }
            Verdict::Aside { .. } => plan.conflicts.push(conflict(decided.copies.get(&index).cloned())),
            Verdict::Want(_) | Verdict::Extra => {}
        }
    }
    plan
}

/// Whether nobody changed anything: what is so below a held folder is not worth a word.
fn is_same(row: &Row<'_>) -> bool {
    row.entry(End::Hub) == row.agreed && row.entry(End::Node) == row.agreed
}

fn count(counts: &mut PlanCounts, row: &Row<'_>, verdict: &Verdict<'_>) {
    let place = match verdict {
        Verdict::Hold(Why::Below) if is_same(row) => &mut counts.same,
        Verdict::Hold(why) => counts.held.entry(*why).or_default(),
        Verdict::Extra => &mut counts.extra,
        Verdict::Aside { .. } => &mut counts.kept_both,
        Verdict::Want(entry) => {
            let has = |end| row.entry(end) == entry.as_deref();
            match (has(End::Hub), has(End::Node)) {
                (true, true) => &mut counts.same,
                (true, false) => &mut counts.to_node,
                (false, true) => &mut counts.to_hub,
                (false, false) => &mut counts.merged,
            }
        }
    };
    *place += 1;
}
