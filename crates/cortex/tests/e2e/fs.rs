//! `cortex fs` against a real hub and node: what is written arrives byte for byte, and the command line and
//! HTTP say the same of it.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::files::{OCTETS, at, world};
use crate::tasks::id;
use crate::world::{Ended, World};

fn place(path: &Path) -> String {
    format!("a:{}", path.to_str().expect("text"))
}

/// What differs between two answers to the same question: the number of the operation, and moments.
fn same(mut value: Value) -> Value {
    for field in ["op", "fresh", "mtime"] {
        if let Some(map) = value.as_object_mut() {
            map.remove(field);
        }
    }
    value
}

impl World {
    fn fs_json(&self, arguments: &[&str]) -> Value {
        self.cortex(&[&["fs"], arguments, &["--json"]].concat()).expect(0).value()
    }

    fn fs_write(&self, arguments: &[&str], content: &[u8]) -> Ended {
        self.cortex_with_input(&[&["fs", "write"], arguments].concat(), content.to_vec())
    }
}

#[test]
fn r16_0_the_same_file_work_by_command_line_and_http_agrees() {
    let (world, work) = world();
    let (one, two) = (work.join("cli/ملف.txt"), work.join("http/ملف.txt"));
    let (cli, http) = (place(&one), |method: &str, path: &Path, more: &str, body: &[u8]| {
        let json = [("content-type", "application/json")];
        let bytes = [("content-type", OCTETS)];
        let headers = if method == "PATCH" { &json } else { &bytes };
        world.fs(method, &at("a", path, more), headers, body).ok()
    });
    // The answers differ in the folder alone.
    let agree = |cli: Value, http: Value| {
        let text = same(cli).to_string().replace("/cli", "/http").replace("a/cli", "a/http");
        assert_eq!(text, same(http).to_string());
    };
    let written = world.fs_write(&[&cli, "--mkdirs", "--json"], b"one\ntwo\n").expect(0).value();
    agree(written, http("PUT", &two, "&mkdirs=true", b"one\ntwo\n"));
    agree(world.fs_json(&["cat", &cli]), http("GET", &two, "&max_bytes=49152", b""));
    agree(world.fs_json(&["stat", &cli, "--hash"]), http("GET", &two, "&view=stat&hash=true", b""));
    let edit = json!({"edits": [{"old": "two", "new": "three"}], "dry_run": true}).to_string();
    let edited = world.fs_json(&["edit", &cli, "--old", "two", "--new", "three", "--dry-run"]);
    agree(edited, http("PATCH", &two, "", edit.as_bytes()));
    let edit = json!({"edits": [{"old": "two", "new": "three"}]}).to_string();
    agree(
        world.fs_json(&["edit", &cli, "--old", "two", "--new", "three"]),
        http("PATCH", &two, "", edit.as_bytes()),
    );
    assert_eq!(std::fs::read(&one).expect("there"), std::fs::read(&two).expect("there"));
    let (copy, copy_http) = (work.join("cli/copy"), work.join("http/copy"));
    let copied = world.fs_json(&["cp", &cli, copy.to_str().expect("text")]);
    agree(copied, http("PATCH", &two, "", json!({"copy_to": copy_http}).to_string().as_bytes()));
    world.fs_json(&["mkdir", &place(&work.join("cli/d"))]);
    let moved =
        world.fs_json(&["mv", &place(&copy), &format!("{}/", work.join("cli/d").display()), "--key", "none"]);
    assert_eq!(moved["path"], json!(work.join("cli/d/copy")), "{moved}");
}

#[test]
fn r16_0_content_arrives_byte_for_byte_whatever_it_is_and_whatever_the_file_is_called() {
    let (world, work) = world();
    let all: Vec<u8> = (0..=255).chain([0, 0xff, 0xfe, b'\r', b'\n', 0]).collect();
    for name in ["ملف تجريبي.bin", "with a space: and a colon", "-dash", "100%", "🦀\u{200d}é"] {
        let target = work.join(name);
        for content in [&all[..], b"", b"no end", "نص\r\n".as_bytes()] {
            let ended = world.fs_write(&[&place(&target)], content).expect(0);
            assert!(ended.stdout.is_empty() && ended.stderr.contains("etag"), "{}", ended.stderr);
            assert_eq!(std::fs::read(&target).expect("there"), content, "{name}");
            assert_eq!(world.cortex(&["fs", "cat", &place(&target)]).expect(0).stdout, content, "{name}");
        }
        assert_eq!(world.fs_json(&["stat", &place(&target)])["name"], name);
    }
    world.fs_write(&[&place(&work.join("bytes"))], &all).expect(0);
    let bytes = place(&work.join("bytes"));
    assert_eq!(world.cortex(&["fs", "cat", &bytes, "--bytes", "250-257"]).expect(0).stdout, all[250..258]);
    let text = place(&work.join("text"));
    world.fs_write(&[&text], b"1\n2\n3\n4").expect(0);
    assert_eq!(world.cortex(&["fs", "cat", &text, "--lines", "2-3"]).expect(0).text(), "2\n3\n");
    assert_eq!(world.cortex(&["fs", "cat", &text, "--lines", "4"]).expect(0).text(), "4");
    world.cortex(&["fs", "cat", &text, "--lines", "5"]).expect(2);
    // A file of this machine, and one whose length the kernel does not say.
    world.cortex(&["fs", "write", &bytes, "/proc/version"]).expect(0);
    assert_eq!(
        std::fs::read(work.join("bytes")).expect("there"),
        std::fs::read("/proc/version").expect("there")
    );
}

