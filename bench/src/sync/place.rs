//! Where both ends of a measurement stand: namespaces of this benchmark alone, so that bytes can be
//! counted on a wire, a rate can be set, and nothing is left behind however the benchmark ends.
//!
//! As root the benchmark starts itself again in a network, mount and process namespace of its own.
//! The near end (clients, and our hub) is there; each [`Far`] end is a further network namespace,
//! joined by a pair of virtual Ethernet devices. Without root both ends are on loopback.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use crate::cpu::Meter;
use crate::report;

/// Tells a process of the benchmark which of the three it is: none, `init` or `work`.
const STAGE: &str = "BENCH_STAGE";
/// The near end's address, on its loopback device, which each far end has a route to.
const NEAR: &str = "10.77.255.1";
/// Ethernet, IPv4 and TCP with time stamps: what each frame has beside its payload.
const FRAME_HEAD: u64 = 14 + 20 + 32;

/// Goes into namespaces of its own. The exit code of the benchmark that ran there, or `None` when
/// this process is the one that measures.
pub(crate) fn enter() -> Result<Option<ExitCode>> {
    match std::env::var(STAGE).as_deref() {
        Ok("init") => init().map(Some),
        Ok(_) => Ok(None),
        Err(_) => outside(),
    }
}

/// Whether this process is in namespaces of its own.
pub(crate) fn apart() -> bool {
    std::env::var_os(STAGE).is_some()
}

fn outside() -> Result<Option<ExitCode>> {
    let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if let Err(errno) = unshare(flags) {
        report::note(&format!("no namespaces ({errno}): all on loopback; bytes and rates are left out"));
        return Ok(None);
    }
    let status = again("init")?.wait()?;
    if let Some(signal) = status.signal() {
        report::note(&format!("the benchmark's namespace was ended by signal {signal}"));
    }
    Ok(Some(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))))
}

/// The first process of the new namespace: its end ends all others, and it takes orphans.
fn init() -> Result<ExitCode> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    ensure!(nix::unistd::getppid() == Pid::from_raw(0), "the benchmark that started this has ended");
    let none = None::<&Path>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none)?;
    // Neighbour discovery of IPv6 would be counted as somebody's bytes.
    for which in ["all", "default"] {
        drop(std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1"));
    }
    ip(&["link", "set", "lo", "up"])?;
    ip(&["address", "add", &format!("{NEAR}/32"), "dev", "lo"])?;
    let worker = Pid::from_raw(i32::try_from(again("work")?.id())?);
    let mut ended = wait()?;
    while ended.pid() != Some(worker) {
        ended = wait()?;
    }
    if let WaitStatus::Signaled(_, signal, _) = ended {
        report::note(&format!("the benchmark was ended by {signal}"));
    }
    let code = if let WaitStatus::Exited(_, code) = ended { u8::try_from(code).unwrap_or(1) } else { 1 };
    Ok(ExitCode::from(code))
}

fn again(stage: &str) -> Result<Child> {
    let program = std::env::current_exe()?;
    Ok(Command::new(program).args(std::env::args_os().skip(1)).env(STAGE, stage).spawn()?)
}

/// A fresh folder of at most `bytes` for trees: a file system in memory of its own, or a folder in
/// one that is there. Gone when dropped.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    mounted: bool,
}

