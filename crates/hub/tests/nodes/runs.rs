//! Runs over real links: their output, their end, and what a cut or a restart does to them.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::message::{RunReport, ToHub, ToNode};
use cortex_core::run::{Run, RunSpec, RunState};
use cortex_core::sandbox::Level;
use cortex_core::stream::Positions;
use cortex_core::token::Role;
use cortex_hub::service::runs::StartRuns;
use cortex_store::{RunFilter, StoreExt};

use super::support::{
    Kept, SOON, TestHub, begun, caller, eventually, exited, is_settled, is_start, wait_until,
};

fn report(run: &Run, end: u64) -> RunReport {
    RunReport { run: run.id, started: Some(Level::Kernel), ended: None, kept_from: 0, end }
}

fn is_resume(message: &ToNode) -> Option<u64> {
    if let ToNode::Resume { from, .. } = message { Some(*from) } else { None }
}

#[tokio::test]
async fn a_run_is_sent_followed_and_settled() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let run = hub.run(&node, &["echo", "hello"]).await.expect("accepted");
    assert_eq!(link.expect(is_start).await, run.id);
    link.say(ToHub::Started { run: run.id, level: Level::Kernel }).await;
    link.output(&run, 0, b"hello ").await;
    link.output(&run, 0, b"hello world").await;
    link.exit(&run, 11).await;
    let (output, lost, ended) = hub.finish(&run).await;
    assert_eq!((output.as_slice(), lost.len(), ended.state), (&b"hello world"[..], 0, RunState::Exited));
    assert_eq!(link.expect(is_settled).await, run.id);
    let (again, _, same) = hub.finish(&run).await;
    assert_eq!((again, same), (output, ended), "the kept log tells the same");
    wait_until("only the link is left", || hub.mesh.runs_open() == 0).await;
}

#[tokio::test]
async fn a_gap_is_asked_for_again() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (_node, mut link, run) = begun(&hub).await;
    link.output(&run, 0, b"abc").await;
    link.output(&run, 5, b"fgh").await;
    assert_eq!(link.expect(is_resume).await, 3);
    link.output(&run, 3, b"defgh").await;
    link.exit(&run, 8).await;
    let (output, _, _) = hub.finish(&run).await;
    assert_eq!(output, b"abcdefgh");
}

#[tokio::test]
async fn the_policy_is_asked_and_every_answer_is_audited_before_the_effect() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    assert_eq!(hub.run(&node, &["true"]).await.expect_err("offline").code, Code::NodeOffline);
    let _link = node.attach(&hub, Vec::new()).await.expect("welcome");
    assert_eq!(hub.run(&node, &["rm", "-rf", "/"]).await.expect_err("denied").code, Code::PolicyDenied);
    let run = hub.run(&node, &["true"]).await.expect("accepted");
    let viewer = StartRuns {
        nodes: vec![hub.record(&node)],
        spec: RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() },
        key: None,
        traceparent: None,
    };
    let answer = hub.runs.start(&caller(Role::Viewer), viewer).await.remove(0).1;
    assert_eq!(answer.expect_err("forbidden").code, Code::Forbidden);
    let rows = hub.audit().await;
    let reasons: Vec<String> = rows
        .iter()
        .filter(|logged| logged.row.action == "run.start")
        .filter_map(|logged| logged.row.reason.clone())
        .collect();
    assert_eq!(reasons, ["node_offline", "exec.allow", "exec.allow", "forbidden"]);
    let allowed = rows.iter().find(|logged| logged.row.run == Some(run.id)).expect("a row for the run");
    assert_eq!(allowed.row.argv, ["true"]);
}

#[tokio::test]
async fn the_same_key_is_the_same_run_and_another_command_a_conflict() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let first = hub.run_with(&node, &["true"], Some("k"), false).await.expect("accepted");
    let again = hub.run_with(&node, &["true"], Some("k"), false).await.expect("known");
    assert_eq!(first.id, again.id);
    let other = hub.run_with(&node, &["false"], Some("k"), false).await.expect_err("another command");
    assert_eq!(other.code, Code::Conflict);
    for bad in ["", &"k".repeat(cortex_core::limits::IDEMPOTENCY_KEY_BYTES_MAX + 1)] {
        let refused = hub.run_with(&node, &["true"], Some(bad), false).await.expect_err("no key");
        assert_eq!(refused.code, Code::InvalidArgument);
    }
    drop(link);
    wait_until("offline", || hub.mesh.presence(node.id).is_none()).await;
    let offline = hub.run_with(&node, &["true"], Some("k"), false).await.expect("known, though offline");
    assert_eq!(first.id, offline.id);
    assert_eq!(hub.mesh.runs_open(), 1);
}

