//! A disk that says no at a named point.
#![cfg(feature = "failpoints")]

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::id::RunId;
use cortex_core::stream::Stream;
use cortex_hub::files;
use cortex_hub::runlog::{RunLog, RunLogs, Sink};
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
