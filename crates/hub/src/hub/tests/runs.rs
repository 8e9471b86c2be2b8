//! The routes of runs, as far as they go without a node.

use cortex_core::id::{Revision, RunId};
use cortex_core::run::{Run, RunSpec, RunState};
use cortex_core::stream::{Positions, Stream};
use serde_json::json;

use super::*;
use crate::runlog::Sink;
use crate::service::runs::Update;

async fn ended_run(world: &World, node: NodeId) -> RunId {
    let id = clock::new_run_id(&world.hub.context.clock);
    keep_run(world, node, id, Positions::default()).await;
    id
}

async fn keep_run(world: &World, node: NodeId, id: RunId, output: Positions) {
    keep_run_until(world, node, id, output, WallTime(3_000)).await;
}

pub(super) async fn keep_run_until(world: &World, node: NodeId, id: RunId, output: Positions, end: WallTime) {
    let spec = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
    let accepted = Run::accepted(id, node, spec, "token:admin".to_owned(), Revision(1), WallTime(1_000));
    let run = Run {
        state: RunState::Exited,
        started_at: Some(WallTime(2_000)),
        ended_at: Some(end),
        code: Some(0),
        duration_ms: Some(1_000),
        output,
        ..accepted
    };
    world.write(move |tx| tx.put_run(&run)).await;
}

/// Tells when a log is on disk.
struct Synced(tokio::sync::watch::Sender<u64>);

impl Sink for Synced {
    fn written(&self, _run: RunId, _position: u64) {}
    fn synced(&self, _run: RunId, position: u64) {
        self.0.send_replace(position);
    }
}

