//! Each reason for which a task waits (POOL rule 10), brought about in a hub and read there.

use super::*;

impl World {
    async fn reasons(&self, task: &Value) -> Vec<(String, String)> {
        self.reasons_for(&self.admin.clone(), task).await
    }

    async fn reasons_for(&self, token: &str, task: &Value) -> Vec<(String, String)> {
        let told = self.with_token(token, Method::GET, &of(task, "/explain"), None).await.ok(200);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reasons = told["reasons"].as_array().expect("reasons").iter();
        reasons.map(|reason| (text(&reason["reason"]), text(&reason["message"]))).collect()
    }

    /// The one reason, and what its sentence must hold.
    pub(super) async fn waits_for(&self, task: &Value, reason: &str, holds: &[&str]) {
        let reasons = self.reasons(task).await;
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert_eq!(reasons[0].0, reason, "{reasons:?}");
        assert!(holds.iter().all(|part| reasons[0].1.contains(part)), "{reasons:?} lacks {holds:?}");
    }

    pub(super) async fn with_slots(&self, name: &str, role: &str, slots: u32) -> Arc<Link> {
        let id = self.labelled(name, role).await;
        let path = format!("/api/v1/policies/{name}");
        self.admin(Method::PUT, &path, json!({"profile": "permissive"})).await.ok(200);
        self.attach_with(id, |hello| hello.facts.slots = slots).await
    }
}

#[tokio::test]
async fn no_node_has_the_labels_and_the_nearest_is_named_with_what_it_lacks() {
    let world = World::new(StoreKind::Sqlite).await;
    let task = world.submit(json!({"argv": ["true"], "selector": "role=ci,gpu=a100"})).await;
    world.waits_for(&task, "no_node", &["gpu=a100"]).await;
    world.labelled("far", "db").await;
    world.labelled("near", "ci").await;
    world.waits_for(&task, "no_node", &["Nearest is near, which lacks gpu=a100"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_away_takes_nothing_or_is_busy_is_named() {
    let world = World::new(StoreKind::Sqlite).await;
    world.labelled("away", "db").await;
    let away = world.submit(json!({"argv": ["true"], "selector": "role=db"})).await;
    world.waits_for(&away, "offline", &["away"]).await;
    let _none = world.with_slots("none", "web", 0).await;
    let none = world.submit(json!({"argv": ["true"], "selector": "role=web"})).await;
    world.waits_for(&none, "no_slots", &["none"]).await;
    let _busy = world.with_slots("busy", "ci", 1).await;
    let first = world.submit(json!({"argv": ["true"], "selector": "role=ci"})).await;
    world.task_reaches(&first, "leased").await;
    world.waits_for(&first, "not_waiting", &["somebody works on it"]).await;
    let second = world.submit(json!({"argv": ["true"], "selector": "role=ci"})).await;
    world.waits_for(&second, "busy", &["busy"]).await;
    let any = world.submit(json!({"argv": ["true"]})).await;
    let reasons: Vec<String> = world.reasons(&any).await.into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, ["offline", "no_slots", "busy"]);
    world.stop().await;
}

#[tokio::test]
async fn a_policy_that_denies_is_named_with_its_rule() {
    let world = World::new(StoreKind::Sqlite).await;
    let strict = world.labelled("strict", "ci").await;
    let _link = world.attach_with(strict, |hello| hello.facts.slots = 1).await;
    let task = world.submit(json!({"argv": ["curl"]})).await;
    world.task_has(&task, "excluded").await;
    world.waits_for(&task, "denied", &["strict (rule exec.allow)"]).await;
    world.stop().await;
}

#[tokio::test]
async fn an_owner_that_may_not_or_is_shut_out_is_told() {
    let world = World::new(StoreKind::Sqlite).await;
    let _link = world.with_slots("n1", "ci", 1).await;
    let db = world.person("dora", &[("operator", "role=db")]).await;
    let task = world.with_token(&db, Method::POST, TASKS, Some(json!({"argv": ["true"]}))).await.ok(202);
    world.waits_for(&task, "owner_may_not", &["n1"]).await;
    // The owner does not see that node, and hears nothing of it.
    let own = world.reasons_for(&db, &task).await;
    assert_eq!(own[0].0, "no_node");
    assert!(!own[0].1.contains("n1"), "{own:?}");
    world.post("/api/v1/locks", json!({"target": "user:dora"})).await.ok(201);
    let reasons: Vec<String> = world.reasons(&task).await.into_iter().map(|(reason, _)| reason).collect();
    assert_eq!(reasons, ["owner_stopped", "owner_may_not"]);
    let short = world.token("short", Role::Operator, false, false).await;
    let task =
        world.with_token(&short, Method::POST, TASKS, Some(json!({"argv": ["true"], "selector": "a=b"})));
    let task = task.await.ok(202);
    world.admin(Method::DELETE, "/api/v1/tokens/short", json!({})).await.ok(200);
    let reasons = world.reasons(&task).await;
    assert!(reasons[0].0 == "owner_stopped" && reasons[0].1.contains("token"), "{reasons:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_full_key_a_dependency_a_time_and_a_failure_are_told() {
    let world = World::new(StoreKind::Sqlite).await;
    let claim =
        async || world.post("/api/v1/pool/claims", json!({"kinds": ["a"]})).await.ok(200)["items"][0].clone();
    let keyed = json!({"kind": "a", "concurrency": {"key": "db", "limit": 1}});
    let first = world.submit(keyed.clone()).await;
    let _asking = world.hub.context.board.ask(vec!["a".to_owned()]);
    assert_eq!(claim().await["id"], first["id"]);
    let second = world.submit(keyed).await;
    world.waits_for(&second, "key_full", &["1 task", "`db`"]).await;
    let after = world.submit(json!({"kind": "a", "after": [first["id"]]})).await;
    world.waits_for(&after, "dependency", &[&id(&first), "leased"]).await;
    let timed = world.submit(json!({"kind": "a", "not_before": "2099-01-01T00:00:00Z"})).await;
    world.waits_for(&timed, "scheduled", &["2099-01-01T00:00:00.000Z"]).await;
    let fail = format!("/api/v1/pool/leases/{}/1/fail", id(&first));
    world.post(&fail, json!({})).await.ok(200);
    world.waits_for(&first, "after_failure", &["failed 1 time"]).await;
    world.stop().await;
}

#[tokio::test]
async fn a_payload_without_a_worker_and_a_task_that_is_next_are_told() {
    let world = World::new(StoreKind::Sqlite).await;
    let task = world.submit(json!({"kind": "resize"})).await;
    world.waits_for(&task, "no_worker", &["`resize`"]).await;
    let asking = world.hub.context.board.ask(vec!["resize".to_owned()]);
    world.waits_for(&task, "next", &[]).await;
    drop(asking);
    world.post(&of(&task, "/cancel"), json!({})).await.ok(202);
    world.waits_for(&task, "not_waiting", &["cancelled"]).await;
    world.stop().await;
}
