//! The content of one file: read once, cut and hashed while it is in the processor's cache. A long one is read by
//! several threads.

mod spans;

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;

use cortex_content::chunk::Cutter;
use cortex_content::pack::ChunkRef;
use cortex_core::files::content::ContentId;
use cortex_core::limits::{CHUNK_WHOLE_BYTES_MAX, FILE_BYTES_MAX};

use super::super::beneath::Stat;
use super::super::fault::Fault;
use super::Take;

/// A shorter file is read whatever of it is a hole.
const HOLLOW_BYTES_MIN: u64 = 16 * 1024 * 1024 * 1024;
/// A longer one only when at least such a part of it is on the disk: else somebody could keep a scan busy
/// for hours with a file that takes no room.
const HOLLOW_PART: u64 = 16;
/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) id: ContentId,
    /// Of a file above 1 MiB, else none.
    pub(super) chunks: Vec<ChunkRef>,
}

/// Reads one file after the other.
#[derive(Debug, Default)]
pub(super) struct Reader {
    cutter: Cutter,
    /// Bytes that were read.
    pub(super) hashed: u64,
}

/// Whether a file is longer than a tree takes, or hardly anything but a hole.
pub(super) fn is_too_large(file: &File, seen: &Stat) -> Result<bool, Fault> {
    if seen.size <= HOLLOW_BYTES_MIN {
        return Ok(false);
    }
    let on_disk = file.metadata()?.blocks().saturating_mul(512);
    Ok(seen.size > FILE_BYTES_MAX || on_disk < seen.size / HOLLOW_PART)
}

/// Whether it pays to read a file by several threads.
pub(super) const fn is_long(seen: &Stat) -> bool {
    super::super::spans::is_long(seen.size)
}

impl Reader {
    /// Reads a file that stands at its beginning. `None` when it is longer or shorter than it was seen to be, or
    /// was touched meanwhile. `tell` hears what was read so far, again and again; `take` is given the chunks. A long
    /// one is read by several threads with `several`, which one file at a time is to have: they take memory.
    pub(super) fn read(
        &mut self,
        file: &File,
        seen: &Stat,
        several: bool,
        tell: &dyn Fn(u64),
        take: Option<&Take<'_>>,
    ) -> Result<Option<Content>, Fault> {
        let by_several = match several && is_long(seen) {
            true => spans::cut(file, seen.size, &mut self.hashed, tell, take),
            false => None,
        };
        let read = by_several.unwrap_or_else(|| self.cut(file, seen.size, tell, take));
        if !matches!(read, Ok(Some(_))) {
            // It holds the beginning of this file.
            self.cutter = Cutter::new();
        }
        let Some(content) = read? else { return Ok(None) };
        Ok(Stat::of_open(file)?.is_untouched_since(seen).then_some(content))
    }

    fn cut(
        &mut self,
        mut file: &File,
        size: u64,
        tell: &dyn Fn(u64),
        take: Option<&Take<'_>>,
    ) -> Result<Option<Content>, Fault> {
        let is_long = size > CHUNK_WHOLE_BYTES_MAX as u64;
        let (mut whole, mut chunks, mut only) = (blake3::Hasher::new(), Vec::new(), None);
        let mut left = size;
        loop {
            let space = self.cutter.space();
            match file.read(space) {
                Ok(0) if left > 0 => return Ok(None),
                Ok(0) => self.cutter.end(),
                Ok(read) => {
                    self.hashed += read as u64;
                    if is_long {
                        tell(self.hashed);
                    }
                    let Some(rest) = left.checked_sub(read as u64) else { return Ok(None) };
                    left = rest;
                    self.cutter.filled(read);
                    // Another look for the end is spared: a file that grew has another size then.
                    if left == 0 {
                        self.cutter.end();
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            }
            while let Some(chunk) = self.cutter.next_chunk() {
                let id = ContentId::of(chunk);
                if let Some(take) = take {
                    take(id, chunk);
                }
                if is_long {
                    whole.update(chunk);
                    chunks.push(ChunkRef { id, len: chunk.len() as u32 });
                } else {
                    only = Some(id);
                }
            }
            if left == 0 {
                break;
            }
        }
        let id = if is_long {
            ContentId::new(whole.finalize().into())
        } else {
            only.unwrap_or_else(|| ContentId::of(b""))
        };
        Ok(Some(Content { id, chunks }))
    }
}

#[cfg(test)]
mod tests;
