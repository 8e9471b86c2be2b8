//! A real hub with real nodes, as processes of the measured binary in directories of their own.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cpu::Meter;
use crate::sync::place::Far;
use serde_json::Value;
use std::io::{BufRead, BufReader};

/// A running hub. Ended when dropped.
pub(crate) struct Hub {
    cortex: PathBuf,
    dir: tempfile::TempDir,
    process: Child,
    pub(crate) http: String,
    pub(crate) grpc: String,
    nodes: Vec<Child>,
    pub(crate) meter: Meter,
}

impl Hub {
    /// Starts a hub on free loopback ports.
    pub(crate) fn start(cortex: &Path) -> Result<Self> {
        Self::start_with(cortex, tempfile::tempdir()?, &[])
    }

    /// Starts a hub in a directory that exists, with further environment variables.
    pub(crate) fn start_with(cortex: &Path, dir: tempfile::TempDir, env: &[(&str, &Path)]) -> Result<Self> {
        Self::start_on(cortex, dir, "127.0.0.1", env)
    }

    /// The same with nodes reaching it at `address`.
    pub(crate) fn start_on(
        cortex: &Path,
        dir: tempfile::TempDir,
        address: &str,
        env: &[(&str, &Path)],
    ) -> Result<Self> {
        let mut meter = Meter::new();
        let command = meter.command(cortex);
        let grpc = format!("{address}:0");
        let (process, http, grpc) = start_hub(command, dir.path(), "127.0.0.1:0", &grpc, env)?;
        meter.add(process.id());
        Ok(Self { cortex: cortex.to_owned(), dir, process, http, grpc, nodes: Vec::new(), meter })
    }

