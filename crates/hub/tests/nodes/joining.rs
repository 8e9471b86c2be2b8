//! Joining: who gets in, who does not, and what they are told.

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::audit::Outcome;
use cortex_core::id::InviteId;
use cortex_core::limits::{PROTOCOL, REJOIN_MS_MAX};
use cortex_core::time::WallTime;
use cortex_store::{AuditFilter, StoreExt};

use super::support::{FakeNode, Kept, SOON, TestHub, eventually, join_request};

fn key() -> rcgen::KeyPair {
    rcgen::KeyPair::generate().expect("key")
}

#[tokio::test]
async fn an_invite_makes_a_node_with_its_labels_and_profile_and_works_once() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (id, secret) = hub.invite(|_| ()).await;
    let joined = hub.enrol(join_request(id, &secret, "Build-1", &key())).await.expect("joined");
    assert_eq!((joined.name.as_str(), joined.certificate_chain_der.len()), ("build-1", 2));
    let node = hub.context.directory.nodes().remove(0);
    assert_eq!(node.labels.get("role").map(String::as_str), Some("ci"));
    assert_eq!(hub.context.directory.policy(node.id, node.joined_at).profile, "ci");
    let again = hub.enrol(join_request(id, &secret, "build-2", &key())).await.expect_err("used");
    assert_eq!(again.code, Code::InviteUsed);
    assert_eq!(hub.context.directory.nodes().len(), 1);
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_answered_again_to_the_same_key_until_the_node_attaches() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (id, secret) = hub.invite(|_| ()).await;
    let own = key();
    let request = || join_request(id, &secret, "build-1", &own);
    let first = hub.enrol(request()).await.expect("joined");
    let other = hub.enrol(join_request(id, &secret, "build-2", &key())).await.expect_err("another key");
    assert_eq!(other.code, Code::InviteUsed);
    let wrong = hub.enrol(join_request(id, &[1; 32], "build-1", &own)).await.expect_err("a wrong secret");
    assert_eq!(wrong.code, Code::InviteUnknown);

    let again = hub.enrol(join_request(id, &secret, "build-3", &own)).await.expect("the same key");
    assert_eq!((&again.node_id, again.name.as_str()), (&first.node_id, "build-1"));
    assert_ne!(again.certificate_chain_der[0], first.certificate_chain_der[0], "a certificate of its own");
    assert_eq!(hub.context.directory.nodes().len(), 1);
    let rows = hub.audit().await;
    let allowed: Vec<_> = rows.iter().filter(|logged| logged.row.outcome == Outcome::Allowed).collect();
    assert_eq!(allowed.len(), 2, "{allowed:?}");

    let node = FakeNode::new(&again, &own);
    drop(node.attach(&hub, Vec::new()).await.expect("welcome"));
    assert_eq!(hub.enrol(request()).await.expect_err("it has attached").code, Code::InviteUsed);
}

#[tokio::test]
async fn a_join_is_not_answered_again_when_its_time_is_over_or_its_node_was_removed() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let change = async |id: InviteId, past_ms: u64, removed: bool| {
        let work = move |tx: &mut dyn cortex_store::Tx| {
            let mut invite = tx.invite(id)?.expect("the invite");
            invite.used_at =
                invite.used_at.map(|at| WallTime(at.0 - i64::try_from(past_ms).expect("a span")));
            tx.put_invite(&invite)?;
            let node = tx.node(invite.used_by.expect("a node"))?.expect("the node");
            let removed_at = removed.then_some(WallTime(1));
            tx.put_node(&cortex_core::node::Node { removed_at, ..node })
        };
        hub.context.store.write(SOON, work).await.expect("written");
    };
    for (name, past_ms, removed) in [("a", REJOIN_MS_MAX, false), ("b", 0, true)] {
        let (id, secret) = hub.invite(|_| ()).await;
        let own = key();
        hub.enrol(join_request(id, &secret, name, &own)).await.expect("joined");
        change(id, past_ms, removed).await;
        let late = hub.enrol(join_request(id, &secret, name, &own)).await.expect_err("refused");
        assert_eq!(late.code, Code::InviteUsed, "{name}");
    }
}

#[tokio::test]
async fn a_hundred_clients_with_one_invite_make_one_node() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (id, secret) = hub.invite(|_| ()).await;
    let joins = (0..100).map(|n| {
        let (enrol, request) = (hub.enrol.clone(), join_request(id, &secret, &format!("n{n}"), &key()));
        async move {
            let joining = cortex_hub::service::enrol::Joining {
                recovery_key: None,
                invite: request.invite_id,
                secret: request.secret,
                name: request.name,
                csr_der: request.csr_der,
                protocol: PROTOCOL,
            };
            enrol.join(joining, None).await
        }
    });
    let answers = futures::future::join_all(joins).await;
    let refused =
        |answer: &&Result<_, cortex_core::Refusal>| matches!(answer, Err(r) if r.code == Code::InviteUsed);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(answers.iter().filter(refused).count(), 99);
}

