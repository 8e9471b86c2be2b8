//! `cargo xtask tidy`: the rules that no compiler knows. One file per subject under `tidy/`.
//!
//! A rule says where, what, and what to do. It must never rewrite a file.

mod banned;
mod core_purity;
mod edges;
mod pages;
mod papers;
mod reached;
mod rows;
mod sizes;
mod source;
mod text;

use std::fmt;

use anyhow::Result;

pub(crate) use self::pages::PAGES;
use self::source::Source;
use crate::out;
use crate::repo::Repo;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    /// The file, relative to the checkout.
    path: String,
    /// The line; 1 when the whole file is meant.
    line: usize,
    /// What is wrong.
    what: String,
    /// What to do about it.
    remedy: String,
}

impl Violation {
    fn new(path: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} → {}", self.path, self.line, self.what, self.remedy)
    }
}

/// Judges the whole checkout, prints what is wrong and what is long. Whether all was well.
pub(crate) fn run(repo: &Repo) -> Result<bool> {
    let sources = sources(repo)?;
    let mut found = edges::check(repo)?;
    found.extend(banned::check(repo)?);
    found.extend(core_purity::check_tree(repo)?);
    found.extend(pages::check(repo)?);
    found.extend(papers::check(repo)?);
    found.extend(reached::check(repo, &sources));
    for source in &sources {
        found.extend(core_purity::check_source(source));
        found.extend(text::check(source));
    }
    found.sort();
    out::line(&sizes::report(&sources));
    out::line(&rows::report(&sources));
    found.iter().for_each(|violation| out::line(&violation.to_string()));
    out::line(&format!("tidy: {} files, {} to mend", sources.len(), found.len()));
    Ok(found.is_empty())
}

fn sources(repo: &Repo) -> Result<Vec<Source>> {
    repo.sources()?.iter().map(|path| Ok(Source::parse(path, &repo.read(path)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_one_line_that_says_where_what_and_what_to_do() {
        let violation = Violation::new("crates/a/src/b.rs", 7, "`todo!`", "write it");
        assert_eq!(violation.to_string(), "crates/a/src/b.rs:7: `todo!` → write it");
    }
}
