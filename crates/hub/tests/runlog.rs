//! Run output on disk against a model that is a list of bytes: what is read is what was written,
//! or a mark; a torn tail costs the tail; a flipped bit is never shown.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use cortex_core::id::RunId;
use cortex_core::stream::{Positions, Stream};
use cortex_hub::runlog::{Bounds, Chunk, RunLog, RunLogs, Sink, Space};
use proptest::prelude::*;

#[derive(Default)]
struct Heard {
    progress: Mutex<(u64, u64)>,
    changed: tokio::sync::Notify,
}

impl Sink for Heard {
    fn written(&self, _: RunId, position: u64) {
        self.progress.lock().expect("not poisoned").0 = position;
    }

    fn synced(&self, _: RunId, position: u64) {
        self.progress.lock().expect("not poisoned").1 = position;
        self.changed.notify_one();
    }
}

impl Heard {
    async fn synced(&self, position: u64) {
        let all = async {
            while self.progress.lock().expect("not poisoned").1 < position {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), all).await.expect("synced in time");
    }
}

fn run() -> RunId {
    RunId::mint(1, &[3; 10])
}

fn sink(heard: &Arc<Heard>) -> Weak<dyn Sink> {
    let heard: Weak<Heard> = Arc::downgrade(heard);
    heard
}

fn file(dir: &Path) -> PathBuf {
    file_of(dir, run())
}

fn file_of(dir: &Path, run: RunId) -> PathBuf {
    let name = run.to_string();
    dir.join(&name[name.len() - 2..]).join(format!("{name}.log"))
}

/// Both streams in their common order, lost bytes as zeros with `None`.
async fn read_all(log: &RunLog, from: u64, step: usize) -> Vec<Option<(Stream, u8)>> {
    let mut bytes = Vec::new();
    let mut position = from;
    loop {
        let chunks = log.read(position, step).await.expect("readable");
        if chunks.is_empty() {
            return bytes;
        }
        for chunk in chunks {
            let begin = std::mem::replace(&mut position, chunk.end().total());
            assert!(position > begin, "reading goes on");
            match chunk {
                Chunk::Output { stream, data, at } => {
                    assert_eq!(at.total(), begin, "chunks follow one another");
                    bytes.extend(data.iter().map(|byte| Some((stream, *byte))))
                }
                Chunk::Lost { to, .. } => bytes.extend((begin..to.total()).map(|_| None)),
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(bool, usize, u8),
    Lose(u64),
    Settle,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<bool>(), prop_oneof![1usize..40, 3000usize..70_000], any::<u8>())
            .prop_map(|(out, len, seed)| Step::Write(out, len, seed)),
        1 => (1u64..5_000).prop_map(Step::Lose),
        1 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_is_read_is_what_was_written(steps in steps(), from in 0.0f64..1.0) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(follow_model(steps, from));
    }
}

async fn follow_model(steps: Vec<Step>, from: f64) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = RunLogs::open(dir.path()).expect("opened");
    let heard = Arc::new(Heard::default());
    let mut log = logs.create(run(), sink(&heard));
    let mut model: Vec<Option<(Stream, u8)>> = Vec::new();
    for step in steps {
        match step {
            Step::Write(out, len, seed) => {
                let stream = if out { Stream::Stdout } else { Stream::Stderr };
                let data: Vec<u8> =
                    (0..len).map(|n| seed.wrapping_mul(31).wrapping_add((n / 7) as u8)).collect();
                model.extend(data.iter().map(|byte| Some((stream, *byte))));
                log.append(stream, Bytes::from(data));
            }
            Step::Lose(bytes) => {
                let mut to = log.end();
                to.stdout += bytes;
                log.mark(to);
                model.extend((0..bytes).map(|_| None));
            }
            Step::Settle => settle(&log, &heard).await,
            Step::Reopen => {
                settle(&log, &heard).await;
                log = logs.recover(run(), sink(&heard)).await.expect("recovered");
            }
        }
        assert_eq!(log.end().total(), model.len() as u64);
    }
    let begin = (model.len() as f64 * from) as usize;
    assert!(read_all(&log, begin as u64, 10_000).await == model[begin..], "while it is written");
    settle(&log, &heard).await;
    let kept = logs.kept(run()).await.expect("kept");
    assert!(read_all(&kept, 0, 100_000).await == model, "when it is kept");
}

async fn settle(log: &Arc<RunLog>, heard: &Heard) {
    log.finish();
    heard.synced(log.end().total()).await;
}

