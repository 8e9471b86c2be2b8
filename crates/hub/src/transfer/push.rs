//! The content of one push between its caller and its nodes: what a node asks for is asked of the caller,
//! what the caller sends is handed to the nodes that wait. Content is looked into by nobody here: a node
//! verifies all of it before it uses any.
//!
//! A node never has more open than its window, the caller is asked for nothing else, and packs are dropped
//! once all nodes have them or written to disk (`spool`), so the memory of a push does not grow with its tree
//! but for one row per chunk that somebody still lacks.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_content::pack::{PackHead, PackWriter};
use cortex_content::unpack::Unpack;
use cortex_core::files::content::ContentId;
use cortex_core::limits::{WANTS_MAX, WANTS_OPEN_MAX};
use cortex_core::{Code, Refusal};
use tokio::sync::Notify;

use super::import::{Found, Held, Import, Seat};
use super::io::Lane;
use super::spool::{Eviction, Memory, PackNo, Place, Spool};

/// Level of compression of what is packed anew.
const LEVEL: i32 = 1;

/// What a node is given next.
#[derive(Debug)]
pub(crate) enum Give {
    /// A pack, as bytes, and how many plain bytes of it were wanted.
    Pack(Bytes, u64),
    /// The caller cannot give these.
    Missing(Vec<ContentId>),
}

/// The content of one push.
pub(crate) struct Push {
    state: Mutex<State>,
    /// There is more to ask the caller for.
    unasked: Notify,
    lane: Lane,
}

struct State {
    import: Import,
    /// `None` once the push is over.
    spool: Option<Spool>,
    seats: Vec<Node>,
    packs: BTreeMap<PackNo, Row>,
    /// Something that was forgotten is to be asked for once more.
    is_again: bool,
    /// When the caller was last heard.
    heard: Instant,
}

/// One node of the push.
#[derive(Default)]
struct Node {
    ready: VecDeque<ContentId>,
    missing: VecDeque<ContentId>,
    /// Ids that it asked for and was not given.
    open: usize,
    /// It had its end, or lost its connection, and has asked for nothing since.
    is_gone: bool,
    news: Arc<Notify>,
}

/// A pack that came.
struct Row {
    /// Plain bytes of its chunks.
    plain: u64,
    /// What it holds.
    ids: Vec<ContentId>,
    /// To how many nodes it is to be given before it is forgotten. What is asked for after that is asked of the
    /// caller again, so a miscount costs no more than that.
    left: usize,
}

/// What is to be read for a node.
enum Reading {
    /// A pack as it is, with how much of it is wanted, and which is forgotten once it was read.
    Whole(Place, u64, Option<PackNo>),
    /// Some of its chunks, with their bytes.
    Part(Place, HashSet<ContentId>, u64),
}

impl Push {
    /// To so many nodes. `folder` is its own, and made when it is needed; what is held counts in `all`.
    pub(crate) fn new(seats: usize, folder: PathBuf, lane: Lane, all: Memory) -> Self {
        let state = State {
            import: Import::default(),
            spool: Some(Spool::new(folder, all)),
            seats: (0..seats).map(|_| Node::default()).collect(),
            packs: BTreeMap::new(),
            is_again: false,
            heard: Instant::now(),
        };
        Self { state: Mutex::new(state), unasked: Notify::new(), lane }
    }

    /// What the caller is to send next, at most [`WANTS_MAX`] ids; empty when nothing is wanted for so long.
    /// `again`: it lost what it was asked for.
    pub(crate) async fn wants(&self, again: bool, wait: Duration) -> Vec<ContentId> {
        let deadline = tokio::time::sleep(wait);
        tokio::pin!(deadline);
        let mut again = again;
        loop {
            let more = self.unasked.notified();
            {
                let mut state = self.lock();
                state.heard = Instant::now();
                if state.spool.is_none() {
                    self.unasked.notify_one();
                    return Vec::new();
                }
                if std::mem::take(&mut again) {
                    state.import.ask_again();
                }
                let batch = state.import.ask(WANTS_MAX);
                if !batch.is_empty() {
                    // Another poll may find the rest.
                    self.unasked.notify_one();
                    return batch;
                }
            }
            tokio::select! {
                () = more => {}
                () = &mut deadline => return Vec::new(),
            }
        }
    }

