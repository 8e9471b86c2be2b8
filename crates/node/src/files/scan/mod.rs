//! A folder on the disk as a tree of objects: what is there, by content, and what of it cannot be kept
//! elsewhere. What was read once is read again only when it changed ([`Cache`]); what changed is told by
//! the system as well, as a hint ([`watch`]).
//!
//! Everything is reached by descriptor, no link is followed, and what cannot be read is never taken for
//! absent (SYNC rules 8, 9, 11, 12, 16, 19). The folder `.cortex` at the top is ours: it is no part of
//! the tree.
//!
//! Never here: what is done about a difference (`cortex_core::sync`), and the network.

mod cache;
mod identity;
mod objects;
mod source;

use std::collections::BTreeMap;

use cortex_content::object::Totals;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Seen, SideCounts};

pub(crate) use cache::Cache;
pub(crate) use identity::Identity;
pub(crate) use objects::Objects;
pub(crate) use source::Source;

use super::beneath::Dir;
use super::fault::Fault;

/// The folder at the top of a scanned one that holds our own files: the marker, the cache, what is being
/// received. It is never part of the tree.
pub(crate) const OURS: &[u8] = b".cortex";

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

/// Reads a folder that was opened beneath its root. Files that `cache` knows are not read again.
///
/// # Errors
/// [`Fault::TooMany`] above the bounds of a tree; what the system says when the folder itself, or its
/// ignore files, cannot be read, or when there is no memory or descriptor left.
pub(crate) fn scan(
    dir: &Dir,
    spec: &ScanSpec,
    cache: &mut Cache,
    sticky: Option<&Base<'_>>,
) -> Result<Scanned, Fault> {
    let _unread = (dir, spec, cache, sticky);
    Err(Fault::Sys(nix::errno::Errno::ENOSYS))
}
