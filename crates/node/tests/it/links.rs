//! Links: attach, cut, come back, refuse what is stale.

use std::time::Duration;

use cortex_core::id::{Epoch, NodeId, Revision};
use cortex_core::message::{ToHub, ToNode};
use cortex_core::policy::Policy;
use cortex_core::run::{EndCause, RunSpec};
use cortex_core::sandbox::Level;
use cortex_core::stream::Positions;
use cortex_core::{Code, Refusal, limits};
use cortex_wire::mesh;

use super::hub::{Hub, policy, run_id};
use super::node::Node;
use super::processes::Lease;

#[tokio::test]
async fn a_node_attaches_and_executes_a_command() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub).await;
    let mut link = hub.link().await;
    assert!(link.hello.runs.is_empty());
    let facts = &link.hello.facts;
    assert!(Level::parse(&facts.sandbox).is_some() && !facts.layers.is_empty(), "{facts:?}");
    link.welcome(5, policy("strict")).await;
    let attached = node.attached().await;
    assert_eq!((attached.node.as_str(), attached.epoch), ("build-2", Epoch(5)));
    let got = link.execute(run_id(1), &["echo", "hello"]).await;
    assert_eq!(got.text(), "hello\n");
    assert_eq!((got.ended().cause, got.ended().code), (EndCause::Exited, Some(0)));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn the_node_itself_refuses_what_its_policy_does_not_allow() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "strict").await;
    let got = link.execute(run_id(1), &["sh", "-c", "echo no"]).await;
    assert_eq!(got.ended().cause, EndCause::Denied);
    assert!(got.ended().diagnostic.as_deref().expect("a reason").contains("STRICT"));
    let mut fresh = policy("permissive");
    fresh.revision = Revision(2);
    link.send(ToNode::Policy(link.signed(&fresh))).await;
    assert_eq!(link.execute(run_id(2), &["sh", "-c", "echo yes"]).await.text(), "yes\n");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_policy_that_the_authority_did_not_sign_for_this_node_allows_nothing() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    assert_eq!(link.execute(run_id(1), &["true"]).await.ended().code, Some(0));
    let newer = |revision| Policy { revision: Revision(revision), ..policy("permissive") };
    let others = Policy { node: NodeId::mint(9, &[9; 10]), ..newer(3) };
    let mut unsigned = link.signed(&newer(2));
    unsigned.signature = link.signed(&newer(3)).signature;
    for (number, wrong) in [(2, unsigned), (3, link.signed(&others))] {
        link.send(ToNode::Policy(wrong)).await;
        let refusal = loop {
            if let ToHub::Refused { refusal, .. } = link.next().await {
                break refusal;
            }
        };
        assert_eq!(refusal.code, Code::PolicyInvalid);
        assert_eq!(link.execute(run_id(number), &["true"]).await.ended().cause, EndCause::Denied);
    }
    link.send(ToNode::Policy(link.signed(&newer(4)))).await;
    assert_eq!(link.execute(run_id(4), &["true"]).await.ended().code, Some(0));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_restarted_node_takes_no_older_policy_than_it_kept() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.link().await;
    let mut denying = policy("permissive");
    denying.revision = Revision(5);
    denying.document.deny.push("true".to_owned());
    link.welcome(1, denying).await;
    assert_eq!(link.execute(run_id(1), &["true"]).await.ended().cause, EndCause::Denied);
    let (stopped, folder) = node.stop().await;
    stopped.expect("a good end");
    let node = Node::start_in(folder);
    let mut link = hub.link().await;
    link.welcome(2, policy("permissive")).await;
    let ToHub::Refused { refusal, .. } = link.next().await else { panic!("it must be refused") };
    assert_eq!(refusal.code, Code::StaleEpoch);
    assert_eq!(link.execute(run_id(2), &["true"]).await.ended().cause, EndCause::Denied);
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_node_that_stops_keeps_the_policy_that_it_was_just_given() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let fresh = node.path("node/policy.new");
    std::fs::write(&fresh, "").expect("written");
    // Whoever opens the file waits.
    let lease = Lease::take(&fresh);
    let mut link = hub.link().await;
    link.welcome(1, policy("permissive")).await;
    assert_eq!(link.execute(run_id(1), &["true"]).await.ended().code, Some(0));
    let mut stop = tokio::spawn(node.stop());
    if let Ok(stopped) = tokio::time::timeout(Duration::from_secs(1), &mut stop).await {
        panic!("it was still keeping the policy: {:?}", stopped.expect("no panic").0);
    }
    drop(lease);
    let (stopped, folder) = stop.await.expect("no panic");
    stopped.expect("a good end");
    assert!(folder.path().join("node/policy").exists());
}

