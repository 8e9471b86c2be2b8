//! The routes of the work pool over real connections: what people do with tasks. Nodes and workers have
//! their own files.

use serde_json::json;

use super::*;

mod dealt;
mod explained;
mod given;
mod handed;
mod kept;
mod late;
mod paused;
mod reported;
mod scheduled;
mod worked;

const BOTH: [StoreKind; 2] = [StoreKind::Memory, StoreKind::Sqlite];
const TASKS: &str = "/api/v1/pool/tasks";
const NO_ID: &str = "0190b2c4-0000-7000-8000-000000000000";

fn id(task: &Value) -> String {
    task["id"].as_str().unwrap_or_else(|| panic!("no id: {task}")).to_owned()
}

fn of(task: &Value, what: &str) -> String {
    format!("{TASKS}/{}{what}", id(task))
}

fn steps(story: &Value) -> Vec<&str> {
    story["timeline"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect()
}

impl World {
    async fn submit(&self, body: Value) -> Value {
        self.admin(Method::POST, TASKS, body).await.ok(202)
    }

    async fn story(&self, task: &Value) -> Value {
        self.get(&of(task, "")).await.ok(200)
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        self.admin(Method::POST, path, body).await
    }

    /// Details of all events of a kind on this task.
    async fn told(&self, kind: &str, task: &Value) -> Vec<String> {
        let all = self.hub.context.view(|view| view.events(cortex_core::id::Seq(0), 1_000)).await;
        let all = all.expect("events").into_iter().map(|logged| logged.event);
        let of_it =
            all.filter(|event| event.kind.as_str() == kind && event.subject.as_ref() == Some(&id(task)));
        of_it.map(|event| event.detail.unwrap_or_default()).collect()
    }

    /// The task once it is in that state.
    async fn task_reaches(&self, task: &Value, state: &str) -> Value {
        self.task_once(task, |story| story["state"] == state).await
    }

    /// The task once its timeline has that step.
    async fn task_has(&self, task: &Value, step: &str) -> Value {
        self.task_once(task, |story| steps(story).contains(&step)).await
    }

    async fn task_once(&self, task: &Value, is_it: impl Fn(&Value) -> bool) -> Value {
        let wait = async {
            let mut after = 0;
            loop {
                let story = self.get(&of(task, &format!("?wait_s=10&after={after}"))).await.ok(200);
                if is_it(&story) {
                    return story;
                }
                after = story["steps"].as_u64().expect("a number");
            }
        };
        match tokio::time::timeout(SOON, wait).await {
            Ok(story) => story,
            Err(_) => panic!("it did not come to that: {}", self.story(task).await),
        }
    }
}

#[tokio::test]
async fn a_task_is_submitted_shown_steered_and_listed() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let asked = json!({
            "argv": ["make", "all"], "cwd": "/srv", "env": {"KEY": "cxs-canary"}, "run_limit_ms": 60_000,
            "selector": "role=ci", "prefer": "fast=yes", "priority": 7, "attempts": 4, "lease_ms": 30_000,
            "backoff": {"initial_ms": 50}, "start_within_ms": 3_600_000, "start_within_pauses": true,
            "concurrency": {"key": "db", "limit": 2}, "labels": {"team": "blue"},
        });
        let reply = world.post(TASKS, asked).await;
        let task = reply.ok(202);
        assert_eq!(reply.headers["location"], of(&task, ""));
        for (field, expected) in [
            ("state", json!("ready")),
            ("kind", json!("command")),
            ("argv", json!(["make", "all"])),
            ("env_names", json!(["KEY"])),
            ("run_limit_ms", json!(60_000)),
            ("selector", json!("role=ci")),
            ("prefer", json!("fast=yes")),
            ("priority", json!(7)),
            ("attempt", json!(0)),
            ("attempts", json!(4)),
            ("lease_ms", json!(30_000)),
            ("concurrency", json!({"key": "db", "limit": 2})),
            ("labels", json!({"team": "blue"})),
            ("caller", json!("token:admin")),
            ("start_within_pauses", json!(true)),
            ("node", Value::Null),
        ] {
            assert_eq!(task[field], expected, "{field}");
        }
        assert_eq!(task["backoff"]["initial_ms"], 50);

        let bumped = world.post(&of(&task, "/priority"), json!({"priority": 9})).await.ok(200);
        assert_eq!(bumped["priority"], 9);
        let cancelled = world.post(&of(&task, "/cancel"), json!({})).await.ok(202);
        assert_eq!(
            (&cancelled["state"], &cancelled["cancelled_by"]),
            (&json!("cancelled"), &json!("token:admin"))
        );
        world.post(&of(&task, "/priority"), json!({"priority": 3})).await.refused(409, "conflict");
        let again = world.post(&of(&task, "/retry"), json!({})).await.ok(202);
        assert_eq!((&again["state"], &again["cancelled_by"]), (&json!("ready"), &Value::Null));
        world.post(&of(&task, "/retry"), json!({})).await.refused(409, "conflict");

        let story = world.story(&task).await;
        assert_eq!(steps(&story), ["submitted", "ready", "bumped", "cancelled", "retried", "ready"]);
        assert_eq!(story["timeline"][2]["detail"], "7 to 9");
        assert_eq!(story["evidence"], json!([]));
        world.stop().await;
    }
}

