//! Nodes, invites, tokens, policies, audit: each with what is right and what is refused.

use cortex_core::policy::{Document, Policy, Program};
use serde_json::json;

use super::*;

#[tokio::test]
async fn nodes_are_listed_shown_labelled_renamed_and_removed() {
    let world = World::new(StoreKind::Sqlite).await;
    for name in ["build-1", "build-2", "laptop"] {
        world.node(name).await;
    }
    let first = world.get("/api/v1/nodes?limit=2").await.ok(200);
    let names = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|n| n["name"].as_str().expect("name").to_owned())
            .collect()
    };
    assert_eq!(names(&first), ["build-1", "build-2"]);
    let cursor = first["next_cursor"].as_str().expect("more");
    let rest = world.get(&format!("/api/v1/nodes?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!(names(&rest), ["laptop"]);
    assert!(rest.get("next_cursor").is_none());

    let node = world.get("/api/v1/nodes/build-1").await.ok(200);
    assert_eq!((&node["state"], &node["policy_mode"]), (&json!("offline"), &json!("strict")));
    let missing = world.get("/api/v1/nodes/biuld-1").await.refused(404, "node_not_found");
    assert_eq!(missing["details"]["nearest"], "build-1, build-2, laptop");

    let patch = json!({"name": "Build-9", "labels": {"gpu": "yes", "role": null}});
    let changed = world.admin(Method::PATCH, "/api/v1/nodes/build-1", patch).await.ok(200);
    assert_eq!((&changed["name"], &changed["labels"]), (&json!("build-9"), &json!({"gpu": "yes"})));
    assert_eq!(names(&world.get("/api/v1/nodes?selector=gpu=yes").await.ok(200)), ["build-9"]);
    let taken = json!({"name": "laptop"});
    world.admin(Method::PATCH, "/api/v1/nodes/build-2", taken).await.refused(409, "conflict");
    let bad = json!({"labels": {"a b": "c"}});
    world.admin(Method::PATCH, "/api/v1/nodes/build-2", bad).await.refused(400, "invalid_argument");

    assert_eq!(world.admin(Method::DELETE, "/api/v1/nodes/laptop", json!({})).await.status, 204);
    world.admin(Method::DELETE, "/api/v1/nodes/laptop", json!({})).await.refused(404, "node_not_found");
    assert_eq!(names(&world.get("/api/v1/nodes").await.ok(200)), ["build-2", "build-9"]);
    let actions = actions(&world).await;
    assert_eq!(actions, ["token.create", "node.change", "node.remove"]);
    world.stop().await;
}

async fn actions(world: &World) -> Vec<String> {
    let rows = world.get("/api/v1/audit?cursor=0").await.ok(200);
    let rows = rows["items"].as_array().expect("items").clone();
    rows.iter().map(|row| row["action"].as_str().expect("an action").to_owned()).collect()
}

#[tokio::test]
async fn r2_9_listing_nodes_asks_the_store_nothing() {
    let world = World::new(StoreKind::Memory).await;
    for name in ["a", "b", "c"] {
        world.node(name).await;
    }
    // Nothing can be asked of a closed store.
    world.hub.context.store.close().await;
    assert_eq!(world.get("/api/v1/nodes").await.ok(200)["items"].as_array().map(Vec::len), Some(3));
    world.get("/api/v1/runs").await.refused(503, "store_unavailable");
    world.stop().await;
}

#[tokio::test]
async fn an_invite_shows_its_secret_once_and_can_be_revoked() {
    let world = World::new(StoreKind::Sqlite).await;
    let made = world
        .admin(Method::POST, "/api/v1/invites", json!({"labels": {"role": "ci"}, "profile": "dev"}))
        .await;
    let made = made.ok(201);
    let text = made["invite"].as_str().expect("the invite");
    let parsed = cortex_core::invite::InviteText::parse(text).expect("it can be read");
    assert_eq!(parsed.id.to_string(), made["id"].as_str().expect("an id"));
    let port = world.hub.started().grpc.port();
    assert_eq!(made["command"], format!("cortex join hub.lan:{port} --invite-file FILE --name NAME"));

    let list = world.get("/api/v1/invites").await;
    assert_eq!(list.ok(200)["items"][0]["state"], "open");
    let secret = text.rsplit('.').next().expect("a secret");
    assert!(!String::from_utf8_lossy(&list.body).contains(secret));
    let path = format!("/api/v1/invites/{}", made["id"].as_str().expect("an id"));
    for _ in 0..2 {
        assert_eq!(world.admin(Method::DELETE, &path, json!({})).await.ok(200)["state"], "revoked");
    }
    world.admin(Method::DELETE, "/api/v1/invites/nonsense", json!({})).await.refused(404, "not_found");
    for bad in [
        json!({"profile": "root"}),
        json!({"ttl_ms": 0}),
        json!({"ttl_ms": u64::MAX}),
        json!({"labels": {"": ""}}),
    ] {
        world.admin(Method::POST, "/api/v1/invites", bad).await.refused(400, "invalid_argument");
    }
    let everything = world.get("/api/v1/audit/export").await;
    assert!(!String::from_utf8_lossy(&everything.body).contains(secret));
    world.stop().await;
}

#[tokio::test]
async fn a_token_works_until_it_is_revoked_and_the_last_administrator_stays() {
    let world = World::new(StoreKind::Sqlite).await;
    let made =
        world.admin(Method::POST, "/api/v1/tokens", json!({"name": "ci", "role": "operator"})).await.ok(201);
    let secret = made["token"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("cxt_") && secret.len() == 68);
    let bearer = format!("Bearer {secret}");
    let who = async || world.call(Method::GET, "/api/v1/whoami", &[("authorization", &bearer)], None).await;
    let me = who().await.ok(200);
    assert_eq!((&me["actor"], &me["role"]), (&json!("token:ci"), &json!("operator")), "{me}");
    world
        .admin(Method::POST, "/api/v1/tokens", json!({"name": "ci", "role": "viewer"}))
        .await
        .refused(409, "conflict");
    world
        .admin(Method::POST, "/api/v1/tokens", json!({"name": "x", "role": "root"}))
        .await
        .refused(400, "invalid_argument");

    let page = world.get("/api/v1/tokens?limit=1").await.ok(200);
    let cursor = page["next_cursor"].as_str().expect("more");
    let page = world.get(&format!("/api/v1/tokens?limit=1&cursor={cursor}")).await.ok(200);
    assert_eq!(page["items"][0]["name"], "ci");

    assert_eq!(world.admin(Method::DELETE, "/api/v1/tokens/ci", json!({})).await.ok(200)["state"], "revoked");
    who().await.refused(401, "unauthenticated");
    world.admin(Method::DELETE, "/api/v1/tokens/admin", json!({})).await.refused(409, "conflict");
    world.admin(Method::DELETE, "/api/v1/tokens/nobody", json!({})).await.refused(404, "not_found");
    world.stop().await;
}

#[tokio::test]
async fn a_policy_is_changed_tested_and_guarded_by_its_revision() {
    let world = World::new(StoreKind::Sqlite).await;
    world.node("n1").await;
    let before = world.get("/api/v1/policies/n1").await;
    assert_eq!(before.ok(200)["profile"], "strict");
    assert_eq!(before.headers["etag"], "\"1\"");
    let test = async |program: &str| {
        let body = json!({"argv": [program]});
        world.admin(Method::POST, "/api/v1/policies/n1/test", body).await.ok(200)
    };
    let verdict = test("cargo").await;
    assert_eq!((&verdict["allowed"], &verdict["rule"]), (&json!(false), &json!("exec.allow")));
    assert_eq!(verdict["error"]["code"], "policy_denied");

    let allowed = world.admin(Method::POST, "/api/v1/policies/n1/allow", json!({"program": "cargo"})).await;
    assert_eq!(allowed.ok(200)["revision"], 2);
    assert_eq!(test("cargo").await["allowed"], true);
    let denied = world.admin(Method::POST, "/api/v1/policies/n1/deny", json!({"program": "cargo"})).await;
    assert_eq!(denied.ok(200)["deny"], json!(["cargo"]));
    assert_eq!(test("cargo").await["rule"], "exec.deny");

    let bearer = format!("Bearer {}", world.admin);
    let guarded = [("authorization", bearer.as_str()), ("if-match", "\"1\"")];
    let late =
        world.call(Method::PUT, "/api/v1/policies/n1", &guarded, Some(json!({"profile": "dev"}))).await;
    late.refused(409, "conflict");
    let open =
        world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "permissive"})).await.ok(200);
    assert_eq!((&open["mode"], &open["revision"]), (&json!("permissive"), &json!(4)));
    assert_eq!(world.get("/api/v1/stats").await.ok(200)["permissive_nodes"], json!(["n1"]));
    let rows = world.get("/api/v1/audit?node=n1&limit=1").await.ok(200);
    assert!(
        rows["items"][0]["detail"].as_str().expect("words").contains("mode STRICT -> PERMISSIVE"),
        "{rows}"
    );

    world
        .admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "root"}))
        .await
        .refused(400, "invalid_argument");
    world
        .admin(Method::PUT, "/api/v1/policies/nobody", json!({"profile": "dev"}))
        .await
        .refused(404, "node_not_found");
    world
        .admin(Method::POST, "/api/v1/policies/n1/allow", json!({"program": "a/b"}))
        .await
        .refused(400, "invalid_argument");
    assert_eq!(world.get("/api/v1/policies").await.ok(200)["items"].as_array().map(Vec::len), Some(1));
    world.stop().await;
}

