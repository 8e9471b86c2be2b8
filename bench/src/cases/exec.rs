//! `true` on nodes without walls and behind each level of the sandbox: over a kept connection, over
//! the command line, and ssh beside it.
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
/// Nodes by the highest level that they use. The first one is PERMISSIVE: no walls.
const NODES: &[&str] = &["none", "kernel", "full"];

/// What is measured of one node.
#[derive(Default)]
struct Node {
    name: &'static str,
    warm: Cost,
    cold: Cost,
}

pub(crate) async fn run(cortex: &Path, rounds: usize) -> Result<()> {
    let mut hub = Hub::start(cortex)?;
    let mut nodes = start(&mut hub)?;
    let mut ssh = Ssh::start()?;
    if let Some(ssh) = &mut ssh {
        ssh.keep()?;
    }
    report::heading("exec of `true`");
    let mut kept = Cost::default();
    let mut fresh = Cost::default();
    for block in 0..=rounds.div_ceil(BLOCK) {
        if block == 1 {
            // The first block warmed everything up.
            (kept, fresh) = Default::default();
            nodes.iter_mut().for_each(|node| *node = Node { name: node.name, ..Node::default() });
        }
        for node in &mut nodes {
            warm_block(&hub, node.name, &mut node.warm).await?;
        }
        for node in &mut nodes {
            let arguments = ["exec", node.name, "--", "true"];
            block_of(&hub.meter, &mut node.cold, || hub.command(&arguments))?;
        }
        if let Some(ssh) = &ssh {
            block_of(&ssh.meter, &mut kept, || ssh.command("true"))?;
            block_of(&ssh.meter, &mut fresh, || ssh.command_new("true"))?;
        }
    }
    report::head(&["way", "p50 ms", "p99 ms", "CPU ms", "p50 to ssh ControlMaster", "goal p50 / CPU"]);
    let base = kept.wall_ms.median();
    for node in &nodes {
        let goals = if node.name == "none" { ["2.5 / 2.5", "6.5 / 6.5"] } else { ["3.5 / 3.5", "7.5 / -"] };
        print(&format!("kept HTTP connection, walls: {}", node.name), &node.warm, base, goals[0]);
        print(&format!("command line, cold, walls: {}", node.name), &node.cold, base, goals[1]);
    }
    print("ssh, ControlMaster", &kept, base, "peer");
    print("ssh, new connection", &fresh, base, "peer");
    Ok(())
}

/// The nodes whose level this machine reaches.
fn start(hub: &mut Hub) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for &name in NODES {
        let bare = name == "none";
        let reached = hub.add_node_of_level(name, if bare { "full" } else { name })?;
        if bare {
            hub.cli(&["policy", "set", name, "permissive", "--yes", "--json"])?;
        } else if reached != name {
            report::heading(&format!("left out: level {name}; this machine reaches {reached}"));
            continue;
        }
        nodes.push(Node { name, ..Node::default() });
    }
    Ok(nodes)
}

async fn warm_block(hub: &Hub, node: &str, cost: &mut Cost) -> Result<()> {
    // The hub closes a connection that is idle for 75 s (the ssh blocks may take longer), so each block has its own.
    let mut api = Api::connect(hub).await?;
    let nodes = [node.to_owned()];
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
