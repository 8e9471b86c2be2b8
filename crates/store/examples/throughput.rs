//! How many durable writes per second this machine does, by the number of callers that wait at
//! once. `cargo run --release -p cortex-store --example throughput -- [seconds] [directory]`.
//!
//! A write is what accepting a run costs: one run, one event, one audit row.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{NodeId, Revision, RunId};
use cortex_core::run::{Run, RunSpec};
use cortex_core::time::WallTime;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{Store, StoreExt, Tx, WriteError};

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
enum Kind {
    Event,
    Accept,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args.next().map_or(Ok(3), |text| text.parse())?;
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mut out = std::io::stdout().lock();
    writeln!(out, "write    callers  writes/s  commits/s  per commit  p50 ms  p99 ms")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    for kind in [Kind::Event, Kind::Accept] {
        for callers in [1, 16, 64] {
            let dir = tempfile::TempDir::new_in(&parent)?;
            let store = Arc::new(SqliteStore::open(dir.path(), SqliteOptions::default(), None)?);
            let row = runtime.block_on(measure(store, kind, callers, Duration::from_secs(seconds)))?;
            writeln!(out, "{row}")?;
        }
    }
    Ok(())
}

async fn measure(
    store: Arc<SqliteStore>,
    kind: Kind,
    callers: u64,
    time: Duration,
) -> Result<String, WriteError> {
    let begun = Instant::now();
    let counter = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| tokio::spawn(call(Arc::clone(&store), kind, begun + time, Arc::clone(&counter))))
        .collect();
    let mut waits = Vec::new();
    for task in tasks {
        waits.append(&mut task.await.unwrap_or_else(|_| Ok(Vec::new()))?);
    }
    let seconds = begun.elapsed().as_secs_f64();
    waits.sort_unstable();
    let at = |part: f64| waits.get((waits.len() as f64 * part) as usize).map_or(0.0, |us| *us as f64 / 1e3);
    let stats = store.stats();
    store.close().await;
    Ok(format!(
        "{:<8} {callers:>7}  {:>8.0}  {:>9.0}  {:>10.1}  {:>6.2}  {:>6.2}",
        format!("{kind:?}").to_lowercase(),
        waits.len() as f64 / seconds,
        stats.commits as f64 / seconds,
        stats.writes as f64 / stats.commits as f64,
        at(0.5),
        at(0.99),
    ))
}

/// One caller: writes until the end, one after the other. Returns how long each took, microseconds.
async fn call(
    store: Arc<SqliteStore>,
    kind: Kind,
    end: Instant,
    counter: Arc<AtomicU64>,
) -> Result<Vec<u64>, WriteError> {
    let mut waits = Vec::new();
    while Instant::now() < end {
        let number = counter.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        store.write(DEADLINE, move |tx| write(tx, kind, number)).await?;
        waits.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(waits)
}

fn write(tx: &mut dyn Tx, kind: Kind, number: u64) -> Result<(), WriteError> {
    let node = NodeId::mint(number % 20, &[1; 10]);
    let run = RunId::mint(number, &[2; 10]);
    let event = Event::new(EventKind::RunAccepted, WallTime(0)).node(node).run(run).actor("token:admin");
    tx.append_event(&event)?;
    match kind {
        Kind::Event => Ok(()),
        Kind::Accept => {
            let audit = AuditRow {
                node: Some(node),
                run: Some(run),
                argv: vec!["true".to_owned()],
                ..AuditRow::new(WallTime(0), "token:admin", "run.start", Outcome::Allowed)
            };
            tx.append_audit(&audit)?;
            tx.put_run(&accepted(run, node))
        }
    }
}

fn accepted(id: RunId, node: NodeId) -> Run {
    let spec = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
    let run = Run::accepted(id, node, spec, "token:admin".to_owned(), Revision(1), WallTime(0));
    Run { idempotency_key: Some(id.to_string()), ..run }
}
