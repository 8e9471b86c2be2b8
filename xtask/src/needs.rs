//! What the tests need beside a Rust toolchain and a C compiler, in one table with the reason,
//! and how it is installed.
//!
//! It says what it is about to do. It asks only on a terminal, and it never removes anything.

use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::out;
use crate::repo::cargo;

/// The runner, by the version that the configuration under `.config` was written for.
const NEXTEST: &str = "cargo-nextest@0.9.143";

/// A program from the distribution.
struct Need {
    /// Found on the path when it is there.
    program: &'static str,
    /// The Debian package that has it.
    package: &'static str,
    /// What for.
    reason: &'static str,
    /// The tests that say "left out" without it.
    tests: &'static str,
}

/// Programs beside the runner, `sh`, the core utilities with those of util-linux, and the C compiler, which
/// is there since Rust links with it.
const PROGRAMS: &[Need] = &[
    needed("git", "git", "is cloned with inside the walls", "a_repository_is_made_and_cloned…"),
    needed("make", "make", "builds inside the walls", "make_runs_targets_side_by_side…"),
    needed("python3", "python3", "works inside the walls", "python_starts_processes…"),
    needed("node", "nodejs", "works inside the walls", "node_starts_processes_and_threads…"),
    needed("npm", "npm", "works inside the walls", "node_starts_processes_and_threads…"),
];

const fn needed(
    program: &'static str,
    package: &'static str,
    reason: &'static str,
    tests: &'static str,
) -> Need {
    Need { program, package, reason, tests }
}

/// Sees to it that all is there. An error only when no test could run at all.
pub(crate) fn install(root: &Path) -> Result<()> {
    if !has_runner(root) {
        install_runner(root)?;
    }
    let missing: Vec<&Need> = PROGRAMS.iter().filter(|need| !on_path(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.iter().for_each(|need| out::note(&told(need)));
    if !may_use_apt() || !agreed("Install them with apt-get?") || !apt(&missing) {
        missing.iter().for_each(|need| out::note(&left_out(need)));
    }
    Ok(())
}

fn has_runner(root: &Path) -> bool {
    answers(cargo(root).args(["nextest", "--version"]))
}

fn install_runner(root: &Path) -> Result<()> {
    out::note(&format!(
        "the tests need {NEXTEST} (one process per test): `cargo install --locked {NEXTEST}`"
    ));
    if !agreed("Install it into cargo's own folder?") {
        bail!("no test can run without it; install it with `cargo install --locked {NEXTEST}`");
    }
    if !cargo(root).args(["install", "--locked", NEXTEST]).status()?.success() || !has_runner(root) {
        bail!("it could not be installed; see above, then try `cargo install --locked {NEXTEST}`");
    }
    Ok(())
}

/// Asks on a terminal; elsewhere nobody could answer, and the answer is yes.
fn agreed(question: &str) -> bool {
    if !stdin().is_terminal() {
        return true;
    }
    out::note(&format!("{question} [Y/n]"));
    let mut answer = String::new();
    stdin().read_line(&mut answer).is_ok_and(|length| length > 0) && is_yes(&answer)
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes")
}

fn told(need: &Need) -> String {
    format!("the tests use {} ({}) from the package {}", need.program, need.reason, need.package)
}

fn left_out(need: &Need) -> String {
    format!("{} is not there: left out are the tests {}", need.program, need.tests)
}

fn may_use_apt() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|told| told.stdout == b"0\n");
    root && on_path("apt-get")
}

fn apt(missing: &[&Need]) -> bool {
    let packages = missing.iter().map(|need| need.package);
    let get = |words: &mut dyn Iterator<Item = &'static str>| {
        let mut command = Command::new("apt-get");
        command.args(words).env("DEBIAN_FRONTEND", "noninteractive").status().is_ok_and(|done| done.success())
    };
    get(&mut ["update"].into_iter())
        && get(&mut ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

fn answers(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_yes_or_return_is_consent() {
        for yes in ["\n", "y\n", "YES\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["n\n", "no\n", "what\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }

    #[test]
    fn a_program_is_found_on_the_path_or_is_missing() {
        assert!(on_path("cargo"));
        assert!(!on_path("no-such-program-of-ours"));
    }

    #[test]
    fn a_command_that_fails_or_is_not_there_does_not_answer() {
        assert!(answers(Command::new("cargo").arg("--version")));
        assert!(!answers(Command::new("cargo").arg("no-such-subcommand")));
        assert!(!answers(&mut Command::new("no-such-program-of-ours")));
    }
}
