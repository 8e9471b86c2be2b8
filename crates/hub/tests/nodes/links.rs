//! Links: who may have one, how each breach of the protocol ends, take-overs, a stalled store.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_core::event::EventKind;
use cortex_core::id::{Epoch, Seq};
use cortex_core::limits::{ATTACH_STORE_MS_MAX, CREDIT_BYTES_START, FRAME_BYTES_MAX};
use cortex_core::message::{ToHub, ToNode};
use cortex_core::node::Node;
use cortex_core::run::RunState;
use cortex_core::sandbox::Level;
use cortex_core::token::Role;
use cortex_core::{Code, Refusal};
use cortex_hub::clock::Clock;
use cortex_hub::service::policies::{Change, Policies, Terms};
use cortex_store::StoreExt;
use cortex_wire::error::refusal_from_status;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use cortex_wire::mesh::mesh_service_client::MeshServiceClient;
use cortex_wire::mesh::{AttachRequest, RunOutput, attach_request};
use tokio_stream::StreamExt;

use super::support::{
    FakeNode, Kept, SOON, TestHub, begun, caller, eventually, is_start, join_request, wait_until,
};

#[tokio::test]
async fn without_a_certificate_or_with_a_token_there_is_no_link() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let mut client = MeshServiceClient::new(hub.channel(None).await);
    let status = client.attach(tokio_stream::empty()).await.expect_err("no certificate");
    assert_eq!(refusal_from_status(&status).code, Code::Unauthenticated);
    let node = hub.node("a").await;
    let mut client = MeshServiceClient::new(hub.channel(Some(node.identity)).await);
    let mut request = tonic::Request::new(tokio_stream::empty());
    request.metadata_mut().insert("authorization", "Bearer cxt_x".parse().expect("metadata"));
    let status = client.attach(request).await.expect_err("a token");
    assert_eq!(refusal_from_status(&status).code, Code::WrongAudience);
}

#[tokio::test]
async fn a_node_whose_certificate_expired_while_it_was_away_comes_back_and_is_given_a_new_one() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let key = rcgen::KeyPair::generate().expect("key");
    let (id, secret) = hub.invite(|_| ()).await;
    let joined = hub.enrol(join_request(id, &secret, "a", &key)).await.expect("joined");
    let node = FakeNode::new(&joined, &key);
    let (gone, other) = (hub.node("b").await, hub.node("c").await);
    hub.stop().await;

    let later = Clock::default().ahead(Duration::from_secs(2 * 24 * 3_600));
    let hub = TestHub::start_at(&kept, later).await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let csr = rcgen::CertificateParams::default().serialize_request(&key).expect("request");
    link.say(ToHub::Renew { csr: Bytes::copy_from_slice(csr.der()) }).await;
    let certificate =
        |m: &ToNode| if let ToNode::Certificate { chain } = m { Some(chain[0].clone()) } else { None };
    let fresh = link.expect(certificate).await;
    let (_, fresh) = x509_parser::parse_x509_certificate(&fresh).expect("X.509");
    assert!(fresh.validity().not_after.timestamp() * 1_000 > later.wall().0);

    hub.context.directory.quarantine(other.id);
    assert_eq!(other.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::ClonedIdentity));
    let removed = Node { removed_at: Some(later.wall()), ..Node::clone(&hub.record(&gone)) };
    hub.context.directory.put_node(removed);
    assert_eq!(gone.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::NodeRevoked));
}

#[tokio::test]
async fn a_removed_node_is_cut_off_and_stays_out() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let removed = Node { removed_at: Some(hub.context.clock.wall()), ..Node::clone(&hub.record(&node)) };
    hub.context.directory.put_node(removed);
    hub.mesh.close_node(node.id, Refusal::new(Code::NodeRevoked, "removed"));
    let goodbye = link.expect(|m| {
        if let ToNode::Goodbye { retry_after_ms, .. } = m { Some(*retry_after_ms) } else { None }
    });
    assert_eq!(goodbye.await, None);
    assert_eq!(link.until_closed().await.code, Code::NodeRevoked);
    assert_eq!(node.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::NodeRevoked));
    wait_until("all entries are gone", || hub.mesh.entries() == 0).await;
}

