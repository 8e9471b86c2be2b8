//! Workers that are no nodes: claims, leases, reports, and whom they are not for.

use futures::future::join_all;

use super::*;

pub(super) const CLAIMS: &str = "/api/v1/pool/claims";

fn lease(task: &Value, what: &str) -> String {
    format!("/api/v1/pool/leases/{}/{}/{what}", id(task), task["attempt"])
}

impl World {
    pub(super) async fn claim(&self, token: &str, body: Value) -> Vec<Value> {
        let claimed = self.with_token(token, Method::POST, CLAIMS, Some(body)).await.ok(200);
        claimed["items"].as_array().expect("items").clone()
    }

    pub(super) async fn claim_one(&self, token: &str) -> Value {
        let claimed = self.claim(token, json!({"kinds": ["resize"], "wait_s": 5})).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed[0].clone()
    }

    async fn says(&self, token: &str, task: &Value, what: &str, body: Value) -> Reply {
        self.with_token(token, Method::POST, &lease(task, what), Some(body)).await
    }
}

pub(super) async fn scene(kind: StoreKind) -> (World, String, String) {
    let world = World::new(kind).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let b = world.token("worker-b", Role::Operator, false, false).await;
    (world, a, b)
}

#[tokio::test]
async fn a_worker_claims_extends_and_finishes_and_its_result_is_read() {
    for kind in BOTH {
        let (world, a, _) = scene(kind).await;
        let task = world.submit(json!({"kind": "resize", "payload": "a.png", "labels": {"x": "y"}})).await;
        let claimed = world.claim_one(&a).await;
        assert_eq!(
            (&claimed["id"], &claimed["attempt"], &claimed["payload"], &claimed["lease_ms"]),
            (&task["id"], &json!(1), &json!("a.png"), &json!(300_000))
        );
        assert_eq!(claimed["labels"], json!({"x": "y"}));
        let extended = world.says(&a, &claimed, "extend", json!({"lease_ms": 20_000})).await.ok(200);
        assert_eq!(extended, json!({"id": task["id"], "attempt": 1, "cancel_requested": false}));
        world.says(&a, &claimed, "extend", json!({"lease_ms": 9})).await.refused(400, "invalid_argument");
        world.says(&a, &claimed, "finish", json!({"final": true})).await.refused(400, "invalid_argument");
        let long = json!({"output": "x".repeat(65 * 1024)});
        world.says(&a, &claimed, "finish", long).await.refused(413, "too_large");
        let done = world.says(&a, &claimed, "finish", json!({"output_base64": "/w=="})).await.ok(200);
        assert_eq!((&done["state"], &done["result"]["output_base64"]), (&json!("done"), &json!("/w==")));
        let story = world.story(&task).await;
        assert_eq!(steps(&story), ["submitted", "ready", "leased", "done"]);
        assert_eq!(story["timeline"][2]["actor"], "token:worker-a");
        assert_eq!(story["payload"], "a.png");
        world.stop().await;
    }
}

#[tokio::test]
async fn how_far_a_worker_is_is_shown_and_told_and_no_step() {
    for kind in BOTH {
        let (world, a, b) = scene(kind).await;
        let task = world.submit(json!({"kind": "resize"})).await;
        assert_eq!(task["progress"], Value::Null);
        let claimed = world.claim_one(&a).await;
        let said = json!({"progress": {"done": 3, "total": 10, "note": "page 3"}});
        world.says(&a, &claimed, "extend", said).await.ok(200);
        world.says(&a, &claimed, "extend", json!({"progress": {"done": 4}})).await.ok(200);
        world.says(&a, &claimed, "extend", json!({})).await.ok(200);
        let story = world.story(&task).await;
        let progress = &story["progress"];
        assert_eq!(
            (&progress["done"], &progress["total"], &progress["note"]),
            (&json!(4), &Value::Null, &Value::Null)
        );
        assert!(progress["at"].is_string(), "{progress}");
        assert_eq!(steps(&story), ["submitted", "ready", "leased"]);
        let listed = world.get(TASKS).await.ok(200);
        assert_eq!(listed["items"][0]["progress"]["done"], 4);
        // The second came at once after the first: people see it in the task, and the log is spared.
        assert_eq!(world.told("task.progress", &task).await, ["3/10"]);
        let long = json!({"progress": {"done": 1, "note": "x".repeat(257)}});
        world.says(&a, &claimed, "extend", long).await.refused(413, "too_large");
        world
            .says(&a, &claimed, "extend", json!({"progress": {"total": 1}}))
            .await
            .refused(400, "invalid_argument");
        world.says(&b, &claimed, "extend", json!({"progress": {"done": 9}})).await.refused(404, "not_found");
        world.says(&a, &claimed, "fail", json!({"final": true})).await.ok(200);
        let late = world.says(&a, &claimed, "extend", json!({"progress": {"done": 9}})).await;
        late.refused(409, "stale_attempt");
        assert_eq!(world.story(&task).await["progress"]["done"], 4, "how far it came");
        world.stop().await;
    }
}

