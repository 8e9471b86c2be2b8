//! A page under `docs/errors/` for each error code, true to the tables, and no page without a code.

use std::fs;

use anyhow::{Context, Result};

use super::Violation;
use crate::codes::{self, CODES, Entry};
use crate::repo::Repo;

/// The folder of the pages.
pub(crate) const PAGES: &str = "docs/errors";
/// What every page has, in this order.
const SECTIONS: &[&str] = &["## What it means", "## Why it happens", "## What to do", "## Where it shows"];

/// Judges the pages.
pub(super) fn check(repo: &Repo) -> Result<Vec<Violation>> {
    let entries = codes::read(repo)?;
    let mut found = Vec::new();
    for entry in &entries {
        let path = format!("{PAGES}/{}.md", entry.code);
        match repo.read(&path) {
            Ok(page) => found.extend(judge(&path, entry, &page)),
            Err(_) => found.push(missing(entry, &path)),
        }
    }
    let folder = repo.root.join(PAGES);
    if !folder.is_dir() {
        return Ok(found);
    }
    for name in fs::read_dir(folder).context("list the error pages")? {
        let name = name?.file_name().to_string_lossy().into_owned();
        found.extend(orphan(&name, &entries));
    }
    Ok(found)
}

fn missing(entry: &Entry, path: &str) -> Violation {
    let what = format!("the code `{}` has no page", entry.code);
    Violation::new(CODES, entry.line, what, format!("write {path}"))
}

/// What is wrong with one page.
fn judge(path: &str, entry: &Entry, page: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut need = |good: bool, what: String, remedy: &str| {
        if !good {
            found.push(Violation::new(path, 1, what, remedy));
        }
    };
    let title = format!("# {}", entry.code);
    need(page.lines().next() == Some(&title), format!("does not begin with `{title}`"), "give it that title");
    let mut last = 0;
    for section in SECTIONS {
        let at = page.lines().position(|line| line == *section);
        let good = at.is_some_and(|at| at > last);
        need(good, format!("has no section `{section}` in its place"), "write it; see the other pages");
        last = at.unwrap_or(last);
    }
    for row in rows(entry) {
        let there = page.lines().any(|line| line == row);
        need(there, format!("has no row `{row}`"), "say what the table in cortex-wire says");
    }
    found
}

/// The rows of the last section.
fn rows(entry: &Entry) -> [String; 4] {
    let surface = &entry.surface;
    let again = if surface.retryable { "may succeed" } else { "does not help" };
    [
        format!("| HTTP | {} |", surface.http),
        format!("| gRPC | {} |", surface.grpc),
        format!("| exit code | {} |", surface.exit),
        format!("| the same again later | {again} |"),
    ]
}

fn orphan(name: &str, entries: &[Entry]) -> Option<Violation> {
    let known = name == "README.md" || entries.iter().any(|entry| name == format!("{}.md", entry.code));
    let what = "a page without a code";
    (!known)
        .then(|| Violation::new(&format!("{PAGES}/{name}"), 1, what, "remove it, or add its code to core"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# late\n\n## What it means\nx\n## Why it happens\nx\n## What to do\nx\n## Where it shows\n| HTTP | 504 |\n| gRPC | DEADLINE_EXCEEDED |\n| exit code | 124 |\n| the same again later | may succeed |\n";

    fn late() -> Entry {
        codes::example("late", "504", "DEADLINE_EXCEEDED", "124")
    }

    #[test]
    fn a_whole_page_is_fine() {
        assert_eq!(judge("docs/errors/late.md", &late(), PAGE), []);
    }

    #[test]
    fn a_page_with_another_title_or_without_a_section_or_with_a_wrong_row_is_not() {
        let judged = |page: &str| judge("p", &late(), page).into_iter().map(|v| v.what).collect::<Vec<_>>();
        assert_eq!(judged(&PAGE.replace("# late", "# Late")), ["does not begin with `# late`"]);
        let without = PAGE.replace("## What to do", "");
        assert_eq!(judged(&without), ["has no section `## What to do` in its place"]);
        assert_eq!(judged(&PAGE.replace("504", "503")), ["has no row `| HTTP | 504 |`"]);
    }

    #[test]
    fn a_page_without_a_code_is_found_and_the_index_is_none() {
        assert!(orphan("early.md", &[late()]).is_some());
        assert_eq!(orphan("late.md", &[late()]), None);
        assert_eq!(orphan("README.md", &[late()]), None);
    }

    #[test]
    fn a_code_without_a_page_is_told_at_its_row() {
        let told = missing(&late(), "docs/errors/late.md").to_string();
        assert_eq!(
            told,
            "crates/core/src/error.rs:4: the code `late` has no page → write docs/errors/late.md"
        );
    }
}