#[tokio::test]
async fn tasks_are_listed_in_pages_by_state_label_and_owner() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let mine: Vec<Value> =
            (0..3).map(|n| json!({"argv": ["true"], "labels": {"n": n.to_string()}})).collect();
        let mine = world.post(TASKS, json!(mine)).await.ok(202);
        let ids: Vec<&Value> =
            mine["items"].as_array().expect("items").iter().map(|item| &item["task"]["id"]).collect();
        let other = world.token("other", Role::Operator, false, false).await;
        let theirs =
            world.with_token(&other, Method::POST, TASKS, Some(json!({"argv": ["id"]}))).await.ok(202);
        world.post(&of(&mine["items"][0]["task"], "/cancel"), json!({})).await.ok(202);
        let list = async |query: &str| -> (Vec<Value>, Value) {
            let page = world.get(&format!("{TASKS}{query}")).await.ok(200);
            let ids =
                page["items"].as_array().expect("items").iter().map(|task| task["id"].clone()).collect();
            (ids, page["next_cursor"].clone())
        };
        let (first, cursor) = list("?limit=2").await;
        assert_eq!(first, [theirs["id"].clone(), ids[2].clone()], "the newest first");
        let (second, end) = list(&format!("?limit=2&cursor={}", cursor.as_str().expect("more"))).await;
        assert_eq!((second, end), (vec![ids[1].clone(), ids[0].clone()], Value::Null));
        assert_eq!(list("?own=true").await.0.len(), 3);
        assert_eq!(list("?label=n=1").await.0, [ids[1].clone()]);
        assert_eq!(list("?state=cancelled,done").await.0, [ids[0].clone()]);
        world.get(&format!("{TASKS}?state=asleep")).await.refused(400, "invalid_argument");
        world.get(&format!("{TASKS}?label=n")).await.refused(400, "invalid_argument");
        world.get(&format!("{TASKS}?cursor=x")).await.refused(400, "invalid_argument");
        world.stop().await;
    }
}

#[tokio::test]
async fn a_key_is_one_task_and_another_body_with_it_is_a_conflict() {
    for kind in BOTH {
        let world = World::new(kind).await;
        let bearer = format!("Bearer {}", world.admin);
        let with_key = async |body: Value| {
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", "nightly")];
            world.call(Method::POST, TASKS, &headers, Some(body)).await
        };
        let body = json!({"kind": "resize", "payload": "a.png"});
        let first = with_key(body.clone()).await.ok(202);
        let again = with_key(body.clone()).await.ok(200);
        assert_eq!((&again["id"], &again["key"]), (&first["id"], &json!("nightly")));
        with_key(json!({"kind": "resize", "payload": "b.png"})).await.refused(409, "conflict");
        with_key(json!({"kind": "resize", "payload": "a.png", "key": "other"}))
            .await
            .refused(400, "invalid_argument");
        with_key(json!([{"kind": "resize"}])).await.refused(400, "invalid_argument");
        let in_body =
            world.post(TASKS, json!({"kind": "resize", "payload": "a.png", "key": "nightly"})).await;
        assert_eq!(in_body.ok(200)["id"], first["id"]);
        // The keys of one are not those of another.
        let other = world.token("other", Role::Operator, false, false).await;
        let body = json!({"kind": "resize", "payload": "b.png", "key": "nightly"});
        let theirs = world.with_token(&other, Method::POST, TASKS, Some(body)).await.ok(202);
        assert_ne!(theirs["id"], first["id"]);
        // Done, it gives its result.
        let claimed = world.post("/api/v1/pool/claims", json!({"kinds": ["resize"]})).await.ok(200);
        assert_eq!(claimed["items"][0]["id"], first["id"]);
        let finish = format!("/api/v1/pool/leases/{}/1/finish", id(&first));
        world.post(&finish, json!({"output": "small.png"})).await.ok(200);
        let known = with_key(json!({"kind": "resize", "payload": "a.png"})).await.ok(200);
        assert_eq!((&known["state"], &known["result"]["output"]), (&json!("done"), &json!("small.png")));
        world.stop().await;
    }
}

