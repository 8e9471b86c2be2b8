//! Nodes whose certificates have ended: who comes back, who is told to wait, and who is found out.

use std::time::Duration;

use bytes::Bytes;
use cortex_core::event::EventKind;
use cortex_core::id::{LockId, NodeId, Seq};
use cortex_core::limits::{JOIN_FAILURES_MAX, PROTOCOL, RECOVERIES_MAX};
use cortex_core::lock::{Lock, Target};
use cortex_core::node::Node;
use cortex_core::recovery::request_statement;
use cortex_core::{Code, Refusal};
use cortex_hub::clock::Clock;
use cortex_store::{StoreExt as _, Tx};
use cortex_wire::error::refusal_from_status;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use cortex_wire::mesh::{RecoverRequest, RecoverResponse};
use rcgen::{PublicKeyData as _, SigningKey as _};

use super::support::{FakeNode, Kept, SOON, TestHub, join_request};

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A machine as its disk has it.
#[derive(Clone)]
struct Disk {
    id: NodeId,
    authority: [u8; 32],
    recovery: std::sync::Arc<rcgen::KeyPair>,
    counter: u32,
}

impl Disk {
    /// Joins, with a recovery key.
    async fn join(hub: &TestHub, name: &str) -> (Self, FakeNode) {
        let [key, recovery] = [(); 2].map(|()| rcgen::KeyPair::generate().expect("a key"));
        let (invite, secret) = hub.invite(|_| ()).await;
        let mut request = join_request(invite, &secret, name, &key);
        request.recovery_key_der = recovery.subject_public_key_info().into();
        let joined = hub.enrol(request).await.expect("joined");
        assert_eq!(joined.recoveries_left, RECOVERIES_MAX);
        let id = NodeId::from_slice(&joined.node_id).expect("an id");
        let authority = *blake3::hash(&joined.certificate_chain_der[1]).as_bytes();
        (Self { id, authority, recovery: recovery.into(), counter: 0 }, FakeNode::new(&joined, &key))
    }

    fn request(&self, key: &rcgen::KeyPair) -> RecoverRequest {
        let csr = rcgen::CertificateParams::default().serialize_request(key).expect("a request");
        let hash = *blake3::hash(csr.der()).as_bytes();
        let statement = request_statement(&self.authority, self.id, self.counter, &hash);
        RecoverRequest {
            node_id: Bytes::copy_from_slice(self.id.as_bytes()),
            csr_der: Bytes::copy_from_slice(csr.der()),
            counter: self.counter,
            signature: self.recovery.sign(&statement).expect("signed").into(),
            protocol: PROTOCOL,
        }
    }

    /// Recovers with a fresh key, and counts it.
    async fn recover(&mut self, hub: &TestHub) -> Result<FakeNode, Refusal> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let answer = ask(hub, self.request(&key)).await?;
        assert_eq!(answer.counter, self.counter + 1);
        self.counter = answer.counter;
        Ok(self.node(&answer, &key))
    }

    fn node(&self, answer: &RecoverResponse, key: &rcgen::KeyPair) -> FakeNode {
        let joined = cortex_wire::mesh::EnrolResponse {
            node_id: Bytes::copy_from_slice(self.id.as_bytes()),
            certificate_chain_der: answer.certificate_chain_der.clone(),
            ..cortex_wire::mesh::EnrolResponse::default()
        };
        FakeNode::new(&joined, key)
    }
}

async fn ask(hub: &TestHub, request: RecoverRequest) -> Result<RecoverResponse, Refusal> {
    let mut client = EnrolmentServiceClient::new(hub.channel(None).await);
    let answer = client.recover(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| refusal_from_status(&status))
}

async fn code(hub: &TestHub, request: RecoverRequest) -> Code {
    ask(hub, request).await.expect_err("refused").code
}