#[tokio::test]
async fn a_hundred_nodes_cost_one_write() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let mut nodes = Vec::new();
    let mut links = Vec::new();
    for n in 0..100 {
        let node = hub.node(&format!("n{n}")).await;
        links.push(node.attach(&hub, Vec::new()).await.expect("welcome"));
        nodes.push(hub.record(&node));
    }
    let before = hub.store.writes.load(std::sync::atomic::Ordering::SeqCst);
    let spec = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
    let request = StartRuns { nodes, spec, key: None, traceparent: None };
    let answers = hub.runs.start(&caller(Role::Operator), request).await;
    let after = hub.store.writes.load(std::sync::atomic::Ordering::SeqCst);
    assert!(answers.iter().all(|(_, answer)| answer.is_ok()));
    assert_eq!(after - before, 1);
    for link in &mut links {
        link.expect(is_start).await;
    }
}

#[tokio::test]
async fn a_cut_link_disconnects_the_run_and_its_output_goes_on_without_a_hole() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (node, link, run) = begun(&hub).await;
    link.say(ToHub::Started { run: run.id, level: Level::Kernel }).await;
    link.output(&run, 0, b"before ").await;
    hub.until_run(&run, "output", |run| run.output.total() >= 7).await;
    drop(link);
    hub.until_run(&run, "disconnected", |run| run.state == RunState::Disconnected).await;
    let mut link = node.attach(&hub, vec![report(&run, 12)]).await.expect("welcome");
    assert_eq!(link.expect(is_resume).await, 7);
    link.output(&run, 5, b"e after").await;
    link.exit(&run, 12).await;
    let (output, lost, ended) = hub.finish(&run).await;
    assert_eq!((output.as_slice(), lost.len(), ended.state), (&b"before after"[..], 0, RunState::Exited));
}

#[tokio::test]
async fn a_restarted_hub_takes_the_run_up_where_its_log_ends() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (node, mut link, run) = begun(&hub).await;
    link.say(ToHub::Started { run: run.id, level: Level::Kernel }).await;
    link.output(&run, 0, b"kept ").await;
    link.expect(
        |m| if let ToNode::Credit { durable, .. } = m { (*durable == 5).then_some(()) } else { None },
    )
    .await;
    drop(link);
    hub.stop().await;

    let hub = TestHub::start(&kept).await;
    assert_eq!(hub.mesh.runs_open(), 1);
    let mut link = node.attach(&hub, vec![report(&run, 9)]).await.expect("welcome");
    assert_eq!(link.expect(is_resume).await, 5);
    link.output(&run, 5, b"more").await;
    link.exit(&run, 9).await;
    let (output, lost, ended) = hub.finish(&run).await;
    assert_eq!((output.as_slice(), lost.len(), ended.state), (&b"kept more"[..], 0, RunState::Exited));
}

#[tokio::test]
async fn a_node_that_does_not_come_back_loses_its_run_with_a_diagnostic() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (node, link, run) = begun(&hub).await;
    link.output(&run, 0, b"last words").await;
    hub.until_run(&run, "output", |run| run.output.total() >= 10).await;
    drop(link);
    let (output, _, ended) = hub.finish(&run).await;
    assert_eq!((output.as_slice(), ended.state), (&b"last words"[..], RunState::Lost));
    assert!(ended.diagnostic.is_some());
    wait_until("all entries are gone", || hub.mesh.entries() == 0).await;
    let mut link = node.attach(&hub, vec![report(&run, 10)]).await.expect("welcome");
    link.expect(|m| if let ToNode::Forget { run: of } = m { (*of == run.id).then_some(()) } else { None })
        .await;
}

#[tokio::test]
async fn lost_output_is_marked_and_never_silent() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (_node, link, run) = begun(&hub).await;
    link.output(&run, 0, b"abc").await;
    let first_kept = Positions { stdout: 100, stderr: 0 };
    link.say(ToHub::OutputLost { run: run.id, first_kept }).await;
    link.output(&run, 100, b"xyz").await;
    link.say(ToHub::Ended { run: run.id, ended: exited(103) }).await;
    let (output, lost, _) = hub.finish(&run).await;
    assert_eq!((output.as_slice(), lost.as_slice()), (&b"abcxyz"[..], &[first_kept][..]));
}

