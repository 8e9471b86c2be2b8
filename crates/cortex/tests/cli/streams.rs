//! Streams of runs: exit status, exact bytes, several nodes, and a hub that goes away.

use super::fake::{Answer, Asked, Fake};
use super::program::Program;

const RUN: &str = "0198a1c2-0000-7000-8000-00000000000a";

fn accepted(run: &str, node: &str) -> String {
    format!("{{\"type\":\"accepted\",\"run_id\":\"{run}\",\"node\":\"{node}\"}}\n")
}

fn output(run: &str, node: &str, stream: &str, offset: u64, text: &str) -> String {
    let data = serde_json::to_string(text).expect("text");
    format!(
        "{{\"type\":\"output\",\"run_id\":\"{run}\",\"node\":\"{node}\",\"stream\":\"{stream}\",\"offset\":{offset},\"data\":{data}}}\n"
    )
}

fn exit(run: &str, node: &str, state: &str, code: &str, signal: &str) -> String {
    format!(
        "{{\"type\":\"exit\",\"run_id\":\"{run}\",\"node\":\"{node}\",\"state\":\"{state}\",\"code\":{code},\"signal\":{signal},\"duration_ms\":5}}\n"
    )
}

fn program(hub: &Fake) -> Program {
    Program::new().with("CORTEX_HUB", hub.url())
}

#[test]
fn the_remote_exit_status_and_streams_are_passed_on() {
    for (state, code, signal, status) in [
        ("exited", "0", "null", 0),
        ("exited", "101", "null", 101),
        ("exited", "null", "9", 137),
        ("timed_out", "null", "15", 124),
        ("denied", "null", "null", 5),
        ("lost", "null", "null", 255),
        ("failed", "null", "null", 1),
    ] {
        let lines = vec![
            accepted(RUN, "a"),
            output(RUN, "a", "stdout", 0, "out\n"),
            output(RUN, "a", "stderr", 0, "err\n"),
            exit(RUN, "a", state, code, signal),
        ];
        let hub = Fake::start(move |_, _| Answer::Lines(lines.clone()));
        let ended = program(&hub).run(&["exec", "a", "--", "x"]);
        assert_eq!(ended.code, Some(status), "{state} {code} {signal}");
        // An end that no exit code of the program tells is said in words.
        let said =
            if state == "exited" { String::new() } else { format!("a: {}.\n", state.replace('_', " ")) };
        assert_eq!((ended.text(), ended.stderr), ("out\n".to_owned(), format!("err\n{said}")));
    }
}

#[test]
fn bytes_that_are_no_text_arrive_exactly_and_repeats_are_cut_off() {
    let base64 = format!(
        "{{\"type\":\"output\",\"run_id\":\"{RUN}\",\"node\":\"a\",\"stream\":\"stdout\",\"offset\":3,\"data_base64\":\"/wAK\"}}\n"
    );
    let lines = vec![
        accepted(RUN, "a"),
        output(RUN, "a", "stdout", 0, "abc"),
        output(RUN, "a", "stdout", 1, "bc"),
        base64.clone(),
        base64,
        exit(RUN, "a", "exited", "0", "null"),
    ];
    let hub = Fake::start(move |_, _| Answer::Lines(lines.clone()));
    assert_eq!(program(&hub).run(&["exec", "a", "--", "x"]).stdout, b"abc\xff\0\n");
}

#[test]
fn json_is_output_lines_and_last_the_exit() {
    let lines =
        vec![accepted(RUN, "a"), output(RUN, "a", "stdout", 0, "x"), exit(RUN, "a", "exited", "3", "null")];
    let hub = Fake::start(move |_, _| Answer::Lines(lines.clone()));
    let ended = program(&hub).run(&["exec", "a", "--json", "--", "x"]);
    let lines = ended.lines();
    assert_eq!(ended.code, Some(3));
    assert_eq!(lines.len(), 2, "{}", ended.text());
    assert_eq!((lines[0]["type"].as_str(), lines[0]["data"].as_str()), (Some("output"), Some("x")));
    let end = &lines[1];
    assert_eq!(
        (end["type"].as_str(), end["run_id"].as_str(), end["node"].as_str()),
        (Some("exit"), Some(RUN), Some("a"))
    );
    assert_eq!(
        (end["code"].as_i64(), end["signal"].is_null(), end["duration_ms"].as_u64()),
        (Some(3), true, Some(5))
    );
}

