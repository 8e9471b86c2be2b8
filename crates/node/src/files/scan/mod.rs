//! A folder on the disk as a tree of objects: what is there, by content, and what of it cannot be kept
//! elsewhere. What was read once is read again only when it changed ([`Cache`]); that something changed is
//! told by the system as well, as a hint ([`watch`]).
//!
//! Everything is reached by descriptor, no link is followed, and what cannot be read is never taken for
//! absent (SYNC rules 8, 9, 11, 12, 16, 19). The folder `.cortex` at the top is ours: it is no part of
//! the tree.
//!
//! Never here: what is done about a difference (`cortex_core::sync`), and the network.

mod cache;
mod clock;
mod crew;
mod file;
mod identity;
mod level;
mod objects;
mod pass;
mod rules;
mod source;
pub(crate) mod watch;
pub(crate) mod writers;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cortex_content::object::Totals;
use cortex_content::pack::ChunkRef;
use cortex_content::tree::write_dir;
use cortex_core::error::Refusal;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Seen, SideCounts};

pub(crate) use cache::Cache;
pub(crate) use clock::await_tick;
pub(crate) use identity::Identity;
pub(crate) use objects::Objects;
pub(crate) use source::{Places, Source};

use super::beneath::{Dir, Stat};
use super::fault::Fault;
use super::spans;
use crew::Crew;
use level::Done;
use pass::{Found, Guide, Pass};
use rules::Rules;

/// The folder at the top of a scanned one that holds our own files: the marker, the cache, what is being
/// received. It is never part of the tree.
pub(crate) const OURS: &[u8] = cortex_core::limits::OWN_FOLDER.as_bytes();

/// What is done about symbolic links that lead out of the tree, as their text says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Links {
    /// They are kept, as text, like any other.
    #[default]
    Keep,
    /// They are left out as [`Problem::LinkOutside`](cortex_core::sync::Problem::LinkOutside).
    Refuse,
}

/// What of a folder belongs to its tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ScanSpec {
    /// Patterns of `.gitignore`, from the folder down, for what is left out; they have the last word.
    pub(crate) excludes: Vec<String>,
    /// Whether `.gitignore` and `.cortexignore` count, those of the folder and those below it.
    pub(crate) ignore_files: bool,
    /// Whether what is called `.git` belongs to it.
    pub(crate) vcs: bool,
    /// Links that lead out.
    pub(crate) links: Links,
    /// Whether every file is read, whatever the cache says.
    pub(crate) full: bool,
    /// The one entry of the folder that is looked at; `None`: all. Whoever names it wants it: it is left out
    /// by no rule, and may have further names elsewhere. What lies below it is judged as always. What is
    /// known of the whole folder says nothing about such a scan, nor the other way round.
    pub(crate) only: Option<Box<[u8]>>,
}

/// Told again and again while a scan goes on: how many files were looked at, and how many bytes were read.
pub(crate) type Tell<'a> = dyn Fn(u64, u64) + 'a;

/// Given each chunk of a file that is read, as it comes by, with its hash, by several threads at once. Whether the
/// file holds still until its end is not known then.
pub(crate) type Take<'a> = dyn Fn(ContentId, &[u8]) + Sync + 'a;

impl ScanSpec {
    /// Whether its patterns are such.
    ///
    /// # Errors
    /// `invalid_argument` with the pattern that is none.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        Rules::new(self).map(drop)
    }
}

/// Remarks about a tree, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    /// Files and folders with setuid, setgid or sticky bits, which are not kept (SYNC rule 16).
    pub(crate) masked: u64,
    /// Files that are longer than a tree takes, or nothing but a hole: blocked as unsupported.
    pub(crate) too_large: u64,
    /// Folders whose ignore files cannot be read whole: blocked as unreadable, since nobody knows what of
    /// them may be sent.
    pub(crate) rules_unread: u64,
}

/// A tree, and what of the folder is not in it.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    /// The tree.
    pub(crate) root: TreeId,
    /// What lies below the root.
    pub(crate) totals: Totals,
    /// As the planner wants them.
    pub(crate) counts: SideCounts,
    /// Every object of the tree.
    pub(crate) objects: Objects,
    /// What is there and not in the tree, [`Seen::Ignored`] or [`Seen::Blocked`]: the topmost of each.
    pub(crate) left_out: BTreeMap<RelPath, Seen>,
    /// Entries whose names are no [`RelPath`], so that they are neither in the tree nor in `left_out`.
    pub(crate) unnamed: u64,
    /// Bytes of files that were read.
    pub(crate) hashed: u64,
    /// Remarks.
    pub(crate) notes: Notes,
}

/// A tree whose times are kept where the content is the same, so that nothing but content moves a root.
/// Without one the times of the scan before are kept, by the cache.
pub(crate) struct Base<'a> {
    /// The tree.
    pub(crate) root: TreeId,
    /// Its objects. Of those that are not here, nothing is kept.
    pub(crate) objects: &'a Objects,
}

/// Reads a folder that was opened beneath its root, to send it: nothing in it is touched, and nobody's files are asked
/// about. Files that `cache` knows are not read again; `take` is given
/// the content of those that are.
///
/// # Errors
/// [`Fault::TooMany`] above the bounds of a tree; what the system says when the folder itself, or its
/// ignore files, cannot be read, or when there is no memory or descriptor left.
pub(crate) fn scan(
    dir: &Dir,
    spec: &ScanSpec,
    cache: &mut Cache,
    take: Option<&Take<'_>>,
) -> Result<Scanned, Fault> {
    whole(dir, &Guide { take, ..Guide::of(spec) }, cache, None, spans::threads())
}