#[tokio::test]
async fn the_owners_ceiling_holds_under_a_permissive_policy_and_is_told() {
    let mut hub = Hub::start().await;
    let node = Node::start_with_ceiling(&hub, "{\"deny\":[\"true\"]}").await;
    let mut link = hub.link().await;
    assert_eq!(link.hello.ceiling.as_deref(), Some("{\"deny\":[\"true\"]}"));
    link.welcome(1, policy("permissive")).await;
    let got = link.execute(run_id(1), &["true"]).await;
    assert!(got.ended().diagnostic.as_deref().expect("a reason").contains("local.exec.deny"));
    assert_eq!(link.execute(run_id(2), &["false"]).await.ended().code, Some(1));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_repeated_command_id_is_executed_once_even_across_a_restart() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let mark = node.path("mark");
    let script = format!("echo x >> {}", mark.display());
    let argv = ["sh", "-c", script.as_str()];
    link.start(run_id(1), &argv).await;
    link.start(run_id(1), &argv).await;
    link.collect(run_id(1), Positions::default()).await;
    link.start(run_id(1), &argv).await;
    link.send(ToNode::Settled { run: run_id(1) }).await;
    link.start(run_id(1), &argv).await;
    assert_eq!(link.execute(run_id(2), &["true"]).await.ended().code, Some(0));
    drop(link);
    node.attached().await;
    let (outcome, folder) = node.stop().await;
    outcome.expect("a good end");

    let node = Node::start_in(folder);
    let mut link = hub.welcomed(9, "permissive").await;
    link.start(run_id(1), &argv).await;
    assert_eq!(link.execute(run_id(3), &["true"]).await.ended().code, Some(0));
    assert_eq!(std::fs::read_to_string(&mark).expect("written"), "x\n");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn output_goes_on_without_loss_or_repeat_after_a_cut() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let go_on = node.path("go-on");
    let script = format!(
        "printf before; while [ ! -e {} ]; do sleep 0.02; done; seq 1 100000; printf after >&2",
        go_on.display()
    );
    link.start(run_id(1), &["sh", "-c", &script]).await;
    link.until_started(run_id(1)).await;
    let ToHub::Output(frame) = link.next().await else { panic!("output comes first") };
    assert_eq!(&frame.data[..], b"before");
    drop(link);

    let mut link = hub.link().await;
    let report = &link.hello.runs[0];
    assert_eq!(
        (report.run, report.started, report.end, report.kept_from),
        (run_id(1), Some(Level::None), 6, 0)
    );
    link.welcome(2, policy("permissive")).await;
    std::fs::write(&go_on, "").expect("written");
    let (run, from) = (run_id(1), Positions { stdout: 3, stderr: 0 });
    link.send(ToNode::Resume { run, from: from.total(), granted: limits::CREDIT_BYTES_START }).await;
    let got = link.collect(run, from).await;
    let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    assert!(got.text() == format!("ore{numbers}"), "exactly what was missing");
    assert_eq!(got.stderr, b"after");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_run_that_ended_while_the_link_was_down_is_reported_at_hello() {
    let hub = Hub::start().await;
    let mut hub = hub;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    link.start(run_id(1), &["sleep", "0.3"]).await;
    link.until_started(run_id(1)).await;
    let (addr, authority) = hub.stop().await;
    drop(link);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let mut hub = Hub::start_at(addr, authority).await;
    let mut link = hub.link().await;
    let ended = link.hello.runs[0].ended.clone().expect("it ended meanwhile");
    assert_eq!(ended.code, Some(0));
    link.welcome(2, policy("permissive")).await;
    link.send(ToNode::Settled { run: run_id(1) }).await;
    assert_eq!(link.execute(run_id(2), &["true"]).await.ended().code, Some(0));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_frame_of_another_epoch_has_no_effect() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(5, "permissive").await;
    link.send_as(Epoch(4), ToNode::Cancel { run: run_id(1), grace_ms: 0 }).await;
    let ToHub::Refused { run, refusal } = link.next().await else { panic!("it must be refused") };
    assert_eq!((run, refusal.code), (Some(run_id(1)), Code::StaleEpoch));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_lower_epoch_is_not_attached_to() {
    let mut hub = Hub::start().await;
    let mut node = Node::start(&hub).await;
    let link = hub.welcomed(5, "strict").await;
    assert_eq!(node.attached().await.epoch, Epoch(5));
    drop(link);
    let mut stale = hub.welcomed(5, "strict").await;
    assert_eq!(stale.next_or_end().await, None, "the node closes the link");
    let fresh = hub.welcomed(6, "strict").await;
    assert_eq!(fresh.hello.epoch, Epoch(5));
    assert_eq!(node.attached().await.epoch, Epoch(6));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_hub_of_a_later_generation_may_give_an_older_policy_revision() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.link().await;
    let mut newer = policy("permissive");
    newer.revision = Revision(7);
    link.welcome(1, newer).await;
    assert_eq!(link.execute(run_id(1), &["sh", "-c", "echo yes"]).await.text(), "yes\n");
    drop(link);
    let mut link = hub.link().await;
    link.welcome_of(2, 2, policy("strict")).await;
    let got = link.execute(run_id(2), &["sh", "-c", "echo no"]).await;
    assert_eq!(got.ended().cause, EndCause::Denied, "the restored hub's word counts");
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_message_of_a_later_version_is_ignored_and_a_malformed_one_refused() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    link.send_raw(mesh::AttachResponse { epoch: 1, message: None }).await;
    let settled = mesh::RunSettled { run_id: vec![1, 2, 3].into() };
    let message = Some(mesh::attach_response::Message::RunSettled(settled));
    link.send_raw(mesh::AttachResponse { epoch: 1, message }).await;
    let ToHub::Refused { refusal, .. } = link.next().await else { panic!("it must be refused") };
    assert_eq!(refusal.code, Code::InvalidArgument);
    assert_eq!(link.execute(run_id(1), &["true"]).await.ended().code, Some(0));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_node_that_is_told_not_to_come_back_ends_with_the_reason() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let link = hub.welcomed(1, "strict").await;
    let refusal = Refusal::new(Code::NodeRevoked, "This node was removed.");
    link.send(ToNode::Goodbye { refusal, retry_after_ms: None }).await;
    assert_eq!(node.ended().await.0.expect_err("told to stay away").code, Code::NodeRevoked);
}

#[tokio::test]
async fn what_ran_when_the_node_vanished_has_an_unknown_outcome_and_does_not_run_on() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 100", node.path("pid").display());
    link.start(run_id(1), &["sh", "-c", &script]).await;
    link.until_started(run_id(1)).await;
    let pid = super::processes::written_pid(&node.path("pid")).await;
    let folder = node.vanish().await;
    super::processes::until_dead(pid).await;
    drop(link);

    let node = Node::start_in(folder);
    let mut link = hub.link().await;
    // A dial that the vanished node had begun may come first.
    while link.hello.runs.iter().all(|report| report.ended.is_none()) {
        link = hub.link().await;
    }
    let ended = link.hello.runs[0].ended.clone().expect("no longer live");
    assert_eq!(ended.cause, EndCause::UnknownOutcome);
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_stopping_node_ends_its_runs_and_tells_the_hub() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "permissive").await;
    link.start_spec(
        run_id(1),
        RunSpec { argv: vec!["sleep".to_owned(), "100".to_owned()], ..RunSpec::default() },
    )
    .await;
    link.until_started(run_id(1)).await;
    let stopped = tokio::spawn(node.stop());
    let got = link.collect(run_id(1), Positions::default()).await;
    assert_eq!(got.ended().cause, EndCause::Cancelled);
    assert!(got.ended().diagnostic.as_deref().expect("a reason").contains("stopped"));
    link.send(ToNode::Settled { run: run_id(1) }).await;
    stopped.await.expect("no panic").0.expect("a good end");
}

