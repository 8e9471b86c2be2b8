//! Output of one run through node, hub and client, with the output kept, against one hop of ssh.
//! Meanwhile another node's commands are timed, and the hub's memory is watched.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::CpuSpan;
use crate::api::Api;
use crate::cpu;
use crate::hub::Hub;
use crate::report::{self, Samples};
use crate::ssh::Ssh;

pub(crate) async fn run(cortex: &Path, bytes: u64, rounds: usize) -> Result<()> {
    let mut hub = Hub::start(cortex)?;
    hub.add_node("loud")?;
    hub.add_node("quiet")?;
    hub.allow("loud", &["head", "cat"])?;
    let mut ssh = Ssh::start()?;
    if let Some(ssh) = &mut ssh {
        ssh.keep()?;
    }
    let text = hub.dir().join("text");
    std::fs::write(&text, log_like(bytes))?;
    let text = text.display().to_string();
    let count = bytes.to_string();
    let zeros = ["head", "-c", &count, "/dev/zero"];
    let lines = ["cat", text.as_str()];
    report::heading(&format!("{bytes} bytes of output"));
    let alone = quiet_alone(&hub, Duration::from_secs(3)).await?;
    report::head(&[
        "what",
        "wall s",
        "CPU s/GB, both hops",
        "hub RSS growth MiB",
        "other node's p50 / p99 ms",
        "of those alone",
        "goal",
    ]);
    for (name, argv) in [("zeros", zeros.as_slice()), ("log lines", lines.as_slice())] {
        let mut rows = (Samples::default(), Samples::default(), Samples::default(), Samples::default());
        for _ in 0..rounds {
            // CPU is counted without the other node's commands, whose own CPU is not ours here.
            let (wall, cpu, growth, _) = ours(&hub, argv, bytes, false).await?;
            rows.0.push(wall);
            rows.1.push(cpu);
            rows.2.push(growth);
            rows.3.extend(ours(&hub, argv, bytes, true).await?.3);
        }
        report::row(&[
            &format!("cortex, {name}"),
            &format!("{:.2}", rows.0.median()),
            &format!("{:.2}", rows.1.median()),
            &format!("{:.1}", rows.2.quantile(1.0)),
            &percentiles(&rows.3),
            &percentiles(&alone),
            "5.0 CPU, 32 MiB, 2x",
        ]);
        if let Some(ssh) = &ssh {
            let (wall, cpu) = peer(ssh, &argv.join(" "), bytes, rounds)?;
            report::row(&[
                &format!("ssh (one hop), {name}"),
                &format!("{wall:.2}"),
                &format!("{cpu:.2}"),
                "",
                "",
                "",
                "peer",
            ]);
        }
    }
    Ok(())
}

/// Wall seconds, CPU seconds per GB, growth of the hub's memory in MiB, and how long the other
/// node's commands took when that is asked for.
async fn ours(hub: &Hub, argv: &[&str], bytes: u64, probe: bool) -> Result<(f64, f64, f64, Samples)> {
    let mut api = Api::connect(hub).await?;
    let before = cpu::rss_kib(hub.pid())?;
    let done = Arc::new(AtomicBool::new(false));
    let watcher = tokio::task::spawn_blocking({
        let (done, pid) = (Arc::clone(&done), hub.pid());
        move || peak_rss(pid, &done)
    });
    let begun = Instant::now();
    let span = CpuSpan::begin(&hub.meter)?;
    let run = api.start("loud", argv).await?;
    let read = async {
        let got = api.read_output(&run).await;
        done.store(true, Ordering::Relaxed);
        got.map(|got| (got, begun.elapsed().as_secs_f64()))
    };
    let other = async { if probe { quiet_until(hub, &done).await } else { Ok(Samples::default()) } };
    let ((got, wall), others) = tokio::try_join!(read, other)?;
    let cpu = span.end_ms()? / 1e3;
    ensure!(got == bytes, "{got} of {bytes} bytes arrived");
    let growth = watcher.await?.saturating_sub(before) as f64 / 1024.0;
    Ok((wall, cpu / (bytes as f64 / 1e9), growth, others))
}

fn peer(ssh: &Ssh, argv: &str, bytes: u64, rounds: usize) -> Result<(f64, f64)> {
    let (mut wall, mut cpu) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let span = CpuSpan::begin(&ssh.meter)?;
        let begun = Instant::now();
        let mut child = ssh.command(argv).stdout(Stdio::piped()).spawn()?;
        let mut stdout = child.stdout.take().ok_or_else(|| anyhow::anyhow!("stdout"))?;
        let got = std::io::copy(&mut stdout, &mut std::io::sink())?;
        child.wait()?;
        ensure!(got == bytes, "ssh gave {got} of {bytes} bytes");
        wall.push(begun.elapsed().as_secs_f64());
        cpu.push(span.end_ms()? / 1e3 / (bytes as f64 / 1e9));
    }
    Ok((wall.median(), cpu.median()))
}

async fn quiet_alone(hub: &Hub, time: Duration) -> Result<Samples> {
    let done = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&done);
    tokio::spawn(async move {
        tokio::time::sleep(time).await;
        end.store(true, Ordering::Relaxed);
    });
    quiet_until(hub, &done).await
}

fn percentiles(samples: &Samples) -> String {
    format!("{:.2} / {:.2}", samples.median(), samples.quantile(0.99))
}

/// Times warm commands on the other node until `done`, in milliseconds.
async fn quiet_until(hub: &Hub, done: &AtomicBool) -> Result<Samples> {
    let mut api = Api::connect(hub).await?;
    let nodes = ["quiet".to_owned()];
    let mut samples = Samples::default();
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        api.exec(&nodes, &["true"]).await?;
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(samples)
}

fn peak_rss(pid: u32, done: &AtomicBool) -> u64 {
    let mut peak = 0;
    while !done.load(Ordering::Relaxed) {
        peak = peak.max(cpu::rss_kib(pid).unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    peak
}

/// Lines as builds print them, which compress by about six.
fn log_like(bytes: u64) -> Vec<u8> {
    let mut text = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
    let mut number = 0x9e37_79b9_7f4a_7c15_u64;
    while (text.len() as u64) < bytes {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let line = format!(
            "   Compiling crate-{} v{}.{}.{} ({} ms)\n",
            number >> 50,
            number % 9,
            number % 31,
            number % 7,
            number >> 44
        );
        text.extend_from_slice(line.as_bytes());
    }
    text.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
    text
}
