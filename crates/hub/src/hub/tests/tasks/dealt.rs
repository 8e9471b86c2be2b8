//! What several nodes are given at once.

use cortex_core::id::LockId;
use cortex_core::lock::{Lock, Target};
use cortex_core::run::EndCause;

use super::given::Played;
use super::*;

const PAUSES: &str = "/api/v1/pool/pauses";

impl World {
    /// Nodes with one slot each, and so many commands that wait until the pool goes on.
    async fn stands(&self, nodes: &[&str], tasks: usize) -> Vec<Played> {
        self.post(PAUSES, json!({"part": "kind:command"})).await.ok(200);
        let mut played = Vec::new();
        for name in nodes {
            played.push(self.played(name, "ci", 1).await);
        }
        let tasks: Vec<Value> = (0..tasks).map(|_| json!({"argv": ["true"]})).collect();
        self.post(TASKS, json!(tasks)).await.ok(202);
        played
    }

    async fn goes_on(&self) {
        let gone = self.admin(Method::DELETE, &format!("{PAUSES}/kind%3Acommand"), Value::Null).await;
        assert_eq!(gone.status, 204, "{gone:?}");
    }

    /// Shuts a node out without a word to the hub's memory: a claim finds that in its transaction.
    async fn quarantine_in_the_store(&self, node: &Played) {
        let id = node.id;
        self.write(move |tx| {
            let node = tx.node(id)?.expect("it is there");
            tx.put_node(&Node { quarantined: true, ..node })
        })
        .await;
    }
}

