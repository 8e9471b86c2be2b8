//! Lines that are found, in pages that fit together.

use std::time::Duration;

use bytes::Bytes;
use cortex_core::error::Code;
use cortex_core::files::answer::Match;
use cortex_core::files::op::Glob;

use super::*;
use crate::files::support::Scene;

/// Bytes in which a NUL makes a file binary.
const HEAD_BYTES: usize = 8 * 1024;

fn question() -> ContentId {
    ContentId::of(b"question")
}

fn query(pattern: &str) -> GrepQuery {
    GrepQuery { pattern: pattern.to_owned(), ..GrepQuery::default() }
}

fn page(limit: u32, cursor: Option<Bytes>) -> Page {
    Page { limit, cursor }
}

type Paged = (Vec<(String, u64, String)>, Option<Bytes>, Skipped);

fn paged(answer: Result<FileAnswer, Refusal>) -> Paged {
    let answer = answer.expect("searched");
    assert!(answer.is_bounded(), "{answer:?}");
    let FileAnswer::Matches { matches, next, skipped, .. } = answer else { panic!("{answer:?}") };
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let shown = |found: &Match| (text(&found.name), found.line, text(&found.text));
    (matches.iter().map(shown).collect(), next, skipped)
}

fn found(scene: &Scene, path: &str, query: &GrepQuery) -> Vec<(String, u64, String)> {
    paged(grep(&scene.at(path).place(), query, &page(200, None), &question(), Budget::full())).0
}

fn hit(name: &str, line: u64, text: &str) -> (String, u64, String) {
    (name.to_owned(), line, text.to_owned())
}

#[test]
fn lines_are_found_by_pattern_by_text_and_whatever_their_case() {
    let scene = Scene::new();
    scene.write("a.txt", "One\r\ntwo.\n\nثلاثة\nend");
    scene.write("b/c.rs", "two\n");
    scene.write("b/.hidden", "two\n");
    assert_eq!(found(&scene, "", &query("two")), [hit("a.txt", 2, "two."), hit("b/c.rs", 1, "two")]);
    assert_eq!(found(&scene, "", &query("^two$")), [hit("b/c.rs", 1, "two")]);
    assert_eq!(found(&scene, "", &GrepQuery { literal: true, ..query("two.") }), [hit("a.txt", 2, "two.")]);
    assert_eq!(
        found(&scene, "", &GrepQuery { ignore_case: true, ..query("one$") }),
        [hit("a.txt", 1, "One")]
    );
    assert_eq!(found(&scene, "", &query("ثلا")), [hit("a.txt", 4, "ثلاثة")]);
    assert_eq!(found(&scene, "", &query("^$")), [hit("a.txt", 3, "")]);
    assert_eq!(found(&scene, "a.txt", &query("end|One")), [hit("", 1, "One"), hit("", 5, "end")]);
    let glob = Some(Glob::parse("*.rs").expect("text"));
    assert_eq!(
        found(&scene, "", &GrepQuery { glob, hidden: true, ..query("two") }),
        [hit("b/c.rs", 1, "two")]
    );
    assert_eq!(found(&scene, "", &GrepQuery { hidden: true, ..query("^two$") }).len(), 2);
}

#[test]
fn a_pattern_that_is_none_or_takes_too_much_is_refused() {
    let scene = Scene::new();
    for pattern in ["(", "[a", "(a{1000}){1000}", "\\p{Nope}"] {
        let answer =
            grep(&scene.at("").place(), &query(pattern), &page(1, None), &question(), Budget::full());
        assert_eq!(answer.expect_err(pattern).code, Code::InvalidArgument);
    }
    // One that other engines take exponential time for.
    scene.write("f", "a".repeat(50_000) + "b\n");
    assert!(found(&scene, "", &query("^(a+)+$")).is_empty());
}

