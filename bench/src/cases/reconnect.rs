//! The hub is killed and started again: how soon it serves, and when all nodes are back.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::hub::Hub;
use crate::report;
use crate::swarm::{Beat, Swarm};

pub(crate) async fn run(cortex: &Path, nodes: usize) -> Result<()> {
    report::heading("the hub is killed and started again");
    let mut hub = Hub::start(cortex)?;
    let swarm = Swarm::start(&hub, "s", nodes, Beat::Normal).await?;
    let attaches = swarm.counts.attaches.load(Ordering::Relaxed);
    let begun = Instant::now();
    hub.kill_and_restart()?;
    let serving = begun.elapsed();
    let share = |share: f64| attaches + (nodes as f64 * share).ceil() as u64;
    let half = back(&swarm, share(0.5), begun).await?;
    let most = back(&swarm, share(0.99), begun).await?;
    let all = back(&swarm, share(1.0), begun).await?;
    report::head(&["nodes", "serving after s", "half back s", "99 % back s", "all back s", "goal"]);
    let seconds = |time: Duration| format!("{:.2}", time.as_secs_f64());
    report::row(&[
        &nodes.to_string(),
        &seconds(serving),
        &seconds(half),
        &seconds(most),
        &seconds(all),
        "2 s, 99 % of 1,000 in 5 s",
    ]);
    swarm.stop().await;
    Ok(())
}

async fn back(swarm: &Swarm, attaches: u64, begun: Instant) -> Result<Duration> {
    while swarm.counts.attaches.load(Ordering::Relaxed) < attaches {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(120), "not all nodes came back");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(begun.elapsed())
}
