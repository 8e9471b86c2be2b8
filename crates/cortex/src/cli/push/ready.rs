//! Packs that are made while the source is read: what had to be read is new here, and so most likely what will
//! be asked for. It need not be read and hashed once more then, and is compressed while the disk and the other
//! processors have nothing else to do.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

use cortex_content::pack::{Added, Pack, PackWriter};
use cortex_core::files::content::ContentId;

use super::packer::LEVEL;

/// Bytes of packs that are kept for those who may ask. What is read beyond that is read again.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Packs that are compressed at the same moment, each with 6 MiB of its own.
const THREADS_MAX: usize = 4;
/// A pack is sent as it is when that part of its plain bytes is asked for, percent.
const WANTED_PERCENT: u64 = 75;

/// Takes what is read, by one thread or several.
pub(super) struct Making(Mutex<State>);

struct State {
    kept_bytes_max: usize,
    /// All that was taken: what lies in several files is in one pack.
    taken: HashSet<ContentId>,
    /// One for each thread that reads: what lies side by side is in one pack, and asked for at one time.
    filling: HashMap<ThreadId, PackWriter>,
    /// Being compressed, oldest first.
    running: VecDeque<Running>,
    start: Start,
    made: Vec<Pack>,
    bytes: usize,
}

type Running = JoinHandle<Option<(PackWriter, Option<Pack>)>>;
/// Starts a thread that compresses what it is then given.
type Start = fn(Receiver<PackWriter>) -> io::Result<Running>;

impl Making {
    /// Nothing was read.
    pub(super) fn new() -> Self {
        Self::keeping(KEPT_BYTES_MAX, beside)
    }

    fn keeping(kept_bytes_max: usize, start: Start) -> Self {
        let (taken, filling) = (HashSet::new(), HashMap::new());
        let (running, made) = (VecDeque::new(), Vec::new());
        Self(Mutex::new(State { kept_bytes_max, taken, filling, running, start, made, bytes: 0 }))
    }

    /// A chunk that was read, with its hash. Waits while as many packs are being compressed as there are
    /// processors.
    pub(super) fn take(&self, id: ContentId, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take(id, bytes);
    }

    /// All was read: the packs.
    pub(super) fn end(self) -> Ready {
        let mut state = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (_, writer) in std::mem::take(&mut state.filling) {
            drop(state.compress(writer));
        }
        while !state.running.is_empty() {
            drop(state.join());
        }
        Ready::of(state.made)
    }
}

impl State {
    fn take(&mut self, id: ContentId, bytes: &[u8]) {
        if self.bytes >= self.kept_bytes_max || !self.taken.insert(id) {
            return;
        }
        let reader = thread::current().id();
        let mut writer = self.filling.remove(&reader).unwrap_or_else(|| PackWriter::new(LEVEL));
        if writer.add(id, bytes) == Added::Full {
            writer = self.compress(writer).unwrap_or_else(|| PackWriter::new(LEVEL));
            // It is empty, and any chunk fits in an empty one.
            let _added = writer.add(id, bytes);
        }
        self.filling.insert(reader, writer);
    }

    /// Has what was filled compressed beside, or here where no more threads may be started. A writer that is free
    /// again.
    fn compress(&mut self, mut writer: PackWriter) -> Option<PackWriter> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let free = if self.running.len() < threads { None } else { self.join() };
        // It is given only to a thread that is there, so none is lost with one that is not.
        let (give, work) = mpsc::sync_channel(1);
        match (self.start)(work) {
            Ok(running) => {
                if give.send(writer).is_ok() {
                    self.running.push_back(running);
                }
                free
            }
            Err(_) => {
                let pack = writer.finish();
                self.keep(pack);
                Some(writer)
            }
        }
    }

    /// Waits for the oldest.
    fn join(&mut self) -> Option<PackWriter> {
        // What a thread lost is read again.
        let (writer, pack) = self.running.pop_front()?.join().ok()??;
        self.keep(pack);
        Some(writer)
    }

    fn keep(&mut self, pack: Option<Pack>) {
        if let Some(pack) = pack {
            self.bytes += pack.head.pack_len();
            self.made.push(pack);
        }
    }
}

