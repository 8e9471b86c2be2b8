//! The output of one run that the hub does not yet keep for good: in memory up to a bound, beyond
//! it in segment files. Bytes stand in the common order of both streams.
//!
//! Short output never touches the disk. File work is done on blocking threads; the lock is held
//! for moments only. Never here: deciding what may be forgotten or sent (`cortex_core::stream`).

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use cortex_core::limits;
use cortex_core::stream::{Positions, Stream};

/// Bytes of one segment file.
const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Spilled bytes that stay in memory as well until they are read once, so that output which the
/// hub takes in at once is written to disk but never read back.
const CACHE_BYTES_MAX: u64 = limits::CREDIT_BYTES_MAX;
/// Pieces of a spool: bounds the memory for a run that writes one byte here and one there. Full
/// is back-pressure, as for bytes.
const PIECES_MAX: usize = 65_536;
/// Bytes up to which small writes of one stream are joined into one piece.
const JOIN_BYTES_MAX: usize = 16 * 1024;

/// What [`Spool::read`] finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes of one stream, from the asked position on, and their offset in that stream.
    Here(Stream, u64, Bytes),
    /// They are on disk: call [`Spool::load`], then read again.
    OnDisk,
    /// Nothing is kept there.
    Nothing,
}

/// The output of one run.
#[derive(Debug)]
pub(crate) struct Spool {
    folder: PathBuf,
    memory_max: u64,
    segment_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Piece>,
    end: Positions,
    in_memory: u64,
    cached: u64,
    segment: Option<Segment>,
    next_segment: u64,
    /// Where the last byte in each segment file ends.
    segment_ends: BTreeMap<u64, u64>,
    removed: bool,
}

#[derive(Debug)]
struct Piece {
    position: u64,
    offset: u64,
    stream: Stream,
    len: u64,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Memory(BytesMut),
    Disk { segment: u64, at: u64, cached: Option<Bytes> },
}

#[derive(Clone, Debug)]
struct Segment {
    number: u64,
    file: Arc<std::fs::File>,
    len: u64,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.position + self.len
    }
}

