//! Locks as an administrator sees them: what runs ends within a second, and nothing new starts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{World, hub};

/// From the answer of `POST /locks` to the end of the run (SECURITY, *Leaving*).
const EFFECT_MAX: Duration = Duration::from_secs(1);
const ROUNDS: usize = 20;

/// One request as the administrator, and its answer.
fn call(world: &World, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let hub = world.hub();
    let address = hub.http.trim_start_matches("http://");
    let token = std::fs::read_to_string(&hub.token_file).expect("the token");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut stream = TcpStream::connect(address).expect("the hub listens");
    write!(
        stream,
        "{method} /api/v1{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        token.trim(),
        body.len()
    )
    .expect("the request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A token of its own, in a file.
fn token(world: &World, name: &str, role: &str) -> String {
    let file = world.path(&format!("{name}.token")).display().to_string();
    world.cortex(&["token", "create", name, "--role", role, "--out", &file]).expect(0);
    file
}

fn command_as(world: &World, token_file: &str, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command.env("CORTEX_TOKEN_FILE", token_file);
    command
}

fn detached_as(world: &World, token_file: &str, argv: &[&str]) -> String {
    let arguments = [&["exec", "a", "--detach", "--json", "--"], argv].concat();
    let output = command_as(world, token_file, &arguments).output().expect("it ends");
    let accepted: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    accepted["run_id"].as_str().unwrap_or_else(|| panic!("not accepted: {accepted}")).to_owned()
}

/// How long the run takes to end from here on.
fn end_of(world: &World, run: &str, from: Instant) -> (Duration, Value) {
    loop {
        let (_, view) = call(world, "GET", &format!("/runs/{run}"), &Value::Null);
        if !["queued", "running", "disconnected"].contains(&view["state"].as_str().expect("a state")) {
            return (from.elapsed(), view);
        }
        assert!(from.elapsed() < Duration::from_secs(20), "the run does not end: {view}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lock(world: &World, target: &str, message: &str) -> String {
    let (status, view) = call(world, "POST", "/locks", &json!({"target": target, "message": message}));
    assert_eq!(status, 201, "{view}");
    view["id"].as_str().expect("an id").to_owned()
}

fn shown(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let (p50, max) = (took[took.len() / 2], took[took.len() - 1]);
    println!("{what}: {} rounds, p50 {p50:?}, max {max:?}", took.len());
    assert!(max <= EFFECT_MAX, "{what}: {took:?}");
}

/// A printer at full speed, followed by whoever started it.
fn printer(world: &World, token_file: &str, sink: &Path) -> (Child, String) {
    let out = std::fs::File::create(sink).expect("a file for the output");
    let mut child =
        command_as(world, token_file, &["exec", "a", "--json", "--", "sh", "-c", "exec yes full-speed"]);
    let child = child.stdout(out).stderr(Stdio::piped()).spawn().expect("start");
    let run = world.eventually("the printer prints", Duration::from_secs(20), |_| {
        let text = std::fs::read_to_string(sink).unwrap_or_default();
        let first = text.lines().next()?;
        let accepted: Value = serde_json::from_str(first).ok()?;
        (text.len() > 2 * 1024 * 1024).then(|| accepted["run_id"].as_str().expect("an id").to_owned())
    });
    (child, run)
}

#[test]
fn a_lock_on_a_token_ends_its_printing_command_within_a_second() {
    let world = hub().open_node("a").start();
    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("printer-{round}");
        let file = token(&world, &name, "operator");
        let sink = world.path("printed");
        let (child, run) = printer(&world, &file, &sink);
        lock(&world, &format!("token:{name}"), "leaked");
        let (effect, view) = end_of(&world, &run, Instant::now());
        took.push(effect);
        assert_eq!(view["state"], "cancelled", "{view}");
        assert!(view["cancelled_by"].as_str().is_some_and(|by| by.starts_with("lock:")), "{view}");
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(4), "{}", String::from_utf8_lossy(&ended.stderr));
        let refused = command_as(&world, &file, &["node", "ls", "--json"]).output().expect("it ends");
        let problem: Value = serde_json::from_slice(&refused.stdout).expect("an error object");
        assert_eq!(problem["error"]["code"], "locked");
        assert!(problem["error"]["message"].as_str().is_some_and(|text| text.contains("leaked")));
        std::fs::remove_file(&sink).expect("forget the output");
    }
    shown("a lock ends a command that prints at full speed", took);
}

#[test]
fn a_lock_ends_all_of_two_hundred_open_runs_of_a_node_within_a_second() {
    const RUNS: usize = 200;
    let world = hub().open_node("a").start();
    let file = token(&world, "many", "operator");
    let hub = world.hub().http.trim_start_matches("http://").to_owned();
    let secret = std::fs::read_to_string(&file).expect("the token");
    for _ in 0..RUNS {
        let body = json!({"nodes": ["a"], "argv": ["sleep", "300"]}).to_string();
        let mut stream = TcpStream::connect(&hub).expect("the hub listens");
        write!(stream, "POST /api/v1/runs HTTP/1.1\r\nHost: {hub}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", secret.trim(), body.len()).expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    }
    let open = || call(&world, "GET", "/stats", &Value::Null).1["runs_open"].as_u64().expect("a number");
    world.eventually("all of them run", Duration::from_secs(60), |world| {
        let (_, page) = call(world, "GET", "/runs?state=running&limit=1000", &Value::Null);
        (page["items"].as_array().map_or(0, Vec::len) == RUNS).then_some(())
    });
    lock(&world, "token:many", "");
    let from = Instant::now();
    while open() > 0 {
        assert!(from.elapsed() < Duration::from_secs(20), "{} are open", open());
        std::thread::sleep(Duration::from_millis(5));
    }
    shown("a lock ends 200 open runs of one node", vec![from.elapsed()]);
    let (_, page) = call(&world, "GET", "/runs?state=cancelled&limit=1000", &Value::Null);
    assert_eq!(page["items"].as_array().map(Vec::len), Some(RUNS));
}

#[test]
fn a_locked_node_stays_connected_and_starts_nothing_until_it_is_unlocked() {
    let world = hub().open_node("a").start();
    let admin = world.hub().token_file.clone();
    let run = detached_as(&world, &admin, &["sleep", "300"]);
    world.run_reaches(&run, "running", Duration::from_secs(10));
    world.cortex(&["node", "lock", "a", "--ttl", "1h", "--message", "disk check"]).expect(0);
    let (_, view) = end_of(&world, &run, Instant::now());
    assert_eq!(view["state"], "cancelled");
    let refused = world.cortex(&["exec", "a", "--json", "--", "true"]).expect(4);
    let problem = &refused.lines()[0]["error"];
    assert_eq!(problem["code"], "locked", "{problem}");
    assert!(problem["message"].as_str().is_some_and(|text| text.contains("disk check")), "{problem}");
    world.node_reaches("a", "online", Duration::from_secs(5));
    let listed = world.cortex(&["lock", "ls", "--json"]).expect(0).value();
    assert_eq!((&listed[0]["target"], &listed[0]["state"]), (&json!("node:a"), &json!("holds")));
    world.cortex(&["node", "unlock", "a"]).expect(0);
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
    assert_eq!(world.cortex(&["lock", "ls", "--json"]).expect(0).value().as_array().map(Vec::len), Some(0));
}

#[test]
fn a_label_locks_the_nodes_that_have_it_and_those_that_get_it() {
    let world = hub().open_node("a").start();
    let admin = world.hub().token_file.clone();
    let id = world.cortex(&["lock", "label:role=ci", "--json"]).expect(0).value()["id"].clone();
    let run = detached_as(&world, &admin, &["sleep", "300"]);
    world.run_reaches(&run, "running", Duration::from_secs(10));
    world.cortex(&["node", "label", "a", "role=ci"]).expect(0);
    let (_, view) = end_of(&world, &run, Instant::now());
    assert_eq!(view["state"], "cancelled", "a label put the node under the lock");
    world.cortex(&["exec", "a", "--", "true"]).expect(4);
    world.cortex(&["lock", "rm", id.as_str().expect("an id")]).expect(0);
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
}

#[test]
fn a_lock_that_has_expired_holds_no_more() {
    let world = hub().open_node("a").start();
    let file = token(&world, "short", "operator");
    world.cortex(&["lock", "token:short", "--ttl", "1s"]).expect(0);
    let try_it = || command_as(&world, &file, &["node", "ls"]).output().expect("it ends").status.code();
    assert_eq!(try_it(), Some(4));
    world.eventually("the end of the lock", Duration::from_secs(10), |_| (try_it() == Some(0)).then_some(()));
}

#[test]
fn the_last_lasting_administrator_cannot_be_locked_out() {
    let world = hub().node("a").start();
    let refused = world.cortex(&["lock", "token:admin", "--json"]).expect(8);
    assert_eq!(refused.refusal(), "conflict");
    token(&world, "second", "admin");
    world.cortex(&["lock", "token:second"]).expect(0);
    assert_eq!(world.cortex(&["lock", "token:admin", "--json"]).expect(8).refusal(), "conflict");
    for (target, exit) in
        [("token:nobody", 3), ("node:nowhere", 3), ("user:nobody", 3), ("x", 2), ("label:a", 2)]
    {
        world.cortex(&["lock", target]).expect(exit);
    }
}

#[test]
fn a_run_of_a_node_that_is_away_ends_when_it_is_back() {
    let mut world = hub().open_node("a").start();
    let admin = world.hub().token_file.clone();
    let run = detached_as(&world, &admin, &["sleep", "300"]);
    world.run_reaches(&run, "running", Duration::from_secs(10));
    let (http, grpc) = world.kill_hub();
    world.start_hub(&(http, grpc));
    // The node dials again within its back-off; the lock comes before or after that.
    lock(&world, "node:a", "");
    let (_, view) = end_of(&world, &run, Instant::now());
    assert_eq!(view["state"], "cancelled", "{view}");
    world.node_reaches("a", "online", Duration::from_secs(20));
}

#[test]
fn a_removed_node_ends_its_runs_on_its_machine_and_its_name_inherits_no_lock() {
    let mut world = hub().open_node("a").start();
    let admin = world.hub().token_file.clone();
    let beat = world.path("beat");
    let script = format!("while :; do date > {}; sleep 0.05; done", beat.display());
    detached_as(&world, &admin, &["sh", "-c", &script]);
    world.eventually("the run writes", Duration::from_secs(10), |_| beat.exists().then_some(()));
    world.cortex(&["node", "rm", "a", "--yes"]).expect(0);
    world.eventually("the run ends on its machine", Duration::from_secs(15), |_| {
        std::fs::remove_file(&beat).ok();
        std::thread::sleep(Duration::from_millis(300));
        (!beat.exists()).then_some(())
    });
    for round in 0..2 {
        world.kill_node("a");
        std::fs::rename(world.path("node-a"), world.path(&format!("old-{round}"))).expect("another machine");
        world.join("a", "strict");
        world.cortex(&["exec", "a", "--", "true"]).expect(0);
        if round == 0 {
            lock(&world, "node:a", "of this machine");
            world.cortex(&["exec", "a", "--", "true"]).expect(4);
            world.cortex(&["node", "rm", "a", "--yes"]).expect(0);
        }
    }
}
