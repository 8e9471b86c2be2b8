//! Packs one after the other, as a connection brings them: pieces that end anywhere go in, verified chunks
//! come out.

use bytes::{Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::files::content::ContentId;
use cortex_core::limits::CARRY_DATA_BYTES_MAX;

use super::pack::PackHead;
use super::unpack::{Scratch, Unpack};
use super::{malformed, too_large};

/// Reads the chunks of a stream of packs. It keeps one piece, the head of one pack, which is at most 4 MiB
/// with what it names, and what [`Unpack`] needs.
///
/// [`push`](Self::push) a piece, take chunks until there is none, go on; [`finish`](Self::finish) says
/// whether the last pack was all there. The first thing that is wrong ends it: nothing is handed out then.
#[derive(Default)]
pub struct Stream {
    /// What was pushed and not looked at.
    rest: Bytes,
    /// The beginning of a head.
    head: BytesMut,
    body: Option<Body>,
    scratch: Scratch,
    packs: u64,
    failed: Option<Refusal>,
}

struct Body {
    unpack: Unpack,
    /// Bytes behind the head that did not come yet.
    missing: usize,
}

impl Stream {
    /// A stream in front of its first pack.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes, of any length up to [`CARRY_DATA_BYTES_MAX`].
    ///
    /// # Errors
    /// `too_large` for a longer piece, and when chunks wait that were not taken.
    pub fn push(&mut self, piece: Bytes) -> Result<(), Refusal> {
        if let Some(refusal) = &self.failed {
            return Err(refusal.clone());
        }
        if piece.len() > CARRY_DATA_BYTES_MAX || !self.rest.is_empty() {
            let refusal = too_large(format!(
                "A piece of {} bytes came while {} wait; one of at most {CARRY_DATA_BYTES_MAX} is taken at a time.",
                piece.len(),
                self.rest.len()
            ));
            return Err(self.fail(refusal));
        }
        self.rest = piece;
        Ok(())
    }

    /// The next chunk that is all there; `None` until more is pushed.
    ///
    /// # Errors
    /// Those of [`PackHead::read`] and [`Unpack`]; the same again from there on.
    pub fn next_chunk(&mut self) -> Result<Option<(ContentId, &[u8])>, Refusal> {
        self.advance()?;
        Ok(self.body.as_ref().and_then(|body| body.unpack.lent()))
    }

    /// As [`next_chunk`](Self::next_chunk), for whoever keeps it: what lies in one of the pieces that were pushed
    /// is not copied, and all of that piece stays with it.
    ///
    /// # Errors
    /// Those of [`next_chunk`](Self::next_chunk).
    pub fn next_kept(&mut self) -> Result<Option<(ContentId, Bytes)>, Refusal> {
        self.advance()?;
        Ok(self.body.as_ref().and_then(|body| body.unpack.kept()))
    }

    /// Goes on to the next chunk.
    fn advance(&mut self) -> Result<(), Refusal> {
        if let Some(refusal) = &self.failed {
            return Err(refusal.clone());
        }
        loop {
            match self.step() {
                Ok(Step::Chunk | Step::More) => return Ok(()),
                Ok(Step::Again) => {}
                Err(refusal) => return Err(self.fail(refusal)),
            }
        }
    }

    /// Packs that were all there and right.
    pub const fn packs(&self) -> u64 {
        self.packs
    }

    /// Nothing follows; the number of packs.
    ///
    /// # Errors
    /// `invalid_argument` when a pack was cut off, or chunks were not taken; what failed before.
    pub fn finish(mut self) -> Result<u64, Refusal> {
        let waits = self.next_chunk()?.is_some();
        if waits || self.body.is_some() || !self.head.is_empty() {
            return Err(malformed("A stream of packs ends in the middle of one."));
        }
        Ok(self.packs)
    }

    fn fail(&mut self, refusal: Refusal) -> Refusal {
        self.failed = Some(refusal.clone());
        (self.rest, self.head, self.body) = (Bytes::new(), BytesMut::new(), None);
        refusal
    }

    fn step(&mut self) -> Result<Step, Refusal> {
        let Some(body) = &mut self.body else { return self.begin() };
        if body.unpack.next_chunk()?.is_some() {
            return Ok(Step::Chunk);
        }
        if body.missing == 0 {
            if let Some(body) = self.body.take() {
                body.unpack.end(&mut self.scratch)?;
                self.packs += 1;
            }
            return Ok(Step::Again);
        }
        if self.rest.is_empty() {
            return Ok(Step::More);
        }
        let piece = self.rest.split_to(self.rest.len().min(body.missing));
        body.missing -= piece.len();
        body.unpack.push(piece)?;
        Ok(Step::Again)
    }

    /// Between two packs: the head of the next, when it is all there.
    fn begin(&mut self) -> Result<Step, Refusal> {
        if self.rest.is_empty() {
            return Ok(Step::More);
        }
        // Most heads lie in one piece, and are not copied then.
        let read = if self.head.is_empty() {
            PackHead::read(&self.rest)?
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(&self.rest);
            PackHead::read(&self.head)?.map(|(head, len)| (head, len - before))
        };
        let Some((head, used)) = read else {
            if self.head.is_empty() {
                self.head.extend_from_slice(&self.rest);
            }
            self.rest = Bytes::new();
            return Ok(Step::More);
        };
        self.head = BytesMut::new();
        self.rest = self.rest.split_off(used);
        self.body = Some(Body { missing: head.tail_len(), unpack: Unpack::with(head, &mut self.scratch)? });
        Ok(Step::Again)
    }
}

/// What came of one step.
enum Step {
    Chunk,
    /// There may be more to do.
    Again,
    /// All that was pushed is used.
    More,
}

#[cfg(test)]
mod tests;
