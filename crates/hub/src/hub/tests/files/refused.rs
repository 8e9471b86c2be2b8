//! Who may not, where nothing can be done, and what the audit log has of it.

use cortex_core::policy::{Document, Sensitive};

use super::*;

#[tokio::test]
async fn every_operation_has_its_row_before_it_happens_and_none_has_content() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let at = format!("/{PLAN}");
    let played = async {
        let ask = node.ask().await;
        // Before it is done.
        let rows = world.rows("fs.write").await;
        world.answers(&node, ask.id, Ok(written("hunter2")));
        rows
    };
    let (reply, rows) = tokio::join!(world.put(&at, &[], "hunter2"), played);
    reply.ok(201);
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let row =
        |outcome: &str, reason: &str, argv: &[&str]| (outcome.to_owned(), reason.to_owned(), words(argv));
    assert_eq!(rows, [row("allowed", "mode.permissive", &["@write", "/خطة", "bytes=7"])]);
    let path = format!("{FS}?path=/{PLAN}");
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, Ok(content("hunter2", 0, 7, true)));
    };
    let (reply, ()) = tokio::join!(world.fs(Method::GET, &path, &[], ""), played);
    reply.ok(200);
    assert_eq!(world.rows("fs.cat").await, [row("allowed", "mode.permissive", &["@cat", "/خطة"])]);
    let export = world.get("/api/v1/audit/export").await;
    assert!(!String::from_utf8_lossy(&export.body).contains("hunter2"));
    world.stop().await;
}

#[tokio::test]
async fn a_caller_without_the_right_is_refused_with_a_row_and_one_that_does_not_see_the_node_finds_none() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let both = world.person("dora", &[("viewer", "role=ci"), ("operator", "role=db")]).await;
    let path = format!("{FS}?path=/a");
    let reply = world.with_token(&both, Method::GET, &path, None).await;
    reply.refused(403, "forbidden");
    let rows = world.rows("fs.cat").await;
    assert_eq!((rows[0].0.as_str(), rows[0].1.as_str(), rows.len()), ("denied", "forbidden", 1));
    let foreign = world.person("emil", &[("operator", "role=db")]).await;
    world.with_token(&foreign, Method::GET, &path, None).await.refused(404, "node_not_found");
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a_policy_gives_its_roots_and_what_it_wants_a_person_for_is_not_done() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let profile = json!({"profile": "dev"});
    world.admin(Method::PUT, "/api/v1/policies/n1", profile).await.ok(200);
    let reply = world.fs(Method::GET, &format!("{FS}?path=/etc/shadow"), &[], "").await;
    reply.refused(403, "path_outside_roots");
    assert_eq!(world.told_of("/etc/shadow").await, [("file.denied".to_owned(), "cat roots.read".to_owned())]);
    let record = world.hub.context.directory.node(node.id).expect("it is there");
    let policy = world.hub.context.directory.policy(node.id, record.joined_at);
    let sensitive = vec![Sensitive { program: "@rm".to_owned(), words: vec!["/srv/*".to_owned()] }];
    let mode = cortex_core::policy::Mode::Permissive;
    let document = Document { mode, sensitive, ..policy.document.clone() };
    let careful = cortex_core::policy::Policy {
        revision: policy.revision.next(),
        document,
        ..cortex_core::policy::Policy::clone(&policy)
    };
    world.hub.context.directory.put_policy(careful.into());
    let reply = world.fs(Method::DELETE, &format!("{FS}?path=/srv/a"), &[], "").await;
    let problem = reply.refused(403, "policy_denied");
    assert_eq!(problem["details"]["rule"], "sensitive @rm /srv/*");
    node.is_left_alone().await;
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_is_away_old_or_shut_out_is_asked_nothing_and_nothing_waits_for_it() {
    let world = World::new(StoreKind::Memory).await;
    let mut node = world.with_files("n1").await;
    world.hub.mesh.detach(&node.link);
    world.put("/a", &[("idempotency-key", "k")], "x").await.refused(409, "node_offline");
    node.link = world.attach_with(node.id, |hello| hello.protocol = 2).await;
    world.put("/a", &[("idempotency-key", "k")], "x").await.refused(412, "version_unsupported");
    let open = world.hub.context.view(|view| view.open_file_ops()).await.expect("readable");
    assert_eq!(open, []);
    node.comes_back(&world, vec![]).await;
    node.is_left_alone().await;
    world.hub.context.directory.quarantine(node.id);
    world.put("/a", &[], "x").await.refused(409, "cloned_identity");
    let reasons: Vec<String> = world.rows("fs.write").await.into_iter().map(|row| row.1).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    world.stop().await;
}