#[tokio::test]
async fn an_array_is_answered_one_by_one_and_what_is_wrong_holds_up_nobody() {
    let world = World::new(StoreKind::Sqlite).await;
    let body = json!([
        {"argv": ["true"]},
        {"argv": ["true"], "priority": 11},
        {"argv": ["true"], "after": [NO_ID]},
        {"argv": ["true"], "attempts": 0},
        {"kind": "resize", "key": "k"},
        {"kind": "resize", "key": "k"},
        {"kind": "resize", "key": "k", "payload": "x"},
    ]);
    let answers = world.post(TASKS, body).await.ok(202);
    let answers = answers["items"].as_array().expect("items");
    let code = |at: usize| answers[at]["error"]["code"].as_str().unwrap_or("ok");
    let codes: Vec<&str> = (0..answers.len()).map(code).collect();
    assert_eq!(
        codes,
        ["ok", "invalid_argument", "not_found", "invalid_argument", "ok", "ok", "conflict"],
        "{answers:?}"
    );
    assert_eq!((&answers[4]["known"], &answers[5]["known"]), (&json!(false), &json!(true)));
    assert_eq!(answers[4]["task"]["id"], answers[5]["task"]["id"]);
    assert_eq!(world.get(TASKS).await.ok(200)["items"].as_array().map(Vec::len), Some(2));

    world.post(TASKS, json!([])).await.refused(413, "too_large");
    let many: Vec<Value> = (0..1_001).map(|_| json!({"argv": ["true"]})).collect();
    world.post(TASKS, json!(many)).await.refused(413, "too_large");
    let told = world.post(TASKS, json!([{"argv": ["true"]}, {"argv": "true"}])).await;
    let message = told.refused(400, "invalid_argument")["message"].to_string();
    assert!(message.contains("task 1 of the array"), "{message}");
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_task_is_refused_by_name() {
    let world = World::new(StoreKind::Memory).await;
    let post = async |body: Value| world.post(TASKS, body).await;
    post(json!({})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "kind": "a"})).await.refused(400, "invalid_argument");
    post(json!({"kind": "command"})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "cwd": "relative"})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "selector": "nonsense"})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "not_before": "soon"})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "lease_ms": 1})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "agrv": 1})).await.refused(400, "invalid_argument");
    post(json!({"argv": ["true"], "after": [NO_ID]})).await.refused(404, "not_found");
    post(json!({"kind": "a", "payload": "x".repeat(300 * 1024)})).await.refused(413, "too_large");
    let task = post(json!({"argv": ["true"]})).await.ok(202);
    world.post(&of(&task, "/priority"), json!({"priority": 10})).await.refused(400, "invalid_argument");
    world.get(&of(&task, "?wait_s=51")).await.refused(400, "invalid_argument");
    world.get(&format!("{TASKS}/nonsense")).await.refused(404, "not_found");
    for (method, what) in [("GET", ""), ("GET", "/explain"), ("POST", "/cancel"), ("POST", "/retry")] {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        world.admin(method, &format!("{TASKS}/{NO_ID}{what}"), json!({})).await.refused(404, "not_found");
    }
    world.stop().await;
}

