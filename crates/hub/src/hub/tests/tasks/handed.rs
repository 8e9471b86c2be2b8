//! Workers that wait are given a task by the very commit that makes it ready.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cortex_core::pool::{Kind, Owner, Priority, TaskSpec, Work, desk};
use cortex_store::WriteFn;
use futures::future::join_all;
use tokio::io::AsyncWriteExt as _;

use super::worked::{CLAIMS, claim_bytes};
use super::*;

/// A store that carries its next write out and does not keep it, when it is told so.
fn forgetful(inner: Arc<dyn Store>, forgets: Arc<AtomicBool>) -> Arc<dyn Store> {
    Through::writes(inner, move |inner, work, deadline| {
        let forgets = forgets.swap(false, Ordering::Relaxed);
        let work: WriteFn = Box::new(move |tx| {
            work(tx)?;
            if forgets { Err(StoreError::Failed("it was told to forget".to_owned()).into()) } else { Ok(()) }
        });
        async move { inner.write_boxed(work, deadline).await }
    })
}

impl World {
    async fn asked(&self, kind: &str, count: usize) {
        let wait = async {
            while self.hub.context.board.asking(kind) != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("they ask in time");
    }

    /// Waits for tasks of this kind.
    async fn waits(&self, token: &str, kind: &str, max: usize) -> Vec<Value> {
        let body = json!({"kinds": [kind], "max": max, "wait_s": 20});
        let reply = tokio::time::timeout(SOON, self.with_token(token, Method::POST, CLAIMS, Some(body)));
        reply.await.expect("in time").ok(200)["items"].as_array().expect("items").clone()
    }
}

#[tokio::test]
async fn a_submission_and_the_claim_of_who_waits_are_one_commit() {
    // A claim of its own would be answered that late.
    let late = Duration::from_secs(1);
    let world = World::with(StoreKind::Sqlite, |inner| Through::late(inner, late)).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let submit = async {
        world.asked("resize", 1).await;
        // It has looked once, and has left its claim.
        tokio::time::sleep(late + Duration::from_millis(300)).await;
        let begun = std::time::Instant::now();
        (world.submit(json!({"kind": "resize", "payload": "x"})).await, begun)
    };
    let claim = async {
        let claimed = world.waits(&a, "resize", 1).await;
        (claimed, std::time::Instant::now())
    };
    let ((claimed, at), (task, begun)) = tokio::join!(claim, submit);
    assert_eq!((&claimed[0]["id"], &claimed[0]["attempt"]), (&task["id"], &json!(1)), "{claimed:?}");
    assert!(at < begun + late, "it took {:?}", at.duration_since(begun));
    let story = world.story(&task).await;
    assert_eq!(steps(&story), ["submitted", "ready", "leased"]);
    assert_eq!(world.hub.context.board.leases(), 1);
    world.stop().await;
}

#[tokio::test]
async fn a_submission_that_is_not_kept_gives_nothing_and_who_waits_gets_the_next() {
    let forgets = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&forgets);
    let world = World::with(StoreKind::Sqlite, move |inner| forgetful(inner, told)).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let submit = async {
        world.asked("resize", 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        forgets.store(true, Ordering::Relaxed);
        let lost = world.post(TASKS, json!({"kind": "resize", "payload": "lost"})).await;
        lost.refused(503, "store_unavailable");
        assert_eq!(world.hub.context.board.leases(), 0);
        world.submit(json!({"kind": "resize", "payload": "kept"})).await
    };
    let (claimed, task) = tokio::join!(world.waits(&a, "resize", 1), submit);
    assert_eq!((&claimed[0]["id"], &claimed[0]["payload"]), (&task["id"], &json!("kept")));
    world.stop().await;
}

#[tokio::test]
async fn who_goes_away_while_it_is_handed_a_task_leaves_it_to_others() {
    let late = Duration::from_millis(500);
    let world = World::with(StoreKind::Sqlite, |inner| Through::late(inner, late)).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let addr = world.hub.started().http;
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("the hub listens");
    let body = json!({"kinds": ["resize"], "wait_s": 30});
    stream.write_all(&claim_bytes(addr, &format!("Bearer {a}"), &body)).await.expect("sent");
    world.asked("resize", 1).await;
    tokio::time::sleep(late * 2).await;
    let context = world.hub.context.clone();
    // Its connection ends in the transaction that gives it the task.
    let gone = Arc::new(std::sync::Mutex::new(Some(stream)));
    let ends = Arc::clone(&gone);
    let left = context.board.left_claim("resize").expect("it has left a claim");
    let (board, caller) = (context.board.clone(), world.caller());
    let kind = Name::parse("resize").and_then(Kind::payload).expect("a kind");
    let new = desk::New {
        id: clock::new_task_id(&context.clock),
        spec: Arc::new(TaskSpec::new(Work::Payload { kind, bytes: Vec::new() })),
        priority: Priority::DEFAULT,
        owner: Owner { token: Some(caller.token.id), user: None },
        caller: caller.actor(),
        key: None,
        traceparent: None,
        schedule: None,
        due_at: None,
    };
    let task = json!({"id": new.id.to_string()});
    let now = context.clock.wall();
    world
        .write(move |tx| {
            let desk::Submitted::New(task) = desk::submit(&mut board.over(tx), new, now)? else {
                panic!("it is new")
            };
            let lane = tx.lane(&task.lane())?.expect("it has a lane");
            assert_eq!(left(tx, &vec![(lane, Arc::new(task.lane()))])?, Some(1));
            drop(ends.lock().expect("a lock").take());
            std::thread::sleep(Duration::from_millis(300));
            Ok(())
        })
        .await;
    let back = world.task_once(&task, |story| steps(story).contains(&"released")).await;
    assert_eq!((&back["state"], &back["tries"]), (&json!("ready"), &json!(0)), "{back}");
    let b = world.token("worker-b", Role::Operator, false, false).await;
    assert_eq!(world.waits(&b, "resize", 1).await[0]["attempt"], 2);
    world.stop().await;
}

#[tokio::test]
async fn several_who_wait_share_one_submission_in_its_order_and_the_rest_waits() {
    let world = World::new(StoreKind::Sqlite).await;
    let mut tokens = Vec::new();
    for name in ["worker-a", "worker-b", "worker-c"] {
        tokens.push(world.token(name, Role::Operator, false, false).await);
    }
    let submit = async {
        world.asked("resize", 3).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        let task =
            |priority: u32| json!({"kind": "resize", "payload": priority.to_string(), "priority": priority});
        let tasks: Vec<Value> = [1, 8, 2, 7, 3, 6, 4].map(task).to_vec();
        world.post(TASKS, json!(tasks)).await.ok(202);
    };
    let claims = join_all(tokens.iter().map(|token| world.waits(token, "resize", 2)));
    let (claimed, ()) = tokio::join!(claims, submit);
    let mut got: Vec<&str> =
        claimed.iter().flatten().map(|task| task["payload"].as_str().expect("a payload")).collect();
    got.sort_unstable();
    assert_eq!(got, ["2", "3", "4", "6", "7", "8"], "{claimed:?}");
    assert!(claimed.iter().all(|tasks| tasks.len() == 2), "{claimed:?}");
    let rest = world.waits(&tokens[0], "resize", 9).await;
    assert_eq!((rest.len(), &rest[0]["payload"]), (1, &json!("1")));
    world.stop().await;
}

#[tokio::test]
async fn whose_token_ended_while_it_waited_is_handed_nothing_and_the_next_one_is() {
    let world = World::new(StoreKind::Sqlite).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let b = world.token("worker-b", Role::Operator, false, false).await;
    let ends = async {
        world.asked("resize", 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let path = "/api/v1/tokens/worker-a";
        world.admin(Method::DELETE, path, json!({})).await.ok(200);
        world.submit(json!({"kind": "resize"})).await
    };
    let body = json!({"kinds": ["resize"], "wait_s": 20});
    let (refused, task) = tokio::join!(world.with_token(&a, Method::POST, CLAIMS, Some(body)), ends);
    refused.refused(401, "unauthenticated");
    assert_eq!(world.waits(&b, "resize", 1).await[0]["id"], task["id"]);
    world.stop().await;
}

#[tokio::test]
async fn a_submission_tries_one_that_may_claim_and_cannot_and_passes_over_those_that_may_not() {
    let world = World::new(StoreKind::Sqlite).await;
    let board = world.hub.context.board.clone();
    let tried = Arc::new(AtomicUsize::new(0));
    let asking: Vec<_> = (0..5).map(|_| board.ask(vec!["resize".to_owned()])).collect();
    let outcomes = [None, None, Some(0), Some(0), None];
    let left: Vec<_> = asking
        .iter()
        .zip(outcomes)
        .map(|(asking, outcome)| {
            let tried = Arc::clone(&tried);
            asking.leave(Box::new(move |_, fresh| {
                assert_eq!(fresh.len(), 1, "the lane of what is submitted");
                tried.fetch_add(1, Ordering::Relaxed);
                Ok(outcome)
            }))
        })
        .collect();
    world.submit(json!({"kind": "crop"})).await;
    assert_eq!(tried.load(Ordering::Relaxed), 0, "it is of another kind");
    world.submit(json!({"kind": "resize"})).await;
    assert_eq!(tried.load(Ordering::Relaxed), 3);
    let waits: Vec<bool> = left.iter().map(|left| left.take_back()).collect();
    assert_eq!(waits, [false, false, false, true, true]);
    drop(left);
    drop(asking);
    world.stop().await;
}
