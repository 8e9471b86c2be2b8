//! Who follows a silent run and goes away is noticed at once: the closed connection says it, not
//! the next output.

use serde_json::json;

use super::*;

/// A run that says nothing, on a node that is here.
async fn silent_run(world: &World) -> (String, Arc<Link>) {
    let node = world.node("n1").await;
    let link = world.attach(node).await;
    world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "permissive"})).await.ok(200);
    let started =
        world.admin(Method::POST, "/api/v1/runs", json!({"nodes": ["n1"], "argv": ["sleep", "9"]})).await;
    let run = started.ok(202)["runs"][0]["id"].as_str().expect("an id").to_owned();
    (run, link)
}

/// How many follow runs or events.
fn followers(world: &World) -> usize {
    world.hub.mesh.followers() + world.hub.context.bus.listeners()
}

async fn reached(world: &World, count: usize, why: &str) {
    let deadline = Instant::now() + SOON;
    while followers(world) != count {
        assert!(Instant::now() < deadline, "{why}: {} follow", followers(world));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_follower_of_a_silent_run_that_closes_its_connection_is_gone_at_once() {
    let world = World::new(StoreKind::Memory).await;
    let (run, _link) = silent_run(&world).await;
    let bearer = format!("Bearer {}", world.admin);
    let output = format!("/api/v1/runs/{run}/output?follow=true");
    let cases = [
        (Method::GET, output.as_str(), "application/octet-stream", ""),
        (Method::GET, output.as_str(), "application/x-ndjson", ""),
        (Method::GET, "/api/v1/events", "text/event-stream", ""),
        (
            Method::POST,
            "/api/v1/runs",
            "application/x-ndjson",
            r#"{"nodes":["n1"],"argv":["sleep","9"],"cwd":"/"}"#,
        ),
    ];
    for (method, path, accept, body) in cases {
        let headers =
            [("authorization", bearer.as_str()), ("accept", accept), ("content-type", "application/json")];
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(world.open(method.clone(), path, &headers, Bytes::from(body)).await);
        }
        assert!(answers.iter().all(|answer| answer.status() == StatusCode::OK), "{accept}: {answers:?}");
        reached(&world, 5, accept).await;
        drop(answers);
        reached(&world, 0, accept).await;
    }
    world.stop().await;
}

#[tokio::test]
async fn a_hub_that_stops_breaks_followed_bytes_off_so_that_nobody_takes_them_for_all() {
    let world = World::new(StoreKind::Memory).await;
    let (run, _link) = silent_run(&world).await;
    let bearer = format!("Bearer {}", world.admin);
    let path = format!("/api/v1/runs/{run}/output?follow=true");
    let answer = world.open(Method::GET, &path, &[("authorization", &bearer)], Bytes::new()).await;
    let reading = tokio::spawn(answer.into_body().collect());
    reached(&world, 1, "it follows").await;
    world.stop().await;
    let read = tokio::time::timeout(SOON, reading).await.expect("it ends").expect("no panic");
    assert!(read.is_err(), "{read:?}");
}
