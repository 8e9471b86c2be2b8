//! Processes: how they end, and that nothing of them is left.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_core::limits;
use cortex_core::message::{ToHub, ToNode};
use cortex_core::run::{EndCause, RunSpec};
use cortex_core::stream::Positions;

use super::hub::{Hub, Link, PATIENCE, run_id};
use super::node::Node;

/// Starts a session of its own twice over and does not end on TERM.
const STUBBORN: &str = "trap '' TERM; setsid sh -c 'trap \"\" TERM; setsid sh -c \"trap \\\"\\\" TERM; echo \\$\\$ > PID.new; mv PID.new PID; while :; do sleep 1; done\" & wait' &";

async fn permissive() -> (Hub, Node, Link) {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let link = hub.welcomed(1, "permissive").await;
    (hub, node, link)
}

pub async fn written_pid(path: &Path) -> i32 {
    let read = async {
        loop {
            if let Ok(text) = tokio::fs::read_to_string(path).await {
                return text.trim().parse().expect("a number");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("written in time")
}

pub async fn until_dead(pid: i32) {
    let dead = async {
        while is_alive(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dead).await.expect("ended in time");
}

fn is_alive(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

#[tokio::test]
async fn a_run_ends_with_the_code_or_signal_of_its_process() {
    let (_hub, node, mut link) = permissive().await;
    let got = link.execute(run_id(1), &["sh", "-c", "exit 7"]).await;
    assert_eq!((got.ended().cause, got.ended().code), (EndCause::Exited, Some(7)));
    let got = link.execute(run_id(2), &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!((got.ended().cause, got.ended().signal), (EndCause::Exited, Some(9)));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_run_that_cannot_start_says_why() {
    let (_hub, node, mut link) = permissive().await;
    let plain = node.path("plain");
    std::fs::write(&plain, "not a program").expect("written");
    let diagnostic = |got: &super::hub::Collected| {
        assert_eq!(got.ended().cause, EndCause::Failed);
        got.ended().diagnostic.clone().expect("a reason")
    };
    let why = diagnostic(&link.execute(run_id(1), &["no-such-program"]).await);
    assert!(why.contains("`no-such-program` was not found on build-2"), "{why}");
    let why = diagnostic(&link.execute(run_id(2), &[plain.to_str().expect("text")]).await);
    assert!(why.contains("permission denied"), "{why}");
    let spec = RunSpec {
        argv: vec!["true".to_owned()],
        cwd: Some("/nowhere/at/all".to_owned()),
        ..RunSpec::default()
    };
    link.start_spec(run_id(3), spec).await;
    let why = diagnostic(&link.collect(run_id(3), Positions::default()).await);
    assert!(why.contains("working directory `/nowhere/at/all` was not found"), "{why}");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_run_ends_with_its_process_though_a_child_holds_the_pipe() {
    let (_hub, node, mut link) = permissive().await;
    let begun = Instant::now();
    let got = link.execute(run_id(1), &["sh", "-c", "sleep 100 & echo $!"]).await;
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(got.ended().code, Some(0));
    until_dead(got.text().trim().parse().expect("a pid")).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_stubborn_grandchild_is_ended_with_its_run() {
    let (_hub, node, mut link) = permissive().await;
    let pid_file = node.path("natural");
    let script = STUBBORN.replace("PID", pid_file.to_str().expect("text"));
    let wait = format!("{script} while [ ! -e {} ]; do sleep 0.02; done", pid_file.display());
    assert_eq!(link.execute(run_id(1), &["sh", "-c", &wait]).await.ended().code, Some(0));
    until_dead(written_pid(&pid_file).await).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_stubborn_grandchild_is_ended_by_a_cancel() {
    let (_hub, node, mut link) = permissive().await;
    let pid_file = node.path("cancelled");
    let script = format!("{} wait; sleep 100", STUBBORN.replace("PID", pid_file.to_str().expect("text")));
    link.start(run_id(1), &["sh", "-c", &script]).await;
    link.until_started(run_id(1)).await;
    let pid = written_pid(&pid_file).await;
    link.send(ToNode::Cancel { run: run_id(1), grace_ms: 100 }).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!((got.ended().cause, got.ended().signal), (EndCause::Cancelled, Some(9)));
    until_dead(pid).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_stubborn_grandchild_is_ended_when_the_node_vanishes() {
    let (_hub, node, mut link) = permissive().await;
    let pid_file = node.path("vanished");
    let script = format!("{} wait; sleep 100", STUBBORN.replace("PID", pid_file.to_str().expect("text")));
    link.start(run_id(1), &["sh", "-c", &script]).await;
    link.until_started(run_id(1)).await;
    let pid = written_pid(&pid_file).await;
    let _folder = node.vanish().await;
    until_dead(pid).await;
}

#[tokio::test]
async fn a_tree_of_fifty_is_ended_whole() {
    let (_hub, node, mut link) = permissive().await;
    let script = "for i in $(seq 10); do sh -c 'for j in 1 2 3 4; do sleep 100 & echo $!; done; wait' & echo $!; done; wait";
    link.start(run_id(1), &["sh", "-c", script]).await;
    link.until_started(run_id(1)).await;
    let mut text = String::new();
    while text.lines().count() < 50 {
        let ToHub::Output(frame) = link.next().await else { panic!("output") };
        text.push_str(std::str::from_utf8(&frame.data).expect("text"));
    }
    link.send(ToNode::Cancel { run: run_id(1), grace_ms: 5_000 }).await;
    let ToHub::Ended { ended, .. } = link.next().await else { panic!("the end") };
    assert_eq!(ended.cause, EndCause::Cancelled);
    for pid in text.lines() {
        until_dead(pid.parse().expect("a pid")).await;
    }
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_run_that_lasts_too_long_is_timed_out() {
    let (_hub, node, mut link) = permissive().await;
    let argv = vec!["sleep".to_owned(), "100".to_owned()];
    link.start_spec(run_id(1), RunSpec { argv, timeout_ms: Some(150), ..RunSpec::default() }).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!((got.ended().cause, got.ended().signal), (EndCause::TimedOut, Some(15)));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn ten_megabytes_arrive_exactly() {
    let (_hub, node, mut link) = permissive().await;
    let script =
        "head -c 8000000 /dev/zero | tr '\\0' a; head -c 2000000 /dev/zero | tr '\\0' b >&2; printf z";
    let got = link.execute(run_id(1), &["sh", "-c", script]).await;
    assert_eq!((got.stdout.len(), got.stderr.len()), (8_000_001, 2_000_000));
    assert!(got.stdout[..8_000_000].iter().all(|byte| *byte == b'a') && got.stdout.ends_with(b"z"));
    assert!(got.stderr.iter().all(|byte| *byte == b'b'));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn output_waits_for_credit_on_disk_and_comes_whole_after_it() {
    let (_hub, node, mut link) = permissive().await;
    let done = node.path("done");
    let script = format!("head -c 6000000 /dev/zero; touch {}", done.display());
    link.start(run_id(1), &["sh", "-c", &script]).await;
    link.until_started(run_id(1)).await;
    let mut next = Positions::default();
    while next.total() < limits::CREDIT_BYTES_START {
        let ToHub::Output(frame) = link.next().await else { panic!("output") };
        next.advance(frame.stream, frame.data.len() as u64);
    }
    assert_eq!(next.total(), limits::CREDIT_BYTES_START, "not a byte beyond the credit");
    let finished = async {
        while !done.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, finished).await.expect("the process does not wait for the hub");
    let granted = next.total() + limits::CREDIT_BYTES_START;
    link.send(ToNode::Credit { run: run_id(1), granted, durable: next.total() }).await;
    let got = link.collect(run_id(1), next).await;
    assert_eq!(got.next.stdout, 6_000_000);
    link.send(ToNode::Settled { run: run_id(1) }).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn standard_input_reaches_the_process() {
    let (_hub, node, mut link) = permissive().await;
    let spec = RunSpec { argv: vec!["cat".to_owned()], stdin: true, ..RunSpec::default() };
    link.start_spec(run_id(1), spec).await;
    link.until_started(run_id(1)).await;
    let run = run_id(1);
    link.send(ToNode::Input { run, offset: 0, data: Bytes::from_static(b"hello "), eof: false }).await;
    link.send(ToNode::Input { run, offset: 3, data: Bytes::from_static(b"lo world"), eof: true }).await;
    let got = link.collect(run, Positions::default()).await;
    assert_eq!((got.text().as_str(), got.input_taken), ("hello world", 11));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn standard_input_that_comes_before_the_process_is_kept_for_it() {
    let (_hub, node, mut link) = permissive().await;
    let run = run_id(1);
    let spec = RunSpec { argv: vec!["cat".to_owned()], stdin: true, ..RunSpec::default() };
    link.start_spec(run, spec).await;
    link.send(ToNode::Input { run, offset: 0, data: Bytes::from_static(b"early"), eof: true }).await;
    let got = link.collect(run, Positions::default()).await;
    assert_eq!((got.text().as_str(), got.input_taken), ("early", 5));
    link.send(ToNode::Settled { run }).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn input_beyond_the_bound_is_refused_and_not_taken() {
    let (_hub, node, mut link) = permissive().await;
    let run = run_id(1);
    let argv = vec!["sleep".to_owned(), "100".to_owned()];
    link.start_spec(run, RunSpec { argv, stdin: true, ..RunSpec::default() }).await;
    link.until_started(run).await;
    let data = Bytes::from(vec![0; usize::try_from(limits::INPUT_BYTES_MAX).expect("small") + 1]);
    link.send(ToNode::Input { run, offset: 0, data, eof: false }).await;
    let ToHub::Refused { run: refused, refusal } = link.next().await else { panic!("it must be refused") };
    assert_eq!((refused, refusal.code), (Some(run), cortex_core::Code::InvalidArgument));
    link.send(ToNode::Forget { run }).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_run_sees_no_descriptor_and_no_variable_of_the_node() {
    let (_hub, node, mut link) = permissive().await;
    let got = link.execute(run_id(1), &["sh", "-c", "ls /proc/self/fd; echo; env; exec cat"]).await;
    let text = got.text();
    let (fds, env) = text.split_once("\n\n").expect("two parts");
    assert_eq!(fds, "0\n1\n2\n3", "3 is the listing's own");
    let allowed = [
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "LANG",
        "TMPDIR",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "CORTEX_RUN_ID",
        "CORTEX_NODE",
    ];
    for line in env.lines() {
        let name = line.split('=').next().expect("a name");
        assert!(allowed.contains(&name), "{name} leaks");
    }
    assert!(env.contains(&format!("CORTEX_RUN_ID={}", run_id(1))));
    node.stop().await.0.expect("a good end");
}

/// What each descriptor of a process is: a file by its path, anything else by its kind.
fn descriptors(pid: &str) -> Vec<(u32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
    let mut all: Vec<(u32, String)> = entries
        .filter_map(|entry| {
            // One that was closed since is none.
            let target = std::fs::read_link(entry.path()).ok()?;
            let kind = target.to_string_lossy().split(":[").next().unwrap_or_default().to_owned();
            Some((entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number"), kind))
        })
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn a_guard_holds_its_socket_and_its_signals_and_a_run_its_three_streams() {
    let (_hub, node, mut link) = permissive().await;
    // Runs before and beside it must not leave theirs with it.
    assert_eq!(link.execute(run_id(1), &["true"]).await.ended().code, Some(0));
    link.start(run_id(2), &["sleep", "100"]).await;
    link.until_started(run_id(2)).await;
    link.start(run_id(3), &["sh", "-c", "echo $PPID $$; exec sleep 100"]).await;
    link.until_started(run_id(3)).await;
    let ToHub::Output(frame) = link.next().await else { panic!("output") };
    let text = String::from_utf8(frame.data.to_vec()).expect("text");
    let (guard, main) = text.trim().split_once(' ').expect("two numbers");
    let kinds = |pid| descriptors(pid).into_iter().map(|(_, kind)| kind).collect::<Vec<_>>();
    // The loader of `sleep` opens and closes its libraries first.
    let deadline = Instant::now() + PATIENCE;
    while kinds(main) != ["/dev/null", "pipe", "pipe"] {
        assert!(Instant::now() < deadline, "{:?}", descriptors(main));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let of_guard = kinds(guard);
    assert_eq!(of_guard[..3], ["/dev/null", "/dev/null", "/dev/null"], "{of_guard:?}");
    let mut rest = of_guard[3..].to_vec();
    rest.sort();
    assert_eq!(rest, ["anon_inode", "socket"]);
    node.stop().await.0.expect("a good end");
}

/// `script` gives what it starts a terminal, as a person's shell does.
#[tokio::test]
async fn a_run_of_a_node_that_was_started_on_a_terminal_has_no_terminal() {
    let mut hub = Hub::start().await;
    let nursery = env!("CARGO_BIN_EXE_cortex-node-guard");
    let on_a_terminal = format!("{nursery} __guard <&3 2>/dev/null; exit");
    let node = Node::start_with_guard(
        &hub,
        &format!("#!/bin/sh\nexec script -qfc '{on_a_terminal}' /dev/null 3<&0 </dev/null >/dev/null\n"),
    )
    .await;
    let mut link = hub.welcomed(1, "permissive").await;
    let look = "if (: > /dev/tty) 2>/dev/null; then echo some; else echo none; fi";
    let done = link.execute(run_id(1), &["sh", "-c", look]).await;
    assert_eq!((done.text().as_str(), done.ended().code), ("none\n", Some(0)));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn many_short_runs_leave_nothing_behind() {
    let (_hub, node, mut link) = permissive().await;
    for n in 0..40 {
        assert_eq!(link.execute(run_id(n), &["true"]).await.ended().code, Some(0));
    }
    assert!(!node.path("node/spool").exists(), "short output never touches the disk");
    node.stop().await.0.expect("a good end");
}

/// Holds a write lease on a file: whoever opens it, by exec too, waits until the lease is given
/// back, as on a file system that does not answer. The system takes it away after 45 s.
pub struct Lease(std::fs::File);

/// Which signal tells the holder of a lease; the number on every Linux, missing in `libc`.
const F_SETSIG: i32 = 10;

impl Lease {
    #[expect(unsafe_code, reason = "fcntl(2) has no safe form for leases")]
    pub fn take(path: &Path) -> Self {
        use std::os::fd::AsRawFd as _;
        let file = std::fs::File::open(path).expect("it is there");
        let fd = file.as_raw_fd();
        // SAFETY: both only set a property of a descriptor that is open. The signal that tells of
        // a waiting opener is one that is ignored.
        let set = unsafe {
            nix::libc::fcntl(fd, F_SETSIG, nix::libc::SIGURG)
                | nix::libc::fcntl(fd, nix::libc::F_SETLEASE, nix::libc::F_WRLCK)
        };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        Self(file)
    }
}

#[tokio::test]
async fn a_run_whose_program_never_opens_is_timed_out_and_leaves_nothing() {
    let (_hub, node, mut link) = permissive().await;
    let program = node.path("hangs");
    std::fs::copy("/bin/sh", &program).expect("copied");
    let lease = Lease::take(&program);
    let argv = vec![program.to_str().expect("text").to_owned()];
    let begun = Instant::now();
    link.start_spec(run_id(1), RunSpec { argv, timeout_ms: Some(200), ..RunSpec::default() }).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!((got.ended().cause, got.starts), (EndCause::TimedOut, 0));
    assert!(got.ended().diagnostic.as_deref().expect("a reason").contains("the start hung"));
    let longest = Duration::from_millis(200 + limits::KILL_GRACE_MS + 2_000);
    assert!(begun.elapsed() < longest, "it took {:?}", begun.elapsed());
    link.send(ToNode::Settled { run: run_id(1) }).await;
    assert_eq!(link.execute(run_id(2), &["true"]).await.ended().code, Some(0));
    let begun = Instant::now();
    node.stop().await.0.expect("a good end");
    assert!(begun.elapsed() < Duration::from_secs(2), "the nursery waits for no guard");
    drop(lease.0);
}

/// The children of a process with one thread.
fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A guard of this process's nurseries that has started something, or tries to.
fn busy_guard() -> Option<i32> {
    let own = std::process::id().to_string();
    let is_below = |pid: &i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == own))
    };
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut guards = all.filter(is_below).flat_map(children);
    guards.find(|guard| !children(*guard).is_empty())
}

#[tokio::test]
async fn what_a_guard_that_was_killed_in_the_start_did_is_not_known() {
    let (_hub, node, mut link) = permissive().await;
    let program = node.path("hangs");
    std::fs::copy("/bin/sh", &program).expect("copied");
    let lease = Lease::take(&program);
    link.start(run_id(1), &[program.to_str().expect("text")]).await;
    let deadline = Instant::now() + PATIENCE;
    let guard = loop {
        if let Some(guard) = busy_guard() {
            break guard;
        }
        assert!(Instant::now() < deadline, "no guard came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(guard), nix::sys::signal::Signal::SIGKILL)
        .expect("it lives");
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!((got.ended().cause, got.starts), (EndCause::UnknownOutcome, 0));
    link.send(ToNode::Settled { run: run_id(1) }).await;
    node.stop().await.0.expect("a good end");
    drop(lease.0);
}

#[tokio::test]
async fn a_run_whose_guard_never_comes_is_timed_out() {
    let mut hub = Hub::start().await;
    let node = Node::start_with_guard(&hub, "#!/bin/sh\nexec sleep 600\n").await;
    let mut link = hub.welcomed(1, "permissive").await;
    let argv = vec!["true".to_owned()];
    link.start_spec(run_id(1), RunSpec { argv, timeout_ms: Some(100), ..RunSpec::default() }).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!((got.ended().cause, got.starts), (EndCause::TimedOut, 0));
    link.send(ToNode::Settled { run: run_id(1) }).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_nursery_that_gives_no_guard_is_given_up_for_the_runs_that_follow() {
    let mut hub = Hub::start().await;
    // The first nursery without walls hangs; those after it do their work.
    let script = format!(
        "#!/bin/sh\n[ -z \"$2\" ] && mkdir \"$0.hangs\" 2>/dev/null && exec sleep 600\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_cortex-node-guard")
    );
    let node = Node::start_with_guard(&hub, &script).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let argv = vec!["true".to_owned()];
    let spec = RunSpec { argv, timeout_ms: Some(100), ..RunSpec::default() };
    link.start_spec(run_id(1), spec).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!((got.ended().cause, got.starts), (EndCause::TimedOut, 0));
    link.send(ToNode::Settled { run: run_id(1) }).await;
    let got = link.execute(run_id(2), &["echo", "on"]).await;
    assert_eq!((got.ended().code, got.text()), (Some(0), "on\n".to_owned()));
    node.stop().await.0.expect("a good end");
}
