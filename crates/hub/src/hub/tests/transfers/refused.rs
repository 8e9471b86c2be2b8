//! What may not be asked for, by whom, and how often.

use cortex_core::limits::{TRANSFERS_OPEN_PER_TOKEN_MAX, WANTS_MAX};

use super::*;

#[tokio::test]
async fn a_strangers_transfer_is_not_there_and_who_may_lock_anybody_sees_it_only() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let owner = world.token("owner", Role::Operator, false, false).await;
    let stranger = world.token("stranger", Role::Operator, false, false).await;
    let begun = world.with_token(&owner, Method::POST, API, Some(push(&["n1"], 1))).await.ok(202);
    let transfer = id_of(&begun);
    let mut clerk = node.opened(&world).await;
    clerk.wants(&ids([1])).await;
    let path = format!("{API}/{transfer}");
    let calls = [
        (Method::GET, path.clone()),
        (Method::GET, format!("{path}/wants")),
        (Method::POST, format!("{path}/wants")),
        (Method::PUT, format!("{path}/packs")),
        (Method::POST, format!("{path}/missing")),
        (Method::GET, format!("{path}/content")),
        (Method::POST, format!("{path}/end")),
        (Method::DELETE, path.clone()),
    ];
    for (method, path) in &calls {
        world
            .octets(&stranger, method.clone(), path, pack([1])[..32].to_vec())
            .await
            .refused(404, "not_found");
    }
    let admin = world.admin.clone();
    assert_eq!(world.view(&transfer).await["by"], "token:owner");
    for (method, path) in &calls[1..] {
        world.octets(&admin, method.clone(), path, pack([1])[..32].to_vec()).await.refused(403, "forbidden");
    }
    let listed = async |token: &str| {
        world.with_token(token, Method::GET, API, None).await.ok(200)["items"].as_array().map(Vec::len)
    };
    assert_eq!(
        (listed(&owner).await, listed(&stranger).await, listed(&admin).await),
        (Some(1), Some(0), Some(1))
    );
    let viewer = world.token("viewer", Role::Viewer, false, false).await;
    world.with_token(&viewer, Method::POST, API, Some(push(&["n1"], 1))).await.refused(403, "forbidden");
    let gone =
        world.get(&format!("{API}/0190b2c4-0000-7000-8000-000000000000")).await.refused(404, "not_found");
    assert!(gone["hint"].as_str().is_some_and(|hint| hint.contains("anew")), "{gone}");
    world.with_token(&owner, Method::DELETE, &path, None).await.ok(200);
    clerk.is_cut().await;
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_person_goes_on_in_another_session_and_a_token_has_so_many_open() {
    let world = World::new(StoreKind::Memory).await;
    let _node = world.mover("n1").await;
    let first = world.person("ada", &[("operator", "")]).await;
    let login = json!({"user": "ada", "password": "the password of ada"});
    let second = world.call(Method::POST, "/api/v1/login", &[], Some(login)).await.ok(201);
    let second = second["token"].as_str().expect("a token").to_owned();
    let mut open = Vec::new();
    for number in 0..TRANSFERS_OPEN_PER_TOKEN_MAX {
        let order = push(&["n1"], u8::try_from(number).expect("few"));
        let begun = world.with_token(&first, Method::POST, API, Some(order)).await.ok(202);
        open.push(id_of(&begun));
    }
    let more = world.with_token(&first, Method::POST, API, Some(push(&["n1"], 99))).await;
    more.refused(429, "rate_limited");
    for id in &open {
        world.with_token(&second, Method::DELETE, &format!("{API}/{id}"), None).await.ok(200);
    }
    let again = world.with_token(&first, Method::POST, API, Some(push(&["n1"], 99))).await.ok(202);
    world.with_token(&first, Method::DELETE, &format!("{API}/{}", id_of(&again)), None).await.ok(200);
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn hostile_packs_and_wants_are_refused_and_harm_nothing() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
    let mut clerk = node.opened(&world).await;
    clerk.wants(&ids([1])).await;
    world.wants(&transfer, "?wait_ms=5000").await;
    let whole = pack([1]);
    let longer = [&whole[..], b"x"].concat();
    for bad in [Bytes::new(), whole.slice(..whole.len() - 1), longer.into(), Bytes::from_static(b"CXP1????")]
    {
        world.send(&transfer, bad).await.refused(400, "invalid_argument");
    }
    let most = cortex_core::limits::PACK_BODY_BYTES_MAX;
    world.send(&transfer, Bytes::from(vec![0; most + 1])).await.refused(413, "too_large");
    let admin = world.admin.clone();
    let path = format!("{API}/{transfer}/missing");
    let many = vec![0; 32 * (WANTS_MAX + 1)];
    world.octets(&admin, Method::POST, &path, many).await.refused(413, "too_large");
    world.get(&format!("{API}/{transfer}/wants?wait_ms=26000")).await.refused(400, "invalid_argument");
    world.get(&format!("{API}/{transfer}/content")).await.refused(400, "invalid_argument");
    world.send(&transfer, whole).await.ok(204);
    assert_eq!(clerk.given(1).await, ids([1]));
    // More than a receiver may have open ends it.
    for _ in 0..=cortex_core::limits::WANTS_OPEN_MAX / WANTS_MAX {
        let many: Vec<ContentId> = (2..).map(id).take(WANTS_MAX).collect();
        if clerk.up.send(Ok(sent_into(Sent::Frame(carry_to_bytes(Carry::Wants(many)))))).await.is_err() {
            break;
        }
    }
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "too_large");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_with_what_is_wrong() {
    let world = World::new(StoreKind::Memory).await;
    let _node = world.mover("n1").await;
    let with = |field: &str, value: Value| {
        let mut order = push(&["n1"], 1);
        order[field] = value;
        order
    };
    let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    for (order, status, code) in [
        (with("root", json!("abc")), 400, "invalid_argument"),
        (with("dest", json!("relative")), 400, "bad_path"),
        (with("labels", json!("role=ci")), 400, "invalid_argument"),
        (with("nodes", json!([])), 400, "invalid_argument"),
        (with("only", json!("a/b")), 400, "invalid_argument"),
        (with("rate_max", json!(10)), 400, "invalid_argument"),
        (with("accept", json!("no")), 400, "invalid_argument"),
        (with("exclude", json!(many)), 413, "too_large"),
        (with("entries", json!(6_000_000)), 413, "too_large"),
        (with("unknown", json!(1)), 400, "invalid_argument"),
        (json!({"kind": "pull", "node": "n1", "source": "x"}), 400, "bad_path"),
    ] {
        world.admin(Method::POST, API, order.clone()).await.refused(status, code);
    }
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_lock_ends_it_and_a_policy_that_forbids_it_and_no_other_change() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let begin = async || {
        let transfer = id_of(&world.begin(push(&["n1"], 1)).await);
        let clerk = node.opened(&world).await;
        (transfer, clerk)
    };
    let (transfer, mut clerk) = begin().await;
    let open = json!({"profile": "permissive", "kill": true});
    world.admin(Method::PUT, "/api/v1/policies/n1", open).await.ok(200);
    clerk.wants(&ids([1])).await;
    assert_eq!(world.wants(&transfer, "?wait_ms=5000").await.0, ids([1]), "it goes on");
    world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "strict", "kill": true})).await.ok(200);
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "path_outside_roots");
    assert_eq!(node.cancelled().await.to_string(), transfer);
    clerk.is_cut().await;
    world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "permissive"})).await.ok(200);
    let (transfer, mut clerk) = begin().await;
    world.admin(Method::POST, "/api/v1/locks", json!({"target": "node:n1"})).await.ok(201);
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "locked");
    clerk.is_cut().await;
    let view = world.begin(push(&["n1"], 1)).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "locked");
    world.is_idle().await;
    world.stop().await;
}

