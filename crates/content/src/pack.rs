//! Packs: up to 4 MiB of chunks that are compressed, sent, resumed and stored as one.
//!
//! `"CXP1" | codec u8 | count u32 | plain_len u32 | body_len u32 | count × (id 32, len u32)` is the head;
//! its hash names the pack. Behind it comes the body: the chunks one after the other, raw (codec 0) or
//! as one zstd frame (codec 1), and behind a frame the first 16 bytes of its hash, so that it can be
//! checked at rest without being decoded. A raw body needs none: the ids in the head are the hashes of
//! those very bytes.

use std::collections::HashSet;

use bytes::{BufMut as _, Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::files::content::{ContentId, PackId};
use cortex_core::limits::{CHUNK_WHOLE_BYTES_MAX, PACK_BYTES_MAX, PACK_CHUNKS_MAX};

use super::zip::Zip;
use super::{malformed, too_large};

const MAGIC: [u8; 4] = *b"CXP1";
/// Bytes of a head in front of its rows.
pub const HEAD_BYTES_MIN: usize = 17;
/// Bytes of one row: an id and a length.
pub(super) const ROW_BYTES: usize = 36;
/// Bytes of the hash behind a compressed body.
pub(super) const CHECK_BYTES: usize = 16;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
}

/// One chunk of a pack, or of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// The hash of its bytes.
    pub id: ContentId,
    /// Its length, bytes.
    pub len: u32,
}

/// What a pack holds. Whoever has one may rely on its sums: there is none that was not checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackHead {
    id: PackId,
    codec: Codec,
    plain_len: u32,
    body_len: u32,
    chunks: Vec<ChunkRef>,
}

impl PackHead {
    /// Reads the head at the front of `bytes`, and how long it is; `None` while it is not all there.
    ///
    /// # Errors
    /// `invalid_argument` for what is no head, or one that does not add up; `too_large` for one that
    /// names more than a pack may hold, as soon as its first 17 bytes are there.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, Refusal> {
        let Some(front) = bytes.first_chunk::<HEAD_BYTES_MIN>() else {
            let begun = bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic);
            return if begun { Ok(None) } else { Err(malformed("This is no pack.")) };
        };
        if front[..MAGIC.len()] != MAGIC {
            return Err(malformed("This is no pack."));
        }
        let codec = match front[4] {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            other => {
                return Err(malformed(format!("A pack is written with codec {other}, which is unknown.")));
            }
        };
        let number = |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
        let (count, plain_len, body_len) = (number(5), number(9), number(13));
        let len = bounded(codec, count, plain_len, body_len)?;
        let Some(rows) = bytes.get(HEAD_BYTES_MIN..len) else { return Ok(None) };
        let chunks: Option<Vec<ChunkRef>> = rows.chunks_exact(ROW_BYTES).map(row).collect();
        let chunks = chunks.ok_or_else(|| malformed("A row of a pack is too short."))?;
        judge(&chunks, plain_len)?;
        let id = PackId::of(&bytes[..len]);
        Ok(Some((Self { id, codec, plain_len, body_len, chunks }, len)))
    }

    /// The head as it stands in front of the body.
    pub fn to_bytes(&self) -> Bytes {
        encode(self.codec, self.plain_len, self.body_len, &self.chunks)
    }

    /// The name of the pack: the hash of this head.
    pub const fn id(&self) -> PackId {
        self.id
    }

    /// How the body is written.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// Its chunks in the order in which they lie in the body; at least one, none twice.
    pub fn chunks(&self) -> &[ChunkRef] {
        &self.chunks
    }

    /// Bytes of all chunks together.
    pub const fn plain_len(&self) -> u32 {
        self.plain_len
    }

    /// Bytes of the head.
    pub fn head_len(&self) -> usize {
        HEAD_BYTES_MIN + self.chunks.len() * ROW_BYTES
    }

    /// Bytes behind the head: the body, and its hash when it has one.
    pub const fn tail_len(&self) -> usize {
        self.body_len as usize + check_len(self.codec)
    }

    /// Bytes of the body without its hash.
    pub(super) const fn body_len(&self) -> u32 {
        self.body_len
    }

    /// Bytes of the whole pack; at most [`PACK_BYTES_MAX`].
    pub fn pack_len(&self) -> usize {
        self.head_len() + self.tail_len()
    }
}

