//! What the README and the quick start tell people to type is typed here, line by line, in a home
//! of its own. A changed word: ports are free ones on loopback, `ID` is the newest run, and what
//! asks on a terminal gets `--yes`.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::world::shell;

/// Somebody who follows a page.
struct Follower {
    /// Ended in this order: what was started last goes first.
    started: Vec<Started>,
    home: TempDir,
}

/// A command that stays, in a process group of its own.
struct Started {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Started {
    /// The first line of its output that begins so.
    fn line(&mut self, begin: &str) -> String {
        let mut lines = self.output.by_ref().lines().map_while(Result::ok);
        lines.find(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no line with {begin}"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let group = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended already; that is as good.
        let told = nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM);
        assert!(told.is_ok() || self.child.wait().is_ok(), "it neither runs nor has ended");
        drop(self.child.wait());
    }
}

impl Follower {
    fn new() -> Self {
        let home = tempfile::tempdir().expect("a home");
        let cargo = home.path().join(".cargo/bin/cargo");
        std::fs::create_dir_all(home.path().join(".cargo/bin")).expect("make it");
        std::fs::write(&cargo, "#!/bin/sh\necho cargo \"$@\"\n").expect("write it");
        std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).expect("make it a program");
        Self { started: Vec::new(), home }
    }

    /// Types one line of a page.
    fn type_line(&mut self, line: &str) {
        let (typed, remark) = line.split_once('#').unwrap_or((line, ""));
        let typed = typed.trim();
        if typed.is_empty() {
            return;
        }
        if typed.starts_with("cortex up") || typed.starts_with("cortex hub start") {
            let here = typed.replace("--grpc 0.0.0.0:7441", "");
            return self.start(&format!("exec {here} --http 127.0.0.1:0 --grpc 127.0.0.1:0"), "Next");
        }
        if typed.starts_with("cortex invite") {
            return self.join(typed);
        }
        let asks = typed.starts_with("cortex policy allow") || typed.starts_with("cortex policy set");
        let typed = if asks { format!("{typed} --yes") } else { typed.to_owned() };
        let typed = if typed.contains(" ID") { typed.replace(" ID", &self.newest_run()) } else { typed };
        let wanted = remark.split_once("(exit ").map_or("0", |(_, rest)| rest.trim_end_matches(')'));
        let done = self.shell(&typed).output().expect("type it");
        let shown =
            format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(
            done.status.code().map(|code| code.to_string()).as_deref(),
            Some(wanted),
            "{line}\n{shown}"
        );
        assert!(!shown.is_empty(), "{line} shows nothing");
    }

    fn shell(&self, line: &str) -> Command {
        let mut command = shell(self.home.path(), line);
        let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value);
        let path = path.and_then(|path| path.to_str()).expect("a path").to_owned();
        command.env("PATH", format!("{}/.cargo/bin:{path}", self.home.path().display()));
        command.stdin(Stdio::null());
        command
    }

    /// Starts what stays, and waits for a line of it.
    fn start(&mut self, line: &str, ready: &str) {
        self.spawn(line).line(ready);
    }

    fn spawn(&mut self, line: &str) -> &mut Started {
        let mut command = self.shell(line);
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("start it");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        self.started.insert(0, Started { child, output });
        &mut self.started[0]
    }

    /// Makes the invite, pastes what it printed as another machine, and waits for both.
    fn join(&mut self, typed: &str) {
        let mut inviting = {
            self.spawn(typed);
            self.started.remove(0)
        };
        let pasted = inviting.line("printf ");
        let remembered = self.home.path().join(".local/share/cortex/hub.json");
        let hub: Value =
            serde_json::from_slice(&std::fs::read(remembered).expect("the hub runs")).expect("JSON");
        let grpc = hub["grpc"].as_str().expect("an address");
        let (before, address) = pasted.split_once("cortex join ").expect("a line that joins");
        let flags = address.split_once(' ').expect("an address and flags").1;
        let other = self.home.path().join("other machine");
        let line =
            format!("{before}cortex join {grpc} {flags} --name build-2 --data-dir '{}'", other.display());
        assert!(address.starts_with("hub.lan:"), "the line names the hub as others see it: {address}");
        self.start(&line, "build-2 is attached");
        assert!(inviting.child.wait().expect("it ends").success(), "the invite saw its node");
    }

    fn newest_run(&self) -> String {
        let runs = self.shell("cortex run ls --json").output().expect("list the runs").stdout;
        let runs: Value = serde_json::from_slice(&runs).expect("JSON");
        format!(" {}", runs[0]["id"].as_str().expect("a run"))
    }
}

/// The lines of all blocks that are marked as `sh`.
fn lines(page: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let text = std::fs::read_to_string(path).expect("the page");
    let blocks = text.split("\n```sh\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
    blocks.flat_map(|(block, _)| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn follow(page: &str, at_least: usize) {
    let lines = lines(page);
    assert!(lines.len() >= at_least, "{page} has {} lines to type", lines.len());
    let mut follower = Follower::new();
    lines.iter().for_each(|line| follower.type_line(line));
}

#[test]
fn every_line_of_the_readme_works_as_typed() {
    follow("README.md", 10);
}

#[test]
fn every_line_of_the_quick_start_works_as_typed() {
    follow("docs/guide/start.md", 10);
}
