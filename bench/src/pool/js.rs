//! Pools whose clients are programs of Node.js: BullMQ on Redis with `appendfsync always`, and
//! graphile-worker on PostgreSQL. Each measures itself and prints its rate.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Server, peers, program};

/// How long a program may take to submit its jobs and to end.
const FILLING: Duration = Duration::from_secs(60);

/// Redis for BullMQ.
pub(crate) fn redis() -> Result<Option<Server>> {
    let Some(program) = program("redis-server").filter(|_| has("bullmq")) else { return Ok(None) };
    let server = Server::start(tempfile::tempdir()?, |dir, port| {
        let mut command = Command::new(program);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--dir"]).arg(dir);
        command.env("LD_LIBRARY_PATH", peers().join("root/usr/lib/x86_64-linux-gnu"));
        Ok(command)
    })?;
    Ok(Some(server))
}

/// Whether a package was installed.
pub(crate) fn has(package: &str) -> bool {
    peers().join("npm/node_modules").join(package).exists()
}

/// Runs a program of `bench/peers`; the rate that it prints.
pub(crate) fn rate(script: &str, port: u16, workers: usize, jobs: u64, seconds: u64) -> Result<f64> {
    // Beside its packages, where Node.js looks for them.
    let place = peers().join("npm").join(script);
    let source = match script {
        "bullmq.mjs" => include_str!("../../peers/bullmq.mjs"),
        _ => include_str!("../../peers/graphile.mjs"),
    };
    std::fs::write(&place, source)?;
    let mut command = Command::new("node");
    command.arg(&place).args([port.to_string(), workers.to_string(), jobs.to_string(), seconds.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().context("node")?;
    let until = Instant::now() + Duration::from_secs(seconds) + FILLING;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("{script} was not done {FILLING:?} after its time");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(child.wait()?.success(), "{script} failed");
    let mut text = String::new();
    child.stdout.take().context("its output")?.read_to_string(&mut text)?;
    Ok(text.lines().last().context("no rate")?.trim().parse()?)
}
