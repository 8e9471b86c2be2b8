//! What is a path, and what is a spelling of a way out.

use proptest::prelude::*;

use super::*;

fn code(path: Result<impl fmt::Debug, Refusal>) -> Option<Code> {
    path.err().map(|refusal| refusal.code)
}

/// Both kinds of path with the same text below their top.
fn codes(relative: &str) -> [Option<Code>; 2] {
    [code(FilePath::parse(&format!("/{relative}"))), code(RelPath::parse(relative))]
}

#[test]
fn a45_no_spelling_of_a_way_out_is_a_path() {
    let deep = vec!["a"; PATH_PARTS_MAX + 1].join("/");
    let deepest = vec!["a"; 5_000].join("/");
    let name = "n".repeat(NAME_PART_BYTES_MAX + 1);
    let arabic = "م".repeat(NAME_PART_BYTES_MAX / 2 + 1);
    let long = vec!["n".repeat(NAME_PART_BYTES_MAX); PATH_BYTES_MAX / NAME_PART_BYTES_MAX + 1].join("/");
    let plain = [
        ".",
        "..",
        "./x",
        "../x",
        "x/.",
        "x/..",
        "a/./b",
        "a/../b",
        "a/../../x",
        "/etc/passwd",
        "//x",
        "a//b",
        "a/",
        "a/b//",
        "C:\\x",
        "C:/x",
        "C:",
        "z:/x",
        "\\\\?\\",
        "\\\\?\\C:\\x",
        "..\\",
        "..\\x",
        "a\\b",
        "a\0b",
        "\0",
        "a\nb",
        "a\x1bb",
        "a\u{7f}",
        "a\u{85}b",
    ];
    let encoded = [
        "%2e%2e/",
        "%2e%2e/x",
        "a/%2E%2e/x",
        "%2e",
        ".%2e",
        "%252e%252e",
        "%252e.",
        "a/%25%32%65%2e",
        "%2e%2e%2fx",
        "..%2fx",
        "..%252fx",
        "x%2f..",
        "x%2f..%2fy",
        "%2fetc%2fpasswd",
        "%252fetc",
        "..%5cx",
        "..%255cx",
        "%5c%5c?",
        "%2e%2e%5cx",
        "．％2e",
        "%EF%BC%8E%EF%BC%8E",
        "%25EF%25BC%258E.",
        "%e2%80%a5",
    ];
    let alike = [
        "．．/",
        "．．/x",
        "a/．．/x",
        "．",
        ".．",
        "﹒﹒",
        "․․",
        "․.",
        "‥",
        "︰",
        "..／x",
        "．．／x",
        "x／..",
        "／etc",
        "..⁄x",
        "..∕x",
        "∕etc",
        "..＼x",
        "..﹨x",
        "％2e％2e",
        "%２e%２e",
        ".\u{200b}.",
        "\u{200b}",
        "\u{200b}/etc",
        "a/\u{feff}",
        "%e2%80%8b/etc",
        "\u{feff}..",
        "\u{ad}.",
        ".\u{202e}.",
    ];
    let sized = [deep.as_str(), &deepest, &name, &arabic, &long];
    for text in plain.iter().chain(&encoded).chain(&alike).chain(&sized) {
        assert_eq!(codes(text), [Some(Code::BadPath); 2], "{text:?}");
    }
    for text in ["", "a", "./a", "../a", "~/a", "C:\\x", "．．/x", "%2fetc"] {
        assert_eq!(code(FilePath::parse(text)), Some(Code::BadPath), "{text:?}");
    }
    assert_eq!(code(RelPath::parse("")), Some(Code::BadPath));
}

#[test]
fn names_that_only_look_unusual_are_paths() {
    let longest = "م".repeat(NAME_PART_BYTES_MAX / 2);
    let deepest = vec!["a"; PATH_PARTS_MAX].join("/");
    for text in [
        "a",
        "a/b",
        "...",
        "....",
        "…",
        "a．b",
        "100%",
        "%",
        "%%",
        "%2",
        "%zz",
        "50% off",
        ".a",
        "..a",
        "a..",
        "a.",
        " ",
        "a b",
        "~",
        "-rf",
        "*",
        "ملف/مجلد",
        "文件.txt",
        "Жук",
        "e\u{301}",
        "é",
        "🦀",
        "👩\u{200d}👩\u{200d}👧",
        "می\u{200c}خواهم",
        "AC／DC",
        "1⁄2",
        "@types%2fnode",
        "https%3A%2F%2Fexample.com%2Fa",
        "%d9%85",
        "a:stream",
        "CON",
        "CC:",
        "x/C:",
        "a%5cb",
        "．a",
        longest.as_str(),
        deepest.as_str(),
    ] {
        assert_eq!(codes(text), [None; 2], "{text:?}");
    }
    assert_eq!(code(FilePath::parse("/")), None);
}

#[test]
fn a_refusal_shows_the_path_without_what_a_terminal_obeys() {
    let refusal = FilePath::parse("/a\x1b[31m").expect_err("a control character");
    assert_eq!(refusal.message, "The path `/a\\u{1b}[31m` has a control character.");
    assert_eq!(refusal.hint, Code::BadPath.hint());
    let refusal = RelPath::parse(&"n".repeat(300)).expect_err("a long name");
    assert!(refusal.message.contains("255"), "{}", refusal.message);
}

fn file(text: &str) -> FilePath {
    FilePath::parse(text).expect("a path")
}

fn rel(text: &str) -> RelPath {
    if text.is_empty() { RelPath::root() } else { RelPath::parse(text).expect("a path") }
}

