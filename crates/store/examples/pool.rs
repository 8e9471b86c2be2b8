//! What the pool's transitions cost on this machine, in groups of 64 writes a commit on disk.
//! `cargo run --release -p cortex-store --example pool -- [tasks] [waiting] [directory]`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cortex_core::id::{Attempt, LaneId, NodeId, RunId, TaskId, UserId};
use cortex_core::limits::TASKS_OPEN_MAX;
use cortex_core::pool::desk::{self, New, Report, Take};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::order::Turns;
use cortex_core::pool::{Holder, Owner, Priority, TaskResult, TaskSpec, Work};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{Store, StoreExt, Tx, WriteError};

const DEADLINE: Duration = Duration::from_secs(60);
const GROUP: u64 = 64;

type Failed = Box<dyn std::error::Error>;

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let tasks: u64 = args.next().map_or(Ok(20_000), |text| text.parse())?;
    let waiting: u64 = args.next().map_or(Ok(0), |text| text.parse())?;
    let parent = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::TempDir::new_in(parent)?;
    let options = SqliteOptions { group_max: GROUP as usize, ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(dir.path(), options, None)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let mut out = std::io::stdout().lock();
        fill(&store, 0, waiting).await?;
        writeln!(out, "write              us each   cpu each   writes/s   per commit")?;
        let first = waiting;
        writeln!(out, "{}", measure(&store, "submit", tasks, move |tx, n| submit(tx, first + n)).await?)?;
        let lanes = Arc::new(store.read(DEADLINE, |view| view.lanes()).await?);
        let lanes: Lanes = Arc::new(lanes.iter().map(|(id, key)| (*id, Arc::new(key.clone()))).collect());
        let claimed = Arc::new(Mutex::new(Vec::new()));
        let (with, to) = (Arc::clone(&lanes), Arc::clone(&claimed));
        let one = move |tx: &mut dyn Tx, _| claim(tx, &with, 1, &to);
        writeln!(out, "{}", measure(&store, "claim", tasks, one.clone()).await?)?;
        let from = Arc::clone(&claimed);
        let end = move |tx: &mut dyn Tx, _| finish(tx, &from);
        writeln!(out, "{}", measure(&store, "finish", tasks, end.clone()).await?)?;
        fill(&store, waiting + tasks, tasks).await?;
        let turns = move |tx: &mut dyn Tx, n: u64| {
            if (n / GROUP).is_multiple_of(2) { one(tx, n) } else { end(tx, n) }
        };
        writeln!(out, "{}", measure(&store, "claim or finish", tasks, turns).await?)?;
        fill(&store, waiting + 2 * tasks, tasks).await?;
        let many = move |tx: &mut dyn Tx, _| claim(tx, &lanes, 32, &claimed);
        writeln!(out, "{}", measure(&store, "claim 32", tasks / 64, many).await?)?;
        Ok::<_, Failed>(())
    })?;
    runtime.block_on(store.close());
    Ok(())
}

type Lanes = Arc<Vec<(LaneId, Arc<LaneKey>)>>;
type Claimed = Arc<Mutex<Vec<TaskId>>>;

async fn fill(store: &SqliteStore, first: u64, count: u64) -> Result<(), WriteError> {
    for from in (first..first + count).step_by(1_000) {
        let upto = (from + 1_000).min(first + count);
        store.write(DEADLINE, move |tx| (from..upto).try_for_each(|n| submit(tx, n))).await?;
    }
    Ok(())
}

/// Has so many writes done with as many callers as share a commit.
async fn measure(
    store: &Arc<SqliteStore>,
    name: &str,
    count: u64,
    work: impl Fn(&mut dyn Tx, u64) -> Result<(), WriteError> + Clone + Send + 'static,
) -> Result<String, Failed> {
    let (begun, before, cpu_before) = (Instant::now(), store.stats(), writer_cpu());
    let callers: Vec<_> = (0..GROUP)
        .map(|caller| {
            let (store, work) = (Arc::clone(store), work.clone());
            tokio::spawn(async move {
                for number in (caller..count).step_by(GROUP as usize) {
                    let work = work.clone();
                    store.write(DEADLINE, move |tx| work(tx, number)).await?;
                }
                Ok::<_, WriteError>(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    let (took, after) = (begun.elapsed(), store.stats());
    let cpu = writer_cpu().saturating_sub(cpu_before);
    Ok(format!(
        "{name:<16} {:>9.1} {:>10.1} {:>10.0} {:>12.1}",
        took.as_secs_f64() * 1e6 / count as f64,
        cpu.as_secs_f64() * 1e6 / count as f64,
        count as f64 / took.as_secs_f64(),
        count as f64 / (after.commits - before.commits) as f64,
    ))
}

/// Time that the writer had a processor, where the kernel tells: it is the same on a busy machine.
fn writer_cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let is_writer = |path: &PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "store-write")
    };
    let writer = threads.map(|thread| thread.path()).find(is_writer);
    let spent = writer.and_then(|path| std::fs::read_to_string(path.join("schedstat")).ok());
    let nanos = spent.and_then(|text| text.split(' ').next()?.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn task_id(number: u64) -> TaskId {
    TaskId::mint(number, &[7; 10])
}

fn submit(tx: &mut dyn Tx, number: u64) -> Result<(), WriteError> {
    let run =
        RunSpec { argv: vec!["resize".to_owned(), format!("image-{number}.png")], ..RunSpec::default() };
    let new = New {
        id: task_id(number),
        spec: Arc::new(TaskSpec::new(Work::Command(run))),
        priority: Priority::new((number % 3) as u8 + 3)?,
        owner: Owner { token: None, user: Some(UserId::mint(1, &[(number % 2) as u8; 10])) },
        caller: "user:ada".to_owned(),
        key: None,
        traceparent: None,
        schedule: None,
        due_at: None,
    };
    desk::submit(tx, new, WallTime(number as i64)).map(drop)
}

fn claim(tx: &mut dyn Tx, lanes: &Lanes, limit: usize, claimed: &Claimed) -> Result<(), WriteError> {
    let holder = |id: TaskId| Holder::Node { node: NodeId::mint(1, &[1; 10]), run: run_of(id) };
    let now = WallTime(TASKS_OPEN_MAX as i64);
    let taken =
        desk::claim(tx, lanes, &mut Turns::default(), limit, now, &mut |task| Take::By(holder(task.id)))?;
    let mut claimed = claimed.lock().unwrap_or_else(PoisonError::into_inner);
    claimed.extend(taken.into_iter().map(|task| task.id));
    Ok(())
}

/// Finishes the task that was claimed last.
fn finish(tx: &mut dyn Tx, claimed: &Claimed) -> Result<(), WriteError> {
    let id = claimed.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let Some(id) = id else { return Ok(()) };
    let holder = Holder::Node { node: NodeId::mint(1, &[1; 10]), run: run_of(id) };
    let done = Report::Done(TaskResult { code: Some(0), ..TaskResult::default() });
    Ok(desk::report(tx, id, Attempt(1), holder, done, WallTime(TASKS_OPEN_MAX as i64))?.map(drop)?)
}

fn run_of(id: TaskId) -> RunId {
    RunId::from_slice(id.as_bytes()).unwrap_or_else(|| RunId::mint(0, &[0; 10]))
}
