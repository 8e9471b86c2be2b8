//! `cargo xtask docs`: the pages that are made from code, so that they cannot disagree with it.
//!
//! A page is a path and a function that makes its text. `--check` writes nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::codes::{self, CODES, Entry};
use crate::out;
use crate::reference;
use crate::repo::Repo;
use crate::tidy::PAGES;

/// What to do with a page that differs from what the code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it.
    Write,
    /// Complain.
    Check,
}

/// Makes every page. Whether all was well.
pub(crate) fn run(repo: &Repo, mode: Mode) -> Result<bool> {
    let mut pages = vec![(format!("{PAGES}/README.md"), errors(&codes::read(repo)?))];
    pages.extend(reference::pages(repo)?);
    let mut well = true;
    for (path, text) in pages {
        if repo.read(&path).is_ok_and(|there| there == text) {
            continue;
        }
        match mode {
            Mode::Write => {
                let folder = repo.root.join(&path).parent().map(Path::to_owned).unwrap_or_default();
                fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
                fs::write(repo.root.join(&path), &text).with_context(|| format!("write {path}"))?;
                out::line(&format!("wrote {path}"));
            }
            Mode::Check => {
                out::line(&format!("{path}:1: differs from what the code says → run `cargo xtask docs`"));
                well = false;
            }
        }
    }
    Ok(well)
}

/// The index of the error pages.
fn errors(entries: &[Entry]) -> String {
    let mut text = format!(
        "<!-- Made by `cargo xtask docs` from {CODES}; edit that file. -->\n\
         # Error codes\n\n\
         Every refusal has one of these codes, on every surface, with a sentence and a hint.\n\n\
         | code | meaning | what to do | HTTP | gRPC | exit |\n|---|---|---|---|---|---|\n"
    );
    for Entry { code, meaning, hint, surface, .. } in entries {
        let (meaning, hint) = (cell(meaning), cell(hint));
        text.push_str(&format!(
            "| [`{code}`]({code}.md) | {meaning} | {hint} | {} | {} | {} |\n",
            surface.http, surface.grpc, surface.exit
        ));
    }
    text
}

/// Text that does not end its table cell.
pub(crate) fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_has_a_row_for_each_code() {
        let text = errors(&[codes::example("late", "504", "DEADLINE_EXCEEDED", "124")]);
        let row = "| [`late`](late.md) | It is a\\|b. | Wait. | 504 | DEADLINE_EXCEEDED | 124 |\n";
        assert!(text.ends_with(row), "{text}");
    }
}
