//! `true` on one node: over a kept connection, over the command line, and ssh beside it.
//!
//! The ways take turns round by round, so that a neighbour's load falls on all of them alike. CPU
//! is counted over blocks of rounds, since the kernel's clock is coarse.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::{Cost, CpuSpan};
use crate::api::Api;
use crate::cpu::Meter;
use crate::hub::Hub;
use crate::report;
use crate::ssh::Ssh;

const BLOCK: usize = 20;

pub(crate) async fn run(cortex: &Path, rounds: usize) -> Result<()> {
    let mut hub = Hub::start(cortex)?;
    hub.add_node("a")?;
    let mut ssh = Ssh::start()?;
    if let Some(ssh) = &mut ssh {
        ssh.keep()?;
    }
    report::heading("exec of `true`");
    let mut warm = Cost::default();
    let mut cold = Cost::default();
    let mut kept = Cost::default();
    let mut fresh = Cost::default();
    for block in 0..=rounds.div_ceil(BLOCK) {
        if block == 1 {
            // The first block warmed everything up.
            (warm, cold, kept, fresh) = Default::default();
        }
        warm_block(&hub, &mut warm).await?;
        block_of(&hub.meter, &mut cold, || hub.command(&["exec", "a", "--", "true"]))?;
        if let Some(ssh) = &ssh {
            block_of(&ssh.meter, &mut kept, || ssh.command("true"))?;
            block_of(&ssh.meter, &mut fresh, || ssh.command_new("true"))?;
        }
    }
    report::head(&["way", "p50 ms", "p99 ms", "CPU ms", "p50 to ssh ControlMaster", "goal p50 / CPU"]);
    let base = kept.wall_ms.median();
    print("kept HTTP connection", &warm, base, "2.5 / 2.5");
    print("command line, cold", &cold, base, "6.5 / 6.5");
    print("ssh, ControlMaster", &kept, base, "peer");
    print("ssh, new connection", &fresh, base, "peer");
    Ok(())
}

async fn warm_block(hub: &Hub, cost: &mut Cost) -> Result<()> {
    // The hub closes a connection that is idle for 75 s (the ssh blocks may take longer), so each block has its own.
    let mut api = Api::connect(hub).await?;
    let nodes = ["a".to_owned()];
    api.exec(&nodes, &["true"]).await?;
    let span = CpuSpan::begin(&hub.meter)?;
    for _ in 0..BLOCK {
        let begun = Instant::now();
        let exits = api.exec(&nodes, &["true"]).await?;
        anyhow::ensure!(exits.iter().all(|exit| exit.code == Some(0)), "true failed");
        cost.wall_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    cost.cpu_ms.push(span.end_ms()? / BLOCK as f64);
    Ok(())
}

fn block_of(meter: &Meter, cost: &mut Cost, command: impl Fn() -> std::process::Command) -> Result<()> {
    let span = CpuSpan::begin(meter)?;
    for _ in 0..BLOCK {
        cost.take(vec![command()])?;
    }
    cost.cpu_ms.push(span.end_ms()? / BLOCK as f64);
    Ok(())
}

fn print(name: &str, cost: &Cost, base: f64, goal: &str) {
    report::row(&[
        name,
        &format!("{:.2}", cost.wall_ms.median()),
        &format!("{:.2}", cost.wall_ms.quantile(0.99)),
        &format!("{:.2}", cost.cpu_ms.median()),
        &format!("{:.2}x", cost.wall_ms.median() / base.max(f64::MIN_POSITIVE)),
        goal,
    ]);
}