impl Spool {
    /// Empty. `folder` is made when the first byte goes to disk.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self::with_bounds(folder, limits::SPOOL_MEMORY_BYTES_MAX, SEGMENT_BYTES_MAX)
    }

    fn with_bounds(folder: PathBuf, memory_max: u64, segment_max: u64) -> Self {
        Self { folder, memory_max, segment_max, state: Mutex::new(State::default()) }
    }

    /// Takes bytes in at the end. On an error nothing was taken, and the same can be tried again.
    pub(crate) async fn append(self: &Arc<Self>, stream: Stream, data: Bytes) -> io::Result<()> {
        if self.lock().append_to_memory(stream, &data, self.memory_max) {
            return Ok(());
        }
        let spool = Arc::clone(self);
        blocking(move || spool.append_to_disk(stream, data)).await
    }

    /// Whether there are too many small pieces to take more.
    pub(crate) fn is_crowded(&self) -> bool {
        self.lock().pieces.len() >= PIECES_MAX
    }

    /// Bytes of one stream from `position` on, at most `max`.
    pub(crate) fn read(&self, position: u64, max: u64) -> Read {
        self.lock().read(position, max)
    }

    /// Brings the piece at `position` from disk into memory, for the next [`Self::read`].
    pub(crate) async fn load(self: &Arc<Self>, position: u64) -> io::Result<()> {
        let spool = Arc::clone(self);
        blocking(move || spool.load_now(position)).await
    }

    /// Lets go of everything before `position`.
    pub(crate) fn trim(self: &Arc<Self>, position: u64) {
        let files = self.lock().trim(position);
        if files.is_empty() {
            return;
        }
        let spool = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            for number in files {
                // A file that stays is removed with the folder.
                let _removed = std::fs::remove_file(spool.path(number));
            }
        });
    }

    /// Lets go of everything, for good.
    pub(crate) fn remove(self: &Arc<Self>) {
        let had_files = {
            let mut state = self.lock();
            let had_files = state.next_segment > 0;
            *state = State { end: state.end, removed: true, ..State::default() };
            had_files
        };
        if had_files {
            let spool = Arc::clone(self);
            tokio::task::spawn_blocking(move || {
                // What stays is removed at the next start of the node.
                let _removed = std::fs::remove_dir_all(&spool.folder);
            });
        }
    }

    fn append_to_disk(&self, stream: Stream, data: Bytes) -> io::Result<()> {
        let len = data.len() as u64;
        let segment = self.lock().segment.clone();
        let segment = match segment {
            Some(segment) if segment.len < self.segment_max => segment,
            Some(_) | None => self.open_segment()?,
        };
        segment.file.write_all_at(&data, segment.len)?;
        let mut state = self.lock();
        let at = segment.len;
        let number = segment.number;
        state.segment = Some(Segment { len: at + len, ..segment });
        let cached = (state.cached + len <= CACHE_BYTES_MAX).then_some(data);
        state.cached += cached.as_ref().map_or(0, |data| data.len() as u64);
        state.push(stream, len, Place::Disk { segment: number, at, cached });
        let end = state.end.total();
        state.segment_ends.insert(number, end);
        Ok(())
    }

    fn open_segment(&self) -> io::Result<Segment> {
        let number = self.lock().next_segment;
        if number == 0 {
            std::fs::create_dir_all(&self.folder)?;
        }
        let path = self.path(number);
        let file = std::fs::File::options().write(true).create(true).truncate(true).open(path)?;
        self.lock().next_segment = number + 1;
        Ok(Segment { number, file: Arc::new(file), len: 0 })
    }

    fn load_now(&self, position: u64) -> io::Result<()> {
        let found = {
            let state = self.lock();
            state.find(position).and_then(|index| match &state.pieces[index].place {
                Place::Disk { segment, at, cached: None } => {
                    Some((*segment, *at, state.pieces[index].len, state.pieces[index].position))
                }
                Place::Disk { .. } | Place::Memory(_) => None,
            })
        };
        let Some((number, at, len, piece_position)) = found else { return Ok(()) };
        let mut data = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        std::fs::File::open(self.path(number))?.read_exact_at(&mut data, at)?;
        self.lock().put_cached(piece_position, len, data.into());
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change under the lock is complete before anything in it could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append_to_memory(&mut self, stream: Stream, data: &Bytes, memory_max: u64) -> bool {
        if self.removed {
            return true;
        }
        let len = data.len() as u64;
        if self.in_memory + len > memory_max {
            return false;
        }
        self.in_memory += len;
        if let Some(Piece { stream: last, len: last_len, place: Place::Memory(bytes), .. }) =
            self.pieces.back_mut()
            && *last == stream
            && bytes.len() + data.len() <= JOIN_BYTES_MAX
        {
            bytes.extend_from_slice(data);
            *last_len += len;
            self.end.advance(stream, len);
            return true;
        }
        self.push(stream, len, Place::Memory(BytesMut::from(data.as_ref())));
        true
    }

    fn push(&mut self, stream: Stream, len: u64, place: Place) {
        let (position, offset) = (self.end.total(), self.end.of(stream));
        self.end.advance(stream, len);
        if !self.removed {
            self.pieces.push_back(Piece { position, offset, stream, len, place });
        }
    }

    fn find(&self, position: u64) -> Option<usize> {
        let index = self.pieces.partition_point(|piece| piece.end() <= position);
        self.pieces.get(index).is_some_and(|piece| piece.position <= position).then_some(index)
    }

    fn read(&mut self, position: u64, max: u64) -> Read {
        let Some(index) = self.find(position) else { return Read::Nothing };
        let piece = &mut self.pieces[index];
        let skip = position - piece.position;
        let take = max.min(piece.len - skip);
        // Both are within one piece, which is in memory whole.
        let (from, to) = (skip as usize, (skip + take) as usize);
        let (stream, offset) = (piece.stream, piece.offset + skip);
        match &mut piece.place {
            Place::Memory(bytes) => Read::Here(stream, offset, Bytes::copy_from_slice(&bytes[from..to])),
            Place::Disk { cached: None, .. } => Read::OnDisk,
            Place::Disk { cached, .. } => {
                let Some(data) = cached.as_ref().map(|data| data.slice(from..to)) else {
                    return Read::OnDisk;
                };
                if to as u64 == piece.len {
                    self.cached -= piece.len;
                    *cached = None;
                }
                Read::Here(stream, offset, data)
            }
        }
    }

    fn put_cached(&mut self, position: u64, len: u64, data: Bytes) {
        let Some(index) = self.find(position) else { return };
        let piece = &mut self.pieces[index];
        if (piece.position, piece.len) != (position, len) {
            // It was trimmed meanwhile; the next read asks again for what is left.
            return;
        }
        if let Place::Disk { cached: cached @ None, .. } = &mut piece.place {
            *cached = Some(data);
            self.cached += len;
        }
    }

    /// Returns the numbers of the files that can go.
    fn trim(&mut self, position: u64) -> Vec<u64> {
        while self.pieces.front().is_some_and(|piece| piece.end() <= position) {
            if let Some(piece) = self.pieces.pop_front() {
                self.release(&piece);
            }
        }
        if let Some(front) = self.pieces.front_mut()
            && front.position < position
        {
            let gone = position - front.position;
            front.position += gone;
            front.offset += gone;
            front.len -= gone;
            match &mut front.place {
                Place::Memory(bytes) => {
                    *bytes = BytesMut::from(&bytes[gone as usize..]);
                    self.in_memory -= gone;
                }
                Place::Disk { at, cached, .. } => {
                    *at += gone;
                    if let Some(data) = cached {
                        *data = data.slice(gone as usize..);
                        self.cached -= gone;
                    }
                }
            }
        }
        let current = self.segment.as_ref().map(|segment| segment.number);
        let done: Vec<u64> = self
            .segment_ends
            .iter()
            .filter(|(number, end)| **end <= position && Some(**number) != current)
            .map(|(number, _)| *number)
            .collect();
        for number in &done {
            self.segment_ends.remove(number);
        }
        done
    }

    fn release(&mut self, piece: &Piece) {
        match &piece.place {
            Place::Memory(_) => self.in_memory -= piece.len,
            Place::Disk { cached: Some(_), .. } => self.cached -= piece.len,
            Place::Disk { cached: None, .. } => {}
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
