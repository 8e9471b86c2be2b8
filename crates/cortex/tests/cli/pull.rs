//! `cortex pull` against a hub of a few lines: what the node has is here in the end, whatever breaks.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::giver::Giver;
use super::program::{Ended, Program};
use super::push::{folder, noise};
use super::taker::{Entry, on_disk};

fn pull(program: &Program, dest: &Path, more: &[&str]) -> Ended {
    program.run(&[&["pull", "a:/srv/x", dest.to_str().expect("text")], more].concat())
}

/// A folder that is there and empty, and one in it that is not there.
fn dest(program: &Program) -> PathBuf {
    let file = program.file("here/x", "");
    fs::remove_file(&file).expect("empty it");
    file.with_file_name("نسخة")
}

/// What is on the disk, without what a pull remembers.
fn tree(folder: &Path) -> std::collections::BTreeMap<String, Entry> {
    let mut found = on_disk(folder);
    found.retain(|path, _| path != ".cortex" && !path.starts_with(".cortex/"));
    found
}

#[test]
fn a_folder_is_here_as_it_is_there_and_is_not_sent_again() {
    let program = Program::new();
    let source = folder(&program, 9 << 20);
    let (hub, giver) = Giver::start(&source, 0);
    let program = program.with("CORTEX_HUB", hub.url());
    let dest = dest(&program);
    let dry = pull(&program, &dest, &["--dry-run"]);
    assert_eq!((dry.code, dest.exists()), (Some(0), false), "{}", dry.stderr);
    assert!(
        dry.text().contains("would be written") && dry.text().contains("  write     long\n"),
        "{}",
        dry.text()
    );
    let ended = pull(&program, &dest, &["--exclude", "no*", "--limit", "1G", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("left out: سري (unreadable)"), "{}", ended.stderr);
    assert!(tree(&dest) == on_disk(&source), "the tree is another one");
    let line = ended.lines().remove(0);
    assert_eq!(
        (&line["type"], &line["node"], &line["files"]),
        (&json!("done"), &json!("a"), &json!(8)),
        "{line}"
    );
    assert_eq!(line.as_object().map(serde_json::Map::len), Some(6), "{line}");
    let (order, _, bytes) = giver.figures();
    assert_eq!((&order["kind"], &order["source"]), (&json!("pull"), &json!("/srv/x")));
    assert_eq!(
        (&order["exclude"], &order["vcs"], &order["rate_max"]),
        (&json!(["no*"]), &json!(true), &json!(1 << 30))
    );
    let again = pull(&program, &dest, &[]);
    assert!(again.code == Some(0) && again.stderr.contains("as it should be"), "{}", again.stderr);
    assert_eq!(giver.figures().2, bytes, "nothing was sent again");
    assert!(hub.asked().iter().any(|asked| asked.path.ends_with("/end")));
}

#[test]
fn what_the_folder_there_has_and_its_tree_has_not_is_told_and_no_copy_is_whole_without_it() {
    let program = Program::new();
    let source = folder(&program, 1 << 10);
    let (hub, giver) = Giver::start(&source, 0);
    let program = program.with("CORTEX_HUB", hub.url());
    let dest = dest(&program);
    let counts = |unnamed: u64, unfit: u64| json!({"unnamed": unnamed, "too_large": 0, "rules_unread": 0, "unreadable": 0, "unfit": unfit});
    giver.leaves_out(counts(2, 3));
    let ended = pull(&program, &dest, &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("left out: 2 entries have names that no tree takes"), "{}", ended.stderr);
    assert!(tree(&dest) == on_disk(&source), "all else is here");
    let ended = pull(&program, &dest, &["--json"]);
    assert_eq!((ended.code, &ended.lines()[0]["left_out"]), (Some(1), &counts(2, 3)), "{}", ended.stderr);
    // A device is no part of a copy.
    giver.leaves_out(counts(0, 3));
    assert_eq!(pull(&program, &dest, &[]).code, Some(0));
    let refused = pull(&program, &dest, &["--delete"]);
    assert!(refused.stderr.contains("1 entry of the source cannot be read or sent"), "{}", refused.stderr);
}

#[test]
fn a_stream_that_breaks_is_read_anew_and_what_came_is_not_asked_for_twice() {
    let program = Program::new();
    let source = folder(&program, 24 << 20);
    let (hub, giver) = Giver::start(&source, 2);
    let program = program.with("CORTEX_HUB", hub.url());
    let dest = dest(&program);
    let ended = pull(&program, &dest, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("pulled from a:"), "{}", ended.stderr);
    assert!(tree(&dest) == on_disk(&source), "the tree is another one");
    let (_, reads, bytes) = giver.figures();
    assert!(reads == 3 && bytes < 40 << 20, "{reads} reads, {bytes} bytes");
}

#[test]
fn a_file_is_its_new_name_or_lies_in_the_folder_and_nothing_else_is_touched() {
    let program = Program::new();
    let source = program.file("ملف.log", "line\n");
    fs::write(&source, noise(3 << 20)).expect("a long one");
    let (hub, _giver) = Giver::start(&source, 0);
    let program = program.with("CORTEX_HUB", hub.url());
    let other = program.file("here/other", "other");
    let here = other.parent().expect("a folder");
    for (to, name) in [("new.log", "new.log"), ("", "x"), ("deep/er/", "deep/er/x")] {
        let ended = pull(&program, &here.join(to), &["--quiet"]);
        assert_eq!(ended.code, Some(0), "{to}: {}", ended.stderr);
        assert_eq!(
            fs::read(here.join(name)).expect("it is here"),
            fs::read(&source).expect("read"),
            "{name}"
        );
    }
    assert_eq!(fs::read(&other).expect("read"), b"other");
}