    /// Takes a pack of the caller. One of which nothing is wanted is passed over: it may have been sent
    /// twice. Returns when older packs have left the memory for it.
    ///
    /// # Errors
    /// `invalid_argument` for what is no pack, `no_space` when the hub's disk is full.
    pub(crate) async fn take(&self, pack: Bytes) -> Result<(), Refusal> {
        let head = match PackHead::read(&pack)? {
            Some((head, _)) if head.pack_len() == pack.len() => head,
            Some(_) | None => {
                return Err(Refusal::new(Code::InvalidArgument, "The body is not one whole pack.")
                    .hint("Send the packs one by one, each in one request."));
            }
        };
        let leaving = self.lock().take(&head, pack);
        for eviction in leaving {
            self.write(eviction).await?;
        }
        Ok(())
    }

    async fn write(&self, eviction: Eviction) -> Result<(), Refusal> {
        let written = self.lane.run(move || eviction.write().map(|()| eviction)).await?;
        let eviction = written.map_err(|error| {
            let message = format!("The hub cannot keep what it was sent: {error}.");
            Refusal::new(Code::NoSpace, message)
                .hint("Make room on the hub's disk, then push again: what the nodes have is not sent again.")
        })?;
        if let Some(spool) = &mut self.lock().spool {
            spool.written(eviction);
        }
        Ok(())
    }

    /// The caller cannot give these: they changed, or are gone.
    pub(crate) fn missing(&self, ids: &[ContentId]) {
        let mut state = self.lock();
        state.heard = Instant::now();
        for id in ids {
            for seat in state.import.missing(*id) {
                let node = &mut state.seats[seat];
                node.missing.push_back(*id);
                node.news.notify_one();
            }
        }
    }

