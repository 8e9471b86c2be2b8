//! The audit log that somebody changed behind the hub's back: by the chain, the anchor and the nodes.

use std::path::{Path, PathBuf};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::{Generation, Seq};
use cortex_core::node::AuditHead;

use super::*;

const ANCHOR: &str = "audit.anchor";

/// A hub over a data directory that was used before.
async fn again(dir: tempfile::TempDir) -> World {
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts");
    let admin = std::fs::read_to_string(&hub.started().token_file).expect("the token file");
    World { hub, admin: admin.trim().to_owned(), dir }
}

async fn token(world: &World, name: &str) {
    let body = serde_json::json!({"name": name, "role": "viewer"});
    world.admin(Method::POST, "/api/v1/tokens", body).await.ok(201);
}

/// Waits until the anchor holds the newest row.
async fn anchored(world: &World) {
    let head = world.hub.context.directory.audit().head().expect("rows");
    let deadline = Instant::now() + SOON;
    let wanted = format!(" {} ", head.seq);
    while !std::fs::read_to_string(world.dir.path().join(ANCHOR)).unwrap_or_default().contains(&wanted) {
        assert!(Instant::now() < deadline, "the anchor follows");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The database and what is not moved into it yet, of a hub that was stopped.
fn database(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let kept = paths.filter(|path| {
        let path = path.to_string_lossy();
        path.ends_with(".db") || path.ends_with("-wal")
    });
    kept.map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
}

/// Enough rows for the store to move the first ones from its log into the database.
async fn much(world: &World) {
    for _commit in 0..3 {
        let row = AuditRow::new(WallTime(0), "hub", "x", Outcome::Allowed);
        let row = AuditRow { detail: Some("x".repeat(8 * 1024)), ..row };
        world.write(move |tx| (0..1_000).try_for_each(|_| Ok(tx.append_audit(&row).map(drop)?))).await;
    }
}

async fn verify(world: &World) -> serde_json::Value {
    world.get("/api/v1/audit/verify").await.ok(200)
}

#[tokio::test]
async fn a_whole_log_verifies_with_its_anchor_and_with_what_nodes_saw() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let link = world.attach(node).await;
    world.hub.mesh.detach(&link);
    anchored(&world).await;
    let head = world.hub.context.directory.audit().head();
    let link = world.attach_with(node, |hello| hello.audit_head = head).await;
    world.hub.mesh.detach(&link);
    let verdict = verify(&world).await;
    assert_eq!((verdict["ok"].as_bool(), verdict["witnesses"].as_u64()), (Some(true), Some(2)), "{verdict}");
    assert_eq!(world.get("/api/v1/stats").await.ok(200).get("audit_broken"), None);
    world.stop().await;
}

#[tokio::test]
async fn a99_a_row_changed_in_the_database_is_named() {
    let world = World::new(StoreKind::Sqlite).await;
    token(&world, "innocent").await;
    much(&world).await;
    let dir = world.dir;
    world.hub.stop().await;
    let mut files = database(dir.path()).into_iter();
    let (path, mut bytes) =
        files.find(|(path, _)| path.extension().is_some_and(|end| end == "db")).expect("it");
    // The sentence of the audit row, not the token itself.
    let at = bytes.windows(17).position(|text| text == b"innocent (viewer)").expect("a row");
    bytes[at] = b'I';
    std::fs::write(path, bytes).expect("written");
    let world = again(dir).await;
    let verdict = verify(&world).await;
    assert_eq!(verdict["ok"], false, "{verdict}");
    assert_eq!(verdict["broken_at"], 2, "{verdict}");
    let stats = world.get("/api/v1/stats").await.ok(200);
    assert!(stats["audit_broken"].as_str().expect("told").contains("Row 2"), "{stats}");
    world.stop().await;
}

#[tokio::test]
async fn a99_a_log_that_lost_its_end_is_found_by_its_anchor_at_the_next_start_and_stays_evidence() {
    let world = World::new(StoreKind::Sqlite).await;
    token(&world, "early").await;
    let dir = world.dir;
    world.hub.stop().await;
    let older = database(dir.path());
    let world = again(dir).await;
    token(&world, "late").await;
    anchored(&world).await;
    let dir = world.dir;
    world.hub.stop().await;
    for (path, _) in database(dir.path()) {
        std::fs::remove_file(path).expect("removed");
    }
    for (path, bytes) in older {
        std::fs::write(path, bytes).expect("put back");
    }
    let mut dir = dir;
    for _start in 0..2 {
        let world = again(dir).await;
        // Other rows take the place of those that were cut off.
        token(&world, &format!("t{}", clock::random::<1>()[0])).await;
        let verdict = verify(&world).await;
        assert_eq!((&verdict["ok"], &verdict["broken_at"]), (&false.into(), &3.into()), "{verdict}");
        dir = world.dir;
        world.hub.stop().await;
    }
    let aside = std::fs::read_dir(dir.path()).expect("a directory").filter(|entry| {
        let name = entry.as_ref().expect("an entry").file_name();
        name.to_string_lossy().starts_with("audit.anchor.broken.")
    });
    assert_eq!(aside.count(), 1);
}

#[tokio::test]
async fn a99_a_log_that_lost_its_end_together_with_its_anchor_is_found_by_a_node() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let seen = AuditHead { seq: Seq(900), hash: [9; 32] };
    let restored = world.attach_with(node, |hello| {
        hello.audit_head = Some(seen);
        hello.generation = Generation(0);
    });
    world.hub.mesh.detach(&restored.await);
    assert_eq!(verify(&world).await["ok"], true, "a head of another generation is of another log");
    let link = world.attach_with(node, |hello| hello.audit_head = Some(seen)).await;
    world.hub.mesh.detach(&link);
    let verdict = verify(&world).await;
    assert_eq!(verdict["ok"], false, "{verdict}");
    assert!(verdict["why"].as_str().expect("told").contains("node n1 saw row 900"), "{verdict}");
    world.stop().await;
}
