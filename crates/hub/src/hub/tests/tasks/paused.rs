//! Parts of the pool that stand still, and what is given back when one is drained.

use super::*;

const PAUSES: &str = "/api/v1/pool/pauses";

#[tokio::test]
async fn a_node_a_label_or_a_kind_that_stands_still_gets_nothing_until_it_goes_on() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let _link = world.with_slots("n1", "ci", 4).await;
        for (part, reason) in
            [("node:n1", "node_paused"), ("label:role=ci", "node_paused"), ("kind:command", "paused")]
        {
            let paused = world.post(PAUSES, json!({"part": part, "message": "moving racks"})).await.ok(200);
            assert_eq!((&paused["by"], &paused["drained_at"]), (&json!("token:admin"), &Value::Null));
            let task = world.submit(json!({"argv": ["true"]})).await;
            world.waits_for(&task, reason, &["token:admin"]).await;
            let listed = world.get(PAUSES).await.ok(200);
            assert_eq!(listed["items"], json!([paused]), "{part}");
            let there = paused["part"].as_str().expect("text").replace('=', "%3D").replace(':', "%3A");
            let gone = world.admin(Method::DELETE, &format!("{PAUSES}/{there}"), Value::Null).await;
            assert_eq!(gone.status, 204, "{gone:?}");
            world.task_reaches(&task, "leased").await;
        }
        assert_eq!(world.get(PAUSES).await.ok(200)["items"], json!([]));
        let rows = world.get("/api/v1/audit?limit=1000").await.ok(200);
        let actions: Vec<&str> =
            rows["items"].as_array().expect("rows").iter().filter_map(|row| row["action"].as_str()).collect();
        let count = |action| actions.iter().filter(|one| **one == action).count();
        assert_eq!((count("pool.pause"), count("pool.resume")), (3, 3));
        world.stop().await;
    }
}

#[tokio::test]
async fn a_payload_whose_kind_stands_still_is_claimed_by_nobody() {
    let world = World::new(StoreKind::Sqlite).await;
    world.post(PAUSES, json!({"part": "kind:resize"})).await.ok(200);
    let task = world.submit(json!({"kind": "resize", "payload": "a"})).await;
    let claim = json!({"kinds": ["resize"], "wait_s": 0});
    assert_eq!(world.post("/api/v1/pool/claims", claim.clone()).await.ok(200)["items"], json!([]));
    let waiting = world.post("/api/v1/pool/claims", json!({"kinds": ["resize"], "wait_s": 10}));
    let resume = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.admin(Method::DELETE, &format!("{PAUSES}/kind:resize"), Value::Null).await
    };
    let (claimed, resumed) = tokio::join!(waiting, resume);
    assert_eq!(resumed.status, 204);
    assert_eq!(claimed.ok(200)["items"][0]["id"], task["id"], "who waits is woken");
    world.stop().await;
}

#[tokio::test]
async fn what_is_worked_on_in_a_part_that_is_drained_goes_to_another_and_counts_as_no_try() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let _first = world.with_slots("n1", "ci", 4).await;
        let task = world.submit(json!({"argv": ["true"], "attempts": 1})).await;
        let held = world.task_reaches(&task, "leased").await;
        assert_eq!(held["node"], "n1");
        let _second = world.with_slots("n2", "ci", 4).await;
        let paused = world.post(PAUSES, json!({"part": "node:n1", "drain_ms": 0})).await.ok(200);
        assert!(paused["drained_at"].is_string(), "{paused}");
        let wait = async {
            loop {
                let story = world.story(&task).await;
                if story["attempt"] == 2 {
                    return story;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let story = tokio::time::timeout(SOON, wait).await.expect("it is given to another");
        assert_eq!((&story["node"], &story["tries"]), (&json!("n2"), &json!(0)), "{story}");
        assert!(steps(&story).contains(&"released"), "{story}");
        world.stop().await;
    }
}

#[tokio::test]
async fn only_an_administrator_of_all_nodes_lets_parts_stand_still() {
    let world = World::new(StoreKind::Sqlite).await;
    let _link = world.with_slots("n1", "ci", 1).await;
    for roles in [&[("operator", "")][..], &[("admin", "role=ci")]] {
        let token = world.person(&format!("p{}", roles[0].1.len()), roles).await;
        let body = json!({"part": "node:n1"});
        world.with_token(&token, Method::POST, PAUSES, Some(body)).await.refused(403, "forbidden");
    }
    for (part, code) in [("node:n9", 404), ("owner:x", 400), ("", 400), ("label:role", 400)] {
        assert_eq!(world.post(PAUSES, json!({"part": part})).await.status, code, "{part}");
    }
    let long = "x".repeat(2_000);
    world.post(PAUSES, json!({"part": "node:n1", "message": long})).await.refused(413, "too_large");
    world.stop().await;
}
