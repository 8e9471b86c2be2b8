//! Start, stop, a second start, and a store that stalls.

use std::os::unix::fs::PermissionsExt as _;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::limits::PAGE_ITEMS_MAX;
use cortex_core::message::ToNode;
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::mesh::Outgoing;

#[tokio::test]
async fn the_first_start_makes_a_token_file_for_its_owner_and_later_ones_keep_all() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
    assert!(hub.started().first_start);
    let file = hub.started().token_file.clone();
    assert_eq!(file.metadata().expect("the file").permissions().mode() & 0o777, 0o600);
    let secret = std::fs::read_to_string(&file).expect("the secret");
    hub.stop().await;

    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts again");
    assert!(!hub.started().first_start);
    assert_eq!(std::fs::read_to_string(&file).expect("the secret"), secret);
    let world = World { hub, admin: secret.trim().to_owned(), dir };
    assert_eq!(world.get("/api/v1/whoami").await.ok(200)["role"], "admin");
    let export = world.get("/api/v1/audit/export").await;
    assert!(!String::from_utf8_lossy(&export.body).contains(&world.admin));
    world.stop().await;
}

#[tokio::test]
async fn a_hub_that_knows_nodes_and_lost_its_authority_does_not_start_with_another() {
    let world = World::new(StoreKind::Sqlite).await;
    world.node("n1").await;
    let dir = world.dir;
    world.hub.stop().await;
    let (key, certificate) = (dir.path().join("authority.key"), dir.path().join("authority.crt"));
    let kept = std::fs::read(&key).expect("the key");
    std::fs::remove_file(&key).expect("removed");
    std::fs::remove_file(&certificate).expect("removed");
    let Err(refusal) = Hub::start(config(dir.path(), StoreKind::Sqlite)).await else { panic!("it starts") };
    assert_eq!(refusal.code, Code::BadConfig);
    assert!(refusal.hint.contains("backup"), "{refusal}");
    assert!(!key.exists() && !certificate.exists(), "nothing takes their place");
    std::fs::write(&key, kept).expect("restored");
    let deadline = Instant::now() + SOON;
    let hub = loop {
        // The store of the start that failed lets go of the directory on its own thread.
        match Hub::start(config(dir.path(), StoreKind::Sqlite)).await {
            Ok(hub) => break hub,
            Err(refusal) => assert_eq!(refusal.code, Code::Conflict, "{refusal}"),
        }
        assert!(Instant::now() < deadline, "the key is enough");
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    hub.stop().await;
}

#[tokio::test]
async fn audit_rows_that_a_stalled_store_left_behind_are_looked_for_in_the_data_directory() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool = dir.path().join("audit.spool");
    let row = json!({"at": 7, "actor": "token:ci", "action": "run.cancel", "outcome": "allowed", "argv": []});
    std::fs::write(&spool, format!("{row}\n")).expect("written");
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
    let deadline = Instant::now() + SOON;
    let admin = std::fs::read_to_string(&hub.started().token_file).expect("the token file");
    let world = World { hub, admin: admin.trim().to_owned(), dir };
    // The file is put aside first, and its rows are written then.
    let rows = loop {
        assert!(Instant::now() < deadline, "the spool is imported");
        let rows = world.get("/api/v1/audit?actor=token:ci").await.ok(200);
        if rows["items"] != json!([]) && !spool.exists() {
            break rows;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(rows["items"][0]["action"], "run.cancel", "{rows}");
    world.stop().await;
}

#[tokio::test]
async fn output_of_runs_stands_in_a_directory_of_its_own_that_only_its_owner_can_read() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let link = world.attach(node).await;
    let run = world.open_run("n1", &link, b"secret").await.to_string();
    let shelf = world.dir.path().join("runs").join(&run[run.len() - 2..]);
    let file = shelf.join(format!("{run}.log"));
    let deadline = Instant::now() + SOON;
    while !file.exists() {
        assert!(Instant::now() < deadline, "{} is written", file.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mode = |path: &std::path::Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&shelf), mode(&world.dir.path().join("runs"))), (0o600, 0o700, 0o700));
    let names: Vec<_> = std::fs::read_dir(world.dir.path()).expect("readable").collect();
    let dirs = names.iter().flatten().filter(|entry| entry.path().is_dir()).count();
    assert_eq!(dirs, 1, "{names:?}");
    world.stop().await;
}

