//! Entries of folders as a caller asks for them: a list, and a search by what they are.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use cortex_content::search::{ANSWER_BYTES_MAX, Cursor, Pattern};
use cortex_core::error::Refusal;
use cortex_core::files::answer::{Entry, FileAnswer, Meta};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{FindQuery, Glob, Kind, Page};
use cortex_core::files::path::RelPath;

use super::cat::meta;
use super::place::Place;
use super::read;
use super::walk::{Budget, Item, Scope, Start, Step, Walk};

/// What a list shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown<'a> {
    pub(super) depth: u8,
    pub(super) hidden: bool,
    pub(super) glob: Option<&'a Glob>,
    pub(super) hash: bool,
}

/// The entries of a folder.
///
/// # Errors
///
/// Those of the folder itself. What lies in it and cannot be read is counted.
pub(super) fn list(
    place: &Place<'_>,
    shown: Shown<'_>,
    page: &Page,
    question: &ContentId,
    budget: Budget,
) -> Result<FileAnswer, Refusal> {
    let scope = Scope { depth: shown.depth.into(), hidden: shown.hidden, ignored: true };
    let glob = shown.glob.map(Pattern::new).transpose()?;
    let is_shown = |item: &Item| glob.as_ref().is_none_or(|glob| glob.is_about(&item.path, item.is_dir()));
    collect(place, scope, shown.hash, page, question, budget, is_shown)
}

/// Entries below a folder that are what is looked for.
///
/// # Errors
///
/// As [`list`].
pub(super) fn find(
    place: &Place<'_>,
    query: &FindQuery,
    page: &Page,
    question: &ContentId,
    budget: Budget,
) -> Result<FileAnswer, Refusal> {
    let scope = Scope { depth: usize::MAX, hidden: query.hidden, ignored: query.ignored };
    let name = query.name.as_ref().map(Pattern::new).transpose()?;
    let since_ns = query.changed_within_ms.map(|within| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        i64::try_from(now.saturating_sub(u128::from(within) * 1_000_000)).unwrap_or(i64::MAX)
    });
    let is_found = |item: &Item| {
        let is_named = name.as_ref().is_none_or(|name| name.is_about(&item.path, item.is_dir()));
        let asks_size = query.size_min.is_some() || query.size_max.is_some();
        let Some(stat) = item.stat else {
            // Nobody knows whether the rest holds.
            return is_named && query.kind.is_none() && !asks_size && since_ns.is_none();
        };
        let has_size = stat.kind == Kind::File || !asks_size;
        is_named
            && query.kind.is_none_or(|kind| kind == stat.kind)
            && has_size
            && query.size_min.is_none_or(|min| stat.size >= min)
            && query.size_max.is_none_or(|max| stat.size <= max)
            && since_ns.is_none_or(|since| stat.mtime_ns >= since)
    };
    collect(place, scope, false, page, question, budget, is_found)
}

fn collect(
    place: &Place<'_>,
    scope: Scope,
    hash: bool,
    page: &Page,
    question: &ContentId,
    budget: Budget,
    is_wanted: impl Fn(&Item) -> bool,
) -> Result<FileAnswer, Refusal> {
    let start = Cursor::decode(page, question)?.map_or(Start::First, |cursor| Start::After(cursor.path));
    let mut walk = Walk::new(place, scope, budget, start)?;
    let (mut entries, mut bytes) = (Vec::new(), 0);
    // Where the next page begins when there is one.
    let mut last: Option<Vec<u8>> = None;
    let next = loop {
        // Hashing takes time that the walk does not see.
        if hash && !entries.is_empty() && budget.is_late() {
            break last;
        }
        let item = match walk.next() {
            Step::Entry(item) => item,
            Step::End => break None,
            Step::Spent => break walk.last.clone(),
        };
        if !is_wanted(&item) {
            continue;
        }
        if entries.len() >= page.limit as usize {
            break last;
        }
        let entry = entry(&mut walk, &item, hash);
        bytes += entry.weight();
        if bytes > ANSWER_BYTES_MAX && !entries.is_empty() {
            break last;
        }
        last = Some(item.path);
        entries.push(entry);
    };
    let next = next.map(|path| Cursor { path, line: None }.encode(question));
    Ok(FileAnswer::Listing { entries, next, searched: walk.looked_at, skipped: walk.skipped })
}

fn entry(walk: &mut Walk, item: &Item, hash: bool) -> Entry {
    let Some(stat) = item.stat else {
        let meta = Meta {
            kind: Kind::Other,
            size: 0,
            mode: 0,
            mtime_ns: 0,
            uid: 0,
            gid: 0,
            links: 0,
            target: None,
            etag: None,
        };
        return Entry { name: Bytes::copy_from_slice(&item.path), meta };
    };
    let (mut target, mut etag) = (None, None);
    if let Some(here) = walk.here() {
        if stat.kind == Kind::Link {
            target = here.link_target(item.name()).ok();
        }
        if hash && stat.kind == Kind::File {
            let hashed = here.regular(item.name()).and_then(|file| read::hash(&file));
            etag = hashed.ok().map(|hashed| hashed.etag);
            walk.skipped.unreadable += u64::from(etag.is_none());
        }
    }
    let is_nameable = RelPath::root().join_bytes(item.name()).is_ok();
    walk.skipped.unsupported += u64::from(stat.kind == Kind::Other || !is_nameable);
    Entry { name: Bytes::copy_from_slice(&item.path), meta: meta(&stat, target, etag) }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