/// A file of three blocks: text that shrinks, noise, and a mark.
async fn small_file(dir: &Path) -> (Vec<u8>, Vec<Option<(Stream, u8)>>) {
    let logs = RunLogs::open(dir).expect("opened");
    let heard = Arc::new(Heard::default());
    let log = logs.create(run(), sink(&heard));
    log.append(Stream::Stdout, Bytes::from("all work and no play ".repeat(20)));
    settle(&log, &heard).await;
    log.append(Stream::Stderr, Bytes::from_static(b"\x01\x99noise"));
    settle(&log, &heard).await;
    log.mark(Positions { stdout: 500, stderr: 7 });
    settle(&log, &heard).await;
    (std::fs::read(file(dir)).expect("file"), read_all(&log, 0, 1_000).await)
}

#[tokio::test]
async fn a_tail_torn_at_any_byte_leaves_a_prefix_and_the_log_goes_on() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (bytes, whole) = small_file(dir.path()).await;
    let logs = RunLogs::open(dir.path()).expect("opened");
    let heard = Arc::new(Heard::default());
    let mut ends = std::collections::BTreeSet::new();
    for len in 0..=bytes.len() {
        std::fs::write(file(dir.path()), &bytes[..len]).expect("torn");
        let log = logs.recover(run(), sink(&heard)).await.expect("recovered");
        let end = usize::try_from(log.end().total()).expect("small");
        assert!(read_all(&log, 0, 1_000).await == whole[..end], "torn at {len}");
        ends.insert(end);
    }
    assert_eq!(ends.len(), 4, "no block, one, two, three");
}

#[tokio::test]
async fn a_flipped_bit_is_never_shown() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (bytes, whole) = small_file(dir.path()).await;
    let logs = RunLogs::open(dir.path()).expect("opened");
    let mark_at = bytes.len() - 64;
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        std::fs::write(file(dir.path()), &flipped).expect("flipped");
        let log = logs.kept(run()).await.expect("kept");
        let read = read_all(&log, 0, 1_000).await;
        let wrong = read.iter().zip(&whole).any(|(read, wrote)| read.is_some() && read != wrote);
        assert!(!wrong, "byte {at} shows what was not written");
        // A damaged mark is a mark.
        assert!(read != whole || at >= mark_at, "byte {at} is noticed");
    }
}

#[tokio::test]
async fn output_beyond_memory_is_read_back_from_disk() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = RunLogs::open(dir.path()).expect("opened");
    let heard = Arc::new(Heard::default());
    let log = logs.create(run(), sink(&heard));
    let frame: Vec<u8> = (0..65_536u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for _ in 0..16 {
        (0..4).for_each(|_| log.append(Stream::Stdout, Bytes::from(frame.clone())));
        log.written().await;
    }
    let read = read_all(&log, 0, 128 * 1024).await;
    assert_eq!(read.len(), 64 * 65_536);
    assert!(
        read.chunks(65_536)
            .all(|part| part.iter().zip(&frame).all(|(read, wrote)| *read == Some((Stream::Stdout, *wrote))))
    );
    logs.remove(&[run()]).await.expect("removed");
    assert!(!file(dir.path()).exists());
}

#[tokio::test]
async fn many_small_blocks_are_read_from_anywhere_and_a_damaged_one_costs_its_neighbours_at_most() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = RunLogs::open(dir.path()).expect("opened");
    let heard = Arc::new(Heard::default());
    let log = logs.create(run(), sink(&heard));
    let mut model = Vec::new();
    for n in 0..300u32 {
        let line = format!("line {n}\n");
        model.extend(line.bytes().map(|byte| Some((Stream::Stdout, byte))));
        log.append(Stream::Stdout, Bytes::from(line));
        log.finish();
        log.written().await;
    }
    heard.synced(log.end().total()).await;
    let kept = logs.kept(run()).await.expect("kept");
    for from in (0..model.len()).step_by(97) {
        assert!(read_all(&kept, from as u64, 50).await == model[from..], "from {from}");
        assert!(read_all(&log, from as u64, 100_000).await == model[from..], "from {from}, at once");
    }
    let mut bytes = std::fs::read(file(dir.path())).expect("file");
    let middle =
        bytes.windows(4).enumerate().filter(|(_, magic)| magic == b"CXL1").nth(100).expect("a block").0;
    bytes[middle] ^= 1;
    std::fs::write(file(dir.path()), bytes).expect("damaged");
    let read = read_all(&kept, 0, 1_000).await;
    assert_eq!(read.len(), model.len());
    let lost = read.iter().filter(|byte| byte.is_none()).count();
    assert!(lost > 0 && lost < 64 * 9, "{lost}");
    assert!(read.iter().zip(&model).all(|(read, wrote)| read.is_none() || read == wrote));
}

/// Files that nobody can open until somebody writes to them: a disk that hangs.
struct Hanging(Vec<PathBuf>);

impl Hanging {
    fn new(dir: &Path, runs: &[RunId]) -> Self {
        let paths = runs.iter().map(|run| {
            let path = file_of(dir, *run);
            std::fs::create_dir_all(path.parent().expect("a shelf")).expect("made");
            let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
            assert!(made.success());
            path
        });
        Self(paths.collect())
    }
}

