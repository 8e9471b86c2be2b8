//! Pools whose clients are programs of Node.js: BullMQ on Redis with `appendfsync always`, and
//! graphile-worker on PostgreSQL. Each measures itself and prints its rate.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Server, peers, program};

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
    let output = command.output().context("node")?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().last().context("no rate")?.trim().parse()?)
}
