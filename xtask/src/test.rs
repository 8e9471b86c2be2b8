//! `cargo xtask test`: everything that has to hold, in one command. The runner comes last, so that
//! its own summary closes the output.
//!
//! A failed step does not stop the next one, so that one round tells everything; the exit code is
//! that of all of them together.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::repo::{Repo, cargo};
use crate::{docs, needs, out, tidy};

/// How much is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Full,
    /// Without clippy, doctests and the tests that start processes.
    Fast,
}

/// The crash points that the kill tests need; compiled in for tests only.
const TEST_FEATURE: &str = "failpoints";
/// What the runner leaves out: the tests that start processes, by the expression of
/// `.config/nextest.toml`.
const WITHOUT_PROCESSES: &str =
    "not (kind(test) and (binary(/abuse|e2e|kill|xtask/) or package(/^cortex(-node)?$/)))";

/// Runs every step. Whether all was well.
pub(crate) fn run(repo: &Repo, extent: Extent) -> Result<bool> {
    needs::install(&repo.root)?;
    let features = repo.with_feature(TEST_FEATURE).join(",");
    let mut steps = Steps::default();
    steps.run("format", || status(cargo(&repo.root).args(["fmt", "--all", "--", "--check"])))?;
    steps.run("tidy", || tidy::run(repo))?;
    steps.run("docs", || docs::run(repo, docs::Mode::Check))?;
    if extent == Extent::Full {
        steps.run("clippy", || status(clippy(repo, &features)))?;
        steps.run("doctests", || status(doctests(repo, &features)))?;
    } else {
        out::note("left out by --fast: clippy, doctests, and the tests that start processes");
    }
    out::note(&steps.told());
    let tested = status(&mut nextest(repo, &features, extent))?;
    Ok(steps.failed().is_empty() && tested)
}

/// What was done so far, how long it took, and how it ended.
#[derive(Default)]
struct Steps(Vec<(&'static str, Duration, bool)>);

impl Steps {
    fn run(&mut self, name: &'static str, work: impl FnOnce() -> Result<bool>) -> Result<()> {
        out::note(&format!("==> {name}"));
        let began = Instant::now();
        let well = work().with_context(|| format!("run {name}"))?;
        let took = began.elapsed();
        out::note(&ended(name, took, well));
        self.0.push((name, took, well));
        Ok(())
    }

    fn failed(&self) -> Vec<&'static str> {
        self.0.iter().filter(|(_, _, well)| !well).map(|(name, ..)| *name).collect()
    }

    /// The steps before the runner, in one or two lines.
    fn told(&self) -> String {
        let times: Vec<String> =
            self.0.iter().map(|(name, took, _)| format!("{name} {:.1} s", took.as_secs_f64())).collect();
        let failed = self.failed();
        let verdict = if failed.is_empty() {
            "all well so far".to_owned()
        } else {
            format!("FAILED: {}; the exit code will say so, whatever the tests do", failed.join(", "))
        };
        format!("==> {}; {verdict}\n==> tests", times.join(", "))
    }
}

fn ended(name: &str, took: Duration, well: bool) -> String {
    let word = if well { "ok" } else { "FAILED" };
    format!("==> {name}: {word} after {:.1} s", took.as_secs_f64())
}

fn clippy(repo: &Repo, features: &str) -> Command {
    let mut command = cargo(&repo.root);
    command.args(["clippy", "--workspace", "--all-targets", "--keep-going"]);
    with_features(&mut command, features).args(["--", "-D", "warnings"]);
    command
}

fn doctests(repo: &Repo, features: &str) -> Command {
    let mut command = cargo(&repo.root);
    with_features(command.args(["test", "--doc", "--workspace", "--quiet"]), features);
    command
}

fn nextest(repo: &Repo, features: &str, extent: Extent) -> Command {
    let mut command = cargo(&repo.root);
    with_features(command.args(["nextest", "run", "--workspace"]), features);
    if extent == Extent::Fast {
        command.args(["--filterset", WITHOUT_PROCESSES]);
    }
    command
}

fn with_features<'a>(command: &'a mut Command, features: &str) -> &'a mut Command {
    if features.is_empty() { command } else { command.args(["--features", features]) }
}

fn status(mut command: impl std::borrow::BorrowMut<Command>) -> Result<bool> {
    let command = command.borrow_mut();
    Ok(command.status().with_context(|| format!("start {command:?}"))?.success())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn words(command: &Command) -> Vec<String> {
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn repo() -> Repo {
        Repo { root: PathBuf::from("."), packages: Vec::new() }
    }

    #[test]
    fn the_runner_gets_the_features_and_leaves_out_processes_when_fast() {
        let full = nextest(&repo(), "cortex-store/failpoints", Extent::Full);
        assert_eq!(words(&full), ["nextest", "run", "--workspace", "--features", "cortex-store/failpoints"]);
        let fast = nextest(&repo(), "", Extent::Fast);
        assert_eq!(words(&fast), ["nextest", "run", "--workspace", "--filterset", WITHOUT_PROCESSES]);
    }

    #[test]
    fn a_failed_step_is_remembered_and_the_next_one_runs() {
        let mut steps = Steps::default();
        steps.run("format", || Ok(false)).expect("no error");
        steps.run("tidy", || Ok(true)).expect("no error");
        assert_eq!(steps.failed(), ["format"]);
        assert!(steps.told().contains("FAILED: format; the exit code"), "{}", steps.told());
    }

    #[test]
    fn a_step_that_cannot_run_is_an_error_that_names_it() {
        let error = Steps::default().run("clippy", || anyhow::bail!("no cargo")).expect_err("it fails");
        assert_eq!(format!("{error:#}"), "run clippy: no cargo");
    }
}
