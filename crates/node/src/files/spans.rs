//! A long file by several threads, span by span. The hash of a span is a subtree of that of the file.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Builder};

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};
use cortex_core::files::content::ContentId;
use rustix::process::{Resource, getrlimit};

use super::fault::Fault;
use super::read;

/// Bytes of a span: a power of two, so that it is a subtree.
pub(super) const SPAN_BYTES: usize = 4 * 1024 * 1024;
/// From that length on several threads read a file: for a shorter one they would take longer than they save.
const LONG_BYTES_MIN: u64 = 4 * SPAN_BYTES as u64;
/// Threads that work on one thing.
const THREADS_MAX: usize = 8;
/// So much of the memory that a process may have is there for each thread. It takes an eighth of it at most: the stack,
/// 1.25 MiB to cut files, and 4.25 MiB for a span that is cut.
const BYTES_PER_THREAD: u64 = 64 * 1024 * 1024;

/// Whether it pays to read a file of this size by several threads.
pub(super) const fn is_long(size: u64) -> bool {
    size >= LONG_BYTES_MIN
}

/// How many spans a file of this size has.
pub(super) const fn count(size: u64) -> u64 {
    size.div_ceil(SPAN_BYTES as u64)
}

/// As many threads as there are processors, as the bound on the memory of this process leaves room for, and no more
/// than eight.
pub(super) fn threads() -> usize {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    if cfg!(test) { 3 } else { within(processors, getrlimit(Resource::Data).current) }
}

fn within(processors: usize, bytes: Option<u64>) -> usize {
    let by_memory =
        bytes.and_then(|bytes| usize::try_from(bytes / BYTES_PER_THREAD).ok()).unwrap_or(usize::MAX);
    processors.min(by_memory).clamp(1, THREADS_MAX)
}

/// Begins the hash of the span that begins at `offset`, a multiple of [`SPAN_BYTES`].
pub(super) fn hasher(offset: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The hash of a file out of those of its spans, of which there are two at least.
pub(super) fn together(spans: &[ChainingValue]) -> ContentId {
    let (one, other) = spans.split_at(half(spans.len()));
    ContentId::new(merge_subtrees_root(&merged(one), &merged(other), Mode::Hash).into())
}

fn merged(spans: &[ChainingValue]) -> ChainingValue {
    match spans {
        [one] => *one,
        all => {
            let (one, other) = all.split_at(half(all.len()));
            merge_subtrees_non_root(&merged(one), &merged(other), Mode::Hash)
        }
    }
}

/// How many of so many spans are in the left half of the tree: a power of two, and less than all.
fn half(spans: usize) -> usize {
    spans.next_power_of_two() / 2
}

/// Hashes a long file of this size, and counts its bytes. `None` where no second thread is of use, or may be started.
pub(super) fn hash(file: &File, size: u64) -> Option<Result<(ContentId, u64), Fault>> {
    let (threads, count) = (threads(), count(size));
    if threads < 2 || count < 2 {
        return None;
    }
    let next = AtomicU64::new(0);
    let work = || -> Result<Vec<(u64, u64, ChainingValue)>, Fault> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            let offset = number * SPAN_BYTES as u64;
            let mut hasher = hasher(offset);
            read::pieces(file, offset, SPAN_BYTES as u64, |piece| {
                hasher.update(piece);
                Ok(())
            })?;
            let bytes = hasher.count();
            if bytes == 0 {
                // It got shorter.
                return Ok(done);
            }
            done.push((number, bytes, hasher.finalize_non_root()));
        }
    };
    let mut spans = thread::scope(|scope| {
        let begin = |_| Builder::new().name("hash".to_owned()).spawn_scoped(scope, work).ok();
        let begun: Vec<_> = (1..threads).map_while(begin).collect();
        let mut spans = work()?;
        for thread in begun {
            spans.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(spans)
    });
    if let Ok(spans) = &mut spans {
        spans.sort_unstable_by_key(|(number, ..)| *number);
    }
    Some(spans.and_then(|spans| {
        let longer = file.read_at(&mut [0], size)? as u64;
        let bytes = longer + spans.iter().map(|(_, bytes, _)| bytes).sum::<u64>();
        let hashes: Vec<ChainingValue> = spans.into_iter().map(|(.., hash)| hash).collect();
        // Of one that got shorter it is not asked for.
        let id = if bytes == size { together(&hashes) } else { ContentId::of(b"") };
        Ok((id, bytes))
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn where_little_memory_may_be_had_fewer_threads_work() {
        let gib = 1 << 30;
        for (processors, bytes, threads) in [
            (1, None, 1),
            (2, None, 2),
            (64, None, 8),
            (8, Some(gib), 8),
            (8, Some(gib / 4), 4),
            (8, Some(gib / 16), 1),
            (8, Some(1), 1),
            (8, Some(u64::MAX), 8),
        ] {
            assert_eq!(within(processors, bytes), threads, "{processors} {bytes:?}");
        }
    }

    #[test]
    fn the_hash_of_a_long_file_is_that_of_its_bytes_and_one_of_another_length_is_counted() {
        let mut all = vec![0; 9 * SPAN_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut all);
        for len in [1, 2, 3, 4, 5, 7, 8, 9].map(|spans| spans * SPAN_BYTES) {
            for len in [len - 1, len, len + 1] {
                let bytes = &all[..len.min(all.len())];
                let mut file = tempfile::tempfile().expect("a file");
                file.write_all(bytes).expect("written");
                let size = bytes.len() as u64;
                match hash(&file, size) {
                    None => assert!(count(size) < 2, "{len}"),
                    Some(hashed) => assert_eq!(hashed, Ok((ContentId::of(bytes), size)), "{len}"),
                }
                for other in [size + 1, 2 * size, size.saturating_sub(1)] {
                    if let Some(hashed) = hash(&file, other) {
                        assert_ne!(hashed.expect("read").1, other, "{len} {other}");
                    }
                }
            }
        }
    }
}
