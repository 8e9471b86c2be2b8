//! Help, usage, configuration and secrets: what needs no hub at all.

use super::program::Program;

/// Every command of UX.md that this version has.
const COMMANDS: &[&[&str]] = &[
    &["up"],
    &["hub", "start"],
    &["node", "start"],
    &["node", "ls"],
    &["node", "get"],
    &["node", "label"],
    &["node", "rename"],
    &["node", "rm"],
    &["join"],
    &["invite"],
    &["invite", "ls"],
    &["invite", "revoke"],
    &["exec"],
    &["run", "ls"],
    &["run", "get"],
    &["run", "logs"],
    &["run", "cancel"],
    &["run", "rerun"],
    &["fs", "ls"],
    &["fs", "cat"],
    &["fs", "stat"],
    &["fs", "find"],
    &["fs", "grep"],
    &["fs", "write"],
    &["fs", "edit"],
    &["fs", "mkdir"],
    &["fs", "mv"],
    &["fs", "cp"],
    &["fs", "rm"],
    &["push"],
    &["pull"],
    &["transfer", "ls"],
    &["transfer", "show"],
    &["transfer", "cancel"],
    &["policy", "ls"],
    &["policy", "get"],
    &["policy", "set"],
    &["policy", "allow"],
    &["policy", "deny"],
    &["policy", "diff"],
    &["policy", "history"],
    &["policy", "rollback"],
    &["policy", "profile"],
    &["policy", "profile", "ls"],
    &["policy", "profile", "get"],
    &["policy", "profile", "put"],
    &["policy", "profile", "rm"],
    &["policy", "test"],
    &["token", "create"],
    &["token", "ls"],
    &["token", "revoke"],
    &["user", "add"],
    &["user", "ls"],
    &["user", "rm"],
    &["user", "passwd"],
    &["user", "groups"],
    &["user", "grant"],
    &["user", "ungrant"],
    &["user", "grants"],
    &["login"],
    &["logout"],
    &["audit", "ls"],
    &["audit", "get"],
    &["audit", "export"],
    &["status"],
    &["config", "show"],
    &["config", "check"],
    &["completions"],
    &["version"],
];

#[test]
fn every_commands_help_opens_with_an_example_and_has_no_escape_codes() {
    let program = Program::new();
    for command in COMMANDS {
        let ended = program.run(&[*command, &["--help"]].concat());
        let text = ended.text();
        assert_eq!(ended.code, Some(0), "{command:?}: {}", ended.stderr);
        assert!(text.starts_with("Example"), "{command:?} opens with {:?}", text.lines().next());
        assert!(text.contains(&format!("cortex {}", command.join(" "))), "{command:?}");
        assert!(!text.contains('\x1b'), "{command:?} writes escape codes into a pipe");
    }
}

#[test]
fn wrong_use_is_status_2_on_standard_error_with_a_hint() {
    let program = Program::new();
    for arguments in [
        &["exec", "a"][..],
        &["exec", "--", "true"],
        &["exec", "a", "-l", "role=ci", "--", "true"],
        &["exec", "a", "--timeout", "10", "--", "true"],
        &["exec", "a", "--env", "X", "--", "true"],
        &["exec", "a,b", "-i", "--", "cat"],
        &["nonsense"],
        &["node", "label", "a"],
        &["run", "logs", "x", "--stream", "both"],
        &["join", "hub", "--invite-file", "x"],
        &["fs", "ls", "/srv"],
        &["fs", "ls", "a:srv"],
        &["fs", "ls", "a,b:/srv"],
        &["fs", "ls", "a:/srv", "--stream"],
        &["fs", "cat", "a:/x", "--lines", "0-3"],
        &["fs", "cat", "a:/x", "--bytes", "9-5"],
        &["fs", "cat", "a:/x", "--lines", "1-2", "--bytes", "1-2"],
        &["fs", "write", "a:/x", "--create", "--append"],
        &["fs", "write", "a:/x", "--if-match", "abc"],
        &["fs", "write", "a:/x", "--mode", "rw"],
        &["fs", "write", "a:/x", "/nonexistent"],
        &["fs", "write", "a:/x", "/"],
        &["fs", "edit", "a:/x"],
        &["fs", "edit", "a:/x", "--old", "x"],
        &["fs", "edit", "a:/x", "--edits", "/dev/null"],
        &["fs", "edit", "a:/x", "--edits", "f", "--old", "x", "--new", "y"],
        &["fs", "mv", "a:/x", "b:/x"],
        &["fs", "rm", "a:/x", "-r"],
        &["fs", "find", "a:/x", "--type", "z"],
        &["fs", "find", "a:/x", "--size", "+many"],
        &["policy", "test", "a", "--file", "write"],
        &["policy", "test", "a", "--file", "write:/x", "--", "id"],
        &["policy", "test", "a", "--to", "/x", "--", "id"],
        &["policy", "test", "a"],
    ] {
        let ended = program.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "{arguments:?} wrote a result");
        assert!(ended.stderr.contains("hint:"), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn wrong_use_with_json_is_the_error_object_on_standard_output() {
    let error = Program::new().run(&["exec", "a", "--timeout", "10", "--json", "--", "true"]).error();
    assert_eq!(error["code"], "invalid_argument");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("90s")), "{error}");
    assert_eq!(error["docs"], "/docs/errors/invalid_argument");
    assert_eq!(error["retryable"], false);
}