/// A file that was written since the last scan, by whoever knows what is in it.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// What was known of it when it was done.
    pub(crate) stat: Stat,
    /// All of its content.
    pub(crate) id: ContentId,
    /// Of a file above 1 MiB, else none.
    pub(crate) chunks: Vec<ChunkRef>,
}

/// As [`scan`], for a folder in which something may be replaced: what the cache learns says that as well of which
/// files the times can be believed then ([`Sights`](cache::Sights)). Keeps the times of `sticky`, and tells how far it is. Files of `wrote` that nobody touched since
/// are not read either.
///
/// # Errors
/// Those of [`scan`].
pub(crate) fn scan_telling(
    dir: &Dir,
    spec: &ScanSpec,
    cache: &mut Cache,
    sticky: Option<&Base<'_>>,
    wrote: &HashMap<RelPath, Written>,
    tell: &Tell<'_>,
) -> Result<Scanned, Fault> {
    let guide = Guide { base: sticky, wrote: Some(wrote), asks_writers: true, ..Guide::of(spec) };
    whole(dir, &guide, cache, Some(tell), spans::threads())
}

/// Whether an entry is left out whatever ignore files say, by its path and whether it is a folder.
///
/// # Errors
/// `invalid_argument` for a pattern that is none.
pub(crate) fn excluded(spec: &ScanSpec) -> Result<impl Fn(&RelPath, bool) -> bool, Refusal> {
    let rules = Rules::new(spec)?;
    Ok(move |path: &RelPath, is_dir| {
        rules.leave_out(path.as_str().as_bytes(), path.name().as_bytes(), is_dir)
    })
}

impl Scanned {
    /// Of a folder that is empty, or not there.
    pub(crate) fn empty() -> Self {
        let mut objects = Objects::default();
        let written = write_dir(Vec::new(), &mut |id, bytes| objects.put(id, bytes));
        // A folder without entries is within every bound.
        let (root, totals) = written.unwrap_or((TreeId::of(b""), Totals::default()));
        Self {
            root,
            totals,
            counts: SideCounts::default(),
            objects,
            left_out: BTreeMap::new(),
            unnamed: 0,
            hashed: 0,
            notes: Notes::default(),
        }
    }
}

/// One file of a folder, as a tree of one entry. Whoever names a file may have further names for it.
///
/// # Errors
/// [`Fault::Unfit`] when it is no file, [`Fault::Restless`] when it changes each time that it is read,
/// [`Fault::TooMany`] when it is longer than a tree takes; else what the system says.
pub(crate) fn single(dir: &Dir, name: &[u8], take: Option<&Take<'_>>) -> Result<Scanned, Fault> {
    let spec = ScanSpec { vcs: true, full: true, ..ScanSpec::default() };
    let (cache, nothing) = (Cache::default(), (Objects::default(), BTreeMap::new()));
    let guide = Guide { take, ..Guide::of(&spec) };
    let crew = Crew::new(dir, guide, &cache, (&nothing.0, &nothing.1), 1)?;
    let mut pass = Pass::new(&crew, None, None);
    let done = pass.single(dir, name)?;
    Ok(scanned(pass.end(), &done))
}

fn whole(
    dir: &Dir,
    guide: &Guide<'_>,
    cache: &mut Cache,
    tell: Option<&Tell<'_>>,
    threads: usize,
) -> Result<Scanned, Fault> {
    cache.is_of(dir.stat_self()?.id);
    let (before, was_left_out) = (Objects::default(), BTreeMap::new());
    let first = Crew::new(dir, *guide, cache, (&before, &was_left_out), threads)?;
    let (mut found, done) = first.go_over(dir, tell);
    cache.learn(std::mem::take(&mut found.learnt));
    let done = done?;
    if found.names.is_empty() {
        return Ok(scanned(found, &done));
    }
    // Files with more names than one belong to the tree when all their names do (ABUSE 48), which is
    // known only once all were seen.
    let all_found = found.names.iter().filter(|(_, (names, found))| found >= names);
    let inside: HashSet<_> = all_found.map(|(file, _)| *file).collect();
    let dirty = with_those_above(&found.linked_in);
    let guide = Guide { dirty: Some(&dirty), inside: Some(&inside), ..*guide };
    let before = (&found.objects, &found.left_out);
    let second = Crew::new(dir, guide, cache, before, threads)?;
    let (mut again, done) = second.go_over(dir, tell);
    cache.learn(std::mem::take(&mut again.learnt));
    let done = done?;
    again.hashed += found.hashed;
    again.objects.add(found.objects);
    again.objects.keep_only(done.told.tree);
    Ok(scanned(again, &done))
}

fn with_those_above(folders: &BTreeSet<RelPath>) -> BTreeSet<RelPath> {
    let mut all = BTreeSet::new();
    for folder in folders {
        let mut next = Some(folder.clone());
        while let Some(folder) = next {
            next = folder.parent();
            if !all.insert(folder) {
                break;
            }
        }
    }
    all
}

fn scanned(found: Found, Done { told, entries, .. }: &Done) -> Scanned {
    let Found { mut objects, left_out, hashed, .. } = found;
    objects.settle(told.tree);
    Scanned {
        root: told.tree,
        totals: told.totals,
        counts: SideCounts { files: told.sums.files, root_entries: *entries },
        objects,
        left_out,
        unnamed: told.sums.unnamed,
        hashed,
        notes: Notes {
            masked: told.sums.masked,
            too_large: told.sums.too_large,
            rules_unread: told.sums.rules_unread,
        },
    }
}

#[cfg(test)]
mod tests;
