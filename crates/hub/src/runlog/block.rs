//! The file format of run output: blocks, each with its place in the output, its lengths and a
//! checksum over all of it. Bytes in, bytes out; no files here, and no trust in what is read.

use bytes::Bytes;
use cortex_core::stream::{Positions, Stream};

/// Bytes in front of each block's payload.
pub(super) const HEADER_BYTES: usize = 64;
/// Output bytes that one block takes at most.
pub(super) const BLOCK_BYTES_MAX: usize = 512 * 1024;
/// Payload bytes of one block at most: output with a head for each frame, of which the smallest
/// has one byte.
const PAYLOAD_BYTES_MAX: usize = BLOCK_BYTES_MAX * (1 + FRAME_HEAD_BYTES) + 64 * 1024;
const FRAME_HEAD_BYTES: usize = 5;
/// The header without its checksum.
const BODY_BYTES: usize = HEADER_BYTES - 2 * CHECK_BYTES;
/// A checksum: the header has one of its own, so that its lengths can be believed before the
/// payload is read, and the block has one over all of it.
const CHECK_BYTES: usize = 8;
const MAGIC: [u8; 4] = *b"CXL1";
const ZSTD: u8 = 1;
const MARK: u8 = 2;
/// Blocks of at least this many bytes come from a run that prints faster than the disk asks for
/// blocks. They are compressed at [`LEVEL_RUSHING`]: on lines as builds print them 760 MB/s by 2.6
/// instead of 460 MB/s by 4.4, which is half a second of processor time per GB.
const RUSHING_BYTES: usize = 128 * 1024;
const LEVEL_RUSHING: i32 = -5;
const LEVEL: i32 = 1;
/// How much of a block is compressed to see whether the rest is worth it.
const PROBE_BYTES: usize = 16 * 1024;

/// A piece of a log: output, or a mark that output is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Output of one stream.
    Output {
        /// Which stream.
        stream: Stream,
        /// Where both streams stand in front of it.
        at: Positions,
        /// The bytes; at least one.
        data: Bytes,
    },
    /// Output is missing from `at` to `to`.
    Lost {
        /// Where both streams stand in front of it.
        at: Positions,
        /// Where the output goes on.
        to: Positions,
    },
}

impl Chunk {
    /// Where both streams stand in front of it.
    pub const fn at(&self) -> Positions {
        match self {
            Self::Output { at, .. } | Self::Lost { at, .. } => *at,
        }
    }

    /// Where both streams stand behind it.
    pub fn end(&self) -> Positions {
        match self {
            Self::Output { stream, at, data } => {
                let mut end = *at;
                end.advance(*stream, data.len() as u64);
                end
            }
            Self::Lost { to, .. } => *to,
        }
    }

    /// The part from `position` on; `None` when all of it is before that.
    pub(super) fn from(&self, position: u64) -> Option<Self> {
        if self.end().total() <= position {
            return None;
        }
        let before = position.saturating_sub(self.at().total());
        match self {
            Self::Output { stream, at, data } if before > 0 => {
                let mut at = *at;
                at.advance(*stream, before);
                let skip = usize::try_from(before).unwrap_or(usize::MAX).min(data.len());
                Some(Self::Output { stream: *stream, at, data: data.slice(skip..) })
            }
            Self::Output { .. } | Self::Lost { .. } => Some(self.clone()),
        }
    }

    /// Memory that it holds, about.
    pub(super) const fn weight(&self) -> usize {
        match self {
            Self::Output { data, .. } => data.len() + 96,
            Self::Lost { .. } => 96,
        }
    }
}

/// What stands in front of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    flags: u8,
    /// Where both streams stand in front of the block.
    pub(super) start: Positions,
    /// And behind it.
    pub(super) end: Positions,
    raw_len: u32,
    /// Bytes of payload in the file.
    pub(super) stored_len: u32,
    check: [u8; CHECK_BYTES],
}

/// A block, ready to be written: the header, then these parts in order.
pub(super) struct Encoded {
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) parts: Vec<Bytes>,
    pub(super) end: Positions,
}

/// Makes a block of chunks that follow one another. A mark is a block of its own.
pub(super) fn encode(chunks: &[Chunk]) -> Encoded {
    let start = chunks.first().map(Chunk::at).unwrap_or_default();
    let end = chunks.last().map(Chunk::end).unwrap_or_default();
    let mut raw = Vec::with_capacity(chunks.len() * 2);
    let mut flags = 0;
    for chunk in chunks {
        match chunk {
            Chunk::Output { stream, data, .. } => {
                raw.push(frame_head(*stream, data.len()));
                raw.push(data.clone());
            }
            Chunk::Lost { .. } => flags = MARK,
        }
    }
    let raw_len = length(raw.iter().map(Bytes::len).sum());
    let parts = match compress(&raw) {
        Some(packed) => {
            flags |= ZSTD;
            vec![packed]
        }
        None => raw,
    };
    let stored_len = length(parts.iter().map(Bytes::len).sum());
    let mut header = Header { flags, start, end, raw_len, stored_len, check: [0; CHECK_BYTES] };
    header.check = checksum(&header.body(), &parts);
    Encoded { header: header.to_bytes(), parts, end }
}

/// A block as it was read, to be written again.
pub(super) fn again(header: &Header, stored: Bytes) -> Encoded {
    Encoded { header: header.to_bytes(), parts: vec![stored], end: header.end }
}

/// A mark that takes the place of a damaged block: as long in the file, and over the same output.
pub(super) fn instead_of(damaged: &Header) -> Encoded {
    let parts = vec![Bytes::from(vec![0; damaged.stored_len as usize])];
    let mut header = Header { flags: MARK, raw_len: 0, ..*damaged };
    header.check = checksum(&header.body(), &parts);
    Encoded { header: header.to_bytes(), parts, end: header.end }
}

