//! `cargo xtask docs`: the pages that are made from code, so that they cannot disagree with it.
//!
//! A page is a path and a function that makes its text. `--check` writes nothing.

use std::fs;

use anyhow::{Context, Result};

use crate::out;
use crate::repo::Repo;
use crate::tidy::{ERROR_TABLE, Entry, PAGES, entries};

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
    let pages = [(format!("{PAGES}/README.md"), errors(&entries(&repo.read(ERROR_TABLE)?)?))];
    let mut well = true;
    for (path, text) in pages {
        if repo.read(&path).is_ok_and(|there| there == text) {
            continue;
        }
        match mode {
            Mode::Write => {
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
        "<!-- Made by `cargo xtask docs` from {ERROR_TABLE}; edit that file. -->\n\
         # Error codes\n\n\
         Every refusal has one of these codes, on every surface, with a sentence and a hint.\n\n\
         | code | meaning | what to do |\n|---|---|---|\n"
    );
    for Entry { code, meaning, hint, .. } in entries {
        text.push_str(&format!("| [`{code}`]({code}.md) | {} | {} |\n", cell(meaning), cell(hint)));
    }
    text
}

/// Text that does not end its table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_has_a_row_for_each_code() {
        let entry =
            Entry { code: "late".into(), meaning: "It is a|b.".into(), hint: "Wait.".into(), line: 1 };
        let text = errors(&[entry]);
        assert!(text.ends_with("|---|---|---|\n| [`late`](late.md) | It is a\\|b. | Wait. |\n"), "{text}");
    }
}
