//! `cargo xtask fuzz`: builds the targets of `fuzz/` with coverage and lets each run for a time.
//!
//! It works with the stable compiler: the coverage that libFuzzer reads is a pass of LLVM. It judges
//! nothing but crashes; what a target asserts stands in its file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::out;
use crate::repo::{Repo, cargo};

/// What makes the compiler count which code was reached.
const COVERAGE: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
     -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table \
     -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Longest input, bytes. What is longer is refused by bounds that have tests of their own.
const INPUT_BYTES_MAX: u32 = 8_192;

/// What became of one target.
struct Outcome {
    name: String,
    executions: u64,
    /// The input that crashed it, when one did.
    crash: Option<PathBuf>,
}

/// Runs all targets, or one, each for `seconds`. Whether none crashed.
pub(crate) fn run(repo: &Repo, only: Option<&str>, seconds: u32) -> Result<bool> {
    let folder = repo.root.join("fuzz");
    let names: Vec<String> =
        targets(&folder)?.into_iter().filter(|name| only.is_none_or(|only| only == name)).collect();
    if names.is_empty() {
        bail!("there is no such target; the files of fuzz/targets are named after them");
    }
    let built = build(&repo.root, &folder, &names)?;
    let mut outcomes = Vec::new();
    for name in names {
        out::note(&format!("==> {name} for {seconds} s"));
        outcomes.push(fuzz(&folder, &built.join(&name), name, seconds)?);
    }
    for Outcome { name, executions, crash } in &outcomes {
        let crash =
            crash.as_ref().map_or_else(|| "0 crashes".to_owned(), |path| format!("CRASH {}", path.display()));
        out::line(&format!("{name:<12} {executions:>12} executions   {crash}"));
    }
    Ok(outcomes.iter().all(|outcome| outcome.crash.is_none()))
}

/// Every target by name.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder.join("targets")).context("list fuzz/targets")?;
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// Builds the targets. Where their programs are.
fn build(root: &Path, folder: &Path, names: &[String]) -> Result<PathBuf> {
    // A folder of its own: with these flags nothing else of the checkout can be used again.
    let target = root.join("target/fuzz");
    let mut command = cargo(folder);
    command.args(["build", "--release", "--target", &host()?]).env("RUSTFLAGS", COVERAGE);
    command.env("CARGO_TARGET_DIR", &target);
    command.args(names.iter().flat_map(|name| ["--bin", name]));
    if !command.status().context("build the targets")?.success() {
        bail!("the targets do not build");
    }
    Ok(target.join(host()?).join("release"))
}

/// This machine as the compiler names it: with a target of its own, build scripts are built without
/// the coverage, which they could not link.
fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("ask the compiler for its host")?;
    let told = String::from_utf8(told.stdout)?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("the compiler names no host")?.to_owned())
}

/// Runs one target over the inputs that are kept in the checkout, and those that it finds.
fn fuzz(folder: &Path, program: &Path, name: String, seconds: u32) -> Result<Outcome> {
    let kept = folder.join("corpus").join(&name);
    let found = program.with_extension("corpus");
    let crashes = program.with_extension("crashes");
    for place in [&kept, &found, &crashes] {
        fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
    }
    let output = Command::new(program)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .args(["-print_final_stats=1", "-rss_limit_mb=1024", "-timeout=10"])
        .args([&found, &kept])
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let number = |line: &str| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok();
    let executions = told.lines().find_map(number).unwrap_or(0);
    let crash = if output.status.success() {
        None
    } else {
        out::note(&told);
        let written = told.lines().find_map(|line| line.split("Test unit written to ").nth(1));
        Some(PathBuf::from(written.unwrap_or("(no input was written; see above)")))
    };
    Ok(Outcome { name, executions, crash })
}
