//! Ended runs go with their output when they are too old or too many; nothing else goes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cortex_core::id::{Revision, RunId};
use cortex_core::retention::Kept;
use cortex_core::run::{Run, RunSpec};
use cortex_core::stream::{Positions, Stream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::runs::{keep_run_until, run_with_output_until};
use super::*;
use crate::mesh::Mesh;
use crate::service::runs::{Looked, Runs};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
const MONTH: Kept = Kept { ms: 30 * DAY_MS, max: 1_000, age_after_ms: 0 };

/// The use cases of the hub's runs, as its own worker has them.
pub(super) fn runs(world: &World) -> Runs {
    runs_by(world, world.hub.context.clock)
}

/// The same by another clock.
fn runs_by(world: &World, clock: clock::Clock) -> Runs {
    let context = Context { clock, ..world.hub.context.clone() };
    let logs = RunLogs::open(&world.dir.path().join(RUNS)).expect("the logs");
    let mesh: Mesh = world.hub.mesh.clone();
    Runs::new(context, mesh, logs, world.dir.path())
}

/// No stop.
fn going_on() -> CancellationToken {
    CancellationToken::new()
}

/// A run with output that ended so long ago.
async fn ended(world: &World, node: NodeId, ms_ago: u64) -> RunId {
    let end = WallTime(world.hub.context.clock.wall().0 - i64::try_from(ms_ago).expect("a span"));
    run_with_output_until(world, node, &[(Stream::Stdout, b"output")], end).await
}

/// All log files of the hub with this data directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let shelves = std::fs::read_dir(dir.join(RUNS))
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path());
    let logs = shelves.filter(|path| path.is_dir()).flat_map(|shelf| {
        std::fs::read_dir(shelf).expect("a shelf").map(|entry| entry.expect("an entry").path())
    });
    logs.filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect()
}

async fn kept(world: &World) -> Vec<String> {
    let page = world.get("/api/v1/runs").await.ok(200);
    let mut ids: Vec<String> = page["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|run| run["id"].as_str().expect("an id").to_owned())
        .collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn runs_that_ended_a_month_ago_go_with_their_files_and_open_ones_stay() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let old = ended(&world, node, 31 * DAY_MS).await;
    let young = ended(&world, node, 29 * DAY_MS).await;
    let spec = RunSpec { argv: vec!["sleep".to_owned()], ..RunSpec::default() };
    let open = clock::new_run_id(&world.hub.context.clock);
    let run = Run::accepted(open, node, spec, "token:admin".to_owned(), Revision(1), WallTime(1));
    world.write(move |tx| tx.put_run(&run)).await;
    assert_eq!(files(world.dir.path()).len(), 2);

    let runs = runs(&world);
    assert_eq!(runs.retain(MONTH, &going_on()).await.expect("removed"), Looked::Removed(1));
    assert_eq!(kept(&world).await, [young.to_string(), open.to_string()]);
    assert_eq!(files(world.dir.path()).len(), 1);
    world.get(&format!("/api/v1/runs/{old}")).await.refused(404, "not_found");
    let Looked::Idle(wait, room) = runs.retain(MONTH, &going_on()).await.expect("looked") else {
        panic!("more went")
    };
    assert!(wait > Duration::from_secs(23 * 3_600) && wait <= Duration::from_millis(DAY_MS), "{wait:?}");
    assert_eq!(room, 999);
    world.stop().await;
}

#[tokio::test]
async fn beyond_their_number_those_that_ended_first_go() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let mut ids = Vec::new();
    for ms_ago in [5_000, 1_000, 4_000, 2_000, 3_000] {
        ids.push(ended(&world, node, ms_ago).await);
    }
    let two = Kept { max: 2, ..MONTH };
    assert_eq!(runs(&world).retain(two, &going_on()).await.expect("removed"), Looked::Removed(3));
    let mut left = [ids[1].to_string(), ids[3].to_string()];
    left.sort();
    assert_eq!((kept(&world).await, files(world.dir.path()).len()), (left.to_vec(), 2));
    world.stop().await;
}

#[tokio::test]
async fn a_clock_that_jumps_a_month_ahead_removes_nothing() {
    let world = World::new(StoreKind::Sqlite).await;
    let node = world.node("n1").await;
    let young = ended(&world, node, DAY_MS).await;
    let jumped = runs_by(&world, world.hub.context.clock.ahead(Duration::from_millis(MONTH.ms)));
    let Looked::Idle(wait, _) = jumped.retain(MONTH, &going_on()).await.expect("looked") else {
        panic!("it went")
    };
    assert!(wait > Duration::from_millis(28 * DAY_MS), "{wait:?}");
    assert_eq!(kept(&world).await, [young.to_string()]);
    world.stop().await;
}