#[tokio::test]
async fn what_happens_in_the_pool_is_counted_once_it_is_committed() {
    for kind in BOTH {
        let (world, a, _) = scene(kind).await;
        let task = json!({"kind": "resize", "backoff": {"initial_ms": 60_000, "jitter_percent": 0}});
        world.post(TASKS, json!([task, task, task, task])).await.ok(202);
        let all = world.claim(&a, json!({"kinds": ["resize"], "max": 3})).await;
        world.says(&a, &all[0], "finish", json!({})).await.ok(200);
        world.says(&a, &all[1], "fail", json!({})).await.ok(200);
        world.says(&a, &all[0], "extend", json!({})).await.refused(409, "stale_attempt");
        world.says(&a, &all[0], "fail", json!({})).await.refused(409, "stale_attempt");
        world.says(&a, &all[0], "release", json!({})).await.refused(409, "stale_attempt");
        let reply = world.get("/metrics").await;
        let text = String::from_utf8(reply.body.to_vec()).expect("text");
        for line in [
            "cortex_pool_tasks{state=\"ready\"} 1",
            "cortex_pool_tasks{state=\"scheduled\"} 1",
            "cortex_pool_tasks{state=\"dead\"} 0",
            "cortex_pool_lanes 1",
            "cortex_pool_leases{holder=\"worker\"} 1",
            "cortex_pool_leases{holder=\"node\"} 0",
            "cortex_pool_tasks_submitted_total 4",
            "cortex_pool_claims_total{holder=\"worker\"} 3",
            "cortex_pool_leases_ended_total{reason=\"done\"} 1",
            "cortex_pool_leases_ended_total{reason=\"failed\"} 1",
            "cortex_pool_leases_ended_total{reason=\"lease_expired\"} 0",
            "cortex_pool_tasks_ended_total{state=\"done\"} 1",
            "cortex_pool_stale_reports_total 3",
            "cortex_pool_schedule_ticks_total{outcome=\"missed\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let age = text.lines().find_map(|line| line.strip_prefix("cortex_pool_oldest_ready_age_seconds "));
        assert!(
            age.is_some_and(|age| age.parse::<f64>().is_ok_and(|age| (0.0..60.0).contains(&age))),
            "{age:?}"
        );
        world.stop().await;
    }
}

#[tokio::test]
async fn a_failed_task_waits_is_tried_again_and_is_dead_after_its_attempts() {
    let (world, a, _) = scene(StoreKind::Sqlite).await;
    let body = json!({"kind": "resize", "attempts": 2, "backoff": {"initial_ms": 100, "jitter_percent": 0}});
    let task = world.submit(body).await;
    let first = world.claim_one(&a).await;
    let failed = world.says(&a, &first, "fail", json!({"message": "no such file"})).await.ok(200);
    assert_eq!((&failed["state"], &failed["tries"]), (&json!("scheduled"), &json!(1)));
    let second = world.claim_one(&a).await;
    assert_eq!((&second["attempt"], &second["tries"]), (&json!(2), &json!(1)));
    world.says(&a, &second, "fail", json!({"message": "still none"})).await.ok(200);
    let dead = world.story(&task).await;
    assert_eq!((&dead["state"], &dead["result"]["message"]), (&json!("dead"), &json!("still none")));
    // A failure that says that it is final is believed.
    let hopeless = world.submit(json!({"kind": "resize"})).await;
    let claimed = world.claim_one(&a).await;
    world.says(&a, &claimed, "fail", json!({"final": true})).await.ok(200);
    assert_eq!(world.story(&hopeless).await["state"], "dead");
    // What was given back was no try.
    let given = world.submit(json!({"kind": "resize", "attempts": 1})).await;
    let claimed = world.claim_one(&a).await;
    let back = world.says(&a, &claimed, "release", json!({})).await.ok(200);
    assert_eq!((&back["state"], &back["tries"]), (&json!("ready"), &json!(0)));
    assert_eq!(world.claim_one(&a).await["id"], given["id"]);
    world.stop().await;
}

#[tokio::test]
async fn a61_of_a_hundred_claimers_of_one_task_exactly_one_gets_it() {
    for kind in BOTH {
        let (world, a, _) = scene(kind).await;
        let claims = (0..100).map(|_| world.claim(&a, json!({"kinds": ["resize"], "wait_s": 2})));
        let submit = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            world.submit(json!({"kind": "resize"})).await
        };
        let (given, _) = tokio::join!(join_all(claims), submit);
        assert_eq!(given.iter().filter(|tasks| !tasks.is_empty()).count(), 1);
        world.stop().await;
    }
}

