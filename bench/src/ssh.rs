//! The peer: OpenSSH's server on a free loopback port with keys of its own, and clients with and
//! without a kept master connection. From the package `openssh-server`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::cpu::Meter;
use crate::sync::place::Far;

const SERVER: &str = "/usr/sbin/sshd";

/// A running server and how to reach it. Ended when dropped.
pub(crate) struct Ssh {
    dir: tempfile::TempDir,
    server: Child,
    address: String,
    port: u16,
    master: Option<Child>,
    pub(crate) meter: Meter,
}

impl Ssh {
    /// Starts a server; `None` when it is not installed.
    pub(crate) fn start() -> Result<Option<Self>> {
        Self::start_by("127.0.0.1", |meter| meter.command(Path::new(SERVER)))
    }

    /// The same at the far end of a wire.
    pub(crate) fn start_at(far: &Far) -> Result<Option<Self>> {
        Self::start_by(&far.address, |meter| far.command(meter, Path::new(SERVER)))
    }

    fn start_by(address: &str, server: impl FnOnce(&Meter) -> Command) -> Result<Option<Self>> {
        if !Path::new(SERVER).exists() {
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
        std::fs::write(dir.path().join("sshd_config"), config(dir.path(), address, port))?;
        let mut meter = Meter::new();
        let server = server(&meter)
            .args(["-D", "-e", "-f"])
            .arg(dir.path().join("sshd_config"))
            .stderr(std::fs::File::create(dir.path().join("sshd.log"))?)
            .spawn()?;
        meter.add(server.id());
        let ssh = Self { dir, server, address: address.to_owned(), port, master: None, meter };
        ssh.wait()?;
        Ok(Some(ssh))
    }

    /// Opens the kept connection that [`Ssh::command`] uses afterwards.
    pub(crate) fn keep(&mut self) -> Result<()> {
        let master = self
            .options(self.meter.command(Path::new("ssh")), true)
            .args(["-M", "-N", &self.address])
            .spawn()?;
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

    /// The home of its users, of theirs alone.
    pub(crate) fn home(&self) -> &Path {
        self.dir.path()
    }

    /// The address of its server.
    pub(crate) fn host(&self) -> &str {
        &self.address
    }

    /// The client's options for a connection of its own, without the port, for programs that start
    /// clients themselves.
    pub(crate) fn options_new(&self) -> Vec<String> {
        let mut command = self.options(Command::new("ssh"), false);
        command.args(["-o", "ControlMaster=no", "-o", "ControlPath=none"]);
        command.get_args().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    /// The port of its server.
    pub(crate) fn port(&self) -> String {
        self.port.to_string()
    }

    fn with(&self, argv: &str, first: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args(first);
        let mut command = self.options(command, true);
        command.args([&self.address, argv]).stdin(Stdio::null());
        command
    }

    fn options(&self, mut command: Command, kept: bool) -> Command {
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
        command.args(["-o", &format!("UserKnownHostsFile={}", path("known"))]);
        if kept {
            command.args(["-p", &self.port(), "-o", &format!("ControlPath={}", path("master"))]);
        }
        command
    }

    fn wait(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect((self.address.as_str(), self.port)).is_err() {
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

fn config(dir: &Path, address: &str, port: u16) -> String {
    let dir = dir.display();
    format!(
        "ListenAddress {address}\nPort {port}\nHostKey {dir}/host\nAuthorizedKeysFile {dir}/authorized\n\
         StrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nPidFile none\n\
         Subsystem sftp internal-sftp\nSetEnv HOME={dir}\nMaxStartups 500\nMaxSessions 500\n"
    )
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
