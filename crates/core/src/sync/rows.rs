//! The three trees side by side: one row per path that any of them names, a folder before what is in it.

use std::iter::Peekable;

use super::plan::Inputs;
use super::tree::{End, Entry, Seen};
use crate::files::path::RelPath;

static ABSENT: Seen = Seen::Absent;

/// What the three trees say of one path.
pub(super) struct Row<'t> {
    pub(super) path: &'t RelPath,
    /// The row of the nearest folder above that has one. A folder without a row is the same everywhere.
    pub(super) above: Option<usize>,
    pub(super) agreed: Option<&'t Entry>,
    hub: &'t Seen,
    node: &'t Seen,
}

impl<'t> Row<'t> {
    pub(super) const fn seen(&self, end: End) -> &'t Seen {
        match end {
            End::Hub => self.hub,
            End::Node => self.node,
        }
    }

    pub(super) const fn entry(&self, end: End) -> Option<&'t Entry> {
        self.seen(end).entry()
    }
}

/// The row of a path in a map, if it is the next there.
fn take<'t, T>(
    from: &mut Peekable<impl Iterator<Item = (&'t RelPath, &'t T)>>,
    path: &RelPath,
) -> Option<&'t T> {
    from.next_if(|(next, _)| *next == path).map(|(_, found)| found)
}

/// All rows, in the order of their paths.
pub(super) fn rows<'t>(inputs: &Inputs<'t>) -> Vec<Row<'t>> {
    let mut agreed = inputs.agreed.iter().peekable();
    let mut hub = inputs.hub.entries.iter().peekable();
    let mut node = inputs.node.entries.iter().peekable();
    let mut rows: Vec<Row<'t>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    loop {
        let next = [agreed.peek().map(|e| e.0), hub.peek().map(|e| e.0), node.peek().map(|e| e.0)];
        let Some(path) = next.into_iter().flatten().min() else { return rows };
        while open.last().is_some_and(|top| path.below(rows[*top].path).is_none()) {
            open.pop();
        }
        let row = Row {
            path,
            above: open.last().copied(),
            agreed: take(&mut agreed, path),
            hub: take(&mut hub, path).unwrap_or(&ABSENT),
            node: take(&mut node, path).unwrap_or(&ABSENT),
        };
        // The root is no entry; what a caller says of it stands in `RootState`.
        if !path.is_root() {
            open.push(rows.len());
            rows.push(row);
        }
    }
}
