//! One run's log: what waits, what is in the file, and the task that brings the one to the other.
//! The task lives only while something waits or is not synced.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cortex_core::Refusal;
use cortex_core::id::RunId;
use cortex_core::limits::{OUTPUT_FLUSH_BYTES, OUTPUT_FLUSH_MS};
use cortex_core::stream::{Positions, Stream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::block::{self, BLOCK_BYTES_MAX, Chunk};
use super::file::{self, Found, Place};
use super::index::Index;
use super::{Inner, Sink};

/// Written output that stays in memory while the run is busy, so that those who follow it need
/// neither disk nor decompression.
const RECENT_BYTES: usize = 512 * 1024;
/// Pieces below this are copied together: a small piece would hold the whole buffer that it
/// arrived in.
const SMALL_BYTES: usize = 4 * 1024;
/// At most one sync per run in this time, but for its end.
const SYNC_EVERY: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// One run's log.
pub struct RunLog {
    inner: Arc<Inner>,
    run: RunId,
    sink: Weak<dyn Sink>,
    state: Mutex<State>,
    /// Something happened that the writing task should look at.
    wake: Notify,
    /// All before this position is in the file.
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    end: Positions,
    /// The newest chunks, without a hole up to `end`; those from `taken` on wait to be written.
    recent: VecDeque<Chunk>,
    recent_bytes: usize,
    taken: u64,
    written: u64,
    synced: u64,
    waiting_bytes: usize,
    waiting_since: Option<Instant>,
    synced_at: Option<Instant>,
    /// What is in the file.
    index: Index,
    /// Blocks that are written and not synced.
    unsynced: Vec<Place>,
    /// Their sync failed: it is not repeated, they are written again.
    doubtful: bool,
    /// The last block, when it is a mark.
    last_mark: Option<Place>,
    fresh: bool,
    finishing: bool,
    writer_lives: bool,
}

/// What the writing task does next.
enum Step {
    Write(Vec<Chunk>, u64, bool),
    Sync(u64, bool),
    Rewrite(u64, bool, Vec<Place>),
    Wait(Instant),
    Rest,
}

impl RunLog {
    pub(super) fn new(inner: Arc<Inner>, run: RunId, sink: Weak<dyn Sink>, found: Found) -> Self {
        let end = found.index.end().at;
        let total = end.total();
        let state = State {
            end,
            taken: total,
            written: total,
            synced: total,
            fresh: found.last.is_none(),
            last_mark: found.last.filter(Place::is_mark),
            index: found.index,
            ..State::default()
        };
        Self {
            inner,
            run,
            sink,
            state: Mutex::new(state),
            wake: Notify::new(),
            written: watch::Sender::new(total),
        }
    }

    /// How far the log goes, what waits included.
    pub fn end(&self) -> Positions {
        self.lock().end
    }

    /// Adds output at the log's end. Needs a runtime.
    pub fn append(self: &Arc<Self>, stream: Stream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let mut state = self.lock();
        let first = state.waiting_since.is_none();
        let room = self.inner.bounds.run_bytes.saturating_sub(state.end.total());
        if room >= data.len() as u64 {
            state.append(stream, data);
        } else {
            self.append_beyond(&mut state, stream, data, room);
        }
        if first && state.writer_lives {
            // The writer may sleep until the next sync, which is later than this is due.
            self.wake.notify_one();
        }
        self.wake_writer(&mut state);
    }

    /// Keeps what there is room for, and of the rest that it is missing.
    fn append_beyond(&self, state: &mut State, stream: Stream, mut data: Bytes, room: u64) {
        if state.end.total() <= self.inner.bounds.run_bytes {
            tracing::warn!(run = %self.run, "the run has as much output as is kept of one; the rest is dropped");
        }
        let kept = data.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(data.len()));
        if !kept.is_empty() {
            state.append(stream, kept);
        }
        state.drop_output(stream, data.len());
    }

    /// Puts a mark: output up to `to` is missing. Nothing happens when the log is there already.
    pub fn mark(self: &Arc<Self>, to: Positions) {
        let mut state = self.lock();
        if to.total() <= state.end.total() {
            return;
        }
        let chunk = Chunk::Lost { at: state.end, to };
        state.push(chunk);
        state.waiting_bytes = state.waiting_bytes.max(1);
        self.wake_writer(&mut state);
    }

    /// The run's end is known: everything is written and synced without waiting for more.
    pub fn finish(self: &Arc<Self>) {
        let mut state = self.lock();
        state.finishing = true;
        self.wake_writer(&mut state);
    }

    /// Waits until all that was added so far is in the file.
    pub async fn written(&self) {
        let end = self.end().total();
        let mut written = self.written.subscribe();
        // The sender lives as long as `self`.
        let _reached = written.wait_for(|position| *position >= end).await;
    }

    /// What is there from `position` on: at least one chunk, and not much more than `max` bytes;
    /// nothing at the log's end.
    ///
    /// # Errors
    /// `store_unavailable` when the disk fails.
    pub async fn read(&self, position: u64, max: usize) -> Result<Vec<Chunk>, Refusal> {
        let among = {
            let state = self.lock();
            if position >= state.end.total() {
                return Ok(Vec::new());
            }
            if let Some(chunks) = state.read_recent(position, max) {
                return Ok(chunks);
            }
            state.index.around(position)
        };
        let Some(among) = among else { return Ok(Vec::new()) };
        let path = file::path(&self.inner.dir, self.run);
        self.inner.reading(move || file::read(&path, &among, position, max)).await
    }

    fn wake_writer(self: &Arc<Self>, state: &mut State) {
        if state.writer_lives {
            let urgent = state.finishing || state.waiting_bytes >= OUTPUT_FLUSH_BYTES;
            if urgent {
                self.wake.notify_one();
            }
            return;
        }
        if state.taken == state.end.total() && state.synced == state.written {
            return;
        }
        state.writer_lives = true;
        let log = Arc::clone(self);
        self.inner.tasks.spawn(async move { log.write_until_quiet().await });
    }

    async fn write_until_quiet(self: Arc<Self>) {
        let mut retry = RETRY_MIN;
        loop {
            let step = self.lock().next_step(Instant::now());
            let wrote = match step {
                Step::Write(chunks, offset, ended) => self.write(chunks, offset, ended).await,
                Step::Sync(position, fresh) => self.sync(position, move |path| file::sync(path, fresh)).await,
                Step::Rewrite(position, fresh, places) => {
                    self.sync(position, move |path| file::rewrite(path, &places, fresh)).await
                }
                Step::Wait(until) => {
                    let _woken = tokio::time::timeout_at(until, self.wake.notified()).await;
                    continue;
                }
                Step::Rest => return,
            };
            if wrote {
                retry = RETRY_MIN;
                continue;
            }
            // Without a disk, or room on it, nothing is acknowledged: the node gets no credit and
            // keeps its output. The end of the run may change what there is room for.
            let _woken = tokio::time::timeout(retry, self.wake.notified()).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    async fn write(&self, chunks: Vec<Chunk>, offset: u64, ended: bool) -> bool {
        let path = file::path(&self.inner.dir, self.run);
        let inner = Arc::clone(&self.inner);
        let written = self
            .inner
            .writing(move || {
                if !inner.has_room(ended)? {
                    return Ok(None);
                }
                let block = block::encode(&chunks);
                file::write(&path, offset, &block)?;
                Ok(Some((block.header, block.end)))
            })
            .await;
        let Ok(Some((header, end))) = written else {
            self.lock().give_back();
            return false;
        };
        let position = end.total();
        self.lock().wrote(block::parse_header(&header), offset);
        self.written.send_replace(position);
        if let Some(sink) = self.sink.upgrade() {
            sink.written(self.run, position);
        }
        true
    }

    /// Makes all before `position` safe.
    async fn sync(&self, position: u64, work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static) -> bool {
        let path = file::path(&self.inner.dir, self.run);
        let done = self.inner.writing(move || work(&path)).await;
        self.lock().was_synced(position, done.is_ok());
        if done.is_err() {
            return false;
        }
        if let Some(sink) = self.sink.upgrade() {
            sink.synced(self.run, position);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for RunLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunLog").field("run", &self.run).field("end", &self.end()).finish_non_exhaustive()
    }
}

impl State {
    fn append(&mut self, stream: Stream, data: Bytes) {
        self.waiting_bytes += data.len();
        if let Some(joined) = self.join_small(stream, &data) {
            self.end.advance(stream, data.len() as u64);
            self.recent.push_back(joined);
            return;
        }
        let data = if data.len() < SMALL_BYTES { Bytes::copy_from_slice(&data) } else { data };
        self.push(Chunk::Output { stream, at: self.end, data });
    }

    /// Output that is not kept. It counts as waiting, so that its mark is written and it is
    /// acknowledged as if it were kept: the process must not stand still.
    fn drop_output(&mut self, stream: Stream, len: usize) {
        self.waiting_bytes += len;
        let mut end = self.end;
        end.advance(stream, len as u64);
        let taken = self.taken;
        match self.recent.back_mut() {
            Some(Chunk::Lost { at, to }) if at.total() >= taken => (*to, self.end) = (end, end),
            Some(_) | None => self.push(Chunk::Lost { at: self.end, to: end }),
        }
    }

    /// The last chunk with `data` behind it, taken out of the list, when both are small and the
    /// writer has not taken it.
    fn join_small(&mut self, stream: Stream, data: &Bytes) -> Option<Chunk> {
        let last = self.recent.back()?;
        let Chunk::Output { stream: of, at, data: before } = last else { return None };
        if *of != stream || at.total() < self.taken || before.len() + data.len() > SMALL_BYTES {
            return None;
        }
        let mut joined = BytesMut::with_capacity(before.len() + data.len());
        joined.extend_from_slice(before);
        joined.extend_from_slice(data);
        let chunk = Chunk::Output { stream, at: *at, data: joined.freeze() };
        self.recent.pop_back();
        self.recent_bytes += data.len();
        Some(chunk)
    }

    fn push(&mut self, chunk: Chunk) {
        self.end = chunk.end();
        self.recent_bytes += chunk.weight();
        self.recent.push_back(chunk);
        if self.waiting_since.is_none() {
            self.waiting_since = Some(Instant::now());
        }
    }

    fn next_step(&mut self, now: Instant) -> Step {
        if self.doubtful {
            return Step::Rewrite(self.written, self.fresh, self.unsynced.clone());
        }
        let waits = self.end.total() > self.taken;
        let flush_at = self.waiting_since.map_or(now, |since| since + Duration::from_millis(OUTPUT_FLUSH_MS));
        if waits && (self.finishing || self.waiting_bytes >= OUTPUT_FLUSH_BYTES || flush_at <= now) {
            let mut chunks = self.take();
            let mut offset = self.index.end().offset;
            // Marks that follow one another are one: the last grows in its place.
            if let ([Chunk::Lost { at, .. }], Some(mark)) = (&mut chunks[..], &self.last_mark) {
                (*at, offset) = (mark.header.start, mark.offset);
            }
            return Step::Write(chunks, offset, self.finishing);
        }
        let sync_at = self.synced_at.map_or(now, |at| at + SYNC_EVERY);
        if self.synced < self.written && (self.finishing || sync_at <= now) {
            return Step::Sync(self.written, self.fresh);
        }
        match (waits, self.synced < self.written) {
            (true, true) => Step::Wait(flush_at.min(sync_at)),
            (true, false) => Step::Wait(flush_at),
            (false, true) => Step::Wait(sync_at),
            (false, false) => {
                self.writer_lives = false;
                self.recent.clear();
                self.recent_bytes = 0;
                Step::Rest
            }
        }
    }

    /// The next block's chunks: output up to the bound, or one mark.
    fn take(&mut self) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut bytes = 0;
        let first = self.recent.partition_point(|chunk| chunk.end().total() <= self.taken);
        for chunk in self.recent.iter().skip(first) {
            let is_mark = matches!(chunk, Chunk::Lost { .. });
            if !chunks.is_empty() && (is_mark || bytes + chunk.weight() > BLOCK_BYTES_MAX) {
                break;
            }
            bytes += chunk.weight();
            chunks.push(chunk.clone());
            if is_mark {
                break;
            }
        }
        self.taken = chunks.last().map_or(self.taken, |chunk| chunk.end().total());
        self.count_waiting();
        chunks
    }

    fn give_back(&mut self) {
        self.taken = self.written;
        self.count_waiting();
    }

    fn count_waiting(&mut self) {
        let first = self.recent.partition_point(|chunk| chunk.end().total() <= self.taken);
        self.waiting_bytes = self.recent.iter().skip(first).map(Chunk::weight).sum();
        self.waiting_since = (first < self.recent.len()).then(Instant::now);
    }

    fn wrote(&mut self, header: Option<block::Header>, offset: u64) {
        if let Some(place) = header.map(|header| Place { header, offset }) {
            self.index.wrote(place.begin(), place.end());
            self.unsynced.pop_if(|last| last.offset == offset);
            self.unsynced.push(place);
            self.last_mark = Some(place).filter(Place::is_mark);
            self.written = place.header.end.total();
        }
        while self.recent_bytes > RECENT_BYTES
            && self.recent.front().is_some_and(|chunk| chunk.end().total() <= self.written)
        {
            let gone = self.recent.pop_front();
            self.recent_bytes = self.recent_bytes.saturating_sub(gone.map_or(0, |chunk| chunk.weight()));
        }
    }

    fn was_synced(&mut self, position: u64, done: bool) {
        self.doubtful = !done;
        if done {
            self.synced = position;
            self.synced_at = Some(Instant::now());
            self.fresh = false;
            self.unsynced.clear();
        }
    }

    /// From memory; `None` when `position` is before what memory holds.
    fn read_recent(&self, position: u64, max: usize) -> Option<Vec<Chunk>> {
        if self.recent.front().is_none_or(|first| first.at().total() > position) {
            return None;
        }
        let first = self.recent.partition_point(|chunk| chunk.end().total() <= position);
        let mut left = max;
        let wanted = self.recent.iter().skip(first).take_while(|chunk| {
            let begin = left > 0;
            left = left.saturating_sub(chunk.weight());
            begin
        });
        Some(wanted.filter_map(|chunk| chunk.from(position)).collect())
    }
}
