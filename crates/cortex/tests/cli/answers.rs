//! What a client makes of a hub's plain answers.

use std::os::unix::fs::PermissionsExt;

use super::fake::{Answer, Fake};
use super::program::Program;

fn problem(code: &str, message: &str) -> String {
    format!(
        r#"{{"type":"/docs/errors/{code}","title":"x","status":400,"code":"{code}","message":"{message}","hint":"Do this.","retryable":false,"request_id":"r-1","docs":"/docs/errors/{code}"}}"#
    )
}

fn node(name: &str) -> String {
    format!(
        r#"{{"id":"0198a1c2-0000-7000-8000-000000000001","name":"{name}","state":"online","labels":{{"role":"ci"}},"os":"linux","arch":"x86_64","hostname":"h","version":"0","cpus":2,"memory_bytes":1,"tools":[],"policy_mode":"strict","policy_profile":"strict","policy_revision":1,"sandbox":"full","epoch":1,"runs_open":0,"last_seen_at":null,"joined_at":"2026-01-01T00:00:00Z"}}"#
    )
}

#[test]
fn a_refusal_passes_through_unchanged_and_sets_the_exit_status() {
    for (code, status) in [
        ("unauthenticated", 4),
        ("forbidden", 4),
        ("policy_denied", 5),
        ("not_found", 3),
        ("node_offline", 7),
        ("conflict", 8),
        ("timeout", 124),
        ("store_unavailable", 1),
        ("a_code_of_next_year", 1),
    ] {
        let hub = Fake::start(move |_, _| Answer::Json(400, problem(code, "why")));
        let program = Program::new().with("CORTEX_HUB", hub.url());
        let ended = program.run(&["status", "--json"]);
        assert_eq!(ended.code, Some(status), "{code}: {}", ended.text());
        assert_eq!(ended.error()["code"], code);
        assert_eq!(ended.error()["request_id"], "r-1");
        let ended = program.run(&["status"]);
        assert!(ended.stderr.contains("why") && ended.stderr.contains("Do this."), "{}", ended.stderr);
        assert!(ended.stdout.is_empty(), "a refusal is no result");
    }
}

