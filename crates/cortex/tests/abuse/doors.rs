//! Rows 82 to 93: the API as a browser or a careless operator would reach it, and secrets.

use std::time::Duration;

use cortex_hub::access;
use serde_json::{Value, json};

use crate::support::{admin, api, http, nodes, others_go_on};
use crate::world::{World, hub};

fn bearer(world: &World) -> String {
    format!("authorization: Bearer {}", admin(world))
}

#[test]
fn a82_a_foreign_origin_or_host_is_refused() {
    let world = hub().node("a").start();
    let bearer = bearer(&world);
    for line in [
        "origin: http://evil.example",
        "origin: null",
        "origin: http://127.0.0.1:1",
        "origin: file://x",
        "host: evil.example",
        "host: localhost.evil.example",
    ] {
        for (method, route, _) in access::routes() {
            let path = route
                .replace("{node}", "a")
                .replace("{id}", "x")
                .replace("{token}", "x")
                .replace("{user}", "x");
            let answer = http(&world, method, &path, &[&bearer, line], b"");
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, "forbidden"),
                "{line} {method} {route}"
            );
        }
    }
    let cookie = format!("cookie: token={}", admin(&world));
    let answer = http(&world, "GET", "/api/v1/nodes", &[&cookie], b"");
    assert_eq!((answer.status, answer.code().as_str()), (401, "unauthenticated"), "a cookie is never enough");
    assert_eq!(nodes(&world), ["a"]);
}

#[test]
fn a83_what_a_foreign_page_can_post_changes_nothing() {
    let world = hub().node("a").start();
    let bearer = bearer(&world);
    let body = json!({"nodes": ["a"], "argv": ["echo", "forged"]}).to_string();
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain; application/json",
    ] {
        let kind = format!("content-type: {kind}");
        for path in ["/api/v1/runs", "/api/v1/invites", "/api/v1/tokens", "/api/v1/policies/a/allow"] {
            let answer = http(&world, "POST", path, &[&bearer, &kind], body.as_bytes());
            assert_eq!(answer.status, 415, "{kind} {path}: {}", answer.text);
        }
    }
    let untyped = http(&world, "POST", "/api/v1/runs", &[&bearer], body.as_bytes());
    assert_eq!(untyped.status, 415, "a body without a type");
    assert_eq!(world.cortex(&["run", "ls", "--json"]).expect(0).value(), json!([]));
}

#[test]
fn a86_no_get_changes_anything() {
    let world = hub().node("a").start();
    let state = |world: &World| {
        let list = |what: &str| world.cortex(&[what, "ls", "--json"]).expect(0).value();
        let rows = world.cortex(&["audit", "export"]).expect(0).lines().len();
        let names: Vec<Value> =
            list("node").as_array().expect("a list").iter().map(|node| node["name"].clone()).collect();
        (names, list("run"), list("invite"), list("token"), rows)
    };
    let before = state(&world);
    for (_, route, _) in access::routes() {
        // Every path, those that change things by another method as well.
        let path = route
            .replace("{node}", "a")
            .replace("{id}", "x")
            .replace("{token}", "admin")
            .replace("{user}", "x");
        if path.ends_with("/events") {
            continue;
        }
        for method in ["GET", "HEAD"] {
            let answer = http(&world, method, &path, &[&bearer(&world)], b"");
            assert!(answer.status < 500, "{method} {path}: {}", answer.text);
        }
    }
    assert_eq!(state(&world), before);
}

#[test]
fn a88_a_secret_as_an_argument_is_refused_and_not_repeated() {
    let world = hub().node("a").start();
    let (token, invite) = (admin(&world), world.invite(&[]).0["invite"].clone());
    let invite = invite.as_str().expect("an invite").to_owned();
    let grpc = world.hub().grpc.clone();
    let joined = format!("--token={token}");
    let lines: [&[&str]; 6] = [
        &["--token", &token, "status"],
        &["status", "--token", &token],
        &["status", &joined],
        &["join", &grpc, &invite],
        &["join", &grpc, "--invite-file", &invite],
        &["node", "get", &token],
    ];
    for line in lines {
        let ended = world.cortex(line).expect(2);
        let shown = ended.text() + &ended.stderr;
        assert!(!shown.contains(&token) && !shown.contains(&invite), "it is not repeated: {shown}");
    }
    let answer = api(&world, "GET", &format!("/api/v1/nodes?token={token}"), &Value::Null);
    assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"));
    assert!(!answer.text.contains(&token));
    others_go_on(&world);
}

#[test]
fn a93_names_and_labels_carry_nothing_hidden() {
    let world = hub().node("a").start();
    for hidden in [
        "a\u{200b}b",
        "a\u{e0041}b",
        "\u{202e}cba",
        "a\u{feff}",
        "a\u{2060}b",
        "ａ",
        "a\u{1b}[2J",
        "a b",
        "<b>a",
        "a\nb",
        "a;b",
        "été",
    ] {
        let rename = api(&world, "PATCH", "/api/v1/nodes/a", &json!({ "name": hidden }));
        let label = api(&world, "PATCH", "/api/v1/nodes/a", &json!({"labels": {hidden: "x"}}));
        let value = api(&world, "PATCH", "/api/v1/nodes/a", &json!({"labels": {"x": hidden}}));
        let token = api(&world, "POST", "/api/v1/tokens", &json!({"name": hidden, "role": "viewer"}));
        let invite = api(&world, "POST", "/api/v1/invites", &json!({"labels": {"x": hidden}}));
        for answer in [rename, label, value, token, invite] {
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{hidden:?}");
            let unseen = ['\u{200b}', '\u{e0041}', '\u{202e}', '\u{feff}', '\u{2060}', '\u{1b}'];
            assert!(!answer.text.contains(unseen), "{hidden:?} is shown as it is");
        }
    }
    assert_eq!(nodes(&world), ["a"]);
}