#[tokio::test]
async fn http_beyond_this_machine_needs_an_explicit_word() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = Config { http: SocketAddr::from(([0, 0, 0, 0], 0)), ..config(dir.path(), StoreKind::Memory) };
    let refusal = Hub::start(open.clone()).await.err().expect("refused");
    assert_eq!(refusal.code, Code::BadConfig);
    assert!(refusal.hint.contains("allow_plain_http"));
    let hub = Hub::start(Config { allow_plain_http: true, ..open }).await.expect("allowed");
    hub.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let world = World::new(StoreKind::Memory).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let taken = Config { http: world.hub.started().http, ..config(dir.path(), StoreKind::Memory) };
    let refusal = Hub::start(taken).await.err().expect("refused");
    assert_eq!(refusal.code, Code::BadConfig);
    assert!(refusal.message.contains(&world.hub.started().http.to_string()));
    world.stop().await;
}

#[tokio::test]
async fn stopping_ends_open_streams_within_two_seconds_and_closes_the_port() {
    let world = World::new(StoreKind::Memory).await;
    let addr = world.hub.started().http;
    let bearer = format!("Bearer {}", world.admin);
    let stream = world.open(Method::GET, "/api/v1/events", &[("authorization", &bearer)], Bytes::new()).await;
    let reading = tokio::spawn(stream.into_body().collect());
    let began = Instant::now();
    world.stop().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(reading.await.expect("read").is_ok(), "the stream ends whole");
    assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "nobody listens");
}

/// A store whose calls wait while it is stalled, and give up at their deadline as the real one does.
fn stalling(inner: Arc<dyn Store>, stalled: watch::Receiver<bool>) -> Arc<dyn Store> {
    Through::before(inner, move |_write, deadline| {
        let mut stalled = stalled.clone();
        async move {
            let free = tokio::time::timeout(deadline, stalled.wait_for(|stalled| !*stalled)).await;
            free.map(|_| ()).map_err(|_| StoreError::Timeout(deadline))
        }
    })
}

#[tokio::test]
async fn an_export_of_the_audit_log_that_a_stop_cuts_short_does_not_end_whole() {
    let (armed, stalled) = watch::channel(false);
    let pages = std::sync::atomic::AtomicUsize::new(0);
    let before = move |write: bool, _: Duration| {
        let counts = !write && *stalled.borrow();
        let second = counts && pages.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1;
        async move { if second { std::future::pending().await } else { Ok(()) } }
    };
    let world = World::with(StoreKind::Memory, |inner| Through::before(inner, before)).await;
    let row = AuditRow::new(WallTime(7), "token:ci".to_owned(), "run.cancel", Outcome::Allowed);
    world
        .write(move |tx| {
            (0..PAGE_ITEMS_MAX).try_for_each(|_| tx.append_audit(&row).map(drop).map_err(Into::into))
        })
        .await;
    armed.send_replace(true);
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", bearer.as_str())];
    let mut export =
        world.open(Method::GET, "/api/v1/audit/export", &headers, Bytes::new()).await.into_body();
    let first = tokio::time::timeout(SOON, export.frame()).await.expect("in time");
    assert!(first.is_some_and(|page| page.is_ok()), "a first page");
    let rest = tokio::spawn(export.collect());
    world.stop().await;
    assert!(rest.await.expect("read").is_err(), "not the end, but an error");
}

