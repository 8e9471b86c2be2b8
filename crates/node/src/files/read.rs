//! Content is read in one pass that also hashes it and looks at its lines; a file that changes meanwhile
//! is read again, and then reported (SYNC rule 12).

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use cortex_core::files::content::ContentId;

use super::beneath::Stat;
use super::fault::Fault;
use super::spans;

/// Bytes of one read.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes of one read of a file that has no size, as those of the kernel.
const PIECE_BYTES_MIN: usize = 4 * 1024;
/// How often a file that changes is read.
const READS_MAX: u32 = 3;

/// What a file held at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed {
    pub(crate) etag: ContentId,
    /// Before and after it was read.
    pub(crate) stat: Stat,
}

/// Hashes a file; a long one by several threads.
pub(crate) fn hash(file: &File) -> Result<Hashed, Fault> {
    let (etag, stat) = steady(file, |file| {
        let size = Stat::of_open(file)?.size;
        let by_several = if spans::is_long(size) { spans::hash(file, size) } else { None };
        let (etag, bytes) = by_several.unwrap_or_else(|| hash_alone(file))?;
        Ok((etag, Some(bytes)))
    })?;
    Ok(Hashed { etag, stat })
}

fn hash_alone(file: &File) -> Result<(ContentId, u64), Fault> {
    let mut hasher = blake3::Hasher::new();
    pieces(file, 0, u64::MAX, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok((ContentId::new(hasher.finalize().into()), hasher.count()))
}

/// Reads a file of at most `max` bytes whole, and hashes it. [`Fault::TooMany`] beyond.
pub(crate) fn whole(file: &File, max: u64) -> Result<(Vec<u8>, Hashed), Fault> {
    let (content, stat) = steady(file, |file| {
        let size = Stat::of_open(file)?.size;
        if size > max {
            return Err(Fault::TooMany);
        }
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
        pieces(file, 0, max.saturating_add(1), |piece| {
            content.extend_from_slice(piece);
            if content.len() as u64 > max { Err(Fault::TooMany) } else { Ok(()) }
        })?;
        let len = content.len() as u64;
        Ok((content, Some(len)))
    })?;
    let etag = ContentId::of(&content);
    Ok((content, Hashed { etag, stat }))
}

/// Reads a file until nothing of it changed meanwhile. `read` says how many bytes it found when it read
/// all of them: a clock that steps too coarsely for two changes does not hide that these are more or less
/// than the size. Files that the kernel makes up have none, and are read until they say the same twice.
pub(crate) fn steady<T: PartialEq>(
    file: &File,
    mut read: impl FnMut(&File) -> Result<(T, Option<u64>), Fault>,
) -> Result<(T, Stat), Fault> {
    let mut last = None;
    for _ in 0..READS_MAX {
        let before = Stat::of_open(file)?;
        let (found, bytes) = read(file)?;
        if !Stat::of_open(file)?.is_untouched_since(&before) {
            continue;
        }
        if bytes.is_none_or(|bytes| bytes == before.size)
            || (before.size == 0 && last.as_ref() == Some(&found))
        {
            return Ok((found, before));
        }
        last = Some(found);
    }
    Err(Fault::Restless)
}

/// Hands over the bytes from `from` on, `len` at most, in pieces.
pub(crate) fn pieces(
    file: &File,
    from: u64,
    len: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let size = Stat::of_open(file)?.size.saturating_sub(from).min(len);
    // One byte more, so that the end of a small file shows in the same read.
    let room = usize::try_from(size.saturating_add(1)).unwrap_or(PIECE_BYTES);
    let mut buffer = vec![0; room.clamp(PIECE_BYTES_MIN, PIECE_BYTES)];
    let mut at = 0;
    while at < len {
        let wanted = buffer.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        let read = match file.read_at(&mut buffer[..wanted], from.saturating_add(at)) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        each(&buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}
