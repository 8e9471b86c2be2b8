//! The papers: links between them lead somewhere, and the map and the decisions stay short enough
//! to be read.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Violation;
use crate::repo::Repo;

/// Folders with papers, and the longest that a paper in them may be, lines.
const FOLDERS: &[(&str, usize)] = &[
    ("", usize::MAX),
    ("docs", usize::MAX),
    ("docs/adr", 60),
    ("docs/errors", usize::MAX),
    ("docs/guide", usize::MAX),
];
/// Papers with a bound of their own.
const BOUNDS: &[(&str, usize)] = &[("ARCHITECTURE.md", 250)];

/// Judges every paper.
pub(super) fn check(repo: &Repo) -> Result<Vec<Violation>> {
    let mut found = Vec::new();
    for (folder, bound) in FOLDERS {
        for path in papers(repo, folder)? {
            let bound = BOUNDS.iter().find(|(name, _)| *name == path).map_or(*bound, |(_, own)| *own);
            let text = repo.read(&path)?;
            found.extend(too_long(&path, &text, bound));
            let broken = links(&text).into_iter().filter(|(_, to)| !leads(&repo.root, folder, to));
            found.extend(broken.map(|(line, to)| broken_link(&path, line, to)));
        }
    }
    Ok(found)
}

fn papers(repo: &Repo, folder: &str) -> Result<Vec<String>> {
    let dir = repo.root.join(folder);
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "md") {
            found.push(repo.relative(&path));
        }
    }
    Ok(found)
}

fn too_long(path: &str, text: &str, bound: usize) -> Option<Violation> {
    let lines = text.lines().count();
    let what = format!("{lines} lines, and at most {bound} are read");
    (lines > bound).then(|| Violation::new(path, bound, what, "say it shorter"))
}

fn broken_link(path: &str, line: usize, to: &str) -> Violation {
    Violation::new(
        path,
        line,
        format!("the link `{to}` leads nowhere"),
        "correct it, or write what it promises",
    )
}

/// Whether a link from a paper in `folder` leads to something that is there.
fn leads(root: &Path, folder: &str, to: &str) -> bool {
    let file = to.split('#').next().unwrap_or_default();
    file.is_empty() || root.join(folder).join(file).exists()
}

/// The links to other files with their lines; examples in fences and comments are none.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        let shown = line.split("<!--").next().unwrap_or_default();
        let targets = shown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let inner = targets.filter(|to| !to.contains("://") && !to.starts_with("mailto:"));
        found.extend(inner.map(|to| (index + 1, to)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_outside_of_fences_and_comments() {
        let text = "[a](a.md) and [b](https://b.example)\n```\n[c](c.md)\n```\n![d](img/d.svg) [e](#here) <!-- [f](f.md) -->\n";
        assert_eq!(links(text), [(1, "a.md"), (5, "img/d.svg"), (5, "#here")]);
    }

    #[test]
    fn a_link_leads_to_a_file_beside_the_paper_or_above_it() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(leads(here, "src", "main.rs"));
        assert!(leads(here, "src", "../Cargo.toml#dependencies"));
        assert!(leads(here, "src", "#here"));
        assert!(!leads(here, "src", "no-such-file.md"));
    }

    #[test]
    fn a_paper_above_its_bound_is_told_so() {
        assert_eq!(too_long("a.md", "1\n2\n", 2), None);
        let told = too_long("a.md", "1\n2\n3\n", 2).expect("too long").to_string();
        assert_eq!(told, "a.md:2: 3 lines, and at most 2 are read → say it shorter");
    }
}