#[tokio::test]
async fn each_breach_of_the_protocol_closes_the_link_with_its_code() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;

    let mut first = node.dial(&hub).await.expect("dialled");
    first.say(ToHub::Heartbeat { seq: 1 }).await;
    assert_eq!(first.until_closed().await.code, Code::InvalidArgument, "the first message is not Hello");

    let mut twice = node.attach(&hub, Vec::new()).await.expect("welcome");
    twice.say(node.hello(Vec::new())).await;
    assert_eq!(twice.until_closed().await.code, Code::InvalidArgument, "Hello twice");

    let mut stale = node.attach(&hub, Vec::new()).await.expect("welcome");
    stale.say_at(Epoch(stale.epoch.0 + 1), ToHub::Heartbeat { seq: 1 }).await;
    assert_eq!(stale.until_closed().await.code, Code::StaleEpoch, "another epoch");

    let mut large = node.attach(&hub, Vec::new()).await.expect("welcome");
    let data = Bytes::from(vec![0; 64 * 1024 * 1024]);
    let output = RunOutput { data, ..RunOutput::default() };
    let message = Some(attach_request::Message::RunOutput(output));
    let _sent = large.up.send(AttachRequest { epoch: large.epoch.0, message }).await;
    assert_eq!(large.until_closed().await.code, Code::TooLarge, "a message of 64 MiB");

    let mut unknown = node.attach(&hub, Vec::new()).await.expect("welcome");
    let _sent = unknown.up.send(AttachRequest { epoch: unknown.epoch.0, message: None }).await;
    unknown.say(ToHub::Heartbeat { seq: 7 }).await;
    let ack = unknown.expect(|m| if let ToNode::HeartbeatAck { seq } = m { Some(*seq) } else { None }).await;
    assert_eq!(ack, 7, "an unknown message is ignored");
}

#[tokio::test]
async fn output_beyond_its_credit_closes_the_link_and_a_dead_disk_gives_no_credit() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (_node, mut link, run) = begun(&hub).await;
    // A file where the log's directory should be: nothing can be written, so nothing is granted.
    let id = run.id.to_string();
    std::fs::write(kept.dir.path().join("runs").join(&id[id.len() - 2..]), b"in the way").expect("blocked");
    let frame = vec![b'x'; FRAME_BYTES_MAX];
    for n in 0..=(CREDIT_BYTES_START / FRAME_BYTES_MAX as u64) {
        link.output(&run, n * FRAME_BYTES_MAX as u64, &frame).await;
    }
    assert_eq!(link.until_closed().await.code, Code::InvalidArgument);
    let arrived = hub.runs.get(&caller(Role::Viewer), run.id).await.expect("known").output.total();
    assert_eq!(arrived, CREDIT_BYTES_START, "what was granted is there, from memory");
}

#[tokio::test]
async fn three_takeovers_by_other_processes_quarantine_the_identity() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let mut node = hub.node("a").await;
    let mut first = node.attach(&hub, Vec::new()).await.expect("welcome");
    let mut links = Vec::new();
    for _ in 0..2 {
        node.instance += 1;
        links.push(node.attach(&hub, Vec::new()).await.expect("welcome"));
    }
    assert_eq!(first.until_closed().await.code, Code::StaleEpoch);
    node.instance += 1;
    let third = node.attach(&hub, Vec::new()).await.err().map(|refusal| refusal.code);
    assert_eq!(third, Some(Code::ClonedIdentity));
    let mut last = links.pop().expect("a link");
    assert_eq!(last.until_closed().await.code, Code::ClonedIdentity);
    assert_eq!(node.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::ClonedIdentity));
    hub.until_stored(node.id, "the quarantine is stored", |node| node.quarantined).await;
    let audit = hub.audit().await;
    let row = audit.iter().find(|logged| logged.row.action == "node.quarantine").expect("its own row");
    assert_eq!((row.row.node, row.row.reason.as_deref()), (Some(node.id), Some("cloned_identity")));
}

