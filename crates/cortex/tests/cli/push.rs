//! `cortex push` and `cortex transfer` against a hub of a few lines: content arrives whole whatever is lost
//! on the way, what changed is named, and every end has its words and its status.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::fake::{Answer, Fake};
use super::program::{Ended, Program};
use super::taker::{self, ID, Taker, Whims};

pub(crate) fn problem(code: &str) -> String {
    problem_value(code).to_string()
}

fn problem_value(code: &str) -> Value {
    json!({"code": code, "message": "why", "hint": "Do this.", "retryable": false, "request_id": "r-1",
        "docs": format!("/docs/errors/{code}")})
}

fn program(hub: &Fake) -> Program {
    Program::new().with("CORTEX_HUB", hub.url())
}

/// Bytes that no compression makes shorter.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..len / 8 + 1).flat_map(|_| next()).collect();
    bytes.truncate(len);
    bytes
}

/// A folder with something of everything, and a file of so many bytes.
pub(crate) fn folder(program: &Program, long: usize) -> PathBuf {
    let file = program.file("src/مجلد فرعي/ملف.txt", "نص\n");
    let folder = file.parent().and_then(Path::parent).expect("the folder").to_owned();
    fs::write(folder.join("long"), noise(long)).expect("write");
    fs::write(folder.join("run.sh"), "#!/bin/sh\n").expect("write");
    fs::set_permissions(folder.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::write(folder.join("empty"), "").expect("write");
    fs::create_dir_all(folder.join(".git/objects")).expect("folders");
    fs::write(folder.join(".git/HEAD"), "ref").expect("write");
    fs::write(folder.join(".gitignore"), "long\n").expect("write");
    symlink("مجلد فرعي/ملف.txt", folder.join("link")).expect("a link");
    symlink("/etc/hostname", folder.join("out")).expect("a link");
    folder
}

fn push(program: &Program, source: &Path, more: &[&str]) -> Ended {
    program.run(&[&["push", source.to_str().expect("text"), "a:/srv/x"], more].concat())
}

#[test]
fn a_folder_arrives_whole_with_two_packs_on_their_way_at_most() {
    let (hub, taker) = Taker::start(Whims { is_slow: true, ..Whims::default() }, || {});
    let program = program(&hub);
    let folder = folder(&program, 20 << 20);
    let ended = push(&program, &folder, &["--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(taker.tree() == taker::on_disk(&folder), "the tree is another one");
    let (packs, most, _) = taker.figures();
    assert!(packs >= 5 && most == 2, "{packs} packs, {most} at once");
    let line = ended.text();
    let members = r#"{"type":"done","node":"a","files":"#;
    assert!(line.starts_with(members) && line.lines().count() == 1, "{line}");
    let order = taker.order();
    assert_eq!(
        (&order["kind"], &order["dest"], &order["vcs"]),
        (&json!("push"), &json!("/srv/x"), &json!(true))
    );
    assert_eq!((&order["nodes"], &order["only"]), (&json!(["a"]), &Value::Null));
    let begun = &hub.asked()[0];
    assert!(begun.head.contains("idempotency-key: "), "{}", begun.head);
}

#[test]
fn what_is_lost_on_the_way_is_asked_for_again_and_nothing_is_lost_in_the_end() {
    let whims = Whims { packs_unanswered: 2, wants_lost: 3, ..Whims::default() };
    let (hub, taker) = Taker::start(whims, || {});
    let program = program(&hub);
    let folder = folder(&program, 12 << 20);
    let ended = push(&program, &folder, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(taker.tree() == taker::on_disk(&folder), "the tree is another one");
    let asked = hub.asked();
    assert!(asked.iter().filter(|asked| asked.path.contains("again=true")).count() >= 3);
    assert!(ended.stderr.contains("pushed to a:/srv/x:"), "{}", ended.stderr);
    assert_eq!(ended.text(), "");
}

/// What was packed while the source was read goes once; what is asked for once more is read again.
#[test]
fn what_a_hub_forgot_of_packs_that_were_ready_is_sent_again_or_named_when_it_is_gone() {
    let whims = Whims { packs_forgotten: 3, wants_lost: 1, ..Whims::default() };
    let (hub, taker) = Taker::start(whims, || {});
    let whole = program(&hub);
    let source = folder(&whole, 12 << 20);
    let ended = push(&whole, &source, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(taker.tree() == taker::on_disk(&source), "the tree is another one");

    let program = Program::new();
    let source = folder(&program, 12 << 20);
    let long = source.join("long");
    let (hub, taker) = Taker::start(whims, move || fs::remove_file(&long).expect("removed"));
    let ended = push(&program.with("CORTEX_HUB", hub.url()), &source, &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("1 file changed while it was sent; push again."), "{}", ended.stderr);
    assert!(ended.stderr.contains("changed while it was sent: long\n"), "{}", ended.stderr);
    assert!(taker.figures().0 > 0, "the rest came");
}

#[test]
fn a_hub_that_was_started_anew_is_given_the_push_again_and_only_what_it_lacks() {
    let whims = Whims { forgets_after: Some(3), ..Whims::default() };
    let (hub, taker) = Taker::start(whims, || {});
    let program = program(&hub);
    let folder = folder(&program, 20 << 20);
    let ended = push(&program, &folder, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(taker.tree() == taker::on_disk(&folder), "the tree is another one");
    let (packs, _, begins) = taker.figures();
    assert!(begins == 2 && packs <= 10, "{begins} begins, {packs} packs");
    assert!(ended.stderr.contains("begun anew"), "{}", ended.stderr);
    let keys = hub.asked().into_iter().filter(|asked| asked.path.ends_with("/transfers"));
    let keys: std::collections::HashSet<String> = keys
        .filter_map(|asked| {
            asked.head.lines().find(|line| line.starts_with("idempotency")).map(str::to_owned)
        })
        .collect();
    assert_eq!(keys.len(), 2, "another push, not the same");
}

#[test]
fn memory_does_not_grow_with_what_is_pushed() {
    let (pid, peak) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (hub, taker) = Taker::start(Whims::default(), || {});
    let program = program(&hub);
    let folder = folder(&program, 192 << 20);
    let mut command = program.command(&["push", folder.to_str().expect("text"), "a:/srv/x"]);
    let child = command.spawn().expect("start the program");
    pid.store(u64::from(child.id()), Ordering::SeqCst);
    let (watched, seen) = (child.id(), Arc::clone(&peak));
    let watch = std::thread::spawn(move || {
        while let Ok(status) = fs::read_to_string(format!("/proc/{watched}/status")) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(kib) = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            else {
                return;
            };
            seen.fetch_max(kib, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
    let output = child.wait_with_output().expect("wait");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    watch.join().expect("it ends with the program");
    let (packs, peak_kib) = (taker.figures().0, peak.load(Ordering::SeqCst));
    assert!(packs >= 48 && peak_kib > 0, "{packs} packs");
    // 64 MiB of packs are kept that were made while it was read.
    assert!(peak_kib < 152 * 1024, "{peak_kib} KiB for 192 MiB");
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_named_and_the_push_failed() {
    let program = Program::new();
    let folder = folder(&program, 3 << 20);
    let changing = folder.clone();
    let (hub, _taker) = Taker::start(Whims::default(), move || {
        fs::write(changing.join("long"), "other").expect("change it");
        fs::remove_file(changing.join("مجلد فرعي/ملف.txt")).expect("remove it");
    });
    let program = program.with("CORTEX_HUB", hub.url());
    // What was packed while it was read is sent as it was then; with this, nothing is.
    let ended = push(&program, &folder, &["--checksum"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for line in [
        "changed while it was sent: long",
        "changed while it was sent: مجلد فرعي/ملف.txt",
        "2 files changed while they were sent; push again.",
    ] {
        assert!(ended.stderr.contains(line), "{line}: {}", ended.stderr);
    }
}

/// What a push says that is interrupted as soon as `is_time`, and cancelled by that.
fn interrupted(hub: &Fake, is_time: impl Fn() -> bool) -> String {
    let program = program(hub);
    let folder = folder(&program, 10);
    let child =
        program.command(&["push", folder.to_str().expect("text"), "a:/srv/x"]).spawn().expect("start");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_time() {
        assert!(std::time::Instant::now() < until, "it never began");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signal our child");
    let output = child.wait_with_output().expect("wait");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("is cancelled"), "{stderr}");
    assert!(hub.asked().iter().any(|asked| asked.method == "DELETE"));
    stderr
}

#[test]
fn the_first_interrupt_cancels_the_push_and_says_so() {
    let (hub, taker) = Taker::start(Whims { is_idle: true, ..Whims::default() }, || {});
    let stderr = interrupted(&hub, || taker.figures().2 > 0);
    assert!(stderr.contains("Cancelling"), "{stderr}");
}

#[test]
fn an_interrupt_before_the_hub_has_answered_cancels_what_it_begins() {
    let begins = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&begins);
    let (hub, _taker) = Taker::start(Whims { is_idle: true, ..Whims::default() }, move || {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        std::thread::sleep(std::time::Duration::from_secs(1));
    });
    let stderr = interrupted(&hub, || begins.load(std::sync::atomic::Ordering::SeqCst));
    assert!(stderr.contains("Leaving when"), "{stderr}");
}

#[test]
fn a_file_becomes_its_new_name_or_goes_into_the_folder_behind_a_slash() {
    let (hub, taker) = Taker::start(Whims::default(), || {});
    let program = program(&hub);
    let file = program.file("ملف.conf", "port = 80\n");
    for (target, dest, only) in [
        ("a:/etc/app/app.conf", "/etc/app", "app.conf"),
        ("a:/etc/app/", "/etc/app", "ملف.conf"),
        ("a:/x", "/", "x"),
    ] {
        let ended = program.run(&["push", file.to_str().expect("text"), target, "--quiet"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{target}");
        let order = taker.order();
        assert_eq!(
            (&order["dest"], &order["only"], &order["bytes"]),
            (&json!(dest), &json!(only), &json!(10))
        );
        let tree = taker.tree();
        assert_eq!(tree.keys().collect::<Vec<_>>(), [only], "{target}");
    }
}

#[test]
fn what_is_to_be_left_out_is_and_is_left_alone_there() {
    let (hub, taker) = Taker::start(Whims::default(), || {});
    let program = program(&hub);
    let folder = folder(&program, 10);
    let more =
        ["--exclude", "*.sh", "--exclude-ignored", "--exclude-vcs", "--limit", "5M", "--delete", "--force"];
    let ended = push(&program, &folder, &more);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let tree = taker.tree();
    for gone in ["run.sh", "long", ".git"] {
        assert!(!tree.contains_key(gone), "{gone}");
    }
    assert!(tree.contains_key("empty") && tree.contains_key("out"));
    let order = taker.order();
    for (member, value) in [
        ("exclude", json!(["*.sh"])),
        ("ignore_files", json!(true)),
        ("vcs", json!(false)),
        ("rate_max", json!(5 << 20)),
        ("delete", json!(true)),
        ("force", json!(true)),
    ] {
        assert_eq!(order[member], value, "{member}");
    }
}

#[test]
fn an_empty_folder_is_pushed_and_what_is_no_folder_or_file_is_refused_before_anything_is_asked() {
    let (hub, taker) = Taker::start(Whims::default(), || {});
    let program = program(&hub);
    let empty = program.file("empty/x", "");
    fs::remove_file(&empty).expect("empty it");
    let ended = push(&program, empty.parent().expect("a folder"), &[]);
    assert_eq!((ended.code, taker.tree().len()), (Some(0), 0), "{}", ended.stderr);
    let asked = hub.asked().len();
    for (source, target, code, words) in [
        ("/nowhere/at/all", "a:/x", 2, "cannot be pushed"),
        ("/dev/null", "a:/x", 1, "neither a folder nor a file"),
        ("/etc", "a:x", 2, "top of the node's disk"),
        ("/etc", "a", 2, "NODE:DEST"),
        ("/etc", "a:/x/../y", 2, ".."),
    ] {
        let ended = program.run(&["push", source, target]);
        assert_eq!(ended.code, Some(code), "{source} {target}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{source} {target}: {}", ended.stderr);
    }
    assert_eq!(program.run(&["push", "/etc"]).code, Some(2));
    assert_eq!(program.run(&["push", "/etc", "a:/x", "-l", "role=ci:/x"]).code, Some(2));
    assert_eq!(hub.asked().len(), asked, "nothing was asked");
    // A link is followed, and gives the name.
    let file = program.file("file", "x");
    let link = file.with_file_name("link");
    symlink("file", &link).expect("a link");
    let ended = program.run(&["push", link.to_str().expect("text"), "a:/srv/"]);
    assert_eq!((ended.code, taker.order()["only"].as_str()), (Some(0), Some("link")), "{}", ended.stderr);
}

/// A hub whose push ends at once like this.
fn ended_as(state: &'static str, nodes: Value) -> Fake {
    Fake::start(move |asked, _| {
        if asked.path.contains("/wants") {
            std::thread::sleep(std::time::Duration::from_secs(20));
            return Answer::Closed;
        }
        let view = json!({"id": ID, "kind": "push", "state": state, "seq": 1, "entries": 1, "bytes": 1,
            "by": "token:admin", "at": "2026-01-01T00:00:00Z", "nodes": nodes});
        Answer::Json(202, view.to_string())
    })
}

fn row(node: &str, state: &str) -> Value {
    json!({"node": node, "path": "/srv/x", "state": state, "bytes_total": 0, "bytes_moved": 0, "wire_bytes": 0,
        "steps_total": 0, "steps_done": 0, "duration_ms": 7})
}

fn with(mut row: Value, member: &str, value: Value) -> Value {
    row[member] = value;
    row
}

fn end(more: &Value) -> Value {
    let mut end = json!({"written": 1, "bytes": 5, "removed": 0, "same": 2, "extra": 0, "held": {}});
    let members = more.as_object().expect("members").clone();
    end.as_object_mut().expect("members").extend(members);
    end
}

#[test]
fn a_node_that_refuses_does_not_hold_up_others_and_its_way_on_is_named() {
    let nodes = json!([
        with(row("a", "done"), "end", end(&json!({}))),
        with(row("b", "failed"), "error", problem_value("node_offline")),
        with(row("c", "failed"), "error", problem_value("path_outside_roots")),
    ]);
    let hub = ended_as("failed", nodes);
    let program = program(&hub);
    let file = program.file("file", "x");
    let arguments = ["push", file.to_str().expect("text"), "a,b,c:/srv/x"];
    let ended = program.run(&arguments);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for words in [
        "pushed to a:/srv/x: 1 file",
        "b:/srv/x: why",
        "error: c:/srv/x: why",
        "cortex policy allow c --root /srv/x:rw --for 1h",
    ] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    let lines = program.run(&[&arguments[..], &["--json"]].concat()).lines();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["type"], "done");
    assert_eq!((&lines[1]["state"], &lines[1]["error"]["code"]), (&json!("failed"), &json!("node_offline")));
    let quiet = program.run(&[&arguments[..], &["--quiet"]].concat());
    assert!(!quiet.stderr.contains("pushed") && quiet.stderr.contains("b:/srv/x: why"), "{}", quiet.stderr);
}

#[test]
fn one_node_that_refuses_gives_its_own_status() {
    for (code, status) in [("policy_denied", 5), ("node_offline", 7), ("node_not_found", 3), ("quota", 1)] {
        let hub = ended_as("failed", json!([with(row("a", "failed"), "error", problem_value(code))]));
        let program = program(&hub);
        let file = program.file("file", "x");
        let ended = push(&program, &file, &[]);
        assert_eq!(ended.code, Some(status), "{code}: {}", ended.stderr);
        assert!(ended.stderr.contains("Do this."), "{}", ended.stderr);
    }
}

#[test]
fn a_halt_says_its_rule_and_the_command_that_lets_it_pass() {
    let halt =
        json!({"id": "h".repeat(64), "rule": "deletes", "message": "60 of 100 files would be removed."});
    let halted = with(row("a", "halted"), "end", end(&json!({"halt": halt})));
    let hub = ended_as("failed", json!([with(row("b", "done"), "end", end(&json!({}))), halted]));
    let program = program(&hub);
    let file = program.file("with space/f", "x");
    let folder = file.parent().expect("a folder").to_str().expect("text");
    let ended = program.run(&["push", folder, "a,b:/srv/x", "--delete", "--exclude", "*.o"]);
    assert_eq!(ended.code, Some(8), "{}", ended.stderr);
    let command =
        format!("cortex push '{folder}' a:/srv/x --delete --exclude '*.o' --accept {}", "h".repeat(64));
    for words in ["60 of 100 files would be removed.", "rule deletes", &command, "Nothing was changed"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
}

#[test]
fn what_was_kept_and_what_is_in_conflict_is_told_by_path() {
    let notes = json!([{"path": "ملف", "what": "kept"}, {"path": "both", "what": "conflict"},
        {"path": "target", "what": "ignored"}]);
    let held = json!({"kept": 1, "conflict": 1, "ignored": 5});
    let nodes =
        json!([with(row("a", "done"), "end", end(&json!({"held": held, "notes": notes, "notes_more": 3})))]);
    let hub = ended_as("done", nodes);
    let program = program(&hub);
    let file = program.file("file", "x");
    let ended = push(&program, &file, &[]);
    assert_eq!(ended.code, Some(8), "{}", ended.stderr);
    for words in ["  kept      ملف", "  conflict  both", "2 left as they are", "--force", "… and 3 more"]
    {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("target"), "{}", ended.stderr);
}

#[test]
fn a_dry_run_prints_what_would_be_done_as_its_result() {
    let notes = json!([{"path": "a/b", "what": "write"}, {"path": "old", "what": "remove"}]);
    let would = json!({"dry_run": true, "removed": 1, "extra": 4, "notes": notes, "notes_more": 7});
    let hub = ended_as("done", json!([with(row("a", "done"), "end", end(&would))]));
    let program = program(&hub);
    let file = program.file("file", "x");
    let ended = push(&program, &file, &["--dry-run"]);
    assert_eq!(
        (ended.code, ended.text().as_str()),
        (
            Some(0),
            "a:/srv/x: 1 file, 5 B, would be written, 1 would be removed, 2 are as they should be, 4 more are there and stay\n  write     a/b\n  remove    old\n  … and 7 more\n"
        ),
        "{}",
        ended.stderr
    );
    let asked = hub.asked();
    assert!(asked[0].body.contains(r#""dry_run":true"#), "{}", asked[0].body);
    let line = push(&program, &file, &["--dry-run", "--json"]).lines().remove(0);
    assert_eq!(
        (&line["dry_run"], &line["removed"], &line["notes"][0]["path"]),
        (&json!(true), &json!(1), &json!("a/b"))
    );
}

#[test]
fn a_refused_push_and_a_hub_that_is_away_are_the_error_object_of_every_command() {
    let hub = Fake::start(|_, _| Answer::Json(429, problem("quota")));
    let program = program(&hub);
    let file = program.file("file", "x");
    let ended = push(&program, &file, &["--json"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (Some(1), Some("quota")));
    let away = Program::new().with("CORTEX_HUB", "http://127.0.0.1:9");
    let started = std::time::Instant::now();
    let ended = push(&away, &file, &["--json"]);
    assert_eq!((ended.code, ended.error()["code"].as_str()), (Some(1), Some("hub_unreachable")));
    assert!(
        started.elapsed() < std::time::Duration::from_secs(20),
        "it was never there: nothing to wait for"
    );
}

#[test]
fn transfers_are_listed_shown_and_cancelled() {
    let view = |state: &str| {
        json!({"id": ID, "kind": "push", "state": state, "seq": 1, "entries": 1, "bytes": 1,
            "by": "token:admin", "at": "2026-01-01T00:00:00Z",
            "nodes": [with(row("a", "moving"), "bytes_moved", json!(2048)), with(row("b", "done"), "end", end(&json!({})))]})
    };
    let hub = Fake::start(move |asked, _| match asked.method.as_str() {
        "DELETE" => Answer::Json(200, view("cancelled").to_string()),
        _ if asked.path.contains(ID) => Answer::Json(200, view("open").to_string()),
        _ => Answer::Json(200, json!({"items": [view("open")]}).to_string()),
    });
    let program = program(&hub);
    let ls = program.run(&["transfer", "ls"]);
    assert!(
        ls.code == Some(0) && ls.text().contains("2.00 KiB") && ls.text().contains("a:/srv/x moving"),
        "{}",
        ls.text()
    );
    let array = program.run(&["transfer", "ls", "--json"]);
    assert_eq!(array.lines()[0][0]["id"], ID);
    let show = program.run(&["transfer", "show", ID]);
    assert!(show.text().contains("a:/srv/x: moving, 2.00 KiB"), "{}", show.text());
    assert!(show.stderr.contains("pushed to b:/srv/x"), "{}", show.stderr);
    let cancel = program.run(&["transfer", "cancel", ID]);
    assert!(cancel.stderr.contains("is cancelled: 1 of 2 nodes were done"), "{}", cancel.stderr);
}
