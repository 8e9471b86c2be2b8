//! The work pool as nodes have it: tasks that are commands, handed to simulated nodes over their links, which say
//! at once that they began and ended. A job is done when the hub says that it has settled it. Beside it, in the same
//! minutes, PostgreSQL with as many workers as there are slots.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::api::Api;
use crate::cpu;
use crate::hub::Hub;
use crate::pool::postgres::Postgres;
use crate::pool::{Peer, work};
use crate::report::{self, Samples};
use crate::swarm::{Beat, Swarm};

/// Jobs that wait before each measurement.
const JOBS: u64 = 20_000;

/// Nodes, and the slots of each.
const SHAPES: [(usize, u32); 5] = [(1, 1), (1, 16), (16, 1), (64, 1), (16, 16)];

/// PostgreSQL lets in few more connections than that.
const PEER_WORKERS_MAX: usize = 64;

/// Commands stand still until all nodes are there.
const PAUSES: &str = "/api/v1/pool/pauses";
const COMMANDS: &str = "kind%3Acommand";

/// What came of one shape, over all passes.
#[derive(Default)]
struct Row {
    ours: Samples,
    theirs: Samples,
    cpu_us: Samples,
    writes: Samples,
}

pub(crate) async fn run(
    cortex: &Path,
    passes: usize,
    seconds: u64,
    shape: Option<&str>,
    alone: bool,
) -> Result<()> {
    report::heading("tasks of nodes: claimed, started, ended, settled; 20,000 commands in three priorities");
    let limit = Duration::from_secs(seconds);
    let mut rows: BTreeMap<(usize, u32), Row> = BTreeMap::new();
    for _ in 0..passes {
        for (nodes, slots) in SHAPES {
            if shape.is_some_and(|wanted| wanted != format!("{nodes}x{slots}")) {
                continue;
            }
            let row = rows.entry((nodes, slots)).or_default();
            ours(cortex, nodes, slots, limit, row).await?;
            let workers = (nodes * slots as usize).min(PEER_WORKERS_MAX);
            if !alone && let Some(rate) = theirs(workers, limit)? {
                row.theirs.push(rate);
            }
        }
    }
    table(&rows);
    Ok(())
}

fn table(rows: &BTreeMap<(usize, u32), Row>) {
    report::head(&[
        "nodes x slots",
        "jobs/s, median",
        "each",
        "hub CPU us per job",
        "writes per commit",
        "PostgreSQL",
        "each",
        "cortex to it",
    ]);
    let each = |samples: &Samples| {
        samples.each().iter().map(|rate| format!("{rate:.0}")).collect::<Vec<_>>().join(" ")
    };
    for ((nodes, slots), row) in rows {
        report::row(&[
            &format!("{nodes} x {slots}"),
            &format!("{:.0}", row.ours.median()),
            &each(&row.ours),
            &format!("{:.0}", row.cpu_us.median()),
            &format!("{:.1}", row.writes.median()),
            &format!("{:.0}", row.theirs.median()),
            &each(&row.theirs),
            &format!("{:.2}x", row.ours.median() / row.theirs.median().max(1.0)),
        ]);
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    report::note(&format!("load after: {}", load.trim()));
}

/// A fresh hub with these nodes, until nothing waits or the time is over.
async fn ours(cortex: &Path, nodes: usize, slots: u32, limit: Duration, row: &mut Row) -> Result<()> {
    let hub = Hub::start(cortex)?;
    let mut api = Api::connect(&hub).await?;
    api.change(Method::POST, PAUSES, json!({"part": "kind:command"}).to_string()).await?;
    let swarm = Swarm::with_slots(&hub, "s", nodes, Beat::Normal, slots).await?;
    for index in 0..nodes {
        let policy = json!({"profile": "permissive"}).to_string();
        api.change(Method::PUT, &format!("/api/v1/policies/s{index}"), policy).await?;
    }
    fill(&mut api).await?;
    nix::unistd::sync();
    let settled = || swarm.counts.settled.load(Ordering::Relaxed);
    let (writes, commits) = counts(&mut api).await?;
    let cpu_before = cpu::seconds(&[hub.pid()])?;
    api.change(Method::DELETE, &format!("{PAUSES}/{COMMANDS}"), String::new()).await?;
    let begun = Instant::now();
    while settled() < JOBS && begun.elapsed() < limit {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (jobs, spent) = (settled(), begun.elapsed().as_secs_f64());
    let cpu = cpu::seconds(&[hub.pid()])? - cpu_before;
    let (writes_after, commits_after) = counts(&mut api).await?;
    let stats = api.get("/api/v1/pool/stats").await?;
    let done = stats["tasks"]["done"].as_u64().with_context(|| format!("{stats}"))?;
    ensure!(jobs > 0 && done >= jobs, "{jobs} were settled, {done} are done: {stats}");
    let rate = jobs as f64 / spent;
    report::note(&format!("cortex: {nodes} nodes of {slots} slots: {rate:.0}/s"));
    row.ours.push(rate);
    row.cpu_us.push(cpu * 1e6 / jobs as f64);
    row.writes.push((writes_after - writes) as f64 / (commits_after - commits).max(1) as f64);
    swarm.stop().await;
    Ok(())
}

/// Writes of the hub's store, and its commits.
async fn counts(api: &mut Api) -> Result<(u64, u64)> {
    let stats = api.get("/api/v1/stats").await?;
    let count = |key: &str| stats[key].as_u64().with_context(|| format!("{key} in {stats}"));
    Ok((count("store_writes")?, count("store_commits")?))
}

async fn fill(api: &mut Api) -> Result<()> {
    let numbers: Vec<u64> = (0..JOBS).collect();
    for some in numbers.chunks(1_000) {
        let tasks: Vec<Value> =
            some.iter().map(|number| json!({"argv": ["true"], "priority": 4 + number % 3})).collect();
        let answer = api.change(Method::POST, "/api/v1/pool/tasks", json!(tasks).to_string()).await?;
        let items = answer["items"].as_array().context("items")?;
        let taken = items.iter().filter(|item| item["task"].is_object()).count();
        ensure!(taken == some.len(), "{taken} of {} tasks were taken: {}", some.len(), items[0]);
    }
    Ok(())
}

fn theirs(workers: usize, limit: Duration) -> Result<Option<f64>> {
    let Some(mut peer) = Postgres::start()? else {
        report::note("PostgreSQL is left out: it is not installed");
        return Ok(None);
    };
    peer.fill(JOBS)?;
    nix::unistd::sync();
    let rate = work(&peer, workers, 1, limit)?.rate;
    report::note(&format!("{}: {workers} workers: {rate:.0}/s", peer.name()));
    Ok(Some(rate))
}
