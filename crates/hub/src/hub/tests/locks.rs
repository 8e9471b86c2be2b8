//! Locks, and how often a node may recover, over real connections; and that whoever is locked is told
//! so in whatever it follows.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::node::Recovery;
use serde_json::json;

use super::*;

const LOCKS: &str = "/api/v1/locks";

impl World {
    async fn lock(&self, target: &str) -> Value {
        self.admin(Method::POST, LOCKS, json!({"target": target, "message": "ask Bob"})).await.ok(201)
    }

    async fn lift(&self, lock: &Value) -> Reply {
        let path = format!("{LOCKS}/{}", lock["id"].as_str().expect("an id"));
        self.admin(Method::DELETE, &path, json!({})).await
    }
}

#[tokio::test]
async fn a_lock_is_made_listed_shown_with_its_node_and_removed() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.labelled("a", "ci").await.to_string();
    world.person("ada", &[("viewer", "")]).await;
    assert_eq!(world.get("/api/v1/nodes/a").await.ok(200)["lock"], Value::Null);
    let mut made = Vec::new();
    for target in ["user:ada", "node:a", "label:role=ci"] {
        let lock = world.lock(target).await;
        assert_eq!((&lock["target"], &lock["state"]), (&json!(target), &json!("holds")), "{lock}");
        made.push(lock);
    }
    assert_eq!(made[1]["target_id"], node.as_str());
    let first = world.get("/api/v1/locks?limit=2").await.ok(200);
    let next =
        format!("/api/v1/locks?limit=2&cursor={}", first["next_cursor"].as_str().expect("there are more"));
    let rest = world.get(&next).await.ok(200);
    assert_eq!(
        (first["items"].as_array().map(Vec::len), rest["items"].as_array().map(Vec::len)),
        (Some(2), Some(1))
    );
    assert_eq!((&rest["items"][0]["id"], &rest["next_cursor"]), (&made[2]["id"], &Value::Null));

    let shown = world.get("/api/v1/nodes/a").await.ok(200)["lock"].clone();
    assert_eq!((&shown["id"], &shown["expires_at"]), (&made[1]["id"], &Value::Null));
    assert_eq!(shown["message"], "This node is locked by token:admin: ask Bob");
    for _ in 0..2 {
        assert_eq!(world.lift(&made[1]).await.ok(200)["state"], "removed", "twice changes nothing");
    }
    let shown = world.get("/api/v1/nodes").await.ok(200)["items"][0]["lock"].clone();
    assert_eq!(shown["id"], made[2]["id"], "the label holds on it yet");
    world.lift(&made[2]).await.ok(200);
    assert_eq!(world.get("/api/v1/nodes/a").await.ok(200)["lock"], Value::Null);
    world.stop().await;
}

#[tokio::test]
async fn locks_that_have_ended_by_themselves_make_room_for_new_ones() {
    let world = World::new(StoreKind::Memory).await;
    let lock = |number: usize| cortex_core::lock::Lock {
        id: cortex_core::id::LockId::mint(number as u64, &[1; 10]),
        target: cortex_core::lock::Target::Label("role".to_owned(), "ci".to_owned()),
        message: String::new(),
        created_by: "token:admin".to_owned(),
        created_at: WallTime(1),
        expires_at: Some(WallTime(2)),
        lifted_at: None,
        lifted_by: None,
    };
    let fill = move |tx: &mut dyn Tx| {
        for number in 0..cortex_core::limits::LOCKS_MAX {
            tx.put_lock(&lock(number))?;
        }
        Ok(())
    };
    world.write(fill).await;
    let made = world.lock("label:role=db").await;
    let left = world.hub.context.view(|view| view.locks()).await.expect("readable");
    assert_eq!(left.len(), cortex_core::limits::LOCKS_MAX);
    assert!(left.iter().any(|lock| made["id"] == lock.id.to_string()), "the new one is among them");
    world.stop().await;
}