/// A node that dials, and a link whose attach is stored and not answered yet.
async fn half_attached(
    hub: &TestHub,
    node: &FakeNode,
) -> tokio::task::JoinHandle<Result<Option<Refusal>, Refusal>> {
    let before = hub.record(node).epoch;
    hub.store.late_ms.store(300, Ordering::SeqCst);
    let mut link = node.dial(hub).await.expect("dialled");
    link.say(node.hello(Vec::new())).await;
    hub.until_stored(node.id, "the attach is stored", |node| node.epoch != before).await;
    hub.store.late_ms.store(0, Ordering::SeqCst);
    tokio::spawn(async move {
        let heard = link.hear().await?;
        Ok(if let ToNode::Goodbye { refusal, .. } = heard { Some(refusal) } else { None })
    })
}

#[tokio::test]
async fn a_node_that_is_shut_out_while_it_attaches_gets_no_link() {
    for (quarantined, code) in [(false, Code::NodeRevoked), (true, Code::ClonedIdentity)] {
        let kept = Kept::new();
        let hub = TestHub::start(&kept).await;
        let node = hub.node("a").await;
        let answer = half_attached(&hub, &node).await;
        let record = Node::clone(&hub.record(&node));
        if quarantined {
            hub.context.directory.quarantine(node.id);
        } else {
            hub.context.directory.put_node(Node { removed_at: Some(hub.context.clock.wall()), ..record });
        }
        hub.mesh.close_node(node.id, Refusal::new(code, "shut out"));
        let refusal = answer.await.expect("no panic").expect("a message").expect("a farewell");
        assert_eq!(refusal.code, code);
        assert!(hub.mesh.presence(node.id).is_none());
        wait_until("all entries are gone", || hub.mesh.entries() == 0).await;
    }
}

#[tokio::test]
async fn a_quarantined_node_that_is_still_linked_gets_no_run_and_no_certificate() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    hub.context.directory.quarantine(node.id);
    assert_eq!(hub.run(&node, &["true"]).await.expect_err("refused").code, Code::ClonedIdentity);
    link.say(ToHub::Renew { csr: Bytes::from_static(b"") }).await;
    assert_eq!(link.until_closed().await.code, Code::ClonedIdentity);
}

#[tokio::test]
async fn a_quarantine_takes_no_rename_back() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let mut node = hub.node("a").await;
    let mut links = Vec::new();
    for _ in 0..3 {
        links.push(node.attach(&hub, Vec::new()).await.expect("welcome"));
        node.instance += 1;
    }
    let answer = half_attached(&hub, &node).await;
    let name = cortex_core::name::Name::parse("renamed").expect("a name");
    hub.context.directory.put_node(Node { name, ..Node::clone(&hub.record(&node)) });
    let refusal = answer.await.expect("no panic").expect("a message").expect("a farewell");
    assert_eq!(refusal.code, Code::ClonedIdentity);
    let held = hub.record(&node);
    assert!(held.quarantined);
    assert_eq!(held.name.as_str(), "renamed");
}

