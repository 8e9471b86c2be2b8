//! What nodes are given, with a node that the test plays.

use cortex_core::message::{Start, ToNode};
use cortex_core::run::{EndCause, Ended};
use cortex_core::sandbox::Level;
use cortex_core::stream::Positions;

use super::*;

/// A node that the test plays.
pub(super) struct Played {
    pub(super) id: NodeId,
    pub(super) link: Arc<Link>,
}

impl World {
    /// A node with so many slots that allows everything.
    pub(super) async fn played(&self, name: &str, role: &str, slots: u32) -> Played {
        let id = self.labelled(name, role).await;
        let path = format!("/api/v1/policies/{name}");
        self.admin(Method::PUT, &path, json!({"profile": "permissive"})).await.ok(200);
        let link = self.attach_with(id, |hello| hello.facts.slots = slots).await;
        Played { id, link }
    }

    pub(super) fn begins(&self, node: &Played, start: &Start) {
        self.hub.mesh.handle(&node.link, ToHub::Started { run: start.run, level: Level::None });
    }

    pub(super) fn ends(&self, node: &Played, start: &Start, cause: EndCause, code: Option<i32>) {
        let ended = Ended {
            cause,
            code,
            signal: None,
            duration_ms: 5,
            output: Positions::default(),
            diagnostic: None,
        };
        self.hub.mesh.handle(&node.link, ToHub::Ended { run: start.run, ended });
    }
}

impl Played {
    pub(super) async fn start(&self) -> Start {
        told(&self.link, |message| if let ToNode::Start(start) = message { Some(start) } else { None }).await
    }

    /// Nothing is started within a moment.
    pub(super) async fn is_left_alone(&self) {
        let start = tokio::time::timeout(Duration::from_millis(300), self.start()).await;
        assert!(start.is_err(), "it was given {start:?}");
    }
}

#[tokio::test]
async fn a_task_goes_to_a_node_with_its_labels_and_ends_with_its_run() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let ci = world.played("n1", "ci", 1).await;
        let db = world.played("n2", "db", 1).await;
        let task = world.submit(json!({"argv": ["make"], "selector": "role=db"})).await;
        let start = db.start().await;
        assert_eq!(start.task.map(|(task, attempt)| (task.to_string(), attempt.0)), Some((id(&task), 1)));
        ci.is_left_alone().await;
        let leased = world.story(&task).await;
        assert_eq!((&leased["state"], &leased["node"]), (&json!("leased"), &json!("n2")));
        assert_eq!(leased["run_id"], start.run.to_string());
        let run = world.get(&format!("/api/v1/runs/{}", start.run)).await.ok(200);
        assert_eq!((&run["task_id"], &run["attempt"]), (&task["id"], &json!(1)), "a run names its task");
        world.begins(&db, &start);
        world.ends(&db, &start, EndCause::Exited, Some(0));
        let done = world.task_reaches(&task, "done").await;
        assert_eq!((&done["result"]["code"], &done["node"]), (&json!(0), &json!("n2")), "{done}");
        let rows = world.get("/api/v1/audit?limit=1000&cursor=0").await.ok(200);
        let rows = rows["items"].as_array().expect("rows").iter();
        let of_it: Vec<&str> = rows
            .filter(|row| row["detail"].as_str().is_some_and(|detail| detail.contains(&id(&task))))
            .filter_map(|row| row["action"].as_str())
            .collect();
        assert_eq!(of_it, ["task.submit", "run.start"]);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_node_has_no_more_than_its_slots_and_gets_the_next_when_one_ends() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.played("n1", "ci", 2).await;
    let tasks: Vec<Value> = (0..5).map(|_| json!({"argv": ["true"]})).collect();
    world.post(TASKS, json!(tasks)).await.ok(202);
    let (first, second) = (node.start().await, node.start().await);
    node.is_left_alone().await;
    assert_eq!(world.hub.context.board.busy(node.id), 2);
    for start in [first, second] {
        world.ends(&node, &start, EndCause::Exited, Some(0));
        let next = node.start().await;
        world.begins(&node, &next);
    }
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a_preferred_node_with_room_goes_before_the_others_and_they_help_when_it_has_none() {
    let world = World::new(StoreKind::Sqlite).await;
    let ci = world.played("n1", "ci", 5).await;
    let db = world.played("n2", "db", 1).await;
    let task = || json!({"argv": ["true"], "prefer": "role=db"});
    world.submit(task()).await;
    let start = db.start().await;
    ci.is_left_alone().await;
    world.submit(task()).await;
    let helped = ci.start().await;
    assert_ne!(helped.run, start.run);
    world.stop().await;
}

