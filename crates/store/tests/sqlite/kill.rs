//! kill -9 at any moment: what was acknowledged is stored.

use std::hash::{BuildHasher, Hasher, RandomState};

use tempfile::TempDir;

use crate::child::{Said, Task, rounds, serve_if_child, stored};

#[test]
fn acknowledged_writes_survive_kill_9() {
    serve_if_child(|| {});
    let mut dir = TempDir::new().expect("a temporary directory");
    let mut acked = std::collections::BTreeSet::new();
    for round in 0..rounds(6) {
        // Each round reads all that is there: what grows without end takes long.
        if round % 20 == 19 {
            dir = TempDir::new().expect("a temporary directory");
            acked.clear();
        }
        let task = Task { dir: dir.path(), first: round * 1_000_000 + 1, count: 100_000, callers: 8 };
        let enough = usize::try_from(RandomState::new().build_hasher().finish() % 300).expect("small");
        let mut child = task.start("kill::acknowledged_writes_survive_kill_9", &[]);
        let said = Said::read(&mut child, |child, said| {
            if said.acked.len() == enough + 1 {
                child.kill().expect("it can be killed");
            }
        });
        let status = child.wait().expect("it ended");
        assert!(!status.success(), "it was killed and did not end by itself");
        assert!(said.failed.is_empty(), "{:?}", said.failed);
        acked.extend(&said.acked);
        let stored = stored(dir.path());
        assert!(acked.is_subset(&stored), "lost: {:?}", acked.difference(&stored).collect::<Vec<_>>());
        assert!(said.heard.is_subset(&stored), "heard of writes that are not stored");
    }
}

#[cfg(feature = "failpoints")]
#[test]
fn acknowledged_writes_survive_an_abort_at_every_failpoint() {
    use std::os::unix::process::ExitStatusExt;
    use std::sync::atomic::{AtomicU64, Ordering};
    const POINT: &str = "CORTEX_STORE_CHILD_POINT";
    const NTH: &str = "CORTEX_STORE_CHILD_NTH";

    serve_if_child(|| {
        let nth: u64 = std::env::var(NTH).expect("the parent says").parse().expect("a number");
        let hits = AtomicU64::new(0);
        fail::cfg_callback(std::env::var(POINT).expect("the parent says"), move || {
            if hits.fetch_add(1, Ordering::Relaxed) == nth {
                std::process::abort();
            }
        })
        .expect("a failpoint");
    });
    for point in ["store::before_commit", "store::after_commit", "store::before_answer"] {
        for round in 0..rounds(4) {
            let dir = TempDir::new().expect("a temporary directory");
            let task = Task { dir: dir.path(), first: round * 1_000_000 + 1, count: 100_000, callers: 8 };
            let mut child = task.start(
                "kill::acknowledged_writes_survive_an_abort_at_every_failpoint",
                &[(POINT, point.to_owned()), (NTH, (round * 7 % 150).to_string())],
            );
            let said = Said::read(&mut child, |_, _| {});
            let status = child.wait().expect("it ended");
            assert_eq!(status.signal(), Some(6), "{point}: it aborted there");
            let stored = stored(dir.path());
            assert!(said.acked.is_subset(&stored), "{point}: {:?}", said.acked.difference(&stored));
            if point != "store::before_commit" {
                assert!(stored.len() > said.acked.len(), "{point}: committed, and not answered");
            }
            if point == "store::before_answer" {
                assert!(said.heard.len() > said.acked.len(), "{point}: heard, and not answered");
            }
        }
    }
}
