//! Users, roles, sessions and scoped tokens over real connections, and what each then sees.

use serde_json::json;

use super::*;

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["name"].as_str().expect("a name"))
        .collect()
}

async fn login(world: &World, user: &str, password: &str) -> Reply {
    world.call(Method::POST, "/api/v1/login", &[], Some(json!({"user": user, "password": password}))).await
}

#[tokio::test]
async fn a_person_sees_and_does_what_the_roles_of_it_and_its_groups_say() {
    let world = World::new(StoreKind::Memory).await;
    world.node("build-1").await;
    let db = world.labelled("db-1", "db").await;
    let link = world.attach(db).await;
    let run = world.open_run("db-1", &link, b"secret").await.to_string();
    let ada = world.person("ada", &[("operator", "role=ci")]).await;
    let get = async |path: &str| world.with_token(&ada, Method::GET, path, None).await;

    assert_eq!(names(&get("/api/v1/nodes").await.ok(200)), ["build-1"]);
    let policies = get("/api/v1/policies").await.ok(200);
    assert_eq!(policies["items"].as_array().map(Vec::len), Some(1), "{policies}");
    assert_eq!(get("/api/v1/runs").await.ok(200)["items"], json!([]));
    assert_eq!(get(&format!("/api/v1/runs?node={db}")).await.ok(200)["items"], json!([]));
    assert_eq!(get(&format!("/api/v1/audit?node={db}&cursor=0")).await.ok(200)["items"], json!([]));
    let stats = get("/api/v1/stats").await.ok(200);
    assert_eq!((&stats["nodes"], &stats["runs_open"]), (&json!(1), &json!(0)), "{stats}");
    assert_eq!(stats["permissive_nodes"], json!([]));
    let nearest = get("/api/v1/nodes/db-1").await.refused(404, "node_not_found");
    assert_eq!(nearest["details"]["nearest"], "build-1", "{nearest}");
    let start = json!({"nodes": ["db-1"], "argv": ["true"]});
    world.with_token(&ada, Method::POST, "/api/v1/runs", Some(start)).await.refused(404, "node_not_found");
    let start = json!({"selector": "role=db", "argv": ["true"]});
    world.with_token(&ada, Method::POST, "/api/v1/runs", Some(start)).await.refused(404, "node_not_found");
    let start = json!({"nodes": ["build-1"], "argv": ["curl"]});
    world.with_token(&ada, Method::POST, "/api/v1/runs", Some(start)).await.refused(403, "policy_denied");

    // Her own node's rows, and no others.
    let rows = get("/api/v1/audit?cursor=0").await.ok(200);
    let rows = rows["items"].as_array().expect("rows").clone();
    assert!(rows.iter().all(|row| row["actor"] == "user:ada" && row["action"] == "run.start"), "{rows:?}");
    assert_eq!(rows.len(), 1);

    let me = get("/api/v1/whoami").await.ok(200);
    assert_eq!(
        (&me["actor"], &me["role"], &me["kind"]),
        (&json!("user:ada"), &json!("operator"), &json!("session"))
    );
    assert_eq!(me["everywhere"], false);

    // A role of a group is had by who is in it.
    let grant = json!({"group": "dba", "role": "viewer", "selector": "role=db"});
    world.admin(Method::POST, "/api/v1/grants", grant).await.ok(201);
    world.admin(Method::PATCH, "/api/v1/users/ada", json!({"groups": ["dba"]})).await.ok(200);
    assert_eq!(names(&get("/api/v1/nodes").await.ok(200)), ["build-1", "db-1"]);
    assert_eq!(get(&format!("/api/v1/runs/{run}")).await.ok(200)["id"], json!(run));
    let cancel =
        world.with_token(&ada, Method::POST, &format!("/api/v1/runs/{run}/cancel"), Some(json!({}))).await;
    cancel.refused(403, "forbidden");
    world.stop().await;
}

