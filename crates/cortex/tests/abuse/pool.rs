//! Floods of the work pool: of what is urgent, of bytes, and of tasks.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Answer, SOON, admin, api, http, memory_kib};
use crate::world::{World, hub};

const TASKS: &str = "/api/v1/pool/tasks";

/// Somebody who is nobody's: a party of its own.
struct Party(String);

impl Party {
    fn new(world: &World, name: &str, role: &str) -> Self {
        let made = api(world, "POST", "/api/v1/tokens", &json!({"name": name, "role": role}));
        assert_eq!(made.status, 201, "{}", made.text);
        Self(body(&made)["token"].as_str().expect("a token").to_owned())
    }

    fn admin(world: &World) -> Self {
        Self(admin(world))
    }

    fn post(&self, world: &World, path: &str, body: &Value) -> Answer {
        let bearer = format!("authorization: Bearer {}", self.0);
        http(world, "POST", path, &[&bearer, "content-type: application/json"], body.to_string().as_bytes())
    }

    /// Submits so many tasks; the answer to each.
    fn submit(&self, world: &World, count: usize, priority: u8) -> Vec<Value> {
        let tasks: Vec<Value> = (0..count).map(|_| json!({"kind": "resize", "priority": priority})).collect();
        let answer = self.post(world, TASKS, &json!(tasks));
        assert_eq!(answer.status, 202, "{}", answer.text);
        body(&answer)["items"].as_array().expect("answers").clone()
    }

    /// Submits one.
    fn submit_one(&self, world: &World, priority: u8) -> String {
        let answer = self.post(world, TASKS, &json!({"kind": "resize", "priority": priority}));
        assert_eq!(answer.status, 202, "{}", answer.text);
        id(&body(&answer))
    }

    /// Claims so many, as a worker.
    fn claim(&self, world: &World, max: usize) -> Vec<String> {
        let answer = self.post(world, "/api/v1/pool/claims", &json!({"kinds": ["resize"], "max": max}));
        assert_eq!(answer.status, 200, "{}", answer.text);
        body(&answer)["items"].as_array().expect("tasks").iter().map(id).collect()
    }
}

fn body(answer: &Answer) -> Value {
    let text = answer.text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {}", answer.text))
}

fn id(task: &Value) -> String {
    task["id"].as_str().unwrap_or_else(|| panic!("no id: {task}")).to_owned()
}

/// Starts the hub anew, with its wall clock ahead by so much.
fn go_on_later(world: &mut World, ahead: Duration) {
    let (source, shim) = (world.path("later.c"), world.path("later.so"));
    std::fs::write(&source, include_str!("later.c")).expect("written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(&source).status();
    assert!(built.expect("a C compiler").success(), "the shim compiles");
    let address = world.kill_hub();
    world.start_hub_with(&address, |command| {
        command.env("LD_PRELOAD", &shim).env("SHIM_AHEAD_S", ahead.as_secs().to_string());
    });
}

#[test]
fn a67_a_flood_of_urgent_tasks_holds_up_a_low_one_no_longer_than_its_bound() {
    const FLOOD: usize = 3_000;
    let mut world = hub().start();
    let (many, few) = (Party::admin(&world), Party::new(&world, "few", "operator"));
    for _ in 0..FLOOD / 1_000 {
        many.submit(&world, 1_000, 8);
    }
    let (own, other) = (many.submit_one(&world, 1), few.submit_one(&world, 1));
    // Young, both wait behind what is more urgent, whoever's turn it is.
    let before = many.claim(&world, 256);
    assert_eq!(before.len(), 256);
    assert!(!before.contains(&own) && !before.contains(&other));
    // Seven minutes later they are as urgent as that.
    go_on_later(&mut world, Duration::from_secs(7 * 60));
    let late: Vec<String> = many.submit(&world, 1_000, 8).iter().map(|answer| id(&answer["task"])).collect();
    let urgent = many.submit_one(&world, 9);
    let next = many.claim(&world, 3);
    assert_eq!(next[0], urgent, "a nine goes first");
    assert!(next.contains(&other), "of another party at most one goes before it: {next:?}");
    // Of its own party all that has waited longer, and nothing that came later.
    let (mut gone, mut left) = (before.len() + 1, true);
    while left {
        let claimed = many.claim(&world, 256);
        assert!(!claimed.is_empty(), "it was not handed out");
        let at = claimed.iter().position(|task| *task == own);
        gone += at.unwrap_or(claimed.len());
        assert!(claimed[..at.unwrap_or(claimed.len())].iter().all(|task| !late.contains(task)));
        left = at.is_none();
    }
    assert_eq!(gone, FLOOD, "all that was there before it, and no more");
}

/// Sends a head that promises a body, and as much of that as is taken; the answer.
fn pour(world: &World, framing: &str, chunk: &[u8], most: usize) -> (Answer, usize) {
    let address = world.hub().http.trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address).expect("the port listens");
    stream.set_read_timeout(Some(SOON)).expect("a deadline");
    let head = format!(
        "POST {TASKS} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\n{framing}\r\n\r\n",
        admin(world)
    );
    stream.write_all(head.as_bytes()).expect("send the head");
    let mut sent = 0;
    while sent < most && stream.write_all(chunk).is_ok() {
        sent += chunk.len();
    }
    let mut bytes = Vec::new();
    let _reset = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    (Answer { status: status.unwrap_or_else(|| panic!("no answer after {sent} bytes: {text}")), text }, sent)
}