fn row(bytes: &[u8]) -> Option<ChunkRef> {
    let (id, len) = bytes.split_first_chunk()?;
    Some(ChunkRef { id: ContentId::new(*id), len: u32::from_le_bytes(len.try_into().ok()?) })
}

const fn check_len(codec: Codec) -> usize {
    match codec {
        Codec::Raw => 0,
        Codec::Zstd => CHECK_BYTES,
    }
}

/// The head's length, when what its first bytes claim is within bounds.
fn bounded(codec: Codec, count: u32, plain_len: u32, body_len: u32) -> Result<usize, Refusal> {
    let (count, plain, body) = (count as usize, plain_len as usize, body_len as usize);
    if count > PACK_CHUNKS_MAX || plain > PACK_BYTES_MAX {
        return Err(too_large(format!(
            "A pack claims {count} chunks and {plain} bytes; at most {PACK_CHUNKS_MAX} and {PACK_BYTES_MAX} fit."
        )));
    }
    let len = HEAD_BYTES_MIN + count * ROW_BYTES;
    if len + plain > PACK_BYTES_MAX {
        return Err(too_large(format!("A pack with its head is above {PACK_BYTES_MAX} bytes.")));
    }
    let fits = match codec {
        Codec::Raw => body == plain,
        Codec::Zstd => body > 0 && body + CHECK_BYTES < plain,
    };
    if count == 0 || !fits {
        return Err(malformed("The lengths of a pack contradict each other."));
    }
    Ok(len)
}

/// Every chunk has a length that a chunk may have, the sum is the one that was told, and none is named
/// twice: a second place for one id could hold other bytes (ABUSE 53).
fn judge(chunks: &[ChunkRef], plain_len: u32) -> Result<(), Refusal> {
    let mut sum: u64 = 0;
    for chunk in chunks {
        if chunk.len == 0 || chunk.len as usize > CHUNK_WHOLE_BYTES_MAX {
            return Err(malformed(format!("A chunk of {} bytes is none.", chunk.len)));
        }
        sum += u64::from(chunk.len);
    }
    if sum != u64::from(plain_len) {
        return Err(malformed(format!("The chunks of a pack have {sum} bytes, and it claims {plain_len}.")));
    }
    let mut ids: Vec<&ContentId> = chunks.iter().map(|chunk| &chunk.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(malformed(format!("A pack names the chunk {} twice.", pair[0]))),
        None => Ok(()),
    }
}

pub(super) fn encode(codec: Codec, plain_len: u32, body_len: u32, chunks: &[ChunkRef]) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD_BYTES_MIN + chunks.len() * ROW_BYTES);
    head.put_slice(&MAGIC);
    head.put_u8(match codec {
        Codec::Raw => 0,
        Codec::Zstd => 1,
    });
    head.put_u32_le(length(chunks.len()));
    head.put_u32_le(plain_len);
    head.put_u32_le(body_len);
    for chunk in chunks {
        head.put_slice(chunk.id.as_bytes());
        head.put_u32_le(chunk.len);
    }
    head.freeze()
}

/// Lengths within one pack are far below 4 GiB ([`PACK_BYTES_MAX`]).
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// What became of a chunk that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a chunk that did not fit has to go into the next pack"]
pub enum Added {
    /// It is in the pack.
    Yes,
    /// It was in it before.
    Already,
    /// There is no room for it: finish this pack and add it to the next.
    Full,
    /// No pack takes it: it has no bytes, or more than a chunk may have.
    Never,
}