    /// A node asks for these.
    ///
    /// # Errors
    /// `too_large` when it would have more open than a receiver may.
    pub(crate) fn want(&self, seat: Seat, ids: &[ContentId]) -> Result<(), Refusal> {
        let mut state = self.lock();
        if state.seats[seat].open + ids.len() > WANTS_OPEN_MAX {
            let message = format!("A node asked for more than {WANTS_OPEN_MAX} pieces at once.");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        state.seats[seat].open += ids.len();
        state.seats[seat].is_gone = false;
        for id in ids {
            let found = state.import.want(seat, *id);
            let node = &mut state.seats[seat];
            match found {
                Found::Here(_) => node.ready.push_back(*id),
                Found::Missing => node.missing.push_back(*id),
                Found::Awaited => {
                    self.unasked.notify_one();
                    continue;
                }
            }
            node.news.notify_one();
        }
        Ok(())
    }

    /// What a node is given next; waits until there is something.
    ///
    /// # Errors
    /// `internal` when a pack cannot be read back.
    pub(crate) async fn next(&self, seat: Seat) -> Result<Give, Refusal> {
        let news = Arc::clone(&self.lock().seats[seat].news);
        loop {
            let more = news.notified();
            let reading = {
                let mut state = self.lock();
                let node = &mut state.seats[seat];
                if !node.missing.is_empty() {
                    let count = node.missing.len().min(WANTS_MAX);
                    node.open -= count;
                    return Ok(Give::Missing(node.missing.drain(..count).collect()));
                }
                let reading = state.reading(seat);
                if std::mem::take(&mut state.is_again) {
                    self.unasked.notify_one();
                }
                reading
            };
            match reading {
                None => more.await,
                Some(Reading::Whole(Place::Memory(bytes), plain, _)) => return Ok(Give::Pack(bytes, plain)),
                Some(Reading::Whole(place, plain, forgotten)) => {
                    let bytes = self.lane.run(move || read(place)).await?;
                    if let Some((pack, spool)) = forgotten.zip(self.lock().spool.as_mut()) {
                        spool.forget(pack);
                    }
                    return bytes.map(|bytes| Give::Pack(bytes, plain)).map_err(|error| lost(&error));
                }
                Some(Reading::Part(place, ids, plain)) => {
                    let pack = self.lane.run(move || repack(place, &ids)).await?;
                    return pack.map(|bytes| Give::Pack(bytes, plain));
                }
            }
        }
    }

    /// A node has its end.
    pub(crate) fn leave(&self, seat: Seat) {
        let mut state = self.lock();
        state.import.leave(seat);
        let node = &mut state.seats[seat];
        node.ready.clear();
        node.missing.clear();
        (node.open, node.is_gone) = (0, true);
    }

    /// Ids that a node asked for and was not given.
    pub(crate) fn open(&self, seat: Seat) -> usize {
        self.lock().seats[seat].open
    }

    /// The push is over: what it holds is given back, and nothing more is taken. Blocks while files are
    /// removed.
    pub(crate) fn close(&self) {
        let content = {
            let mut state = self.lock();
            state.packs.clear();
            state.seats.iter_mut().for_each(|node| *node = Node::default());
            (std::mem::take(&mut state.import), state.spool.take())
        };
        self.unasked.notify_one();
        drop(content);
    }

    /// How long the caller was not heard, if it owes something.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let state = self.lock();
        state.import.owes().then(|| state.heard.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, head: &PackHead, pack: Bytes) -> Vec<Eviction> {
        self.heard = Instant::now();
        let Some(spool) = &mut self.spool else { return Vec::new() };
        if !head.chunks().iter().any(|chunk| self.import.is_awaited(&chunk.id)) {
            return Vec::new();
        }
        let (number, leaving) = spool.put(pack);
        for chunk in head.chunks() {
            for seat in self.import.came(chunk.id, Held { pack: number, len: chunk.len }) {
                let node = &mut self.seats[seat];
                node.ready.push_back(chunk.id);
                node.news.notify_one();
            }
        }
        let ids = head.chunks().iter().map(|chunk| chunk.id).collect();
        let left = self.seats.iter().filter(|node| !node.is_gone).count();
        self.packs.insert(number, Row { plain: u64::from(head.plain_len()), ids, left });
        leaving
    }

    /// What is ready for a node out of one pack: the pack itself when it wants most of it.
    fn reading(&mut self, seat: Seat) -> Option<Reading> {
        let pack = self.first(seat)?;
        let place = self.spool.as_ref()?.place(pack)?;
        let row = self.packs.get_mut(&pack)?;
        let (import, node) = (&self.import, &mut self.seats[seat]);
        let (before, mut ids, mut bytes) = (node.ready.len(), HashSet::new(), 0);
        // Wherever it stands in the queue: what comes with this pack is not sent a second time.
        node.ready.retain(|id| match import.held(id).filter(|held| held.pack == pack) {
            Some(held) => {
                bytes += if ids.insert(*id) { u64::from(held.len) } else { 0 };
                false
            }
            None => true,
        });
        node.open -= before - node.ready.len();
        // For one node alone packs are made as it asks.
        let is_most = self.seats.len() == 1 || bytes * 4 >= row.plain * 3;
        if !is_most {
            return Some(Reading::Part(place, ids, bytes));
        }
        row.left = row.left.saturating_sub(1);
        if row.left > 0 {
            return Some(Reading::Whole(place, bytes, None));
        }
        let held = self.packs.remove(&pack).map(|row| row.ids).unwrap_or_default();
        self.import.forget(pack, held.into_iter());
        let on_disk = matches!(place, Place::File(_));
        if !on_disk && let Some(spool) = &mut self.spool {
            spool.forget(pack);
        }
        Some(Reading::Whole(place, bytes, on_disk.then_some(pack)))
    }

    /// The pack that holds what a node wants first. What was forgotten in between is asked for again.
    fn first(&mut self, seat: Seat) -> Option<PackNo> {
        loop {
            let node = &mut self.seats[seat];
            let id = *node.ready.front()?;
            if let Some(held) = self.import.held(&id) {
                return Some(held.pack);
            }
            node.ready.pop_front();
            match self.import.want(seat, id) {
                Found::Missing => {
                    node.missing.push_back(id);
                    node.news.notify_one();
                }
                Found::Awaited | Found::Here(_) => self.is_again = true,
            }
        }
    }
}

fn read(place: Place) -> io::Result<Bytes> {
    match place {
        Place::Memory(bytes) => Ok(bytes),
        Place::File(path) => fs::read(path).map(Bytes::from),
    }
}

/// A pack of some of the chunks of another.
fn repack(place: Place, ids: &HashSet<ContentId>) -> Result<Bytes, Refusal> {
    let bytes = read(place).map_err(|error| lost(&error))?;
    let (head, len) = PackHead::read(&bytes)?.ok_or_else(|| lost(&io::ErrorKind::UnexpectedEof.into()))?;
    let mut unpack = Unpack::new(head)?;
    unpack.push(bytes.slice(len..))?;
    let mut writer = PackWriter::new(LEVEL);
    while let Some((id, chunk)) = unpack.next_chunk()? {
        if ids.contains(&id) {
            // They were in one pack before, so they fit.
            let _added = writer.add(id, chunk);
        }
    }
    let pack = writer.finish().ok_or_else(|| lost(&io::ErrorKind::InvalidData.into()))?;
    Ok([&pack.head.to_bytes()[..], &pack.tail[..]].concat().into())
}

fn lost(error: &io::Error) -> Refusal {
    tracing::error!(%error, "a pack of a push cannot be read back");
    Refusal::new(Code::Internal, "The hub cannot read back what it was sent.").hint("Push again.")
}

#[cfg(test)]
mod tests;
