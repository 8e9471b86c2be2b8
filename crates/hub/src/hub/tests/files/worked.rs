//! Operations for attempts of tasks: nothing of one is done once another has followed it.

use cortex_core::id::{Attempt, TaskId};

use super::*;

impl World {
    /// A payload that the worker with this token has claimed: the task.
    async fn claimed(&self, worker: &str) -> TaskId {
        let task = json!({"kind": "resize", "payload": "x", "backoff": {"initial_ms": 1}});
        self.admin(Method::POST, "/api/v1/pool/tasks", task).await.ok(202);
        let claim = json!({"kinds": ["resize"], "wait_s": 5});
        let claim = self.with_token(worker, Method::POST, "/api/v1/pool/claims", Some(claim)).await.ok(200);
        let found = claim["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{claim}"));
        found.parse().expect("an id")
    }

    async fn put_for(&self, token: &str, attempt: &str) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", &*bearer),
            ("content-type", "application/octet-stream"),
            ("cortex-attempt", attempt),
        ];
        self.raw(Method::PUT, &format!("{FS}?path=/a"), &headers, Bytes::from_static(b"x")).await
    }
}

#[tokio::test]
async fn a63_an_attempt_that_is_over_does_nothing_and_to_strangers_the_task_is_not_there() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let worker = world.token("worker", Role::Operator, false, false).await;
    let stranger = world.token("stranger", Role::Operator, false, false).await;
    let task = world.claimed(&worker).await;
    let first = format!("{task}/1");
    for token in [&worker, &world.admin] {
        let played = async {
            let ask = node.ask().await;
            assert_eq!(ask.attempt, Some((task, Attempt(1))));
            world.answers(&node, ask.id, Ok(written("x")));
        };
        let (reply, ()) = tokio::join!(world.put_for(token, &first), played);
        reply.ok(201);
    }
    world.put_for(&stranger, &first).await.refused(404, "not_found");
    world.put_for(&worker, &format!("{task}/2")).await.refused(404, "not_found");
    world.put_for(&world.admin, &format!("{task}/2")).await.refused(409, "stale_attempt");
    world.lose((task, Attempt(1))).await;
    let stale = world.put_for(&worker, &first).await.refused(409, "stale_attempt");
    assert_eq!(stale["details"]["attempt"], "1");
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a63_what_an_attempt_has_under_way_is_fenced_when_it_ends() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let worker = world.token("worker", Role::Operator, false, false).await;
    let task = world.claimed(&worker).await;
    let played = async {
        let ask = node.ask().await;
        world.lose((task, Attempt(1))).await;
        let fence = told(&node.link, |message| {
            if let ToNode::AttemptFence { task, attempt } = message { Some((task, attempt)) } else { None }
        })
        .await;
        assert_eq!(fence, (task, Attempt(2)));
        world.answers(&node, ask.id, Err(Refusal::new(Code::StaleAttempt, "Another follows it.")));
    };
    let attempt = format!("{task}/1");
    let (reply, ()) = tokio::join!(world.put_for(&worker, &attempt), played);
    reply.refused(409, "stale_attempt");
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    world.stop().await;
}

#[tokio::test]
async fn what_happens_while_an_operation_is_accepted_holds_on_it_when_it_is_sent() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let worker = world.token("worker", Role::Operator, false, false).await;
    let (task, mesh) = (world.claimed(&worker).await, &world.hub.mesh);
    let attempt = Some((task, Attempt(1)));
    let by = crate::mesh::Asker { token: None, user: None, node: node.id, attempt };
    let path = cortex_core::files::path::FilePath::parse("/a").expect("a path");
    let ask = |id| FileAsk {
        id,
        op: FileOp::MakeDir { path: path.clone(), parents: false, mode: None },
        caller: "token:worker".to_owned(),
        policy_revision: cortex_core::id::Revision(1),
        traceparent: None,
        consent: None,
        attempt,
        deadline_ms: 5_000,
        lock: None,
        ticket: None,
    };
    let op = || clock::new_op_id(&world.hub.context.clock);
    let (left, fenced, locked) = (op(), op(), op());
    drop(mesh.file_place(left, by).expect("room"));
    assert_eq!(mesh.file_ops_open(), 0, "one that was not accepted leaves nothing");
    let (first, second) =
        (mesh.file_place(fenced, by).expect("room"), mesh.file_place(locked, by).expect("room"));
    world.lose((task, Attempt(1))).await;
    let waiting = mesh.file(ask(fenced), &first);
    let of_fence = told(&node.link, |message| {
        if let ToNode::AttemptFence { attempt, .. } = message { Some(attempt) } else { None }
    });
    assert_eq!(of_fence.await, Attempt(2));
    assert_eq!(node.ask().await.id, fenced);
    let lock = Refusal::new(Code::Locked, "Somebody is locked.");
    assert_eq!(mesh.end_files(|held| (held.node == node.id).then(|| lock.clone())), 2);
    assert_eq!(node.cancel().await, fenced);
    let other = mesh.file(ask(locked), &second);
    assert_eq!((node.ask().await.id, node.cancel().await), (locked, locked));
    for op in [fenced, locked] {
        world.answers(&node, op, Err(Refusal::new(Code::Timeout, "It was ended.")));
    }
    for answer in [waiting.answer().await, other.answer().await] {
        assert_eq!(answer.expect_err("it was ended").code, Code::Locked);
    }
    assert_eq!(mesh.file_ops_open(), 0);
    world.stop().await;
}
