//! Writes content into staging beside the thread that receives it, so that what comes next is read and verified
//! while the disk has this. What little there is, is written at once.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use cortex_core::error::{Code, Refusal};
use nix::sys::stat::Mode;

use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;
use super::modes;

/// From so many bytes on there is a thread.
const ALONE_BYTES_MAX: usize = 1024 * 1024;
/// Files and chunks are handed over in batches of about so many bytes, or of so many.
const BATCH: (usize, usize) = (128 * 1024, 256);
/// Batches that are on their way there and back, each with one chunk more than its bytes at most: 9 MiB. Full:
/// whoever hands over waits until one is back, so that nobody else ever waits for room.
const BATCHES_MAX: usize = 8;

/// Something to be written.
pub(super) enum Job {
    /// A whole file, with all that it is to have.
    Whole { item: u32, dir: Arc<Dir>, name: Box<[u8]>, bytes: Bytes, exec: bool, mtime_ns: Option<i64> },
    /// A chunk of a long file, and its number there.
    Chunk { item: u32, number: u32, file: Arc<File>, offset: u64, bytes: Bytes },
}

/// What was written.
pub(super) enum Wrote {
    /// A whole file: what is known of it.
    Whole(Stat),
    /// This chunk of a long file.
    Chunk { number: u32, file: Arc<File>, len: usize },
}

/// Of which item, and how that went.
pub(super) type Done = (u32, Result<Wrote, Fault>);

/// Whoever writes.
pub(super) struct Beside {
    /// How the thread is begun; `None` where none may be.
    start: fn() -> Option<Thread>,
    batch: Vec<Job>,
    batch_bytes: usize,
    /// Bytes that were handed in, of all batches.
    bytes: usize,
    thread: Option<Thread>,
    /// What was done and not told.
    done: VecDeque<Done>,
}

impl Default for Beside {
    fn default() -> Self {
        let (batch, done) = (Vec::new(), VecDeque::new());
        Self { start: Thread::start, batch, batch_bytes: 0, bytes: 0, thread: None, done }
    }
}

struct Thread {
    /// `None` once it is to end.
    jobs: Option<SyncSender<Vec<Job>>>,
    done: Receiver<Vec<Done>>,
    /// Batches that were handed over and not heard of.
    out: usize,
    handle: Option<JoinHandle<()>>,
}

impl Beside {
    /// Has it written, at the latest when [`Self::finish`] is called.
    ///
    /// # Errors
    /// `internal` when the thread ended.
    pub(super) fn put(&mut self, job: Job) -> Result<(), Refusal> {
        self.batch_bytes += job.len();
        self.batch.push(job);
        if self.batch_bytes >= BATCH.0 || self.batch.len() >= BATCH.1 { self.hand_over() } else { Ok(()) }
    }

    /// The next that was done, if any is.
    ///
    /// # Errors
    /// `internal` when the thread ended.
    pub(super) fn done(&mut self) -> Result<Option<Done>, Refusal> {
        if self.done.is_empty() && self.thread.as_ref().is_some_and(|thread| thread.out > 0) {
            self.hear(false)?;
        }
        Ok(self.done.pop_front())
    }

    /// The next that is done; waits until then. `None` when nothing is left.
    ///
    /// # Errors
    /// `internal` when the thread ended.
    pub(super) fn finish(&mut self) -> Result<Option<Done>, Refusal> {
        self.hand_over()?;
        if self.done.is_empty() && self.thread.as_ref().is_some_and(|thread| thread.out > 0) {
            self.hear(true)?;
        }
        Ok(self.done.pop_front())
    }

    fn hand_over(&mut self) -> Result<(), Refusal> {
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(std::mem::take(&mut self.batch_bytes));
        if self.thread.is_none() && self.bytes > ALONE_BYTES_MAX {
            // Where no thread may be started, it is done here.
            self.thread = (self.start)();
        }
        while self.thread.as_ref().is_some_and(|thread| thread.out == BATCHES_MAX) {
            self.hear(true)?;
        }
        match &mut self.thread {
            Some(thread) => thread.take(batch),
            None => {
                self.done.extend(batch.into_iter().map(Job::run));
                Ok(())
            }
        }
    }

