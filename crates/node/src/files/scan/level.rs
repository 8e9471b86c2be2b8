//! A folder under way: what is known of it, what was found in it so far, and how a part of it is left to others.

use std::sync::Arc;

use bytes::Bytes;
use cortex_content::object::{DirEntry, Node};
use cortex_core::files::path::RelPath;
use nix::errno::Errno;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::cache::{Rows, Sums, Told, Writer};
use super::crew::{Share, Waiting};
use super::pass::path_of;
use super::rules::Digest;

/// A folder that was gone over.
pub(super) struct Done {
    pub(super) name: Box<[u8]>,
    pub(super) told: Told,
    /// Entries of the tree that lie in the folder itself.
    pub(super) entries: u64,
}

/// One open folder.
pub(super) struct Level {
    /// `None` once all its entries were looked at.
    pub(super) dir: Option<Dir>,
    pub(super) name: Box<[u8]>,
    pub(super) rel: RelPath,
    /// The same with a slash behind it.
    pub(super) path: Vec<u8>,
    pub(super) ino: u64,
    pub(super) above: Digest,
    pub(super) names: std::vec::IntoIter<Box<[u8]>>,
    /// What is known of its entries.
    pub(super) rows: Rows,
    pub(super) was: Rows,
    pub(super) base: Arc<[DirEntry]>,
    pub(super) entries: Vec<DirEntry>,
    pub(super) writer: Writer,
    pub(super) sums: Sums,
    /// Where it waits for what others do of it, if they do.
    pub(super) waiting: Option<Arc<Waiting>>,
    /// The first of its names, when it is only that part of the folder that another thread has left.
    pub(super) part: Option<Box<[u8]>>,
}

impl Level {
    pub(super) fn empty(dir: Dir, rel: RelPath, ino: u64, above: Digest) -> Self {
        let path = path_of(&rel);
        Self {
            dir: Some(dir),
            name: Box::default(),
            rel,
            path,
            ino,
            above,
            names: Vec::new().into_iter(),
            rows: Rows::default(),
            was: Rows::default(),
            base: Arc::default(),
            entries: Vec::new(),
            writer: Writer::default(),
            sums: Sums::default(),
            waiting: None,
            part: None,
        }
    }

    /// The folder itself, which is open while its entries are looked at.
    pub(super) fn dir(&self) -> Result<&Dir, Fault> {
        self.dir.as_ref().ok_or(Fault::Sys(Errno::EBADF))
    }

    /// The second half of the names that are left, at least one, for another thread.
    pub(super) fn split(&mut self) -> Result<Self, Fault> {
        let dir = self.dir()?.again()?;
        let mut names: Vec<Box<[u8]>> = std::mem::take(&mut self.names).collect();
        let rest = names.split_off(names.len() / 2);
        self.names = names.into_iter();
        let (rows, base) = (self.rows.clone(), Arc::clone(&self.base));
        let (part, waiting) = (rest.first().cloned(), Some(Arc::clone(self.expects_one())));
        let empty = Self::empty(dir, self.rel.clone(), self.ino, self.above);
        Ok(Self { names: rest.into_iter(), rows, base, part, waiting, ..empty })
    }

    /// Where it waits for what others do of it, which is one thing more from here on.
    pub(super) fn expects_one(&mut self) -> &Arc<Waiting> {
        let waiting = self.waiting.get_or_insert_default();
        waiting.expect_one();
        waiting
    }

    /// What a part of a folder came to, and who waits for it.
    pub(super) fn share(&mut self) -> Option<(Arc<Waiting>, Share)> {
        let (part, waiting) = (self.part.take()?, self.waiting.take()?);
        let rows = Some((part, std::mem::take(&mut self.writer)));
        Some((waiting, Share { entries: std::mem::take(&mut self.entries), sums: self.sums, rows }))
    }

    /// Where it waited, if it did.
    pub(super) fn take_waiting(&mut self) -> Option<Arc<Waiting>> {
        self.waiting.take()
    }

    /// Takes in what others did of it.
    pub(super) fn take_in(&mut self, mut shares: Vec<Share>) {
        // Rows are in the order of names; folders in it wrote theirs where they were met.
        shares.sort_unstable_by(|one, other| one.first().cmp(&other.first()));
        for Share { entries, sums, rows } in shares {
            self.entries.extend(entries);
            self.sums.add(sums);
            if let Some((_, rows)) = rows {
                self.writer.append(rows);
            }
        }
    }

    /// Takes in what a folder in it came to.
    pub(super) fn put_dir(&mut self, Done { name, told, .. }: &Done) {
        self.sums.add(told.sums);
        self.entries.push(entry(name, Node::Dir { id: told.tree, totals: told.totals }));
    }

    /// What the base has by this name.
    pub(super) fn in_base(&self, name: &[u8]) -> Option<&Node> {
        let at = self.base.binary_search_by(|entry| entry.name[..].cmp(name)).ok()?;
        Some(&self.base[at].node)
    }
}

pub(super) fn entry(name: &[u8], node: Node) -> DirEntry {
    DirEntry { name: Bytes::copy_from_slice(name), node }
}
