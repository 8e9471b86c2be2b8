//! A hub that takes nothing while a command prints without end. `CORTEX_FULL=1` plays it with the
//! bound of the system, 256 MiB; otherwise it is a small one.

use std::time::{Duration, Instant};

use cortex_core::limits;
use cortex_core::message::{ToHub, ToNode};
use cortex_core::run::EndCause;
use cortex_core::stream::Positions;

use super::hub::{Hub, Link, policy, run_id};
use super::node::Node;
use super::processes::written_pid;

const SMALL: u64 = 16 * 1024 * 1024;
/// Longer than the full size takes.
const LONG: Duration = Duration::from_secs(300);
/// Longer than a disk makes a program wait.
const STANDS_LONG: Duration = Duration::from_secs(20);
/// What one read may take beyond the bound, and what the pipe and the program hold.
const BEYOND_MAX: u64 = limits::FRAME_BYTES_MAX as u64 + 2 * 64 * 1024;
/// Memory for what is kept: what is not on disk, what was not read back yet, and the list of it.
const MEMORY_KIB_MAX: u64 = 10 * 1024;

fn bound() -> u64 {
    if std::env::var_os("CORTEX_FULL").is_some() { limits::SPOOL_BYTES_MAX } else { SMALL }
}

/// Bytes that a process has written.
fn written(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("wchar: ")).expect("a count");
    line.parse().expect("a number")
}

/// Resident memory of this process, in which the node is, kibibytes.
fn memory_kib() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

fn on_disk(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| entry.metadata().map_or(0, |data| data.len())).sum()
}

/// Waits until the process has been held back for half a second, and says at how many bytes. Below `least`
/// it is only held back when it stands for long: a disk that is busy with other work is no bound.
async fn held_back(pid: i32, least: u64) -> u64 {
    let begun = Instant::now();
    let (mut last, mut since) = (0, Instant::now());
    let stands = |last: u64| if last < least { STANDS_LONG } else { Duration::from_millis(500) };
    while since.elapsed() < stands(last) {
        assert!(begun.elapsed() < LONG, "it is never held back: {last}");
        let now = written(pid);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    last
}

/// The lines of `seq`, byte by byte.
#[derive(Default)]
struct Lines {
    number: u64,
    rest: Vec<u8>,
}

impl Lines {
    fn check(&mut self, data: &[u8]) {
        self.rest.extend_from_slice(data);
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let text = std::str::from_utf8(&self.rest[..whole]).expect("text");
        for line in text.lines() {
            self.number += 1;
            assert_eq!(line.parse(), Ok(self.number), "gap-free and in order");
        }
        self.rest.drain(..whole);
    }
}

/// Takes output to the end of the run, with credit as a hub gives it.
async fn take_all(link: &mut Link, mut next: Positions, lines: &mut Lines) -> Positions {
    let run = run_id(1);
    loop {
        match link.next().await {
            ToHub::Output(frame) => {
                assert_eq!(frame.position, next.total(), "no gap, no repeat");
                lines.check(&frame.data);
                next.advance(frame.stream, frame.data.len() as u64);
                let durable = next.total();
                link.send(ToNode::Credit { run, granted: durable + limits::CREDIT_BYTES_MAX, durable }).await;
            }
            ToHub::Started { .. } => {}
            ToHub::Ended { ended, .. } => {
                assert_eq!((ended.cause, ended.code), (EndCause::Exited, Some(0)));
                assert_eq!(ended.output, next, "all output comes before the end");
                return next;
            }
            other @ (ToHub::Hello(_)
            | ToHub::Heartbeat { .. }
            | ToHub::InputTaken { .. }
            | ToHub::OutputLost { .. }
            | ToHub::Refused { .. }
            | ToHub::Renew { .. }
            | ToHub::TransferNews(_)
            | ToHub::WatchNews(_)
            | ToHub::FileAnswered { .. }) => panic!("unexpected: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_command_without_end_is_held_back_at_the_bound_and_nothing_of_it_is_lost() {
    let bound = bound();
    let mut hub = Hub::start().await;
    let node = Node::start_with_spool(&hub, bound).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let pid_file = node.path("pid");
    // Half as much again as is kept: 8 bytes and more a line.
    let lines_max = bound * 3 / 2 / 8;
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec seq 1 {lines_max}", pid_file.display());
    let memory = memory_kib();
    link.start(run_id(1), &["sh", "-c", &script]).await;
    link.until_started(run_id(1)).await;
    let pid = written_pid(&pid_file).await;
    let (mut next, mut lines) = (Positions::default(), Lines::default());
    while next.total() < limits::CREDIT_BYTES_START {
        let ToHub::Output(frame) = link.next().await else { panic!("output") };
        lines.check(&frame.data);
        next.advance(frame.stream, frame.data.len() as u64);
    }

    let held = held_back(pid, bound).await;
    assert!(held >= bound, "it is held back at {held} bytes, before the bound");
    assert!(held <= bound + BEYOND_MAX, "it wrote {held} bytes");
    let grown = memory_kib().saturating_sub(memory);
    assert!(grown <= MEMORY_KIB_MAX, "the node grew by {grown} KiB");
    let spool = node.path("node/spool").join(run_id(1).to_string());
    let kept = on_disk(&spool);
    assert!((bound / 2..=bound + BEYOND_MAX).contains(&kept), "{kept} bytes are on disk");

    // The hub goes, and does not make the process go on.
    drop(link);
    let mut link = hub.link().await;
    assert_eq!(held_back(pid, bound).await, held);
    link.welcome(2, policy("permissive")).await;
    let (run, from) = (run_id(1), next.total());
    link.send(ToNode::Resume { run, from, granted: from + limits::CREDIT_BYTES_MAX }).await;
    let end = take_all(&mut link, next, &mut lines).await;
    assert_eq!((lines.number, lines.rest.len()), (lines_max, 0), "every line came");
    assert!(end.total() > bound + BEYOND_MAX);
    link.send(ToNode::Settled { run }).await;
    node.stop().await.0.expect("a good end");
    assert!(!spool.exists(), "nothing stays on disk");
}