/// A run that has ended with this output, piece by piece.
async fn run_with_output(world: &World, node: NodeId, pieces: &[(Stream, &'static [u8])]) -> RunId {
    run_with_output_until(world, node, pieces, WallTime(3_000)).await
}

/// The same with the time of its end.
pub(super) async fn run_with_output_until(
    world: &World,
    node: NodeId,
    pieces: &[(Stream, &'static [u8])],
    ended_at: WallTime,
) -> RunId {
    let logs = RunLogs::open(&world.dir.path().join(RUNS)).expect("the logs");
    let (sender, mut synced) = tokio::sync::watch::channel(0);
    let sink: Arc<dyn Sink> = Arc::new(Synced(sender));
    let id = clock::new_run_id(&world.hub.context.clock);
    let log = logs.create(id, Arc::downgrade(&sink));
    for (stream, bytes) in pieces {
        log.append(*stream, Bytes::from_static(bytes));
    }
    log.finish();
    let end = log.end();
    let done = tokio::time::timeout(SOON, synced.wait_for(|position| *position >= end.total())).await;
    drop(done.expect("it is written in time").expect("the log lives"));
    keep_run_until(world, node, id, end, ended_at).await;
    id
}

#[tokio::test]
async fn a_run_on_an_offline_node_is_refused_with_and_without_a_stream() {
    let world = World::new(StoreKind::Memory).await;
    world.node("n1").await;
    let body = json!({"nodes": ["n1"], "argv": ["true"]});
    world.admin(Method::POST, "/api/v1/runs", body.clone()).await.refused(409, "node_offline");

    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", bearer.as_str()), ("accept", "application/x-ndjson")];
    let many = json!({"nodes": ["n1", "n2", "n1"], "argv": ["true"], "parallel": 1});
    let lines = world.call(Method::POST, "/api/v1/runs", &headers, Some(many)).await;
    assert_eq!(
        (lines.status.as_u16(), &lines.headers["content-type"]),
        (200, &"application/x-ndjson".parse().expect("a value"))
    );
    let text = String::from_utf8(lines.body.to_vec()).expect("text");
    let mut refused: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .map(|line| (line["type"].clone(), line["node"].clone(), line["error"]["code"].clone()))
        .collect();
    refused.sort_by_key(|(_, node, _)| node.to_string());
    let expected = [("n1", "node_offline"), ("n2", "node_not_found")];
    assert_eq!(refused, expected.map(|(node, code)| (json!("refused"), json!(node), json!(code))));

    let mixed = json!({"nodes": ["n1", "n2"], "argv": ["true"]});
    let answer = world.admin(Method::POST, "/api/v1/runs", mixed).await.ok(202);
    assert_eq!(answer["refused"].as_array().map(Vec::len), Some(2));
    world.stop().await;
}

#[tokio::test]
async fn the_room_on_the_disk_and_what_output_leaves_of_it_are_told() {
    let world = World::new(StoreKind::Memory).await;
    let stats = world.get("/api/v1/stats").await.ok(200);
    let (free, reserve) = (&stats["disk_free_bytes"], &stats["disk_reserve_bytes"]);
    assert!(free.as_u64().is_some_and(|free| free > 0), "{stats}");
    assert!(reserve.as_u64().is_some_and(|reserve| reserve > 0 && reserve <= 256 << 20), "{stats}");
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_a_run_is_refused_by_name() {
    let world = World::new(StoreKind::Memory).await;
    world.node("n1").await;
    let post = async |body: Value| world.admin(Method::POST, "/api/v1/runs", body).await;
    let argv = json!(["true"]);
    post(json!({"nodes": ["n1"]})).await.refused(400, "invalid_argument");
    post(json!({"argv": argv})).await.refused(400, "invalid_argument");
    post(json!({"nodes": ["n1"], "argv": []})).await.refused(400, "invalid_argument");
    post(json!({"nodes": ["n1"], "argv": argv, "cwd": "relative"})).await.refused(400, "invalid_argument");
    post(json!({"nodes": ["n1"], "argv": argv, "parallel": 2})).await.refused(400, "invalid_argument");
    post(json!({"nodes": ["n1"], "selector": "a=b", "argv": argv})).await.refused(400, "invalid_argument");
    post(json!({"nodes": ["nx"], "argv": argv})).await.refused(404, "node_not_found");
    post(json!({"selector": "role=none", "argv": argv})).await.refused(404, "node_not_found");
    post(json!({"selector": "role=ci", "argv": argv})).await.refused(409, "node_offline");
    let long = "x".repeat(200 * 1024);
    post(json!({"nodes": ["n1"], "argv": ["echo", long]})).await.refused(413, "too_large");
    let bearer = format!("Bearer {}", world.admin);
    let key = "k".repeat(129);
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", key.as_str())];
    let body = json!({"nodes": ["n1"], "argv": argv});
    world.call(Method::POST, "/api/v1/runs", &headers, Some(body)).await.refused(400, "invalid_argument");
    world.stop().await;
}

#[tokio::test]
async fn kept_runs_are_listed_in_pages_and_shown_with_the_name_of_a_removed_node() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(ended_run(&world, node).await.to_string());
    }
    ids.sort();
    ids.reverse();
    let page = world.get("/api/v1/runs?limit=2&state=exited&node=n1").await.ok(200);
    assert_eq!(page["items"][0]["id"].as_str(), Some(ids[0].as_str()));
    let cursor = page["next_cursor"].as_str().expect("more");
    let rest = world.get(&format!("/api/v1/runs?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(1));
    world.admin(Method::DELETE, "/api/v1/nodes/n1", json!({})).await;
    let run = world.get(&format!("/api/v1/runs/{}", ids[0])).await.ok(200);
    assert_eq!((&run["node"], &run["state"], &run["code"]), (&json!("n1"), &json!("exited"), &json!(0)));
    assert_eq!(run["started_at"], "1970-01-01T00:00:02.000Z");
    world.get("/api/v1/runs/nonsense").await.refused(404, "not_found");
    world.get("/api/v1/runs/0190b2c4-0000-7000-8000-000000000000").await.refused(404, "not_found");
    world.get("/api/v1/runs?state=asleep").await.refused(400, "invalid_argument");
    let path = format!("/api/v1/runs/{}/output?stream=both", ids[0]);
    world.get(&path).await.refused(400, "invalid_argument");
    let path = format!("/api/v1/runs/{}/cancel", ids[0]);
    world.admin(Method::POST, &path, json!({"grace_ms": 9_999_999})).await.refused(400, "invalid_argument");
    world.stop().await;
}

#[tokio::test]
async fn kept_output_is_given_exactly_as_bytes_by_stream_and_offset_and_as_lines() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let pieces: [(Stream, &[u8]); 4] = [
        (Stream::Stdout, b"one \xe2\x82"),
        (Stream::Stderr, b"bad \xff\n"),
        (Stream::Stdout, b"\xac two\n"),
        (Stream::Stderr, b"end"),
    ];
    let id = run_with_output(&world, node, &pieces).await;
    let bytes = async |query: &str| world.get(&format!("/api/v1/runs/{id}/output{query}")).await;
    let all: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
    let whole = bytes("").await;
    assert_eq!(whole.headers["content-type"], "application/octet-stream");
    assert_eq!(&whole.body[..], &all[..]);
    assert_eq!(&bytes("?from=8").await.body[..], &all[8..]);
    assert_eq!(&bytes("?stream=stdout").await.body[..], "one € two\n".as_bytes());
    assert_eq!(&bytes("?stream=stderr&from=4").await.body[..], b"\xff\nend");
    assert_eq!(bytes("?from=999").await.body.len(), 0);

    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", bearer.as_str()), ("accept", "application/x-ndjson")];
    let path = format!("/api/v1/runs/{id}/output");
    let lines = world.call(Method::GET, &path, &headers, None).await;
    let lines: Vec<Value> = String::from_utf8(lines.body.to_vec())
        .expect("text")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let outputs: Vec<_> = lines
        .iter()
        .filter(|line| line["type"] == "output")
        .map(|line| (&line["offset"], &line["data"]))
        .collect();
    assert_eq!(outputs[0], (&json!(0), &json!("one ")));
    assert!(outputs.contains(&(&json!(4), &json!("€ two\n"))), "a character is not cut in two: {outputs:?}");
    assert!(lines.iter().any(|line| line["stream"] == "stderr" && line["data_base64"].is_string()));
    let exit = lines.last().expect("a last line");
    assert_eq!((&exit["type"], &exit["state"], &exit["code"]), (&json!("exit"), &json!("exited"), &json!(0)));
    let view = world.get(&format!("/api/v1/runs/{id}")).await.ok(200);
    assert_eq!(view["output_bytes"], all.len());
    world.stop().await;
}

#[tokio::test]
async fn output_that_the_disk_does_not_give_now_is_not_told_as_lost_and_comes_when_it_does() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let id = run_with_output(&world, node, &[(Stream::Stdout, b"there all the time")]).await;
    let runs = super::retention::runs(&world);
    let mut follower = runs.follow(&world.caller(), id).await.expect("followed");
    let name = id.to_string();
    let file = world.dir.path().join(RUNS).join(&name[name.len() - 2..]).join(format!("{name}.log"));
    let away = file.with_extension("away");
    std::fs::rename(&file, &away).expect("renamed");
    let refused = follower.next().await.expect("not the end").expect_err("the disk says no");
    assert_eq!(refused.code, Code::StoreUnavailable);
    std::fs::rename(&away, &file).expect("renamed");
    let update = follower.next().await.expect("not the end").expect("the disk is well again");
    assert!(
        matches!(&update, Update::Output { offset: 0, data, .. } if data == "there all the time"),
        "{update:?}"
    );
    assert!(matches!(follower.next().await, Some(Ok(Update::Ended(_)))));
    world.stop().await;
}

#[tokio::test]
async fn standard_input_beyond_any_number_is_refused() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let link = world.attach(node).await;
    world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "permissive"})).await.ok(200);
    let request = json!({"nodes": ["n1"], "argv": ["cat"], "stdin": true});
    let started = world.admin(Method::POST, "/api/v1/runs", request).await.ok(202);
    let run = started["runs"][0]["id"].as_str().expect("an id").to_owned();
    let bearer = format!("Bearer {}", world.admin);
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/octet-stream")];
    let path = format!("/api/v1/runs/{run}/stdin?offset={}", u64::MAX - 1);
    let answer = world.raw(Method::POST, &path, &headers, Bytes::from_static(b"abc")).await;
    answer.refused(400, "invalid_argument");
    drop(link);
    world.stop().await;
}

