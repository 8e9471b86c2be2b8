//! What is left of a run when those who watch over it are killed: nothing, and its end is told.

use std::time::{Duration, Instant};

use cortex_core::message::ToHub;
use cortex_core::run::{EndCause, RunSpec};
use cortex_core::stream::{Positions, Stream};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hub::{Hub, Link, run_id};
use super::node::Node;

/// Nothing of a run may be left after that.
const LEFT_MAX: Duration = Duration::from_secs(5);

/// Prints the guard's number. Then forks twice, each time into a session of its own, and ends on
/// nothing but KILL; so do those that it forks. Prints `up` when all are there.
const STUBBORN: &str = r#"
deaf="trap '' TERM HUP INT QUIT"
eval "$deaf"
echo $PPID
setsid sh -c "$deaf; (setsid sh -c \"$deaf; echo up; while :; do sleep 1; done\" &); while :; do sleep 1; done" &
while :; do sleep 1; done
"#;

/// Processes in whose environment the mark is.
fn marked(mark: &str) -> Vec<i32> {
    let pids = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == format!("MARK={mark}").as_bytes())
    })
    .collect()
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    line.trim().parse().expect("a number")
}

async fn until_none_is_left(mark: &str, since: Instant) {
    let mut quiet = 0;
    while quiet < 3 {
        let left = marked(mark);
        assert!(since.elapsed() < LEFT_MAX, "{left:?} are left after {LEFT_MAX:?}");
        quiet = if left.is_empty() { quiet + 1 } else { 0 };
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A stubborn run, the number of its guard, and its mark.
async fn stubborn(link: &mut Link, number: u8) -> (i32, String) {
    let mark = format!("{}-{number}", std::process::id());
    let argv = ["sh", "-c", STUBBORN].map(str::to_owned).to_vec();
    let env = vec![("MARK".to_owned(), mark.clone())];
    link.start_spec(run_id(number), RunSpec { argv, env, ..RunSpec::default() }).await;
    link.until_started(run_id(number)).await;
    let mut text = String::new();
    while !text.contains("up\n") {
        let ToHub::Output(frame) = link.next().await else { panic!("output") };
        assert_eq!(frame.stream, Stream::Stdout);
        text.push_str(std::str::from_utf8(&frame.data).expect("text"));
    }
    assert!(marked(&mark).len() >= 3, "the whole tree is marked");
    let guard = text.lines().next().and_then(|line| line.parse().ok()).expect("the guard's number");
    (guard, mark)
}

async fn permissive() -> (Hub, Node, Link) {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let link = hub.welcomed(1, "permissive").await;
    (hub, node, link)
}

fn killed(pid: i32) -> Instant {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    Instant::now()
}

/// The end of the run, which nobody saw, with a sentence that says why.
async fn told_as_unseen(link: &mut Link, number: u8, why: &str) {
    let ToHub::Ended { run, ended } = link.next().await else { panic!("the end") };
    assert_eq!((run, ended.cause), (run_id(number), EndCause::UnknownOutcome));
    let diagnostic = ended.diagnostic.expect("a reason");
    assert!(diagnostic.contains(why), "{diagnostic}");
    link.send(cortex_core::message::ToNode::Settled { run }).await;
}

#[tokio::test]
async fn nothing_of_a_run_is_left_when_its_guard_is_killed_and_other_runs_go_on() {
    let (_hub, node, mut link) = permissive().await;
    let (_, other) = stubborn(&mut link, 1).await;
    let (guard, mark) = stubborn(&mut link, 2).await;
    let since = killed(guard);
    told_as_unseen(&mut link, 2, "guard was ended from outside").await;
    until_none_is_left(&mark, since).await;
    assert!(marked(&other).len() >= 3, "the other run's tree is whole");
    assert_eq!(link.execute(run_id(3), &["echo", "on"]).await.text(), "on\n");
    node.stop().await.0.expect("a good end");
    assert!(marked(&other).is_empty(), "the node ends after its last process");
}

#[tokio::test]
async fn nothing_of_a_run_is_left_when_the_nursery_is_killed_and_the_next_run_works() {
    let (_hub, node, mut link) = permissive().await;
    let (guard, mark) = stubborn(&mut link, 1).await;
    let since = killed(parent(guard));
    told_as_unseen(&mut link, 1, "nursery was ended from outside").await;
    until_none_is_left(&mark, since).await;
    assert_eq!(link.execute(run_id(2), &["echo", "on"]).await.text(), "on\n");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn nothing_of_a_run_is_left_when_it_kills_its_own_guard_with_many_children_under_way() {
    let (_hub, node, mut link) = permissive().await;
    let mark = format!("{}-many", std::process::id());
    let script = "trap '' TERM; for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'while :; do sh -c \"sleep 0.01; :\"; done' & done; sleep 0.3; kill -9 $PPID; sleep 100";
    let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
    let env = vec![("MARK".to_owned(), mark.clone())];
    link.start_spec(run_id(1), RunSpec { argv, env, ..RunSpec::default() }).await;
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!(got.ended().cause, EndCause::UnknownOutcome);
    until_none_is_left(&mark, Instant::now()).await;
    link.send(cortex_core::message::ToNode::Settled { run: run_id(1) }).await;
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_nursery_that_hangs_and_its_runs_end_with_the_node() {
    let (_hub, node, mut link) = permissive().await;
    let (guard, mark) = stubborn(&mut link, 1).await;
    let nursery = Pid::from_raw(parent(guard));
    kill(nursery, Signal::SIGSTOP).expect("it lives");
    let since = Instant::now();
    let stopped = tokio::spawn(node.stop());
    let ToHub::Ended { ended, .. } = link.next().await else { panic!("the end") };
    assert_eq!(ended.cause, EndCause::Cancelled, "its guard ends it in order");
    link.send(cortex_core::message::ToNode::Settled { run: run_id(1) }).await;
    until_none_is_left(&mark, since).await;
    stopped.await.expect("no panic").0.expect("a good end");
    assert!(kill(nursery, None).is_err(), "the nursery is killed with it");
}