#[tokio::test]
async fn every_task_of_many_is_given_to_one_of_many_claimers_once() {
    let (world, a, b) = scene(StoreKind::Sqlite).await;
    let all: Vec<Value> = (0..300).map(|_| json!({"kind": "resize"})).collect();
    world.post(TASKS, json!(all)).await.ok(202);
    let worker = async |token: &str| {
        let mut got = Vec::new();
        loop {
            let claimed = world.claim(token, json!({"kinds": ["resize"], "max": 7})).await;
            if claimed.is_empty() {
                return got;
            }
            got.extend(claimed.iter().map(id));
        }
    };
    let got = join_all((0..20).map(|n| worker(if n % 2 == 0 { &a } else { &b }))).await;
    let got: Vec<String> = got.into_iter().flatten().collect();
    let once: std::collections::BTreeSet<&String> = got.iter().collect();
    assert_eq!((got.len(), once.len()), (300, 300));
    world.stop().await;
}

#[tokio::test]
async fn a62_a_late_report_is_refused_and_kept_as_evidence() {
    for kind in BOTH {
        let (world, a, b) = scene(kind).await;
        let task = world.submit(json!({"kind": "resize"})).await;
        let first = world.claim_one(&a).await;
        // Its lease ends: the clock of the lease is tested in core.
        let (board, now) = (world.hub.context.board.clone(), world.hub.context.clock.wall());
        let lost: cortex_core::id::TaskId = id(&task).parse().expect("an id");
        world
            .write(move |tx| {
                let attempt = cortex_core::id::Attempt(1);
                let how = cortex_core::pool::Lost::Expired;
                cortex_core::pool::desk::lose(&mut board.over(tx), lost, attempt, how, now).map(drop)
            })
            .await;
        world.says(&a, &first, "extend", json!({})).await.refused(409, "stale_attempt");
        let second = world.claim_one(&b).await;
        assert_eq!(second["attempt"], 2);
        let late = world.says(&a, &first, "finish", json!({"output": "too late"})).await;
        assert_eq!(late.refused(409, "stale_attempt")["details"]["attempt"], "2");
        world.says(&a, &first, "release", json!({})).await.refused(409, "stale_attempt");
        world.says(&b, &second, "finish", json!({"output": "in time"})).await.ok(200);
        let story = world.story(&task).await;
        assert_eq!((&story["state"], &story["result"]["output"]), (&json!("done"), &json!("in time")));
        let evidence = story["evidence"].as_array().expect("evidence");
        assert_eq!(evidence.len(), 1, "{evidence:?}");
        assert_eq!(
            (&evidence[0]["attempt"], &evidence[0]["result"]["output"]),
            (&json!(1), &json!("too late"))
        );
        assert!(steps(&story).contains(&"stale_report"));
        world.says(&b, &second, "finish", json!({})).await.refused(409, "stale_attempt");
        world.stop().await;
    }
}

