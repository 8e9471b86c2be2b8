//! Links that break in each phase, callers that go away, a hub that starts again.

use super::*;
use crate::service::files::{FileCall, FileReply, ReadFrom};
use cortex_core::files::op::{Content, Expect, WriteHow};
use cortex_core::files::path::FilePath;

fn call(world: &World, node: &Played, deadline_ms: u64, key: Option<&str>) -> FileCall {
    let op = FileOp::Write {
        path: FilePath::parse("/خطة").expect("a path"),
        content: Content::Inline(Bytes::from_static(b"x")),
        how: WriteHow::Put,
        expect: Expect::Any,
        mkdirs: false,
        mode: None,
        dry_run: false,
    };
    let node = world.hub.context.directory.node(node.id).expect("it is there");
    let key = key.map(str::to_owned);
    FileCall { node, op, key, attempt: None, lock: None, from: ReadFrom::Any, deadline_ms, traceparent: None }
}

impl World {
    fn files(&self) -> crate::service::files::Files {
        let metrics = crate::metrics::Metrics::default();
        crate::service::files::Files::new(self.hub.context.clone(), self.hub.mesh.clone(), metrics)
    }

    async fn perform(&self, call: FileCall) -> Result<FileReply, Refusal> {
        let (files, caller) = (self.files(), self.caller());
        files.perform(&caller, call).await
    }
}

fn report(op: OpId, end: Option<Result<FileAnswer, Refusal>>) -> Vec<FileReport> {
    let kept =
        |answer: FileAnswer| cortex_core::files::entity::FileOutcome::of(&answer).expect("of a change");
    vec![FileReport { op, end: end.map(|end| end.map(kept)) }]
}

#[tokio::test]
async fn a_read_ends_with_its_link_and_may_be_asked_again() {
    let world = World::new(StoreKind::Memory).await;
    let mut node = world.with_files("n1").await;
    let path = format!("{FS}?path=/a");
    let played = async {
        node.ask().await;
        world.hub.mesh.detach(&node.link);
    };
    let (reply, ()) = tokio::join!(world.fs(Method::GET, &path, &[], ""), played);
    assert_eq!(reply.refused(409, "node_offline")["retryable"], true);
    node.comes_back(&world, vec![]).await;
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, Ok(sample(Verb::Read)));
    };
    let (reply, ()) = tokio::join!(world.fs(Method::GET, &path, &[], ""), played);
    reply.ok(200);
    world.stop().await;
}

#[tokio::test]
async fn a_change_whose_link_broke_is_answered_by_what_the_node_then_reports() {
    for kind in [StoreKind::Memory, StoreKind::Sqlite] {
        let world = World::new(kind).await;
        let mut node = world.with_files("n1").await;
        // It was done, and its answer was lost.
        let played = async {
            let ask = node.ask().await;
            world.hub.mesh.detach(&node.link);
            node.comes_back(&world, report(ask.id, Some(Ok(written("x"))))).await;
            assert_eq!(node.settled().await, ask.id);
        };
        let (reply, ()) = tokio::join!(world.put("/a", &[], "x"), played);
        assert_eq!(reply.ok(201)["bytes"], 1);
        // It is under way, and answered on the new link.
        let played = async {
            let ask = node.ask().await;
            world.hub.mesh.detach(&node.link);
            let old = Arc::clone(&node.link);
            node.comes_back(&world, report(ask.id, None)).await;
            world.hub.mesh.file_answered(&old, ask.id, Err(Refusal::new(Code::NoSpace, "An old link.")));
            world.answers(&node, ask.id, Ok(written("x")));
        };
        let (reply, ()) = tokio::join!(world.put("/a", &[], "x"), played);
        reply.ok(201);
        // The node never had it.
        let played = async {
            let ask = node.ask().await;
            world.hub.mesh.detach(&node.link);
            node.comes_back(&world, vec![]).await;
            ask.id
        };
        let (reply, op) = tokio::join!(world.put("/a", &[], "x"), played);
        reply.refused(409, "node_offline");
        assert!(
            matches!(world.kept_op(op).await.expect("kept").end(), Some(Err(end)) if end.code == Code::NodeOffline)
        );
        world.stop().await;
    }
}