/// Reads a header; `None` when it is none, or claims more than a block can have.
pub(super) fn parse_header(bytes: &[u8]) -> Option<Header> {
    let bytes: &[u8; HEADER_BYTES] = bytes.try_into().ok()?;
    if bytes[..4] != MAGIC || checksum(&bytes[..BODY_BYTES], &[]) != bytes[BODY_BYTES..][..CHECK_BYTES] {
        return None;
    }
    let header = Header {
        flags: bytes[4],
        start: Positions { stdout: u64_at(bytes, 8), stderr: u64_at(bytes, 16) },
        end: Positions { stdout: u64_at(bytes, 24), stderr: u64_at(bytes, 32) },
        raw_len: u32_at(bytes, 40),
        stored_len: u32_at(bytes, 44),
        check: bytes[BODY_BYTES + CHECK_BYTES..].try_into().ok()?,
    };
    let sizes_fit =
        header.raw_len as usize <= PAYLOAD_BYTES_MAX && header.stored_len as usize <= PAYLOAD_BYTES_MAX;
    (sizes_fit && header.end.total() > header.start.total()).then_some(header)
}

/// Reads a payload; `None` when a single bit of it, or of its header, is not as it was written.
pub(super) fn decode(header: &Header, stored: &Bytes) -> Option<Vec<Chunk>> {
    if checksum(&header.body(), std::slice::from_ref(stored)) != header.check {
        return None;
    }
    if header.flags & MARK != 0 {
        return Some(vec![Chunk::Lost { at: header.start, to: header.end }]);
    }
    let raw = if header.flags & ZSTD == 0 {
        stored.clone()
    } else {
        Bytes::from(zstd::bulk::decompress(stored, header.raw_len as usize).ok()?)
    };
    frames(raw, header.start)
}

/// Whether the payload is as it was written.
pub(super) fn verify(header: &Header, stored: &[u8]) -> bool {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header.body()).update(stored);
    hasher.finalize().as_bytes()[..CHECK_BYTES] == header.check
}

impl Header {
    /// Whether the block says that output is missing.
    pub(super) const fn is_mark(&self) -> bool {
        self.flags & MARK != 0
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..BODY_BYTES].copy_from_slice(&self.body());
        bytes[BODY_BYTES..][..CHECK_BYTES].copy_from_slice(&checksum(&self.body(), &[]));
        bytes[BODY_BYTES + CHECK_BYTES..].copy_from_slice(&self.check);
        bytes
    }

    fn body(&self) -> [u8; BODY_BYTES] {
        let mut bytes = [0; BODY_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = self.flags;
        let numbers = [self.start.stdout, self.start.stderr, self.end.stdout, self.end.stderr];
        for (place, number) in bytes[8..40].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[40..44].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes
    }
}

fn frames(raw: Bytes, start: Positions) -> Option<Vec<Chunk>> {
    let mut chunks = Vec::new();
    let (mut at, mut next) = (start, 0);
    while next < raw.len() {
        let head = raw.get(next..next + FRAME_HEAD_BYTES)?;
        let stream = match head[0] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return None,
        };
        let begin = next + FRAME_HEAD_BYTES;
        next = begin.checked_add(u32_at(head, 1) as usize)?;
        if next > raw.len() {
            return None;
        }
        let chunk = Chunk::Output { stream, at, data: raw.slice(begin..next) };
        at = chunk.end();
        chunks.push(chunk);
    }
    Some(chunks)
}

fn frame_head(stream: Stream, len: usize) -> Bytes {
    let mut head = [0; FRAME_HEAD_BYTES];
    head[0] = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    head[1..].copy_from_slice(&length(len).to_le_bytes());
    Bytes::copy_from_slice(&head)
}

/// The payload compressed, when its beginning shows that this saves at least one part in twelve.
fn compress(raw: &[Bytes]) -> Option<Bytes> {
    thread_local! {
        static ZSTD_CONTEXT: std::cell::RefCell<Option<zstd::bulk::Compressor<'static>>> =
            std::cell::RefCell::new(zstd::bulk::Compressor::new(LEVEL).ok());
    }
    let total: usize = raw.iter().map(Bytes::len).sum();
    if total < 128 {
        return None;
    }
    ZSTD_CONTEXT.with_borrow_mut(|context| {
        let context = context.as_mut()?;
        let level = if total < RUSHING_BYTES { LEVEL } else { LEVEL_RUSHING };
        context.set_compression_level(level).ok()?;
        let shrunk = |packed: &Vec<u8>, of: usize| packed.len() <= of - of / 12;
        let mut whole = Vec::with_capacity(total.min(PROBE_BYTES * 2));
        let mut parts = raw.iter();
        while whole.len() < PROBE_BYTES.min(total) {
            whole.extend_from_slice(parts.next()?);
        }
        let probe = &whole[..whole.len().min(PROBE_BYTES)];
        let packed = context.compress(probe).ok().filter(|packed| shrunk(packed, probe.len()))?;
        if probe.len() == total {
            return Some(Bytes::from(packed));
        }
        whole.reserve_exact(total - whole.len());
        parts.for_each(|part| whole.extend_from_slice(part));
        context.compress(&whole).ok().filter(|packed| shrunk(packed, total)).map(Bytes::from)
    })
}

fn checksum(body: &[u8], parts: &[Bytes]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(body);
    for part in parts {
        hasher.update(part);
    }
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK_BYTES]);
    check
}

/// Lengths of one block are far below 4 GiB ([`PAYLOAD_BYTES_MAX`]).
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