#[tokio::test]
async fn a_run_that_is_run_again_has_all_of_its_command_and_its_node() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let _link = world.attach(node).await;
    world.admin(Method::PUT, "/api/v1/policies/n1", json!({"profile": "permissive"})).await.ok(200);
    let request = json!({
        "nodes": ["n1"], "argv": ["make", "-j4"], "cwd": "/srv", "env": {"LANG": "C", "DEBUG": "1"},
        "timeout_ms": 90_000, "stdin": true,
    });
    let first = world.admin(Method::POST, "/api/v1/runs", request).await.ok(202)["runs"][0].clone();
    assert_eq!((&first["timeout_ms"], &first["stdin"]), (&json!(90_000), &json!(true)));
    let rename = json!({"name": "n2"});
    world.admin(Method::PATCH, "/api/v1/nodes/n1", rename).await.ok(200);
    let path = format!("/api/v1/runs/{}/rerun", first["id"].as_str().expect("an id"));
    let again = world.admin(Method::POST, &path, json!({})).await.ok(202)["runs"][0].clone();
    assert_ne!(again["id"], first["id"]);
    assert_eq!((&again["node"], &again["node_id"]), (&json!("n2"), &first["node_id"]));
    let spec = async |run: &Value| {
        let id: RunId = run["id"].as_str().expect("an id").parse().expect("an id");
        let found = world.hub.context.view(move |view| view.run(id)).await.expect("the store reads");
        found.expect("the run").spec
    };
    let kept = spec(&again).await;
    assert_eq!(kept, spec(&first).await);
    assert_eq!((kept.env.len(), kept.stdin, kept.timeout_ms), (2, true, Some(90_000)));
    world.admin(Method::DELETE, "/api/v1/nodes/n2", json!({})).await;
    world.admin(Method::POST, &path, json!({})).await.refused(404, "node_not_found");
    world.stop().await;
}