#[tokio::test]
async fn a_lock_refuses_what_comes_and_ends_what_is_under_way() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.with_files("n1").await;
    let played = async {
        let ask = node.ask().await;
        let lock = json!({"target": "node:n1"});
        let lock = world.admin(Method::POST, "/api/v1/locks", lock).await.ok(201);
        assert_eq!(node.cancel().await, ask.id);
        world.answers(&node, ask.id, Err(Refusal::new(Code::Timeout, "It was ended.")));
        lock["id"].as_str().expect("an id").to_owned()
    };
    let (reply, lock) = tokio::join!(world.put("/a", &[], "x"), played);
    reply.refused(403, "locked");
    world.put("/b", &[], "x").await.refused(403, "locked");
    node.is_left_alone().await;
    world.admin(Method::DELETE, &format!("/api/v1/locks/{lock}"), json!({})).await.ok(200);
    let played = async {
        let ask = node.ask().await;
        // It was done when the lock came.
        world.admin(Method::POST, "/api/v1/locks", json!({"target": "node:n1"})).await.ok(201);
        world.answers(&node, ask.id, Ok(written("x")));
    };
    let (reply, ()) = tokio::join!(world.put("/c", &[], "x"), played);
    reply.ok(201);
    world.stop().await;
}

#[tokio::test]
async fn a_token_has_so_many_open_and_others_go_on() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let path = format!("{FS}?path=/a&view=stat");
    let max = cortex_core::limits::FILE_OPS_OPEN_PER_TOKEN_MAX;
    let mut open = Vec::new();
    for _ in 0..max {
        let token = format!("Bearer {}", world.admin);
        let addr = world.hub.started().http;
        let request = path.clone();
        open.push(tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(addr).await.expect("the hub listens");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP/1.1");
            tokio::spawn(connection);
            let request = ::http::Request::get(request).header("host", addr.to_string());
            let request =
                request.header("authorization", token).body(Full::<Bytes>::default()).expect("a request");
            sender.send_request(request).await.expect("an answer").status().as_u16()
        }));
    }
    let mut asks = Vec::new();
    for _ in 0..max {
        asks.push(node.ask().await.id);
    }
    world.fs(Method::GET, &path, &[], "").await.refused(429, "rate_limited");
    let other = world.token("other", Role::Operator, false, false).await;
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, Ok(sample(Verb::Stat)));
    };
    let (reply, ()) = tokio::join!(world.with_token(&other, Method::GET, &path, None), played);
    reply.ok(200);
    asks.into_iter().for_each(|op| world.answers(&node, op, Ok(sample(Verb::Stat))));
    for open in open {
        assert_eq!(open.await.expect("it ends"), 200);
    }
    assert_eq!(world.hub.mesh.file_ops_open(), 0);
    world.stop().await;
}

#[tokio::test]
async fn what_the_rules_of_the_node_refuse_is_in_the_audit_log_and_an_event() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.with_files("n1").await;
    let out = || Err(Refusal::new(Code::PathOutsideRoots, "The link leads out of its root."));
    let path = format!("{FS}?path=/srv/{PLAN}");
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, out());
    };
    let (reply, ()) = tokio::join!(world.fs(Method::GET, &path, &[], ""), played);
    reply.refused(403, "path_outside_roots");
    let at = format!("/srv/{PLAN}");
    let played = async {
        let ask = node.ask().await;
        world.answers(&node, ask.id, out());
    };
    let (reply, ()) = tokio::join!(world.put(&at, &[], "x"), played);
    reply.refused(403, "path_outside_roots");
    let both = async {
        while world.told_of("/srv/خطة").await.len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, both).await.expect("both are told");
    for (action, argv) in [("fs.cat", ["@cat", "/srv/خطة"]), ("fs.write", ["@write", "/srv/خطة"])] {
        let denied: Vec<_> = world.rows(action).await.into_iter().filter(|row| row.0 == "denied").collect();
        let argv = argv.map(str::to_owned).to_vec();
        assert_eq!(denied, [("denied".to_owned(), "path_outside_roots".to_owned(), argv)]);
    }
    world.stop().await;
}
