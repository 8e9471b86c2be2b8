//! The two ports of the hub, and what its processes write.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::world::hub;

/// Asks for a path in plain HTTP, and gives what comes until the port closes or falls silent.
fn ask(address: &str, path: &str, token: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the port listens");
    stream.set_read_timeout(Some(Duration::from_secs(15))).expect("a deadline");
    let head = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("send");
    let mut answer = Vec::new();
    // A reset is an answer too: nothing more comes.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn r2_2_people_and_nodes_have_ports_of_their_own() {
    let world = hub().node("a").start();
    let (http, grpc) = (world.hub().http.trim_start_matches("http://"), world.hub().grpc.as_str());
    assert_ne!(http, grpc);
    let token = std::fs::read_to_string(&world.hub().token_file).expect("the token");
    assert!(ask(http, "/api/v1/whoami", token.trim()).starts_with("HTTP/1.1 200"));
    assert!(!ask(grpc, "/api/v1/whoami", token.trim()).contains("200 OK"), "the nodes' port speaks TLS only");
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
}

#[test]
fn r2_3_every_line_of_the_logs_is_json_with_a_time_a_level_and_words() {
    let world = hub().node("a").start();
    world.cortex(&["exec", "a", "--", "id"]).expect(0);
    world.cortex(&["exec", "a", "--", "curl", "canary-argument"]).expect(5);
    let logs = world.logs();
    let spoken = "has joined; it is being started.";
    let lines: Vec<&str> = logs.lines().filter(|line| !line.contains(spoken)).collect();
    assert!(lines.len() > 5, "little was logged: {logs}");
    for line in lines {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        for name in ["timestamp", "level", "target"] {
            assert!(value[name].is_string(), "{name} is missing in {line}");
        }
        assert!(value["fields"]["message"].is_string(), "no words in {line}");
    }
    assert!(!logs.contains("canary-argument"), "arguments of commands stay out of logs");
}

#[test]
fn a_second_hub_on_a_data_directory_is_told_who_holds_it_and_what_to_do() {
    let world = hub().start();
    let dir = world.path("hub");
    let start = |why: &str| {
        let dir = dir.display().to_string();
        let ports = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"];
        let ended = world.cortex(&[&["hub", "start", "--data-dir", &dir, "--json"], &ports[..]].concat());
        let error = ended.expect(8).value()["error"].clone();
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(text("code"), "conflict", "{why}: {error}");
        (text("message"), text("hint"))
    };
    let pid = world.hub().pid().to_string();
    let (message, hint) = start("a hub that serves");
    assert!(message.contains(&pid) && message.contains(&world.hub().http), "{message}");
    assert!(hint.contains(&format!("kill {pid}")) && hint.contains("--data-dir"), "{hint}");
    assert!(hint.contains(&dir.join("hub.json").display().to_string()), "{hint}");
    // One that holds its store and has not told where it listens, as at its start.
    std::fs::rename(dir.join("hub.json"), dir.join("aside")).expect("put aside");
    let (message, hint) = start("a hub that begins");
    std::fs::rename(dir.join("aside"), dir.join("hub.json")).expect("put back");
    assert!(message.contains(&format!("process {pid}")), "{message}");
    assert!(hint.contains(&format!("kill {pid}")) && hint.contains("--data-dir"), "{hint}");
    assert!(hint.contains(&dir.join("cortex.lock").display().to_string()), "{hint}");
    world.cortex(&["status"]).expect(0);
}