    /// Kills the hub with SIGKILL and starts it again on the same ports and data.
    pub(crate) fn kill_and_restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        let http = self.http.trim_start_matches("http://").to_owned();
        let (process, http, grpc) =
            start_hub(self.meter.command(&self.cortex), self.dir.path(), &http, &self.grpc, &[])?;
        self.meter.add(process.id());
        (self.process, self.http, self.grpc) = (process, http, grpc);
        Ok(())
    }

    /// Joins and starts a node, and waits until it is attached.
    pub(crate) fn add_node(&mut self, name: &str) -> Result<()> {
        self.add_node_of_level(name, "full").map(drop)
    }

    /// The same for a node that uses no higher level of the sandbox; the level that it reached.
    pub(crate) fn add_node_of_level(&mut self, name: &str, level_max: &str) -> Result<String> {
        let mut command = self.join(name, &[])?;
        command.env("CORTEX_NODE__LEVEL_MAX", level_max);
        self.attach(command)
    }

    /// The same for a node at the far end of a wire, which reaches the hub at `grpc`.
    pub(crate) fn add_node_at(&mut self, name: &str, far: &Far, grpc: &str) -> Result<()> {
        let command = far.command(&self.meter, &self.cortex);
        let command = self.join_by(command, name, grpc, &self.work(name), &[])?;
        self.attach(command).map(drop)
    }

    /// The same for a node that sees its work at `seen`, as each node of a broadcast does: they are
    /// one machine here, and a broadcast has one destination. Needs root.
    pub(crate) fn add_node_seeing(&mut self, name: &str, far: &Far, grpc: &str, seen: &Path) -> Result<()> {
        let work = self.work(name);
        std::fs::create_dir_all(&work)?;
        // The user of runs is known to nobody before the node is there.
        std::fs::set_permissions(&work, Permissions::from_mode(0o777))?;
        let mut command = far.command(&self.meter, Path::new("unshare"));
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.args([&work, seen, &self.cortex]);
        let command = self.join_by(command, name, grpc, seen, &[])?;
        self.attach(command).map(drop)
    }

    fn attach(&mut self, mut command: Command) -> Result<String> {
        let mut node = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let attached = first_json_line(&mut node)?;
        anyhow::ensure!(attached["attached"] == true, "the node answered {attached}");
        self.meter.add(node.id());
        self.nodes.push(node);
        Ok(attached["sandbox"].as_str().unwrap_or_default().to_owned())
    }

    /// The command that joins a node with a fresh invite, ready to be started.
    pub(crate) fn join(&self, name: &str, more: &[&str]) -> Result<Command> {
        self.join_by(self.meter.command(&self.cortex), name, &self.grpc, &self.work(name), more)
    }

    fn join_by(
        &self,
        mut command: Command,
        name: &str,
        grpc: &str,
        work: &Path,
        more: &[&str],
    ) -> Result<Command> {
        let invite = self.dir.path().join(format!("{name}.invite"));
        std::fs::write(&invite, self.invite()?)?;
        command.args(["join", grpc, "--json", "--name", name]).args(more).arg("--invite-file").arg(&invite);
        command.arg("--data-dir").arg(self.dir.path().join(name)).stdin(Stdio::null());
        command.arg("--work").arg(work);
        Ok(command)
    }

    /// The folder in which a node's runs work and to which its files come.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}-work"))
    }

    /// The command that starts a joined node.
    pub(crate) fn node_start(&self, name: &str) -> Command {
        let mut command = self.meter.command(&self.cortex);
        command.args(["node", "start", "--json", "--data-dir"]).arg(self.dir.path().join(name));
        command.stdin(Stdio::null());
        command
    }

    /// A fresh invite.
    pub(crate) fn invite(&self) -> Result<String> {
        let answer = self.cli(&["invite", "--json", "--no-wait"])?;
        Ok(answer["invite"].as_str().context("no invite in the answer")?.to_owned())
    }

    /// Lets a node run `programs` beside what STRICT allows.
    pub(crate) fn allow(&self, node: &str, programs: &[&str]) -> Result<()> {
        for program in programs {
            self.cli(&["policy", "allow", node, program, "--yes", "--json"])?;
        }
        Ok(())
    }

    /// Lets a node write below `folder`.
    pub(crate) fn give(&self, node: &str, folder: &Path) -> Result<()> {
        let root = format!("{}:rw", folder.display());
        self.cli(&["policy", "allow", node, "--root", &root, "--yes", "--json"]).map(drop)
    }

    /// Runs a client command with `--json` among its arguments; its first JSON line.
    pub(crate) fn cli(&self, args: &[&str]) -> Result<Value> {
        let output = self.command(args).output()?;
        if !output.status.success() {
            bail!(
                "cortex {args:?}: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// A client command, ready to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.client(Command::new(&self.cortex), args)
    }

    /// A client command whose CPU the hub's meter counts.
    pub(crate) fn command_metered(&self, args: &[&str]) -> Command {
        self.client(self.meter.command(&self.cortex), args)
    }

    fn client(&self, mut command: Command, args: &[&str]) -> Command {
        command.args(args).env("CORTEX_HUB", &self.http).env("CORTEX_TOKEN_FILE", self.token_file());
        // What a push knows of a folder belongs to this hub's measurement.
        command.env("XDG_CACHE_HOME", self.dir.path().join("cache"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn token(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.token_file())?.trim().to_owned())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where a client command finds the token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.path().join("hub/admin.token")
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for process in self.nodes.iter_mut().chain([&mut self.process]) {
            // It may have ended by itself; either way it is gone afterwards.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn start_hub(
    mut command: Command,
    dir: &Path,
    http: &str,
    grpc: &str,
    env: &[(&str, &Path)],
) -> Result<(Child, String, String)> {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("hub.log"))?;
    let mut process = command
        .args(["hub", "start", "--json", "--http", http, "--grpc", grpc, "--data-dir"])
        .arg(dir.join("hub"))
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(log)
        .stdin(Stdio::null())
        .spawn()?;
    let ready = first_json_line(&mut process)?;
    let text = |key: &str| Ok::<_, anyhow::Error>(ready[key].as_str().context("ready line")?.to_owned());
    Ok((process, text("http")?, text("grpc")?))
}

fn first_json_line(process: &mut Child) -> Result<Value> {
    let stdout = process.stdout.take().context("stdout")?;
    let mut reader = BufReader::new(stdout);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    // What follows must not fill the pipe.
    std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
    serde_json::from_str(&line).with_context(|| format!("first line: {line:?}"))
}
