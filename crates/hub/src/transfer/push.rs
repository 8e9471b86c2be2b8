//! The content of one push between its caller and its nodes: what a node asks for is asked of the caller,
//! what the caller sends is handed to the nodes that wait. Content is looked into by nobody here: a node
//! verifies all of it before it uses any.
//!
//! A node never has more open than its window, the caller is asked for nothing else, and packs are dropped
//! or written to disk (`spool`), so the memory of a push does not grow with its tree but for one row per
//! chunk that came.

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
    news: Arc<Notify>,
}

/// A pack that came.
struct Row {
    /// Plain bytes of its chunks.
    plain: u64,
    /// What it holds, when it is forgotten once the only node has it.
    once: Option<Vec<ContentId>>,
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
                state.reading(seat)
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
        node.open = 0;
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
        let ids = || head.chunks().iter().map(|chunk| chunk.id).collect();
        let once = (self.seats.len() == 1).then(ids);
        self.packs.insert(number, Row { plain: u64::from(head.plain_len()), once });
        leaving
    }

    /// What is ready for a node out of one pack: the pack itself when it wants most of it.
    fn reading(&mut self, seat: Seat) -> Option<Reading> {
        let node = &mut self.seats[seat];
        // What was asked for while its pack waited to be given came with that pack, which is forgotten since.
        while node.ready.front().is_some_and(|id| self.import.held(id).is_none()) {
            node.ready.pop_front();
            node.open -= 1;
        }
        let first = self.import.held(node.ready.front()?)?;
        let (mut ids, mut bytes) = (HashSet::new(), 0);
        while let Some(id) = node.ready.front().copied() {
            let Some(held) = self.import.held(&id).filter(|held| held.pack == first.pack) else { break };
            node.ready.pop_front();
            node.open -= 1;
            bytes += u64::from(held.len);
            ids.insert(id);
        }
        let spool = self.spool.as_mut()?;
        let place = spool.place(first.pack)?;
        let row = self.packs.get_mut(&first.pack)?;
        if let Some(held) = row.once.take() {
            self.packs.remove(&first.pack);
            self.import.forget(first.pack, held.into_iter());
            let on_disk = matches!(place, Place::File(_));
            if !on_disk {
                spool.forget(first.pack);
            }
            return Some(Reading::Whole(place, bytes, on_disk.then_some(first.pack)));
        }
        let most = bytes * 4 >= row.plain * 3;
        Some(if most { Reading::Whole(place, bytes, None) } else { Reading::Part(place, ids, bytes) })
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
