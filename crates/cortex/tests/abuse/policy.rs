//! Rows 30 to 38: what STRICT lets through, and who may change it.

use serde_json::{Value, json};

use crate::support::{api, audited, code_of, http, others_go_on};
use crate::world::hub;

/// Every text that a shell would act on; `@` stands for the canary file.
const METAS: &[&str] = &[
    "; touch @",
    "&& touch @",
    "|| touch @",
    "| tee @",
    "$(touch @)",
    "`touch @`",
    "\ntouch @\n",
    "\r touch @",
    "> @",
    ">> @",
    "< /etc/passwd",
    "& touch @ &",
    "{a,b}",
    "~",
    "$IFS",
    "${HOME}",
    "*",
    "?",
    "!!",
    "'",
    "\"",
    "\\",
    "#",
    "<(touch @)",
    "；touch @",
    "%0atouch @",
    "\u{2028}touch @",
];

#[test]
fn a30_every_metacharacter_in_every_position_is_passed_as_it_is() {
    let world = hub().node("a").start();
    let canary = world.path("canary");
    for meta in METAS {
        let meta = meta.replace('@', &canary.display().to_string());
        for position in 0..3 {
            let mut arguments = ["x", "y", "z"];
            arguments[position] = &meta;
            let expected = arguments.join("|") + "|";
            let printed =
                world.cortex(&[&["exec", "a", "--", "printf", "%s|"], &arguments[..]].concat()).expect(0);
            assert_eq!(printed.text(), expected, "{meta:?} at {position}");
        }
        let echoed = world.cortex(&["exec", "a", "--", "echo", &meta]).expect(0).text();
        assert_eq!(echoed, format!("{meta}\n"));
        // As the program, or joined to it, it is no program that is allowed.
        for program in [meta.clone(), format!("echo{meta}"), format!("echo {meta}")] {
            let ended = world.cortex(&["exec", "a", "--json", "--", &program]).expect(5);
            assert_eq!(code_of(&ended), "policy_denied", "{program:?}");
        }
    }
    let nul = json!({"nodes": ["a"], "argv": ["echo", "a\u{0}b"]});
    let answer = api(&world, "POST", "/api/v1/runs", &nul);
    assert!(answer.text.contains("invalid_argument"), "{}", answer.text);
    assert!(!canary.exists(), "a shell has read it");
    // What has a slash and does not begin with one is a relative path.
    let refused = audited(&world, "exec.allow").len() + audited(&world, "exec.path").len();
    assert!(refused >= METAS.len() * 3);
}

/// The row names `too_complex`, for a shell whose text would be taken apart. None is: a text that
/// joins commands is one argument, or no program that is allowed, and beyond the bound of all
/// arguments it is `too_large`. It is never a question to a person.
#[test]
fn a31_joined_commands_are_one_argument_or_too_large() {
    let world = hub().node("a").start();
    let canary = world.path("canary");
    for count in [51, 1_000] {
        let joined = vec![format!("touch {}", canary.display()); count].join("; ");
        let ended = world.cortex(&["exec", "a", "--", "printf", "%s", &joined]);
        if joined.len() < cortex_core::limits::ARGV_BYTES_MAX - 100 {
            assert_eq!(ended.expect(0).text(), joined);
        } else {
            assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        }
        let denied = world.cortex(&[
            "exec",
            "a",
            "--json",
            "--",
            &format!("true; {}", vec!["true"; count].join("; ")),
        ]);
        assert_eq!(code_of(&denied.expect(5)), "policy_denied");
    }
    // The shell itself, asked to take them apart: it is not started however many there are.
    for count in [51, 1_000] {
        let joined = format!("touch {}; ", canary.display()).repeat(count);
        let denied = world.cortex(&["exec", "a", "--json", "--", "sh", "-c", &joined]);
        assert!(["policy_denied", "too_large"].contains(&code_of(&denied).as_str()), "{}", denied.text());
    }
    for joined in ["true; ".repeat(1_000_000), "true; ".repeat(30_000)] {
        let body = json!({"nodes": ["a"], "argv": ["echo", joined]});
        let answer = api(&world, "POST", "/api/v1/runs", &body);
        assert!(answer.text.contains("too_large"), "{} {:.300}", answer.status, answer.text);
    }
    assert!(!canary.exists());
    let runs = world.cortex(&["run", "ls", "--json"]).expect(0).value();
    assert!(runs.as_array().expect("a list").len() <= 2, "what was refused left no run");
    others_go_on(&world);
}

