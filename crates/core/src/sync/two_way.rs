//! Both sides may change: what only one side changed is taken over, what both changed is kept twice
//! (SYNC rule 7). No clock is asked, and a removal never beats a change.

use std::borrow::Cow;

use super::rows::Row;
use super::tree::{End, Entry};
use super::verdict::{Below, Verdict, Why};

static DIR: Entry = Entry::Dir;

/// What becomes of a row whose folder above is not held.
pub(super) fn judge<'t>(row: &Row<'t>, below: Below) -> Verdict<'t> {
    let (hub, node) = (row.entry(End::Hub), row.entry(End::Node));
    match (is_dir(hub), is_dir(node)) {
        (true, true) => Verdict::want(hub),
        (true, false) => folder(row.agreed, End::Hub, node, below),
        (false, true) => folder(row.agreed, End::Node, hub, below),
        (false, false) => leaves(row.agreed, hub, node),
    }
}

fn is_dir(entry: Option<&Entry>) -> bool {
    entry == Some(&DIR)
}

/// `holder` has a folder, the side across a file, a link or nothing.
fn folder<'t>(agreed: Option<&Entry>, holder: End, across: Option<&'t Entry>, below: Below) -> Verdict<'t> {
    if is_dir(agreed) && !below.is_needed {
        // The side across removed it, and nothing in it says otherwise.
        return match below.stays_on(holder) {
            true => Verdict::Hold(Why::Contains),
            false => Verdict::want(across),
        };
    }
    match across {
        Some(leaf) if agreed != Some(leaf) => Verdict::Aside { stays: &DIR, from: holder.other(), leaf },
        Some(_) | None => Verdict::want(Some(&DIR)),
    }
}

fn leaves<'t>(agreed: Option<&Entry>, hub: Option<&'t Entry>, node: Option<&'t Entry>) -> Verdict<'t> {
    if hub == node || agreed == node {
        return Verdict::want(hub);
    }
    match (hub, node) {
        (_, Some(_)) if agreed == hub => Verdict::want(node),
        (_, None) if agreed == hub => Verdict::want(None),
        (Some(kept), None) | (None, Some(kept)) => Verdict::want(Some(kept)),
        (Some(hub), Some(node)) => match merged(agreed, hub, node) {
            Some(entry) => Verdict::Want(Some(Cow::Owned(entry))),
            None => Verdict::Aside { stays: hub, from: End::Node, leaf: node },
        },
        (None, None) => Verdict::want(None),
    }
}

/// Both are files and no content is in doubt: only one side has a new one, or both the same. The exec
/// bit is the one that changed, and set when nobody knows how it was.
fn merged(agreed: Option<&Entry>, hub: &Entry, node: &Entry) -> Option<Entry> {
    let content = match agreed {
        _ if hub.has_content_of(node) => hub,
        Some(agreed) if agreed.has_content_of(hub) => node,
        Some(agreed) if agreed.has_content_of(node) => hub,
        Some(_) | None => return None,
    };
    let (Entry::File { exec: on_hub, .. }, Entry::File { exec: on_node, .. }) = (hub, node) else {
        return None;
    };
    let Entry::File { id, map, size, .. } = *content else { return None };
    let exec = match agreed {
        Some(Entry::File { exec, .. }) if exec == on_hub => *on_node,
        Some(Entry::File { exec, .. }) if exec == on_node => *on_hub,
        Some(Entry::File { .. } | Entry::Dir | Entry::Link { .. }) | None => *on_hub || *on_node,
    };
    Some(Entry::File { id, map, size, exec })
}
