//! One side is the source and is never written. What the target changed by itself is left, kept beside
//! or replaced, as the mode says.

use super::plan::Mode;
use super::rows::Row;
use super::tree::{End, Entry};
use super::verdict::{Below, Verdict, Why};

/// How a mode treats the target.
#[derive(Clone, Copy, Debug)]
pub(super) struct OneWay {
    /// The side that is written.
    pub(super) target: End,
    /// What the target changed may be replaced without a copy.
    force: bool,
    /// What the source lacks is removed, if the target did not change it.
    delete: bool,
    /// What the target changed is kept beside, and the source's put in its place.
    repair: bool,
    /// It is a push: what the node changed is its own to keep.
    is_push: bool,
    /// Nothing was agreed on before: what differs is replaced, what is extra stays.
    first: bool,
}

impl OneWay {
    /// `None` when both sides may change.
    pub(super) const fn of(mode: Mode) -> Option<Self> {
        let plain = Self {
            target: End::Node,
            force: false,
            delete: true,
            repair: false,
            is_push: false,
            first: false,
        };
        match mode {
            Mode::TwoWay | Mode::Merge => None,
            Mode::FromHub { repair } => Some(Self { repair, ..plain }),
            Mode::FromNode => Some(Self { target: End::Hub, force: true, ..plain }),
            Mode::Push(push) => Some(Self {
                force: push.force,
                delete: push.delete,
                is_push: true,
                first: push.first,
                ..plain
            }),
        }
    }

    /// Whether the target's own file or link bars the way to all that the source has below this path.
    /// Then these are held as well: nothing can be put below a file.
    pub(super) fn bars(self, row: &Row<'_>) -> Option<Why> {
        let (source, target) = self.ends(row);
        let leaf = target.filter(|entry| **entry != Entry::Dir)?;
        (source == Some(&Entry::Dir) && !self.may_replace(row, leaf) && !self.repair)
            .then(|| self.left(row, source))
    }

    /// What becomes of a row whose folder above is not held.
    pub(super) fn judge<'t>(self, row: &Row<'t>, below: Below) -> Verdict<'t> {
        let (source, target) = self.ends(row);
        match (source, target) {
            (source, target) if source == target => Verdict::want(source),
            (None, Some(_)) if !self.delete => Verdict::Extra,
            (_, Some(Entry::Dir)) => self.folder(row, source, below),
            (Some(source), None) => self.gone(row, source, below),
            (None, Some(leaf)) if self.may_remove(row, leaf) => Verdict::want(None),
            (Some(_), Some(leaf)) if self.may_replace(row, leaf) => Verdict::want(source),
            (Some(entry), Some(leaf)) if self.repair && entry.has_content_of(leaf) => Verdict::want(source),
            (Some(stays), Some(leaf)) if self.repair => Verdict::Aside { stays, from: self.target, leaf },
            (_, Some(_)) => Verdict::Hold(self.left(row, source)),
            (None, None) => Verdict::want(None),
        }
    }

    const fn ends<'t>(self, row: &Row<'t>) -> (Option<&'t Entry>, Option<&'t Entry>) {
        (row.entry(self.target.other()), row.entry(self.target))
    }

    fn may_remove(self, row: &Row<'_>, there: &Entry) -> bool {
        self.delete && (self.force || row.agreed == Some(there))
    }

    fn may_replace(self, row: &Row<'_>, there: &Entry) -> bool {
        self.force || self.first || row.agreed == Some(there)
    }

    /// The target has a folder where the source has something else or nothing.
    fn folder<'t>(self, row: &Row<'t>, source: Option<&'t Entry>, below: Below) -> Verdict<'t> {
        match (self.may_remove(row, &Entry::Dir), below.stays_on(self.target)) {
            (true, false) => Verdict::want(source),
            (true, true) if source.is_none() => Verdict::Hold(Why::Contains),
            (true, true) | (false, _) => Verdict::Hold(self.left(row, source)),
        }
    }

    /// The target lacks what the source has.
    fn gone<'t>(self, row: &Row<'t>, source: &'t Entry, below: Below) -> Verdict<'t> {
        let is_new = row.agreed.is_none();
        let is_needed = *source == Entry::Dir && below.is_needed;
        // The target removed it: its wish, unless the source has something new (SYNC rule 7). A change of
        // kind that was cut off half way looks the same, and is done to its end.
        let is_wish = row.agreed == Some(source);
        match is_new || is_needed || self.force || self.first || self.repair || !is_wish {
            true => Verdict::want(Some(source)),
            false => Verdict::Hold(self.left(row, Some(source))),
        }
    }

    fn left(self, row: &Row<'_>, source: Option<&Entry>) -> Why {
        match (self.is_push, row.agreed == source) {
            (false, _) => Why::Drift,
            (true, true) => Why::Kept,
            (true, false) if source.is_none() => Why::Kept,
            (true, false) => Why::Conflict,
        }
    }
}