    fn hear(&mut self, waits: bool) -> Result<(), Refusal> {
        let Some(thread) = &mut self.thread else { return Ok(()) };
        let heard = if waits { thread.done.recv().ok() } else { thread.done.try_recv().ok() };
        match heard {
            Some(done) => {
                thread.out -= 1;
                self.done.extend(done);
                Ok(())
            }
            None if waits => Err(ended()),
            None => Ok(()),
        }
    }
}

impl Thread {
    fn start() -> Option<Self> {
        let (jobs, for_thread) = sync_channel::<Vec<Job>>(BATCHES_MAX);
        let (tell, done) = sync_channel(BATCHES_MAX);
        let work = move || {
            while let Ok(batch) = for_thread.recv() {
                let batch: Vec<Done> = batch.into_iter().map(Job::run).collect();
                if tell.send(batch).is_err() {
                    return;
                }
            }
        };
        let handle = thread::Builder::new().name("apply-write".to_owned()).spawn(work).ok()?;
        Some(Self { jobs: Some(jobs), done, out: 0, handle: Some(handle) })
    }

    fn take(&mut self, batch: Vec<Job>) -> Result<(), Refusal> {
        self.out += 1;
        self.jobs.as_ref().and_then(|jobs| jobs.send(batch).ok()).ok_or_else(ended)
    }
}

impl Drop for Thread {
    /// Nothing is written any more afterwards.
    fn drop(&mut self) {
        drop(self.jobs.take());
        let _panicked = self.handle.take().map(JoinHandle::join);
    }
}

impl Job {
    fn len(&self) -> usize {
        match self {
            Self::Whole { bytes, .. } | Self::Chunk { bytes, .. } => bytes.len(),
        }
    }

    fn run(self) -> Done {
        match self {
            Self::Whole { item, dir, name, bytes, exec, mtime_ns } => {
                let written = whole(&dir, &name, &bytes, exec, mtime_ns);
                (item, written.map(Wrote::Whole))
            }
            Self::Chunk { item, number, file, offset, bytes } => {
                let written = file.write_all_at(&bytes, offset).map_err(Fault::from);
                (item, written.map(|()| Wrote::Chunk { number, file, len: bytes.len() }))
            }
        }
    }
}

fn whole(dir: &Dir, name: &[u8], bytes: &[u8], exec: bool, mtime_ns: Option<i64>) -> Result<Stat, Fault> {
    // Nobody else gets into staging, so that it may have its mode from the beginning.
    let create = || dir.create_with(name, Mode::from_bits_truncate(modes::of(exec).into()));
    let mut file = match create() {
        // A try before staged it, and the disk has spoilt it.
        Err(fault) if fault.is_taken() => {
            dir.unlink(name)?;
            create()?
        }
        made => made?,
    };
    file.write_all(bytes)?;
    modes::dress(&file, exec, mtime_ns)
}