#[tokio::test]
async fn a_store_that_stalls_takes_readiness_and_nothing_that_does_not_need_it() {
    let (stall, stalled) = watch::channel(false);
    let world = World::with(StoreKind::Memory, |inner| stalling(inner, stalled)).await;
    world.node("n1").await;
    assert_eq!(world.get("/readyz").await.status, 200);
    stall.send_replace(true);
    let unready = world.get("/readyz").await;
    unready.refused(503, "store_unavailable");
    assert!(unready.headers.contains_key("retry-after"));
    for path in [
        "/healthz",
        "/metrics",
        "/api/v1/nodes",
        "/api/v1/nodes/n1",
        "/api/v1/policies",
        "/api/v1/stats",
        "/api/v1/tokens",
    ] {
        assert_eq!(world.get(path).await.status, 200, "{path}");
    }
    stall.send_replace(false);
    assert_eq!(world.get("/readyz").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_change_whose_caller_goes_away_is_still_known_to_this_process() {
    let (stall, stalled) = watch::channel(false);
    let world = World::with(StoreKind::Memory, |inner| stalling(inner, stalled)).await;
    let operator = world.token("gone", Role::Operator, false, false).await;
    stall.send_replace(true);
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", bearer.as_str())];
    let hung = world.open(Method::DELETE, "/api/v1/tokens/gone", &headers, Bytes::new());
    assert!(tokio::time::timeout(Duration::from_millis(100), hung).await.is_err(), "it waits for the store");
    let seen = world.hub.context.bus.head();
    stall.send_replace(false);
    tokio::time::timeout(SOON, world.hub.context.bus.reached(seen.next())).await.expect("it is committed");
    let revoked = async {
        while world
            .hub
            .context
            .directory
            .token(&secret::hash(operator.as_bytes()))
            .is_some_and(|t| t.revoked_at.is_none())
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, revoked).await.expect("the directory follows");
    world.stop().await;
}

/// A store that keeps writes back when it is told to: their callers stop waiting at once, and they
/// are done when it is let go.
fn late(inner: Arc<dyn Store>, kept_back: watch::Receiver<bool>) -> Arc<dyn Store> {
    Through::writes(inner, move |inner, work, deadline| {
        let mut kept_back = kept_back.clone();
        async move {
            if !*kept_back.borrow() {
                return inner.write_boxed(work, deadline).await;
            }
            drop(tokio::spawn(async move {
                kept_back.wait_for(|kept_back| !kept_back).await.expect("the test goes on");
                inner.write_boxed(work, SOON).await
            }));
            Err(StoreError::Timeout(deadline).into())
        }
    })
}

#[tokio::test]
async fn a_change_that_its_caller_stopped_waiting_for_takes_its_whole_effect_when_it_is_stored() {
    let (keep_back, kept_back) = watch::channel(false);
    let world = World::with(StoreKind::Sqlite, |inner| late(inner, kept_back)).await;
    let (removed, tightened) = (world.node("n1").await, world.node("n2").await);
    let (link, other) = (world.attach(removed).await, world.attach(tightened).await);
    let operator = world.token("leaver", Role::Operator, false, false).await;
    keep_back.send_replace(true);
    let profile = json!({"profile": "permissive"});
    for (method, path, body) in [
        (Method::DELETE, "/api/v1/nodes/n1", json!({})),
        (Method::PUT, "/api/v1/policies/n2", profile),
        (Method::DELETE, "/api/v1/tokens/leaver", json!({})),
    ] {
        world.admin(method, path, body).await.refused(503, "store_unavailable");
    }
    assert!(!link.is_closed(), "nothing is stored yet");
    keep_back.send_replace(false);
    tokio::time::timeout(SOON, link.closed()).await.expect("the link of the removed node ends");
    world.get("/api/v1/nodes/n1").await.refused(404, "node_not_found");
    let policy = async {
        loop {
            let next = std::future::poll_fn(|context| other.poll_out(context)).await;
            let Some(Outgoing::Message(envelope)) = next else { panic!("the link ended: {next:?}") };
            if let ToNode::Policy(policy) = envelope.message {
                return policy;
            }
        }
    };
    let policy = tokio::time::timeout(SOON, policy).await.expect("the policy is pushed");
    assert_eq!(policy.policy.expect("its own").profile, "permissive");
    let hash = secret::hash(operator.as_bytes());
    let revoked = async {
        while world.hub.context.directory.token(&hash).is_some_and(|token| token.revoked_at.is_none()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, revoked).await.expect("the token is revoked");
    world.stop().await;
}

#[tokio::test]
async fn the_figures_are_in_the_form_that_prometheus_reads() {
    let world = World::new(StoreKind::Memory).await;
    world.get("/nowhere").await.refused(404, "not_found");
    world.admin(Method::POST, "/api/v1/tokens", json!({"name": "t", "role": "viewer"})).await.ok(201);
    let reply = world.get("/metrics").await;
    let text = String::from_utf8(reply.body.to_vec()).expect("text");
    assert!(text.ends_with("# EOF\n"));
    for line in [
        "cortex_nodes_online 0",
        "cortex_event_listeners 0",
        "cortex_http_refusals_total{code=\"not_found\"} 1",
        "cortex_http_requests_total{method=\"POST\",route=\"/api/v1/tokens\",status=\"2xx\"} 1",
        "cortex_worker_starts_total{worker=\"policy-expiry\"} 1",
        "cortex_http_connections_accepted_total 3",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    world.stop().await;
}
