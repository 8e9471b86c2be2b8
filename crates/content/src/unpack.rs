//! What comes behind the head of a pack, as it arrives: chunks, each verified before it is handed out.

use bytes::Bytes;
use cortex_core::Refusal;
use cortex_core::files::content::ContentId;

use super::malformed;
use super::pack::{CHECK_BYTES, Codec, PackHead, check};
use super::zip::Unzip;

/// Reads the chunks of one pack. Beside the piece that was pushed last it keeps one chunk, and of a
/// compressed pack the decoder's window: at most 6 MiB whatever the pack claims.
///
/// [`push`](Self::push) a piece, take chunks until there is none, go on; [`finish`](Self::finish) says
/// whether the pack was all there. The first thing that is wrong ends it: nothing is handed out then.
pub struct Unpack {
    head: PackHead,
    /// The chunk that comes next.
    next: usize,
    /// What was pushed and is not used.
    piece: Bytes,
    /// Bytes behind the head that were not pushed.
    missing: usize,
    /// Bytes of the body that were not used.
    body_left: usize,
    /// Where the chunk lies that was handed out last.
    lent: Option<Place>,
    /// A chunk that is in more than one piece, or compressed: so many bytes of it.
    buffer: Vec<u8>,
    filled: usize,
    packed: Option<Packed>,
    failed: Option<Refusal>,
}

/// What a compressed body needs.
struct Packed {
    unzip: Unzip,
    hash: blake3::Hasher,
    check: Vec<u8>,
}

/// Memory that one pack after the other is read with.
#[derive(Default)]
pub(super) struct Scratch {
    buffer: Vec<u8>,
    unzip: Option<Unzip>,
}

/// Where a chunk lies that is all there.
enum Place {
    Piece(Bytes),
    Buffer(usize),
}

impl Unpack {
    /// Reads what follows this head.
    ///
    /// # Errors
    /// `too_large` when there is no memory for a decoder.
    pub fn new(head: PackHead) -> Result<Self, Refusal> {
        Self::with(head, &mut Scratch::default())
    }

    /// The same with memory of a pack before.
    pub(super) fn with(head: PackHead, scratch: &mut Scratch) -> Result<Self, Refusal> {
        let packed = match head.codec() {
            Codec::Raw => None,
            Codec::Zstd => {
                let unzip = match scratch.unzip.take() {
                    Some(unzip) => unzip.again()?,
                    None => Unzip::new()?,
                };
                let check = Vec::with_capacity(CHECK_BYTES);
                Some(Packed { unzip, hash: blake3::Hasher::new(), check })
            }
        };
        let (missing, body_left) = (head.tail_len(), head.body_len() as usize);
        Ok(Self {
            head,
            next: 0,
            piece: Bytes::new(),
            missing,
            body_left,
            lent: None,
            buffer: std::mem::take(&mut scratch.buffer),
            filled: 0,
            packed,
            failed: None,
        })
    }