fn ended() -> Refusal {
    Refusal::new(Code::Internal, "Writing what was received met a defect.")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use cortex_core::files::path::RelPath;

    use super::super::super::beneath::Follow;
    use super::super::super::support::{Scene, on_small_disk};
    use super::*;

    fn dir(scene: &Scene) -> Arc<Dir> {
        Arc::new(scene.root.dir(&RelPath::root(), Follow::Never).expect("a folder"))
    }

    fn job(dir: &Arc<Dir>, item: u32, bytes: Vec<u8>) -> Job {
        let (dir, name) = (Arc::clone(dir), format!("ملف {item}").into_bytes().into());
        Job::Whole { item, dir, name, bytes: bytes.into(), exec: item == 1, mtime_ns: Some(1_000_000_007) }
    }

    fn all(beside: &mut Beside) -> Vec<(u32, bool)> {
        let mut done = Vec::new();
        while let Some((item, wrote)) = beside.finish().expect("it lives") {
            done.push((item, wrote.is_ok()));
        }
        done
    }

    #[test]
    fn little_is_written_without_a_thread_and_much_beside_in_order_and_all_of_it() {
        let scene = Scene::new();
        let (dir, mut beside) = (dir(&scene), Beside::default());
        beside.put(job(&dir, 0, Vec::new())).expect("taken");
        beside.put(job(&dir, 1, vec![1; 9])).expect("taken");
        assert!(beside.done().expect("it lives").is_none(), "a batch is not full");
        assert_eq!(all(&mut beside), [(0, true), (1, true)]);
        assert!(beside.thread.is_none());
        let long = Arc::new(File::create(scene.disk("long")).expect("made"));
        for item in 2..200_u32 {
            let bytes = vec![item as u8; 100_000];
            let offset = u64::from(item - 2) * 100_000;
            let (number, file, chunk) = (item, Arc::clone(&long), bytes.clone().into());
            beside.put(job(&dir, item, bytes)).expect("taken");
            beside.put(Job::Chunk { item: 1_000, number, file, offset, bytes: chunk }).expect("taken");
        }
        assert!(beside.thread.is_some());
        let done = all(&mut beside);
        assert!(done.iter().all(|(_, is_well)| *is_well));
        let items: Vec<u32> = done.iter().map(|(item, _)| *item).collect();
        assert_eq!(items, (2..200).flat_map(|item| [item, 1_000]).collect::<Vec<_>>());
        for item in 2..200_u32 {
            assert!(
                fs::read(scene.disk(&format!("ملف {item}"))).expect("there") == vec![item as u8; 100_000]
            );
        }
        assert_eq!(fs::metadata(scene.disk("long")).expect("there").len(), 198 * 100_000);
        let about = |item: u32| fs::metadata(scene.disk(&format!("ملف {item}"))).expect("there");
        assert_eq!([0, 1, 9].map(|item| about(item).permissions().mode() & 0o7777), [0o644, 0o755, 0o644]);
    }

    #[test]
    fn what_cannot_be_written_is_told_of_each_and_the_rest_goes_on() {
        let scene = Scene::new();
        let (dir, mut beside) = (dir(&scene), Beside::default());
        fs::create_dir(scene.disk("ملف 4")).expect("made");
        scene.write("ملف 2", "spoilt");
        for item in [1, 2, 4, 3] {
            beside.put(job(&dir, item, vec![7; 400_000])).expect("taken");
        }
        assert_eq!(all(&mut beside), [(1, true), (2, true), (4, false), (3, true)]);
        assert!(fs::read(scene.disk("ملف 2")).expect("there") == vec![7; 400_000]);
        on_small_disk("4m", |scene| {
            let (dir, mut beside) = (self::dir(scene), Beside::default());
            (0..100).for_each(|item| beside.put(job(&dir, item, vec![7; 400_000])).expect("taken"));
            let done = all(&mut beside);
            assert!(done[0].1 && !done[99].1 && done.len() == 100, "the disk is full in the middle");
        });
    }

    #[test]
    fn where_no_thread_may_be_started_all_is_written_without_it() {
        let scene = Scene::new();
        let (dir, mut beside) = (dir(&scene), Beside { start: || None, ..Beside::default() });
        fs::create_dir(scene.disk("ملف 7")).expect("made");
        let mut told = Vec::new();
        for item in 0..60 {
            beside.put(job(&dir, item, vec![item as u8; 400_000])).expect("taken");
            told.extend(std::iter::from_fn(|| beside.done().expect("it lives")));
            assert_eq!(told.len(), item as usize + 1, "nothing waits");
        }
        assert!(beside.thread.is_none() && all(&mut beside).is_empty());
        let told: Vec<(u32, bool)> = told.into_iter().map(|(item, wrote)| (item, wrote.is_ok())).collect();
        assert_eq!(told, (0..60).map(|item| (item, item != 7)).collect::<Vec<_>>());
        for item in (0..60_u32).filter(|item| *item != 7) {
            assert!(
                fs::read(scene.disk(&format!("ملف {item}"))).expect("there") == vec![item as u8; 400_000]
            );
        }
    }

    #[test]
    fn nothing_is_written_any_more_once_it_is_dropped() {
        let scene = Scene::new();
        let (dir, mut beside) = (dir(&scene), Beside::default());
        (0..60).for_each(|item| beside.put(job(&dir, item, vec![7; 400_000])).expect("taken"));
        drop(beside);
        let count = || fs::read_dir(scene.disk("")).expect("there").count();
        let there = count();
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert_eq!((count(), there), (60, 60));
    }
}
