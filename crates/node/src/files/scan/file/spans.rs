//! A long file, by several threads: each reads, cuts and hashes one span of it after the other, as if a chunk began
//! where the span does. The cuts of a file depend on where its first chunk begins and on its bytes, so whoever puts
//! the spans together cuts once more from where the chunk before ended until it comes upon a cut of the span; from
//! there on they are the same. Where content has no cuts of its own, as in a hole, that may be the whole span.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

use blake3::hazmat::{ChainingValue, HasherExt as _};
use cortex_content::chunk::next_len;
use cortex_content::pack::ChunkRef;
use cortex_core::files::content::ContentId;
use cortex_core::limits::CHUNK_BYTES_MAX;

use super::super::super::fault::Fault;
use super::super::super::spans::{self, SPAN_BYTES};
use super::super::Take;
use super::Content;

/// One span, and what lies behind it that a chunk of it may need.
struct Span {
    number: u64,
    bytes: Vec<u8>,
    /// What was read of it.
    filled: usize,
    /// Its chunks, and where each begins, for a chunk that begins where the span does.
    cuts: Vec<(usize, ChunkRef)>,
    hash: ChainingValue,
}

/// A span, or why there is none: a panic of its thread, a fault, or a file that is shorter than it was.
type Read = Result<Result<Option<Span>, Fault>, Box<dyn Any + Send>>;

/// Reads a file of this size. `None` where no thread may be started or no second one is of use, and for a file of one
/// span: nothing was read then.
pub(super) fn cut(
    file: &File,
    size: u64,
    hashed: &mut u64,
    tell: &dyn Fn(u64),
    take: Option<&Take<'_>>,
) -> Option<Result<Option<Content>, Fault>> {
    let (count, threads) = (spans::count(size), spans::threads());
    if count < 2 || threads < 2 {
        return None;
    }
    // One span more than threads is in memory, each with 4.25 MiB.
    let (free, room) = sync_channel(threads + 1);
    // Whoever has room has the next number, so that what is waited for is always being read.
    let desk = Mutex::new((room, 0..count));
    thread::scope(|scope| {
        let (done, read) = sync_channel(threads + 1);
        let begin = |_| {
            let (done, desk) = (done.clone(), &desk);
            let work = move || serve(file, size, desk, &done);
            Builder::new().name("scan-span".to_owned()).spawn_scoped(scope, work).ok()
        };
        let begun = (0..threads).map_while(begin).count();
        drop(done);
        if begun == 0 {
            return None;
        }
        for _ in 0..=begun {
            // There is a place for each.
            let _given = free.send(Vec::new());
        }
        let together = Together { size, at: 0, chunks: Vec::new(), hashes: Vec::new() };
        Some(together.of(file, &read, free, hashed, tell, take))
    })
}

/// Reads spans until there are none, or one is none.
fn serve(file: &File, size: u64, desk: &Mutex<(Receiver<Vec<u8>>, Range<u64>)>, done: &SyncSender<Read>) {
    let next = || {
        let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
        let (room, numbers) = &mut *desk;
        let bytes = if numbers.is_empty() { None } else { room.recv().ok() };
        bytes.zip(numbers.next())
    };
    while let Some((bytes, number)) = next() {
        let read = catch_unwind(AssertUnwindSafe(|| look(file, size, number, bytes)));
        let is_more = matches!(read, Ok(Ok(Some(_))));
        if done.send(read).is_err() || !is_more {
            return;
        }
    }
}

/// Reads one span. `None` when the file is shorter than it was.
fn look(file: &File, size: u64, number: u64, mut bytes: Vec<u8>) -> Result<Option<Span>, Fault> {
    let offset = number * SPAN_BYTES as u64;
    let most = SPAN_BYTES + CHUNK_BYTES_MAX;
    bytes.resize(most, 0);
    let filled = usize::try_from(size - offset).map_or(most, |left| left.min(most));
    match file.read_exact_at(&mut bytes[..filled], offset) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let own = &bytes[..filled.min(SPAN_BYTES)];
    let hash = spans::hasher(offset).update(own).finalize_non_root();
    let (mut cuts, mut at) = (Vec::new(), 0);
    let is_end = offset + filled as u64 == size;
    while at < own.len() {
        let Some(chunk) = chunk_at(&bytes[at..filled], is_end) else { break };
        cuts.push((at, chunk));
        at += chunk.len as usize;
    }
    Ok(Some(Span { number, bytes, filled, cuts, hash }))
}

/// The chunk at the front of these bytes.
fn chunk_at(bytes: &[u8], is_end: bool) -> Option<ChunkRef> {
    let len = next_len(bytes, is_end)?;
    Some(ChunkRef { id: ContentId::of(&bytes[..len]), len: len as u32 })
}

/// The spans that were put together so far.
struct Together {
    size: u64,
    /// Where the next chunk begins.
    at: u64,
    chunks: Vec<ChunkRef>,
    hashes: Vec<ChainingValue>,
}

impl Together {
    fn of(
        mut self,
        file: &File,
        read: &Receiver<Read>,
        free: SyncSender<Vec<u8>>,
        hashed: &mut u64,
        tell: &dyn Fn(u64),
        take: Option<&Take<'_>>,
    ) -> Result<Option<Content>, Fault> {
        let mut early = BTreeMap::new();
        let mut left = spans::count(self.size);
        while left > 0 {
            let Ok(span) = read.recv() else { return Err(Fault::Restless) };
            let Some(span) = span.unwrap_or_else(|panic| resume_unwind(panic))? else { return Ok(None) };
            early.insert(span.number, span);
            while let Some(span) = early.remove(&(self.hashes.len() as u64)) {
                self.add(&span, take);
                *hashed += span.own() as u64;
                tell(*hashed);
                left -= 1;
                // Nobody may want it any more.
                let _given = free.send(span.bytes);
            }
        }
        let is_longer = file.read_at(&mut [0], self.size)? > 0;
        if is_longer || self.at != self.size {
            return Ok(None);
        }
        Ok(Some(Content { id: spans::together(&self.hashes), chunks: self.chunks }))
    }

    /// The next span. Its cuts hold from the first at which a chunk begins.
    fn add(&mut self, span: &Span, take: Option<&Take<'_>>) {
        let offset = span.number * SPAN_BYTES as u64;
        let is_end = offset + span.filled as u64 == self.size;
        let mut cuts = span.cuts.iter().peekable();
        // A chunk may reach behind the end of the next span, of a file that ends with it.
        while let Some(at) = self.at.checked_sub(offset).map(|at| at as usize).filter(|at| *at < span.own()) {
            while cuts.next_if(|(start, _)| *start < at).is_some() {}
            let known = cuts.next_if(|(start, _)| *start == at).map(|(_, chunk)| *chunk);
            let Some(chunk) = known.or_else(|| chunk_at(&span.bytes[at..span.filled], is_end)) else { break };
            if let Some(take) = take {
                take(chunk.id, &span.bytes[at..at + chunk.len as usize]);
            }
            self.chunks.push(chunk);
            self.at += u64::from(chunk.len);
        }
        self.hashes.push(span.hash);
    }
}

impl Span {
    /// Bytes that are no other span's.
    fn own(&self) -> usize {
        self.filled.min(SPAN_BYTES)
    }
}
