//! `cortex exec`: exit codes, output, refusals.

use std::time::Duration;

use crate::world::hub;

#[test]
fn exit_codes_and_output_are_the_remote_ones() {
    let world = hub().open_node("a").start();
    let ended = world.cortex(&["exec", "a", "--", "echo", "hello; id", "$(id)"]).expect(0);
    assert_eq!(ended.text(), "hello; id $(id)\n", "no shell reads the arguments");
    world.cortex(&["exec", "a", "--", "false"]).expect(1);
    world.cortex(&["exec", "a", "--", "sh", "-c", "exit 101"]).expect(101);
    world.cortex(&["exec", "a", "--", "sh", "-c", "kill -9 $$"]).expect(137);
    let ended = world.cortex(&["exec", "a", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]).expect(3);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("out\n", "err\n"));
}

#[test]
fn r12_6_a_program_that_the_policy_does_not_name_is_denied_with_a_way_on() {
    let world = hub().node("a").start();
    let ended = world.cortex(&["exec", "a", "--", "cargo", "--version"]).expect(5);
    assert!(ended.stderr.starts_with("DENIED"), "{}", ended.stderr);
    assert!(ended.stderr.contains("cortex policy allow a cargo --for 1h"), "{}", ended.stderr);
    let ended = world.cortex(&["exec", "a", "--json", "--", "sh", "-c", "id"]).expect(5);
    assert_eq!(ended.value()["error"]["code"], "policy_denied");
    world.cortex(&["policy", "test", "a", "--", "seq", "3"]).expect(5);
    world.cortex(&["policy", "allow", "a", "seq", "--for", "1h", "--yes"]).expect(0);
    world.cortex(&["policy", "test", "a", "--", "seq", "3"]).expect(0);
    assert_eq!(world.cortex(&["exec", "a", "--", "seq", "3"]).expect(0).text(), "1\n2\n3\n");
    world.cortex(&["policy", "deny", "a", "seq"]).expect(0);
    world.cortex(&["exec", "a", "--", "seq", "3"]).expect(5);
}

#[test]
fn a_node_that_is_not_there_and_one_that_is_away_are_told_apart() {
    let mut world = hub().node("build-2").start();
    let ended = world.cortex(&["exec", "biuld-2", "--", "true"]).expect(3);
    assert!(ended.stderr.contains("build-2"), "the nearest name: {}", ended.stderr);
    world.stop_node("build-2");
    world.node_reaches("build-2", "offline", Duration::from_secs(5));
    let ended = world.cortex(&["exec", "build-2", "--json", "--", "true"]).expect(7);
    assert_eq!(ended.value()["error"]["code"], "node_offline");
    world.start_node("build-2");
    world.cortex(&["exec", "build-2", "--", "true"]).expect(0);
}

#[test]
fn a_token_that_is_unknown_or_may_not_is_status_4() {
    let world = hub().node("a").start();
    let wrong = world.path("wrong.token");
    std::fs::write(&wrong, "cxt_0000000000000000").expect("write a token");
    let wrong = wrong.display().to_string();
    world.cortex(&["status", "--token-file", &wrong]).expect(4);
    let viewer = world.path("viewer.token").display().to_string();
    world.cortex(&["token", "create", "looker", "--role", "viewer", "--out", &viewer]).expect(0);
    world.cortex(&["node", "ls", "--token-file", &viewer]).expect(0);
    let ended = world.cortex(&["exec", "a", "--token-file", &viewer, "--json", "--", "true"]).expect(4);
    assert_eq!(ended.value()["error"]["code"], "forbidden");
}

#[test]
fn several_nodes_run_at_once_and_each_line_names_its_node() {
    let world = hub().node("a").node("b").node("c").start();
    let ended = world.cortex(&["exec", "a,b,c", "--", "echo", "here"]).expect(0);
    let text = ended.text();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a │ here", "b │ here", "c │ here"]);
    assert_eq!(ended.stderr, "3 ok\n");
    let ended = world.cortex(&["exec", "a,nobody", "--", "true"]).expect(1);
    assert!(ended.stderr.contains("1 ok, 1 failed (nobody: node_not_found)"), "{}", ended.stderr);
    world.cortex(&["node", "label", "a", "role=ci"]).expect(0);
    world.cortex(&["node", "label", "c", "role=ci"]).expect(0);
    let ended = world.cortex(&["exec", "-l", "role=ci", "--json", "--", "true"]).expect(0);
    let exits = ended.lines().iter().filter(|line| line["type"] == "exit").count();
    assert_eq!(exits, 2);
}

#[test]
fn a_megabyte_that_is_no_text_arrives_exactly() {
    let world = hub().open_node("a").start();
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let file = world.path("bytes");
    std::fs::write(&file, &bytes).expect("write the file");
    let file = file.display().to_string();
    let ended = world.cortex(&["exec", "a", "--", "cat", &file]).expect(0);
    assert!(ended.stdout == bytes, "{} of {} bytes came", ended.stdout.len(), bytes.len());
    let run = world.cortex(&["run", "ls", "--json", "--limit", "1"]).expect(0).value()[0]["id"].clone();
    let logs = world.cortex(&["run", "logs", run.as_str().expect("an id")]).expect(0);
    assert!(logs.stdout == bytes, "the kept output is the same");
}

#[test]
fn standard_input_reaches_the_command_whole() {
    let world = hub().open_node("a").start();
    let input: Vec<u8> = (0..300_000_u32).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let ended = world.cortex_with_input(&["exec", "a", "-i", "--", "cat"], input.clone()).expect(0);
    assert!(ended.stdout == input, "{} of {} bytes came back", ended.stdout.len(), input.len());
    let ended = world.cortex_with_input(&["exec", "a", "-i", "--", "wc", "-c"], b"abc".to_vec()).expect(0);
    assert_eq!(ended.text().trim(), "3");
    // One that does not read its input ends all the same.
    world.cortex_with_input(&["exec", "a", "-i", "--", "true"], input).expect(0);
}

#[test]
fn a_run_beyond_its_time_is_ended_with_status_124() {
    let world = hub().open_node("a").start();
    let ended = world.cortex(&["exec", "a", "--timeout", "500ms", "--json", "--", "sleep", "60"]).expect(124);
    let lines = ended.lines();
    assert_eq!(lines.last().map(|line| line["state"].clone()), Some("timed_out".into()));
}

#[test]
fn the_json_of_exec_holds_what_the_contract_names() {
    let world = hub().node("a").start();
    let lines = world.cortex(&["exec", "a", "--json", "--", "echo", "x"]).expect(0).lines();
    let (end, output) = lines.split_last().expect("lines");
    assert!(!output.is_empty() && output.iter().all(|line| line["type"] == "output"), "{lines:?}");
    assert_eq!((output[0]["stream"].as_str(), output[0]["offset"].as_u64()), (Some("stdout"), Some(0)));
    for name in ["type", "run_id", "node", "state", "code", "signal", "duration_ms"] {
        assert!(end.get(name).is_some(), "{name} is missing in {end}");
    }
}
