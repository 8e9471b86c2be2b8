//! What processes cost, as the kernel counts it: CPU of a process with its ended children, and
//! resident memory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

/// Counts the CPU of some processes and of all that they start.
///
/// With a control group of its own (version 1, as root) to the nanosecond; otherwise from
/// `/proc`, in steps of the kernel's clock per process and without children that still live.
pub(crate) struct Meter {
    group: Option<PathBuf>,
    pids: Vec<u32>,
}

impl Meter {
    pub(crate) fn new() -> Self {
        // A random name: process ids are not unique between namespaces.
        let group = tempfile::Builder::new().prefix("cortex-bench-").tempdir_in("/sys/fs/cgroup/cpuacct");
        // Its files are the kernel's and cannot be removed one by one.
        Self { group: group.ok().map(tempfile::TempDir::keep), pids: Vec::new() }
    }

    /// A command whose process is counted from its first moment, with all that it starts.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let Some(group) = &self.group else { return Command::new(program) };
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(group.join("cgroup.procs")).arg(program);
        command
    }

    /// Names a started process, for systems without control groups.
    pub(crate) fn add(&mut self, pid: u32) {
        self.pids.push(pid);
    }

    /// CPU seconds so far of what it counts and of client commands, wherever those were started.
    pub(crate) fn seconds_with_clients(&self) -> Result<f64> {
        // In a group of its own, what `command` started is counted already.
        let clients = if self.group.is_some() { 0.0 } else { of_children()? };
        Ok(self.seconds()? + clients)
    }

    /// CPU seconds so far.
    pub(crate) fn seconds(&self) -> Result<f64> {
        match &self.group {
            Some(group) => {
                let nanoseconds: u64 =
                    std::fs::read_to_string(group.join("cpuacct.usage"))?.trim().parse()?;
                Ok(nanoseconds as f64 / 1e9)
            }
            None => seconds(&self.pids),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            // A process that is on its way out keeps the group for a moment. An empty group costs nothing.
            for _ in 0..20 {
                if std::fs::remove_dir(group).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// CPU seconds of these processes and of their children that have ended and were waited for.
pub(crate) fn seconds(pids: &[u32]) -> Result<f64> {
    let ticks = pids.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("clock ticks")?;
    Ok(ticks as f64 / per_second as f64)
}

/// CPU seconds of this process's ended children: the client commands that were run.
pub(crate) fn of_children() -> Result<f64> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// CPU seconds of the threads of a process whose names begin so, and that live.
pub(crate) fn threads_seconds(pid: u32, name: &str) -> Result<f64> {
    let mut nanoseconds: u64 = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        if std::fs::read_to_string(thread.join("comm"))?.starts_with(name) {
            let told = std::fs::read_to_string(thread.join("schedstat"))?;
            nanoseconds += told.split_whitespace().next().context("schedstat")?.parse::<u64>()?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Resident memory, KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

/// The most resident memory that a process ever had, KiB.
pub(crate) fn peak_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

fn status_kib(pid: u32, field: &'static str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

/// Fields 14-17 of `/proc/PID/stat`: user, system, and both of waited-for children.
fn ticks(pid: u32) -> Result<u64> {
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    let (_, rest) = stat.rsplit_once(')').context("stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    fields.get(11..15).context("stat fields")?.iter().map(|field| Ok(field.parse::<u64>()?)).sum()
}