impl Ground {
    /// In memory, or below `on` when given.
    pub(crate) fn new(on: Option<&Path>, bytes: u64) -> Result<Self> {
        if let Some(on) = on {
            return Ok(Self { dir: tempfile::tempdir_in(on)?, mounted: false });
        }
        let free = memory_available()?;
        ensure!(
            free > bytes + bytes / 8,
            "{} MiB of memory are needed and {} MiB are free: give a folder with --on",
            bytes >> 20,
            free >> 20
        );
        if !apart() {
            return Ok(Self { dir: tempfile::tempdir_in("/dev/shm")?, mounted: false });
        }
        let dir = tempfile::tempdir()?;
        let options = format!("size={bytes},mode=0755");
        mount(Some("bench"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))?;
        Ok(Self { dir, mounted: true })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A fresh folder in it that is removed when dropped.
    pub(crate) fn folder(&self) -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir_in(self.path())?;
        open_to_all(folder.path())?;
        Ok(folder)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.mounted {
            // What still has a file open keeps the memory until it ends, which all do before this process.
            let _ = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Makes a folder passable for the users of runs and of peers' servers.
pub(crate) fn open_to_all(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

fn memory_available() -> Result<u64> {
    let info = std::fs::read_to_string("/proc/meminfo")?;
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("MemAvailable")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}

/// The far end of a wire.
pub(crate) struct Far {
    link: Option<Link>,
    /// Where servers of the far end listen.
    pub(crate) address: String,
}

struct Link {
    /// A process that does nothing but keep the namespace.
    holder: Child,
    device: String,
}

impl Far {
    /// The far end of that number, 1 to 63; each number once.
    pub(crate) fn new(number: u8) -> Result<Self> {
        if !apart() {
            return Ok(Self::here());
        }
        let holder =
            Command::new("unshare").args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).spawn()?;
        let link = Link { holder, device: format!("near{number}") };
        let far = Self { link: Some(link), address: format!("10.77.{number}.2") };
        far.join(number)?;
        Ok(far)
    }

    /// No wire: both ends on loopback.
    pub(crate) fn here() -> Self {
        Self { link: None, address: "127.0.0.1".to_owned() }
    }

    /// Where servers of the near end listen so that the far end reaches them.
    pub(crate) fn near(&self) -> &'static str {
        if self.link.is_some() { NEAR } else { "127.0.0.1" }
    }

    /// A command of the far end, counted by `meter`.
    pub(crate) fn command(&self, meter: &Meter, program: &Path) -> Command {
        let Some(space) = self.space() else { return meter.command(program) };
        let mut command = meter.command(Path::new("nsenter"));
        command.arg(format!("--net={}", space.display())).arg("--").arg(program);
        command
    }

    /// Payload bytes of both directions so far: what went over the wire without the heads of its frames.
    pub(crate) fn payload(&self) -> Result<Option<u64>> {
        let Some(link) = &self.link else { return Ok(None) };
        counted(&std::fs::read_to_string("/proc/self/net/dev")?, &link.device).map(Some)
    }

    /// Lets at most `bytes` a second through to the far end; whether that can be done here.
    pub(crate) fn limit(&self, bytes: u64) -> Result<bool> {
        let Some(link) = &self.link else { return Ok(false) };
        let rate = format!("{bytes}bps");
        run(Command::new("tc")
            .args(["qdisc", "replace", "dev", &link.device, "root", "tbf"])
            .args(["rate", &rate, "burst", "64kb", "latency", "100ms"]))?;
        Ok(true)
    }

    fn space(&self) -> Option<PathBuf> {
        self.link.as_ref().map(|link| PathBuf::from(format!("/proc/{}/ns/net", link.holder.id())))
    }

    fn join(&self, number: u8) -> Result<()> {
        let (link, space) = self.link.as_ref().zip(self.space()).context("no link")?;
        let ours = std::fs::read_link("/proc/self/ns/net")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::read_link(&space)? == ours {
            ensure!(Instant::now() < deadline, "the far namespace did not come up");
            std::thread::sleep(Duration::from_millis(2));
        }
        let holder = link.holder.id().to_string();
        ip(&["link", "add", &link.device, "type", "veth", "peer", "name", "far0", "netns", &holder])?;
        ip(&["address", "add", &format!("10.77.{number}.1/30"), "dev", &link.device])?;
        ip(&["link", "set", &link.device, "up"])?;
        let script = format!(
            "echo 1 > /proc/sys/net/ipv6/conf/far0/disable_ipv6; ip link set lo up && \
             ip address add {}/30 dev far0 && ip link set far0 up && ip route add default via 10.77.{number}.1",
            self.address
        );
        run(Command::new("nsenter")
            .arg(format!("--net={}", space.display()))
            .args(["--", "sh", "-c", &script]))
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if let Some(link) = &mut self.link {
            // It may have ended by itself; either way it is gone afterwards.
            drop(link.holder.kill());
            drop(link.holder.wait());
        }
    }
}

/// Payload of both directions of a device in the text of `/proc/net/dev`.
fn counted(text: &str, device: &str) -> Result<u64> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'))
        .with_context(|| format!("no device {device}"))?;
    let fields: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let field = |index: usize| fields.get(index).copied().context("fields of a device");
    let (bytes, frames) = (field(0)? + field(8)?, field(1)? + field(9)?);
    Ok(bytes.saturating_sub(frames * FRAME_HEAD))
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments))
}

/// Runs a command to its end; its words when it failed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("start {command:?}"))?;
    let words = || {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        String::from_utf8_lossy(&said).chars().take(600).collect::<String>()
    };
    let how =
        output.status.signal().map_or_else(|| output.status.to_string(), |signal| format!("signal {signal}"));
    ensure!(output.status.success(), "{:?}: {how}: {}", command.get_program(), words());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heads_of_frames_are_no_payload() {
        let text = "Inter-|   Receive  |  Transmit\n    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n \
                    near1: 1066 1 0 0 0 0 0 0 2132 2 0 0 0 0 0 0\n";
        assert_eq!(counted(text, "near1").unwrap(), 1000 + 2000);
        assert!(counted(text, "near").is_err());
    }
}
