//! Answers to questions: by whom and by whom not, one by one and at once, in time and for a time.

use super::*;

#[tokio::test]
async fn nobody_answers_its_own_question_and_what_one_does_not_see_is_not_there() {
    let scene = Scene::new(StoreKind::Memory).await;
    let world = &scene.world;
    let made = json!({"name": "client", "role": "operator", "kind": "client", "tools": ["exec", "run_get"]});
    let client = world.admin(Method::POST, "/api/v1/tokens", made).await.ok(201);
    let client = client["token"].as_str().expect("a token").to_owned();
    let viewer = world.token("viewer", Role::Viewer, false, false).await;
    let other = world.person("other", &[("operator", "role=db")]).await;
    let id = scene.ask(&["curl"]).await;
    let own = world.with_token(&client, Method::POST, "/api/v1/runs", Some(asking(&["curl"]))).await;
    let clients =
        own.refused(403, "consent_required")["details"]["consent_id"].as_str().expect("an id").to_owned();

    for (how, body) in
        [("approve", json!({})), ("approve", json!({"words": 1})), ("deny", json!({"note": "n"}))]
    {
        let path = format!("/api/v1/consents/{id}/{how}");
        let call = async |token: &str| world.with_token(token, Method::POST, &path, Some(body.clone())).await;
        call(&scene.agent).await.refused(403, "forbidden");
        call(&viewer).await.refused(403, "forbidden");
        call(&client).await.refused(403, "wrong_audience");
        call(&other).await.refused(404, "not_found");
        let path = format!("/api/v1/consents/{clients}/{how}");
        world
            .with_token(&client, Method::POST, &path, Some(body.clone()))
            .await
            .refused(403, "wrong_audience");
    }
    let get = async |token: &str, id: &str| {
        world.with_token(token, Method::GET, &format!("/api/v1/consents/{id}"), None).await
    };
    get(&client, &clients).await.ok(200);
    get(&client, &id).await.refused(404, "not_found");
    get(&other, &id).await.refused(404, "not_found");
    let list = world.with_token(&client, Method::GET, "/api/v1/consents", None).await.ok(200);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let list = world.with_token(&other, Method::GET, "/api/v1/consents", None).await.ok(200);
    assert_eq!(list["items"], json!([]));

    // A person is the same with another token.
    let bob = world.person("bob", &[("operator", "")]).await;
    let asked = world.with_token(&bob, Method::POST, "/api/v1/runs", Some(asking(&["curl", "b"]))).await;
    let asked =
        asked.refused(403, "consent_required")["details"]["consent_id"].as_str().expect("an id").to_owned();
    let session = json!({"user": "bob", "password": "the password of bob"});
    let session = world.call(Method::POST, "/api/v1/login", &[], Some(session)).await.ok(201);
    let session = session["token"].as_str().expect("a session").to_owned();
    let path = format!("/api/v1/consents/{asked}/approve");
    world.with_token(&session, Method::POST, &path, Some(json!({}))).await.refused(403, "forbidden");
    let denied = scene
        .actions()
        .await
        .into_iter()
        .filter(|(action, _, outcome)| action == "consent.answer" && outcome == "denied");
    let actors: BTreeSet<String> = denied.map(|(_, actor, _)| actor).collect();
    assert!(actors.contains("token:agent") && actors.contains("user:bob"), "{actors:?}");
    assert!(scene.runs().await.is_empty());
    scene.world.stop().await;
}

