//! Memory of the hub per idle node, and CPU that idle nodes cost.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::hub::Hub;
use crate::swarm::{Beat, Swarm};
use crate::{cpu, report};

pub(crate) async fn run(cortex: &Path, counts: &[usize], seconds: u64) -> Result<()> {
    report::heading("idle nodes (simulated: real enrolment, TLS and heartbeats)");
    report::head(&[
        "nodes",
        "hub RSS before MiB",
        "hub RSS after MiB",
        "KiB per node",
        "hub CPU, share of a core",
        "store writes while idle",
        "goal",
    ]);
    for count in counts {
        let hub = Hub::start(cortex)?;
        let before = cpu::rss_kib(hub.pid())?;
        let swarm = Swarm::start(&hub, "s", *count, Beat::Normal).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let writes = super::store_writes(&hub).await?;
        let cpu_before = cpu::seconds(&[hub.pid()])?;
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let share = (cpu::seconds(&[hub.pid()])? - cpu_before) / seconds as f64;
        let idle_writes = super::store_writes(&hub).await? - writes;
        let after = cpu::rss_kib(hub.pid())?;
        report::row(&[
            &count.to_string(),
            &format!("{:.1}", before as f64 / 1024.0),
            &format!("{:.1}", after as f64 / 1024.0),
            &format!("{:.1}", (after - before) as f64 / *count as f64),
            &format!("{:.1} %", share * 100.0),
            &idle_writes.to_string(),
            "64 KiB per node",
        ]);
        swarm.stop().await;
    }
    Ok(())
}
