//! `cortex workspace wait` against a hub of a few lines: who is waited for is one line that changes, on a
//! terminal only.

use std::process::Command;

use serde_json::{Value, json};

use super::fake::{Answer, Fake};
use super::program::Program;

fn member(node: &str, state: &str) -> Value {
    json!({"id": node, "node": node, "path": "/srv/مشروع", "role": "follower", "state": state, "revision": 2,
        "intent": 3, "watch": "events", "conflicts": 0})
}

/// A workspace with one member that is there, and one that comes after some looks.
fn hub() -> Fake {
    Fake::start(|asked, before| {
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/api/v1/workspaces/notes"));
        let state = ["joining", "syncing", "syncing"].get(before).unwrap_or(&"in_sync");
        let view = json!({"id": "w", "name": "notes", "mode": "hub", "revision": 3, "root": "", "rules": {},
            "bytes_max": 1, "members": [member("a", "in_sync"), member("b", state)], "owner": "admin",
            "created_at": ""});
        Answer::Json(200, view.to_string())
    })
}

/// What a terminal shows: `script` gives what it starts one.
fn on_a_terminal(arguments: &str) -> String {
    let hub = hub();
    let program = Program::new().with("CORTEX_HUB", hub.url()).with("TERM", "xterm");
    let command = program.command(&[]);
    let line = format!("{} {arguments}", command.get_program().to_str().expect("text"));
    let mut script = Command::new("script");
    script.env_clear().args(["-qec", &line, "/dev/null"]).stdin(std::process::Stdio::null());
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let shown = script.output().expect("`script` of util-linux");
    assert!(shown.status.success(), "{shown:?}");
    String::from_utf8(shown.stdout).expect("text")
}

#[test]
fn on_a_terminal_one_line_says_who_is_waited_for() {
    let shown = on_a_terminal("workspace wait notes");
    for line in ["joining", "syncing"] {
        let waits = format!("waiting for 1 of 2 members: b:/srv/مشروع is {line}");
        assert!(shown.contains(&waits), "{shown:?}");
    }
    assert!(shown.ends_with("Workspace notes is in sync at revision 3.\r\n"), "{shown:?}");
    assert_eq!(shown.matches('\n').count(), 1, "it is one line that changes: {shown:?}");
}

#[test]
fn without_a_terminal_or_with_json_nothing_is_said_before_the_end() {
    let hub = hub();
    let ended = Program::new().with("CORTEX_HUB", hub.url()).run(&["workspace", "wait", "notes"]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), ""));
    assert_eq!(ended.stderr, "Workspace notes is in sync at revision 3.\n");
    assert_eq!(hub.asked().len(), 4);
    let shown = on_a_terminal("workspace wait notes --json");
    let view: Value = serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown:?}"));
    assert_eq!(view["members"][1]["state"], "in_sync");
}