#[tokio::test]
async fn an_answer_that_lasts_is_given_at_once_to_what_it_covers_until_it_ends() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let id = scene.ask(&["git", "push", "origin"]).await;
        scene.answer(&id, "approve", json!({"words": 4})).await.refused(400, "invalid_argument");
        scene.answer(&id, "approve", json!({"words": 2})).await.ok(200);
        let exact = scene.ask(&["curl", "x"]).await;
        scene.answer(&exact, "approve", json!({"for_ms": 60_000})).await.ok(200);
        let rules = scene.as_ada(Method::GET, "/api/v1/consent-rules", Value::Null).await.ok(200);
        let rules = rules["items"].as_array().expect("rules").clone();
        let words: Vec<_> =
            rules.iter().map(|rule| (rule["pattern"].clone(), rule["exact"].clone())).collect();
        assert_eq!(words, [(json!(["git", "push"]), json!(false)), (json!(["curl", "x"]), json!(true))]);

        let run = async |argv: &[&str]| scene.as_agent(Method::POST, "/api/v1/runs", asking(argv)).await;
        let started = run(&["git", "push", "--force"]).await.ok(202);
        assert_eq!(started["runs"][0]["consent"], rules[0]["id"]);
        run(&["curl", "x"]).await.ok(202);
        run(&["curl", "x", "y"]).await.refused(403, "consent_required");
        run(&["git", "pull"]).await.refused(403, "consent_required");
        // Without asking the policy alone decides.
        let plain = json!({"nodes": ["n1"], "argv": ["git", "push"]});
        scene.as_agent(Method::POST, "/api/v1/runs", plain).await.refused(403, "policy_denied");
        let rows = scene.world.get("/api/v1/audit?limit=1000&cursor=0").await.ok(200);
        let by = format!("by the lasting answer {} of user:ada", rules[0]["id"].as_str().expect("an id"));
        assert!(
            rows["items"].as_array().expect("rows").iter().any(|row| row["detail"] == json!(by)),
            "{rows}"
        );

        let path = format!("/api/v1/consent-rules/{}", rules[0]["id"].as_str().expect("an id"));
        scene.as_agent(Method::DELETE, &path, Value::Null).await.ok(200);
        scene.as_ada(Method::DELETE, &path, Value::Null).await.refused(404, "not_found");
        run(&["git", "push", "--force"]).await.refused(403, "consent_required");
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn an_approval_asks_anew_what_the_asker_and_the_policy_are() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let world = &scene.world;

        // The node is away: the question waits on.
        let waits = scene.ask(&["curl", "1"]).await;
        world.hub.mesh.detach(&scene.link);
        scene.answer(&waits, "approve", json!({})).await.refused(409, "node_offline");
        assert_eq!(scene.shown(&waits).await["standing"], "pending");
        let node = world.hub.context.directory.nodes()[0].id;
        let _link = world.attach(node).await;

        // The policy denies it meanwhile.
        let denied = scene.ask(&["wget"]).await;
        world.admin(Method::POST, "/api/v1/policies/n1/deny", json!({"program": "wget"})).await.ok(200);
        scene.answer(&denied, "approve", json!({})).await.refused(409, "conflict");
        let shown = scene.shown(&denied).await;
        assert_eq!((&shown["standing"], &shown["answered_by"]), (&json!("withdrawn"), &json!("hub")));
        assert!(shown["note"].as_str().is_some_and(|note| note.contains("exec.deny")), "{shown}");

        // A lock on the node leaves the question, one on whoever asked does not.
        let lock = async |target: &str| {
            let made = world
                .admin(Method::POST, "/api/v1/locks", json!({"target": target, "message": "look"}))
                .await;
            made.ok(201)["id"].as_str().expect("an id").to_owned()
        };
        let on_node = lock("node:n1").await;
        scene.answer(&waits, "approve", json!({})).await.refused(403, "locked");
        assert_eq!(scene.shown(&waits).await["standing"], "pending");
        world.admin(Method::DELETE, &format!("/api/v1/locks/{on_node}"), json!({})).await;
        let locked = scene.ask(&["curl", "3"]).await;
        let on_token = lock("token:agent").await;
        scene.answer(&locked, "approve", json!({})).await.refused(409, "conflict");
        assert_eq!(scene.shown(&locked).await["standing"], "withdrawn");
        world.admin(Method::DELETE, &format!("/api/v1/locks/{on_token}"), json!({})).await;

        // The token that asked was revoked.
        let orphan = scene.ask(&["curl", "2"]).await;
        world.admin(Method::DELETE, "/api/v1/tokens/agent", json!({})).await.ok(200);
        let problem = scene.answer(&orphan, "approve", json!({})).await.refused(409, "conflict");
        assert_eq!(problem["details"]["standing"], "withdrawn", "{problem}");
        assert_eq!(scene.shown(&orphan).await["note"], "The token was revoked.");
        scene.answer(&waits, "approve", json!({})).await.refused(409, "conflict");
        assert!(scene.runs().await.is_empty());
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn of_several_who_answer_at_once_one_wins_and_the_others_are_told() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let mut approved = 0;
        for round in 0..12 {
            let id = scene.ask(&["curl", &round.to_string()]).await;
            let yes = || scene.answer(&id, "approve", json!({}));
            let no = || scene.answer(&id, "deny", json!({"note": "no"}));
            let path = format!("/api/v1/consents/{id}");
            let (a, b, c, d) = if round % 2 == 0 {
                tokio::join!(yes(), no(), yes(), scene.as_agent(Method::DELETE, &path, Value::Null))
            } else {
                tokio::join!(no(), yes(), yes(), scene.as_agent(Method::DELETE, &path, Value::Null))
            };
            let replies = [a, b, c, d];
            let won = replies.iter().filter(|reply| reply.status == StatusCode::OK).count();
            assert_eq!(won, 1, "{replies:?}");
            replies
                .iter()
                .filter(|reply| reply.status != StatusCode::OK)
                .for_each(|reply| drop(reply.refused(409, "conflict")));
            approved += usize::from(scene.shown(&id).await["standing"] == "approved");
        }
        assert_eq!(scene.runs().await.len(), approved, "as many runs as approvals");
        for _ in 0..approved {
            scene.start().await;
        }
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn an_approval_and_the_revocation_of_the_token_that_asked_come_in_some_order() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let world = &scene.world;
        let mut started = 0;
        for round in 0..8 {
            let name = format!("agent-{round}");
            let agent = world.token(&name, Role::Operator, false, false).await;
            let asked =
                world.with_token(&agent, Method::POST, "/api/v1/runs", Some(asking(&["curl", &name]))).await;
            let id = asked.refused(403, "consent_required")["details"]["consent_id"]
                .as_str()
                .expect("an id")
                .to_owned();
            let path = format!("/api/v1/tokens/{name}");
            let (approval, revoked) = tokio::join!(
                scene.answer(&id, "approve", json!({})),
                world.admin(Method::DELETE, &path, json!({}))
            );
            revoked.ok(200);
            let standing = scene.shown(&id).await["standing"].clone();
            if approval.status == StatusCode::OK {
                assert_eq!(standing, "approved");
                started += 1;
            } else {
                approval.refused(409, "conflict");
                assert_eq!(standing, "withdrawn");
            }
        }
        assert_eq!(scene.runs().await.len(), started);
        scene.world.stop().await;
    }
}