#[tokio::test]
async fn a_key_with_a_limit_of_one_is_never_worked_on_twice_at_once() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let node = world.played("n1", "ci", 4).await;
        let keyed = || json!({"argv": ["true"], "concurrency": {"key": "db", "limit": 1}});
        let tasks: Vec<Value> = (0..4).map(|_| keyed()).collect();
        world.post(TASKS, json!(tasks)).await.ok(202);
        for _ in 0..3 {
            let start = node.start().await;
            node.is_left_alone().await;
            world.ends(&node, &start, EndCause::Exited, Some(0));
        }
        node.start().await;
        world.stop().await;
    }
}

#[tokio::test]
async fn a_dependency_goes_first_and_what_waits_for_it_is_woken() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.played("n1", "ci", 4).await;
    let first = world.submit(json!({"argv": ["true"]})).await;
    let second = world.submit(json!({"argv": ["false"], "after": [first["id"]]})).await;
    assert_eq!((&second["state"], &second["waits_for"]), (&json!("scheduled"), &json!(1)));
    let start = node.start().await;
    node.is_left_alone().await;
    world.ends(&node, &start, EndCause::Exited, Some(0));
    let next = node.start().await;
    assert_eq!(next.spec.argv, ["false"]);
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_reaches_the_node_and_the_task_ends_with_its_run() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.played("n1", "ci", 1).await;
    let task = world.submit(json!({"argv": ["sleep", "900"]})).await;
    let start = node.start().await;
    world.begins(&node, &start);
    world.post(&of(&task, "/cancel"), json!({})).await.ok(202);
    let run =
        told(&node.link, |message| if let ToNode::Cancel { run, .. } = message { Some(run) } else { None })
            .await;
    assert_eq!(run, start.run);
    world.ends(&node, &start, EndCause::Cancelled, None);
    let ended = world.task_reaches(&task, "cancelled").await;
    assert!(steps(&ended).ends_with(&["cancel_requested", "cancelled"]), "{ended}");
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_denies_is_left_out_and_another_gets_the_task() {
    let world = World::new(StoreKind::Sqlite).await;
    let strict = world.labelled("strict", "ci").await;
    let _strict = world.attach_with(strict, |hello| hello.facts.slots = 9).await;
    let task = world.submit(json!({"argv": ["curl"]})).await;
    let denied = world.task_has(&task, "excluded").await;
    assert_eq!(denied["excluded"], json!(["strict"]), "{denied}");
    let open = world.played("open", "ci", 1).await;
    assert_eq!(open.start().await.spec.argv, ["curl"]);
    let story = world.story(&task).await;
    assert_eq!((&story["node"], &story["tries"]), (&json!("open"), &json!(0)));
    world.stop().await;
}

#[tokio::test]
async fn a_denied_task_is_offered_again_when_somebody_asks_for_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let id = world.labelled("strict", "ci").await;
    let link = world.attach_with(id, |hello| hello.facts.slots = 1).await;
    let node = Played { id, link };
    let task = world.submit(json!({"argv": ["curl"]})).await;
    world.task_has(&task, "excluded").await;
    world.admin(Method::PUT, "/api/v1/policies/strict", json!({"profile": "permissive"})).await.ok(200);
    node.is_left_alone().await;
    world.post(&of(&task, "/retry"), json!({})).await.ok(202);
    assert_eq!(node.start().await.spec.argv, ["curl"]);
    world.stop().await;
}

