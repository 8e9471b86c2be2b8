//! The work pool: claim + complete beside other durable pools, the way from a submission to a worker that
//! waits, and a thousand beside a million waiting tasks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::pool::beanstalkd::Beanstalkd;
use crate::pool::nats::Nats;
use crate::pool::ours::Ours;
use crate::pool::postgres::Postgres;
use crate::pool::{Peer, js, work};
use crate::report::{self, Samples};

/// What each measurement is.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Jobs that wait before it.
    pub(crate) jobs: u64,
    /// Seconds after which it ends.
    pub(crate) seconds: u64,
}

/// Workers and the jobs that each takes at once.
const SHAPES: [(usize, usize); 5] = [(1, 1), (16, 1), (64, 1), (1, 32), (16, 32)];

/// Starts a pool; nothing when it is not installed.
type Start<'a> = &'a dyn Fn() -> Result<Option<Box<dyn Peer>>>;

type Rates = BTreeMap<(&'static str, usize, usize), Samples>;

pub(crate) fn rates(
    cortex: &Path,
    passes: usize,
    load: Load,
    only: &str,
    (workers, at_once): (Option<usize>, Option<usize>),
) -> Result<()> {
    report::heading(&format!(
        "claim + complete, two acknowledged round trips, {} jobs of 100 bytes, three priorities",
        load.jobs
    ));
    let is_asked = |(count, max): &(usize, usize)| {
        workers.is_none_or(|asked| asked == *count) && at_once.is_none_or(|asked| asked == *max)
    };
    let mut rates = Rates::new();
    for _ in 0..passes {
        for shape in SHAPES.into_iter().filter(is_asked) {
            pass(cortex, shape, load, only, &mut rates)?;
        }
    }
    report::head(&["pool", "workers", "at once", "jobs/s, median", "each", "cortex to it"]);
    for ((name, workers, max), samples) in &rates {
        let ours = rates.get(&("cortex", *workers, *max)).map_or(0.0, Samples::median);
        let each: Vec<String> = samples.each().iter().map(|rate| format!("{rate:.0}")).collect();
        report::row(&[
            name,
            &workers.to_string(),
            &max.to_string(),
            &format!("{:.0}", samples.median()),
            &each.join(" "),
            &format!("{:.2}x", ours / samples.median().max(1.0)),
        ]);
    }
    report::note(&format!(
        "load after: {}",
        std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim()
    ));
    Ok(())
}

/// Each pool once, freshly started, one after the other.
fn pass(
    cortex: &Path,
    (workers, max): (usize, usize),
    Load { jobs, seconds }: Load,
    only: &str,
    rates: &mut Rates,
) -> Result<()> {
    let mut add = |name: &'static str, rate: f64| {
        report::note(&format!("{name}: {workers} workers, {max} at once: {rate:.0}/s"));
        rates.entry((name, workers, max)).or_default().push(rate);
    };
    let limit = Duration::from_secs(seconds);
    let starts: [(&str, Start<'_>); 4] = [
        ("cortex", &|| Ok(Some(Box::new(Ours::start(cortex)?)))),
        ("PostgreSQL", &|| Ok(Postgres::start()?.map(|peer| Box::new(peer) as Box<dyn Peer>))),
        ("beanstalkd", &|| Ok(Beanstalkd::start()?.map(|peer| Box::new(peer) as Box<dyn Peer>))),
        ("NATS", &|| Ok(Nats::start()?.map(|peer| Box::new(peer) as Box<dyn Peer>))),
    ];
    for (_, start) in starts.iter().filter(|(name, _)| name.starts_with(only)) {
        let Some(mut peer) = start()? else {
            report::note("a pool is left out: its server is not installed");
            continue;
        };
        if max > 1 && !peer.batches() {
            continue;
        }
        peer.fill(jobs)?;
        // What the filling has written is on the disk before the others' turn begins.
        nix::unistd::sync();
        let worked = work(peer.as_ref(), workers, max, limit)?;
        add(peer.name(), worked.rate);
    }
    if max > 1 || !only.is_empty() {
        return Ok(());
    }
    match js::redis()? {
        Some(redis) => add("BullMQ", js::rate("bullmq.mjs", redis.port, workers, jobs, seconds)?),
        None => report::note("BullMQ is left out: it is not installed"),
    }
    match Postgres::start()?.filter(|_| js::has("graphile-worker")) {
        Some(peer) => {
            add("graphile-worker", js::rate("graphile.mjs", peer.port(), workers, jobs, seconds)?);
        }
        None => report::note("graphile-worker is left out: it is not installed"),
    }
    Ok(())
}

/// From sending a submission to the claim's answer, with a worker that waits.
pub(crate) fn idle(cortex: &Path, rounds: u64) -> Result<()> {
    report::heading("idle: a submission to a waiting worker's claim");
    let ours = Ours::start(cortex)?;
    let peer = Beanstalkd::start()?;
    let (mut our_ms, mut their_ms) = (Samples::default(), Samples::default());
    for block in 0..6 {
        let (mut submitter, mut worker) = (ours.connect()?, ours.connect()?);
        let waits = move || -> Result<Instant> {
            let leases = worker.claim(1, 10)?;
            let at = Instant::now();
            worker.finish(&leases)?;
            Ok(at)
        };
        let samples = waits_and_sends(rounds / 6, waits, |number| submitter.submit_one(number))?;
        let mut theirs = Samples::default();
        if let Some(peer) = &peer {
            let (mut producer, mut worker) = (peer.connect()?, peer.connect()?);
            let waits = move || -> Result<Instant> {
                let id = worker.reserve(10)?.ok_or_else(|| anyhow!("nothing came"))?;
                let at = Instant::now();
                worker.delete(&id)?;
                Ok(at)
            };
            theirs = waits_and_sends(rounds / 6, waits, |number| producer.put(&[number]))?;
        }
        // The first block warms up.
        if block > 0 {
            our_ms.extend(samples);
            their_ms.extend(theirs);
        }
    }
    report::head(&["pool", "p50 ms", "p99 ms", "p50 to beanstalkd"]);
    for (name, samples) in [("cortex", &our_ms), ("beanstalkd -b -f0", &their_ms)] {
        report::row(&[
            name,
            &format!("{:.3}", samples.median()),
            &format!("{:.3}", samples.quantile(0.99)),
            &format!("{:.2}x", samples.median() / their_ms.median().max(0.001)),
        ]);
    }
    Ok(())
}

fn waits_and_sends(
    rounds: u64,
    mut waits: impl FnMut() -> Result<Instant> + Send,
    mut send: impl FnMut(u64) -> Result<()>,
) -> Result<Samples> {
    let (tell, told) = mpsc::sync_channel(1);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || -> Result<()> {
            for _ in 0..rounds {
                tell.send(waits()?)?;
            }
            Ok(())
        });
        let mut samples = Samples::default();
        for number in 0..rounds {
            // Time for the worker to be waiting again.
            std::thread::sleep(Duration::from_millis(5));
            let begun = Instant::now();
            send(number)?;
            let at = told.recv_timeout(Duration::from_secs(20))?;
            samples.push(at.saturating_duration_since(begun).as_secs_f64() * 1e3);
        }
        worker.join().map_err(|_| anyhow!("the worker panicked"))??;
        Ok(samples)
    })
}

