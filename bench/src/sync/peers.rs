//! Peers that are one command per copy: rsync over ssh and with its own daemon, scp, and tar with
//! zstd over ssh. From the packages `rsync`, `openssh-server`, `openssh-client` and `zstd`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::place::{Far, Ground, run};
use super::{Job, Way};
use crate::cpu::Meter;
use crate::ssh::Ssh;

/// Whether a program is installed.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What starts and counts the commands of a peer.
enum Server {
    Ssh(Rc<Ssh>),
    Daemon(Daemon),
}

/// Which command.
#[derive(Clone, Copy)]
enum Tool {
    Rsync { zstd: bool },
    Scp,
    Tar,
}

/// A peer of one command.
pub(crate) struct Peer {
    name: &'static str,
    tool: Tool,
    server: Server,
    room: PathBuf,
}

impl Peer {
    /// Those over ssh.
    pub(crate) fn over_ssh(ssh: &Rc<Ssh>, ground: &Ground) -> Vec<Self> {
        let tools = [
            ("rsync-ssh", Tool::Rsync { zstd: false }, ["rsync", "ssh"]),
            ("rsync-ssh-zstd", Tool::Rsync { zstd: true }, ["rsync", "ssh"]),
            ("scp", Tool::Scp, ["scp", "ssh"]),
            ("tar-zstd-ssh", Tool::Tar, ["tar", "zstd"]),
        ];
        let there =
            tools.into_iter().filter(|(_, _, programs)| programs.iter().all(|program| installed(program)));
        there
            .map(|(name, tool, _)| {
                let room = ground.path().join(name);
                Self { name, tool, server: Server::Ssh(Rc::clone(ssh)), room }
            })
            .collect()
    }

    /// rsync with a daemon of its own at the far end: no encryption, no identity.
    pub(crate) fn daemon(far: &Far, ground: &Ground) -> Result<Option<Self>> {
        if !installed("rsync") {
            return Ok(None);
        }
        let name = "rsync-daemon";
        let room = ground.path().join(name);
        std::fs::create_dir_all(&room)?;
        let server = Server::Daemon(Daemon::start(far, &room)?);
        Ok(Some(Self { name, tool: Tool::Rsync { zstd: false }, server, room }))
    }

    fn command(&self, job: &Job<'_>) -> Command {
        let (source, copy) = (format!("{}/", job.source.display()), self.room.join("copy"));
        match &self.server {
            Server::Daemon(daemon) => {
                let mut command = daemon.meter.command(Path::new("rsync"));
                command.args(["-a", &source, &daemon.url("copy/")]);
                command
            }
            Server::Ssh(ssh) => self.tool.command(ssh, &source, &copy.display().to_string()),
        }
    }
}

impl Tool {
    fn command(self, ssh: &Ssh, source: &str, copy: &str) -> Command {
        let options = ssh.options_new().join(" ");
        let (host, port) = (ssh.host(), ssh.port());
        match self {
            Self::Rsync { zstd } => {
                let mut command = ssh.meter.command(Path::new("rsync"));
                command.args(["-a", "-e", &format!("ssh -p {port} {options}")]);
                if zstd {
                    command.args(["-z", "--compress-choice=zstd", "--compress-level=1"]);
                }
                command.args([source, &format!("{host}:{copy}/")]);
                command
            }
            Self::Scp => {
                let mut command = ssh.meter.command(Path::new("scp"));
                command.args(["-r", "-p", "-q", "-P", &port]).args(ssh.options_new());
                // Into the folder, which the tree then has as a name: the contents go one level up.
                command.args([source.trim_end_matches('/'), &format!("{host}:{copy}/")]);
                command
            }
            Self::Tar => {
                let script = format!(
                    "tar -C '{source}' -cf - . | zstd -1 -q -c | \
                     ssh -p {port} {options} {host} \"zstd -d -q -c | tar -C '{copy}' -xf -\""
                );
                let mut command = ssh.meter.command(Path::new("/bin/sh"));
                command.args(["-c", &script]);
                command
            }
        }
    }
}

impl Way for Peer {
    fn name(&self) -> &str {
        self.name
    }

    fn updates(&self) -> bool {
        matches!(self.tool, Tool::Rsync { .. })
    }

    fn ready(&mut self, job: &Job<'_>) -> Result<()> {
        let copy = self.room.join("copy");
        std::fs::create_dir_all(&copy)?;
        if job.kept { duplicate(job.source, &copy) } else { Ok(()) }
    }

    fn go(&mut self, job: &Job<'_>) -> Result<()> {
        run(&mut self.command(job))
    }

    fn copy(&self) -> Result<PathBuf> {
        let copy = self.room.join("copy");
        // scp names the copy as the source is named.
        let below = copy.join("tree");
        Ok(if matches!(self.tool, Tool::Scp) && below.exists() { below } else { copy })
    }

    fn cpu(&self) -> Result<f64> {
        match &self.server {
            Server::Ssh(ssh) => ssh.meter.seconds_with_clients(),
            Server::Daemon(daemon) => daemon.meter.seconds_with_clients(),
        }
    }

    fn clear(&mut self, _: &Job<'_>) -> Result<()> {
        remove(&self.room.join("copy"))
    }
}

/// Copies what is in a folder into another one, with times.
pub(crate) fn duplicate(source: &Path, copy: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--reflink=never"]).arg(source.join(".")).arg(copy))
}

/// Removes a folder, which need not be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// rsync's daemon on a free port, for one folder. Ended when dropped.
pub(crate) struct Daemon {
    server: Child,
    address: String,
    port: u16,
    pub(crate) meter: Meter,
}

impl Daemon {
    /// Starts one at the far end that takes files into `room`.
    pub(crate) fn start(far: &Far, room: &Path) -> Result<Self> {
        let port = std::net::TcpListener::bind("0.0.0.0:0")?.local_addr()?.port();
        let config = room.join("rsyncd.conf");
        // Only root may become somebody, and would otherwise become nobody.
        let user = if nix::unistd::geteuid().is_root() { "uid = root\ngid = root\n" } else { "" };
        let text = format!(
            "address = {}\nport = {port}\nuse chroot = no\nreverse lookup = no\n\
             [room]\npath = {}\nread only = no\n{user}",
            far.address,
            room.display()
        );
        std::fs::write(&config, text)?;
        let mut meter = Meter::new();
        let server = far
            .command(&meter, Path::new("rsync"))
            .args(["--daemon", "--no-detach", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        meter.add(server.id());
        let daemon = Self { server, address: far.address.clone(), port, meter };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect((daemon.address.as_str(), port)).is_err() {
            ensure!(Instant::now() < deadline, "rsync's daemon did not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// The address of a path in its room.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("rsync://{}:{}/room/{path}", self.address, self.port)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> Result<std::net::SocketAddr> {
        Ok(format!("{}:{}", self.address, self.port).parse()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
