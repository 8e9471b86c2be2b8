//! What is known of one folder: what it came to, and a row for each entry of its tree, by name.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use cortex_content::object::Totals;
use cortex_content::pack::ChunkRef;
use cortex_core::files::content::{ContentId, TreeId};

use super::super::super::beneath::Stat;
use super::super::file::Content;
use super::super::rules::Digest;
use super::take;

const DIR: u8 = 0;
const FILE: u8 = 1;
const LINK: u8 = 2;

/// What adds up over folders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Sums {
    /// Files and links.
    pub(in super::super) files: u64,
    pub(in super::super) unnamed: u64,
    pub(in super::super) masked: u64,
    pub(in super::super) too_large: u64,
    pub(in super::super) rules_unread: u64,
    /// Files with more than one name, whether they are in the tree or not.
    pub(in super::super) linked: u64,
}

impl Sums {
    const COUNT: usize = 6;

    fn all(&mut self) -> [&mut u64; Self::COUNT] {
        let Self { files, unnamed, masked, too_large, rules_unread, linked } = self;
        [files, unnamed, masked, too_large, rules_unread, linked]
    }

    pub(in super::super) fn add(&mut self, mut other: Self) {
        for (sum, other) in self.all().into_iter().zip(other.all()) {
            *sum = sum.saturating_add(*other);
        }
    }
}

/// What a folder came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Told {
    /// Its inode: another folder at its path is another folder.
    pub(in super::super) ino: u64,
    /// The rules that held in the folder above.
    pub(in super::super) above: Digest,
    pub(in super::super) tree: TreeId,
    pub(in super::super) totals: Totals,
    pub(in super::super) sums: Sums,
}

/// The record of a folder.
#[derive(Clone, Debug)]
pub(in super::super) struct Record {
    pub(in super::super) told: Told,
    rows: Bytes,
}

const TOLD_BYTES: usize = 8 + 32 + 32 + 2 + 4 + 8 + 8 * Sums::COUNT;

impl Record {
    pub(super) fn parse(mut bytes: Bytes) -> Option<Self> {
        if bytes.len() < TOLD_BYTES {
            return None;
        }
        let ino = bytes.get_u64_le();
        let above = hash(&mut bytes)?;
        let tree = TreeId::new(hash(&mut bytes)?);
        let totals =
            Totals { depth: bytes.get_u16_le(), entries: bytes.get_u32_le(), bytes: bytes.get_u64_le() };
        let mut sums = Sums::default();
        for sum in sums.all() {
            *sum = bytes.get_u64_le();
        }
        Some(Self { told: Told { ino, above, tree, totals, sums }, rows: bytes })
    }

    pub(in super::super) fn rows(&self) -> Rows {
        Rows { rest: self.rows.clone(), next: None }
    }
}

/// What is known of one entry.
#[derive(Clone, Debug)]
pub(in super::super) struct Known {
    pub(in super::super) name: Bytes,
    pub(in super::super) what: What,
    /// The row as it stands.
    pub(in super::super) row: Bytes,
}

#[derive(Clone, Debug)]
pub(in super::super) enum What {
    Dir,
    File { seen: Fresh, mtime_ns: i64, content: Content },
    Link { mtime_ns: i64, target: Bytes },
}

/// By what it is told that a file was not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Fresh {
    size: u64,
    mtime_ns: i64,
    ctime_ns: i64,
    ino: u64,
    mode: u16,
    too_young: bool,
    no_writer: bool,
}

/// Bits of what is kept of a file. Caches that were written before the second one was known read as if it were
/// not set: such a file is hashed once more when it is replaced.
const TOO_YOUNG: u8 = 1;
const NO_WRITER: u8 = 2;

impl Fresh {
    /// `no_writer`: whether its times tell of all that was written since its content was read.
    pub(in super::super) fn of(stat: &Stat, too_young: bool, no_writer: bool) -> Self {
        let Stat { size, mtime_ns, ctime_ns, mode, .. } = *stat;
        Self { size, mtime_ns, ctime_ns, ino: stat.id.ino, mode, too_young, no_writer }
    }

    /// Whether a file is what it was, as far as its times tell.
    pub(in super::super) fn is(&self, stat: &Stat) -> bool {
        *self == Self::of(stat, false, self.no_writer)
    }

    /// Whether it certainly is.
    pub(in super::super) fn is_surely(&self, stat: &Stat) -> bool {
        self.no_writer && self.is(stat)
    }

    const fn flags(&self) -> u8 {
        let too_young = if self.too_young { TOO_YOUNG } else { 0 };
        let no_writer = if self.no_writer { NO_WRITER } else { 0 };
        too_young | no_writer
    }
}

/// Rows of a folder, by name.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Rows {
    rest: Bytes,
    next: Option<Known>,
}

impl Rows {
    /// The row of a name. Names are asked for in their order, and each once.
    pub(in super::super) fn of(&mut self, name: &[u8]) -> Option<Known> {
        loop {
            let next = match self.next.take() {
                Some(next) => next,
                None => self.next()?,
            };
            if &next.name[..] == name {
                return Some(next);
            }
            if &next.name[..] > name {
                self.next = Some(next);
                return None;
            }
        }
    }