#[test]
fn lines_around_are_shown_and_long_ones_cut() {
    let scene = Scene::new();
    scene.write("f", "1\n2\n3\nhit\n5\n6");
    let query = GrepQuery { context: 2, ..query("hit") };
    let answer = grep(&scene.at("").place(), &query, &page(9, None), &question(), Budget::full());
    let Ok(FileAnswer::Matches { matches, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(
        (&matches[0].before[..], &matches[0].after[..]),
        (&[Bytes::from("2"), Bytes::from("3")][..], &[Bytes::from("5"), Bytes::from("6")][..])
    );
    scene.write("f", "hit\n".to_owned() + &"م".repeat(5_000));
    let answer = grep(&scene.at("").place(), &query, &page(9, None), &question(), Budget::full());
    let Ok(FileAnswer::Matches { matches, .. }) = answer else { panic!("{answer:?}") };
    assert_eq!(matches[0].before.len(), 0);
    assert_eq!(matches[0].after[0].len(), limits::GREP_LINE_BYTES_MAX);
    scene.write("f", "x".to_owned() + &"م".repeat(5_000) + "hit");
    assert_eq!(found(&scene, "f", &query)[0].2.len(), limits::GREP_LINE_BYTES_MAX - 1, "no half character");
}

#[test]
fn what_is_no_text_too_large_or_ignored_is_left_out_and_counted() {
    let scene = Scene::new();
    scene.write("binary", b"hit\0hit\n");
    scene.write("late-nul", "hit\n".to_owned() + &"x".repeat(HEAD_BYTES) + "\0");
    scene.write(".gitignore", "ignored\n");
    scene.write("ignored", "hit\n");
    let large = std::fs::File::create(scene.disk("large")).expect("made");
    large.set_len(limits::GREP_FILE_BYTES_MAX + 1).expect("set");
    nix::unistd::mkfifo(&scene.disk("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let answer = grep(&scene.at("").place(), &query("hit"), &page(9, None), &question(), Budget::full());
    let (matches, next, skipped) = paged(answer);
    assert_eq!((matches, next), (vec![hit("late-nul", 1, "hit")], None));
    assert_eq!(skipped, Skipped { binary: 1, too_large: 1, ignored: 1, ..Skipped::default() });
    let one = grep(&scene.at("binary").place(), &query("hit"), &page(9, None), &question(), Budget::full());
    assert_eq!(paged(one).2.binary, 1);
    for (path, code) in [("fifo", Code::UnsupportedEntry), ("none", Code::NotFound)] {
        let answer =
            grep(&scene.at(path).place(), &query("hit"), &page(9, None), &question(), Budget::full());
        assert_eq!(answer.expect_err(path).code, code);
    }
}

#[test]
fn pages_fit_together_within_files_and_between_them() {
    let scene = Scene::new();
    for name in ["a", "b/a", "b/b", "c"] {
        scene.write(name, "hit\nno\nhit\nhit\n");
    }
    scene.write("wide", ("hit".to_owned() + &"x".repeat(1_100) + "\n").repeat(100));
    let whole = 4 * 3 + 100;
    let late = Budget::of(u64::MAX, Duration::ZERO);
    for (limit, budget) in [
        (1, Budget::full()),
        (2, Budget::full()),
        (200, Budget::full()),
        (200, late),
        (3, Budget::of(1, Duration::from_secs(60))),
    ] {
        for path in ["", "wide"] {
            let (mut all, mut cursor, mut pages) = (Vec::new(), None, 0);
            loop {
                let answer =
                    grep(&scene.at(path).place(), &query("hit"), &page(limit, cursor), &question(), budget);
                let (matches, next, _) = paged(answer);
                all.extend(matches.into_iter().map(|(name, line, _)| (name, line)));
                pages += 1;
                cursor = next;
                if cursor.is_none() {
                    break;
                }
                assert!(pages < 1_000, "it gets on");
            }
            let expected = if path.is_empty() { whole } else { 100 };
            assert_eq!(all.len(), expected, "{limit} {budget:?} {path:?}");
            all.dedup();
            assert_eq!(all.len(), expected, "none twice");
        }
    }
}
