//! The rows of objects: one encoding each, judged when they are read.

use bytes::{BufMut as _, Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::files::content::ContentId;
use cortex_core::limits::{
    CHUNK_BYTES_MAX, CHUNK_WHOLE_BYTES_MAX, ENTRY_NAME_BYTES_MAX, FILE_BYTES_MAX, PATH_BYTES_MAX,
};

use super::{DIR, DirEntry, DirPart, DirSum, FileNode, MAP, MapPart, Node, Row, Totals};
use crate::pack::ChunkRef;
use crate::read::Reader;
use crate::{malformed, too_large};

/// Ends a leaf after 128 rows in the mean. The leaf of an entry is twice as long as the mean (long ones
/// have more entries), and among 20,000 it and its index are as short together as they get: 29 KB.
fn ends_leaf(hash: &ContentId) -> bool {
    hash.as_bytes()[0] < 2
}

/// Ends an index after 256 rows in the mean, so that two levels hold the map of a tebibyte.
fn ends_index(id: &ContentId) -> bool {
    id.as_bytes()[0] == 0
}

fn put_name(name: &Bytes, out: &mut BytesMut) {
    // A longer name does not pass the check in front of every writer.
    out.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
    out.put_slice(name);
}

fn take_name(from: &mut Reader) -> Result<Bytes, Refusal> {
    let len = usize::from(from.u8()?);
    let name = from.take(len)?;
    check_name(&name).map(|()| name)
}

fn check_name(name: &[u8]) -> Result<(), Refusal> {
    let one_part = !name.contains(&b'/') && !name.contains(&0);
    if name.is_empty() || name == b"." || name == b".." || !one_part || name.len() > ENTRY_NAME_BYTES_MAX {
        return Err(malformed(format!("{:?} is no name of an entry.", String::from_utf8_lossy(name))));
    }
    Ok(())
}

impl DirEntry {
    /// Whether it may stand in a directory.
    ///
    /// # Errors
    /// `invalid_argument` with what is wrong, `too_large` for a file above 1 TiB.
    pub fn check(&self) -> Result<(), Refusal> {
        check_name(&self.name)?;
        match &self.node {
            Node::File(file) => file.check(),
            Node::Dir { totals, .. } => totals.check(),
            Node::Link { target, .. } => {
                let fits = !target.is_empty() && target.len() <= PATH_BYTES_MAX && !target.contains(&0);
                if fits { Ok(()) } else { Err(malformed("The text of a link is none.")) }
            }
        }
    }
}

impl FileNode {
    fn check(&self) -> Result<(), Refusal> {
        if self.size > FILE_BYTES_MAX {
            return Err(too_large(format!("A file has at most {FILE_BYTES_MAX} bytes.")));
        }
        if (self.size > CHUNK_WHOLE_BYTES_MAX as u64) != self.map.is_some() {
            return Err(malformed("A file has a map when it is above 1 MiB, and only then."));
        }
        if (self.size == 0) != (self.id == ContentId::of(b"")) {
            return Err(malformed("A file is empty and its content is not, or the reverse."));
        }
        Ok(())
    }
}

impl Row for DirEntry {
    type Sum = DirSum;
    const MAGIC: [u8; 4] = DIR;
    const BYTES_MIN: usize = 2 + 1 + 8 + 2 + 1;

    fn put(&self, out: &mut BytesMut) {
        put_name(&self.name, out);
        match &self.node {
            Node::File(file) => {
                out.put_u8(u8::from(file.map.is_some()));
                out.put_u8(u8::from(file.exec));
                out.put_i64_le(file.mtime_ns);
                out.put_u64_le(file.size);
                out.put_slice(file.id.as_bytes());
                if let Some(map) = &file.map {
                    out.put_slice(map.as_bytes());
                }
            }
            Node::Dir { id, totals } => {
                out.put_u8(2);
                totals.put(out);
                out.put_slice(id.as_bytes());
            }
            Node::Link { target, mtime_ns } => {
                out.put_u8(3);
                out.put_i64_le(*mtime_ns);
                out.put_u16_le(u16::try_from(target.len()).unwrap_or(u16::MAX));
                out.put_slice(target);
            }
        }
    }

    fn take(from: &mut Reader) -> Result<Self, Refusal> {
        let name = take_name(from)?;
        let node = match from.u8()? {
            kind @ (0 | 1) => {
                let exec = match from.u8()? {
                    0 => false,
                    1 => true,
                    other => {
                        return Err(malformed(format!("A file is executable or not; {other} is neither.")));
                    }
                };
                let (mtime_ns, size, id) = (from.i64()?, from.u64()?, from.id()?);
                let map = if kind == 1 { Some(from.id()?) } else { None };
                Node::File(FileNode { id, size, exec, mtime_ns, map })
            }
            2 => Node::Dir { totals: Totals::take(from)?, id: from.id()?.into() },
            3 => {
                let mtime_ns = from.i64()?;
                let len = usize::from(from.u16()?);
                Node::Link { target: from.take(len)?, mtime_ns }
            }
            other => return Err(malformed(format!("There is no kind {other} of entries."))),
        };
        let entry = Self { name, node };
        entry.check().map(|()| entry)
    }

    fn bytes_len(&self) -> usize {
        let node = match &self.node {
            Node::File(file) => 1 + 8 + 8 + 32 + if file.map.is_some() { 32 } else { 0 },
            Node::Dir { .. } => 14 + 32,
            Node::Link { target, .. } => 8 + 2 + target.len(),
        };
        2 + self.name.len() + node
    }

    fn chooses(&self) -> bool {
        ends_leaf(&ContentId::of(&self.name))
    }

    fn add(&self, sum: &mut DirSum) -> Result<(), Refusal> {
        let (bytes, below) = match &self.node {
            Node::File(file) => (file.size, Totals::default()),
            Node::Dir { totals, .. } => (0, Totals { depth: totals.depth.saturating_add(1), ..*totals }),
            Node::Link { .. } => (0, Totals::default()),
        };
        sum.last = self.name.clone();
        sum.totals.join(&Totals { entries: 1, bytes, depth: 0 })?;
        sum.totals.join(&below)
    }
}

impl Row for DirPart {
    type Sum = DirSum;
    const MAGIC: [u8; 4] = DIR;
    const BYTES_MIN: usize = 2 + 14 + 32;

    fn put(&self, out: &mut BytesMut) {
        put_name(&self.last, out);
        self.totals.put(out);
        out.put_slice(self.id.as_bytes());
    }

    fn take(from: &mut Reader) -> Result<Self, Refusal> {
        Ok(Self { last: take_name(from)?, totals: Totals::take(from)?, id: from.id()? })
    }

    fn bytes_len(&self) -> usize {
        1 + self.last.len() + 14 + 32
    }

    fn chooses(&self) -> bool {
        ends_index(&self.id)
    }

    fn add(&self, sum: &mut DirSum) -> Result<(), Refusal> {
        sum.last = self.last.clone();
        sum.totals.join(&self.totals)
    }
}

impl ChunkRef {
    /// Whether it may stand in a map.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if self.len == 0 || self.len as usize > CHUNK_BYTES_MAX {
            return Err(malformed(format!("A file is not cut into chunks of {} bytes.", self.len)));
        }
        Ok(())
    }
}