    fn read(&mut self) -> Option<Known> {
        let whole = self.rest.clone();
        let from = &mut self.rest;
        let (kind, name_len) = (from.try_get_u8().ok()?, from.try_get_u8().ok()?);
        let name = take(from, name_len.into())?;
        let what = match kind {
            DIR => What::Dir,
            FILE => {
                let mut fixed = take(from, 8 * 5 + 2 + 1 + 32 + 4)?;
                let (size, mtime_ns) = (fixed.get_u64_le(), fixed.get_i64_le());
                let (ctime_ns, ino) = (fixed.get_i64_le(), fixed.get_u64_le());
                let (mode, flags) = (fixed.get_u16_le(), fixed.get_u8());
                let (too_young, no_writer) = (flags & TOO_YOUNG != 0, flags & NO_WRITER != 0);
                let seen = Fresh { size, mtime_ns, ctime_ns, ino, mode, too_young, no_writer };
                let mtime_ns = fixed.get_i64_le();
                let id = ContentId::new(hash(&mut fixed)?);
                let count = fixed.get_u32_le() as usize;
                let mut rows = take(from, count.checked_mul(36)?)?;
                let mut chunks = Vec::with_capacity(count);
                for _ in 0..count {
                    chunks.push(ChunkRef { id: ContentId::new(hash(&mut rows)?), len: rows.get_u32_le() });
                }
                What::File { seen, mtime_ns, content: Content { id, chunks } }
            }
            LINK => {
                let mtime_ns = from.try_get_i64_le().ok()?;
                let len = from.try_get_u16_le().ok()?;
                What::Link { mtime_ns, target: take(from, len.into())? }
            }
            _ => return None,
        };
        let row = whole.slice(..whole.len() - self.rest.len());
        Some(Known { name, what, row })
    }
}

impl Iterator for Rows {
    type Item = Known;

    fn next(&mut self) -> Option<Known> {
        let next = self.read();
        if next.is_none() {
            // What follows a row that is none says nothing.
            self.rest.clear();
        }
        next
    }
}

fn hash(from: &mut Bytes) -> Option<[u8; 32]> {
    take(from, 32)?[..].try_into().ok()
}

/// Writes a record: rows by name, then what the folder came to.
#[derive(Debug, Default)]
pub(in super::super) struct Writer {
    rows: BytesMut,
}

impl Writer {
    pub(in super::super) fn dir(&mut self, name: &[u8]) {
        self.name(DIR, name);
    }

    pub(in super::super) fn file(&mut self, name: &[u8], seen: Fresh, mtime_ns: i64, content: &Content) {
        self.name(FILE, name);
        self.rows.put_u64_le(seen.size);
        self.rows.put_i64_le(seen.mtime_ns);
        self.rows.put_i64_le(seen.ctime_ns);
        self.rows.put_u64_le(seen.ino);
        self.rows.put_u16_le(seen.mode);
        self.rows.put_u8(seen.flags());
        self.rows.put_i64_le(mtime_ns);
        self.rows.put_slice(content.id.as_bytes());
        // A file of a tebibyte has 67 million chunks at the very most.
        self.rows.put_u32_le(content.chunks.len() as u32);
        for chunk in &content.chunks {
            self.rows.put_slice(chunk.id.as_bytes());
            self.rows.put_u32_le(chunk.len);
        }
    }

    pub(in super::super) fn link(&mut self, name: &[u8], mtime_ns: i64, target: &[u8]) {
        self.name(LINK, name);
        self.rows.put_i64_le(mtime_ns);
        // No disk has longer ones than 4,095 bytes.
        self.rows.put_u16_le(target.len() as u16);
        self.rows.put_slice(target);
    }

    /// A row that stays as it is.
    pub(in super::super) fn again(&mut self, known: &Known) {
        self.rows.put_slice(&known.row);
    }

    /// Rows of names that come after all of these.
    pub(in super::super) fn append(&mut self, rows: Self) {
        self.rows.unsplit(rows.rows);
    }

    pub(in super::super) fn finish(self, mut told: Told) -> Bytes {
        let mut record = BytesMut::with_capacity(TOLD_BYTES + self.rows.len());
        record.put_u64_le(told.ino);
        record.put_slice(&told.above);
        record.put_slice(told.tree.as_bytes());
        record.put_u16_le(told.totals.depth);
        record.put_u32_le(told.totals.entries);
        record.put_u64_le(told.totals.bytes);
        for sum in told.sums.all() {
            record.put_u64_le(*sum);
        }
        record.put_slice(&self.rows);
        record.freeze()
    }

    fn name(&mut self, kind: u8, name: &[u8]) {
        self.rows.put_u8(kind);
        // No disk has longer names than 255 bytes.
        self.rows.put_u8(name.len() as u8);
        self.rows.put_slice(name);
    }
}