fn beside(work: Receiver<PackWriter>) -> io::Result<Running> {
    thread::Builder::new().name("push-pack".to_owned()).spawn(move || {
        let mut writer = work.recv().ok()?;
        let pack = writer.finish();
        Some((writer, pack))
    })
}

/// The packs that were made, until each is sent or given up.
#[derive(Default)]
pub(in crate::cli) struct Ready {
    packs: BTreeMap<usize, Made>,
    /// In which pack a chunk is.
    places: HashMap<ContentId, usize>,
    /// How many chunks are asked for and not given.
    waiting: usize,
}

struct Made {
    pack: Pack,
    wanted: HashSet<ContentId>,
    wanted_bytes: u64,
}

impl Ready {
    fn of(made: Vec<Pack>) -> Self {
        let mut ready = Self::default();
        for (number, pack) in made.into_iter().enumerate() {
            ready.places.extend(pack.head.chunks().iter().map(|chunk| (chunk.id, number)));
            ready.packs.insert(number, Made { pack, wanted: HashSet::new(), wanted_bytes: 0 });
        }
        ready
    }

    /// Whether it is in one of the packs, which waits for more of it to be asked for then. `len` bytes it has.
    pub(super) fn want(&mut self, id: ContentId, len: u32) -> bool {
        let made = self.places.get(&id).and_then(|number| self.packs.get_mut(number));
        let Some(made) = made else { return false };
        if made.wanted.insert(id) {
            made.wanted_bytes += u64::from(len);
            self.waiting += 1;
        }
        true
    }

    /// How many chunks are asked for and not given.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    /// The first pack most of which is asked for. It is given once.
    pub(super) fn next(&mut self) -> Option<Pack> {
        let is_wanted =
            |made: &&Made| made.wanted_bytes * 100 >= u64::from(made.pack.head.plain_len()) * WANTED_PERCENT;
        let number = self.packs.iter().find(|(_, made)| is_wanted(made)).map(|(number, _)| *number)?;
        self.remove(number).map(|made| made.pack)
    }

    /// Gives up the packs of which only a part is asked for: what that is.
    pub(super) fn give_up(&mut self) -> Vec<ContentId> {
        let of_some = self.packs.iter().filter(|(_, made)| !made.wanted.is_empty());
        let numbers: Vec<usize> = of_some.map(|(number, _)| *number).collect();
        let mut asked = Vec::new();
        for Made { pack, wanted, .. } in numbers.into_iter().filter_map(|number| self.remove(number)) {
            asked.extend(pack.head.chunks().iter().map(|chunk| chunk.id).filter(|id| wanted.contains(id)));
        }
        asked
    }

    /// Nothing is asked for.
    pub(super) fn reset(&mut self) {
        for made in self.packs.values_mut() {
            (made.wanted, made.wanted_bytes) = (HashSet::new(), 0);
        }
        self.waiting = 0;
    }