#[tokio::test]
async fn a64_what_one_was_not_given_is_not_there_and_leaves_no_trace() {
    let (world, a, b) = scene(StoreKind::Sqlite).await;
    let task = world.submit(json!({"kind": "resize"})).await;
    let claimed = world.claim_one(&a).await;
    let attempts = [("0", &b), ("1", &b), ("2", &a), ("7", &b), ("18446744073709551615", &a)];
    for (attempt, token) in attempts {
        for what in ["extend", "finish", "fail", "release"] {
            let path = format!("/api/v1/pool/leases/{}/{attempt}/{what}", id(&task));
            let real = world.with_token(token, Method::POST, &path, Some(json!({}))).await;
            let path = path.replace(&id(&task), NO_ID);
            let unknown = world.with_token(token, Method::POST, &path, Some(json!({}))).await;
            let shape = |reply: &Reply, of: &str| {
                reply.refused(404, "not_found")["message"].to_string().replace(of, "(asked)")
            };
            assert_eq!(shape(&real, &id(&task)), shape(&unknown, NO_ID), "{attempt} {what}");
        }
    }
    // A task of nodes is nobody else's, whatever the number.
    let command = world.submit(json!({"argv": ["true"]})).await;
    let path = format!("/api/v1/pool/leases/{}/1/finish", id(&command));
    world.with_token(&a, Method::POST, &path, Some(json!({}))).await.refused(404, "not_found");
    let story = world.story(&task).await;
    assert_eq!((steps(&story).len(), &story["evidence"]), (3, &json!([])));
    world.says(&a, &claimed, "finish", json!({})).await.ok(200);
    world.stop().await;
}