#[tokio::test]
async fn nodes_with_room_are_given_a_task_each_in_one_commit() {
    let world = World::new(StoreKind::Sqlite).await;
    let nodes = world.stands(&["n1", "n2", "n3", "n4"], 5).await;
    let commits = || world.hub.context.store.stats().commits;
    let before = commits();
    world.goes_on().await;
    let mut runs = std::collections::BTreeSet::new();
    for node in &nodes {
        let start = node.start().await;
        runs.insert(start.task.expect("a task's").0);
    }
    assert_eq!(runs.len(), 4, "each has another one");
    assert_eq!(commits() - before, 2, "the end of the pause, and what it let go");
    for node in &nodes {
        node.is_left_alone().await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_refused_in_the_transaction_stops_no_other() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let (first, second) = (world.played("n1", "db", 5).await, world.played("n2", "ci", 1).await);
        world.quarantine_in_the_store(&first).await;
        // It is asked first, having most room, and for the second one by wish as well.
        for body in [json!({"argv": ["true"]}), json!({"argv": ["true"], "prefer": "role=db"})] {
            let task = world.submit(body).await;
            let start = second.start().await;
            world.begins(&second, &start);
            world.ends(&second, &start, EndCause::Exited, Some(0));
            world.task_reaches(&task, "done").await;
        }
        first.is_left_alone().await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_a_lock_in_the_store_holds_is_passed_over_for_the_next() {
    let world = World::new(StoreKind::Sqlite).await;
    let (first, second) = (world.played("n1", "db", 5).await, world.played("n2", "ci", 1).await);
    let lock = Lock {
        id: LockId::mint(1, &[1; 10]),
        target: Target::Node(first.id),
        message: String::new(),
        created_by: "token:admin".to_owned(),
        created_at: WallTime(1),
        expires_at: None,
        lifted_at: None,
        lifted_by: None,
    };
    world.write(move |tx| Ok(tx.put_lock(&lock)?)).await;
    let task = world.submit(json!({"argv": ["true"]})).await;
    let start = second.start().await;
    assert_eq!(start.task.map(|(task, _)| task.to_string()), Some(id(&task)));
    first.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_denies_leaves_the_task_to_another_that_had_room_all_the_while() {
    let world = World::new(StoreKind::Sqlite).await;
    let strict = world.labelled("strict", "ci").await;
    let _strict = world.attach_with(strict, |hello| hello.facts.slots = 9).await;
    let open = world.played("open", "ci", 1).await;
    let task = world.submit(json!({"argv": ["curl"]})).await;
    assert_eq!(open.start().await.spec.argv, ["curl"]);
    let story = world.story(&task).await;
    assert_eq!((&story["excluded"], &story["tries"]), (&json!(["strict"]), &json!(0)));
    world.stop().await;
}

#[tokio::test]
async fn behind_more_full_keys_than_one_transaction_passes_over_nodes_find_what_is_free() {
    let world = World::new(StoreKind::Memory).await;
    let nodes = [world.played("n1", "ci", 1).await, world.played("n2", "ci", 1).await];
    let keyed = json!({"argv": ["keyed"], "concurrency": {"key": "db", "limit": 1}});
    world.submit(keyed.clone()).await;
    let busy = |node: &&Played| world.hub.context.board.busy(node.id) == 1;
    world.until("one works on it", |_| nodes.iter().any(|node| busy(&node))).await;
    let idle = nodes.iter().find(|node| !busy(node)).expect("the other one");
    world.post(PAUSES, json!({"part": "kind:command"})).await.ok(200);
    for _ in 0..2 {
        let many: Vec<&Value> = (0..700).map(|_| &keyed).collect();
        world.post(TASKS, json!(many)).await.ok(202);
    }
    let free = world.submit(json!({"argv": ["free"], "priority": 1})).await;
    world.goes_on().await;
    let start = idle.start().await;
    assert_eq!(start.task.map(|(task, _)| task.to_string()), Some(id(&free)));
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_ends_a_task_is_given_the_next_by_the_same_commit() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let node = world.played("n1", "ci", 1).await;
        let tasks: Vec<Value> = (0..3).map(|_| json!({"argv": ["true"]})).collect();
        world.post(TASKS, json!(tasks)).await.ok(202);
        let commits = || world.hub.context.store.stats().commits;
        let mut start = node.start().await;
        for _ in 0..2 {
            let before = commits();
            world.begins(&node, &start);
            world.ends(&node, &start, EndCause::Exited, Some(0));
            start = node.start().await;
            assert_eq!(commits() - before, 1, "the run, its task, and the next of each");
        }
        world.ends(&node, &start, EndCause::Exited, Some(0));
        node.is_left_alone().await;
        assert_eq!(world.hub.context.board.busy(node.id), 0);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_node_that_ends_what_it_had_lost_is_given_nothing_for_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.played("n1", "ci", 1).await;
    world.submit(json!({"argv": ["one"], "priority": 8})).await;
    let first = node.start().await;
    world.begins(&node, &first);
    world.lose(first.task.expect("an attempt")).await;
    let second = node.start().await;
    world.begins(&node, &second);
    let next = world.submit(json!({"argv": ["two"]})).await;
    world.ends(&node, &first, EndCause::Exited, Some(0));
    node.is_left_alone().await;
    assert_eq!(world.story(&next).await["state"], "ready", "its one slot is taken");
    world.ends(&node, &second, EndCause::Exited, Some(0));
    assert_eq!(node.start().await.spec.argv, ["two"]);
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_ends_a_task_is_given_nothing_that_another_is_asked_first_for_or_that_stands_still() {
    let world = World::new(StoreKind::Sqlite).await;
    let (here, there) = (world.played("n1", "ci", 1).await, world.played("n2", "db", 1).await);
    let on = |role: &str, argv: &str| json!({"argv": [argv], "selector": format!("role={role}")});
    world.submit(on("ci", "one")).await;
    world.submit(on("db", "two")).await;
    let (one, two) = (here.start().await, there.start().await);
    world.submit(json!({"argv": ["three"], "prefer": "role=db"})).await;
    world.ends(&there, &two, EndCause::Exited, Some(0));
    assert_eq!(there.start().await.spec.argv, ["three"], "it has room by this very end");
    world.post(PAUSES, json!({"part": "node:n1"})).await.ok(200);
    let waits = world.submit(on("ci", "four")).await;
    world.ends(&here, &one, EndCause::Exited, Some(0));
    here.is_left_alone().await;
    assert_eq!(world.story(&waits).await["state"], "ready");
    world.stop().await;
}
