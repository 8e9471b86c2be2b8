//! Paths of files that are none, at every door that takes one.

use serde_json::{Value, json};

use crate::support::api;
use crate::world::hub;

/// Spellings that lead elsewhere, or mean something else to whoever reads them next.
fn spellings() -> Vec<String> {
    let deep = "/a".repeat(5_000);
    let long = format!("/{}", "n".repeat(300));
    [
        "",
        "x",
        "../x",
        "a/../../x",
        "/a/../../x",
        "/..",
        "/.",
        "/a/./b",
        "//x",
        "/a//b",
        "/a/",
        "C:\\x",
        "/C:/x",
        "\\\\?\\",
        "..\\",
        "/..\\x",
        "/a\\b",
        "/%2e%2e/x",
        "/%2E%2e/x",
        "/%252e%252e/x",
        "/．．/x",
        "/a/．/x",
        "/a\0b",
        "/a\nb",
        "/a\u{202e}b\u{7}",
        &deep,
        &long,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A value of a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'/';
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

#[test]
fn a45_a_path_that_leads_elsewhere_is_bad_path_at_every_door() {
    let world = hub().node("a").start();
    assert_eq!(api(&world, "POST", "/api/v1/workspaces", &json!({"name": "notes"})).status, 201);
    let push = |dest: &str| json!({"kind": "push", "nodes": ["a"], "dest": dest, "root": "0".repeat(64), "entries": 0, "bytes": 0});
    for path in spellings() {
        let query = encoded(&path);
        let fs = format!("/api/v1/nodes/a/fs?path={query}");
        let doors = [
            ("GET", fs.clone(), Value::Null),
            ("GET", format!("{fs}&view=list"), Value::Null),
            ("GET", format!("{fs}&view=stat"), Value::Null),
            ("GET", format!("/api/v1/nodes/a/fs/search?path={query}"), Value::Null),
            ("PUT", format!("{fs}&kind=dir"), Value::Null),
            ("DELETE", fs.clone(), Value::Null),
            ("PATCH", fs, json!({"move_to": "/srv/x"})),
            ("PATCH", "/api/v1/nodes/a/fs?path=/srv/x".to_owned(), json!({"move_to": path})),
            ("PATCH", "/api/v1/nodes/a/fs?path=/srv/x".to_owned(), json!({"copy_to": path})),
            ("POST", "/api/v1/transfers".to_owned(), push(&path)),
            ("POST", "/api/v1/transfers".to_owned(), json!({"kind": "pull", "node": "a", "source": path})),
            (
                "POST",
                "/api/v1/workspaces/notes/members".to_owned(),
                json!({"node": "a", "path": path, "role": "follower"}),
            ),
        ];
        for (method, door, body) in doors {
            let answer = api(&world, method, &door, &body);
            let shown = if path.len() > 80 { &path[..20] } else { &path };
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (400, "bad_path"),
                "{shown:?} at {method} {}: {}",
                &door[..door.len().min(60)],
                answer.text
            );
        }
    }
    // A path that is fine and lies nowhere that the policy gives is another matter, and is audited.
    let answer = api(&world, "GET", "/api/v1/nodes/a/fs?path=/etc/passwd", &Value::Null);
    assert_eq!((answer.status, answer.code().as_str()), (403, "path_outside_roots"), "{}", answer.text);
    let rows = world.cortex(&["audit", "export"]).expect(0).lines();
    let is_it = |row: &Value| row["outcome"] == "denied" && row.to_string().contains("/etc/passwd");
    assert!(rows.iter().any(is_it), "it is audited");
    let node = api(&world, "GET", "/api/v1/workspaces/notes", &Value::Null);
    assert!(node.text.contains("\"members\":[]"), "{}", node.text);
}