#[tokio::test]
async fn nine_is_for_administrators_and_tasks_of_others_need_a_right_everywhere() {
    let world = World::new(StoreKind::Sqlite).await;
    let db = world.person("dora", &[("operator", "role=db")]).await;
    let reader = world.token("reader", Role::Viewer, false, false).await;
    let urgent = json!({"argv": ["true"], "priority": 9});
    world.with_token(&db, Method::POST, TASKS, Some(urgent.clone())).await.refused(403, "forbidden");
    let mine = world.submit(urgent).await;
    let theirs = world.with_token(&db, Method::POST, TASKS, Some(json!({"argv": ["id"]}))).await.ok(202);

    let seen = async |token: &str, task: &Value| {
        world.with_token(token, Method::GET, &of(task, ""), None).await.status.as_u16()
    };
    assert_eq!((seen(&db, &theirs).await, seen(&db, &mine).await), (200, 404));
    assert_eq!((seen(&reader, &theirs).await, seen(&reader, &mine).await), (200, 200));
    let listed = world.with_token(&db, Method::GET, TASKS, None).await.ok(200);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));

    let body = || Some(json!({}));
    world.with_token(&db, Method::POST, &of(&mine, "/cancel"), body()).await.refused(404, "not_found");
    world.with_token(&reader, Method::POST, &of(&mine, "/cancel"), body()).await.refused(403, "forbidden");
    let bump = Some(json!({"priority": 9}));
    world.with_token(&db, Method::POST, &of(&theirs, "/priority"), bump).await.refused(403, "forbidden");
    world.with_token(&db, Method::POST, &of(&theirs, "/cancel"), body()).await.ok(202);
    // Who controls all tasks may end it, and the row names who did.
    let operator = world.token("operator", Role::Operator, false, false).await;
    let ended = world.with_token(&operator, Method::POST, &of(&mine, "/cancel"), body()).await.ok(202);
    assert_eq!(ended["cancelled_by"], "token:operator");
    world.stop().await;
}

#[tokio::test]
async fn a_client_sees_what_it_submitted_itself_and_nothing_else() {
    let world = World::new(StoreKind::Memory).await;
    let tools = json!(["task_submit", "task_get", "task_cancel"]);
    let body = json!({"name": "agent", "role": "operator", "kind": "client", "tools": tools});
    // The client is a person's, who has tasks of her own.
    let ada = world.person("ada", &[("admin", "")]).await;
    let made = world.with_token(&ada, Method::POST, "/api/v1/tokens", Some(body)).await.ok(201);
    let agent = made["token"].as_str().expect("a token");
    world.with_token(&ada, Method::POST, TASKS, Some(json!({"argv": ["id"]}))).await.ok(202);
    let own = world.with_token(agent, Method::POST, TASKS, Some(json!({"argv": ["true"]}))).await.ok(202);
    let foreign = world.submit(json!({"argv": ["true"]})).await;
    let status = async |task: &Value| world.with_token(agent, Method::GET, &of(task, ""), None).await.status;
    assert_eq!((status(&own).await.as_u16(), status(&foreign).await.as_u16()), (200, 404));
    let listed = world.with_token(agent, Method::GET, TASKS, None).await.ok(200);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    // Nor does it learn of her keys, whether it guesses what is behind one or not.
    let keyed = |program: &str| Some(json!({"argv": [program], "key": "nightly"}));
    let hers = world.with_token(&ada, Method::POST, TASKS, keyed("id")).await.ok(202);
    let its = world.with_token(agent, Method::POST, TASKS, keyed("id")).await.ok(202);
    assert_ne!(hers["id"], its["id"]);
    assert_eq!(world.with_token(agent, Method::POST, TASKS, keyed("id")).await.ok(200)["id"], its["id"]);
    world.with_token(agent, Method::POST, TASKS, keyed("true")).await.refused(409, "conflict");
    let claim = Some(json!({"kinds": ["a"]}));
    world.with_token(agent, Method::POST, "/api/v1/pool/claims", claim).await.refused(403, "wrong_audience");
    world.with_token(agent, Method::POST, &of(&own, "/cancel"), Some(json!({}))).await.ok(202);
    world.stop().await;
}

