//! Operations on files of a node, over HTTP: what runs of the node see of them, and what becomes of them
//! when the node or the hub dies.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::tasks::id;
use crate::world::{World, hub};

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub(crate) fn ok(self) -> Value {
        assert!(matches!(self.status, 200 | 201), "{self:?} {}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, &body["code"]), (status, &json!(code)), "{body}");
        body
    }
}

/// A world with a node whose policy gives a folder.
pub(crate) fn world() -> (World, std::path::PathBuf) {
    let world = hub().node("a").start();
    let work = world.path("work");
    let root = format!("{}:rw", work.display());
    world.cortex(&["policy", "allow", "a", "--root", &root, "--yes"]).expect(0);
    world.cortex(&["policy", "allow", "a", "cat", "--yes"]).expect(0);
    (world, work)
}

impl World {
    pub(crate) fn fs(&self, method: &str, query: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.api(method, &format!("/nodes/{query}"), headers, body)
    }

    /// Calls the API with the administrator's token.
    pub(crate) fn api(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let address = self.hub().http.trim_start_matches("http://");
        let token = std::fs::read_to_string(&self.hub().token_file).expect("the token");
        let mut stream = TcpStream::connect(address).expect("the port listens");
        stream.set_read_timeout(Some(Duration::from_secs(40))).expect("a deadline");
        let mut head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            token.trim(),
            body.len()
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("sent");
        stream.write_all(body).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").expect("a head");
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head[9..12].parse().expect("a status");
        Reply { status, head, body: answer[end + 4..].to_vec() }
    }

    fn put(&self, node: &str, path: &Path, body: &str) -> Reply {
        self.fs("PUT", &at(node, path, "&mkdirs=true"), &[("content-type", OCTETS)], body.as_bytes())
    }
}

pub(crate) const OCTETS: &str = "application/octet-stream";

/// The address of a file below that of the nodes.
pub(crate) fn at(node: &str, path: &Path, more: &str) -> String {
    let encoded: String = path.to_str().expect("text").bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("{node}/fs?path={encoded}{more}")
}

#[test]
fn r16_0_files_are_written_read_edited_and_removed_where_the_nodes_runs_work() {
    let (world, work) = world();
    let target = work.join("مجلد/ملف.txt");
    let written = world.put("a", &target, "one\ntwo\n").ok();
    assert_eq!((&written["created"], &written["bytes"]), (&json!(true), &json!(8)), "{written}");
    // A run sees it, as the same user and in the same place.
    let seen = world.cortex(&["exec", "a", "--", "cat", target.to_str().expect("text")]).expect(0);
    assert_eq!(seen.text(), "one\ntwo\n");
    let read = world.fs("GET", &at("a", &target, ""), &[("accept", "application/json")], b"").ok();
    assert_eq!(
        (&read["text"], &read["total_lines"], &read["etag"]),
        (&json!("one\ntwo\n"), &json!(2), &written["etag"])
    );
    // Somebody who knows an older content changes nothing.
    let etag = format!("\"{}\"", written["etag"].as_str().expect("an etag"));
    let edit = json!({"edits": [{"old": "two", "new": "three"}]}).to_string();
    let headers = [("content-type", "application/json"), ("if-match", etag.as_str())];
    let edited = world.fs("PATCH", &at("a", &target, ""), &headers, edit.as_bytes()).ok();
    assert!(edited["diff"].as_str().is_some_and(|diff| diff.contains("-two\n+three\n")), "{edited}");
    let stale = world.fs("PATCH", &at("a", &target, ""), &headers, edit.as_bytes());
    assert_eq!(stale.refused(412, "etag_mismatch")["details"]["etag"], edited["etag"]);
    let listed = world.fs("GET", &at("a", target.parent().expect("a folder"), "&view=list"), &[], b"").ok();
    assert_eq!(listed["items"][0]["name"], "ملف.txt", "{listed}");
    let outside = world.fs("GET", &at("a", Path::new("/etc/shadow"), ""), &[], b"");
    outside.refused(403, "path_outside_roots");
    world.fs("DELETE", &at("a", &target, ""), &[], b"").ok();
    assert!(!target.exists());
    world.fs("GET", &at("a", &target, ""), &[], b"").refused(404, "not_found");
}

#[test]
fn r16_0_an_operation_that_is_repeated_with_its_key_is_done_once_whatever_dies_in_between() {
    let (mut world, work) = world();
    let target = work.join("log");
    let headers = [("content-type", OCTETS), ("idempotency-key", "k1")];
    let append = at("a", &target, "&mode=append");
    let first = world.fs("PUT", &append, &headers, b"line\n").ok();
    world.kill_node("a");
    world.start_node("a");
    let ports = world.kill_hub();
    world.start_hub(&ports);
    world.node_reaches("a", "online", Duration::from_secs(20));
    let again = world.fs("PUT", &append, &headers, b"line\n").ok();
    assert_eq!((&again["op"], &again["etag"]), (&first["op"], &first["etag"]), "{again}");
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "line\n", "appended once");
    world.fs("PUT", &append, &headers, b"other\n").refused(409, "conflict");
    let other = [("content-type", OCTETS), ("idempotency-key", "k2")];
    world.fs("PUT", &append, &other, b"line\n").ok();
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "line\nline\n");
}

#[test]
fn a_node_that_is_not_there_is_said_at_once_and_nothing_waits_for_it() {
    let (mut world, work) = world();
    world.kill_node("a");
    world.node_reaches("a", "offline", Duration::from_secs(20));
    let reply = world.put("a", &work.join("a"), "x");
    assert!(!reply.head.is_empty());
    reply.refused(409, "node_offline");
    world.start_node("a");
    assert!(!work.join("a").exists(), "nothing was queued");
}

#[test]
fn a63_an_attempt_that_is_over_writes_no_file_and_the_one_that_followed_it_does() {
    let (world, work) = world();
    let target = work.join("result");
    let task = world.add(&["--kind", "resize", "--lease", "10s"]);
    let claim = ["task", "claim", "--kind", "resize", "--wait", "40s", "--json"];
    let attempt = |world: &World| world.cortex(&claim).expect(0).value()[0]["attempt"].as_u64();
    let write = |number: u64| {
        let attempt = format!("{}/{number}", id(&task));
        let headers = [("content-type", OCTETS), ("cortex-attempt", attempt.as_str())];
        world.fs("PUT", &at("a", &target, ""), &headers, format!("by {number}").as_bytes())
    };
    assert_eq!(attempt(&world), Some(1));
    write(1).ok();
    // Its worker says nothing for longer than its lease.
    assert_eq!(attempt(&world), Some(2));
    write(1).refused(409, "stale_attempt");
    write(2).ok();
    world.cortex(&["task", "finish", id(&task), "2"]).expect(0);
    for number in [1, 2] {
        write(number).refused(409, "stale_attempt");
    }
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "by 2");
}
