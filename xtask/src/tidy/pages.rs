//! A page under `docs/errors/` for each error code, and no page without a code.

use std::fs;

use anyhow::{Context, Result, bail};

use super::Violation;
use crate::repo::Repo;

/// The file with the table of codes.
pub(crate) const ERROR_TABLE: &str = "crates/core/src/error.rs";
/// The folder of the pages.
pub(crate) const PAGES: &str = "docs/errors";
/// What every page has, in this order.
const SECTIONS: &[&str] = &["## What it means", "## Why it happens", "## What to do", "## Where it shows"];
/// The rows of the last section.
const SURFACES: &[&str] = &["| HTTP |", "| gRPC |", "| exit code |"];

/// One row of the table of codes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `policy_denied`.
    pub(crate) code: String,
    /// The sentence above it.
    pub(crate) meaning: String,
    /// The code's own hint.
    pub(crate) hint: String,
    /// Its line in the table's file.
    pub(crate) line: usize,
}

/// Judges the pages.
pub(super) fn check(repo: &Repo) -> Result<Vec<Violation>> {
    let entries = entries(&repo.read(ERROR_TABLE)?)?;
    let mut found = Vec::new();
    for entry in &entries {
        let path = format!("{PAGES}/{}.md", entry.code);
        match repo.read(&path) {
            Ok(page) => found.extend(judge(&path, &entry.code, &page)),
            Err(_) => found.push(missing(entry, &path)),
        }
    }
    let names = fs::read_dir(repo.root.join(PAGES)).context("list the error pages")?;
    for name in names {
        let name = name?.file_name().to_string_lossy().into_owned();
        found.extend(orphan(&name, &entries));
    }
    Ok(found)
}

/// The rows of `codes! { … }`. An error when there is a row that cannot be read.
pub(crate) fn entries(table: &str) -> Result<Vec<Entry>> {
    let (mut found, mut meaning, mut inside) = (Vec::new(), String::new(), false);
    for (index, line) in table.lines().enumerate() {
        let text = line.trim();
        if !inside {
            inside = line == "codes! {";
        } else if line == "}" {
            return Ok(found);
        } else if let Some(doc) = text.strip_prefix("///") {
            meaning = format!("{meaning} {}", doc.trim()).trim().to_owned();
        } else if !text.is_empty() {
            let parts: Vec<&str> = text.split('"').collect();
            let [_, code, _, hint, ";"] = parts.as_slice() else {
                bail!("{ERROR_TABLE}:{}: not a row of the table of codes: {text}", index + 1);
            };
            let meaning = std::mem::take(&mut meaning);
            let (code, hint) = ((*code).to_owned(), (*hint).to_owned());
            found.push(Entry { code, meaning, hint, line: index + 1 });
        }
    }
    bail!("{ERROR_TABLE}: there is no table `codes! {{ … }}`")
}

fn missing(entry: &Entry, path: &str) -> Violation {
    let what = format!("the code `{}` has no page", entry.code);
    Violation::new(ERROR_TABLE, entry.line, what, format!("write {path}"))
}

/// What is wrong with one page.
fn judge(path: &str, code: &str, page: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut need = |good: bool, what: String, remedy: &str| {
        if !good {
            found.push(Violation::new(path, 1, what, remedy));
        }
    };
    let title = format!("# {code}");
    need(page.lines().next() == Some(&title), format!("does not begin with `{title}`"), "give it that title");
    let mut last = 0;
    for section in SECTIONS {
        let at = page.lines().position(|line| line == *section);
        let good = at.is_some_and(|at| at > last);
        need(good, format!("has no section `{section}` in its place"), "write it; see the other pages");
        last = at.unwrap_or(last);
    }
    for surface in SURFACES {
        let there = page.lines().any(|line| line.starts_with(surface));
        need(there, format!("has no row `{surface}`"), "say how that surface shows it");
    }
    found
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

    const TABLE: &str =
        "codes! {\n    /// It is\n    /// late.\n    Late = \"late\", \"Come `earlier`.\";\n}\n";
    const PAGE: &str = "# late\n\n## What it means\nx\n## Why it happens\nx\n## What to do\nx\n## Where it shows\n| HTTP | 504 |\n| gRPC | DEADLINE_EXCEEDED |\n| exit code | 124 |\n";

    fn late() -> Entry {
        Entry {
            code: "late".to_owned(),
            meaning: "It is late.".to_owned(),
            hint: "Come `earlier`.".to_owned(),
            line: 4,
        }
    }

    #[test]
    fn the_table_of_codes_is_read() {
        assert_eq!(entries(TABLE).expect("a table"), [late()]);
    }

    #[test]
    fn a_row_that_cannot_be_read_is_an_error_and_so_is_no_table() {
        let error = entries("codes! {\n    Late = 3;\n}\n").expect_err("no row");
        assert!(error.to_string().contains("error.rs:2"), "{error}");
        assert!(entries("enum Code {}\n").is_err());
    }

    #[test]
    fn a_whole_page_is_fine() {
        assert_eq!(judge("docs/errors/late.md", "late", PAGE), []);
    }

    #[test]
    fn a_page_with_another_title_or_without_a_section_or_surface_is_not() {
        let judged = |page: &str| judge("p", "late", page).into_iter().map(|v| v.what).collect::<Vec<_>>();
        assert_eq!(judged(&PAGE.replace("# late", "# Late")), ["does not begin with `# late`"]);
        let without = PAGE.replace("## What to do", "");
        assert_eq!(judged(&without), ["has no section `## What to do` in its place"]);
        assert_eq!(judged(&PAGE.replace("| gRPC |", "| grpc |")), ["has no row `| gRPC |`"]);
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