#[tokio::test]
async fn wrong_unknown_expired_revoked_and_malformed_invites_are_refused_and_audited() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let now = hub.context.clock.wall();
    let (good, secret) = hub.invite(|_| ()).await;
    let (old, old_secret) = hub.invite(|invite| invite.expires_at = now).await;
    let (gone, gone_secret) = hub.invite(|invite| invite.revoked_at = Some(now)).await;
    let unknown = InviteId::mint(1, &[9; 10]);
    let cases = [
        (good, vec![0; 32], Code::InviteUnknown),
        (unknown, secret.to_vec(), Code::InviteUnknown),
        (gone, gone_secret.to_vec(), Code::InviteUnknown),
        (old, old_secret.to_vec(), Code::InviteExpired),
        (good, secret[..31].to_vec(), Code::InviteMalformed),
    ];
    for (id, secret, code) in cases {
        let refusal = hub.enrol(join_request(id, &secret, "n", &key())).await.expect_err("refused");
        assert_eq!(refusal.code, code);
    }
    let rows = hub.audit().await;
    assert_eq!(rows.iter().filter(|logged| logged.row.outcome == Outcome::Denied).count(), 5);
    assert!(rows.iter().all(|logged| logged.row.reason.is_some()));
    hub.enrol(join_request(good, &secret, "n", &key())).await.expect("the invite is still good");
}

#[tokio::test]
async fn a_taken_name_leaves_the_invite_good_and_says_what_to_do() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    hub.node("build").await;
    let (id, secret) = hub.invite(|_| ()).await;
    let refusal = hub.enrol(join_request(id, &secret, "build", &key())).await.expect_err("taken");
    assert_eq!(refusal.code, Code::Conflict);
    assert!(refusal.hint.contains("--name"));
    hub.enrol(join_request(id, &secret, "build-2", &key())).await.expect("joined");
}

#[tokio::test]
async fn an_old_protocol_and_a_bad_certificate_request_are_refused() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let (id, secret) = hub.invite(|_| ()).await;
    let old = cortex_wire::mesh::EnrolRequest { protocol: 0, ..join_request(id, &secret, "n", &key()) };
    assert_eq!(hub.enrol(old).await.expect_err("old").code, Code::VersionUnsupported);
    let csr_der = Bytes::from_static(b"nonsense");
    let bad = cortex_wire::mesh::EnrolRequest { csr_der, ..join_request(id, &secret, "n", &key()) };
    assert_eq!(hub.enrol(bad).await.expect_err("bad").code, Code::InvalidArgument);
    hub.enrol(join_request(id, &secret, "n", &key())).await.expect("the invite is still good");
}

#[tokio::test]
async fn guessing_is_rate_limited_by_address() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let key = key();
    let unknown = InviteId::mint(1, &[9; 10]);
    let mut codes = Vec::new();
    for _ in 0..=cortex_core::limits::JOIN_FAILURES_MAX {
        codes.push(hub.enrol(join_request(unknown, &[1; 32], "n", &key)).await.expect_err("refused").code);
    }
    let last = codes.pop().expect("answers");
    assert!(codes.iter().all(|code| *code == Code::InviteUnknown));
    assert_eq!(last, Code::RateLimited);
}

#[tokio::test]
async fn what_is_refused_before_the_secret_is_looked_at_counts_as_guessing() {
    let bound = cortex_core::limits::JOIN_FAILURES_MAX;
    for (protocol, name, code) in
        [(99, "n", Code::VersionUnsupported), (cortex_core::limits::PROTOCOL, "!", Code::InvalidArgument)]
    {
        let kept = Kept::new();
        let hub = TestHub::start(&kept).await;
        let request = join_request(InviteId::mint(1, &[9; 10]), &[1; 32], name, &key());
        let mut codes = Vec::new();
        for _ in 0..bound + 5 {
            let request = cortex_wire::mesh::EnrolRequest { protocol, ..request.clone() };
            codes.push(hub.enrol(request).await.expect_err("refused").code);
        }
        assert!(codes[..bound].iter().all(|of| *of == code), "{codes:?}");
        assert!(codes[bound..].iter().all(|of| *of == Code::RateLimited), "{codes:?}");
        assert_eq!(hub.audit().await.len(), bound);
    }
}

#[tokio::test]
async fn refused_joins_from_many_addresses_have_a_bounded_number_of_audit_rows() {
    let kept = Kept::new();
    let hub = TestHub::start(&kept).await;
    let rows_max = cortex_core::limits::JOIN_REFUSALS_AUDITED_MAX;
    let request = join_request(InviteId::mint(1, &[9; 10]), &[1; 32], "n", &key());
    for n in 0..u32::try_from(rows_max).expect("small") + 40 {
        let joining = cortex_hub::service::enrol::Joining {
            recovery_key: None,
            invite: request.invite_id.clone(),
            secret: request.secret.clone(),
            name: request.name.clone(),
            csr_der: request.csr_der.clone(),
            protocol: PROTOCOL,
        };
        let source = Some(std::net::IpAddr::from(n.to_be_bytes()));
        let refusal = hub.enrol.join(joining, source).await.expect_err("refused");
        assert_eq!(refusal.code, Code::InviteUnknown);
    }
    let newest = async || {
        let filter = AuditFilter { newest: true, ..AuditFilter::default() };
        let mut rows = hub.context.store.read(SOON, move |view| view.audit(&filter, 1)).await.expect("audit");
        rows.pop().expect("a row")
    };
    assert_eq!(newest().await.seq.0, rows_max as u64);
    hub.shutdown.cancel();
    let rest = eventually("a row for the rest", async || {
        let row = newest().await;
        (row.seq.0 > rows_max as u64).then_some(row)
    });
    assert_eq!(rest.await.row.detail.as_deref(), Some("40 more within 60 s"));
}
