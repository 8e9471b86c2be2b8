//! Who asks for what in a transfer: the receiver names the ids that it needs, the sender answers each. The
//! receiver never has more open than a window, so that a slow one holds only its own memory (SYNC, safety
//! rules 13 and 15). No clock, no I/O.

use std::collections::hash_map::Entry;
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
    /// It was asked for, or waits to be: it has come with that, and is not asked for any more.
    Wanted,
    /// Nobody needs it, or it came before: to be passed over. Packs may hold more than was asked for.
    Extra,
}

/// A receiver's queue of ids, in the order in which it needs them. Its memory is about 100 bytes for each
/// id that was ever pushed.
#[derive(Debug, Default)]
pub struct Asking {
    /// Those that came before they were asked for stand in it still, and are passed over.
    queue: VecDeque<(ContentId, u32)>,
    /// Ids of the queue that did not come.
    waiting: usize,
    open: usize,
    open_bytes: u64,
    /// All that were pushed.
    known: HashMap<ContentId, Standing>,
}

/// How an id stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is to be asked for.
    Waiting,
    /// It was asked for; so long it is taken to be.
    Open(u32),
    /// It came, or is missing.
    Closed,
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
        let Entry::Vacant(new) = self.known.entry(id) else { return false };
        new.insert(Standing::Waiting);
        self.queue.push_back((id, len.clamp(1, CHUNK_LEN_MAX)));
        self.waiting += 1;
        true
    }

    /// The ids to ask for next, at most `max`: as many as the window takes. None while it is full.
    pub fn next(&mut self, max: usize) -> Vec<ContentId> {
        let mut ids = Vec::new();
        while let Some(&(id, len)) = self.queue.front() {
            let standing = self.known.entry(id).or_insert(Standing::Closed);
            if *standing == Standing::Waiting {
                let is_room =
                    self.open < WANTS_OPEN_MAX && self.open_bytes + u64::from(len) <= WANTS_OPEN_BYTES_MAX;
                if ids.len() == max || !is_room {
                    break;
                }
                *standing = Standing::Open(len);
                self.waiting -= 1;
                self.open += 1;
                self.open_bytes += u64::from(len);
                ids.push(id);
            }
            self.queue.pop_front();
        }
        ids
    }

    /// An id came, verified.
    pub fn came(&mut self, id: ContentId) -> Came {
        if self.close(&id) {
            return Came::Wanted;
        }
        match self.known.get_mut(&id) {
            Some(standing @ Standing::Waiting) => {
                *standing = Standing::Closed;
                self.waiting -= 1;
                Came::Wanted
            }
            Some(Standing::Open(_) | Standing::Closed) | None => Came::Extra,
        }
    }

    /// The sender does not have an id; whether it was asked for. It is not asked for again.
    pub fn missing(&mut self, id: ContentId) -> bool {
        self.close(&id)
    }

    /// Whether all that was pushed has come, or is missing.
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.open == 0
    }

    /// Plain bytes that were asked for and did not come; at most [`WANTS_OPEN_BYTES_MAX`].
    pub const fn open_bytes(&self) -> u64 {
        self.open_bytes
    }

    /// Ids that were asked for and did not come; at most [`WANTS_OPEN_MAX`].
    pub const fn open_ids(&self) -> usize {
        self.open
    }

    fn close(&mut self, id: &ContentId) -> bool {
        let Some(standing @ &mut Standing::Open(len)) = self.known.get_mut(id) else { return false };
        *standing = Standing::Closed;
        self.open -= 1;
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

    /// How many ids wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests;
