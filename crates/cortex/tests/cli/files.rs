//! Commands on files: pages that are joined, content that comes in parts or breaks off, and what a hub that
//! refuses early is heard to say.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use super::fake::{Answer, Fake};
use super::program::Program;

const ETAG: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

fn program(hub: &Fake) -> Program {
    Program::new().with("CORTEX_HUB", hub.url())
}

fn problem(code: &str) -> String {
    format!(
        r#"{{"type":"/docs/errors/{code}","title":"x","status":400,"code":"{code}","message":"why","hint":"Do this.","retryable":false,"request_id":"r-1","docs":"/docs/errors/{code}"}}"#
    )
}

fn entry(name: &str) -> String {
    format!(
        r#"{{"name":"{name}","type":"file","size":3,"mode":"0644","mtime":"2026-01-01T00:00:00.000Z","uid":0,"gid":0,"links":1}}"#
    )
}

fn page(names: &[&str], next: Option<&str>) -> String {
    let items = names.iter().map(|name| entry(name)).collect::<Vec<_>>().join(",");
    let next = next.map(|next| format!(r#""next_cursor":"{next}","#)).unwrap_or_default();
    format!(
        r#"{{"items":[{items}],{next}"searched":1,"skipped":{{"unreadable":1,"binary":0,"too_large":0,"ignored":4,"unsupported":0}},"fresh":{{"from":"node","verified_at":"2026-01-01T00:00:00Z"}}}}"#
    )
}

/// An answer of bytes with these headers.
fn bytes(head: &str, body: &[u8]) -> Vec<u8> {
    let mut raw = format!("HTTP/1.1 {head}\r\ncontent-type: application/octet-stream\r\n\r\n").into_bytes();
    raw.extend_from_slice(body);
    raw
}

fn part(first: usize, data: &[u8], size: usize, etag: &str) -> Answer {
    let (last, len) = (first + data.len() - 1, data.len());
    let head = format!(
        "206 Partial Content\r\ncontent-range: bytes {first}-{last}/{size}\r\ncontent-length: {len}\r\netag: \"{etag}\""
    );
    Answer::Raw(bytes(&head, data))
}

#[test]
fn pages_of_a_folder_are_joined_also_through_empty_ones_up_to_the_limit() {
    let hub = Fake::start(|asked, _| {
        let body = match asked.path.split("cursor=").nth(1) {
            None => page(&["a", "b"], Some("one")),
            Some("one") => page(&[], Some("two")),
            Some(_) => page(&["c", "d"], Some("three")),
        };
        Answer::Json(200, body)
    });
    let ended = program(&hub).run(&["fs", "ls", "n:/srv/x y/", "--limit", "3"]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "a\nb\nc\n"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("3 unreadable entries") && ended.stderr.contains("more"),
        "{}",
        ended.stderr
    );
    let asked = hub.asked();
    assert!(
        asked[0].path.starts_with("/api/v1/nodes/n/fs?path=%2Fsrv%2Fx%20y&view=list&depth=1&limit=3"),
        "{}",
        asked[0].path
    );
    assert_eq!(asked.len(), 3);
    let array = program(&hub).run(&["fs", "find", "n:/srv", "--limit", "3", "--json"]);
    assert_eq!(array.lines()[0].as_array().map(Vec::len), Some(3), "{}", array.text());
    let stream = program(&hub).run(&["fs", "find", "n:/srv", "--limit", "3", "--json", "--stream"]);
    assert_eq!((stream.lines().len(), &stream.lines()[2]["name"]), (3, &"c".into()));
    let found = program(&hub).run(&["fs", "find", "n:/srv", "--limit", "2"]);
    assert_eq!(found.text(), "/srv/a\n/srv/b\n");
}

#[test]
fn a_page_that_comes_again_ends_the_list_with_an_error() {
    let hub = Fake::start(|_, _| Answer::Json(200, page(&["a"], Some("same"))));
    let ended = program(&hub).run(&["fs", "ls", "n:/", "--json"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (Some(1), Some("internal")));
}

#[test]
fn content_that_is_not_sent_whole_is_put_together_from_its_parts() {
    let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let whole = content.clone();
    let hub = Fake::start(move |asked, _| {
        let Some(offset) = asked.path.split("offset=").nth(1) else {
            return Answer::Json(413, problem("too_large"));
        };
        let offset: usize = offset.parse().expect("a number");
        part(offset, &content[offset..(offset + 300).min(1000)], 1000, ETAG)
    });
    let ended = program(&hub).run(&["fs", "cat", "n:/x"]);
    assert_eq!((ended.code, ended.stdout), (Some(0), whole), "{}", ended.stderr);
    assert_eq!(hub.asked().len(), 5);
}

#[test]
fn lines_go_on_in_bytes_where_an_answer_ends_before_the_last_of_them() {
    let text = b"one\ntwo\nthree\nfour\nfive\n";
    let hub = Fake::start(|asked, _| match asked.path.split("offset=").nth(1) {
        None => part(4, &text[4..10], text.len(), ETAG),
        Some("10") => part(10, &text[10..], text.len(), ETAG),
        Some(other) => panic!("asked for {other}"),
    });
    let ended = program(&hub).run(&["fs", "cat", "n:/x", "--lines", "2-4"]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(0), "two\nthree\nfour\n"), "{}", ended.stderr);
    assert!(hub.asked()[0].path.ends_with("&start_line=2&lines=3"), "{}", hub.asked()[0].path);
}

#[test]
fn content_that_changes_or_breaks_off_between_is_never_taken_for_whole() {
    let other = "b".repeat(64);
    let changed =
        Fake::start(move |_, before| part(before * 3, b"abc", 9, if before == 0 { ETAG } else { &other }));
    let ended = program(&changed).run(&["fs", "cat", "n:/x", "--bytes", "0-"]);
    assert_eq!((ended.code, ended.text().as_str()), (Some(8), "abc"), "{}", ended.stderr);
    let shorter = Fake::start(|_, before| match before {
        0 => part(0, b"abc", 9, ETAG),
        _ => Answer::Json(416, problem("invalid_argument")),
    });
    assert_eq!(program(&shorter).run(&["fs", "cat", "n:/x", "--bytes", "0-"]).code, Some(8));
    for head in [
        "200 OK\r\ncontent-length: 9",
        "206 Partial Content\r\ncontent-range: bytes 0-8/9\r\ncontent-length: 3",
    ] {
        let broken = Fake::start(move |_, _| Answer::Torn(bytes(head, b"abc")));
        let ended = program(&broken).run(&["fs", "cat", "n:/x"]);
        assert_eq!((ended.code, ended.text().as_str()), (Some(1), "abc"), "{head}: {}", ended.stderr);
    }
    let nowhere = Fake::start(|_, _| Answer::Torn(bytes("206 Partial Content\r\ncontent-length: 3", b"abc")));
    assert_eq!(program(&nowhere).run(&["fs", "cat", "n:/x"]).code, Some(1));
}

#[test]
fn a_search_without_a_line_is_status_1_with_nothing_on_standard_output() {
    let hub = Fake::start(|_, _| Answer::Json(200, page(&[], None)));
    for arguments in [&["fs", "grep", "-i", "x", "n:/srv"][..], &["fs", "grep", "x", "n:/srv", "--json"]] {
        let ended = program(&hub).run(arguments);
        assert_eq!((ended.code, ended.stdout.is_empty()), (Some(1), true), "{}", ended.stderr);
        assert!(ended.stderr.contains("No line") && ended.stderr.contains("--ignored"), "{}", ended.stderr);
    }
    assert!(hub.asked()[0].path.contains("/fs/search?path=%2Fsrv&pattern=x&ignore_case=true&"));
}

#[test]
fn what_runs_for_a_task_says_which_attempt_it_is_and_half_of_that_is_refused() {
    let hub = Fake::start(|_, _| Answer::Json(409, problem("stale_attempt")));
    let task = program(&hub).with("CORTEX_TASK_ID", "0198a1c2-0000-7000-8000-000000000001");
    assert_eq!(task.run(&["fs", "ls", "n:/"]).code, Some(2), "only one of both");
    assert!(hub.asked().is_empty(), "nothing was asked without its fence");
    let task = task.with("CORTEX_ATTEMPT", "3");
    for arguments in [&["fs", "ls", "n:/"][..], &["fs", "cat", "n:/x"], &["fs", "mkdir", "n:/x"]] {
        assert_eq!(task.run(arguments).code, Some(8), "{arguments:?}");
    }
    assert!(task.run_with_input(&["fs", "write", "n:/x"], b"").code == Some(8));
    let asked = hub.asked();
    let fenced = "cortex-attempt: 0198a1c2-0000-7000-8000-000000000001/3\r\n";
    assert!(asked.len() >= 4 && asked.iter().all(|asked| asked.head.contains(fenced)), "{asked:?}");
}

#[test]
fn conditions_and_keys_of_a_change_are_sent_and_its_etag_is_told() {
    let written = format!(
        r#"{{"op":"o","node":"n","path":"/x","etag":"{ETAG}","bytes":3,"created":false,"dry_run":false,"notes":["hard_link_broken","of_next_year"]}}"#
    );
    let hub = Fake::start(move |_, _| Answer::Json(200, written.clone()));
    let program = program(&hub);
    let file = program.file("content", "abc");
    let arguments = [
        "fs",
        "write",
        "n:/x",
        &file.display().to_string(),
        "--if-match",
        ETAG,
        "--key",
        "k1",
        "--mode",
        "600",
    ];
    let ended = program.run(&arguments);
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 0), "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with(&format!("wrote 3 bytes to n:/x, etag {ETAG}\nnote: ")),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("keep the old content") && ended.stderr.contains("of_next_year"));
    let asked = hub.asked().remove(0);
    assert!(asked.path.ends_with("/fs?path=%2Fx&mode=put&perm=600"), "{}", asked.path);
    for header in [format!("if-match: \"{ETAG}\""), "idempotency-key: k1".into(), "content-length: 3".into()]
    {
        assert!(asked.head.contains(&format!("{header}\r\n")), "{header}: {}", asked.head);
    }
    assert_eq!((asked.method.as_str(), asked.body.as_str()), ("PUT", "abc"));
}

#[test]
fn a_hub_that_refuses_a_long_write_before_its_end_is_heard() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let hub = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut head = [0; 4096];
        let _some = stream.read(&mut head).expect("the request begins");
        let body = problem("path_outside_roots");
        let head = "HTTP/1.1 403 X\r\ncontent-type: application/json\r\nconnection: close";
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // In one piece: what waits to be sent goes with a reset.
        stream.write_all(answer.as_bytes()).expect("answer");
        // What was not read makes this a reset.
        drop(stream);
    });
    let input = vec![b'x'; 32 * 1024 * 1024];
    let ended =
        Program::new().with("CORTEX_HUB", url).run_with_input(&["fs", "write", "n:/x", "--json"], &input);
    assert_eq!(
        (ended.code, ended.error()["code"].as_str()),
        (Some(5), Some("path_outside_roots")),
        "{}",
        ended.text()
    );
    hub.join().expect("the hub ends");
}

#[test]
fn content_that_cannot_be_read_here_is_said_and_the_request_is_broken_off() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let hub = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut all = Vec::new();
        // A reset is as good as an end.
        drop(stream.read_to_end(&mut all));
        all
    });
    let program = Program::new().with("CORTEX_HUB", url);
    let mut command = program.command(&["fs", "write", "n:/x", "--json"]);
    command.stdin(std::fs::File::open("/").expect("a folder"));
    let ended = command.output().expect("run");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(2), "{text}");
    assert!(text.contains("cannot be read here") && text.contains("Nothing was written"), "{text}");
    let sent = hub.join().expect("the hub ends");
    assert!(!sent.ends_with(b"0\r\n\r\n"), "the body has no end: {}", String::from_utf8_lossy(&sent));
}
