//! The disk says no at the Nth call: nothing acknowledged is lost, nothing that failed is kept,
//! and the store serves again after it has opened the database anew.
//!
//! The faults come from a small library in front of libc that the test compiles with `cc`.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::child::{Said, Task, rounds, serve_if_child, stored};

const WRITES: u64 = 30;
pub(crate) const EIO: i32 = 5;
const ENOSPC: i32 = 28;

#[test]
fn a_sync_that_fails_loses_nothing_acknowledged() {
    serve_if_child(|| {});
    fail_everywhere("faults::a_sync_that_fails_loses_nothing_acknowledged", "sync", EIO);
}

#[test]
fn a_write_that_fails_loses_nothing_acknowledged() {
    serve_if_child(|| {});
    fail_everywhere("faults::a_write_that_fails_loses_nothing_acknowledged", "write", EIO);
}

#[test]
fn a_full_disk_loses_nothing_acknowledged() {
    serve_if_child(|| {});
    fail_everywhere("faults::a_full_disk_loses_nothing_acknowledged", "write", ENOSPC);
}

/// Counts the calls of one whole life of a store, then spreads faults over them; over each of
/// them when there are rounds enough.
fn fail_everywhere(test: &str, call: &str, errno: i32) {
    let tools = TempDir::new().expect("a temporary directory");
    let shim = compile_shim(tools.path());
    let calls = live(test, &shim, call, errno, 0, 1).word("calls").expect("the shim counts");
    assert!(calls > WRITES, "each commit costs at least one: {calls}");
    let rounds = rounds(14).min(calls);
    for round in 0..rounds {
        let nth = 1 + round * calls / rounds;
        // Every other time three calls in a row fail, so that opening anew is hit as well.
        let times = 1 + 2 * (round % 2);
        let said = live(test, &shim, call, errno, nth, times);
        assert!(said.word("fault").is_some(), "call {nth} of {calls} was reached");
    }
}

/// One life of a store whose `nth` call fails. Zero means none.
fn live(test: &str, shim: &Path, call: &str, errno: i32, nth: u64, times: u64) -> Said {
    let dir = TempDir::new().expect("a temporary directory");
    let task = Task { dir: dir.path(), first: 1, count: WRITES, callers: 1 };
    let mut child = task.start(test, &fault(shim, call, errno, nth, times));
    let said = Said::read(&mut child, |_, _| {});
    let status = child.wait().expect("it ended");
    let case = format!("{call} {nth} with {errno}, {times} times: {said:?}");
    assert!(status.success(), "{status}; {case}");
    assert_eq!(said.acked.len() + said.failed.len(), WRITES as usize, "every write is answered; {case}");
    assert!(said.failed.len() as u64 <= times, "it serves again; {case}");
    assert_eq!(said.heard.len(), said.acked.len(), "heard is what is acknowledged; {case}");
    let stored = stored(dir.path());
    assert!(said.acked.is_subset(&stored), "lost; {case}");
    // What failed is gone once the disk took another write; only at the very end may it remain.
    let last = said.acked.last().copied().unwrap_or(0);
    assert!(stored.difference(&said.acked).all(|number| *number > last), "kept what failed; {case}");
    said
}

/// What a child is told so that its calls fail.
pub(crate) fn fault(
    shim: &Path,
    call: &str,
    errno: i32,
    nth: u64,
    times: u64,
) -> [(&'static str, String); 5] {
    [
        ("LD_PRELOAD", shim.display().to_string()),
        ("SHIM_CALL", call.to_owned()),
        ("SHIM_ERRNO", errno.to_string()),
        ("SHIM_NTH", nth.to_string()),
        ("SHIM_TIMES", times.to_string()),
    ]
}

pub(crate) fn compile_shim(dir: &Path) -> PathBuf {
    let (source, shim) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, include_str!("shim.c")).expect("written");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .args([&shim, &source])
        .status()
        .expect("a C compiler, which SQLite needs as well");
    assert!(built.success(), "the shim compiles");
    shim
}