#[test]
fn an_empty_list_is_an_empty_array_and_a_sentence_for_people() {
    let hub = Fake::start(|_, _| Answer::Json(200, r#"{"items":[]}"#.to_owned()));
    let program = Program::new().with("CORTEX_HUB", hub.url());
    for command in
        [&["node", "ls"][..], &["run", "ls"], &["invite", "ls"], &["token", "ls"], &["policy", "ls"]]
    {
        assert_eq!(program.run(&[command, &["--json"]].concat()).text(), "[]\n", "{command:?}");
        let ended = program.run(command);
        assert!(ended.stdout.is_empty() && !ended.stderr.is_empty(), "{command:?}");
    }
}

#[test]
fn tables_in_a_pipe_are_plain_and_pages_are_joined() {
    let hub = Fake::start(|asked, _| {
        let second = asked.path.contains("cursor=");
        let name = if second { "web-1" } else { "build-2" };
        let next = if second { "" } else { r#","next_cursor":"a b""# };
        Answer::Json(200, format!(r#"{{"items":[{}]{next}}}"#, node(name)))
    });
    let ended = Program::new().with("CORTEX_HUB", hub.url()).run(&["node", "ls", "-l", "role=ci"]);
    let text = ended.text();
    assert!(!text.contains('\x1b'), "{text:?}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].starts_with("NAME") && lines[1].starts_with("build-2") && lines[2].starts_with("web-1"),
        "{text}"
    );
    let asked = hub.asked();
    assert!(asked[0].path.starts_with("/api/v1/nodes?selector=role%3Dci&limit="), "{}", asked[0].path);
    assert!(asked[1].path.ends_with("&cursor=a%20b"), "{}", asked[1].path);
}

#[test]
fn the_token_goes_into_one_header_and_a_readable_file_is_told() {
    let hub = Fake::start(|_, _| Answer::Json(200, r#"{"items":[]}"#.to_owned()));
    let program = Program::new();
    let file = program.file("token", "cxt_canary\n");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("chmod");
    let program = program
        .with("CORTEX_HUB", hub.url())
        .with("CORTEX_TOKEN_FILE", file.display().to_string())
        .with("CORTEX_LOG", "trace");
    let ended = program.run(&["node", "ls"]);
    assert!(ended.stderr.contains("warning:") && ended.stderr.contains("chmod 600"), "{}", ended.stderr);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).expect("chmod");
    let ended = program.run(&["node", "ls"]);
    assert!(!ended.stderr.contains("warning:"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("canary"), "the token is in the log");
    for asked in hub.asked() {
        assert!(asked.head.contains("authorization: Bearer cxt_canary\r\n"), "{}", asked.head);
        assert!(!asked.path.contains("canary"));
    }
}

#[test]
fn a_node_that_is_not_there_gets_the_nearest_name() {
    let hub = Fake::start(|asked, _| {
        if asked.path.starts_with("/api/v1/nodes?") {
            return Answer::Json(200, format!(r#"{{"items":[{},{}]}}"#, node("web-1"), node("build-2")));
        }
        Answer::Json(404, problem("node_not_found", "There is no node `biuld-2`."))
    });
    let program = Program::new().with("CORTEX_HUB", hub.url());
    for arguments in
        [&["node", "get", "biuld-2"][..], &["exec", "biuld-2", "--", "true"], &["policy", "get", "biuld-2"]]
    {
        let ended = program.run(arguments);
        assert_eq!(ended.code, Some(3), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("build-2\n"), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn an_answer_of_something_else_is_no_panic() {
    for (status, body) in
        [(200, "<html>"), (200, "{}"), (502, "bad gateway"), (418, ""), (500, "{\"code\":1}")]
    {
        let hub = Fake::start(move |_, _| Answer::Json(status, body.to_owned()));
        let ended = Program::new().with("CORTEX_HUB", hub.url()).run(&["status", "--json"]);
        assert!(ended.code.is_some_and(|code| code != 0 && code != 101), "{status} {body}: {:?}", ended.code);
        assert!(ended.error()["hint"].as_str().is_some_and(|hint| !hint.is_empty()));
    }
}

#[test]
fn setting_a_policy_shows_the_difference_and_guards_against_a_change_in_between() {
    let policy = r#"{"node":"a","revision":7,"profile":"strict","mode":"strict","allow":[{"program":"id"}],"deny":[],"env":[],"timeout_ms_max":1000,"changed_at":"2026-01-01T00:00:00Z"}"#;
    let unknown = r#"{"code":"invalid_argument","message":"There is no profile `devv`.","hint":"Use one of: dev.","retryable":false,"request_id":"","docs":"/docs/errors/invalid_argument","type":"/docs/errors/invalid_argument","title":"","status":400}"#;
    let hub = Fake::start(move |asked, _| match asked.path.ends_with("/diff") {
        true if asked.body.contains("devv") => Answer::Json(400, unknown.to_owned()),
        true => Answer::Json(200, r#"{"lines":["! mode STRICT → PERMISSIVE: everything runs"]}"#.to_owned()),
        false => Answer::Json(200, policy.to_owned()),
    });
    let program = Program::new().with("CORTEX_HUB", hub.url());
    let ended = program.run(&["policy", "set", "a", "permissive"]);
    assert_eq!(ended.code, Some(2), "without --yes nothing is asked in a script");
    assert!(
        ended.stderr.contains("STRICT → PERMISSIVE") && ended.stderr.contains("--yes"),
        "{}",
        ended.stderr
    );
    let asks = hub.asked();
    let looks = asks.iter().all(|asked| asked.method == "GET" || asked.path.ends_with("/diff"));
    assert!(looks, "nothing was changed: {asks:?}");
    let ended = program.run(&["policy", "set", "a", "dev", "--yes"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let put = hub.asked().into_iter().find(|asked| asked.method == "PUT").expect("a change");
    assert!(put.head.contains("if-match: \"7\"") && put.body == r#"{"profile":"dev"}"#, "{put:?}");
    assert_eq!(program.run(&["policy", "set", "a", "devv", "--yes"]).code, Some(2));
}

#[test]
fn an_invite_with_json_is_the_object_of_the_contract_and_does_not_wait() {
    let created = r#"{"invite":"CXI1.x","id":"i","expires_at":"2026-01-01T00:00:00Z","command":"cortex join h:1 --invite-file FILE --name NAME"}"#;
    let hub = Fake::start(move |_, _| Answer::Json(201, created.to_owned()));
    let program = Program::new().with("CORTEX_HUB", hub.url());
    let ended = program.run(&["invite", "--json", "--label", "role=ci", "--profile", "dev", "--ttl", "1h"]);
    assert_eq!(ended.text().trim(), created);
    let body = hub.asked()[0].body.clone();
    assert_eq!(body, r#"{"labels":{"role":"ci"},"profile":"dev","ttl_ms":3600000}"#);
}

#[test]
fn a_token_that_was_not_made_leaves_no_file_in_its_place() {
    let hub = Fake::start(|_, _| Answer::Json(400, problem("invalid_argument", "no such right")));
    let program = Program::new().with("CORTEX_HUB", hub.url());
    let file = program.file("there", "").with_file_name("ci.token");
    for _ in 0..2 {
        let ended = program.run(&["token", "create", "ci", "--out", &file.display().to_string()]);
        assert!(ended.stderr.contains("no such right"), "{}", ended.stderr);
    }
    assert!(!file.exists());
}

#[test]
fn a_person_who_answers_sees_the_whole_command() {
    let argument = format!("{}; id", " true;".repeat(300));
    let question = serde_json::json!({
        "id": "0198a1c2-0000-7000-8000-000000000001", "standing": "pending",
        "run_id": "0198a1c2-0000-7000-8000-000000000002", "node": "build-2",
        "node_id": "0198a1c2-0000-7000-8000-000000000003", "caller": "token:agent",
        "argv": ["sh", "-c", argument], "cwd": null, "env_names": ["X"], "stdin": false, "timeout_ms": null,
        "reason": "why", "rule": "exec.allow", "notes": [], "answered_by": null, "note": null,
        "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-01T00:15:00Z", "answered_at": null,
        "env": {"X": argument}, "similar": []
    });
    let hub = Fake::start(move |_, _| Answer::Json(200, question.to_string()));
    let text = Program::new().with("CORTEX_HUB", hub.url()).run(&["consent", "show", "1"]).text();
    assert_eq!((text.matches("; id").count(), text.matches('…').count()), (2, 0), "{text}");
}

#[test]
fn a_folder_that_a_caller_named_does_not_command_the_terminal() {
    let run = serde_json::json!({
        "id": "0198a1c2-0000-7000-8000-000000000001", "node": "a", "node_id": "0198a1c2-0000-7000-8000-000000000002",
        "state": "failed", "argv": ["id"], "cwd": "/\u{1b}]0;title\u{7}", "timeout_ms": null, "stdin": false,
        "code": null, "signal": null, "caller": "token:ci", "policy_revision": 1, "sandbox": null,
        "accepted_at": "2026-01-01T00:00:00Z", "started_at": null, "ended_at": null, "duration_ms": null,
        "output_bytes": 0, "stdout_bytes": 0, "stderr_bytes": 0, "cancelled_by": null, "diagnostic": null, "consent": null
    });
    let hub = Fake::start(move |_, _| Answer::Json(200, run.to_string()));
    let text = Program::new().with("CORTEX_HUB", hub.url()).run(&["run", "get", "1"]).text();
    assert!(text.contains("title") && !text.contains(['\u{1b}', '\u{7}']), "{text:?}");
}