#[test]
fn content_longer_than_one_answer_is_read_whole_and_in_parts() {
    let (world, work) = world();
    std::fs::create_dir_all(&work).expect("the folder");
    let lines: String = (0..30_000).map(|number| format!("line {number}\n")).collect();
    std::fs::write(work.join("long"), &lines).expect("a file");
    let long = place(&work.join("long"));
    assert_eq!(world.cortex(&["fs", "cat", &long]).expect(0).text(), lines);
    let part = world.cortex(&["fs", "cat", &long, "--bytes", "10-200009"]).expect(0);
    assert_eq!(part.text(), lines[10..200_010]);
    let part = world.cortex(&["fs", "cat", &long, "--lines", "100-20000"]).expect(0).text();
    assert!(part.starts_with("line 99\n") && part.ends_with("\nline 19999\n"), "{:?}", part.len());
    let json = world.cortex(&["fs", "cat", &long, "--json"]).expect(0);
    assert_eq!((&json.value()["truncated"], json.stderr.contains("--bytes 49152-")), (&json!(true), true));
}

#[test]
fn a_folder_with_more_entries_than_one_answer_holds_is_listed_and_searched_whole() {
    let (world, work) = world();
    std::fs::create_dir_all(work.join("many")).expect("the folder");
    for number in 0..1_234 {
        std::fs::write(work.join(format!("many/f{number:04}")), format!("content {number}\n"))
            .expect("a file");
    }
    // Runs of the node have a user of their own.
    std::fs::set_permissions(work.join("many"), PermissionsExt::from_mode(0o777)).expect("chmod");
    // A name that is no text is listed, and no command can give it.
    std::fs::write(work.join("many").join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").expect("a file");
    let many = place(&work.join("many"));
    let listed = world.cortex(&["fs", "ls", &many]).expect(0).text();
    assert_eq!((listed.lines().count(), listed.lines().nth(1)), (1_235, Some("f0000")), "{listed:.40}");
    let array = world.fs_json(&["ls", &many]);
    assert_eq!((array.as_array().map(Vec::len), &array[0]["name_base64"]), (Some(1_235), &json!("YmFk/w==")));
    let found = world.cortex(&["fs", "find", &many, "--name", "f*", "--limit", "1200"]).expect(0);
    assert_eq!(found.text().lines().count(), 1_200);
    assert!(found.stderr.contains("more than the limit"), "{}", found.stderr);
    let lines = world.cortex(&["fs", "grep", "-F", "content", &many]).expect(0).text();
    assert_eq!(lines.lines().count(), 1_234);
    assert!(
        lines.starts_with(&format!("{}/f0000:1:content 0\n", work.join("many").display())),
        "{lines:.80}"
    );
    let none = world.cortex(&["fs", "grep", "nowhere", &many]).expect(1);
    assert!(none.stdout.is_empty(), "{}", none.text());
    assert_eq!(world.fs_json(&["find", &many, "--size", "+1M"]), json!([]));
    let ended = world.cortex(&["fs", "rm", &many, "-r", "--dry-run"]).expect(0);
    assert!(ended.text().contains("1236 entries"), "{}", ended.text());
    world.cortex(&["fs", "rm", &many, "-r"]).expect(2);
    assert!(work.join("many/f0000").exists(), "nobody was asked, and nothing removed");
    world.cortex(&["fs", "rm", &many, "-r", "--yes"]).expect(0);
    assert!(!work.join("many").exists());
}

#[test]
fn a_pipe_that_ends_is_the_end_of_the_content_and_one_that_cannot_be_read_writes_nothing() {
    let (world, work) = world();
    let target = work.join("log");
    let mut producer = std::process::Command::new("sh")
        .args(["-c", "printf half; exit 3"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the producer");
    let mut command = world.command(&["fs", "write", &place(&target)]);
    command.stdin(producer.stdout.take().expect("its output"));
    Ended::of(command.spawn().expect("start")).expect(0);
    producer.wait().expect("it ends");
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "half");
    let mut command = world.command(&["fs", "write", &place(&target)]);
    command.stdin(std::fs::File::open("/").expect("a folder"));
    let ended = Ended::of(command.spawn().expect("start")).expect(2);
    assert!(ended.stderr.contains("Nothing was written"), "{}", ended.stderr);
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "half", "it keeps what it had");
}

#[test]
fn an_update_of_what_somebody_else_changed_is_status_8_and_changes_nothing() {
    let (world, work) = world();
    let target = work.join("config");
    let file = place(&target);
    let first = world.fs_write(&[&file, "--json"], b"one\n").expect(0).value();
    let etag = first["etag"].as_str().expect("an etag");
    world.fs_write(&[&file, "--if-match", etag], b"two\n").expect(0);
    let lost = world.fs_write(&[&file, "--if-match", etag], b"three\n").expect(8);
    assert!(lost.stderr.contains(&format!("cortex fs cat {file}")), "{}", lost.stderr);
    for arguments in
        [&["edit", &file, "--old", "two", "--new", "x"][..], &["rm", &file], &["mv", &file, "/x"]]
    {
        let ended = world.cortex(&[&["fs"], arguments, &["--if-match", etag, "--json"]].concat());
        let expected = if arguments[0] == "mv" { 5 } else { 8 };
        assert_eq!(ended.code, Some(expected), "{arguments:?}: {}", ended.text());
    }
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "two\n");
    world.fs_write(&[&file, "--create"], b"").expect(8);
    world.fs_write(&[&file, "--append", "--key", "k"], b"3\n").expect(0);
    world.fs_write(&[&file, "--append", "--key", "k"], b"3\n").expect(0);
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "two\n3\n", "appended once");
}

