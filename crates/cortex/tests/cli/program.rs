//! Runs the program in an empty home, with nothing of the caller's environment.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The program in its own home.
pub(crate) struct Program {
    home: TempDir,
    variables: Vec<(String, String)>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Program {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir().expect("a folder for the home"), variables: Vec::new() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Writes a file into the home, and gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().expect("below the home")).expect("make the folder");
        std::fs::write(&path, text).expect("write the file");
        path
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cortex"));
        command.env_clear().env("HOME", self.home.path()).args(arguments);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments).spawn().expect("start the program"))
    }

    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("start the program");
        let mut stdin = child.stdin.take().expect("its standard input");
        // A program that refuses early reads nothing: a broken pipe is fine.
        drop(stdin.write_all(input));
        drop(stdin);
        Ended::of(child)
    }
}

impl Ended {
    fn of(child: Child) -> Self {
        let output = child.wait_with_output().expect("wait for the program");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// The error object on standard output.
    pub(crate) fn error(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "one object and nothing else: {}", self.text());
        lines[0]["error"].clone()
    }
}