impl Row for ChunkRef {
    type Sum = u64;
    const MAGIC: [u8; 4] = MAP;
    const BYTES_MIN: usize = 36;

    fn put(&self, out: &mut BytesMut) {
        out.put_slice(self.id.as_bytes());
        out.put_u32_le(self.len);
    }

    fn take(from: &mut Reader) -> Result<Self, Refusal> {
        let chunk = Self { id: from.id()?, len: from.u32()? };
        chunk.check().map(|()| chunk)
    }

    fn bytes_len(&self) -> usize {
        Self::BYTES_MIN
    }

    fn chooses(&self) -> bool {
        ends_leaf(&self.id)
    }

    fn add(&self, sum: &mut u64) -> Result<(), Refusal> {
        add_bytes(sum, u64::from(self.len))
    }
}

impl Row for MapPart {
    type Sum = u64;
    const MAGIC: [u8; 4] = MAP;
    const BYTES_MIN: usize = 40;

    fn put(&self, out: &mut BytesMut) {
        out.put_u64_le(self.len);
        out.put_slice(self.id.as_bytes());
    }

    fn take(from: &mut Reader) -> Result<Self, Refusal> {
        Ok(Self { len: from.u64()?, id: from.id()? })
    }

    fn bytes_len(&self) -> usize {
        Self::BYTES_MIN
    }

    fn chooses(&self) -> bool {
        ends_index(&self.id)
    }

    fn add(&self, sum: &mut u64) -> Result<(), Refusal> {
        add_bytes(sum, self.len)
    }
}

fn add_bytes(sum: &mut u64, bytes: u64) -> Result<(), Refusal> {
    *sum = sum
        .checked_add(bytes)
        .filter(|sum| *sum <= FILE_BYTES_MAX)
        .ok_or_else(|| too_large(format!("A file has at most {FILE_BYTES_MAX} bytes.")))?;
    Ok(())
}
