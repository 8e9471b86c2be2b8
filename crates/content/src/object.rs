//! Objects that describe trees: pieces of directories, pieces of the maps of long files, and indexes
//! over either. Each is a chunk like any other; its hash names all that lies below it.
//!
//! `magic 4 | level u8 | count u16 | rows`. The magic is `CXD1` for directories and `CXF1` for maps. Rows
//! of level 0 are
//! - of a directory: `name_len u8 | name | kind u8`, and behind it
//!   - file (0): `exec u8 | mtime_ns i64 | size u64 | id 32`,
//!   - long file (1): the same and `map 32`,
//!   - directory (2): `depth u16 | entries u32 | bytes u64 | id 32`,
//!   - link (3): `mtime_ns i64 | target_len u16 | target`;
//! - of a map: `id 32 | len u32`, a chunk.
//!
//! Rows of levels 1 and 2 are objects of the level below:
//! - of a directory: `last_len u8 | last name | depth u16 | entries u32 | bytes u64 | id 32`,
//! - of a map: `len u64 | id 32`.
//!
//! What lies below is told in each row and holds for each object by itself, so that the first object of
//! a tree says how large all of it is (ABUSE 54).
//!
//! An object ends after a row whose hash begins with a byte below 2 (of an entry that of its name, of a
//! chunk its id), in an index with 0 (the id); and after 1,024 rows or 192 KiB. So whoever has the same
//! rows makes the same objects, and a changed row changes its own object, its neighbour at most, and
//! those above.

mod row;

use bytes::{BufMut as _, Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::limits::{
    TREE_DEPTH_MAX, TREE_ENTRIES_MAX, TREE_OBJECT_BYTES_FULL, TREE_OBJECT_BYTES_MAX, TREE_OBJECT_ROWS_MAX,
};

use super::pack::ChunkRef;
use super::read::Reader;
use super::{malformed, too_large};

/// How objects of directories begin.
const DIR: [u8; 4] = *b"CXD1";
/// How objects of maps begin.
const MAP: [u8; 4] = *b"CXF1";
/// Bytes in front of the rows.
pub(super) const HEAD_BYTES: usize = 7;
/// Levels of index above the leaves.
pub(super) const LEVEL_MAX: u8 = 2;

/// What lies below a directory, itself not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Totals {
    /// Files, links and directories.
    pub entries: u32,
    /// Bytes of all files.
    pub bytes: u64,
    /// Directories below one another; 0 when it holds none.
    pub depth: u16,
}

impl Totals {
    /// Adds what lies below a neighbour.
    fn join(&mut self, other: &Self) -> Result<(), Refusal> {
        let sums = self.entries.checked_add(other.entries).zip(self.bytes.checked_add(other.bytes));
        let (entries, bytes) = sums.ok_or_else(|| too_large("The sums of a tree are above any bound."))?;
        *self = Self { entries, bytes, depth: self.depth.max(other.depth) };
        self.check()
    }

    fn check(&self) -> Result<(), Refusal> {
        if u64::from(self.entries) > TREE_ENTRIES_MAX || self.depth > TREE_DEPTH_MAX {
            return Err(too_large(format!(
                "A tree of {} entries, {} directories deep; at most {TREE_ENTRIES_MAX} and {TREE_DEPTH_MAX} are taken.",
                self.entries, self.depth
            )));
        }
        Ok(())
    }

    fn put(&self, out: &mut BytesMut) {
        out.put_u16_le(self.depth);
        out.put_u32_le(self.entries);
        out.put_u64_le(self.bytes);
    }

    fn take(from: &mut Reader) -> Result<Self, Refusal> {
        let totals = Self { depth: from.u16()?, entries: from.u32()?, bytes: from.u64()? };
        totals.check().map(|()| totals)
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name: 1 to 255 bytes, without `/` and NUL, not `.` or `..`; maybe not UTF-8.
    pub name: Bytes,
    /// What it is.
    pub node: Node,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A regular file.
    File(FileNode),
    /// A directory.
    Dir {
        /// Its top object.
        id: TreeId,
        /// What lies below it.
        totals: Totals,
    },
    /// A symbolic link.
    Link {
        /// Its text: 1 to 4,096 bytes without NUL.
        target: Bytes,
        /// When it was made, nanoseconds from 1970.
        mtime_ns: i64,
    },
}

/// A regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNode {
    /// The hash of its content. It is also the one chunk of a file of at most 1 MiB; an empty file has
    /// no chunk.
    pub id: ContentId,
    /// Its length, bytes; at most 1 TiB.
    pub size: u64,
    /// Whether its owner may execute it.
    pub exec: bool,
    /// When its content was written, nanoseconds from 1970.
    pub mtime_ns: i64,
    /// The top object of its map; of files above 1 MiB, and only of those.
    pub map: Option<ContentId>,
}