#[tokio::test]
async fn what_stands_behind_more_full_keys_than_one_claim_passes_over_is_given_all_the_same() {
    let (world, a, _) = scene(StoreKind::Memory).await;
    let keyed = json!({"kind": "resize", "concurrency": {"key": "db", "limit": 1}});
    for _ in 0..2 {
        let many: Vec<&Value> = (0..700).map(|_| &keyed).collect();
        world.post(TASKS, json!(many)).await.ok(202);
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    let free = world.submit(json!({"kind": "resize"})).await;
    let first = world.claim_one(&a).await;
    assert_ne!(first["id"], free["id"]);
    let second = world.claim(&a, json!({"kinds": ["resize"]})).await;
    assert_eq!(second.first().map(id), Some(id(&free)));
    assert!(world.claim(&a, json!({"kinds": ["resize"]})).await.is_empty());
    world.says(&a, &first, "finish", json!({})).await.ok(200);
    assert_eq!(world.claim(&a, json!({"kinds": ["resize"], "max": 9})).await.len(), 1, "one at once");
    world.stop().await;
}

#[tokio::test]
async fn a65_a_wall_clock_that_jumps_ends_no_lease() {
    let (world, a, _) = scene(StoreKind::Sqlite).await;
    let task = world.submit(json!({"kind": "resize", "lease_ms": 10_000})).await;
    let claimed = world.claim_one(&a).await;
    let context = world.hub.context.clone();
    let ahead = context.clock.ahead(Duration::from_secs(3 * 3_600));
    let context = crate::service::Context { clock: ahead, ..context };
    let pool = crate::service::pool::Pool::new(context, world.hub.mesh.clone());
    pool.serve_timers().await.expect("the store works");
    assert_eq!(world.story(&task).await["state"], "leased");
    world.says(&a, &claimed, "extend", json!({})).await.ok(200);
    world.says(&a, &claimed, "finish", json!({})).await.ok(200);
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_is_told_with_the_next_extension_and_ends_with_the_report() {
    let (world, a, _) = scene(StoreKind::Sqlite).await;
    for (report, body) in [("fail", json!({"message": "stopped"})), ("release", json!({}))] {
        let task = world.submit(json!({"kind": "resize"})).await;
        let claimed = world.claim_one(&a).await;
        let asked = world.post(&of(&task, "/cancel"), json!({})).await.ok(202);
        assert_eq!(asked["state"], "leased");
        let told = world.says(&a, &claimed, "extend", json!({})).await.ok(200);
        assert_eq!(told["cancel_requested"], true);
        let ended = world.says(&a, &claimed, report, body).await.ok(200);
        assert_eq!(ended["state"], "cancelled", "{report}");
    }
    world.stop().await;
}

#[tokio::test]
async fn a_claim_waits_for_its_kind_and_no_longer_than_it_says() {
    let (world, a, _) = scene(StoreKind::Sqlite).await;
    world.submit(json!({"kind": "other"})).await;
    world.submit(json!({"argv": ["true"]})).await;
    assert!(world.claim(&a, json!({"kinds": ["resize"]})).await.is_empty());
    let began = std::time::Instant::now();
    let submit = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.submit(json!({"kind": "resize"})).await
    };
    let body = json!({"kinds": ["crop", "resize"], "wait_s": 30});
    let (claimed, task) = tokio::join!(world.claim(&a, body), submit);
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0]["id"], task["id"]);
    assert!(began.elapsed() < Duration::from_secs(5), "it was told late");
    let claim = async |body: Value| world.with_token(&a, Method::POST, CLAIMS, Some(body)).await;
    claim(json!({})).await.refused(400, "invalid_argument");
    claim(json!({"kinds": []})).await.refused(400, "invalid_argument");
    claim(json!({"kinds": ["command"]})).await.refused(400, "invalid_argument");
    claim(json!({"kinds": ["a"], "max": 0})).await.refused(400, "invalid_argument");
    claim(json!({"kinds": ["a"], "max": 257})).await.refused(400, "invalid_argument");
    claim(json!({"kinds": ["a"], "wait_s": 51})).await.refused(400, "invalid_argument");
    world.stop().await;
}

#[tokio::test]
async fn a_claim_that_waits_ends_with_its_token_and_with_the_hub() {
    let (world, a, b) = scene(StoreKind::Memory).await;
    let body = json!({"kinds": ["resize"], "wait_s": 30});
    let revoke = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.admin(Method::DELETE, "/api/v1/tokens/worker-a", json!({})).await.ok(200)
    };
    let (reply, _) = tokio::join!(world.with_token(&a, Method::POST, CLAIMS, Some(body.clone())), revoke);
    reply.refused(401, "unauthenticated");
    let began = std::time::Instant::now();
    let addr = world.hub.started().http;
    let bearer = format!("Bearer {b}");
    let waiting = tokio::spawn(async move { drop(raw_claim(addr, &bearer, &body).await) });
    while world.hub.context.board.asking("resize") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.stop().await;
    waiting.await.expect("it ends");
    assert!(began.elapsed() < Duration::from_secs(10), "the hub waited for a claim");
}

/// A claim as bytes on a connection of its own, and what was answered until that ended.
async fn raw_claim(addr: SocketAddr, bearer: &str, body: &Value) -> std::io::Result<Vec<u8>> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(addr).await?;
    stream.write_all(&claim_bytes(addr, bearer, body)).await?;
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await?;
    answer.truncate(read);
    Ok(answer)
}

