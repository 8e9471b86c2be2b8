//! When a plan is stopped before its first step: what looks like an accident needs a person's word.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::plan::Inputs;
use super::steps::{Act, Step};
use super::tree::{End, Entry, RootState, Seen, Side};
use super::verdict::Plan;
use crate::files::content::ContentId;

/// How much may be removed on one side at once (SYNC rule 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteLimits {
    /// More files than that halt.
    pub files: u64,
    /// More than that share of the files, in percent, halts.
    pub percent: u64,
    /// The share counts from so many files on: with three files every removal is a large share.
    pub percent_from: u64,
}

impl Default for DeleteLimits {
    fn default() -> Self {
        Self { files: 1_000, percent: 50, percent_from: 20 }
    }
}

/// What was about to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The root is gone or no folder (SYNC rule 1). Cannot be accepted: the folder comes back, or the
    /// member goes.
    RootGone,
    /// The root is another folder than it was, or cannot be looked at (SYNC rule 2). Cannot be accepted.
    RootUnavailable,
    /// A root with two entries or more is empty now (SYNC rule 1).
    RootEmptied,
    /// More removals than [`DeleteLimits`] allow (SYNC rule 3).
    Deletes,
}

impl Rule {
    /// All of them.
    pub const ALL: &'static [Self] =
        &[Self::RootGone, Self::RootUnavailable, Self::RootEmptied, Self::Deletes];

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.as_str() == text)
    }

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RootGone => "root_gone",
            Self::RootUnavailable => "root_unavailable",
            Self::RootEmptied => "root_emptied",
            Self::Deletes => "deletes",
        }
    }

    /// Whether a person's word lets it pass.
    pub const fn can_be_accepted(self) -> bool {
        match self {
            Self::RootGone | Self::RootUnavailable => false,
            Self::RootEmptied | Self::Deletes => true,
        }
    }
}

/// One reason of a halt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The rule.
    pub rule: Rule,
    /// The side whose root it is, or that would lose the files.
    pub end: End,
    /// Files and links that would be removed there. A file that only gets another name is not counted.
    pub deletes: u64,
    /// Files and links that were agreed on, or that are there when they are fewer.
    pub of: u64,
}

/// Names one halt: its causes and every removal that it stopped. With one removal more it is another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HaltId(ContentId);

impl HaltId {
    /// Wraps the hash, as it came over the wire.
    pub const fn new(hash: ContentId) -> Self {
        Self(hash)
    }

    /// The hash.
    pub const fn hash(self) -> ContentId {
        self.0
    }
}

impl fmt::Display for HaltId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for HaltId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HaltId({self})")
    }
}

impl FromStr for HaltId {
    type Err = crate::files::content::NotAHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A plan that a safety rule stopped. Only a person's acceptance of its id lets this plan pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Halt {
    /// Its name.
    pub id: HaltId,
    /// Why; never empty.
    pub causes: Vec<Cause>,
}

/// The halt of a plan; `None` when it may go on.
pub(super) fn judge(inputs: &Inputs<'_>, plan: &Plan) -> Option<Halt> {
    let mut causes: Vec<Cause> = Vec::new();
    for (end, side, across, steps) in [
        (End::Hub, &inputs.hub, &inputs.node, &plan.to_hub),
        (End::Node, &inputs.node, &inputs.hub, &plan.to_node),
    ] {
        let deletes = deletes(steps);
        let there = side.counts.files;
        let of = if inputs.agreed_counts.files == 0 { there } else { there.min(inputs.agreed_counts.files) };
        let cause = |rule, end| Cause { rule, end, deletes, of };
        match side.root {
            RootState::Dir => {}
            RootState::Missing | RootState::OtherKind => causes.push(cause(Rule::RootGone, end)),
            RootState::Unavailable => causes.push(cause(Rule::RootUnavailable, end)),
        }
        if is_emptied(inputs, across, steps) {
            causes.push(cause(Rule::RootEmptied, end.other()));
        }
        let limits = inputs.limits;
        let is_share = of >= limits.percent_from && deletes * 100 > of * limits.percent;
        if deletes > limits.files || is_share {
            causes.push(cause(Rule::Deletes, end));
        }
    }
    if causes.is_empty() {
        return None;
    }
    let id = id(&causes, plan);
    let may_pass = inputs.accepted == Some(id) && causes.iter().all(|cause| cause.rule.can_be_accepted());
    (!may_pass).then_some(Halt { id, causes })
}

/// Whether the steps would carry an emptied root over.
fn is_emptied(inputs: &Inputs<'_>, source: &Side<'_>, steps: &[Step]) -> bool {
    let mut removals = steps.iter().filter(|step| is_removal(&step.act)).peekable();
    let any = removals.peek().is_some();
    let top = removals.filter(|step| step.path.parts().nth(1).is_none()).count();
    source.counts.root_entries == 0 && any && (inputs.agreed_counts.root_entries >= 2 || top >= 2)
}

const fn is_removal(act: &Act) -> bool {
    match act {
        Act::RemoveFile | Act::RemoveDir => true,
        Act::Put(_) | Act::MakeDir | Act::Exec(_) | Act::Keep { .. } => false,
    }
}

/// Files and links that go, less those whose content comes back under another name.
fn deletes(steps: &[Step]) -> u64 {
    let mut come: BTreeMap<ContentId, u64> = BTreeMap::new();
    let mut go: BTreeMap<ContentId, u64> = BTreeMap::new();
    let mut others = 0;
    for step in steps {
        match (&step.act, &step.expect) {
            (Act::Put(Entry::File { id, .. }), Seen::Absent) => *come.entry(*id).or_default() += 1,
            (Act::RemoveFile, Seen::Entry(Entry::File { id, .. })) => *go.entry(*id).or_default() += 1,
            (Act::RemoveFile, _) => others += 1,
            (Act::Put(_) | Act::MakeDir | Act::RemoveDir | Act::Exec(_) | Act::Keep { .. }, _) => {}
        }
    }
    let lost = go.iter().map(|(id, gone)| gone.saturating_sub(come.get(id).copied().unwrap_or_default()));
    others + lost.sum::<u64>()
}

fn id(causes: &[Cause], plan: &Plan) -> HaltId {
    let mut hash = blake3::Hasher::new_derive_key("cortex 2026 halt of a sync");
    for cause in causes {
        hash.update(&[cause.rule as u8, cause.end as u8]);
        hash.update(&cause.deletes.to_le_bytes()).update(&cause.of.to_le_bytes());
    }
    for (end, steps) in [(End::Hub, &plan.to_hub), (End::Node, &plan.to_node)] {
        for step in steps.iter().filter(|step| is_removal(&step.act)) {
            hash.update(&[0xff, end as u8]);
            hash.update(&(step.path.as_str().len() as u64).to_le_bytes());
            hash.update(step.path.as_str().as_bytes());
            match &step.expect {
                Seen::Entry(Entry::File { id, .. }) => hash.update(b"f").update(id.as_bytes()),
                Seen::Entry(Entry::Link { target }) => {
                    hash.update(b"l").update(ContentId::of(target).as_bytes())
                }
                Seen::Entry(Entry::Dir) | Seen::Absent | Seen::Ignored | Seen::Blocked(_) => {
                    hash.update(b"d")
                }
            };
        }
    }
    HaltId(ContentId::new(hash.finalize().into()))
}