async fn change(hub: &TestHub, id: NodeId, change: impl FnOnce(&mut Node) + Send + 'static) {
    let directory = hub.context.directory.clone();
    let work = move |tx: &mut dyn Tx| {
        let mut node = tx.node(id)?.expect("the node");
        change(&mut node);
        tx.put_node(&node)?;
        Ok(node)
    };
    directory.put_node(hub.context.store.write(SOON, work).await.expect("written"));
}

async fn kinds(hub: &TestHub) -> Vec<EventKind> {
    let events = hub.context.store.read(SOON, |view| view.events(Seq(0), 1_000)).await.expect("events");
    events.into_iter().map(|logged| logged.event.kind).collect()
}

#[tokio::test]
async fn a_laptop_that_slept_a_month_comes_back_without_a_new_invite() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (mut disk, node) = Disk::join(&hub, "laptop").await;
    hub.stop().await;
    let hub = TestHub::start_at(&kept, Clock::default().ahead(DAY * 30)).await;
    assert_eq!(node.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::Unauthenticated));
    let back = disk.recover(&hub).await.expect("recovered");
    back.attach(&hub, Vec::new()).await.expect("welcome");
    let audit = hub.audit().await;
    let row = audit.iter().find(|logged| logged.row.action == "node.recover").expect("a row");
    assert_eq!((row.row.actor.as_str(), row.row.node), ("node:laptop", Some(disk.id)));
    assert!(row.row.detail.as_deref().is_some_and(|detail| detail.contains("4 left")), "{row:?}");
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_and_costs_nothing() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (disk, _) = Disk::join(&hub, "laptop").await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let first = ask(&hub, disk.request(&key)).await.expect("recovered");
    let again = ask(&hub, disk.request(&key)).await.expect("the same once more");
    assert_eq!((first.counter, first.recoveries_left), (again.counter, again.recoveries_left));
    disk.node(&again, &key).attach(&hub, Vec::new()).await.expect("welcome");
}

#[tokio::test]
async fn a_copied_disk_is_noticed_whichever_of_the_two_comes_first() {
    for original_first in [true, false] {
        let kept = Kept::new();
        let hub = TestHub::start(&kept).await;
        let (mut original, node) = Disk::join(&hub, "laptop").await;
        let mut copy = original.clone();
        let (first, second) =
            if original_first { (&mut original, &mut copy) } else { (&mut copy, &mut original) };
        let linked = first.recover(&hub).await.expect("the first comes back");
        let mut link = linked.attach(&hub, Vec::new()).await.expect("welcome");
        // The certificate of before is in its time, and is told to recover.
        assert_eq!(node.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::Unauthenticated));
        let found_out = second.recover(&hub).await.err().map(|refusal| refusal.code);
        assert_eq!(found_out, Some(Code::ClonedIdentity));
        assert_eq!(link.until_closed().await.code, Code::ClonedIdentity, "both are shut out");
        assert_eq!(linked.dial(&hub).await.err().map(|refusal| refusal.code), Some(Code::ClonedIdentity));
        let key = rcgen::KeyPair::generate().expect("a key");
        assert_eq!(code(&hub, first.request(&key)).await, Code::ClonedIdentity);
        hub.until_stored(first.id, "the quarantine", |node| node.quarantined).await;
        assert!(kinds(&hub).await.contains(&EventKind::NodeQuarantined));
        let audit = hub.audit().await;
        let denied = |action: &str, reason: &str| {
            audit.iter().any(|one| one.row.action == action && one.row.reason.as_deref() == Some(reason))
        };
        assert!(denied("node.recover", "cloned_identity") && denied("node.quarantine", "cloned_identity"));
    }
}