#[test]
fn a_token_or_invite_as_an_argument_is_refused_and_not_repeated() {
    let program = Program::new();
    for arguments in [
        &["status", "--token", "cxt_canary"][..],
        &["status", "--token=cxt_canary"],
        &["join", "127.0.0.1:1", "--invite-file", "CXI1.canary", "--name", "a"],
        &["join", "CXI1.canary"],
        &["node", "ls", "cxt_canary"],
    ] {
        let ended = program.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        let all = ended.text() + &ended.stderr;
        assert!(!all.contains("canary"), "{arguments:?} repeats the secret: {all}");
        assert!(all.contains("file"), "the hint names the way: {all}");
    }
}

#[test]
fn what_widens_rights_or_destroys_needs_yes_without_a_terminal() {
    let program = Program::new().with("CORTEX_HUB", "http://127.0.0.1:9");
    for arguments in
        [&["policy", "allow", "a", "cargo"][..], &["node", "rm", "a"], &["fs", "rm", "a:/x", "-r"]]
    {
        let ended = program.run(arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("--yes"), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn an_unknown_key_is_status_64_and_the_nearest_is_named() {
    let program = Program::new();
    let file = program.file("cortex.toml", "[hub]\nhtpp = \"127.0.0.1:7440\"\n");
    let ended = program.run(&["config", "check", "--config", &file.display().to_string()]);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(ended.stderr.contains("hub.htpp") && ended.stderr.contains("`hub.http`"), "{}", ended.stderr);
    let ended = Program::new().with("CORTEX_HUB__DATADIR", "/x").run(&["status", "--json"]);
    assert_eq!((ended.code, ended.error()["details"]["nearest"].as_str()), (Some(64), Some("hub.data_dir")));
}

#[test]
fn a_bad_value_names_its_key_and_its_source() {
    let program = Program::new().with("CORTEX_HUB__GRPC", "7441");
    let ended = program.run(&["hub", "start"]);
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("hub.grpc") && ended.stderr.contains("CORTEX_HUB__GRPC"),
        "{}",
        ended.stderr
    );
}

#[test]
fn flags_go_before_the_environment_before_files_before_defaults() {
    let program = Program::new().with("CORTEX_NODE__DATA_DIR", "/from-environment");
    program.file(
        ".config/cortex/cortex.toml",
        "[node]\ndata_dir = \"/from-file\"\n[hub]\nhttp = \"127.0.0.1:1\"\n",
    );
    program.file(".config/cortex/conf.d/10.toml", "[hub]\nhttp = \"127.0.0.1:2\"\n");
    let ended = program.run(&["config", "show", "--json", "--hub-url", "http://127.0.0.1:3"]);
    let rows = &ended.lines()[0];
    let of = |key: &str| {
        let row =
            rows.as_array().and_then(|rows| rows.iter().find(|row| row["key"] == key)).expect("the key");
        (
            row["value"].as_str().unwrap_or_default().to_owned(),
            row["from"].as_str().unwrap_or_default().to_owned(),
        )
    };
    assert_eq!(of("node.data_dir"), ("/from-environment".into(), "environment CORTEX_NODE__DATA_DIR".into()));
    assert!(
        of("hub.http").0 == "127.0.0.1:2" && of("hub.http").1.ends_with("conf.d/10.toml"),
        "{:?}",
        of("hub.http")
    );
    assert_eq!(of("client.hub"), ("http://127.0.0.1:3".into(), "flag --hub-url".into()));
    assert_eq!(of("hub.grpc").1, "default");
}

#[test]
fn an_invite_that_cannot_be_one_has_its_own_code_and_exit_status() {
    let program = Program::new();
    let whole = format!("CXI1.{}.0198a1c2-0000-7000-8000-000000000000.{}", "a".repeat(64), "b".repeat(64));
    for (input, code) in [
        (whole[..100].to_owned(), "invite_malformed"),
        (whole[..whole.len() - 3].to_owned(), "invite_malformed"),
        (String::new(), "invite_malformed"),
        ("x".repeat(1 << 20), "too_large"),
    ] {
        let arguments = ["join", "127.0.0.1:9", "--invite-file", "-", "--name", "a", "--json"];
        let ended = program.run_with_input(&arguments, input.as_bytes());
        assert_eq!((ended.error()["code"].as_str(), ended.code), (Some(code), Some(2)), "{}", input.len());
        assert!(!ended.text().contains(&"b".repeat(20)), "the secret is not repeated");
    }
}

#[test]
fn a_hub_that_is_not_there_is_named_with_what_to_do() {
    let program = Program::new().with("CORTEX_HUB", "http://127.0.0.1:9");
    let ended = program.run(&["status", "--json"]);
    assert_eq!((ended.error()["code"].as_str(), ended.code), (Some("hub_unreachable"), Some(1)));
    let ended = program.run(&["exec", "a", "--", "true"]);
    assert_eq!(ended.code, Some(255), "for exec it is the transport: {}", ended.stderr);
    assert!(
        ended.stderr.contains("127.0.0.1:9") && ended.stderr.contains("cortex hub start"),
        "{}",
        ended.stderr
    );
}

#[test]
fn https_is_refused_plainly() {
    let ended = Program::new().with("CORTEX_HUB", "https://hub.lan").run(&["status"]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("HTTPS yet"), "{}", ended.stderr);
}

#[test]
fn a_named_token_file_that_is_missing_is_an_authentication_error() {
    let program = Program::new().with("CORTEX_TOKEN_FILE", "/nonexistent/token");
    let ended = program.run(&["status", "--json"]);
    assert_eq!((ended.error()["code"].as_str(), ended.code), (Some("unauthenticated"), Some(4)));
}

#[test]
fn the_version_and_completions_are_results() {
    let program = Program::new();
    assert!(program.run(&["version"]).text().starts_with(&format!("cortex {}", env!("CARGO_PKG_VERSION"))));
    assert_eq!(program.run(&["version", "--json"]).lines()[0]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(program.run(&["--version"]).code, Some(0));
    for shell in ["bash", "zsh", "fish"] {
        let ended = program.run(&["completions", shell]);
        assert!(
            ended.code == Some(0) && ["policy", "grep"].iter().all(|word| ended.text().contains(word)),
            "{shell}"
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let program = Program::new();
    let mut child = program.command(&["completions", "bash"]).spawn().expect("start");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.success(), "{:?}", output.status);
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_command_that_is_not_complete_shows_its_help_and_is_wrong_use() {
    for arguments in [&[][..], &["node"], &["policy"]] {
        let ended = Program::new().run(arguments);
        assert_eq!((ended.code, ended.text().as_str()), (Some(2), ""), "{arguments:?}");
        assert!(
            ended.stderr.starts_with("Example") && ended.stderr.contains("\nCommands:\n  "),
            "{}",
            ended.stderr
        );
        let error = Program::new().run(&[arguments, &["--json"]].concat()).error();
        assert_eq!(error["code"], "invalid_argument", "{arguments:?}");
    }
}

#[test]
fn an_export_that_is_broken_is_one_object_and_a_failure() {
    let ended = Program::new().run_with_input(&["audit", "verify", "--file", "-", "--json"], b"{}\n");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let lines = ended.lines();
    assert_eq!((lines.len(), &lines[0]["ok"]), (1, &serde_json::Value::Bool(false)), "{lines:?}");
}