    fn remove(&mut self, number: usize) -> Option<Made> {
        let made = self.packs.remove(&number)?;
        self.waiting -= made.wanted.len();
        for chunk in made.pack.head.chunks() {
            self.places.remove(&chunk.id);
        }
        Some(made)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use cortex_content::packs::Stream;
    use cortex_core::limits::CARRY_DATA_BYTES_MAX;

    use super::*;

    pub(in super::super) fn ids_in(pack: Pack) -> Vec<ContentId> {
        let (mut stream, mut ids) = (Stream::new(), Vec::new());
        let pack = [pack.head.to_bytes(), pack.tail].concat();
        for piece in pack.chunks(CARRY_DATA_BYTES_MAX) {
            stream.push(Bytes::copy_from_slice(piece)).expect("room");
            while let Some((id, _)) = stream.next_chunk().expect("verified") {
                ids.push(id);
            }
        }
        ids
    }

    /// A chunk of a mebibyte that nothing shrinks.
    pub(in super::super) fn chunk(number: u64) -> (ContentId, Vec<u8>) {
        let part = |at: u64| *ContentId::of(&[number, at].map(u64::to_le_bytes).concat()).as_bytes();
        let bytes: Vec<u8> = (0..1 << 15).flat_map(part).collect();
        (ContentId::of(&bytes), bytes)
    }

    /// The packs of so many chunks, three of which fit in one.
    fn made(chunks: u64, kept_bytes_max: usize) -> (Ready, Vec<ContentId>) {
        made_by(chunks, kept_bytes_max, beside)
    }

    fn made_by(chunks: u64, kept_bytes_max: usize, start: Start) -> (Ready, Vec<ContentId>) {
        let making = Making::keeping(kept_bytes_max, start);
        let mut ids = Vec::new();
        for (id, bytes) in (0..chunks).map(chunk) {
            making.take(id, &bytes);
            making.take(id, &bytes);
            ids.push(id);
        }
        (making.end(), ids)
    }

    #[test]
    fn a_pack_is_given_once_when_most_of_it_is_asked_for() {
        let (mut ready, ids) = made(10, usize::MAX);
        assert!(ready.next().is_none() && !ready.want(ContentId::of(b"other"), 5));
        for id in &ids[..4] {
            assert!(ready.want(*id, 1 << 20) && ready.want(*id, 1 << 20));
        }
        assert_eq!(ready.waiting(), 4);
        assert_eq!(ids_in(ready.next().expect("the first pack")), ids[..3]);
        assert!(ready.next().is_none(), "a third of the second is not most of it");
        assert!(!ready.want(ids[0], 1 << 20), "it was given");
        ready.want(ids[4], 1 << 20);
        ready.want(ids[5], 1 << 20);
        assert_eq!(ids_in(ready.next().expect("the second pack")), ids[3..6]);
        ready.want(ids[7], 1 << 20);
        ready.want(ids[6], 1 << 20);
        assert_eq!((ready.give_up(), ready.waiting()), (ids[6..8].to_vec(), 0));
        assert!(!ready.want(ids[8], 1 << 20), "it was given up");
        ready.want(ids[9], 1 << 20);
        ready.reset();
        assert_eq!((ready.waiting(), ready.next()), (0, None));
        ready.want(ids[9], 1 << 20);
        assert_eq!(ids_in(ready.next().expect("the last pack")), ids[9..]);
    }

    #[test]
    fn no_more_is_kept_than_the_bound_and_what_is_packed_at_the_moment() {
        let (mut ready, ids) = made(100, 6 << 20);
        let kept = ids.iter().filter(|id| ready.want(**id, 1 << 20)).count();
        let most = 6 + 3 * (THREADS_MAX + 1);
        assert!((6..=most).contains(&kept), "{kept}");
        assert!(ids[..6].iter().all(|id| ready.places.contains_key(id)), "the first that were read");
    }

    #[test]
    fn what_no_thread_may_be_started_for_is_packed_all_the_same() {
        let none: Start = |_work| Err(io::ErrorKind::WouldBlock.into());
        let second: Start = |work| {
            static BEFORE: AtomicUsize = AtomicUsize::new(0);
            let is_one = BEFORE.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            if is_one { beside(work) } else { Err(io::ErrorKind::WouldBlock.into()) }
        };
        for start in [none, second] {
            let (mut ready, ids) = made_by(20, usize::MAX, start);
            assert!(ids.iter().all(|id| ready.want(*id, 1 << 20)), "each is in a pack");
            let packs: Vec<Vec<ContentId>> = std::iter::from_fn(|| ready.next()).map(ids_in).collect();
            assert_eq!(packs.iter().map(Vec::len).max(), Some(3), "packs are full");
            let given: HashSet<ContentId> = packs.into_iter().flatten().collect();
            assert_eq!(given, ids.into_iter().collect());
        }
    }

    #[test]
    fn nothing_that_was_read_makes_nothing() {
        let (mut ready, _) = made(0, usize::MAX);
        assert!(ready.next().is_none() && ready.give_up().is_empty());
    }
}