#[test]
fn a_path_has_parts_a_parent_and_a_name() {
    for (text, parts, parent, name) in [
        ("/", &[][..], None, ""),
        ("/a", &["a"][..], Some("/"), "a"),
        ("/a/ب/c.d", &["a", "ب", "c.d"][..], Some("/a/ب"), "c.d"),
    ] {
        let path = file(text);
        assert_eq!(path.parts().collect::<Vec<_>>(), parts);
        assert_eq!(path.parent(), parent.map(file), "{text}");
        assert_eq!(path.name(), name);
        let path = rel(&text[1..]);
        assert_eq!(path.parts().collect::<Vec<_>>(), parts);
        assert_eq!(path.parent(), parent.map(|parent| rel(&parent[1..])), "{text}");
        assert_eq!(path.name(), name);
    }
}

#[test]
fn what_only_begins_alike_is_not_below() {
    for (path, root, rest) in [
        ("/a/b/c", "/a", Some("b/c")),
        ("/a", "/a", Some("")),
        ("/ab", "/a", None),
        ("/a", "/a/b", None),
        ("/a/b", "/", Some("a/b")),
        ("/", "/", Some("")),
        ("/", "/a", None),
    ] {
        assert_eq!(file(path).below(root), rest, "{path} {root}");
        assert_eq!(rel(&path[1..]).below(&rel(&root[1..])), rest, "{path} {root}");
    }
}

#[test]
fn what_is_joined_is_judged_as_a_whole() {
    assert_eq!(file("/").join(&rel("a/b")), Ok(file("/a/b")));
    assert_eq!(file("/a").join(&rel("b")), Ok(file("/a/b")));
    assert_eq!(file("/a").join(&RelPath::root()), Ok(file("/a")));
    assert_eq!(RelPath::root().join("a"), Ok(rel("a")));
    assert_eq!(rel("a").join_bytes("ب".as_bytes()), Ok(rel("a/ب")));
    for name in ["", ".", "..", "b/c", "/b", "b/", "%2e%2e", "．．", "b\\c", "b\nc"] {
        assert_eq!(code(rel("a").join(name)), Some(Code::BadPath), "{name:?}");
        assert_eq!(code(RelPath::root().join(name)), Some(Code::BadPath), "{name:?}");
    }
    assert_eq!(code(RelPath::root().join("C:")), Some(Code::BadPath));
    assert_eq!(rel("dosdevices").join("c:"), Ok(rel("dosdevices/c:")));
    let refusal = rel("a").join_bytes(b"caf\xe9").expect_err("no text");
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::BadPath, "The path `caf\\u{fffd}` is no UTF-8.")
    );
    let deepest = rel(&vec!["a"; PATH_PARTS_MAX].join("/"));
    assert_eq!(code(deepest.join("a")), Some(Code::BadPath));
    assert_eq!(code(file("/a").join(&deepest)), Some(Code::BadPath));
}

#[test]
fn a_folder_comes_before_what_is_in_it_and_that_before_its_next_sibling() {
    let mut paths = ["b", "a.x", "a/b", "a", "a/b/c", "a-b", "", "a!", "a/b.c", "ab"].map(rel);
    paths.sort();
    assert_eq!(paths.map(|path| path.0), ["", "a", "a/b", "a/b/c", "a/b.c", "a!", "a-b", "a.x", "ab", "b"]);
}

/// Texts of the pieces that ways out are made of, and of others.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        ".", "..", "/", "\\", "%", "2e", "2f", "5c", "25", "%2e", "%2f", "%25", "．", "／", "＼", "‥", "․",
        "\u{200b}", "C:", "a", "ب", "…", "\0", "EF", "BC", "8E", " ",
    ]);
    prop_oneof![prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat()), ".{0,40}"]
}

/// Every text that two rounds of decoding and a compatible form make of `text`, each taken apart at
/// every kind of slash: an own, slow reading to hold the verdict against.
fn careless(text: &str) -> Vec<String> {
    let mut all = vec![text.to_owned()];
    for _ in 0..2 {
        let last = all.last().cloned().unwrap_or_default();
        all.push(decoded(&reading(&last)));
    }
    all.iter().map(|text| reading(text)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4_000) })]

    #[test]
    fn what_is_taken_stays_where_it_is_however_often_it_is_read(text in texts()) {
        let absolute = FilePath::parse(&format!("/{text}"));
        let relative = RelPath::parse(&text);
        if !text.is_empty() {
            prop_assert_eq!(absolute.is_ok(), relative.is_ok());
        }
        let Ok(path) = relative else { return Ok(()) };
        for text in careless(path.as_str()) {
            let mut depth = 0_i32;
            prop_assert!(!text.starts_with('/'), "{}", text);
            for part in text.split('/') {
                depth += match part { "" | "." => 0, ".." => -1, _ => 1 };
                prop_assert!(depth >= 0, "{}", text);
            }
        }
        let joined = path.parts().try_fold(RelPath::root(), |folder, part| folder.join(part));
        prop_assert_eq!(joined.as_ref(), Ok(&path));
        let mut above = path.parent();
        while let Some(folder) = above {
            prop_assert!(folder < path && path.below(&folder).is_some());
            above = folder.parent();
        }
    }

    #[test]
    fn the_order_is_that_of_the_parts(a in "[ab./]{0,8}", b in "[ab./!]{0,8}") {
        let (Ok(a), Ok(b)) = (RelPath::parse(&a), RelPath::parse(&b)) else { return Ok(()) };
        let by_parts = a.parts().map(str::as_bytes).cmp(b.parts().map(str::as_bytes));
        prop_assert_eq!(a.cmp(&b), by_parts);
    }
}
