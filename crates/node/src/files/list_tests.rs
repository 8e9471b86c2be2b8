//! Lists and searches by what entries are: whole, in order, in pages that fit together.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use cortex_core::error::Code;
use cortex_core::files::answer::Skipped;
use proptest::prelude::*;

use super::*;
use crate::files::support::{Scene, rounds};

const SHOWN: Shown<'_> = Shown { depth: 1, hidden: false, glob: None, hash: false };

fn question() -> ContentId {
    ContentId::of(b"question")
}

fn page(limit: u32, cursor: Option<Bytes>) -> Page {
    Page { limit, cursor }
}

type Paged = (Vec<(String, Kind)>, Option<Bytes>, Skipped);

fn paged(answer: Result<FileAnswer, Refusal>) -> Paged {
    let answer = answer.expect("listed");
    assert!(answer.is_bounded(), "{answer:?}");
    let FileAnswer::Listing { entries, next, skipped, .. } = answer else { panic!("{answer:?}") };
    let shown = |entry: Entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.meta.kind);
    (entries.into_iter().map(shown).collect(), next, skipped)
}

fn names(scene: &Scene, path: &str, shown: Shown<'_>) -> Vec<String> {
    let answer = list(&scene.at(path).place(), shown, &page(1_000, None), &question(), Budget::full());
    paged(answer).0.into_iter().map(|(name, _)| name).collect()
}

fn found(scene: &Scene, query: &FindQuery) -> Vec<String> {
    let answer = find(&scene.at("").place(), query, &page(1_000, None), &question(), Budget::full());
    paged(answer).0.into_iter().map(|(name, _)| name).collect()
}

#[test]
fn entries_come_with_each_folder_before_what_is_in_it() {
    let scene = Scene::new();
    assert_eq!(names(&scene, "", SHOWN), [""; 0], "an empty folder");
    for path in ["b/c/d", "b!", "a", "b/.h/x", "b/c.x", ".h", "ملف"] {
        scene.write(path, "x");
    }
    assert_eq!(names(&scene, "", SHOWN), ["a", "b", "b!", "ملف"]);
    let deep = Shown { depth: 8, ..SHOWN };
    assert_eq!(names(&scene, "", deep), ["a", "b", "b/c", "b/c/d", "b/c.x", "b!", "ملف"]);
    assert_eq!(names(&scene, "", Shown { depth: 2, ..SHOWN }), ["a", "b", "b/c", "b/c.x", "b!", "ملف"]);
    assert_eq!(names(&scene, "b", Shown { hidden: true, ..deep }), [".h", ".h/x", "c", "c/d", "c.x"]);
    let glob = Glob::parse("*.x").expect("text");
    assert_eq!(names(&scene, "", Shown { glob: Some(&glob), ..deep }), ["b/c.x"]);
    for (path, code) in [("none", Code::NotFound), ("a", Code::UnsupportedEntry)] {
        let answer = list(&scene.at(path).place(), SHOWN, &page(1, None), &question(), Budget::full());
        assert_eq!(answer.expect_err(path).code, code);
    }
}