#[tokio::test]
async fn a_grant_for_a_time_ends_by_itself_with_a_revision_of_its_own() {
    let world = World::new(StoreKind::Memory).await;
    world.node("n1").await;
    let grant = json!({"program": "cargo", "for_ms": 50});
    world.admin(Method::POST, "/api/v1/policies/n1/allow", grant).await.ok(200);
    // The first token, the grant, and its end.
    let ended = world.hub.context.bus.reached(Seq(4));
    tokio::time::timeout(SOON, ended).await.expect("the grant ends");
    let rows = world.get("/api/v1/audit?actor=hub&limit=1").await.ok(200);
    assert_eq!(rows["items"][0]["action"], "policy.expire");
    assert!(rows["items"][0]["detail"].as_str().expect("words").contains("-cargo (ended)"), "{rows}");
    world.stop().await;
}

#[tokio::test]
async fn the_audit_log_is_paged_and_exported_whole() {
    let world = World::new(StoreKind::Memory).await;
    for number in 0..5 {
        let body = json!({"name": format!("t{number}"), "role": "viewer"});
        world.admin(Method::POST, "/api/v1/tokens", body).await.ok(201);
    }
    let mut seen = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = world.get(&format!("/api/v1/audit?limit=2&cursor={cursor}")).await.ok(200);
        seen.extend(
            page["items"].as_array().expect("items").iter().map(|row| row["seq"].as_u64().expect("a number")),
        );
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = next.to_owned();
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);
    let export = world.get("/api/v1/audit/export").await;
    assert_eq!(export.headers["content-type"], "application/x-ndjson");
    assert_eq!(export.body.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 6);
    world.get("/api/v1/audit?cursor=x").await.refused(400, "invalid_argument");
    world.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_expired_keeps_no_other_from_it() {
    let world = World::new(StoreKind::Memory).await;
    let good = world.node("good").await;
    let directory = &world.hub.context.directory;
    // A node that the store does not have: each change of its policy is refused.
    let ghost = NodeId::mint(1, &[0; 10]);
    let record = directory.node(good).expect("the node");
    directory.put_node(Node {
        id: ghost,
        name: Name::parse("ghost").expect("a name"),
        ..Node::clone(&record)
    });
    let program = Program::granted("ls".to_owned(), Some(WallTime(1)));
    let document = Document { programs: vec![program], ..Document::strict() };
    directory.put_policy(Policy { document, ..Policy::strict(ghost, WallTime(0)) }.into());
    let body = json!({"program": "cargo", "for_ms": 50});
    world.admin(Method::POST, "/api/v1/policies/good/allow", body).await.ok(200);
    let expired = async {
        while directory.policy(good, WallTime(0)).document.allowed(None).contains("cargo") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, expired).await.expect("the grant ends");
    world.stop().await;
}