/// An object of a directory one level below, as an index names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirPart {
    /// The last name below it.
    pub last: Bytes,
    /// What lies below it, its own rows counted.
    pub totals: Totals,
    /// The object.
    pub id: ContentId,
}

/// An object of a map one level below, as an index names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapPart {
    /// Bytes of the chunks below it.
    pub len: u64,
    /// The object.
    pub id: ContentId,
}

/// An object of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// Entries of a directory, by name.
    Dir(Vec<DirEntry>),
    /// Objects of a directory, by name.
    DirIndex {
        /// 1 over entries, 2 over indexes.
        level: u8,
        /// At least one.
        parts: Vec<DirPart>,
    },
    /// Chunks of a file, in order; at least one.
    Map(Vec<ChunkRef>),
    /// Objects of a map, in order.
    MapIndex {
        /// 1 over chunks, 2 over indexes.
        level: u8,
        /// At least one.
        parts: Vec<MapPart>,
    },
}

/// Reads an object. Names and link targets share the memory of `bytes`.
///
/// # Errors
/// `too_large` above 256 KiB, or for a tree above the bounds of the format; `invalid_argument` for all
/// that [`write_object`] would not write just so.
pub fn read_object(bytes: &Bytes) -> Result<Object, Refusal> {
    if bytes.len() > TREE_OBJECT_BYTES_MAX {
        return Err(too_large(format!("An object of a tree has at most {TREE_OBJECT_BYTES_MAX} bytes.")));
    }
    let mut reader = Reader::new(bytes.clone());
    let magic = reader.take(4)?;
    let (level, count) = (reader.u8()?, usize::from(reader.u16()?));
    if level > LEVEL_MAX || count > TREE_OBJECT_ROWS_MAX {
        return Err(malformed(format!("No object of a tree has level {level} and {count} rows.")));
    }
    let object = match (magic == DIR[..], magic == MAP[..], level) {
        (true, _, 0) => Object::Dir(rows(reader, count, level)?),
        (true, _, level) => Object::DirIndex { level, parts: rows(reader, count, level)? },
        (_, true, 0) => Object::Map(rows(reader, count, level)?),
        (_, true, level) => Object::MapIndex { level, parts: rows(reader, count, level)? },
        (false, false, _) => return Err(malformed("This is no object of a tree.")),
    };
    match &object {
        Object::Dir(entries) => ascending(entries.iter().map(|entry| &entry.name))?,
        Object::DirIndex { parts, .. } => ascending(parts.iter().map(|part| &part.last))?,
        Object::Map(_) | Object::MapIndex { .. } => {}
    }
    if count == 0 && !matches!(object, Object::Dir(_)) {
        return Err(malformed("Only a directory may be empty."));
    }
    // Whoever has the object may add it up without a look at its rows.
    object.sum()?;
    Ok(object)
}

/// Writes an object: the bytes from which [`read_object`] reads it again.
pub fn write_object(object: &Object) -> Bytes {
    match object {
        Object::Dir(entries) => written(entries, 0),
        Object::DirIndex { level, parts } => written(parts, *level),
        Object::Map(chunks) => written(chunks, 0),
        Object::MapIndex { level, parts } => written(parts, *level),
    }
}

fn written<R: Row>(rows: &[R], level: u8) -> Bytes {
    let mut open = Open::new(level);
    rows.iter().for_each(|row| open.put(row));
    open.take()
}

fn rows<R: Row>(mut reader: Reader, count: usize, level: u8) -> Result<Vec<R>, Refusal> {
    // No row is shorter, so that no count takes more memory than the bytes that came.
    let mut rows = Vec::with_capacity(count.min(reader.left() / R::BYTES_MIN));
    let whole = reader.left() + HEAD_BYTES;
    for number in 1..=count {
        let row = R::take(&mut reader)?;
        if number < count && ends(&row, level, number, whole - reader.left()) {
            return Err(malformed("An object of a tree goes on where it has to end."));
        }
        rows.push(row);
    }
    reader.end()?;
    Ok(rows)
}

/// Whether an object ends after this row, which is its `number`th and ends at `bytes`. The topmost level
/// is one object.
fn ends<R: Row>(row: &R, level: u8, number: usize, bytes: usize) -> bool {
    let full = number >= TREE_OBJECT_ROWS_MAX || bytes >= TREE_OBJECT_BYTES_FULL;
    level < LEVEL_MAX && (full || row.chooses())
}