    /// The next bytes behind the head, of any length.
    ///
    /// # Errors
    /// `invalid_argument` when there are more than the head says.
    pub fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
        if piece.len() > self.missing {
            return Err(self.fail(malformed(format!("Bytes follow the end of pack {}.", self.head.id()))));
        }
        self.missing -= piece.len();
        self.piece =
            if self.piece.is_empty() { piece } else { Bytes::from([&self.piece[..], &piece[..]].concat()) };
        Ok(())
    }

    /// The next chunk that is all there; `None` until more is pushed, or at the end.
    ///
    /// # Errors
    /// `invalid_argument` when its bytes are not those that its id names, or the body is not as the head
    /// says; the same again from there on.
    pub fn next_chunk(&mut self) -> Result<Option<(ContentId, &[u8])>, Refusal> {
        if let Some(refusal) = &self.failed {
            return Err(refusal.clone());
        }
        match self.step() {
            Ok(place) => self.lent = place,
            Err(refusal) => return Err(self.fail(refusal)),
        }
        Ok(self.lent())
    }

    /// The chunk that was handed out last, until the next is asked for.
    pub(super) fn lent(&self) -> Option<(ContentId, &[u8])> {
        let bytes = match self.lent.as_ref()? {
            Place::Piece(bytes) => &bytes[..],
            Place::Buffer(len) => &self.buffer[..*len],
        };
        Some((self.head.chunks()[self.next - 1].id, bytes))
    }

    /// The same, for whoever keeps it: what lies in one piece is not copied, and all of that piece stays with it.
    pub(super) fn kept(&self) -> Option<(ContentId, Bytes)> {
        let bytes = match self.lent.as_ref()? {
            Place::Piece(bytes) => bytes.clone(),
            Place::Buffer(len) => Bytes::copy_from_slice(&self.buffer[..*len]),
        };
        Some((self.head.chunks()[self.next - 1].id, bytes))
    }

    /// The head, once all that it names was handed out and nothing else was there.
    ///
    /// # Errors
    /// As [`next_chunk`](Self::next_chunk), and `invalid_argument` for a pack that was cut off or whose
    /// chunks were not all taken.
    pub fn finish(self) -> Result<PackHead, Refusal> {
        self.end(&mut Scratch::default())
    }

    /// The same, and its memory for the next pack.
    pub(super) fn end(mut self, scratch: &mut Scratch) -> Result<PackHead, Refusal> {
        if self.next_chunk()?.is_some() {
            return Err(malformed("The chunks of a pack were not all taken."));
        }
        let whole = self.next == self.head.chunks().len() && self.missing == 0 && self.body_left == 0;
        let checked = self.packed.as_ref().is_none_or(|packed| packed.check.len() == CHECK_BYTES);
        if whole && checked {
            scratch.buffer = self.buffer;
            scratch.unzip = self.packed.map(|packed| packed.unzip).or_else(|| scratch.unzip.take());
            Ok(self.head)
        } else {
            Err(malformed(format!("Pack {} was cut off.", self.head.id())))
        }
    }

    fn fail(&mut self, refusal: Refusal) -> Refusal {
        self.failed = Some(refusal.clone());
        self.lent = None;
        refusal
    }

    fn step(&mut self) -> Result<Option<Place>, Refusal> {
        let Some(chunk) = self.head.chunks().get(self.next).copied() else {
            return self.settle().map(|()| None);
        };
        let len = chunk.len as usize;
        if self.filled == 0 && self.packed.is_none() && self.piece.len() >= len {
            let bytes = self.piece.split_to(len);
            self.body_left -= len;
            verify(&self.head, &chunk.id, &bytes)?;
            self.next += 1;
            return Ok(Some(Place::Piece(bytes)));
        }
        // A chunk is at most a mebibyte, and as long as the head says, whatever a frame says.
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        while self.filled < len {
            if self.fill(len)? == (0, 0) {
                return Ok(None);
            }
        }
        self.filled = 0;
        verify(&self.head, &chunk.id, &self.buffer[..len])?;
        self.next += 1;
        Ok(Some(Place::Buffer(len)))
    }

    /// Moves bytes from the piece towards the chunk: how many were used, and how many came of them.
    fn fill(&mut self, until: usize) -> Result<(usize, usize), Refusal> {
        let there = self.piece.len().min(self.body_left);
        let space = &mut self.buffer[self.filled..until];
        let (used, made) = match &mut self.packed {
            None => {
                let len = there.min(space.len());
                space[..len].copy_from_slice(&self.piece[..len]);
                (len, len)
            }
            Some(packed) => {
                if packed.unzip.ended() {
                    return Err(malformed("The body of a pack holds less than its head says."));
                }
                let (used, made) = packed.unzip.run(&self.piece[..there], space)?;
                packed.hash.update(&self.piece[..used]);
                (used, made)
            }
        };
        self.filled += made;
        self.body_left -= used;
        self.piece = self.piece.split_off(used);
        Ok((used, made))
    }

    /// Behind the last chunk: the end of the frame, and the hash of the body.
    fn settle(&mut self) -> Result<(), Refusal> {
        let Some(packed) = &mut self.packed else { return Ok(()) };
        while !packed.unzip.ended() {
            let there = self.piece.len().min(self.body_left);
            let (used, made) = packed.unzip.run(&self.piece[..there], &mut [0])?;
            if made > 0 {
                return Err(malformed("The body of a pack holds more than its head says."));
            }
            if used == 0 && !packed.unzip.ended() {
                let cut = self.body_left == 0;
                return if cut { Err(malformed("The body of a pack has no end.")) } else { Ok(()) };
            }
            packed.hash.update(&self.piece[..used]);
            self.body_left -= used;
            self.piece = self.piece.split_off(used);
        }
        if self.body_left > 0 {
            return Err(malformed("Bytes follow the frame of a pack."));
        }
        packed.check.extend_from_slice(&self.piece);
        self.piece = Bytes::new();
        if packed.check.len() == CHECK_BYTES && packed.check != check(&packed.hash.finalize()) {
            return Err(malformed(format!("The body of pack {} is not as it was written.", self.head.id())));
        }
        Ok(())
    }
}

