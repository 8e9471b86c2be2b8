//! Forgotten files: a `.rs` file under `src/` or `tests/` that no target reaches is never
//! compiled, and a test in it never runs.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::source::{Line, Source};
use crate::repo::Repo;

/// Judges the whole checkout.
pub(super) fn check(repo: &Repo, sources: &[Source]) -> Vec<Violation> {
    let roots: Vec<String> =
        repo.packages.iter().flat_map(|p| &p.targets).map(|target| repo.relative(target)).collect();
    forgotten(&roots, sources)
}

fn forgotten(roots: &[String], sources: &[Source]) -> Vec<Violation> {
    let by_path: BTreeMap<&str, &Source> = sources.iter().map(|s| (s.path.as_str(), s)).collect();
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<(String, bool)> = roots.iter().map(|root| (root.clone(), true)).collect();
    while let Some((path, is_root)) = waiting.pop() {
        let Some(source) = by_path.get(path.as_str()) else { continue };
        if !reached.insert(path) {
            continue;
        }
        let children = modules(source, is_root).into_iter().flatten();
        waiting.extend(children.map(|child| (child, false)));
    }
    let lost = sources.iter().filter(|source| !reached.contains(&source.path));
    lost.map(|source| {
        Violation::new(&source.path, 1, "no target reaches this file", "declare it with `mod`, or remove it")
    })
    .collect()
}

/// For each `mod name;` of a file, where that module may lie.
fn modules(source: &Source, is_root: bool) -> Vec<Vec<String>> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = file.trim_end_matches(".rs");
    let inner = if is_root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut found = Vec::new();
    let mut named_path = None;
    for line in &source.lines {
        if let Some(path) = path_attribute(line) {
            named_path = Some(normal(&format!("{folder}/{path}")));
        } else if let Some(name) = declared_module(&line.code) {
            let usual = || vec![format!("{inner}/{name}.rs"), format!("{inner}/{name}/mod.rs")];
            found.push(named_path.take().map_or_else(usual, |path| vec![path]));
        }
    }
    found
}

/// `name` of a line `mod name;`, whatever its visibility.
fn declared_module(code: &str) -> Option<&str> {
    let name = code.trim().strip_suffix(';')?;
    let (before, name) = name.rsplit_once("mod ")?;
    let visible = before.is_empty() || before.ends_with(' ') && before.starts_with("pub");
    let attributed = before.trim_end().ends_with(']');
    let word = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    ((visible || attributed) && word).then_some(name)
}

/// The text of `#[path = "…"]`.
fn path_attribute(line: &Line) -> Option<&str> {
    line.code.trim().starts_with("#[path").then(|| line.raw.split('"').nth(1)).flatten()
}

/// `a/b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| *part != ".") {
        if part == ".." && parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(roots: &[&str], files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::parse(path, text)).collect();
        let roots: Vec<String> = roots.iter().map(|root| (*root).to_owned()).collect();
        forgotten(&roots, &sources).into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn a_test_file_that_nobody_declares_is_forgotten() {
        let files =
            [("c/tests/e2e/main.rs", "mod join;"), ("c/tests/e2e/join.rs", ""), ("c/tests/e2e/run.rs", "")];
        assert_eq!(lost(&["c/tests/e2e/main.rs"], &files), ["c/tests/e2e/run.rs"]);
    }

    #[test]
    fn modules_are_followed_from_file_to_folder() {
        let files = [
            ("c/src/lib.rs", "pub mod a;\npub(crate) mod b;\n"),
            ("c/src/a.rs", "mod deep;"),
            ("c/src/a/deep.rs", ""),
            ("c/src/b/mod.rs", "#[cfg(test)] mod inner;"),
            ("c/src/b/inner.rs", ""),
        ];
        assert_eq!(lost(&["c/src/lib.rs"], &files), [""; 0]);
    }

    #[test]
    fn a_module_with_a_path_of_its_own_is_followed() {
        let files = [("c/tests/a.rs", "#[path = \"../shared/x.rs\"]\nmod x;"), ("c/shared/x.rs", "")];
        assert_eq!(lost(&["c/tests/a.rs"], &files), [""; 0]);
    }

    #[test]
    fn a_declaration_in_a_comment_reaches_nothing() {
        let files = [("c/src/lib.rs", "// mod a;\n"), ("c/src/a.rs", "")];
        assert_eq!(lost(&["c/src/lib.rs"], &files), ["c/src/a.rs"]);
    }
}