/// A question that ends so many milliseconds from this moment.
async fn short(scene: &Scene, number: u8, ms: i64) -> ConsentId {
    let context = &scene.world.hub.context;
    let token = context.directory.token(&secret::hash(scene.agent.as_bytes())).expect("it is known");
    let now = context.clock.wall();
    let consent = Consent {
        id: clock::new_consent_id(&context.clock),
        run: clock::new_run_id(&context.clock),
        node: scene.link.node(),
        caller: "token:agent".to_owned(),
        token: token.id,
        user: None,
        spec: RunSpec { argv: vec!["curl".to_owned(), number.to_string()], ..RunSpec::default() },
        key: None,
        traceparent: None,
        reason: "soon".to_owned(),
        rule: "asked".to_owned(),
        notes: Vec::new(),
        standing: Standing::Pending,
        answered_by: None,
        note: None,
        created_at: now,
        expires_at: WallTime(now.0 + ms),
        answered_at: None,
    };
    let kept = consent.clone();
    scene.world.write(move |tx| Ok(tx.put_consent(&kept)?)).await;
    context.directory.put_consent(&consent);
    consent.id
}

#[tokio::test]
async fn a_question_ends_with_its_time_and_an_answer_at_that_moment_is_one_or_the_other() {
    for kind in BOTH {
        let scene = Scene::new(kind).await;
        let consents = Consents::new(
            scene.world.hub.context.clone(),
            scene.world.hub.mesh.clone(),
            Runs::new(
                scene.world.hub.context.clone(),
                scene.world.hub.mesh.clone(),
                RunLogs::open(&scene.world.dir.path().join(RUNS)).expect("logs"),
                scene.world.dir.path(),
            ),
        );
        let ids = join_all((0..10_u8).map(|number| short(&scene, number, 150 + i64::from(number) * 5))).await;
        let until = clock::Clock::default().wall().0 + 160;
        let mut approved = 0;
        for id in &ids {
            let wait = u64::try_from(until - scene.world.hub.context.clock.wall().0).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(wait)).await;
            let reply = scene.answer(&id.to_string(), "approve", json!({})).await;
            let settled = tokio::time::timeout(SOON, consents.settled(*id))
                .await
                .expect("in time")
                .expect("it is kept");
            if reply.status == StatusCode::OK {
                assert_eq!(settled.standing, Standing::Approved);
                approved += 1;
            } else {
                reply.refused(409, "conflict");
                assert_eq!(settled.standing, Standing::Expired, "the worker ends it");
            }
        }
        assert_eq!(scene.runs().await.len(), approved);
        assert!(approved < ids.len(), "some were too late");
        scene.world.stop().await;
    }
}

