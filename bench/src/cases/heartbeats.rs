//! Heartbeats, as many as the hub answers, and what they write.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;

use crate::hub::Hub;
use crate::swarm::{Beat, Swarm};
use crate::{cpu, report};

pub(crate) async fn run(cortex: &Path, nodes: usize, seconds: u64) -> Result<()> {
    report::heading("heartbeats, each sent when the last was answered");
    let hub = Hub::start(cortex)?;
    let swarm = Swarm::start(&hub, "s", nodes, Beat::Flood).await?;
    let writes = super::store_writes(&hub).await?;
    let acks = swarm.counts.acks.load(Ordering::Relaxed);
    let cpu_before = cpu::seconds(&[hub.pid()])?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let acks = swarm.counts.acks.load(Ordering::Relaxed) - acks;
    let cpu = cpu::seconds(&[hub.pid()])? - cpu_before;
    let writes = super::store_writes(&hub).await? - writes;
    report::head(&["nodes", "heartbeats/s", "hub CPU us each", "store writes", "goal"]);
    report::row(&[
        &nodes.to_string(),
        &format!("{:.0}", acks as f64 / seconds as f64),
        &format!("{:.1}", cpu * 1e6 / acks.max(1) as f64),
        &writes.to_string(),
        "10,000/s, 0 writes",
    ]);
    report::note("The load generator shares the two cores with the hub.");
    swarm.stop().await;
    Ok(())
}