#[tokio::test]
async fn a_lock_that_makes_no_sense_or_is_not_anybodys_to_make_is_refused() {
    let world = World::new(StoreKind::Memory).await;
    world.node("a").await;
    let operator = world.person("ada", &[("operator", "")]).await;
    for (body, status, code) in [
        (json!({"target": "a"}), 400, "invalid_argument"),
        (json!({"target": "group:x"}), 400, "invalid_argument"),
        (json!({"target": "node:a", "ttl_ms": 0}), 400, "invalid_argument"),
        (json!({"target": "node:a", "until": "x"}), 400, "invalid_argument"),
        (json!({"target": "node:a", "message": "x".repeat(513)}), 413, "too_large"),
        (json!({"target": "node:b"}), 404, "node_not_found"),
        (json!({"target": "user:bob"}), 404, "not_found"),
        (json!({"target": "token:admin"}), 409, "conflict"),
    ] {
        world.admin(Method::POST, LOCKS, body).await.refused(status, code);
    }
    world.admin(Method::DELETE, "/api/v1/locks/nonsense", json!({})).await.refused(404, "not_found");
    let body = json!({"target": "node:a"});
    world.with_token(&operator, Method::POST, LOCKS, Some(body)).await.refused(403, "forbidden");
    let lock = world.lock("node:a").await;
    let path = format!("{LOCKS}/{}", lock["id"].as_str().expect("an id"));
    world.with_token(&operator, Method::DELETE, &path, None).await.refused(403, "forbidden");
    world.stop().await;
}

#[tokio::test]
async fn a_locked_person_has_its_runs_ended_and_is_told_in_events_and_exports() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("a").await;
    let link = world.attach(node).await;
    world.admin(Method::PUT, "/api/v1/policies/a", json!({"profile": "permissive"})).await.ok(200);
    let session = world.person("ada", &[("admin", "")]).await;
    let request = json!({"nodes": ["a"], "argv": ["sleep", "9"]});
    let start = async |token: &str| {
        let started =
            world.with_token(token, Method::POST, "/api/v1/runs", Some(request.clone())).await.ok(202);
        let run: RunId = started["runs"][0]["id"].as_str().expect("an id").parse().expect("an id");
        world.hub.mesh.handle(&link, ToHub::Started { run, level: cortex_core::sandbox::Level::None });
        run
    };
    let (hers, another) = (start(&session).await, start(&world.admin).await);
    // More than connections hold, so that the export is under way when the lock comes.
    for _ in 0..20 {
        let fill = move |tx: &mut dyn Tx| {
            for _ in 0..1_000 {
                let row = AuditRow::new(WallTime(1), "hub", "test.fill", Outcome::Allowed);
                tx.append_audit(&AuditRow { detail: Some("x".repeat(1_000)), ..row })?;
            }
            Ok(())
        };
        world.write(fill).await;
    }
    let bearer = format!("Bearer {session}");
    let headers = [("authorization", bearer.as_str())];
    let open = async |path: &str| world.open(Method::GET, path, &headers, Bytes::new()).await.into_body();
    let (events, export) = (open("/api/v1/events").await, open("/api/v1/audit/export").await);
    let lock = world.lock("user:ada").await;

    let told = tokio::time::timeout(SOON, last_of(events)).await.expect("the events end");
    assert!(told.starts_with("event: error\ndata: "), "{told}");
    assert!(told.contains("\"code\":\"locked\"") && told.contains("ask Bob"), "{told}");
    let told = tokio::time::timeout(SOON, last_of(export)).await.expect("the export ends");
    let line: Value = serde_json::from_str(told.trim().lines().last().expect("a line")).expect("JSON");
    assert_eq!(line["error"]["code"], "locked", "{line}");

    let by =
        async |run: RunId| world.get(&format!("/api/v1/runs/{run}")).await.ok(200)["cancelled_by"].clone();
    assert_eq!(by(hers).await, format!("lock:{}", lock["id"].as_str().expect("an id")));
    assert_eq!(by(another).await, Value::Null, "those of others go on");
    world.with_token(&session, Method::GET, "/api/v1/nodes", None).await.refused(403, "locked");
    world.lift(&lock).await.ok(200);
    world.with_token(&session, Method::GET, "/api/v1/nodes", None).await.ok(200);
    world.stop().await;
}

/// The last piece of a body, which may break off after it.
async fn last_of(mut body: Incoming) -> String {
    let mut last = Bytes::new();
    while let Some(Ok(frame)) = body.frame().await {
        last = frame.into_data().unwrap_or(last);
    }
    String::from_utf8_lossy(&last).into_owned()
}