#[tokio::test]
async fn however_many_batches_go_the_runs_are_counted_once_and_a_stop_ends_after_one() {
    let reads = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&reads);
    let world = World::with(StoreKind::Memory, move |inner| counting(inner, counter)).await;
    let node = world.node("n1").await;
    let begin = world.hub.context.clock.wall().0 - 1_000;
    for n in 0..600 {
        let id = clock::new_run_id(&world.hub.context.clock);
        keep_run_until(&world, node, id, Positions::default(), WallTime(begin + n)).await;
    }
    let stopped = CancellationToken::new();
    stopped.cancel();
    let (runs, ten) = (runs(&world), Kept { max: 10, ..MONTH });
    assert_eq!(runs.retain(ten, &stopped).await.expect("removed"), Looked::Removed(256));
    let before = reads.load(Ordering::SeqCst);
    assert_eq!(runs.retain(ten, &going_on()).await.expect("removed"), Looked::Removed(334));
    let looks = reads.load(Ordering::SeqCst) - before;
    assert_eq!(looks, 4, "one for the number, one for each of two batches, one that finds nothing");
    assert_eq!(kept(&world).await.len(), 10);
    world.stop().await;
}

/// Counts reads.
fn counting(inner: Arc<dyn Store>, reads: Arc<AtomicU64>) -> Arc<dyn Store> {
    Through::before(inner, move |write, _deadline| {
        reads.fetch_add(u64::from(!write), Ordering::SeqCst);
        std::future::ready(Ok(()))
    })
}

/// Refuses writes while it is told to.
fn failing(inner: Arc<dyn Store>, fails: watch::Receiver<bool>) -> Arc<dyn Store> {
    Through::before(inner, move |write, _deadline| {
        let fails = write && *fails.borrow();
        let on_purpose = || StoreError::Failed("on purpose".to_owned());
        std::future::ready(if fails { Err(on_purpose()) } else { Ok(()) })
    })
}

#[tokio::test]
async fn a_hub_that_dies_between_a_runs_file_and_its_row_leaves_nothing_for_ever() {
    let (fail, fails) = watch::channel(false);
    let world = World::with(StoreKind::Sqlite, |inner| failing(inner, fails)).await;
    let node = world.node("n1").await;
    let old = ended(&world, node, 31 * DAY_MS).await;
    fail.send_replace(true);
    let refusal = runs(&world).retain(MONTH, &going_on()).await.expect_err("the row cannot go");
    assert_eq!(refusal.code, Code::StoreUnavailable);
    assert_eq!(files(world.dir.path()), Vec::<PathBuf>::new(), "the file went first");
    assert_eq!(kept(&world).await, [old.to_string()], "whoever looks finds the run");
    let output = world.get(&format!("/api/v1/runs/{old}")).await.ok(200);
    assert_eq!(output["state"], "exited");
    fail.send_replace(false);
    assert_eq!(runs(&world).retain(MONTH, &going_on()).await.expect("removed"), Looked::Removed(1));
    assert_eq!(kept(&world).await, Vec::<String>::new());
    world.stop().await;
}

#[tokio::test]
async fn the_worker_sleeps_until_a_run_is_due_and_removes_it_then() {
    let world = World::new(StoreKind::Memory).await;
    let node = world.node("n1").await;
    let first = ended(&world, node, DAY_MS).await;
    ended(&world, node, DAY_MS / 2).await;
    let (runs, stop) = (runs(&world), CancellationToken::new());
    let soon = Kept { ms: DAY_MS + 2_000, ..MONTH };
    let worker = tokio::spawn({
        let (runs, stop) = (runs.clone(), stop.clone());
        async move { runs.run_retention(soon, stop).await }
    });
    assert_eq!(kept(&world).await.len(), 2, "not due yet");
    let deadline = Instant::now() + SOON;
    while kept(&world).await.len() == 2 {
        assert!(Instant::now() < deadline, "it goes when it is due");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!kept(&world).await.contains(&first.to_string()));
    stop.cancel();
    let ended = tokio::time::timeout(SOON, worker).await.expect("it stops").expect("no panic");
    assert!(ended.is_ok());
    assert!(world.hub.workers.stats().contains_key("run-retention"), "the hub runs one of its own");
    world.stop().await;
}
