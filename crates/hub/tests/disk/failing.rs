//! A disk that says no at a named point.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::id::RunId;
use cortex_core::stream::Stream;
use cortex_hub::files;
use cortex_hub::runlog::{Chunk, RunLog, RunLogs, Sink};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(10);

/// How far a log is safe.
struct Heard(watch::Sender<u64>);

impl Sink for Heard {
    fn written(&self, _: RunId, _: u64) {}

    fn synced(&self, _: RunId, position: u64) {
        self.0.send_replace(position);
    }
}

impl Heard {
    fn new() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(0)))
    }

    async fn synced(&self, log: &RunLog) {
        let (mut safe, end) = (self.0.subscribe(), log.end().total());
        let reached = tokio::time::timeout(SOON, safe.wait_for(|position| *position >= end)).await;
        reached.expect("synced in time").expect("the sink lives");
    }
}

fn sink(heard: &Arc<Heard>) -> Weak<dyn Sink> {
    let heard: Weak<Heard> = Arc::downgrade(heard);
    heard
}

fn run() -> RunId {
    RunId::mint(1, &[3; 10])
}

fn file(dir: &Path) -> PathBuf {
    let name = run().to_string();
    dir.join(&name[name.len() - 2..]).join(format!("{name}.log"))
}

#[tokio::test]
async fn output_whose_sync_failed_is_written_again_and_not_merely_synced_again() {
    for known in [false, true] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (logs, heard) = (RunLogs::open(dir.path()).expect("opened"), Heard::new());
        let log = logs.create(run(), sink(&heard));
        if known {
            log.append(Stream::Stdout, Bytes::from_static(b"before; "));
            log.finish();
            heard.synced(&log).await;
        }
        let (long_ago, path) = (SystemTime::UNIX_EPOCH + SOON, file(dir.path()));
        fail::cfg("hub::log_sync", "return").expect("a failpoint");
        log.append(Stream::Stdout, Bytes::from_static(b"output"));
        tokio::time::timeout(SOON, log.written()).await.expect("written");
        std::fs::File::open(&path).expect("it is there").set_modified(long_ago).expect("set");
        log.finish();
        let written_again = async {
            let unchanged =
                || path.metadata().and_then(|file| file.modified()).is_ok_and(|at| at == long_ago);
            while unchanged() && !path.with_extension("partial").exists() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, written_again).await.expect("it is written again");
        fail::cfg("hub::log_sync", "off").expect("a failpoint");
        heard.synced(&log).await;
        let log = logs.recover(run(), sink(&heard)).await.expect("taken up");
        let read = log.read(log.end().total() - 6, 100).await.expect("read");
        assert!(matches!(&read[..], [Chunk::Output { data, .. }] if data == "output"), "{read:?}");
        assert_eq!(std::fs::read_dir(path.parent().expect("a shelf")).expect("readable").count(), 1);
    }
}

#[tokio::test]
async fn a_block_that_the_disk_lost_when_its_sync_failed_is_a_mark_and_what_follows_is_kept() {
    for known in [0, 8] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (logs, heard) = (RunLogs::open(dir.path()).expect("opened"), Heard::new());
        let log = logs.create(run(), sink(&heard));
        if known > 0 {
            log.append(Stream::Stdout, Bytes::from_static(b"before; "));
            log.finish();
            heard.synced(&log).await;
        }
        let path = file(dir.path());
        let begin = path.metadata().map_or(0, |file| file.len());
        fail::cfg("hub::log_sync", "return").expect("a failpoint");
        log.append(Stream::Stdout, Bytes::from_static(b"output"));
        tokio::time::timeout(SOON, log.written()).await.expect("written");
        // What is left of a page that could not be written.
        let bytes = std::fs::read(&path).expect("readable");
        let begin = usize::try_from(begin).expect("small");
        let gone = [&bytes[..begin], &vec![0; bytes.len() - begin]].concat();
        std::fs::write(&path, gone).expect("written");
        log.finish();
        // Longer than the wait before the next try.
        let heard_early = tokio::time::timeout(Duration::from_millis(300), heard.synced(&log)).await;
        assert!(heard_early.is_err(), "nothing is safe while syncs fail");
        fail::cfg("hub::log_sync", "off").expect("a failpoint");
        heard.synced(&log).await;
        log.append(Stream::Stdout, Bytes::from_static(b"; behind"));
        heard.synced(&log).await;
        let log = logs.recover(run(), sink(&heard)).await.expect("taken up");
        assert_eq!(log.end().stdout, known + 14, "all that was told as safe is there");
        let lost = log.read(known, 100).await.expect("read");
        assert!(matches!(&lost[..], [Chunk::Lost { to, .. }, ..] if to.stdout == known + 6), "{lost:?}");
        let behind = log.read(known + 6, 100).await.expect("read");
        assert!(matches!(&behind[..], [Chunk::Output { data, .. }] if data == "; behind"), "{behind:?}");
    }
}

#[tokio::test]
async fn a_log_that_is_taken_up_is_safe_only_with_its_name_in_the_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let logs = RunLogs::open(dir.path()).expect("opened");
    let heard = Heard::new();
    let log = logs.create(run(), sink(&heard));
    log.append(Stream::Stdout, Bytes::from_static(b"written, and its hub was killed"));
    log.finish();
    heard.synced(&log).await;
    fail::cfg("hub::sync_dir", "return").expect("a failpoint");
    let refused = logs.recover(run(), sink(&heard)).await.expect_err("its name is not safe");
    assert_eq!(refused.code, Code::StoreUnavailable);
    fail::cfg("hub::sync_dir", "off").expect("a failpoint");
    let log = logs.recover(run(), sink(&heard)).await.expect("the disk is well again");
    assert_eq!(log.end().stdout, 31);
}

#[test]
fn a_directory_that_is_made_is_synced_into_the_one_above() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fail::cfg("hub::sync_dir", "return").expect("a failpoint");
    files::private_dir(&dir.path().join("a")).expect_err("its name is not safe");
    fail::cfg("hub::sync_dir", "off").expect("a failpoint");
    files::private_dir(&dir.path().join("a/b/c")).expect("made");
    files::private_dir(&dir.path().join("a/b/c")).expect("it is there");
}
