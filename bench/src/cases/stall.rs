//! The hub's disk stops syncing for a while, under the real binary: a shim holds `fsync` back.
//! Heartbeats, presence and live control must not notice; what needs the store must be refused
//! with a code, in time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::api::Api;
use crate::hub::Hub;
use crate::report;
use crate::swarm::{Beat, Swarm};

const SHIM: &str = include_str!("stall.c");

pub(crate) async fn run(cortex: &Path, nodes: usize, seconds: u64) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (shim, switch) = (compile(dir.path())?, dir.path().join("stalled"));
    let env = [("LD_PRELOAD", shim.as_path()), ("CORTEX_BENCH_STALL", switch.as_path())];
    let mut hub = Hub::start_with(cortex, dir, &env)?;
    hub.add_node("live")?;
    let late = hub.join("late", &["--no-start"])?.output()?;
    ensure!(late.status.success(), "join: {}", String::from_utf8_lossy(&late.stderr));
    let swarm = Swarm::start(&hub, "s", nodes, Beat::Normal).await?;
    let mut api = Api::connect(&hub).await?;
    let run = api.start("live", &["sleep", "600"]).await?;
    wait_state(&hub, &run, "running", Duration::from_secs(5)).await?;
    let stranger = hub.join("stranger", &["--no-start"])?;

    report::heading(&format!("{nodes} simulated nodes and a real one, the disk stalls for {seconds} s"));
    let (acks, refused) =
        (swarm.counts.acks.load(Ordering::Relaxed), swarm.counts.refused.load(Ordering::Relaxed));
    std::fs::write(&switch, "")?;
    let begun = Instant::now();
    let attach = tokio::task::spawn_blocking({
        let mut command = hub.node_start("late");
        let log = hub.dir().join("late.log");
        move || attach_refused(&mut command, &log)
    });
    let join = tokio::task::spawn_blocking(move || timed(stranger));
    let cancelled = tokio::task::spawn_blocking({
        let command = hub.command(&["run", "cancel", &run, "--json"]);
        move || timed(command)
    });
    let ended = sleep_ended(Duration::from_secs(10)).await?;
    let mut fewest_online = usize::MAX;
    while begun.elapsed() < Duration::from_secs(seconds) {
        fewest_online = fewest_online.min(online(&hub).await?);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let acks = swarm.counts.acks.load(Ordering::Relaxed) - acks;
    let refused = swarm.counts.refused.load(Ordering::Relaxed) - refused;
    std::fs::remove_file(&switch)?;
    let (join_s, join_answer) = join.await??;
    let (attach_s, attach_code) = attach.await??;
    let (cancel_s, cancel_answer) = cancelled.await??;
    wait_state(&hub, &run, "cancelled", Duration::from_secs(15)).await?;

    report::head(&["what", "figure", "goal"]);
    let expected = nodes as u64 * seconds / 3;
    report::row(&["heartbeats answered", &format!("{acks} (about {expected} were due)"), "all"]);
    report::row(&["fewest nodes online, of", &format!("{fewest_online} of {}", nodes + 1), "all"]);
    report::row(&["links of the simulated nodes that were lost", &refused.to_string(), "0"]);
    report::row(&[
        "a running command is ended by cancel after",
        &format!("{ended:.2} s"),
        "live control works",
    ]);
    report::row(&[
        "the cancel's own answer",
        &format!("{cancel_s:.1} s, {cancel_answer}"),
        "an answer, not a hang",
    ]);
    report::row(&[
        "a joined node that attaches",
        &format!("{attach_s:.1} s, {attach_code}"),
        "a clear code after 5 s",
    ]);
    report::row(&["a node that joins", &format!("{join_s:.1} s, {join_answer}"), "a clear code"]);
    report::row(&["after the stall the run is", "cancelled", "settled"]);
    swarm.stop().await;
    Ok(())
}

fn compile(dir: &Path) -> Result<PathBuf> {
    let (source, shim) = (dir.join("stall.c"), dir.join("stall.so"));
    std::fs::write(&source, SHIM)?;
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(&source)
        .arg("-ldl")
        .status()?;
    ensure!(status.success(), "cc: {status}");
    Ok(shim)
}

/// Seconds, and the code of the refusal or `ok`.
fn timed(mut command: Command) -> Result<(f64, String)> {
    let begun = Instant::now();
    let output = command.stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let answer: serde_json::Value =
        text.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    let code = answer["error"]["code"].as_str().unwrap_or("ok").to_owned();
    Ok((begun.elapsed().as_secs_f64(), format!("{code} (exit {})", output.status.code().unwrap_or(-1))))
}

/// Seconds until a node that dials is refused, and with which code its log names that.
fn attach_refused(command: &mut Command, log: &Path) -> Result<(f64, String)> {
    let begun = Instant::now();
    let mut node = command.stdout(Stdio::null()).stderr(std::fs::File::create(log)?).spawn()?;
    let mut answer = Err(anyhow::anyhow!("the node was not refused within 20 s"));
    while begun.elapsed() < Duration::from_secs(20) {
        if std::fs::read_to_string(log)?.contains("store_unavailable") {
            answer = Ok((begun.elapsed().as_secs_f64(), "store_unavailable".to_owned()));
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    node.kill()?;
    node.wait()?;
    answer
}

async fn online(hub: &Hub) -> Result<usize> {
    let stats = Api::connect(hub).await?.get("/api/v1/stats").await?;
    Ok(usize::try_from(stats["nodes_online"].as_u64().context("nodes_online")?)?)
}

/// Seconds until no `sleep 600` lives any more.
async fn sleep_ended(time: Duration) -> Result<f64> {
    let begun = Instant::now();
    while Command::new("pgrep").args(["-fx", "sleep 600"]).stdout(Stdio::null()).status()?.success() {
        ensure!(begun.elapsed() < time, "the command was not ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(begun.elapsed().as_secs_f64())
}

async fn wait_state(hub: &Hub, run: &str, state: &str, time: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let view = Api::connect(hub).await?.get(&format!("/api/v1/runs/{run}")).await?;
        if view["state"] == state {
            return Ok(());
        }
        ensure!(begun.elapsed() < time, "the run is {} and not {state}", view["state"]);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