#[tokio::test]
async fn a_certificate_past_half_its_life_is_renewed_over_the_link_and_used_at_the_next_dial() {
    let mut hub = Hub::start().await;
    hub.aged.store(true, std::sync::atomic::Ordering::Relaxed);
    let node = Node::start(&hub).await;
    let mut link = hub.welcomed(1, "strict").await;
    let ToHub::Renew { csr } = link.next().await else { panic!("a renewal is asked for") };
    let key = hub.authority.key().serialize_pem();
    let fresh = super::hub::node_certificate(&csr, &key, false);
    let chain = vec![fresh.into(), hub.authority.der().to_vec().into()];
    let before = std::fs::read(node.path("node/node.crt")).expect("there");
    link.send(ToNode::Certificate { chain }).await;
    let replaced = async {
        while std::fs::read(node.path("node/node.crt")).expect("there") == before {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::hub::PATIENCE, replaced).await.expect("written in time");
    drop(link);
    let mut link = hub.welcomed(2, "strict").await;
    assert_eq!(link.execute(run_id(1), &["true"]).await.ended().code, Some(0));
    node.stop().await.0.expect("a good end");
}

#[tokio::test]
async fn a_certificate_that_aged_while_the_node_was_cut_off_is_renewed_on_the_next_link() {
    let mut hub = Hub::start().await;
    let node = Node::start(&hub).await;
    let link = hub.welcomed(1, "strict").await;
    let key = std::fs::read_to_string(node.path("node/node.key")).expect("the key");
    let key = rcgen::KeyPair::from_pem(&key).expect("a key");
    let csr = rcgen::CertificateParams::default().serialize_request(&key).expect("a request");
    let aged = super::hub::node_certificate(csr.der(), &hub.authority.key().serialize_pem(), true);
    // A certificate of the same key and authority stands for the one that aged.
    let pem = super::hub::pem_of(&aged) + &hub.authority.pem();
    std::fs::write(node.path("node/node.crt"), pem).expect("written");
    drop(link);
    let mut link = hub.welcomed(2, "strict").await;
    let asked = tokio::time::timeout(super::hub::PATIENCE, link.next()).await.expect("in time");
    assert!(matches!(asked, ToHub::Renew { .. }), "{asked:?}");
    node.stop().await.0.expect("a good end");
}
