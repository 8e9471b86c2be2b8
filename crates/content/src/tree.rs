//! Trees are written from below: entries become a directory, chunks a map, and what comes out is each
//! object with its id, the topmost last. Whoever stores them in that order never has one whose parts are
//! missing.

use bytes::Bytes;
use cortex_core::Refusal;
use cortex_core::files::content::{ContentId, TreeId};

use super::object::{DirEntry, DirPart, DirSum, MapPart, Open, Row, Totals};
use super::pack::ChunkRef;
use super::{malformed, too_large};

/// Takes the objects that are written.
pub type Out<'o> = &'o mut dyn FnMut(ContentId, Bytes);

/// Writes a directory with these entries, in whatever order they come.
///
/// # Errors
/// `invalid_argument` for two entries of one name, or for one that [`DirEntry::check`] refuses;
/// `too_large` for more than a tree may have.
pub fn write_dir(mut entries: Vec<DirEntry>, out: Out<'_>) -> Result<(TreeId, Totals), Refusal> {
    entries.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
        let name = String::from_utf8_lossy(&pair[0].name);
        return Err(malformed(format!("There are two entries {name:?} in one directory.")));
    }
    let mut levels = Levels::<DirEntry, DirPart>::new();
    for entry in &entries {
        entry.check()?;
        levels.push(entry, out)?;
    }
    let (id, sum) = levels.finish(out)?;
    Ok((id.into(), sum.totals))
}

/// Writes the map of one file as its chunks are cut. It keeps one object of each level, whatever the
/// file's length.
pub struct MapWriter {
    levels: Levels<ChunkRef, MapPart>,
}

impl Default for MapWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl MapWriter {
    /// A map without a chunk.
    pub fn new() -> Self {
        Self { levels: Levels::new() }
    }

    /// Adds the next chunk.
    ///
    /// # Errors
    /// `invalid_argument` for a length that no chunk of a cut file has, `too_large` above 1 TiB.
    pub fn push(&mut self, chunk: ChunkRef, out: Out<'_>) -> Result<(), Refusal> {
        chunk.check()?;
        self.levels.push(&chunk, out)
    }

    /// The id of the map, and the bytes of all chunks.
    ///
    /// # Errors
    /// `invalid_argument` when there is no chunk, `too_large` as for [`push`](Self::push).
    pub fn finish(self, out: Out<'_>) -> Result<(ContentId, u64), Refusal> {
        if self.levels.is_empty() {
            return Err(malformed("A file without chunks has no map."));
        }
        self.levels.finish(out)
    }
}

/// The map of a file with these chunks; see [`MapWriter`].
///
/// # Errors
/// Those of [`MapWriter`].
pub fn write_map(
    chunks: impl IntoIterator<Item = ChunkRef>,
    out: Out<'_>,
) -> Result<(ContentId, u64), Refusal> {
    let mut writer = MapWriter::new();
    for chunk in chunks {
        writer.push(chunk, out)?;
    }
    writer.finish(out)
}

/// A row of an index: it names an object and what that adds up to.
trait Part: Row {
    fn over(id: ContentId, sum: Self::Sum) -> Self;
}

impl Part for DirPart {
    fn over(id: ContentId, sum: DirSum) -> Self {
        Self { last: sum.last, totals: sum.totals, id }
    }
}

impl Part for MapPart {
    fn over(id: ContentId, sum: u64) -> Self {
        Self { len: sum, id }
    }
}

/// One object that is being written, and what it adds up to.
struct Level<R: Row> {
    open: Open<R>,
    sum: R::Sum,
}

impl<R: Row> Level<R> {
    fn new(level: u8) -> Self {
        Self { open: Open::new(level), sum: R::Sum::default() }
    }

    fn put(&mut self, row: &R) -> Result<(), Refusal> {
        row.add(&mut self.sum)?;
        self.open.put(row);
        Ok(())
    }

    fn close(&mut self, out: Out<'_>) -> (ContentId, R::Sum) {
        let bytes = self.open.take();
        let id = ContentId::of(&bytes);
        out(id, bytes);
        (id, std::mem::take(&mut self.sum))
    }
}

/// Leaves, the index over them, and the index over indexes. An object is closed when the row after its
/// last one comes: the last object of each level is known then, and a single one needs no index.
struct Levels<L: Row, P: Row> {
    leaf: Level<L>,
    index: Level<P>,
    top: Level<P>,
}

impl<L: Row, P: Part<Sum = L::Sum>> Levels<L, P> {
    fn new() -> Self {
        Self { leaf: Level::new(0), index: Level::new(1), top: Level::new(2) }
    }

    fn is_empty(&self) -> bool {
        self.leaf.open.is_empty()
    }

    fn push(&mut self, row: &L, out: Out<'_>) -> Result<(), Refusal> {
        if self.leaf.open.ended {
            self.close_leaf(out)?;
        }
        self.leaf.put(row)
    }

    fn close_leaf(&mut self, out: Out<'_>) -> Result<(), Refusal> {
        let (id, sum) = self.leaf.close(out);
        if self.index.open.ended {
            self.close_index(out)?;
        }
        self.index.put(&P::over(id, sum))
    }

    fn close_index(&mut self, out: Out<'_>) -> Result<(), Refusal> {
        let (id, sum) = self.index.close(out);
        let part = P::over(id, sum);
        if self.top.open.overflows(&part) {
            return Err(too_large("A directory or a file has more parts than two levels of index hold."));
        }
        self.top.put(&part)
    }

    /// Closes what is open. The object that is alone on its level is the topmost.
    fn finish(mut self, out: Out<'_>) -> Result<(ContentId, L::Sum), Refusal> {
        if self.index.open.is_empty() {
            return Ok(self.leaf.close(out));
        }
        self.close_leaf(out)?;
        if self.top.open.is_empty() {
            return Ok(self.index.close(out));
        }
        self.close_index(out)?;
        Ok(self.top.close(out))
    }
}

#[cfg(test)]
mod tests;
