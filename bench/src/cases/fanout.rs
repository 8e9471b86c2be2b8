//! `true` on many nodes at once: one request to the hub against that many ssh commands.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use super::{Cost, CpuSpan};
use crate::api::Api;
use crate::cpu::Meter;
use crate::hub::Hub;
use crate::report;
use crate::ssh::Ssh;

pub(crate) async fn run(cortex: &Path, nodes: usize, rounds: usize) -> Result<()> {
    let mut hub = Hub::start(cortex)?;
    let names: Vec<String> = (0..nodes).map(|index| format!("n{index}")).collect();
    for name in &names {
        hub.add_node(name)?;
    }
    let mut ssh = Ssh::start()?;
    if let Some(ssh) = &mut ssh {
        ssh.keep()?;
    }
    report::heading(&format!("`true` on {nodes} nodes at once"));
    let mut ours = Cost::default();
    let mut kept = Cost::default();
    let mut fresh = Cost::default();
    for round in 0..=rounds {
        if round == 1 {
            (ours, kept, fresh) = Default::default();
        }
        ours_once(&hub, &names, &mut ours).await?;
        if let Some(ssh) = &ssh {
            many(&ssh.meter, &mut kept, nodes, || ssh.command("true"))?;
            many(&ssh.meter, &mut fresh, nodes, || ssh.command_new("true"))?;
        }
    }
    report::head(&["way", "wall ms", "CPU ms", "wall to ControlMaster", "goal"]);
    let base = kept.wall_ms.median();
    for (name, cost, goal) in [
        ("cortex, one request", &ours, "110 / 200"),
        ("ssh, one ControlMaster", &kept, "peer"),
        ("ssh, new connections", &fresh, "peer"),
    ] {
        report::row(&[
            name,
            &format!("{:.0}", cost.wall_ms.median()),
            &format!("{:.0}", cost.cpu_ms.median()),
            &format!("{:.2}x", cost.wall_ms.median() / base.max(f64::MIN_POSITIVE)),
            goal,
        ]);
    }
    Ok(())
}

async fn ours_once(hub: &Hub, names: &[String], cost: &mut Cost) -> Result<()> {
    let mut api = Api::connect(hub).await?;
    api.exec(&names[..1], &["true"]).await?;
    let span = CpuSpan::begin(&hub.meter)?;
    let begun = Instant::now();
    let exits = api.exec(names, &["true"]).await?;
    anyhow::ensure!(exits.iter().all(|exit| exit.code == Some(0)), "a node failed");
    cost.wall_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    cost.cpu_ms.push(span.end_ms()?);
    Ok(())
}

fn many(
    meter: &Meter,
    cost: &mut Cost,
    count: usize,
    command: impl Fn() -> std::process::Command,
) -> Result<()> {
    let span = CpuSpan::begin(meter)?;
    cost.take((0..count).map(|_| command()).collect())?;
    cost.cpu_ms.push(span.end_ms()?);
    Ok(())
}