/// A pack, ready to be sent: the head, then the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pack {
    /// What it holds.
    pub head: PackHead,
    /// The body, and its hash when it has one.
    pub tail: Bytes,
}

/// Makes one pack after the other. Its memory is about 6 MiB, taken once.
pub struct PackWriter {
    /// Room for the chunks of a pack.
    plain: Vec<u8>,
    /// Bytes of chunks in it.
    filled: usize,
    chunks: Vec<ChunkRef>,
    held: HashSet<ContentId>,
    zip: Zip,
}

impl PackWriter {
    /// A writer that compresses at this level of zstd; 1 is what SYNC measured.
    pub fn new(level: i32) -> Self {
        Self { plain: room(), filled: 0, chunks: Vec::new(), held: HashSet::new(), zip: Zip::new(level) }
    }

    /// Adds the chunk whose hash is `id`. The hash is believed: with a wrong one, nobody takes the pack.
    pub fn add(&mut self, id: ContentId, bytes: &[u8]) -> Added {
        let copy = |room: &mut [u8]| {
            room.copy_from_slice(bytes);
            true
        };
        self.add_with(id, bytes.len(), copy).unwrap_or(Added::Never)
    }

    /// The same with a chunk of `len` bytes that `read` puts where it is to lie. It says whether it has it; `None`
    /// when it has not, and nothing is added then.
    pub fn add_with(
        &mut self,
        id: ContentId,
        len: usize,
        read: impl FnOnce(&mut [u8]) -> bool,
    ) -> Option<Added> {
        if len == 0 || len > CHUNK_WHOLE_BYTES_MAX {
            return Some(Added::Never);
        }
        if self.held.contains(&id) {
            return Some(Added::Already);
        }
        let head = HEAD_BYTES_MIN + (self.chunks.len() + 1) * ROW_BYTES;
        if self.chunks.len() == PACK_CHUNKS_MAX || head + self.filled + len > PACK_BYTES_MAX {
            return Some(Added::Full);
        }
        if !read(&mut self.plain[self.filled..self.filled + len]) {
            return None;
        }
        self.held.insert(id);
        self.chunks.push(ChunkRef { id, len: length(len) });
        self.filled += len;
        Some(Added::Yes)
    }

    /// Bytes of the chunks that were added since the last pack.
    pub const fn plain_len(&self) -> usize {
        self.filled
    }

    /// The pack of what was added; `None` when that is nothing. The writer is empty then.
    pub fn finish(&mut self) -> Option<Pack> {
        if self.chunks.is_empty() {
            return None;
        }
        let plain = &self.plain[..self.filled];
        let plain_len = length(plain.len());
        let packed = self.zip.shrink(plain).filter(|packed| packed.len() + CHECK_BYTES < plain.len());
        let (codec, body_len, tail) = match packed {
            Some(mut packed) => {
                let body_len = length(packed.len());
                let check = check(&blake3::hash(&packed));
                packed.extend_from_slice(&check);
                (Codec::Zstd, body_len, Bytes::from(packed))
            }
            None => {
                let mut plain = std::mem::replace(&mut self.plain, room());
                plain.truncate(self.filled);
                (Codec::Raw, plain_len, Bytes::from(plain))
            }
        };
        let chunks = std::mem::take(&mut self.chunks);
        let id = PackId::of(&encode(codec, plain_len, body_len, &chunks));
        self.filled = 0;
        self.held.clear();
        Some(Pack { head: PackHead { id, codec, plain_len, body_len, chunks }, tail })
    }
}

/// The system gives its pages when they are written to.
fn room() -> Vec<u8> {
    vec![0; PACK_BYTES_MAX]
}

/// The part of a body's hash that stands behind it.
pub(super) fn check(hash: &blake3::Hash) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.as_bytes()[..CHECK_BYTES]);
    check
}

#[cfg(test)]
mod tests;