#[test]
fn a70_a_payload_of_a_gibibyte_is_refused_before_memory_is_taken() {
    const GIB: usize = 1 << 30;
    let world = hub().start();
    api(&world, "POST", TASKS, &json!({"kind": "resize"}));
    let before = memory_kib(&world);
    // Announced: not a byte of it is waited for.
    let began = Instant::now();
    let (announced, _) = pour(&world, &format!("content-length: {GIB}"), b"", 0);
    assert_eq!((announced.status, announced.code().as_str()), (413, "too_large"), "{}", announced.text);
    assert!(announced.text.contains("1048576") && announced.text.contains("hint"), "{}", announced.text);
    assert!(began.elapsed() < Duration::from_secs(5), "it waited {:?}", began.elapsed());
    // Not announced: twenty at once, each cut off soon after the bound.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let address = world.hub().http.trim_start_matches("http://").to_owned();
                let mut stream = TcpStream::connect(&address).expect("the port listens");
                let head = format!(
                    "POST {TASKS} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
                     content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
                    admin(&world)
                );
                stream.write_all(head.as_bytes()).expect("send the head");
                let mut sent = 0;
                while sent < GIB && stream.write_all(chunk.as_bytes()).is_ok() {
                    sent += chunk.len();
                }
                // What the system's own buffers take comes on top of it.
                assert!(sent < 64 << 20, "{sent} bytes were taken");
            });
        }
    });
    let grown = memory_kib(&world).saturating_sub(before);
    assert!(grown < 100 * 1024, "the hub grew by {grown} KiB");
    // A payload beyond its own bound is refused by it; the pool goes on.
    let large = json!({"kind": "resize", "payload": "x".repeat(257 * 1024)});
    let refused = api(&world, "POST", TASKS, &large);
    assert_eq!((refused.status, refused.code().as_str()), (413, "too_large"), "{}", refused.text);
    assert_eq!(api(&world, "POST", TASKS, &json!({"kind": "resize"})).status, 202);
}

#[test]
fn a70_a_flood_of_one_meets_its_quota_and_others_still_submit() {
    const QUOTA: usize = 3_000;
    let mut world = hub().start();
    let config = world.path(".config/cortex");
    std::fs::create_dir_all(&config).expect("a folder");
    let text = format!("[hub]\ntasks_per_owner = {QUOTA}\n");
    std::fs::write(config.join("cortex.toml"), text).expect("written");
    let address = world.kill_hub();
    world.start_hub(&address);
    let (flood, other) = (Party::new(&world, "flood", "operator"), Party::admin(&world));
    let (taken, refused) = (Mutex::new(0), Mutex::new(Vec::new()));
    let slowest = std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..3 {
                    let answers = flood.submit(&world, 500, 5);
                    let good = answers.iter().filter(|answer| answer["task"].is_object()).count();
                    *taken.lock().expect("no panic") += good;
                    let bad = answers.into_iter().filter(|answer| answer["error"].is_object());
                    refused.lock().expect("no panic").extend(bad);
                }
            });
        }
        let one = |_| {
            let began = Instant::now();
            other.submit_one(&world, 5);
            began.elapsed()
        };
        (0..20).map(one).max().expect("twenty")
    });
    assert_eq!(*taken.lock().expect("no panic"), QUOTA, "exactly as many as there may be");
    for answer in refused.lock().expect("no panic").iter() {
        assert_eq!(answer["error"]["code"], "quota", "{answer}");
        assert!(answer["error"]["hint"].as_str().is_some_and(|hint| hint.contains("cancel")), "{answer}");
    }
    // Of so few on a machine with other work it is shown that nobody is stopped; figures are a benchmark's.
    assert!(slowest < Duration::from_secs(5), "another's submission took {slowest:?}");
    let single = flood.post(&world, TASKS, &json!({"kind": "resize"}));
    assert_eq!((single.status, single.code().as_str()), (429, "quota"), "{}", single.text);
    // What ends makes room. The two take turns.
    for done in other.claim(&world, 2) {
        let finish = format!("/api/v1/pool/leases/{done}/1/finish");
        assert_eq!(other.post(&world, &finish, &json!({})).status, 200);
    }
    assert_eq!(flood.post(&world, TASKS, &json!({"kind": "resize"})).status, 202);
}
