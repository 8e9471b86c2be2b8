//! Files below folders of a workspace that is locked.

use super::*;

const WS: &str = "/api/v1/workspaces/notes";

/// A change that the node does.
async fn does(world: &World, node: &Played, verb: Verb, call: impl Future<Output = Reply>) -> FileAsk {
    let played = async {
        let ask = node.ask().await;
        world.answers(node, ask.id, Ok(sample(verb)));
        ask
    };
    let (reply, ask) = tokio::join!(call, played);
    assert!(reply.status.is_success(), "{reply:?}");
    ask
}

#[tokio::test]
async fn every_change_below_or_above_a_locked_folder_needs_the_lock_and_its_holder() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let ada = world.person("ada", &[("admin", "")]).await;
    world.follows("/srv/خطة").await;
    let admin = world.admin.clone();
    let below = format!("{FS}?path=/srv/{PLAN}/a");
    let change = async |token: &str, method: Method, path: &str, body: &str, lock: Option<&str>| {
        let kind = if method == Method::PATCH { "application/json" } else { "application/octet-stream" };
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend((!body.is_empty()).then_some(("content-type", kind)));
        headers.extend(lock.map(|lock| ("cortex-lock", lock)));
        world.raw(method, path, &headers, Bytes::from(body.to_owned())).await
    };
    let outside = r#"{"move_to": "/srv/خطة/b"}"#;
    let out = r#"{"move_to": "/tmp/b"}"#;
    let copied = r#"{"copy_to": "/srv/خطة/b"}"#;
    let edits = r#"{"edits": [{"old": "a", "new": "b"}]}"#;
    let (above, other) = (format!("{FS}?path=/srv&recursive=true"), format!("{FS}?path=/tmp/a"));
    let dir = format!("{FS}?path=/srv/{PLAN}/d&kind=dir");
    let calls = [
        (Verb::Write, Method::PUT, &below, "x"),
        (Verb::MakeDir, Method::PUT, &dir, ""),
        (Verb::Edit, Method::PATCH, &below, edits),
        (Verb::Remove, Method::DELETE, &below, ""),
        (Verb::Remove, Method::DELETE, &above, ""),
        (Verb::Move, Method::PATCH, &other, outside),
        (Verb::Move, Method::PATCH, &below, out),
        (Verb::Copy, Method::PATCH, &other, copied),
    ];
    // Nobody holds it: what is changed there is drift, and nobody forbids it.
    let ask = does(&world, &node, Verb::Write, change(&admin, Method::PUT, &below, "x", None)).await;
    assert_eq!(ask.lock, None);
    let epoch = world.hold(60_000).await;
    let (own, old, new) = (epoch.to_string(), (epoch - 1).to_string(), (epoch + 1).to_string());
    for (verb, method, path, body) in calls {
        let problem = change(&admin, method.clone(), path, body, None).await.refused(403, "locked");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("--lock")), "{problem}");
        let problem = change(&ada, method.clone(), path, body, Some(&own)).await.refused(403, "locked");
        assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("workspace unlock")), "{problem}");
        for stale in [&old, &new] {
            let reply = change(&admin, method.clone(), path, body, Some(stale)).await;
            reply.refused(409, "stale_epoch");
        }
        let ask = does(&world, &node, verb, change(&admin, method, path, body, Some(&own))).await;
        assert_eq!(ask.lock.map(|(_, epoch)| epoch.0), Some(epoch), "{verb:?}: the node fences it as well");
    }
    change(&admin, Method::PUT, &below, "x", Some("mine")).await.refused(400, "invalid_argument");
    // What lies elsewhere, what is read, and what is only tried.
    does(&world, &node, Verb::Write, change(&ada, Method::PUT, &other, "x", None)).await;
    let tried = format!("{below}&dry_run=true");
    does(&world, &node, Verb::Write, change(&ada, Method::PUT, &tried, "x", None)).await;
    let stat = format!("{below}&view=stat");
    does(&world, &node, Verb::Stat, change(&ada, Method::GET, &stat, "", None)).await;
    let from = r#"{"copy_to": "/tmp/b"}"#;
    does(&world, &node, Verb::Copy, change(&ada, Method::PATCH, &below, from, None)).await;

    world.let_go(epoch).await;
    change(&admin, Method::PUT, &below, "x", Some(&own)).await.refused(409, "stale_epoch");
    does(&world, &node, Verb::Write, change(&ada, Method::PUT, &below, "x", None)).await;
    let rows = world.rows("fs.write").await;
    let refused: Vec<&str> = rows.iter().filter(|row| row.0 == "denied").map(|row| row.1.as_str()).collect();
    assert_eq!(refused.iter().filter(|reason| **reason == "locked").count(), 2, "{refused:?}");
    assert_eq!(refused.iter().filter(|reason| **reason == "stale_epoch").count(), 3, "{refused:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_change_that_was_done_is_told_again_also_when_the_folder_is_locked_since() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    world.follows("/srv/a").await;
    let key = [("idempotency-key", "k")];
    let ask = does(&world, &node, Verb::Write, world.put("/srv/a/x", &key, "x")).await;
    world.ended(ask.id).await;
    world.hold(60_000).await;
    assert!(world.put("/srv/a/x", &key, "x").await.status.is_success());
    world.put("/srv/a/x", &[("idempotency-key", "other")], "x").await.refused(403, "locked");
    world.stop().await;
}

#[tokio::test]
async fn a_lock_under_which_somebody_writes_does_not_end_by_itself() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    world.follows("/srv/a").await;
    let ttl = cortex_core::limits::WORKSPACE_LOCK_MS_MIN;
    let epoch = world.hold(ttl).await.to_string();
    let under = [("cortex-lock", epoch.as_str())];
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_millis(ttl * 2) {
        let write = world.put("/srv/a/x", &under, "x");
        does(&world, &node, Verb::Write, write).await;
        tokio::time::sleep(Duration::from_millis(ttl / 8)).await;
    }
    let free = async {
        while !world.get(WS).await.ok(200)["lock"].is_null() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, free).await.expect("it ends when nobody writes");
    world.put("/srv/a/x", &under, "x").await.refused(409, "stale_epoch");
    world.stop().await;
}
