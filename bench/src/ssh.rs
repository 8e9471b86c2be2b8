//! The peer: OpenSSH's server on a free loopback port with keys of its own, and clients with and
//! without a kept master connection. From the package `openssh-server`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cpu::Meter;

/// A running server and how to reach it. Ended when dropped.
pub(crate) struct Ssh {
    dir: tempfile::TempDir,
    server: Child,
    port: u16,
    master: Option<Child>,
    pub(crate) meter: Meter,
}

impl Ssh {
    /// Starts a server; `None` when it is not installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        if !Path::new("/usr/sbin/sshd").exists() {
            return Ok(None);
        }
        let dir = tempfile::tempdir()?;
        for key in ["host", "user"] {
            run(Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(dir.path().join(key)))?;
        }
        std::fs::copy(dir.path().join("user.pub"), dir.path().join("authorized"))?;
        std::fs::create_dir_all("/run/sshd")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(dir.path().join("sshd_config"), config(dir.path(), port))?;
        let mut meter = Meter::new();
        let server = meter
            .command(Path::new("/usr/sbin/sshd"))
            .args(["-D", "-e", "-f"])
            .arg(dir.path().join("sshd_config"))
            .stderr(std::fs::File::create(dir.path().join("sshd.log"))?)
            .spawn()?;
        meter.add(server.id());
        let ssh = Self { dir, server, port, master: None, meter };
        ssh.wait()?;
        Ok(Some(ssh))
    }

    /// Opens the kept connection that [`Ssh::command`] uses afterwards.
    pub(crate) fn keep(&mut self) -> Result<()> {
        let master =
            self.options(self.meter.command(Path::new("ssh"))).args(["-M", "-N", "127.0.0.1"]).spawn()?;
        self.meter.add(master.id());
        self.master = Some(master);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.dir.path().join("master").exists() {
            ensure!(Instant::now() < deadline, "the master connection did not come up");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// A client command over the kept connection.
    pub(crate) fn command(&self, argv: &str) -> Command {
        self.with(argv, &[])
    }

    /// A client command over a connection of its own.
    pub(crate) fn command_new(&self, argv: &str) -> Command {
        self.with(argv, &["-o", "ControlMaster=no", "-o", "ControlPath=none"])
    }

    fn with(&self, argv: &str, first: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(first);
        let mut command = self.options(command);
        command.args(["127.0.0.1", argv]).stdin(Stdio::null());
        command
    }

    fn options(&self, mut command: Command) -> Command {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        command.args([
            "-F",
            "none",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "LogLevel=ERROR",
            "-i",
            &path("user"),
        ]);
        command.args(["-o", &format!("UserKnownHostsFile={}", path("known")), "-p", &self.port.to_string()]);
        command.args(["-o", &format!("ControlPath={}", path("master"))]);
        command
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            ensure!(Instant::now() < deadline, "sshd did not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        run(self.command_new("true").stdout(Stdio::null()))
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        for process in self.master.iter_mut().chain([&mut self.server]) {
            // It may have ended by itself; either way it is gone afterwards.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

fn config(dir: &Path, port: u16) -> String {
    let dir = dir.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n\
         SetEnv HOME={dir}\nMaxStartups 500\nMaxSessions 500\n"
    )
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