/// ABUSE 79, but for claims, which wait for the work pool.
#[tokio::test]
async fn r12_4_a_stalled_store_stops_neither_heartbeats_nor_cancel_and_refuses_new_links_in_time() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (node, other) = (hub.node("a").await, hub.node("b").await);
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let run = hub.run(&node, &["sleep", "60"]).await.expect("accepted");
    link.expect(is_start).await;
    let (id, secret) = hub.invite(|_| ()).await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut door = EnrolmentServiceClient::new(hub.channel(None).await);
    hub.stall(60_000);
    let begun = Instant::now();
    let attach = tokio::spawn({
        let (other, request) = (other.clone(), other.dial(&hub).await.expect("dialled"));
        async move {
            let mut request = request;
            request.say(other.hello(Vec::new())).await;
            request.until_closed().await
        }
    });
    let join = tokio::spawn(async move { door.enrol(join_request(id, &secret, "c", &key)).await });
    let runs = hub.runs.clone();
    let cancel = tokio::spawn(async move { runs.cancel(&caller(Role::Operator), run.id, 100).await });
    link.expect(
        |m| if let ToNode::Cancel { run: of, .. } = m { (*of == run.id).then_some(()) } else { None },
    )
    .await;
    assert!(begun.elapsed() < Duration::from_secs(1), "the cancel reached the node at once");
    for seq in 1..5 {
        link.say(ToHub::Heartbeat { seq }).await;
        link.expect(
            |m| if let ToNode::HeartbeatAck { seq: of } = m { (*of == seq).then_some(()) } else { None },
        )
        .await;
    }
    assert!(hub.mesh.presence(node.id).is_some());
    let refused = attach.await.expect("no panic");
    assert_eq!(refused.code, Code::StoreUnavailable);
    let unjoined = join.await.expect("no panic").expect_err("nobody joins meanwhile");
    assert_eq!(refusal_from_status(&unjoined).code, Code::StoreUnavailable);
    assert!(begun.elapsed() < Duration::from_millis(ATTACH_STORE_MS_MAX + 2_000));
    let cancelled = cancel.await.expect("no panic").expect("cancelled");
    assert_eq!(cancelled.cancelled_by.as_deref(), Some("token:tester-operator"));
    let spools = ["audit.spool", "audit.importing"].map(|name| kept.dir.path().join(name));
    let spooled: String = spools.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    assert!(spooled.contains("run.cancel"), "its row is on disk before the answer: {spooled}");
    hub.stall(0);
    eventually("the spool is imported", async || {
        hub.audit().await.iter().any(|logged| logged.row.action == "run.cancel").then_some(())
    })
    .await;
    other.attach(&hub, Vec::new()).await.expect("welcome when the store is back");
}

/// With `CORTEX_FULL=1` for the thousand nodes of the row.
#[tokio::test]
async fn r2_4_heartbeats_of_many_nodes_are_answered_while_the_store_stalls() {
    let count = if std::env::var_os("CORTEX_FULL").is_some() { 1_000 } else { 100 };
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let mut links = Vec::new();
    for number in 0..count {
        links.push(hub.node(&format!("n{number}")).await.attach(&hub, Vec::new()).await.expect("welcome"));
    }
    let online = || {
        let events = kept.store.read_now(|view| view.events(Seq(0), usize::MAX)).expect("events");
        events.iter().filter(|logged| logged.event.kind == EventKind::NodeOnline).count() as u64
    };
    wait_until("what the attaches left to be written is written", || online() == count).await;
    let before = hub.store.writes.load(Ordering::SeqCst);
    hub.stall(60_000);
    let begun = Instant::now();
    for seq in 1..4 {
        for link in &links {
            link.say(ToHub::Heartbeat { seq }).await;
        }
        for link in &mut links {
            let is_answer = |m: &ToNode| matches!(m, ToNode::HeartbeatAck { seq: of } if *of == seq);
            link.expect(|message| is_answer(message).then_some(())).await;
        }
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(hub.store.writes.load(Ordering::SeqCst), before, "a heartbeat writes nothing");
    assert!(hub.mesh.heartbeats() >= 3 * count);
    hub.stall(0);
}

#[tokio::test]
async fn a_policy_that_changes_while_a_node_attaches_is_the_one_in_its_welcome() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let policies = Policies::new(hub.context.clone(), hub.mesh.clone(), Arc::clone(&hub.authority));
    let held = policies.get(&caller(Role::Viewer), "a").expect("it has one").1.revision;
    let mut link = node.dial(&hub).await.expect("dialled");
    let writes = hub.store.writes.load(Ordering::SeqCst);
    hub.store.answer_ms.store(1_000, Ordering::SeqCst);
    link.say(node.hello(Vec::new())).await;
    wait_until("the epoch is being committed", || hub.store.answer_ms.load(Ordering::SeqCst) == 0).await;
    assert_eq!(hub.store.writes.load(Ordering::SeqCst), writes + 1, "it was the attach's write");
    let begun = Instant::now();
    let tighter = Change::Deny("echo".to_owned());
    let (_, changed) =
        policies.change(&caller(Role::Admin), "a", tighter, Terms::default()).await.expect("acknowledged");
    assert!(begun.elapsed() < Duration::from_millis(900), "while the attach waits for its answer");
    assert!(changed.revision > held);
    let ToNode::Welcome(welcome) = link.hear().await.expect("welcome") else { panic!("no Welcome first") };
    let (sent, _) = cortex_wire::policy::read(&welcome.policy.document).expect("a policy");
    assert_eq!(sent, *changed, "never older than what was acknowledged");
}