/// A thousand beside many waiting tasks, and how soon a hub with that many serves.
pub(crate) fn many(cortex: &Path, tasks: u64, seconds: u64) -> Result<()> {
    report::heading("a thousand beside many waiting tasks");
    report::head(&["waiting", "workers", "claim + complete/s", "single claim p50 ms"]);
    let mut few = Ours::start(cortex)?;
    let mut many = Ours::start(cortex)?;
    let begun = Instant::now();
    many.fill(tasks)?;
    let filled = begun.elapsed().as_secs_f64();
    for workers in [1, 16] {
        for _ in 0..3 {
            let (mut jobs, mut spent, mut claims) = (0, 0.0, Samples::default());
            while spent < seconds as f64 {
                few.fill(1_000)?;
                let worked = work(&few, workers, 1, Duration::from_secs(seconds))?;
                spent += worked.jobs as f64 / worked.rate.max(1.0);
                jobs += worked.jobs;
                claims.extend(worked.claim_ms);
            }
            row(1_000, workers, jobs as f64 / spent, &claims);
            let worked = work(&many, workers, 1, Duration::from_secs(seconds))?;
            row(tasks, workers, worked.rate, &worked.claim_ms);
        }
    }
    let begun = Instant::now();
    many.hub.kill_and_restart()?;
    report::note(&format!(
        "{tasks} tasks were submitted in {filled:.1} s; killed, the hub with what is left of them serves after {:.2} s",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn row(waiting: u64, workers: usize, rate: f64, claims: &Samples) {
    let cells =
        [waiting.to_string(), workers.to_string(), format!("{rate:.0}"), format!("{:.3}", claims.median())];
    report::row(&cells.each_ref().map(String::as_str));
}
