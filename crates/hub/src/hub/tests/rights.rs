//! The table of doors beside the router, and refusals in the audit log.

use std::collections::BTreeSet;

use serde_json::json;

use super::*;
use crate::access;

#[tokio::test]
async fn the_table_of_rights_the_document_and_the_router_have_the_same_routes() {
    let world = World::new(StoreKind::Memory).await;
    let document = world.get("/api/v1/openapi.json").await.ok(200);
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .expect("paths")
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("methods").keys();
            methods.map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
        })
        .chain([("GET".to_owned(), "/api/v1/openapi.json".to_owned())])
        .collect();
    let table: BTreeSet<_> =
        access::routes().map(|(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(described, table);
    world.stop().await;
}

#[tokio::test]
async fn credentials_of_other_doors_are_named_as_such() {
    let world = World::new(StoreKind::Memory).await;
    for bearer in ["CXI1.aa.bb.cc", "-----BEGIN CERTIFICATE-----", "MIIBszCCAVmgAwIBAgIU"] {
        let value = format!("Bearer {bearer}");
        let reply = world.call(Method::GET, "/api/v1/nodes", &[("authorization", &value)], None).await;
        reply.refused(403, "wrong_audience");
    }
    let basic = world.call(Method::GET, "/api/v1/nodes", &[("authorization", "Basic YTpi")], None).await;
    basic.refused(401, "unauthenticated");
    world.stop().await;
}

#[tokio::test]
async fn a_refusal_for_want_of_a_right_is_in_the_audit_log() {
    let world = World::new(StoreKind::Memory).await;
    let viewer = world.token("viewer", Role::Viewer, false, false).await;
    let bearer = format!("Bearer {viewer}");
    let body = json!({"name": "mine", "role": "admin"});
    let reply = world.call(Method::POST, "/api/v1/tokens", &[("authorization", &bearer)], Some(body)).await;
    reply.refused(403, "forbidden");
    let rows = world.get("/api/v1/audit?actor=token:viewer").await.ok(200);
    let row = &rows["items"][0];
    assert_eq!((&row["outcome"], &row["reason"]), (&json!("denied"), &json!("forbidden")));
    assert_eq!(row["detail"], "POST /api/v1/tokens");
    assert!(
        !world
            .get("/api/v1/audit?limit=1000")
            .await
            .body
            .windows(8)
            .any(|part| part == &viewer.as_bytes()[4..12])
    );
    world.stop().await;
}

#[tokio::test]
async fn what_a_use_case_refuses_for_want_of_a_right_is_in_the_audit_log_too_and_once() {
    let world = World::new(StoreKind::Memory).await;
    world.node("a").await;
    let ada = world.person("ada", &[("admin", "role=ci")]).await;
    let ask = async |method: Method, path: &str, body: Value| {
        world.with_token(&ada, method, path, Some(body)).await
    };
    let label = json!({"labels": {"role": "db"}});
    ask(Method::PATCH, "/api/v1/nodes/a", label).await.refused(403, "forbidden");
    let password = json!({"current": "a wrong guess", "new": "her very own one"});
    ask(Method::POST, "/api/v1/password", password).await.refused(403, "forbidden");
    let viewer = world.person("bob", &[("viewer", "role=ci"), ("operator", "role=db")]).await;
    let run = json!({"nodes": ["a"], "argv": ["true"]});
    let started = world.with_token(&viewer, Method::POST, "/api/v1/runs", Some(run)).await;
    started.refused(403, "forbidden");
    let denied = async |actor: &str| {
        let rows = world.get(&format!("/api/v1/audit?limit=1000&actor={actor}")).await.ok(200);
        let rows = rows["items"].as_array().expect("items").clone().into_iter();
        let denied = rows.filter(|row| row["outcome"] == "denied" && row["reason"] == "forbidden");
        denied.map(|row| (row["action"].clone(), row["detail"].clone())).collect::<Vec<_>>()
    };
    let asked = denied("user:ada").await.into_iter().map(|(_, detail)| detail).collect::<Vec<_>>();
    assert_eq!(asked, ["PATCH /api/v1/nodes/{node}", "POST /api/v1/password"]);
    assert_eq!(denied("user:bob").await, [(json!("run.start"), Value::Null)], "it has a row of its own");
    world.stop().await;
}

#[tokio::test]
async fn what_a_token_may_not_do_is_in_the_audit_log_once_a_minute_with_its_number() {
    let world = World::new(StoreKind::Sqlite).await;
    let viewer = world.token("viewer", Role::Viewer, false, false).await;
    let bearer = format!("Bearer {viewer}");
    for path in ["/api/v1/tokens", "/api/v1/tokens", "/api/v1/invites", "/api/v1/tokens"] {
        let body = Some(json!({}));
        world.call(Method::POST, path, &[("authorization", &bearer)], body).await.refused(403, "forbidden");
    }
    let (dir, token_file) = (world.dir, world.hub.started().token_file.clone());
    world.hub.stop().await;

    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts again");
    let admin = std::fs::read_to_string(token_file).expect("the token file");
    let world = World { hub, admin: admin.trim().to_owned(), dir };
    let rows = world.get("/api/v1/audit?actor=token:viewer").await.ok(200);
    let items = rows["items"].as_array().expect("items").iter();
    let details: Vec<_> = items.map(|row| row["detail"].as_str().expect("words").to_owned()).collect();
    let expected = ["POST /api/v1/tokens", "POST /api/v1/invites", "POST /api/v1/tokens, 2 more within 60 s"];
    assert_eq!(details, expected);
    world.stop().await;
}

#[tokio::test]
async fn rejected_tokens_are_in_the_audit_log_once_a_minute_with_their_number_and_never_themselves() {
    let world = World::new(StoreKind::Sqlite).await;
    let revoked = world.token("leaver", Role::Admin, true, false).await;
    let guess = format!("cxt_{}", "7".repeat(64));
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        world.call(Method::GET, "/api/v1/nodes", &[("authorization", &bearer)], None).await
    };
    ask(&revoked).await.refused(401, "unauthenticated");
    for _ in 0..20 {
        ask(&guess).await.refused(401, "unauthenticated");
    }
    let (dir, token_file) = (world.dir, world.hub.started().token_file.clone());
    world.hub.stop().await;

    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts again");
    let admin = std::fs::read_to_string(token_file).expect("the token file");
    let world = World { hub, admin: admin.trim().to_owned(), dir };
    let rows = world.get("/api/v1/audit?actor=http:127.0.0.1").await.ok(200);
    let rows: Vec<_> = rows["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|row| (row["reason"].clone(), row["detail"].as_str().expect("words").to_owned()))
        .collect();
    let expected = ["GET /api/v1/nodes, token leaver", "20 more within 60 s"];
    assert_eq!(rows, expected.map(|detail| (json!("unauthenticated"), detail.to_owned())));
    let everything = world.get("/api/v1/audit/export").await;
    let everything = String::from_utf8_lossy(&everything.body).into_owned();
    assert!(!everything.contains(&guess[4..]) && !everything.contains(&revoked[4..]));
    world.stop().await;
}