#[tokio::test]
async fn recoveries_are_counted_and_more_may_be_allowed() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (mut disk, _) = Disk::join(&hub, "laptop").await;
    for _ in 0..RECOVERIES_MAX {
        disk.recover(&hub).await.expect("recovered");
    }
    let refused = disk.recover(&hub).await.err().map(|refusal| refusal.code);
    assert_eq!(refused, Some(Code::RecoveriesExhausted));
    change(&hub, disk.id, |node| {
        if let Some(recovery) = &mut node.recovery {
            recovery.left = 1;
        }
    })
    .await;
    disk.recover(&hub).await.expect("allowed again");
    let refused = disk.recover(&hub).await.err().map(|refusal| refusal.code);
    assert_eq!(refused, Some(Code::RecoveriesExhausted));
}

#[tokio::test]
async fn who_was_removed_locked_or_is_not_known_does_not_recover() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (mut disk, _) = Disk::join(&hub, "laptop").await;
    let key = rcgen::KeyPair::generate().expect("a key");
    let good = disk.request(&key);
    let stranger = Disk { recovery: rcgen::KeyPair::generate().expect("a key").into(), ..disk.clone() };
    for (what, request, refused) in [
        ("another key's signature", stranger.request(&key), Code::Unauthenticated),
        (
            "another counter than was signed",
            RecoverRequest { counter: 1, ..good.clone() },
            Code::Unauthenticated,
        ),
        ("no signature", RecoverRequest { signature: Bytes::new(), ..good.clone() }, Code::Unauthenticated),
        (
            "another request than was signed",
            RecoverRequest { csr_der: Bytes::from_static(b"x"), ..good.clone() },
            Code::Unauthenticated,
        ),
        (
            "a node that never was",
            RecoverRequest { node_id: Bytes::from(vec![1; 16]), ..good.clone() },
            Code::NodeRevoked,
        ),
        ("no node", RecoverRequest { node_id: Bytes::new(), ..good.clone() }, Code::NodeRevoked),
        ("an old protocol", RecoverRequest { protocol: 1, ..good.clone() }, Code::VersionUnsupported),
    ] {
        assert_eq!(code(&hub, request).await, refused, "{what}");
    }
    let (without, _) = (hub.node("old").await, ());
    let request = Disk { id: without.id, ..disk.clone() }.request(&key);
    assert_eq!(code(&hub, request).await, Code::Unauthenticated, "it never gave a recovery key");
    let lock = Lock {
        id: LockId::mint(1, &[1; 10]),
        target: Target::Node(disk.id),
        message: "stolen".to_owned(),
        created_by: "token:admin".to_owned(),
        created_at: hub.context.clock.wall(),
        expires_at: None,
        lifted_at: None,
        lifted_by: None,
    };
    let lifted = Lock { lifted_at: Some(hub.context.clock.wall()), ..lock.clone() };
    hub.context.store.write(SOON, move |tx| Ok(tx.put_lock(&lock)?)).await.expect("locked");
    let refusal = ask(&hub, disk.request(&key)).await.expect_err("locked");
    assert!(refusal.code == Code::Locked && refusal.message.contains("stolen"), "{refusal:?}");
    hub.context.store.write(SOON, move |tx| Ok(tx.put_lock(&lifted)?)).await.expect("lifted");
    disk.recover(&hub).await.expect("the lock is lifted");
    let now = hub.context.clock.wall();
    change(&hub, disk.id, move |node| node.removed_at = Some(now)).await;
    assert_eq!(disk.recover(&hub).await.err().map(|refusal| refusal.code), Some(Code::NodeRevoked));
}

#[tokio::test]
async fn whoever_guesses_is_told_to_wait() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (mut disk, _) = Disk::join(&hub, "laptop").await;
    let key = rcgen::KeyPair::generate().expect("a key");
    for _ in 0..JOIN_FAILURES_MAX {
        let wrong = RecoverRequest { signature: Bytes::new(), ..disk.request(&key) };
        assert_eq!(code(&hub, wrong).await, Code::Unauthenticated);
    }
    assert_eq!(disk.recover(&hub).await.err().map(|refusal| refusal.code), Some(Code::RateLimited));
}