#[test]
fn what_cannot_be_named_opened_or_read_is_listed_and_counted() {
    let scene = Scene::new();
    let odd = scene.disk("").join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::write(&odd, "x").expect("written");
    scene.write("back\\slash", "x");
    scene.write("line\nbreak", "x");
    nix::unistd::mkfifo(&scene.disk("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    symlink("/etc/passwd", scene.disk("link")).expect("linked");
    symlink("..", scene.disk("up")).expect("linked");
    let answer = list(
        &scene.at("").place(),
        Shown { depth: 8, hash: true, ..SHOWN },
        &page(10, None),
        &question(),
        Budget::full(),
    );
    let Ok(FileAnswer::Listing { entries, skipped, .. }) = answer else { panic!("{answer:?}") };
    let kinds: Vec<Kind> = entries.iter().map(|entry| entry.meta.kind).collect();
    assert_eq!(
        kinds,
        [Kind::File, Kind::File, Kind::Other, Kind::File, Kind::Link, Kind::Link],
        "{entries:?}"
    );
    assert_eq!(&entries[1].name[..], b"caf\xe9");
    assert_eq!(entries[0].meta.etag, Some(ContentId::of(b"x")));
    assert_eq!(&entries[3].name[..], b"line\nbreak");
    assert_eq!(entries[4].meta.target.as_deref(), Some(&b"/etc/passwd"[..]));
    assert_eq!(skipped, Skipped { unsupported: 4, ..Skipped::default() });
}

#[test]
fn a_folder_that_is_closed_to_us_is_listed_and_what_is_in_it_counted_as_unreadable() {
    if nix::unistd::geteuid().is_root() {
        // To root nothing is closed; the tests of walls look from a user of its own.
        return;
    }
    let scene = Scene::new();
    scene.write("closed/f", "x");
    let mode = |mode| std::fs::set_permissions(scene.disk("closed"), std::fs::Permissions::from_mode(mode));
    mode(0o000).expect("set");
    let answer = list(
        &scene.at("").place(),
        Shown { depth: 8, ..SHOWN },
        &page(10, None),
        &question(),
        Budget::full(),
    );
    mode(0o700).expect("set");
    let (entries, _, skipped) = paged(answer);
    assert_eq!((entries.len(), skipped.unreadable), (1, 1));
}

#[test]
fn a_large_folder_comes_in_pages_that_fit_together() {
    let scene = Scene::new();
    let count = rounds(5_000, 100_000);
    std::fs::create_dir(scene.disk("d")).expect("made");
    for number in 0..count {
        std::fs::File::create(scene.disk(&format!("d/{number:06}"))).expect("made");
    }
    let (mut all, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let answer = list(&scene.at("d").place(), SHOWN, &page(1_000, cursor), &question(), Budget::full());
        let (entries, next, _) = paged(answer);
        all.extend(entries.into_iter().map(|(name, _)| name));
        pages += 1;
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..count).map(|number| format!("{number:06}")).collect();
    assert!(all == expected, "{} of {count}", all.len());
    assert!(pages >= count / 1_000);
}

#[test]
fn a_cursor_belongs_to_its_question_and_survives_that_its_entry_goes_away() {
    let scene = Scene::new();
    for name in ["a", "b/x", "b/y", "c"] {
        scene.write(name, "");
    }
    let deep = Shown { depth: 8, ..SHOWN };
    let at = |cursor| list(&scene.at("").place(), deep, &page(3, cursor), &question(), Budget::full());
    let (first, next, _) = paged(at(None));
    assert_eq!(first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b", "b/x"]);
    let cursor = next.expect("there is more");
    assert_eq!(paged(at(Some(cursor.clone()))).0.len(), 2, "b/y and c");
    std::fs::remove_dir_all(scene.disk("b")).expect("removed");
    assert_eq!(paged(at(Some(cursor.clone()))).0, [("c".to_owned(), Kind::File)]);
    let other =
        list(&scene.at("").place(), deep, &page(3, Some(cursor)), &ContentId::of(b"other"), Budget::full());
    assert_eq!(other.expect_err("another question").code, Code::InvalidArgument);
    let short = at(Some(Bytes::from_static(b"short")));
    assert_eq!(short.expect_err("no cursor").code, Code::InvalidArgument);
}

#[test]
fn a_search_finds_by_name_kind_size_and_time_and_honours_what_is_ignored() {
    let scene = Scene::new();
    for (path, len) in
        [("src/a.rs", 10), ("src/b.rs", 1_000), ("target/a.rs", 5), ("src/gen/c.rs", 1), (".git/x.rs", 1)]
    {
        scene.write(path, "x".repeat(len));
    }
    scene.write(".gitignore", "target/\n# a comment\n*.log\n!keep.log\n");
    scene.write("src/.cortexignore", "/gen\n");
    scene.write("a.log", "");
    scene.write("keep.log", "");
    let rust = Some(Glob::parse("*.rs").expect("text"));
    let query = FindQuery { name: rust.clone(), ..FindQuery::default() };
    assert_eq!(found(&scene, &query), ["src/a.rs", "src/b.rs"]);
    let all = FindQuery { ignored: true, hidden: true, ..query.clone() };
    assert_eq!(found(&scene, &all), [".git/x.rs", "src/a.rs", "src/b.rs", "src/gen/c.rs", "target/a.rs"]);
    assert_eq!(found(&scene, &FindQuery { size_min: Some(100), ..query.clone() }), ["src/b.rs"]);
    assert_eq!(found(&scene, &FindQuery { size_max: Some(100), ..query.clone() }), ["src/a.rs"]);
    let folders = FindQuery { kind: Some(Kind::Dir), ..FindQuery::default() };
    assert_eq!(found(&scene, &folders), ["src"]);
    assert_eq!(found(&scene, &FindQuery::default()), ["keep.log", "src", "src/a.rs", "src/b.rs"]);
    let old = std::fs::File::options().write(true).open(scene.disk("src/a.rs")).expect("opened");
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(3_600)).expect("set");
    let recent = FindQuery { changed_within_ms: Some(600_000), ..query.clone() };
    assert_eq!(found(&scene, &recent), ["src/b.rs"]);
    // From within, the patterns of the folders above count as well.
    let answer = find(&scene.at("src").place(), &query, &page(10, None), &question(), Budget::full());
    let (entries, _, skipped) = paged(answer);
    assert_eq!((entries.len(), skipped.ignored), (2, 1));
}

#[test]
fn a_search_that_costs_too_much_goes_on_with_the_next_page() {
    let scene = Scene::new();
    for number in 0..40 {
        scene.write(&format!("d{}/f{number}", number % 4), "");
    }
    let query = FindQuery { kind: Some(Kind::File), ..FindQuery::default() };
    for budget in [Budget::of(7, Duration::from_secs(60)), Budget::of(u64::MAX, Duration::ZERO)] {
        let (mut all, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let answer = find(&scene.at("").place(), &query, &page(1_000, cursor), &question(), budget);
            let (entries, next, _) = paged(answer);
            all.extend(entries);
            pages += 1;
            cursor = next;
            if cursor.is_none() {
                break;
            }
            assert!(pages < 100, "it gets on");
        }
        assert!(all.len() == 40 && pages > 1, "{} in {pages}", all.len());
    }
}

#[test]
fn levels_beyond_those_that_are_open_at_once_are_counted() {
    let scene = Scene::new();
    let mut path = scene.disk("");
    for _ in 0..crate::files::walk::LEVELS_MAX + 5 {
        path.push("d");
        std::fs::create_dir(&path).expect("made");
    }
    let answer =
        find(&scene.at("").place(), &FindQuery::default(), &page(1_000, None), &question(), Budget::full());
    let (entries, next, skipped) = paged(answer);
    assert_eq!((entries.len(), next, skipped.too_large), (crate::files::walk::LEVELS_MAX, None, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_of_any_length_are_the_whole_list(
        files in prop::collection::btree_set("[ab.!]{1,2}(/[ab!]{1,2}){0,3}", 0..14), limit in 1..6_u32,
    ) {
        let scene = Scene::new();
        for file in &files {
            let path = scene.disk(file);
            let is_made = std::fs::create_dir_all(path.parent().expect("above")).is_ok();
            if is_made && !path.exists() {
                std::fs::write(path, "").expect("written");
            }
        }
        let deep = Shown { depth: 8, hidden: true, ..SHOWN };
        let whole = names(&scene, "", deep);
        let mut sorted: Vec<Vec<&str>> = whole.iter().map(|path| path.split('/').collect()).collect();
        sorted.sort();
        let joined: Vec<String> = sorted.iter().map(|parts| parts.join("/")).collect();
        prop_assert_eq!(&whole, &joined);
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let answer = list(&scene.at("").place(), deep, &page(limit, cursor), &question(), Budget::full());
            let (entries, next, _) = paged(answer);
            all.extend(entries.into_iter().map(|(name, _)| name));
            cursor = next;
            if cursor.is_none() {
                break;
            }
        }
        prop_assert_eq!(all, whole);
    }
}