#[tokio::test]
async fn with_a_user_go_its_tokens_its_sessions_and_its_roles() {
    let world = World::new(StoreKind::Sqlite).await;
    let ada = world.person("ada", &[("admin", "")]).await;
    let token = json!({"name": "of-ada", "role": "viewer"});
    let made = world.with_token(&ada, Method::POST, "/api/v1/tokens", Some(token)).await.ok(201);
    assert_eq!(made["record"]["user"], "ada", "a token that a person makes is the person's");
    let made = made["token"].as_str().expect("a token").to_owned();
    let see = async |token: &str| world.with_token(token, Method::GET, "/api/v1/nodes", None).await;
    see(&made).await.ok(200);
    world.admin(Method::DELETE, "/api/v1/users/ada", json!({})).await.ok(204);
    see(&ada).await.refused(401, "unauthenticated");
    see(&made).await.refused(401, "unauthenticated");
    login(&world, "ada", "the password of ada").await.refused(401, "unauthenticated");
    assert_eq!(world.get("/api/v1/users").await.ok(200)["items"], json!([]));
    assert_eq!(world.get("/api/v1/grants").await.ok(200)["items"], json!([]));

    // The same name is somebody else: nothing is inherited.
    let again = world.person("ada", &[]).await;
    see(&again).await.refused(403, "forbidden");

    let (dir, token_file) = (world.dir, world.hub.started().token_file.clone());
    world.hub.stop().await;
    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts again");
    let admin = std::fs::read_to_string(token_file).expect("the token file");
    let world = World { hub, admin: admin.trim().to_owned(), dir };
    let see = async |token: &str| world.with_token(token, Method::GET, "/api/v1/whoami", None).await;
    see(&made).await.refused(401, "unauthenticated");
    assert_eq!(see(&again).await.ok(200)["actor"], "user:ada", "a session outlives a restart");
    world.stop().await;
}

#[tokio::test]
async fn the_last_one_who_can_let_others_in_stays() {
    let world = World::new(StoreKind::Memory).await;
    let revoke =
        async |token: &str| world.with_token(token, Method::DELETE, "/api/v1/tokens/admin", None).await;
    revoke(&world.admin).await.refused(409, "conflict");
    let part = world.person("part", &[("admin", "role=ci"), ("operator", "")]).await;
    revoke(&part).await.refused(403, "forbidden");
    revoke(&world.admin).await.refused(409, "conflict");
    let ada = world.person("ada", &[("admin", "")]).await;
    revoke(&ada).await.ok(200);
    world.with_token(&world.admin, Method::GET, "/api/v1/nodes", None).await.refused(401, "unauthenticated");
    let grants = world.with_token(&ada, Method::GET, "/api/v1/grants", None).await.ok(200);
    let of_ada =
        grants["items"].as_array().expect("grants").iter().find(|grant| grant["subject"] == "user:ada");
    let of_ada = of_ada.expect("hers")["id"].as_str().expect("an id").to_owned();
    for path in [format!("/api/v1/grants/{of_ada}"), "/api/v1/users/ada".to_owned()] {
        world.with_token(&ada, Method::DELETE, &path, None).await.refused(409, "conflict");
    }
    assert_eq!(world.with_token(&ada, Method::GET, "/api/v1/whoami", None).await.ok(200)["everywhere"], true);
    world.stop().await;
}