/// Not shown here: the text of a panic (the program has no way to be made to panic, and secrets are
/// types that do not print), a core dump (it holds the memory of the process, and is turned off by
/// the system or not at all), a terminal's history (no secret can be an argument: row 88).
#[test]
fn a87_no_secret_is_in_any_output() {
    let mut world = hub().node("a").open_node("b").start();
    let (invite, file) = world.invite(&[]);
    let made = world.cortex(&["token", "create", "canary", "--json"]).expect(0).value();
    let key = std::fs::read_to_string(world.path("node-a").join("node.key")).expect("the node's key");
    let body: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let secrets = [
        admin(&world),
        made["token"].as_str().expect("a token").to_owned(),
        invite["invite"].as_str().and_then(|text| text.rsplit('.').next()).expect("its secret").to_owned(),
        body[..40].to_owned(),
    ];
    let mut outputs: Vec<(String, String)> = Vec::new();
    // What goes wrong on the way: each with the secret in reach.
    let wrong: [&[&str]; 5] = [
        &["exec", "a", "--", "curl"],
        &["exec", "nobody", "--", "true"],
        &["status", "--token", &secrets[0]],
        &["join", "127.0.0.1:1", "--invite-file", &file.display().to_string(), "--data-dir", "/proc/x"],
        &["node", "start", "--data-dir", "/proc/x"],
    ];
    for line in wrong {
        let ended = world.cortex(line);
        outputs.push((format!("{line:?}"), ended.text() + &ended.stderr));
    }
    let sleeping = world.cortex(&["exec", "b", "--detach", "--json", "--", "sleep", "20"]).expect(0).value();
    let id = sleeping["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&id, "running", Duration::from_secs(10));
    // Behind walls too: a room's nursery, and a guard in it.
    let walled = ["exec", "a", "--detach", "--json", "--env", "TERM=plain", "--", "sleep", "20"];
    let walled = world.cortex(&walled).expect(0).value()["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&walled, "running", Duration::from_secs(10));
    let running = processes();
    let rooms = running.iter().filter(|(_, text)| text.contains("__guard\0room")).count();
    assert!(rooms >= 1, "a room is there: {running:?}");
    let of_guards =
        running.iter().filter(|(path, text)| path.ends_with("cmdline") && text.contains("__guard"));
    assert!(of_guards.count() >= 3, "nurseries of both nodes, and guards: {running:?}");
    assert!(running.len() >= 12, "hub, two nodes, and two runs with their guards: {}", running.len());
    outputs.extend(running);
    for id in [&id, &walled] {
        world.cortex(&["run", "cancel", id]).expect(0);
    }
    let environment = world.cortex(&["exec", "b", "--", "env"]).expect(0).text();
    outputs.push(("the environment of a run".to_owned(), environment));
    for path in [
        "/metrics",
        "/readyz",
        "/healthz",
        "/api/v1/openapi.json",
        "/api/v1/stats",
        "/api/v1/tokens",
        "/api/v1/invites",
        "/api/v1/nodes",
        "/api/v1/policies",
        "/api/v1/runs",
    ] {
        outputs.push((path.to_owned(), api(&world, "GET", path, &Value::Null).text));
    }
    let bad = http(&world, "GET", "/api/v1/nodes", &[&format!("authorization: Bearer {}x", secrets[0])], b"");
    outputs.push(("an unknown token".to_owned(), bad.text));
    for secret in &secrets {
        // In the address, where the logs and the errors could repeat it.
        for path in
            [format!("/api/v1/nodes?token={secret}"), format!("/api/v1/nodes/{secret}"), format!("/{secret}")]
        {
            let answer = http(&world, "GET", &path, &[], b"");
            assert!(answer.status >= 400, "{}", answer.text);
            outputs.push(("an address with a secret".to_owned(), answer.text));
        }
    }
    outputs.push(("the audit log".to_owned(), world.cortex(&["audit", "export"]).expect(0).text()));
    world.stop_node("a");
    // What the sandbox is tried with at the start of a node lives for moments.
    let over = std::sync::atomic::AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = std::collections::BTreeSet::new();
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                seen.extend(
                    processes().into_iter().map(|(_, text)| ("a process at a node's start".to_owned(), text)),
                );
            }
            seen
        });
        world.start_node("a");
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        watch.join().expect("no panic")
    });
    outputs.extend(seen);
    outputs.push(("the logs".to_owned(), world.logs()));
    for secret in &secrets {
        assert!(secret.len() >= 32);
        for (what, text) in &outputs {
            assert!(!text.contains(secret.as_str()), "a secret is in {what}");
        }
    }
}

/// Arguments and environment of this test's own processes: the hub, the nodes, and what they run.
fn processes() -> Vec<(String, String)> {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids: Vec<u32> =
        entries.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect();
    let ours = pids.into_iter().filter(|pid| descends(*pid));
    ours.flat_map(|pid| ["cmdline", "environ"].map(|name| format!("/proc/{pid}/{name}")))
        .filter_map(|path| Some((path.clone(), std::fs::read(&path).ok()?)))
        .map(|(path, bytes)| (path, String::from_utf8_lossy(&bytes).into_owned()))
        .collect()
}

/// Whether a process was started by this one, or by one of those.
fn descends(mut pid: u32) -> bool {
    while pid > 1 {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        let Some(parent) = parent.and_then(|text| text.trim().parse().ok()) else { return false };
        if parent == std::process::id() {
            return true;
        }
        pid = parent;
    }
    false
}
