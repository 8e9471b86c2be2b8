//! The core decides and does nothing else: no clock, I/O, thread, async or serde in it, nor in
//! what it depends on. And gRPC types stay at the door (EXAMPLES 1 and 7).

use anyhow::Result;

use super::Violation;
use super::source::Source;
use crate::repo::{Repo, cargo, output};

/// Packages, by the beginning of their names, that must not be below core.
const FOREIGN_PACKAGES: &[&str] =
    &["tokio", "serde", "async-", "futures", "mio", "hyper", "tonic", "axum", "rusqlite", "nix"];

/// Words that must not be in core's code, with what to do.
const FOREIGN_WORDS: &[(&str, &str)] = &[
    ("Instant", "take `now: Timestamp` as an argument"),
    ("SystemTime", "take `now: WallTime` as an argument"),
    ("std::thread", "leave threads to the driver"),
    ("std::fs", "return an action that the driver carries out"),
    ("std::net", "return an action that the driver carries out"),
    ("std::process", "return an action that the driver carries out"),
    ("std::env", "take it as an argument"),
    ("tokio", "leave it to the driver"),
    ("serde", "put the shape into cortex-wire, with a conversion"),
    ("async fn", "make it a decision or a machine (DESIGN §2)"),
    (".await", "make it a decision or a machine (DESIGN §2)"),
];

/// Where `tonic::` may stand.
const GRPC_DOORS: &[&str] = &[
    "crates/wire/",
    "crates/hub/src/grpc",
    "crates/node/src/link",
    "crates/node/src/channel",
    "crates/node/src/enrol",
];

/// Judges what core depends on.
pub(super) fn check_tree(repo: &Repo) -> Result<Vec<Violation>> {
    let args = ["tree", "--package", "cortex-core", "--edges", "normal", "--prefix", "none", "--locked"];
    let tree = output(cargo(&repo.root).args(args))?;
    Ok(foreign_packages(&tree).into_iter().map(|name| below_core(&name)).collect())
}

fn below_core(name: &str) -> Violation {
    let what = format!("core depends on {name}");
    let remedy = format!("see `cargo tree -p cortex-core -i {name}`, and leave it to another crate");
    Violation::new("crates/core/Cargo.toml", 1, what, remedy)
}

fn foreign_packages(tree: &str) -> Vec<String> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<String> = names
        .filter(|name| FOREIGN_PACKAGES.iter().any(|f| name.starts_with(f)))
        .map(str::to_owned)
        .collect();
    found.sort();
    found.dedup();
    found
}

/// Judges the words of one file.
pub(super) fn check_source(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    let core = source.path.starts_with("crates/core/src/");
    let door = GRPC_DOORS.iter().any(|door| source.path.starts_with(door));
    let ours = source.path.starts_with("crates/") && source.path.contains("/src/");
    let product = ours && !source.path.contains("/tests/");
    for (number, line) in source.numbered() {
        for (word, remedy) in FOREIGN_WORDS.iter().filter(|(word, _)| core && has_word(&line.code, word)) {
            found.push(Violation::new(&source.path, number, format!("`{word}` in core"), *remedy));
        }
        if product && !door && has_word(&line.code, "tonic::") {
            let remedy = "convert it in cortex-wire, or move the code to grpc/ or link";
            found.push(Violation::new(&source.path, number, "`tonic::` away from the gRPC door", remedy));
        }
    }
    found
}

/// Whether `code` has `word` with no letter, digit or `_` before or after it.
pub(super) fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back().is_some_and(|c| part(c) && word.starts_with(part));
        let after = code[at + word.len()..].chars().next().is_some_and(|c| part(c) && word.ends_with(part));
        !before && !after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(path: &str, text: &str) -> Vec<String> {
        check_source(&Source::parse(path, text)).into_iter().map(|violation| violation.what).collect()
    }

    #[test]
    fn a_runtime_below_core_is_found_once() {
        let tree =
            "cortex-core v0.1.0 (/r)\ntokio v1.54.0\nbytes v1.0.0\ntokio v1.54.0 (*)\nserde_core v1.0.0\n";
        assert_eq!(foreign_packages(tree), ["serde_core", "tokio"]);
    }

    #[test]
    fn plain_packages_below_core_are_fine() {
        assert_eq!(foreign_packages("cortex-core v0.1.0 (/r)\nthiserror v2.0.0\nuuid v1.0.0\n"), [""; 0]);
    }

    #[test]
    fn a_clock_in_core_is_found() {
        let text = "//! x\nuse std::time::Instant;\nlet a = SystemTime::now();\n";
        assert_eq!(judged("crates/core/src/a.rs", text), ["`Instant` in core", "`SystemTime` in core"]);
    }

    #[test]
    fn effects_and_async_in_core_are_found() {
        for code in
            ["std::fs::read(p)", "std::thread::spawn(f)", "async fn f() {}", "use tokio::sync;", "a.await"]
        {
            assert_eq!(judged("crates/core/src/a.rs", code).len(), 1, "{code}");
        }
    }

    #[test]
    fn comments_texts_and_longer_words_in_core_are_fine() {
        let text = "// Instant::now is not for us\nlet a = \"tokio\";\nstruct Instantly;\n";
        assert_eq!(judged("crates/core/src/a.rs", text), [""; 0]);
    }

    #[test]
    fn clocks_outside_of_core_are_fine() {
        assert_eq!(judged("crates/node/src/clock.rs", "Instant::now()"), [""; 0]);
    }

    #[test]
    fn grpc_is_for_its_doors() {
        let code = "use tonic::Status;";
        assert_eq!(judged("crates/hub/src/service/runs.rs", code).len(), 1);
        for door in ["crates/hub/src/grpc/mesh.rs", "crates/node/src/link.rs", "crates/wire/src/lib.rs"] {
            assert_eq!(judged(door, code), [""; 0], "{door}");
        }
        for other in ["crates/hub/tests/attach.rs", "crates/hub/src/hub/tests/door.rs", "bench/src/swarm.rs"]
        {
            assert_eq!(judged(other, code), [""; 0], "{other}");
        }
    }
}