#[tokio::test]
async fn whoever_asked_takes_it_back_and_nobody_else_does() {
    let scene = Scene::new(StoreKind::Memory).await;
    let mut lines = Heard::open(&scene, "key-1", asking(&["curl"])).await;
    let id = lines.of("asked").await["consent_id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/consents/{id}");
    scene.as_ada(Method::DELETE, &path, Value::Null).await.refused(403, "forbidden");
    let back = scene.as_agent(Method::DELETE, &path, Value::Null).await.ok(200);
    assert_eq!(back["standing"], "withdrawn");
    assert_eq!(lines.of("refused").await["error"]["code"], "consent_denied");
    scene.as_agent(Method::DELETE, &path, Value::Null).await.refused(409, "conflict");
    scene.answer(&id, "approve", json!({})).await.refused(409, "conflict");
    scene.world.stop().await;
}

#[tokio::test]
async fn questions_and_lasting_answers_outlive_the_hub() {
    let scene = Scene::new(StoreKind::Sqlite).await;
    let lasting = scene.ask(&["git", "push"]).await;
    scene.answer(&lasting, "approve", json!({"words": 2})).await.ok(200);
    let waits = scene.ask(&["curl"]).await;
    let Scene { world, agent, ada, .. } = scene;
    let (dir, token_file) = (world.dir, world.hub.started().token_file.clone());
    world.hub.stop().await;

    let hub = Hub::start(config(dir.path(), StoreKind::Sqlite)).await.expect("the hub starts again");
    let admin = std::fs::read_to_string(token_file).expect("the token file").trim().to_owned();
    let world = World { hub, admin, dir };
    let node = world.hub.context.directory.nodes()[0].id;
    let link = world.attach(node).await;
    let scene = Scene { world, link, agent, ada };
    let body = asking(&["git", "push", "-v"]);
    scene.as_agent(Method::POST, "/api/v1/runs", body).await.ok(202);
    assert_eq!(scene.ask(&["curl"]).await, waits);
    scene.answer(&waits, "approve", json!({})).await.ok(200);
    scene.world.stop().await;
}
