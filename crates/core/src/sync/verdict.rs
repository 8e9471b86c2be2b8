//! What becomes of each path, and the plan as a whole.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::halts::Halt;
use super::steps::Step;
use super::tree::{End, Entry, Problem};
use crate::files::path::RelPath;

/// Why a path is left as it is on both sides. It is told, and planned anew with the next scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The ignore rules leave it out on one side (SYNC rule 9).
    Ignored,
    /// It could not be read (SYNC rule 11).
    Blocked(Problem),
    /// A folder above is held.
    Below,
    /// A folder that would go, or would become something else, if there were not something in it that
    /// stays.
    Contains,
    /// Other names in its folder are the same to the node's disk (SYNC rule 10).
    Collision,
    /// The node's system has no such name (ABUSE 51).
    Name,
    /// Its content would have to be kept beside it, and no name is left for that.
    NoCopyName,
    /// The target changed it, in a mode in which it is not the target's to change.
    Drift,
    /// A push leaves it: the node changed it since the last one, and the source did not.
    Kept,
    /// A push leaves it: both changed it since the last one.
    Conflict,
}

impl Why {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::Ignored,
        Self::Blocked(Problem::Unreadable),
        Self::Blocked(Problem::Unsupported),
        Self::Blocked(Problem::LinkOutside),
        Self::Blocked(Problem::OtherFileSystem),
        Self::Blocked(Problem::Unsteady),
        Self::Below,
        Self::Contains,
        Self::Collision,
        Self::Name,
        Self::NoCopyName,
        Self::Drift,
        Self::Kept,
        Self::Conflict,
    ];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::Blocked(Problem::Unreadable) => "unreadable",
            Self::Blocked(Problem::Unsupported) => "unsupported",
            Self::Blocked(Problem::LinkOutside) => "link_outside",
            Self::Blocked(Problem::OtherFileSystem) => "other_file_system",
            Self::Blocked(Problem::Unsteady) => "unsteady",
            Self::Below => "below",
            Self::Contains => "contains",
            Self::Collision => "collision",
            Self::Name => "name",
            Self::NoCopyName => "no_copy_name",
            Self::Drift => "drift",
            Self::Kept => "kept",
            Self::Conflict => "conflict",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.as_str() == text)
    }
}

/// A path that is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The path.
    pub path: RelPath,
    /// Why.
    pub why: Why,
}

/// A path that both sides changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The path.
    pub path: RelPath,
    /// Where the version that loses its name is kept; `None` when both stay where they are.
    pub copy: Option<RelPath>,
    /// The hub's version.
    pub hub: Option<Entry>,
    /// The node's version.
    pub node: Option<Entry>,
}

/// Rows by what becomes of them: each path that was looked at is counted once (SYNC rule 19).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanCounts {
    /// Alike on both sides.
    pub same: u64,
    /// The node is given the hub's.
    pub to_node: u64,
    /// The hub is given the node's.
    pub to_hub: u64,
    /// Both get something that neither has: the content of one, the exec bit of the other.
    pub merged: u64,
    /// Both versions are kept.
    pub kept_both: u64,
    /// Only on the target, which may keep it.
    pub extra: u64,
    /// Left as it is, by reason.
    pub held: BTreeMap<Why, u64>,
}

impl PlanCounts {
    /// All rows.
    pub fn total(&self) -> u64 {
        let moved = self.to_node + self.to_hub + self.merged + self.kept_both;
        self.same + moved + self.extra + self.held.values().sum::<u64>()
    }
}

/// What has to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Steps on the node, to be done in this order.
    pub to_node: Vec<Step>,
    /// Steps on the hub's tree, to be done in this order.
    pub to_hub: Vec<Step>,
    /// What both sides agree on when all steps are done, where that is not what they agreed on before: what
    /// both have; after a merge what the node has, all of which the hub has too, there or beside it. Of what
    /// is held it stays as it was, or ends with the folder that it is in.
    pub agreed: Vec<(RelPath, Option<Entry>)>,
    /// Paths that both sides changed.
    pub conflicts: Vec<Conflict>,
    /// Paths that stay as they are.
    pub held: Vec<Held>,
    /// Set when a safety rule stopped it: no step is planned then, and nothing agreed on.
    pub halt: Option<Halt>,
    /// What becomes of the paths; without a regard to `halt`.
    pub counts: PlanCounts,
}

/// What becomes of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict<'t> {
    /// Both sides are to have this.
    Want(Option<Cow<'t, Entry>>),
    /// Both sides are to have `stays`; the file or link of `from` is kept beside it.
    Aside { stays: &'t Entry, from: End, leaf: &'t Entry },
    /// Nothing is done here.
    Hold(Why),
    /// The target has it and the source does not, and that is fine.
    Extra,
}

impl<'t> Verdict<'t> {
    pub(super) fn want(entry: Option<&'t Entry>) -> Self {
        Self::Want(entry.map(Cow::Borrowed))
    }

    /// Whether both sides are left as they are.
    pub(super) const fn leaves_all(&self) -> bool {
        matches!(self, Self::Hold(_) | Self::Extra)
    }

    /// What both sides will have; `None` also when the sides are left as they are.
    pub(super) fn wanted(&self) -> Option<&Entry> {
        match self {
            Self::Want(entry) => entry.as_deref(),
            Self::Aside { stays, .. } => Some(stays),
            Self::Hold(_) | Self::Extra => None,
        }
    }
}

/// What the rows in a folder say about the folder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Below {
    /// Something in it will be on both sides, so the folder has to be there.
    pub(super) is_needed: bool,
    /// Something in it stays as it is on the hub's side.
    pub(super) stays_on_hub: bool,
    /// Something in it stays as it is on the node's side.
    pub(super) stays_on_node: bool,
}

impl Below {
    /// Whether something that is not planned stays in the folder of `end`.
    pub(super) const fn stays_on(self, end: End) -> bool {
        match end {
            End::Hub => self.stays_on_hub,
            End::Node => self.stays_on_node,
        }
    }
}