#[tokio::test]
async fn who_cannot_wait_longer_hears_that_nobody_knows_and_the_truth_is_kept_when_it_comes() {
    let world = World::new(StoreKind::Sqlite).await;
    let mut node = world.with_files("n1").await;
    let played = async {
        let ask = node.ask().await;
        world.hub.mesh.detach(&node.link);
        ask.id
    };
    let (done, op) = tokio::join!(world.perform(call(&world, &node, 50, Some("k"))), played);
    let refusal = done.expect_err("nobody knows");
    assert_eq!((refusal.code, refusal.details), (Code::UnknownOutcome, vec![("op", op.to_string())]));
    assert_eq!(world.files().outcome(&world.caller(), op).await.expect("kept").end(), None);
    // A repeat waits for the same operation.
    let call = call(&world, &node, 5_000, Some("k"));
    let played = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        node.comes_back(&world, report(op, Some(Ok(written("x"))))).await;
        node.is_left_alone().await;
    };
    let (again, ()) = tokio::join!(world.perform(call), played);
    assert_eq!(again.expect("it was done").op, Some(op));
    let kept = world.files().outcome(&world.caller(), op).await.expect("kept");
    assert!(kept.end().is_some_and(Result::is_ok), "{kept:?}");
    assert_eq!(world.told_of("/خطة").await, [("file.changed".to_owned(), "write".to_owned())]);
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_a_read_and_lets_a_change_go_on() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let path = FilePath::parse("/a").expect("a path");
    let read = FileCall { op: FileOp::Stat { path, hash: false }, ..call(&world, &node, 9_000, None) };
    let op = tokio::select! {
        done = world.perform(read) => panic!("{done:?}"),
        ask = node.ask() => ask.id,
    };
    assert_eq!(node.cancel().await, op);
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    let op = tokio::select! {
        done = world.perform(call(&world, &node, 9_000, None)) => panic!("{done:?}"),
        ask = node.ask() => ask.id,
    };
    world.answers(&node, op, Ok(written("x")));
    assert!(world.ended(op).await.end().is_some_and(Result::is_ok));
    assert_eq!(node.settled().await, op, "and it was not cancelled");
    world.stop().await;
}

#[tokio::test]
async fn a_hub_that_starts_again_goes_on_waiting_for_what_was_open() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let mut ops = Vec::new();
    for _ in 0..2 {
        ops.push(tokio::select! {
            done = world.perform(call(&world, &node, 9_000, None)) => panic!("{done:?}"),
            ask = node.ask() => ask.id,
        });
    }
    let (dir, admin, id) = (world.dir, world.admin, node.id);
    world.hub.stop().await;
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("it starts again");
    let world = World { hub, admin, dir };
    assert_eq!(world.hub.mesh.file_ops_open(), 2);
    let link = world.attach_with(id, |hello| hello.files = report(ops[0], Some(Ok(written("x"))))).await;
    let node = Played { id, link };
    assert!(world.ended(ops[0]).await.end().is_some_and(Result::is_ok));
    // This one did not reach the node.
    assert!(matches!(world.ended(ops[1]).await.end(), Some(Err(end)) if end.code == Code::NodeOffline));
    assert_eq!(node.settled().await, ops[0]);
    node.is_left_alone().await;
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_does_not_answer_keeps_no_other_waiting() {
    let world = World::new(StoreKind::Sqlite).await;
    let (slow, quick) = (world.with_files("n1").await, world.with_files("n2").await);
    let path = format!("{FS}?path=/a&view=stat");
    let hangs = world.fs(Method::GET, &path, &[], "");
    let goes_on = async {
        let ask = slow.ask().await;
        for _ in 0..20 {
            let played = async {
                let ask = quick.ask().await;
                world.answers(&quick, ask.id, Ok(sample(Verb::Stat)));
            };
            let path = "/api/v1/nodes/n2/fs?path=/a&view=stat";
            let (reply, ()) = tokio::join!(world.fs(Method::GET, path, &[], ""), played);
            reply.ok(200);
        }
        world.answers(&slow, ask.id, Ok(sample(Verb::Stat)));
    };
    let (reply, ()) = tokio::join!(hangs, goes_on);
    reply.ok(200);
    world.stop().await;
}

#[tokio::test]
async fn what_a_removed_node_may_have_done_is_told_as_unknown() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let played = async {
        node.ask().await;
        world.admin(Method::DELETE, "/api/v1/nodes/n1", json!({})).await.ok(204);
    };
    let (reply, ()) = tokio::join!(world.put("/a", &[], "x"), played);
    let problem = reply.json();
    assert_eq!(problem["code"], "unknown_outcome", "{problem}");
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_hub_that_ended_while_it_removed_a_node_gives_up_what_that_had_open() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let op = tokio::select! {
        done = world.perform(call(&world, &node, 9_000, None)) => panic!("{done:?}"),
        ask = node.ask() => ask.id,
    };
    let record = world.hub.context.directory.node(node.id).expect("it is there");
    let removed = Node { removed_at: Some(world.hub.context.clock.wall()), ..Node::clone(&record) };
    world.write(move |tx| tx.put_node(&removed)).await;
    let (dir, admin) = (world.dir, world.admin);
    world.hub.stop().await;
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("it starts again");
    let world = World { hub, admin, dir };
    let ended = world.ended(op).await;
    assert!(matches!(ended.end(), Some(Err(end)) if end.code == Code::UnknownOutcome), "{ended:?}");
    world.stop().await;
}