#[tokio::test]
async fn nobody_gives_or_makes_more_than_it_has() {
    let world = World::new(StoreKind::Memory).await;
    let make = async |token: &str, body: Value| {
        world.with_token(token, Method::POST, "/api/v1/tokens", Some(body)).await
    };
    let body =
        json!({"name": "bound", "role": "admin", "rights": ["tokens:write", "users:read", "users:write"]});
    let bound = make(&world.admin, body).await.ok(201)["token"].as_str().expect("a token").to_owned();
    make(&bound, json!({"name": "x", "role": "admin"})).await.refused(403, "forbidden");
    make(&bound, json!({"name": "x", "role": "viewer"})).await.refused(403, "forbidden");
    make(&bound, json!({"name": "x", "role": "admin", "rights": ["users:read"]})).await.ok(201);
    world.person("ada", &[("admin", "")]).await;
    let own = json!({"password": "chosen by the thief"});
    let taken = world.with_token(&bound, Method::PATCH, "/api/v1/users/ada", Some(own)).await;
    taken.refused(403, "forbidden");
    world.person("eve", &[]).await;
    let grant = json!({"user": "eve", "role": "viewer"});
    world.with_token(&bound, Method::POST, "/api/v1/grants", Some(grant)).await.refused(403, "forbidden");
    let grant = json!({"group": "boss", "role": "admin"});
    world.admin(Method::POST, "/api/v1/grants", grant).await.ok(201);
    for (method, path, body) in [
        (Method::PATCH, "/api/v1/users/eve", json!({"groups": ["boss"]})),
        (Method::POST, "/api/v1/users", json!({"name": "mallory", "groups": ["boss"]})),
    ] {
        world.with_token(&bound, method, path, Some(body)).await.refused(403, "forbidden");
    }
    let short = make(&world.admin, json!({"name": "short", "role": "admin", "ttl_ms": 60_000})).await.ok(201);
    let short = short["token"].as_str().expect("a token").to_owned();
    make(&short, json!({"name": "long", "role": "viewer"})).await.refused(403, "forbidden");
    make(&short, json!({"name": "long", "role": "viewer", "ttl_ms": 1_000})).await.ok(201);
    world.stop().await;
}