#[test]
fn several_nodes_are_told_apart_and_summed_up() {
    let lines = vec![
        accepted("1", "a"),
        accepted("2", "build-2"),
        output("1", "a", "stdout", 0, "one\ntw"),
        output("2", "build-2", "stdout", 0, "other\n"),
        output("1", "a", "stdout", 6, "o\nrest"),
        exit("1", "a", "exited", "0", "null"),
        exit("2", "build-2", "exited", "101", "null"),
    ];
    let hub = Fake::start(move |_, _| Answer::Lines(lines.clone()));
    let ended = program(&hub).run(&["exec", "a,build-2", "--", "x"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.text(), "a │ one\nbuild-2 │ other\na │ two\na │ rest\n");
    assert_eq!(ended.stderr, "1 ok, 1 failed (build-2: exit 101)\n");
}

#[test]
fn one_refused_node_is_the_commands_refusal() {
    let refused = "{\"type\":\"refused\",\"node\":\"a\",\"error\":{\"code\":\"policy_denied\",\"message\":\"a is STRICT and its policy does not allow `cargo` (rule exec.allow).\",\"hint\":\"Use id.\",\"retryable\":false,\"docs\":\"/docs/errors/policy_denied\",\"details\":{\"rule\":\"exec.allow\"}}}\n";
    let hub = Fake::start(move |_, _| Answer::Lines(vec![refused.to_owned()]));
    let ended = program(&hub).run(&["exec", "a", "--", "cargo", "test"]);
    assert_eq!(ended.code, Some(5));
    assert!(ended.stderr.starts_with("DENIED"), "{}", ended.stderr);
    assert!(ended.stderr.contains("cortex policy allow a cargo --for 1h"), "{}", ended.stderr);
    assert!(ended.stderr.contains("cortex policy set a dev"), "{}", ended.stderr);
    let ended = program(&hub).run(&["exec", "a", "--json", "--", "cargo"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (Some(5), Some("policy_denied")));
}

#[test]
fn a_stream_that_breaks_is_taken_up_where_it_stopped() {
    let hub = Fake::start(|asked: &Asked, before| {
        if asked.method == "POST" {
            return Answer::Broken(vec![
                accepted(RUN, "a"),
                output(RUN, "a", "stdout", 0, "1\n2\n"),
                output(RUN, "a", "stderr", 0, "e\n"),
            ]);
        }
        match before {
            1 => Answer::Closed,
            2 => Answer::Broken(vec![output(RUN, "a", "stdout", 4, "3\n")]),
            _ => Answer::Lines(vec![
                output(RUN, "a", "stdout", 2, "2\n3\n4\n"),
                exit(RUN, "a", "exited", "0", "null"),
            ]),
        }
    });
    let ended = program(&hub).run(&["exec", "a", "--", "count"]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "1\n2\n3\n4\n"), "{}", ended.stderr);
    assert!(ended.stderr.contains("Connecting again"), "{}", ended.stderr);
    let asked = hub.asked();
    let from: Vec<&str> = asked[1..].iter().map(|a| a.path.split('?').nth(1).unwrap_or("")).collect();
    assert_eq!(from, ["from=6&follow=true", "from=6&follow=true", "from=8&follow=true"]);
    assert_eq!(asked.iter().filter(|a| a.method == "POST").count(), 1, "the command is sent once");
}

#[test]
fn output_that_the_hub_lost_is_marked_and_never_silent() {
    let lost =
        format!("{{\"type\":\"lost\",\"run_id\":\"{RUN}\",\"node\":\"a\",\"stdout\":9,\"stderr\":0}}\n");
    let lines = vec![
        accepted(RUN, "a"),
        output(RUN, "a", "stdout", 0, "ab"),
        lost,
        output(RUN, "a", "stdout", 9, "z"),
        exit(RUN, "a", "exited", "0", "null"),
    ];
    let hub = Fake::start(move |_, _| Answer::Lines(lines.clone()));
    let ended = program(&hub).run(&["exec", "a", "--", "x"]);
    assert_eq!(ended.text(), "abz");
    assert!(ended.stderr.contains("output is missing"), "{}", ended.stderr);
    let types: Vec<String> = program(&hub)
        .run(&["exec", "a", "--json", "--", "x"])
        .lines()
        .iter()
        .map(|line| line["type"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(types, ["output", "lost", "output", "exit"]);
}

#[test]
fn a_hub_that_stays_away_is_255_with_the_way_back() {
    let hub = Fake::start(|asked: &Asked, _| {
        if asked.method == "POST" { Answer::Broken(vec![accepted(RUN, "a")]) } else { Answer::Closed }
    });
    let ended = program(&hub).with("CORTEX_CLIENT__RECONNECT", "500ms").run(&["exec", "a", "--", "x"]);
    assert_eq!(ended.code, Some(255), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cortex run logs -f {RUN}")), "{}", ended.stderr);
}

#[test]
fn standard_input_is_sent_in_pieces_with_offsets_and_an_end() {
    let hub = Fake::start(|asked: &Asked, _| {
        if asked.path == "/api/v1/runs" {
            return Answer::Lines(vec![accepted(RUN, "a")]);
        }
        if asked.path.contains("/stdin") {
            let offset: u64 = asked
                .path
                .split("offset=")
                .nth(1)
                .and_then(|t| t.split('&').next()?.parse().ok())
                .unwrap_or(0);
            return Answer::Json(200, format!("{{\"upto\":{}}}", offset + asked.body.len() as u64));
        }
        // The run ends once its standard input did: the follower asks until then.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Answer::Lines(vec![exit(RUN, "a", "exited", "0", "null")])
    });
    let input = "x".repeat(100_000);
    let ended = program(&hub).run_with_input(&["exec", "a", "-i", "--", "cat"], input.as_bytes());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let pieces: Vec<Asked> = hub.asked().into_iter().filter(|a| a.path.contains("/stdin")).collect();
    let sent: usize = pieces.iter().map(|piece| piece.body.len()).sum();
    assert_eq!(sent, input.len());
    assert!(
        pieces.last().is_some_and(|last| last.path.ends_with("offset=100000&eof=true")),
        "{:?}",
        pieces.last()
    );
}

/// A run as it is shown, with so much output.
fn view(state: &str, stdout: u64, stderr: u64) -> String {
    let bytes = stdout + stderr;
    format!(
        "{{\"id\":\"{RUN}\",\"node\":\"a\",\"node_id\":\"n\",\"state\":\"{state}\",\"argv\":[\"x\"],\"cwd\":null,\"code\":null,\"signal\":null,\"caller\":\"token:admin\",\"policy_revision\":1,\"accepted_at\":\"2026-01-01T00:00:00Z\",\"started_at\":null,\"ended_at\":null,\"duration_ms\":null,\"output_bytes\":{bytes},\"stdout_bytes\":{stdout},\"stderr_bytes\":{stderr},\"cancelled_by\":null,\"diagnostic\":null}}"
    )
}

/// Where a request for bytes begins, and of which stream.
fn wanted(asked: &Asked) -> (String, u64) {
    let value = |name: &str| {
        let query = asked.path.split('?').nth(1).unwrap_or_default();
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    };
    (value("stream"), value("from").parse().unwrap_or(0))
}

#[test]
fn followed_bytes_that_break_off_go_on_at_their_offset_each_stream_by_itself() {
    let hub = Fake::start(|asked: &Asked, before| {
        if !asked.path.contains("/output") {
            return Answer::Json(200, view(if before == 0 { "running" } else { "exited" }, 6, 4));
        }
        assert!(asked.head.contains("application/octet-stream"), "{}", asked.head);
        match wanted(asked) {
            (stream, 0) if stream == "stdout" => Answer::Broken(vec!["1\n2".to_owned()]),
            // This one ends as if it were whole: its hub was stopped.
            (stream, 3) if stream == "stdout" => Answer::Lines(vec!["\n".to_owned()]),
            (stream, 4) if stream == "stdout" => Answer::Lines(vec!["3\n".to_owned()]),
            (stream, 0) if stream == "stderr" => Answer::Broken(vec!["ab".to_owned()]),
            (stream, 2) if stream == "stderr" => Answer::Lines(vec!["c\n".to_owned()]),
            other => panic!("nobody asks for {other:?}"),
        }
    });
    let ended = program(&hub).run(&["run", "logs", "-f", RUN]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "1\n2\n3\n"), "{}", ended.stderr);
    assert_eq!(ended.stderr, "abc\n");
    let ended = program(&hub).run(&["run", "logs", "-f", "--stream", "stderr", RUN]);
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), ("", "abc\n"));
}

#[test]
fn bytes_that_the_hub_lost_are_told_and_what_follows_is_shown() {
    let hub = Fake::start(|asked: &Asked, _| {
        if !asked.path.contains("/output") {
            return Answer::Json(200, view("exited", 9, 0));
        }
        if asked.head.contains("application/x-ndjson") {
            let lost = format!(
                "{{\"type\":\"lost\",\"run_id\":\"{RUN}\",\"node\":\"a\",\"stdout\":8,\"stderr\":0}}\n"
            );
            let (last, end) = (output(RUN, "a", "stdout", 8, "z"), exit(RUN, "a", "exited", "0", "null"));
            return Answer::Lines(vec![lost, last, end]);
        }
        match wanted(asked) {
            (stream, 0) if stream == "stdout" => Answer::Broken(vec!["ab".to_owned()]),
            (stream, 2) if stream == "stdout" => Answer::Broken(Vec::new()),
            (_, from) => {
                assert_eq!(from, 0);
                Answer::Lines(Vec::new())
            }
        }
    });
    let ended = program(&hub).run(&["run", "logs", RUN]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "abz"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches("output is missing").count(), 1, "{}", ended.stderr);
}

#[test]
fn a_detached_run_prints_its_id() {
    let view = view("queued", 0, 0);
    let hub = Fake::start(move |_, _| Answer::Json(202, format!("{{\"runs\":[{view}],\"refused\":[]}}")));
    let ended = program(&hub).run(&["exec", "a", "--detach", "--json", "--", "x"]);
    assert_eq!(ended.text(), accepted(RUN, "a"));
    assert_eq!(program(&hub).run(&["exec", "a", "--detach", "--", "x"]).text(), format!("{RUN}\n"));
    let asked = hub.asked();
    assert!(asked[0].head.contains("idempotency-key: "), "{}", asked[0].head);
}

#[test]
fn the_first_interrupt_detaches_and_says_how_to_look_again() {
    let hub = Fake::start(|asked: &Asked, _| {
        if asked.method == "POST" {
            return Answer::Lines(vec![accepted(RUN, "a"), output(RUN, "a", "stdout", 0, "begun\n")]);
        }
        std::thread::sleep(std::time::Duration::from_secs(20));
        Answer::Closed
    });
    let program = program(&hub);
    let mut child = program.command(&["exec", "a", "--", "x"]).spawn().expect("start");
    let mut begun = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut begun).expect("output comes");
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal our child");
    let output = child.wait_with_output().expect("wait");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("Detached") && stderr.contains(&format!("cortex run logs -f {RUN}")), "{stderr}");
}

#[test]
fn a_command_whose_answer_was_lost_is_sent_again_under_the_same_key() {
    let hub = Fake::start(|_, before| {
        if before < 2 {
            return Answer::Closed;
        }
        Answer::Lines(vec![accepted(RUN, "a"), exit(RUN, "a", "exited", "0", "null")])
    });
    let ended = program(&hub).run(&["exec", "a", "--", "x"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let key = |asked: &Asked| {
        asked.head.lines().find(|line| line.starts_with("idempotency-key")).map(str::to_owned)
    };
    let asked = hub.asked();
    assert_eq!(asked.len(), 3);
    assert!(key(&asked[0]).is_some() && asked.iter().all(|again| key(again) == key(&asked[0])));
}
