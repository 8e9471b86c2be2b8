//! Who asks for what in a transfer: the receiver names the ids that it needs, the sender answers each. The
//! receiver never has more open than a window, so that a slow one holds only its own memory (SYNC, safety
//! rules 13 and 15). No clock, no I/O.

use std::collections::{HashMap, HashSet, VecDeque};

use cortex_core::files::content::ContentId;
use cortex_core::limits::{
    CHUNK_WHOLE_BYTES_MAX, PACK_BYTES_MAX, PACK_CHUNKS_MAX, TREE_OBJECT_BYTES_MAX, WANTS_OPEN_BYTES_MAX,
    WANTS_OPEN_MAX,
};
use cortex_core::{Code, Refusal};

use super::pack::{HEAD_BYTES_MIN, ROW_BYTES};
use super::too_large;

/// What an id that came was to the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was asked for, and has come with that.
    Wanted,
    /// It was not, or came before: to be passed over. Packs may hold more than was asked for.
    Extra,
}

/// A receiver's queue of ids, in the order in which it needs them. Its memory is about 100 bytes for each
/// id that was ever pushed.
#[derive(Debug, Default)]
pub struct Asking {
    waiting: VecDeque<(ContentId, u32)>,
    open: HashMap<ContentId, u32>,
    open_bytes: u64,
    /// All that were pushed.
    known: HashSet<ContentId>,
}

impl Asking {
    /// Nothing is asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an id behind the others, once however often it is pushed; whether it was new. `len` is how many
    /// plain bytes it has; of an object whose length nobody knows, how many it may have. More than a chunk
    /// may have counts as that, since no pack carries it.
    pub fn push(&mut self, id: ContentId, len: u32) -> bool {
        let is_new = self.known.insert(id);
        if is_new {
            self.waiting.push_back((id, len.clamp(1, CHUNK_LEN_MAX)));
        }
        is_new
    }

    /// The ids to ask for next, at most `max`: as many as the window takes. None while it is full.
    pub fn next(&mut self, max: usize) -> Vec<ContentId> {
        let mut ids = Vec::new();
        while ids.len() < max && self.open.len() < WANTS_OPEN_MAX {
            let fits =
                |front: &&(ContentId, u32)| self.open_bytes + u64::from(front.1) <= WANTS_OPEN_BYTES_MAX;
            let Some(&(id, len)) = self.waiting.front().filter(fits) else { break };
            self.waiting.pop_front();
            self.open.insert(id, len);
            self.open_bytes += u64::from(len);
            ids.push(id);
        }
        ids
    }

    /// An id came, verified.
    pub fn came(&mut self, id: ContentId) -> Came {
        if self.close(id) { Came::Wanted } else { Came::Extra }
    }

    /// The sender does not have an id; whether it was asked for. It is not asked for again.
    pub fn missing(&mut self, id: ContentId) -> bool {
        self.close(id)
    }

    /// Whether all that was pushed has come, or is missing.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    /// Plain bytes that were asked for and did not come; at most [`WANTS_OPEN_BYTES_MAX`].
    pub const fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    /// Ids that were asked for and did not come; at most [`WANTS_OPEN_MAX`].
    pub fn open_ids(&self) -> usize {
        self.open.len()
    }

    fn close(&mut self, id: ContentId) -> bool {
        let Some(len) = self.open.remove(&id) else { return false };
        self.open_bytes -= u64::from(len);
        true
    }
}

/// The longest chunk, as lengths of chunks are counted.
const CHUNK_LEN_MAX: u32 = {
    assert!(CHUNK_WHOLE_BYTES_MAX <= u32::MAX as usize && TREE_OBJECT_BYTES_MAX <= CHUNK_WHOLE_BYTES_MAX);
    CHUNK_WHOLE_BYTES_MAX as u32
};

/// What the sender does next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// They go into one pack, in this order.
    pub give: Vec<ContentId>,
    /// These the sender does not have.
    pub missing: Vec<ContentId>,
}

/// A sender's queue of what was asked for. Its memory is about 100 bytes for each of at most
/// [`WANTS_OPEN_MAX`] ids.
#[derive(Debug, Default)]
pub struct Answering {
    queue: VecDeque<ContentId>,
    queued: HashSet<ContentId>,
}

impl Answering {
    /// Nothing was asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// The receiver asks for these, behind what waits. One that waits is not queued twice.
    ///
    /// # Errors
    /// `too_large` when more would wait than a receiver may have open: it breaks the protocol, and none of
    /// these is queued.
    pub fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        if self.queue.len() + ids.len() > WANTS_OPEN_MAX {
            let (waiting, more) = (self.queue.len(), ids.len());
            return Err(too_large(format!(
                "{more} ids were asked for while {waiting} wait; at most {WANTS_OPEN_MAX} may be open."
            ))
            .hint("Ask for more when what was asked for has come."));
        }
        let new = ids.iter().filter(|id| self.queued.insert(**id));
        self.queue.extend(new);
        Ok(())
    }

    /// The next ids that fit in one pack, in the order asked. `len` says how long a chunk is, `None` that it
    /// is not there. Empty only when nothing waits.
    ///
    /// # Errors
    /// `internal` for a chunk that is longer than any may be; it stays at the front.
    pub fn next(&mut self, mut len: impl FnMut(&ContentId) -> Option<u32>) -> Result<Batch, Refusal> {
        let mut batch = Batch::default();
        let mut bytes = HEAD_BYTES_MIN;
        while let Some(id) = self.queue.front().copied() {
            match len(&id) {
                None => batch.missing.push(id),
                Some(len) if len == 0 || len > CHUNK_LEN_MAX => {
                    return Err(Refusal::new(Code::Internal, format!("The chunk {id} has {len} bytes.")));
                }
                Some(len) => {
                    let more = ROW_BYTES + len as usize;
                    if batch.give.len() == PACK_CHUNKS_MAX || bytes + more > PACK_BYTES_MAX {
                        break;
                    }
                    bytes += more;
                    batch.give.push(id);
                }
            }
            self.queue.pop_front();
            self.queued.remove(&id);
        }
        Ok(batch)
    }

    /// Whether nothing waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests;