#[test]
fn a36_no_shell_is_there_to_know_a_builtin() {
    let world = hub().node("a").start();
    for builtin in [
        ".", ":", "[", "alias", "bash", "builtin", "cd", "command", "eval", "exec", "export", "set", "sh",
        "source", "trap", "umask",
    ] {
        let ended = world.cortex(&["exec", "a", "--json", "--", builtin, "id"]).expect(5);
        assert_eq!(code_of(&ended), "policy_denied", "{builtin}");
    }
    // A function by the environment, as shells import them, is not even a variable that may be set.
    let function = ["exec", "a", "--json", "--env", "BASH_FUNC_echo%%=() { id; }", "--", "echo", "x"];
    assert_eq!(code_of(&world.cortex(&function).expect(5)), "policy_denied");
    assert_eq!(audited(&world, "exec.allow").len(), 16);
    assert_eq!(audited(&world, "env.allow").len(), 1);
}

/// The neighbours of the row are held where they can be made: a file on the node's disk in
/// `changes.rs`, a row of the hub's store in `crates/hub/src/hub/tests/policies.rs`, a text of an unknown
/// version in `crates/wire/src/policy.rs`, a database that is down in `crates/hub/tests/nodes/links.rs`, a
/// node that holds none in `crates/core/tests/node_runs.rs`.
#[test]
fn a37_a_node_that_nobody_configured_is_strict() {
    let mut world = hub().start();
    let (_, file) = world.invite(&[]);
    let mut command = crate::world::program(&world.path(""));
    let data_dir = world.path("node-plain").display().to_string();
    command.args([
        "join",
        &world.hub().grpc,
        "--invite-file",
        &file.display().to_string(),
        "--name",
        "plain",
    ]);
    command.args(["--data-dir", &data_dir, "--no-start", "--json"]);
    let joined = crate::world::Process::start(&mut command, &world.path("plain.log"));
    joined.first_line();
    world.start_node("plain");
    let node = world.cortex(&["node", "get", "plain", "--json"]).expect(0).value();
    assert_eq!(node["policy_mode"], "strict");
    for program in ["sh", "env", "cat", "/bin/echo", "./echo", "python3", "git", "xargs"] {
        assert_eq!(
            code_of(&world.cortex(&["exec", "plain", "--json", "--", program]).expect(5)),
            "policy_denied"
        );
    }
    for profile in ["STRICT", "open", "", "permissive "] {
        let answer = api(&world, "PUT", "/api/v1/policies/plain", &json!({ "profile": profile }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{profile:?}");
        let answer = api(&world, "POST", "/api/v1/invites", &json!({ "profile": profile }));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_argument"), "{profile:?}");
    }
    drop(joined);
}

#[test]
fn a38_a_policy_is_loosened_by_an_administrator_only() {
    let world = hub().node("a").start();
    let before = world.cortex(&["policy", "get", "a", "--json"]).expect(0).value();
    for role in ["viewer", "operator"] {
        let file = world.path(role).display().to_string();
        world.cortex(&["token", "create", role, "--role", role, "--out", &file]).expect(0);
        let bearer = std::fs::read_to_string(&file).expect("the token");
        let bearer = format!("authorization: Bearer {}", bearer.trim());
        let requests: [(&str, &str, Value); 4] = [
            ("PUT", "/api/v1/policies/a", json!({"profile": "permissive"})),
            ("POST", "/api/v1/policies/a/allow", json!({"program": "sh"})),
            ("POST", "/api/v1/policies/a/deny", json!({"program": "true"})),
            ("POST", "/api/v1/invites", json!({"profile": "permissive"})),
        ];
        for (method, path, body) in requests {
            let headers = [bearer.as_str(), "content-type: application/json"];
            let answer = http(&world, method, path, &headers, body.to_string().as_bytes());
            assert_eq!((answer.status, answer.code().as_str()), (403, "forbidden"), "{role} {method} {path}");
        }
    }
    let rows = audited(&world, "forbidden");
    assert_eq!(rows.len(), 8);
    assert!(rows.iter().all(|row| row["actor"] == "token:viewer" || row["actor"] == "token:operator"));
    assert_eq!(world.cortex(&["policy", "get", "a", "--json"]).expect(0).value(), before, "nothing changed");
    others_go_on(&world);
}