#[test]
fn edits_of_a_file_are_all_done_or_none() {
    let (world, work) = world();
    let (target, edits) = (work.join("a.txt"), world.path("edits.json"));
    world.fs_write(&[&place(&target)], "é one\ntwo two\n".as_bytes()).expect(0);
    let run = |steps: Value| {
        std::fs::write(&edits, steps.to_string()).expect("a file");
        world.cortex(&["fs", "edit", &place(&target), "--edits", edits.to_str().expect("text")])
    };
    run(json!([{"old": "one", "new": "1"}, {"old": "none", "new": ""}])).expect(1);
    run(json!([{"old": "two", "new": "2"}])).expect(1);
    assert_eq!(std::fs::read_to_string(&target).expect("there"), "é one\ntwo two\n");
    let done = run(json!({"edits": [{"old": "one", "new": "1"}, {"old": "two", "new": "2", "all": true}]}))
        .expect(0);
    assert!(done.text().ends_with("-é one\n-two two\n+é 1\n+2 2\n"), "{}", done.text());
    run(json!([])).expect(2);
    run(json!([{"olt": "x", "new": ""}])).expect(2);
}

#[test]
fn policy_test_of_a_file_and_a_real_operation_on_it_agree() {
    let (world, work) = world();
    std::fs::create_dir_all(&work).expect("the folder");
    std::fs::write(work.join("there"), "x").expect("a file");
    for (verb, path) in [
        ("ls", work.clone()),
        ("cat", work.join("there")),
        ("write", work.join("new")),
        ("mkdir", work.join("folder")),
        ("rm", work.join("new")),
        ("cat", Path::new("/etc/shadow").to_path_buf()),
        ("write", Path::new("/etc/new").to_path_buf()),
        ("ls", Path::new("/").to_path_buf()),
    ] {
        let file = format!("{verb}:{}", path.display());
        let judged = world.cortex(&["policy", "test", "a", "--file", &file, "--json"]);
        let done = world.cortex(&["fs", verb, &place(&path), "--json"]);
        assert_eq!(judged.code, done.code, "{file}: {} {}", judged.text(), done.text());
        if done.code == Some(5) {
            let rule = &done.value()["error"]["details"]["rule"];
            assert_eq!(&judged.value()["rule"], rule, "{file}");
        }
    }
    let read = format!("read:{}", work.display());
    world.cortex(&["policy", "test", "a", "--file", &read]).expect(0);
    let there = format!("mv:{}", work.join("there").display());
    world.cortex(&["policy", "test", "a", "--file", &there, "--to", "/etc/x"]).expect(5);
    world.cortex(&["policy", "test", "a", "--file", &there]).expect(2);
    world.cortex(&["policy", "test", "a", "--file", "chmod:/x"]).expect(2);
}

#[test]
fn a63_a_command_of_an_attempt_that_is_over_writes_no_file() {
    let (world, work) = world();
    let task = world.add(&["--kind", "resize", "--lease", "10s"]);
    world.cortex(&["task", "claim", "--kind", "resize", "--json"]).expect(0);
    let write = |attempt: &str| {
        let mut command = world.command(&["fs", "mkdir", &place(&work.join("out")), "-p", "--json"]);
        command.env("CORTEX_TASK_ID", id(&task)).env("CORTEX_ATTEMPT", attempt);
        Ended::of(command.spawn().expect("start"))
    };
    write("1").expect(0);
    world.cortex(&["task", "finish", id(&task), "1"]).expect(0);
    let refused = write("1").expect(8);
    assert_eq!(refused.refusal(), "stale_attempt");
}