fn ascending<'a>(mut names: impl Iterator<Item = &'a Bytes>) -> Result<(), Refusal> {
    let Some(mut before) = names.next() else { return Ok(()) };
    for name in names {
        if name <= before {
            return Err(malformed("The names of a directory do not ascend, or one is there twice."));
        }
        before = name;
    }
    Ok(())
}

/// What lies below an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Dir(Totals),
    Map(u64),
}

impl Object {
    /// What lies below it.
    ///
    /// # Errors
    /// `too_large` for sums that do not fit in their numbers.
    pub(super) fn sum(&self) -> Result<Sum, Refusal> {
        match self {
            Self::Dir(entries) => total(entries).map(|sum| Sum::Dir(sum.totals)),
            Self::DirIndex { parts, .. } => total(parts).map(|sum| Sum::Dir(sum.totals)),
            Self::Map(chunks) => total(chunks).map(Sum::Map),
            Self::MapIndex { parts, .. } => total(parts).map(Sum::Map),
        }
    }

    /// 0 for rows of a directory or a map, 1 and 2 for indexes.
    pub const fn level(&self) -> u8 {
        match self {
            Self::Dir(_) | Self::Map(_) => 0,
            Self::DirIndex { level, .. } | Self::MapIndex { level, .. } => *level,
        }
    }

    /// Whether its last row ends it, so that another object may follow.
    pub(super) fn closed(&self) -> bool {
        match self {
            Self::Dir(entries) => closed(entries, 0),
            Self::DirIndex { level, parts } => closed(parts, *level),
            Self::Map(chunks) => closed(chunks, 0),
            Self::MapIndex { level, parts } => closed(parts, *level),
        }
    }
}

fn total<R: Row>(rows: &[R]) -> Result<R::Sum, Refusal> {
    let mut sum = R::Sum::default();
    rows.iter().try_for_each(|row| row.add(&mut sum))?;
    Ok(sum)
}

fn closed<R: Row>(rows: &[R], level: u8) -> bool {
    let bytes = HEAD_BYTES + rows.iter().map(Row::bytes_len).sum::<usize>();
    rows.last().is_some_and(|row| ends(row, level, rows.len(), bytes))
}

/// What rows of a directory add up to.
#[derive(Default)]
pub(super) struct DirSum {
    pub(super) totals: Totals,
    /// The name of the last one.
    pub(super) last: Bytes,
}

/// A row of an object: its one encoding, and where it ends an object.
pub(super) trait Row: Sized {
    /// What is added up over the rows of an object.
    type Sum: Default;
    const MAGIC: [u8; 4];
    /// The shortest row.
    const BYTES_MIN: usize;
    fn put(&self, out: &mut BytesMut);
    /// Reads and judges one.
    fn take(from: &mut Reader) -> Result<Self, Refusal>;
    fn bytes_len(&self) -> usize;
    /// Whether its content ends the object.
    fn chooses(&self) -> bool;
    fn add(&self, sum: &mut Self::Sum) -> Result<(), Refusal>;
}

/// An object that is being written.
pub(super) struct Open<R> {
    level: u8,
    bytes: BytesMut,
    count: u16,
    /// Whether its last row ends it.
    pub(super) ended: bool,
    row: std::marker::PhantomData<R>,
}

impl<R: Row> Open<R> {
    pub(super) fn new(level: u8) -> Self {
        let bytes = BytesMut::with_capacity(0);
        Self { level, bytes, count: 0, ended: false, row: std::marker::PhantomData }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn put(&mut self, row: &R) {
        if self.bytes.is_empty() {
            self.head();
        }
        row.put(&mut self.bytes);
        self.count += 1;
        self.ended = ends(row, self.level, usize::from(self.count), self.bytes.len());
    }

    /// Whether one more row is beyond what any object may have; only of the topmost level, since those
    /// below end before.
    pub(super) fn overflows(&self, row: &R) -> bool {
        usize::from(self.count) >= TREE_OBJECT_ROWS_MAX
            || self.bytes.len() + row.bytes_len() > TREE_OBJECT_BYTES_MAX
    }

    /// The object; another one may be written then.
    pub(super) fn take(&mut self) -> Bytes {
        if self.bytes.is_empty() {
            self.head();
        }
        self.bytes[5..HEAD_BYTES].copy_from_slice(&self.count.to_le_bytes());
        self.count = 0;
        self.ended = false;
        self.bytes.split().freeze()
    }

    fn head(&mut self) {
        self.bytes.put_slice(&R::MAGIC);
        self.bytes.put_u8(self.level);
        self.bytes.put_u16_le(0);
    }
}

#[cfg(test)]
mod tests;
