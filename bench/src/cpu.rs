//! What processes cost, as the kernel counts it: CPU of a process with its ended children, and
//! resident memory.

use anyhow::{Context, Result};

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

/// Resident memory, KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
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