#[tokio::test]
async fn standard_input_waits_until_the_process_has_it() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let closed = hub.run(&node, &["true"]).await.expect("accepted");
    let operator = caller(Role::Operator);
    let refused = hub.runs.input(&operator, closed.id, 0, Bytes::from_static(b"x"), false).await;
    assert_eq!(refused.expect_err("no standard input").code, Code::InvalidArgument);
    let run = hub.run_with(&node, &["true"], None, true).await.expect("accepted");
    let data = Bytes::from(vec![b'i'; 600_000]);
    let feeding = tokio::spawn({
        let runs = hub.runs.clone();
        async move { runs.input(&caller(Role::Operator), run.id, 0, data, true).await }
    });
    let mut got = 0;
    loop {
        let (offset, bytes, eof) = link
            .expect(|m| {
                if let ToNode::Input { offset, data, eof, .. } = m {
                    Some((*offset, data.len(), *eof))
                } else {
                    None
                }
            })
            .await;
        assert_eq!(offset, got);
        got += bytes as u64;
        link.say(ToHub::InputTaken { run: run.id, upto: got }).await;
        if eof {
            break;
        }
    }
    assert_eq!(feeding.await.expect("no panic").expect("taken"), 600_000);
}

#[tokio::test]
async fn a_run_that_is_cancelled_before_it_is_sent_is_cancelled_at_its_node() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    hub.store.late_ms.store(300, Ordering::SeqCst);
    let starting = tokio::spawn({
        let (runs, node) = (hub.runs.clone(), hub.record(&node));
        let spec = RunSpec { argv: vec!["sleep".to_owned(), "60".to_owned()], ..RunSpec::default() };
        let request = StartRuns { nodes: vec![node], spec, key: None, traceparent: None };
        async move { runs.start(&caller(Role::Operator), request).await.remove(0).1 }
    });
    let run = eventually("the start is stored", async || {
        let open = hub.store.read(SOON, |view| view.open_runs()).await.expect("read");
        open.first().map(|run| run.id)
    });
    let run = run.await;
    hub.store.late_ms.store(0, Ordering::SeqCst);
    hub.runs.cancel(&caller(Role::Operator), run, 100).await.expect("cancelled");
    assert!(!starting.is_finished(), "the run is not sent yet");
    assert_eq!(link.expect(is_start).await, run);
    let cancelled = |m: &ToNode| if let ToNode::Cancel { run, .. } = m { Some(*run) } else { None };
    let heard = tokio::time::timeout(SOON, link.expect(cancelled)).await.expect("the node is asked");
    assert_eq!(heard, run);
    starting.await.expect("no panic").expect("accepted");
}

#[tokio::test]
async fn a_cancel_whose_caller_goes_away_is_audited() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (_node, _link, run) = begun(&hub).await;
    hub.stall(60_000);
    let by = caller(Role::Operator);
    let cancelling = hub.runs.cancel(&by, run.id, 100);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(100), cancelling).await;
    assert!(waited.is_err(), "it waits for the store");
    hub.stall(0);
    eventually("the audit row", async || {
        hub.audit().await.iter().any(|logged| logged.row.action == "run.cancel").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_start_that_the_store_refused_costs_it_nothing_more() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    eventually("the store is quiet", async || {
        let before = hub.store.writes.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        (hub.store.writes.load(Ordering::SeqCst) == before).then_some(())
    })
    .await;
    hub.store.full.store(true, Ordering::SeqCst);
    let before = hub.store.writes.load(Ordering::SeqCst);
    let refusal = hub.run(&node, &["true"]).await.expect_err("full");
    assert_eq!(refusal.code, Code::StoreUnavailable);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(hub.store.writes.load(Ordering::SeqCst) - before, 1);
    hub.store.full.store(false, Ordering::SeqCst);
    hub.stall(60_000);
    let late = async {
        let answer = hub.run(&node, &["true"]).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        answer
    };
    let answer = tokio::select! {
        answer = late => answer,
        () = link.beat() => panic!("the link is beating"),
    };
    assert_eq!(answer.expect_err("late").code, Code::StoreUnavailable);
    assert_eq!(hub.store.writes.load(Ordering::SeqCst) - before, 2);
    assert_eq!(hub.mesh.runs_open(), 0);
}

#[tokio::test]
async fn a_start_that_was_stored_after_its_caller_was_told_otherwise_is_settled_as_lost() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    hub.store.late_ms.store(60_000, Ordering::SeqCst);
    let answer = tokio::select! {
        answer = hub.run(&node, &["true"]) => answer,
        () = link.beat() => panic!("the link is beating"),
    };
    assert_eq!(answer.expect_err("late").code, Code::StoreUnavailable);
    hub.store.late_ms.store(0, Ordering::SeqCst);
    eventually("the run is lost", async || {
        let runs = hub.store.read(SOON, |view| view.runs(&RunFilter::default(), 10)).await.expect("runs");
        assert_eq!(runs.len(), 1);
        (runs[0].state == RunState::Lost).then_some(())
    })
    .await;
    link.say(ToHub::Heartbeat { seq: 99 }).await;
    let next = link.expect(|m| {
        let (started, heard) = (is_start(m).is_some(), *m == ToNode::HeartbeatAck { seq: 99 });
        (started || heard).then_some(heard)
    });
    assert!(next.await, "the command was not sent");
}