#[tokio::test]
async fn a68_a_task_whose_node_dies_each_time_ends_dead_after_its_attempts() {
    let world = World::new(StoreKind::Sqlite).await;
    let mut node = world.played("n1", "ci", 1).await;
    let task = world.submit(json!({"argv": ["poison"], "attempts": 3, "backoff": {"initial_ms": 10}})).await;
    for attempt in 1..=3 {
        let start = node.start().await;
        assert_eq!(start.task.map(|(_, attempt)| attempt.0), Some(attempt));
        world.begins(&node, &start);
        // The machine goes down with it, and comes back as another process that knows nothing of it.
        world.hub.mesh.detach(&node.link);
        let reborn = |hello: &mut Hello| (hello.instance, hello.facts.slots) = (attempt + 1, 1);
        node.link = world.attach_with(node.id, reborn).await;
    }
    let dead = world.task_reaches(&task, "dead").await;
    assert_eq!((&dead["tries"], &dead["attempt"]), (&json!(3), &json!(3)));
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a_run_that_is_cancelled_by_itself_is_not_started_again_and_a_failed_one_is() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.played("n1", "ci", 1).await;
    let backoff = json!({"initial_ms": 10, "jitter_percent": 0});
    let task = world.submit(json!({"argv": ["false"], "attempts": 5, "backoff": backoff})).await;
    let start = node.start().await;
    world.begins(&node, &start);
    world.ends(&node, &start, EndCause::Exited, Some(7));
    let again = node.start().await;
    assert_eq!(again.task.map(|(_, attempt)| attempt.0), Some(2));
    let failed = world.story(&task).await;
    assert_eq!((&failed["tries"], &failed["result"]["code"]), (&json!(1), &json!(7)));
    world.begins(&node, &again);
    let path = format!("/api/v1/runs/{}/cancel", again.run);
    world.post(&path, json!({})).await.ok(202);
    world.ends(&node, &again, EndCause::Cancelled, None);
    world.task_reaches(&task, "dead").await;
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn what_waits_is_given_when_a_label_a_lock_or_a_right_lets_a_node_have_it() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.played("n1", "ci", 5).await;
    let dora = world.person("dora", &[("operator", "role=db")]).await;
    let locked = world.post("/api/v1/locks", json!({"target": "node:n1"})).await.ok(201);
    world.submit(json!({"argv": ["one"]})).await;
    node.is_left_alone().await;
    world.admin(Method::DELETE, &format!("/api/v1/locks/{}", id(&locked)), json!({})).await.ok(200);
    assert_eq!(node.start().await.spec.argv, ["one"]);
    world.submit(json!({"argv": ["two"], "selector": "role=db"})).await;
    let three = json!({"argv": ["three"], "selector": "role=ci"});
    world.with_token(&dora, Method::POST, TASKS, Some(three)).await.ok(202);
    node.is_left_alone().await;
    let grant = json!({"user": "dora", "role": "operator", "selector": "role=ci"});
    world.post("/api/v1/grants", grant).await.ok(201);
    assert_eq!(node.start().await.spec.argv, ["three"]);
    let labels = json!({"labels": {"role": "db"}});
    world.admin(Method::PATCH, "/api/v1/nodes/n1", labels).await.ok(200);
    assert_eq!(node.start().await.spec.argv, ["two"]);
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_reports_after_its_lease_was_lost_changes_nothing_and_is_evidence() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let node = world.played("n1", "ci", 1).await;
        let task = world.submit(json!({"argv": ["true"]})).await;
        let first = node.start().await;
        world.begins(&node, &first);
        world.lose(first.task.expect("an attempt")).await;
        let second = node.start().await;
        world.begins(&node, &second);
        world.ends(&node, &first, EndCause::Exited, Some(0));
        let story = world.task_has(&task, "stale_report").await;
        assert_eq!((&story["state"], &story["attempt"]), (&json!("leased"), &json!(2)));
        assert_eq!(
            (&story["evidence"][0]["run_id"], &story["evidence"][0]["result"]["code"]),
            (&json!(first.run.to_string()), &json!(0))
        );
        world.ends(&node, &second, EndCause::Exited, Some(0));
        let done = world.task_reaches(&task, "done").await;
        assert_eq!(done["run_id"], second.run.to_string());
        world.stop().await;
    }
}