pub(super) fn claim_bytes(addr: SocketAddr, bearer: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST {CLAIMS} HTTP/1.1\r\nhost: {addr}\r\nauthorization: {bearer}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[tokio::test]
async fn a_worker_that_goes_away_while_its_claim_is_stored_leaves_nothing_leased() {
    use tokio::io::AsyncWriteExt as _;
    // Each write is answered so late that the worker has gone by then.
    let late = Duration::from_millis(400);
    let world = World::with(StoreKind::Memory, |inner| Through::late(inner, late)).await;
    let a = world.token("worker-a", Role::Operator, false, false).await;
    let task = world.submit(json!({"kind": "resize", "attempts": 1})).await;
    let addr = world.hub.started().http;
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("the hub listens");
    let claim = claim_bytes(addr, &format!("Bearer {a}"), &json!({"kinds": ["resize"]}));
    stream.write_all(&claim).await.expect("sent");
    let leased = world.task_reaches(&task, "leased").await;
    assert_eq!(leased["attempt"], 1);
    drop(stream);
    let back = world.task_reaches(&task, "ready").await;
    assert_eq!((&back["tries"], back["timeline"][3]["detail"].as_str()), (&json!(0), Some("given_back")));
    assert_eq!(world.claim_one(&a).await["attempt"], 2);
    world.stop().await;
}

#[tokio::test]
async fn a_worker_that_goes_away_while_it_waits_takes_nothing_with_it() {
    let (world, a, b) = scene(StoreKind::Sqlite).await;
    let addr = world.hub.started().http;
    let asking = || world.hub.context.board.asking("resize");
    let bearer = format!("Bearer {a}");
    let body = json!({"kinds": ["resize"], "wait_s": 30});
    let waiting = tokio::spawn(async move { drop(raw_claim(addr, &bearer, &body).await) });
    while asking() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    waiting.abort();
    while asking() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let task = world.submit(json!({"kind": "resize"})).await;
    assert_eq!(world.claim_one(&b).await["id"], task["id"]);
    world.stop().await;
}

#[tokio::test]
async fn tasks_of_a_locked_owner_wait_and_go_on_when_the_lock_is_lifted() {
    let (world, a, b) = scene(StoreKind::Sqlite).await;
    let task = world.with_token(&b, Method::POST, TASKS, Some(json!({"kind": "resize"}))).await.ok(202);
    let lock = world.post("/api/v1/locks", json!({"target": "token:worker-b"})).await.ok(201);
    assert!(world.claim(&a, json!({"kinds": ["resize"]})).await.is_empty());
    let explained = world.get(&of(&task, "/explain")).await.ok(200);
    assert_eq!(explained["reasons"][0]["reason"], "owner_stopped", "{explained}");
    let lock = format!("/api/v1/locks/{}", id(&lock));
    // Who waits already is told.
    let lift = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        world.admin(Method::DELETE, &lock, json!({})).await.ok(200)
    };
    let began = std::time::Instant::now();
    let (claimed, _) = tokio::join!(world.claim_one(&a), lift);
    assert_eq!(claimed["id"], task["id"]);
    assert!(began.elapsed() < Duration::from_secs(3), "it was told late");
    world.says(&a, &claimed, "release", json!({})).await.ok(200);
    let short = json!({"target": "token:worker-b", "ttl_ms": 500});
    world.post("/api/v1/locks", short).await.ok(201);
    assert!(world.claim(&a, json!({"kinds": ["resize"]})).await.is_empty());
    assert_eq!(world.claim_one(&a).await["id"], task["id"], "the lock ended by itself");
    world.stop().await;
}

#[tokio::test]
async fn a_lease_is_there_again_after_a_restart_of_the_hub() {
    let (world, a, _) = scene(StoreKind::Sqlite).await;
    let task = world.submit(json!({"kind": "resize"})).await;
    let claimed = world.claim_one(&a).await;
    let World { hub, admin, dir } = world;
    tokio::time::timeout(SOON, hub.stop()).await.expect("the hub stops in time");
    let hub = Hub::start_with(config(dir.path(), StoreKind::Sqlite), |store| store).await.expect("it starts");
    let world = World { hub, admin, dir };
    assert!(world.claim(&a, json!({"kinds": ["resize"]})).await.is_empty(), "it is not given twice");
    world.says(&a, &claimed, "extend", json!({})).await.ok(200);
    world.says(&a, &claimed, "finish", json!({})).await.ok(200);
    assert_eq!(world.story(&task).await["state"], "done");
    world.stop().await;
}
