//! `cargo xtask`: the house rules as a program. One file per command.
//!
//! It must never depend on a crate of the product: it has to judge a tree that does not compile.

mod codes;
mod docs;
mod fuzz;
mod needs;
mod out;
mod picture;
mod reference;
mod repo;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

use crate::repo::Repo;

const USAGE: &str = "\
Usage: cargo xtask <command>

  test [--fast]    installs what the tests need, then runs every check and every test
                   (--fast leaves out clippy, doctests and the tests that start processes)
  ci               the same as `test`; what .ci/run calls
  tidy             the house rules: crate edges, purity of core, error pages, forgotten tests, sizes
  docs [--check]   regenerates the pages that are made from code; --check fails on a difference
  fuzz [TARGET] [--seconds N]   random inputs with coverage, 20 s per target; needs a C++ compiler
  picture          a terminal's screen on stdin (tmux capture-pane -p -e) as an SVG picture on stdout
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(Some(true)) => ExitCode::SUCCESS,
        Ok(Some(false)) => ExitCode::FAILURE,
        Ok(None) => {
            out::note(USAGE);
            ExitCode::from(2)
        }
        Err(error) => {
            out::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs one command. `None` when the words make no command, otherwise whether all was well.
fn run(words: &[&str]) -> Result<Option<bool>> {
    let well = match words {
        ["test"] | ["ci"] => test::run(&Repo::open()?, test::Extent::Full)?,
        ["test", "--fast"] => test::run(&Repo::open()?, test::Extent::Fast)?,
        ["tidy"] => tidy::run(&Repo::open()?)?,
        ["docs"] => docs::run(&Repo::open()?, docs::Mode::Write)?,
        ["docs", "--check"] => docs::run(&Repo::open()?, docs::Mode::Check)?,
        ["fuzz", rest @ ..] => match fuzzing(rest) {
            Some((target, seconds)) => fuzz::run(&Repo::open()?, target, seconds)?,
            None => return Ok(None),
        },
        ["picture"] => {
            let screen = std::io::read_to_string(std::io::stdin())?;
            out::line(picture::svg(&screen, "The first run of cortex in a terminal").trim_end());
            true
        }
        _ => return Ok(None),
    };
    Ok(Some(well))
}

/// A target, and seconds for each.
fn fuzzing<'a>(words: &[&'a str]) -> Option<(Option<&'a str>, u32)> {
    match words {
        [] => Some((None, 20)),
        ["--seconds", number] => Some((None, number.parse().ok()?)),
        [target] if !target.starts_with('-') => Some((Some(target), 20)),
        [target, "--seconds", number] => Some((Some(target), number.parse().ok()?)),
        _ => None,
    }
}
