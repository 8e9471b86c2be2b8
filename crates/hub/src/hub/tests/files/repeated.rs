//! Keys: the same operation again, and another one.

use cortex_core::retention::Kept;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::hub::tests::through::Through;
use std::sync::atomic::{AtomicBool, Ordering};

#[tokio::test]
async fn the_same_key_is_the_same_operation_and_happens_once() {
    for kind in [StoreKind::Memory, StoreKind::Sqlite] {
        let world = World::new(kind).await;
        let node = world.with_files("n1").await;
        let key = [("idempotency-key", "k")];
        let played = async {
            let ask = node.ask().await;
            // While it is under way a repeat waits for it.
            let repeat = world.put("/a", &key, "x");
            let answer = async {
                tokio::time::sleep(Duration::from_millis(100)).await;
                world.answers(&node, ask.id, Ok(written("x")));
            };
            let (repeat, ()) = tokio::join!(repeat, answer);
            (ask.id, repeat)
        };
        let (first, (op, repeat)) = tokio::join!(world.put("/a", &key, "x"), played);
        let after = world.put("/a", &key, "x").await;
        for reply in [&first, &repeat, &after] {
            let view = reply.ok(201);
            assert_eq!((&view["op"], &view["bytes"]), (&json!(op.to_string()), &json!(1)));
        }
        let other = world.put("/a", &key, "y").await.refused(409, "conflict");
        assert_eq!(other["details"]["op"], op.to_string());
        node.is_left_alone().await;
        let allowed = world.rows("fs.write").await.into_iter().filter(|row| row.0 == "allowed").count();
        assert_eq!(allowed, 1);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_key_is_its_callers_and_its_nodes() {
    let world = World::new(StoreKind::Memory).await;
    let (one, two) = (world.with_files("n1").await, world.with_files("n2").await);
    let other = world.token("other", Role::Operator, false, false).await;
    let put = async |token: &str, node: &Played, name: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/octet-stream"),
            ("idempotency-key", "k"),
        ];
        let path = format!("/api/v1/nodes/{name}/fs?path=/a");
        let played = async {
            let ask = node.ask().await;
            world.answers(node, ask.id, Ok(written("x")));
            ask.id
        };
        let (reply, op) =
            tokio::join!(world.raw(Method::PUT, &path, &headers, Bytes::from_static(b"x")), played);
        reply.ok(201);
        op
    };
    let ops = [
        put(&world.admin, &one, "n1").await,
        put(&world.admin, &two, "n2").await,
        put(&other, &one, "n1").await,
    ];
    let different: std::collections::BTreeSet<OpId> = ops.into_iter().collect();
    assert_eq!(different.len(), 3);
    world.stop().await;
}

#[tokio::test]
async fn a_repeat_of_what_certainly_was_not_done_is_done() {
    let world = World::new(StoreKind::Sqlite).await;
    let mut node = world.with_files("n1").await;
    let key = [("idempotency-key", "k")];
    let played = async {
        let ask = node.ask().await;
        world.hub.mesh.detach(&node.link);
        node.comes_back(&world, vec![]).await;
        ask.id
    };
    let (reply, lost) = tokio::join!(world.put("/a", &key, "x"), played);
    reply.refused(409, "node_offline");
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, Ok(written("x")));
        ask.id
    };
    let (reply, op) = tokio::join!(world.put("/a", &key, "x"), played);
    reply.ok(201);
    assert_ne!(op, lost);
    assert_eq!(world.kept_op(lost).await, None);
    // What the node itself refused stands.
    let key = [("idempotency-key", "other")];
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, Err(Refusal::new(Code::UnsupportedEntry, "A folder.")));
    };
    let (reply, ()) = tokio::join!(world.put("/b", &key, "x"), played);
    reply.refused(422, "unsupported_entry");
    world.put("/b", &key, "x").await.refused(422, "unsupported_entry");
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a_dry_run_is_a_read_whatever_its_key() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    for _ in 0..2 {
        let played = async {
            let ask = node.ask().await;
            let FileAnswer::Written { etag, bytes, created, before, diff, notes, .. } = written("x") else {
                panic!("it is one")
            };
            let answer = FileAnswer::Written { etag, bytes, created, before, diff, notes, dry_run: true };
            world.answers(&node, ask.id, Ok(answer));
            ask.id
        };
        let key = [("idempotency-key", "k")];
        let (reply, op) = tokio::join!(world.put("/a&dry_run=true", &key, "x"), played);
        let view = reply.ok(200);
        assert_eq!((&view["dry_run"], view["op"].as_str()), (&json!(true), None));
        assert!(!reply.headers.contains_key("etag") && world.kept_op(op).await.is_none());
    }
    assert_eq!(world.told_of("/a").await, []);
    world.stop().await;
}

#[tokio::test]
async fn what_came_of_an_operation_goes_with_its_key_when_it_is_old() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let put = async || {
        let played = async {
            let ask = node.ask().await;
            world.answers(&node, ask.id, Ok(written("x")));
            ask.id
        };
        let key = [("idempotency-key", "k")];
        let (reply, op) = tokio::join!(world.put("/a", &key, "x"), played);
        reply.ok(201);
        op
    };
    let first = put().await;
    let files = crate::service::files::Files::new(
        world.hub.context.clone(),
        world.hub.mesh.clone(),
        crate::metrics::Metrics::default(),
    );
    let stop = CancellationToken::new();
    files.retain(crate::service::files::KEPT, &stop).await.expect("the store works");
    assert!(world.kept_op(first).await.is_some(), "it is young");
    let none = Kept { max: 0, ..crate::service::files::KEPT };
    files.retain(none, &stop).await.expect("the store works");
    assert_eq!(world.kept_op(first).await, None);
    assert_ne!(put().await, first);
    world.stop().await;
}

/// A store that does its work, and while it is told so its callers have stopped waiting by then.
fn unheard(inner: Arc<dyn Store>, is_late: Arc<AtomicBool>) -> Arc<dyn Store> {
    Through::writes(inner, move |inner, work, deadline| {
        let is_late = is_late.load(Ordering::Relaxed);
        async move {
            let done = inner.write_boxed(work, deadline).await;
            if is_late { Err(StoreError::Timeout(deadline).into()) } else { done }
        }
    })
}

#[tokio::test]
async fn what_the_store_kept_too_late_is_not_sent_and_its_repeat_is() {
    let is_late = Arc::new(AtomicBool::new(false));
    let late = Arc::clone(&is_late);
    let world = World::with(StoreKind::Sqlite, |inner| unheard(inner, late)).await;
    let node = world.with_files("n1").await;
    let key = [("idempotency-key", "k")];
    is_late.store(true, Ordering::Relaxed);
    world.put("/a", &key, "x").await.refused(503, "store_unavailable");
    is_late.store(false, Ordering::Relaxed);
    let settled = async {
        loop {
            let count = world.hub.context.view(|view| view.ended_file_op_count()).await.expect("readable");
            if count == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, settled).await.expect("it ends");
    node.is_left_alone().await;
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, Ok(written("x")));
    };
    let (reply, ()) = tokio::join!(world.put("/a", &key, "x"), played);
    reply.ok(201);
    world.stop().await;
}