#[tokio::test]
async fn a_transfer_of_an_attempt_that_is_over_moves_nothing_more() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.mover("n1").await;
    let task = json!({"kind": "resize", "payload": "x", "backoff": {"initial_ms": 1}});
    world.admin(Method::POST, "/api/v1/pool/tasks", task).await.ok(202);
    let claim = json!({"kinds": ["resize"], "wait_s": 5});
    let claim = world.admin(Method::POST, "/api/v1/pool/claims", claim).await.ok(200);
    let task: TaskId = claim["items"][0]["id"].as_str().expect("an id").parse().expect("an id");
    let bearer = format!("Bearer {}", world.admin);
    let attempt = format!("{task}/1");
    let headers = [("authorization", &*bearer), ("cortex-attempt", &*attempt)];
    let begin = async || world.call(Method::POST, API, &headers, Some(push(&["n1"], 1))).await.ok(202);
    let transfer = id_of(&begin().await);
    let ask = node.ask().await;
    assert_eq!(ask.attempt, Some((task, Attempt(1))));
    let mut clerk = node.open(&world, &ask);
    world.lose((task, Attempt(1))).await;
    assert_eq!(node.cancelled().await, ask.id);
    clerk.is_cut().await;
    let view = world.over(&transfer).await;
    assert_eq!(view["nodes"][0]["error"]["code"], "stale_attempt");
    assert_eq!(begin().await["nodes"][0]["error"]["code"], "stale_attempt");
    node.is_left_alone().await;
    world.is_idle().await;
    world.stop().await;
}