fn verify(head: &PackHead, id: &ContentId, bytes: &[u8]) -> Result<(), Refusal> {
    if ContentId::of(bytes) == *id {
        return Ok(());
    }
    Err(malformed(format!("A chunk of pack {} is not {id}, as it says.", head.id())))
}

/// Whether what lies behind a head is as it was written, without decoding it: for packs at rest and for
/// those that are sent on. A raw body is held against the ids of its chunks, a compressed one against
/// the hash behind it.
pub struct TailCheck {
    kind: TailKind,
}

enum TailKind {
    Raw(Box<Unpack>),
    Zstd { head: PackHead, left: usize, hash: Box<blake3::Hasher>, check: Vec<u8> },
}

impl TailCheck {
    /// Checks what follows this head.
    ///
    /// # Errors
    /// None that depends on the head; the same as [`Unpack::new`].
    pub fn new(head: PackHead) -> Result<Self, Refusal> {
        let kind = match head.codec() {
            Codec::Raw => TailKind::Raw(Box::new(Unpack::new(head)?)),
            Codec::Zstd => TailKind::Zstd {
                left: head.body_len() as usize,
                head,
                hash: Box::default(),
                check: Vec::with_capacity(CHECK_BYTES),
            },
        };
        Ok(Self { kind })
    }

    /// The next bytes behind the head, of any length.
    ///
    /// # Errors
    /// `invalid_argument` for the first chunk that is not what it says, and for bytes behind the end.
    pub fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
        match &mut self.kind {
            TailKind::Raw(unpack) => {
                unpack.push(piece)?;
                while unpack.next_chunk()?.is_some() {}
            }
            TailKind::Zstd { head, left, hash, check } => {
                let (body, rest) = piece.split_at(piece.len().min(*left));
                *left -= body.len();
                hash.update(body);
                if check.len() + rest.len() > CHECK_BYTES {
                    return Err(malformed(format!("Bytes follow the end of pack {}.", head.id())));
                }
                check.extend_from_slice(rest);
            }
        }
        Ok(())
    }

    /// The head, once all was there and right.
    ///
    /// # Errors
    /// `invalid_argument` for a body that was cut off, or is not as it was written.
    pub fn finish(self) -> Result<PackHead, Refusal> {
        match self.kind {
            TailKind::Raw(unpack) => unpack.finish(),
            TailKind::Zstd { head, hash, check: told, .. } => {
                if told != check(&hash.finalize()) {
                    return Err(malformed(format!(
                        "The body of pack {} is not as it was written.",
                        head.id()
                    )));
                }
                Ok(head)
            }
        }
    }
}

#[cfg(test)]
mod tests;