#[tokio::test]
async fn who_waits_for_news_of_a_task_is_told_at_once_and_by_whoever_made_them() {
    let world = World::new(StoreKind::Sqlite).await;
    let task = world.submit(json!({"argv": ["true"]})).await;
    let began = std::time::Instant::now();
    let nothing = world.get(&of(&task, "?wait_s=1&after=2")).await.ok(200);
    assert_eq!(steps(&nothing).len(), 2);
    assert!(began.elapsed() >= Duration::from_secs(1), "it did not wait");
    let (waits, cancelled) = (of(&task, "?wait_s=50"), of(&task, "/cancel"));
    let began = std::time::Instant::now();
    let (told, _) = tokio::join!(world.get(&waits), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.post(&cancelled, json!({})).await.ok(202)
    });
    assert_eq!(told.ok(200)["state"], "cancelled");
    assert!(began.elapsed() < Duration::from_secs(5), "it waited on");
    assert_eq!(world.get(&waits).await.ok(200)["state"], "cancelled", "what has ended has no more news");
    world.stop().await;
}

#[tokio::test]
async fn a_due_time_and_a_time_to_start_are_kept() {
    let world = World::new(StoreKind::Sqlite).await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    let timed = world.submit(json!({"kind": "a", "not_before": soon.to_string()})).await;
    assert_eq!(timed["state"], "scheduled");
    assert!(timed["due_at"].is_string());
    let ready = world.task_reaches(&timed, "ready").await;
    assert_eq!(steps(&ready), ["submitted", "scheduled", "ready"]);
    let late = world.submit(json!({"kind": "a", "start_within_ms": 200})).await;
    let expired = world.task_reaches(&late, "expired").await;
    assert!(expired["ended_at"].is_string(), "{expired}");
    world.stop().await;
}

#[tokio::test]
async fn the_pool_at_a_glance_has_counts_for_who_sees_all_and_nodes_for_who_sees_them() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let _link = world.attach_with(node, |hello| hello.facts.slots = 3).await;
    world.labelled("n2", "db").await;
    let payload = json!({"kind": "a"});
    let oldest = world.submit(payload.clone()).await;
    for _ in 0..2 {
        world.submit(payload.clone()).await;
    }
    let stats = world.get("/api/v1/pool/stats").await.ok(200);
    assert_eq!((&stats["tasks"]["ready"], &stats["tasks"]["dead"]), (&json!(3), &json!(0)), "{stats}");
    assert_eq!(stats["oldest_ready_at"], oldest["ready_at"]);
    world.post("/api/v1/pool/claims", json!({"kinds": ["a"], "max": 2})).await.ok(200);
    let stats = world.get("/api/v1/pool/stats").await.ok(200);
    assert_eq!((&stats["tasks"]["leased"], &stats["leases"]), (&json!(2), &json!(2)));
    let share = json!({"node": "n1", "online": true, "slots": 3, "busy": 0});
    assert!(stats["nodes"].as_array().is_some_and(|nodes| nodes.contains(&share)), "{stats}");
    let db = world.person("dora", &[("viewer", "role=db")]).await;
    let narrow = world.with_token(&db, Method::GET, "/api/v1/pool/stats", None).await.ok(200);
    let nodes = json!([{"node": "n2", "online": false, "slots": 0, "busy": 0}]);
    assert_eq!(narrow, json!({ "nodes": nodes }));
    world.stop().await;
}

#[tokio::test]
async fn values_of_variables_are_in_no_answer_no_event_and_no_row() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let _link = world.attach_with(node, |hello| hello.facts.slots = 1).await;
    world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "permissive"})).await.ok(200);
    let canary = "canary-4f1d";
    let task = world.submit(json!({"argv": ["true"], "env": {"SECRET": canary}})).await;
    world.task_reaches(&task, "leased").await;
    let bearer = format!("Bearer {}", world.admin);
    let audit = world.get("/api/v1/audit?limit=1000&cursor=0").await;
    let story = world.get(&of(&task, "")).await;
    let list = world.get(TASKS).await;
    let events =
        world.hub.context.view(|view| view.events(cortex_core::id::Seq(0), 1_000)).await.expect("events");
    assert!(audit.ok(200).to_string().contains(&id(&task)), "its rows are there");
    assert!(format!("{events:?}").contains(&id(&task)), "its events are there");
    for text in
        [audit.body, story.body, list.body].map(|body| String::from_utf8(body.to_vec()).expect("text"))
    {
        assert!(!text.contains(canary), "{text}");
    }
    assert!(!format!("{events:?}").contains(canary));
    let explained =
        world.call(Method::GET, &of(&task, "/explain"), &[("authorization", &bearer)], None).await;
    assert!(!explained.ok(200).to_string().contains(canary));
    world.stop().await;
}