impl Drop for Hanging {
    /// Lets go whoever waits, or the runtime would wait for it.
    fn drop(&mut self) {
        for path in &self.0 {
            let opened = std::fs::OpenOptions::new().read(true).write(true).open(path);
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(500));
                drop(opened);
            });
        }
    }
}

#[tokio::test]
async fn a_disk_that_hangs_keeps_readers_no_longer_than_their_deadline_and_writers_not_at_all() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let short = std::time::Duration::from_millis(300);
    let logs = RunLogs::with(dir.path(), Bounds { read_max: short, ..Bounds::default() }).expect("opened");
    let hung: Vec<RunId> = (0..8).map(|n| RunId::mint(2, &[n; 10])).collect();
    let _hanging = Hanging::new(dir.path(), &hung);
    for run in &hung {
        let began = std::time::Instant::now();
        // Its caller goes away; the work cannot.
        assert!(tokio::time::timeout(short / 10, logs.kept(*run)).await.is_err(), "it hangs");
        assert!(began.elapsed() < short);
    }
    let soon = std::time::Duration::from_secs(5);
    let late = tokio::time::timeout(soon, logs.kept(run())).await.expect("told in time");
    assert_eq!(late.expect_err("all readers hang").code, cortex_core::Code::StoreUnavailable);
    let heard = Arc::new(Heard::default());
    let log = logs.create(run(), sink(&heard));
    log.append(Stream::Stdout, Bytes::from_static(b"written all the same"));
    settle(&log, &heard).await;
}

#[tokio::test]
async fn output_beyond_what_is_kept_of_a_run_is_acknowledged_and_one_mark_says_so() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = RunLogs::with(dir.path(), Bounds { run_bytes: 1_000, ..Bounds::default() }).expect("opened");
    let heard = Arc::new(Heard::default());
    let mut log = logs.create(run(), sink(&heard));
    let mut lens = Vec::new();
    for round in 0..20u64 {
        log.append(Stream::Stdout, Bytes::from(vec![b'x'; 600]));
        log.append(Stream::Stderr, Bytes::from(vec![b'y'; 100]));
        settle(&log, &heard).await;
        assert_eq!(log.end(), Positions { stdout: 600 * (round + 1), stderr: 100 * (round + 1) });
        lens.push(std::fs::metadata(file(dir.path())).expect("the file").len());
        if round == 10 {
            log = logs.recover(run(), sink(&heard)).await.expect("taken up");
        }
    }
    assert_eq!(lens[1], lens[19], "the file stays as it is: {lens:?}");
    let kept = logs.kept(run()).await.expect("kept");
    let read = read_all(&kept, 0, 100_000).await;
    assert_eq!(read.len(), 14_000);
    assert!(read[..1_000].iter().all(Option::is_some) && read[1_000..].iter().all(Option::is_none));
    assert!(read_all(&kept, 9_999, 100).await.iter().all(Option::is_none), "from within the mark");
    let marks = kept.read(1_000, 100_000).await.expect("readable");
    assert!(matches!(&marks[..], [Chunk::Lost { to, .. }] if to.total() == 14_000), "{marks:?}");
}

static FREE_MIB: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[tokio::test]
async fn a_disk_short_of_room_takes_no_output_but_the_last_of_runs_that_have_ended() {
    let space = |_: &Path| {
        let free = FREE_MIB.load(std::sync::atomic::Ordering::SeqCst) << 20;
        Ok(Space { free, total: 1 << 40 })
    };
    let free = |mib| FREE_MIB.store(mib, std::sync::atomic::Ordering::SeqCst);
    let dir = tempfile::tempdir().expect("temporary directory");
    let logs = RunLogs::with(dir.path(), Bounds { space, ..Bounds::default() }).expect("opened");
    let waits = async |heard: &Heard, log: &RunLog| {
        let short = std::time::Duration::from_millis(900);
        tokio::time::timeout(short, heard.synced(log.end().total())).await.is_err()
    };
    let (heard, ended) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let log = logs.create(run(), sink(&heard));
    let done = logs.create(RunId::mint(2, &[4; 10]), sink(&ended));
    free(255);
    log.append(Stream::Stdout, Bytes::from_static(b"held back"));
    done.append(Stream::Stdout, Bytes::from_static(b"the last of a run"));
    assert!(waits(&heard, &log).await, "nothing is written");
    assert!(!file(dir.path()).exists());
    assert!(logs.space().await.is_some_and(|space| space.is_short()));
    settle(&done, &ended).await;
    done.append(Stream::Stdout, Bytes::from_static(b" and more"));
    free(127);
    assert!(waits(&ended, &done).await, "the rest is the store's");
    free(256);
    settle(&done, &ended).await;
    settle(&log, &heard).await;
    assert!(logs.space().await.is_some_and(|space| !space.is_short()));
}