#[tokio::test]
async fn a_token_of_an_ai_client_has_its_tools_its_nodes_and_its_own_runs() {
    let world = World::new(StoreKind::Memory).await;
    let (a, _) = (world.node("a").await, world.node("b").await);
    let link = world.attach(a).await;
    let foreign = world.open_run("a", &link, b"secret").await.to_string();
    for bad in [
        json!({"name": "c", "role": "operator", "kind": "client"}),
        json!({"name": "c", "role": "admin", "kind": "client", "tools": ["exec"]}),
        json!({"name": "c", "role": "operator", "kind": "client", "tools": ["exec"], "rights": ["policy:write"]}),
        json!({"name": "c", "role": "operator", "kind": "client", "tools": ["root"]}),
        json!({"name": "c", "role": "operator", "tools": ["exec"]}),
        json!({"name": "c", "role": "operator", "kind": "session"}),
        json!({"name": "c", "role": "operator", "nodes": ["a"], "selector": "role=ci"}),
        json!({"name": "c", "role": "operator", "selector": ""}),
        json!({"name": "c", "role": "operator", "rights": []}),
        json!({"name": "c", "role": "operator", "rights": ["root"]}),
    ] {
        world.admin(Method::POST, "/api/v1/tokens", bad).await.refused(400, "invalid_argument");
    }
    let client = json!({"name": "c", "role": "operator", "kind": "client", "nodes": ["a"], "tools": ["nodes_list", "exec", "run_get"]});
    let made = world.admin(Method::POST, "/api/v1/tokens", client).await.ok(201);
    assert_eq!((&made["record"]["kind"], &made["record"]["nodes"]), (&json!("client"), &json!(["a"])));
    let client = made["token"].as_str().expect("a token").to_owned();
    let get = async |path: &str| world.with_token(&client, Method::GET, path, None).await;
    assert_eq!(names(&get("/api/v1/nodes").await.ok(200)), ["a"]);
    get("/api/v1/nodes/a").await.refused(403, "wrong_audience");
    get("/api/v1/tokens").await.refused(403, "wrong_audience");
    get(&format!("/api/v1/runs/{foreign}")).await.refused(404, "not_found");
    let start = json!({"nodes": ["a"], "argv": ["sleep", "9"]});
    let run = world.with_token(&client, Method::POST, "/api/v1/runs", Some(start)).await.ok(202);
    let run = run["runs"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(get(&format!("/api/v1/runs/{run}")).await.ok(200)["caller"], "token:c");
    let start = json!({"nodes": ["b"], "argv": ["true"]});
    world.with_token(&client, Method::POST, "/api/v1/runs", Some(start)).await.refused(404, "node_not_found");
    world.stop().await;
}

#[tokio::test]
async fn a_login_tells_nothing_of_who_is_there_and_guessing_is_slowed_down() {
    let world = World::new(StoreKind::Memory).await;
    world.person("ada", &[]).await;
    world.admin(Method::POST, "/api/v1/users", json!({"name": "mute"})).await.ok(201);
    let shape = |reply: Reply| {
        let mut problem = reply.refused(401, "unauthenticated");
        problem.as_object_mut().expect("an object").remove("request_id");
        problem
    };
    let wrong = shape(login(&world, "ada", "not the password").await);
    for (user, password) in [
        ("nobody", "the password of ada"),
        ("mute", "the password of mute"),
        ("not a name!", "x"),
        (&"x".repeat(10_000), "x"),
        ("ada", ""),
        ("ada", &"x".repeat(100_000)),
    ] {
        assert_eq!(shape(login(&world, user, password).await), wrong, "{user:.20}");
    }
    let bound = cortex_core::limits::JOIN_FAILURES_MAX;
    let mut refused = 0;
    for _ in 0..=bound {
        let reply = login(&world, "ada", "not the password").await;
        if reply.status.as_u16() == 429 {
            assert!(reply.headers.contains_key("retry-after"));
            refused += 1;
        }
    }
    assert!(refused > 0, "the address waits");
    login(&world, "ada", "the password of ada").await.refused(429, "rate_limited");
    let audit = world.get("/api/v1/audit?cursor=0&limit=1000").await;
    let audit = String::from_utf8_lossy(&audit.body).into_owned();
    assert!(audit.contains("POST /api/v1/login, user ada") && audit.contains("user.login"));
    assert!(!audit.contains("password of") && !audit.contains("not a name!"));
    world.stop().await;
}

#[tokio::test]
async fn a_new_password_ends_the_sessions_and_a_session_can_end_itself() {
    let world = World::new(StoreKind::Memory).await;
    let first = world.person("ada", &[("viewer", "")]).await;
    assert!(first.starts_with("cxs_") && first.len() == 68);
    let api = world.token("api", Role::Admin, false, false).await;
    let see = async |token: &str| world.with_token(token, Method::GET, "/api/v1/nodes", None).await;
    see(&first).await.ok(200);
    for (body, code) in [(json!({"password": "short"}), 400), (json!({"password": "x".repeat(2_000)}), 413)] {
        assert_eq!(world.admin(Method::PATCH, "/api/v1/users/ada", body).await.status.as_u16(), code);
    }
    world.admin(Method::PATCH, "/api/v1/users/ada", json!({"password": "another good one"})).await.ok(200);
    see(&first).await.refused(401, "unauthenticated");
    login(&world, "ada", "the password of ada").await.refused(401, "unauthenticated");
    let second = login(&world, "ADA", "another good one").await.ok(201);
    assert_eq!(second["user"], "ada");
    let second = second["token"].as_str().expect("a token").to_owned();
    see(&second).await.ok(200);
    let third = login(&world, "ada", "another good one").await.ok(201);
    let third = third["token"].as_str().expect("a token").to_owned();
    let own = async |token: &str, current: &str, new: &str| {
        let body = json!({"current": current, "new": new});
        world.with_token(token, Method::POST, "/api/v1/password", Some(body)).await
    };
    own(&second, "a wrong one", "her very own one").await.refused(403, "forbidden");
    own(&second, "another good one", "short").await.refused(400, "invalid_argument");
    own(&api, "another good one", "her very own one").await.refused(400, "invalid_argument");
    see(&third).await.ok(200);
    own(&second, "another good one", "her very own one").await.ok(204);
    see(&third).await.refused(401, "unauthenticated");
    see(&second).await.ok(200);
    login(&world, "ada", "her very own one").await.ok(201);
    world.with_token(&second, Method::POST, "/api/v1/logout", None).await.ok(204);
    see(&second).await.refused(401, "unauthenticated");
    world.with_token(&api, Method::POST, "/api/v1/logout", None).await.refused(400, "invalid_argument");
    let url = world.get("/api/v1/nodes?q=cxs_abc").await.refused(400, "invalid_argument");
    assert!(url["message"].as_str().expect("words").contains("secret"), "{url}");
    let sessions = world.get("/api/v1/tokens?limit=1000").await.ok(200);
    let listed =
        sessions["items"].as_array().expect("items").iter().filter(|token| token["kind"] == "session");
    let states: Vec<_> = listed.map(|token| token["state"].clone()).collect();
    assert_eq!(states, ["live"], "ended ones are not listed");
    world.stop().await;
}

#[tokio::test]
async fn labels_are_set_by_who_administers_all_nodes() {
    let world = World::new(StoreKind::Memory).await;
    world.node("a").await;
    let narrow = world.person("narrow", &[("admin", "role=ci")]).await;
    let patch =
        async |body: Value| world.with_token(&narrow, Method::PATCH, "/api/v1/nodes/a", Some(body)).await;
    patch(json!({"labels": {"role": "db"}})).await.refused(403, "forbidden");
    assert_eq!(patch(json!({"name": "a-1"})).await.ok(200)["name"], "a-1");
    world.stop().await;
}

#[tokio::test]
async fn what_is_open_ends_when_its_caller_may_not_go_on() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("a").await;
    let link = world.attach(node).await;
    let run = world.open_run("a", &link, b"so far").await.to_string();
    let output = format!("/api/v1/runs/{run}/output?follow=true");
    for how in ["revoke", "ungrant", "remove", "logout"] {
        let name = format!("user-{how}");
        let session = world.person(&name, &[("viewer", "")]).await;
        let bearer = format!("Bearer {session}");
        let headers = [("authorization", bearer.as_str())];
        let mut events = world.open(Method::GET, "/api/v1/events", &headers, Bytes::new()).await.into_body();
        let bytes = world.open(Method::GET, &output, &headers, Bytes::new()).await.into_body();
        let mut other = world
            .open(
                Method::GET,
                &output,
                &[("authorization", &format!("Bearer {}", world.admin))],
                Bytes::new(),
            )
            .await
            .into_body();
        let listed = async |path: &str, is: &dyn Fn(&Value) -> bool| {
            let list = world.get(path).await.ok(200);
            let items = list["items"].as_array().expect("items");
            items.iter().find(|item| is(item)).expect("it is there")["id"].as_str().expect("an id").to_owned()
        };
        match how {
            "revoke" => {
                let id = listed("/api/v1/tokens", &|token| token["user"] == name.as_str()).await;
                world.admin(Method::DELETE, &format!("/api/v1/tokens/{id}"), json!({})).await.ok(200);
            }
            "ungrant" => {
                let subject = format!("user:{name}");
                let id = listed("/api/v1/grants", &|grant| grant["subject"] == subject.as_str()).await;
                world.admin(Method::DELETE, &format!("/api/v1/grants/{id}"), json!({})).await.ok(204);
            }
            "remove" => {
                world.admin(Method::DELETE, &format!("/api/v1/users/{name}"), json!({})).await.ok(204);
            }
            _ => {
                world.with_token(&session, Method::POST, "/api/v1/logout", None).await.ok(204);
            }
        }
        let ended = async {
            while events.frame().await.is_some_and(|frame| frame.is_ok()) {}
            bytes.collect().await.expect_err("bytes that are broken off are no whole answer");
        };
        tokio::time::timeout(SOON, ended).await.unwrap_or_else(|_| panic!("{how}: it stays open"));
        let first = tokio::time::timeout(SOON, other.frame()).await.expect("in time");
        assert!(first.is_some_and(|frame| frame.is_ok()), "others go on");
    }
    world.stop().await;
}