#[tokio::test]
async fn how_often_a_node_may_recover_is_read_and_set() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("a").await;
    let path = "/api/v1/nodes/a/recoveries";
    world.get(path).await.refused(409, "conflict");
    world.admin(Method::PUT, path, json!({"left": 5})).await.refused(409, "conflict");
    let mut record = Node::clone(&world.hub.context.directory.node(node).expect("it is there"));
    record.recovery = Some(Recovery { key: vec![1], count: 2, left: 1, last: None });
    let kept = record.clone();
    world.write(move |tx| tx.put_node(&kept)).await;
    world.hub.context.directory.put_node(record);
    assert_eq!(world.get(path).await.ok(200), json!({"node": "a", "used": 2, "left": 1}));
    let viewer = world.person("ada", &[("viewer", "")]).await;
    world.with_token(&viewer, Method::GET, path, None).await.ok(200);
    world.with_token(&viewer, Method::PUT, path, Some(json!({"left": 5}))).await.refused(403, "forbidden");
    for body in [json!({"left": u32::MAX}), json!({"left": -1}), json!({}), json!({"left": 1, "used": 0})] {
        world.admin(Method::PUT, path, body).await.refused(400, "invalid_argument");
    }
    world
        .admin(Method::PUT, "/api/v1/nodes/b/recoveries", json!({"left": 1}))
        .await
        .refused(404, "node_not_found");
    assert_eq!(world.admin(Method::PUT, path, json!({"left": 5})).await.ok(200)["left"], 5);
    assert_eq!(world.get(path).await.ok(200), json!({"node": "a", "used": 2, "left": 5}));
    let audit = world.get("/api/v1/audit/export").await;
    assert!(String::from_utf8_lossy(&audit.body).contains("recoveries left 1 -> 5"));
    world.stop().await;
}

#[tokio::test]
async fn the_bound_of_an_invite_holds_on_what_the_policy_of_its_node_says() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("a").await;
    let dev = json!({"profile": "dev"});
    world.admin(Method::PUT, "/api/v1/policies/a", dev).await.ok(200);
    let made = json!({"profile": "ci", "max_profile": "ci"});
    let made = world.admin(Method::POST, "/api/v1/invites", made).await.ok(201);
    let wide = json!({"profile": "dev", "max_profile": "ci"});
    world.admin(Method::POST, "/api/v1/invites", wide).await.refused(400, "invalid_argument");
    let invite = made["id"].as_str().expect("an id").parse().expect("an id");
    world
        .write(move |tx| {
            let mut invite = tx.invite(invite)?.expect("it is kept");
            invite.used_by = Some(node);
            Ok(tx.put_invite(&invite)?)
        })
        .await;
    let change = async |method: Method, path: &str, body: Value| {
        world.admin(method, &format!("/api/v1/policies/a{path}"), body).await
    };
    // What was beyond the bound before may be tightened, step by step.
    change(Method::POST, "/deny", json!({"program": "seq"})).await.ok(200);
    change(Method::PUT, "", json!({"profile": "ci"})).await.ok(200);
    let document = change(Method::GET, "", Value::Null).await.ok(200)["document"].clone();
    let with = |field: &str, value: Value| {
        let mut document = document.clone();
        document[field] = value;
        json!({"document": document})
    };
    for (method, path, body) in [
        (Method::PUT, "", json!({"profile": "dev"})),
        (Method::PUT, "", json!({"profile": "permissive"})),
        (Method::PUT, "", with("network", json!("all"))),
        (Method::POST, "/allow", json!({"program": "seq"})),
        (Method::POST, "/allow", json!({"root": {"path": "/srv", "access": "read"}})),
    ] {
        let problem = change(method, path, body).await.refused(403, "policy_denied");
        assert_eq!(problem["details"]["rule"], "invite.ceiling", "{problem}");
    }
    change(Method::PUT, "", with("sandbox", json!("full"))).await.ok(200);
    change(Method::POST, "/deny", json!({"program": "cargo"})).await.ok(200);
    change(Method::PUT, "", json!({"profile": "strict"})).await.ok(200);
    world.stop().await;
}