#[tokio::test]
async fn nodes_are_told_when_the_hub_goes() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let begun = Instant::now();
    let stopping = tokio::spawn(hub.stop());
    let retry = link.expect(|m| {
        if let ToNode::Goodbye { retry_after_ms, .. } = m { Some(*retry_after_ms) } else { None }
    });
    assert!(retry.await.is_some());
    drop(link);
    stopping.await.expect("stopped");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_node_that_leaves_while_its_run_is_settled_leaves_no_timer_behind() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (node, mut link, run) = begun(&hub).await;
    link.say(ToHub::Started { run: run.id, level: Level::Kernel }).await;
    hub.until_run(&run, "running", |run| run.state == RunState::Running).await;
    hub.stall(60_000);
    link.exit(&run, 0).await;
    link.say(ToHub::Heartbeat { seq: 1 }).await;
    link.expect(|m| matches!(m, ToNode::HeartbeatAck { .. }).then_some(())).await;
    drop(link);
    wait_until("offline", || hub.mesh.presence(node.id).is_none()).await;
    hub.stall(0);
    wait_until("all entries are gone", || hub.mesh.entries() == 0).await;
}

#[tokio::test]
async fn a_connection_that_never_says_hello_is_closed() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let mut link = node.dial(&hub).await.expect("dialled");
    assert_eq!(link.until_closed().await.code, Code::Timeout);
    wait_until("all entries are gone", || hub.mesh.entries() == 0).await;
}

#[tokio::test]
async fn an_event_that_was_stored_late_is_told_once_and_in_its_order() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = hub.node("a").await;
    let kinds = async || {
        let events = hub.store.read(SOON, |view| view.events(Seq(0), 100)).await.expect("events");
        let kinds = events.into_iter().map(|logged| logged.event.kind);
        kinds
            .filter(|kind| matches!(kind, EventKind::NodeOnline | EventKind::NodeOffline))
            .collect::<Vec<_>>()
    };
    let (online, offline) = (EventKind::NodeOnline, EventKind::NodeOffline);
    let told = async |expected: &[EventKind]| {
        eventually("the events", async || (kinds().await.len() >= expected.len()).then_some(())).await;
        assert_eq!(kinds().await, expected);
    };
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    told(&[online]).await;
    hub.store.late_ms.store(60_000, Ordering::SeqCst);
    drop(link);
    told(&[online, offline]).await;
    hub.store.late_ms.store(0, Ordering::SeqCst);
    let link = node.attach(&hub, Vec::new()).await.expect("welcome");
    let expected = [online, offline, online];
    tokio::select! {
        () = told(&expected) => {}
        () = link.beat() => panic!("the link is beating"),
    }
}

#[tokio::test]
async fn many_links_leave_nothing_behind() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let node = Arc::new(hub.node("a").await);
    for _ in 0..20 {
        let link = node.attach(&hub, Vec::new()).await.expect("welcome");
        drop(link);
    }
    wait_until("all entries are gone", || hub.mesh.entries() == 0).await;
    let mut rest = tokio_stream::iter(0..3);
    while rest.next().await.is_some() {
        hub.mesh.flush_last_seen().await.expect("written");
    }
}
