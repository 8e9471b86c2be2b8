//! Many tasks that wait, in SQLite: heads and claims as the rule has them, and what it costs. Only
//! with `CORTEX_WAITING`, and meant for an optimised build.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::id::{LaneId, RunId, TaskId};
use cortex_core::name::Selector;
use cortex_core::pool::desk::{self, New, Take};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::order::Turns;
use cortex_core::pool::{Holder, TaskSpec, Work};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{Store, StoreExt, TaskFilter, Tx, WriteError};
use tempfile::TempDir;

use crate::model::Model;
use crate::ops::{Claimer, node_id, owner, priority_of};

const LONG: Duration = Duration::from_secs(600);
const FEW: u64 = 1_000;
const CLAIMS: u32 = 400;

fn submit(tx: &mut dyn Tx, number: u64) -> Result<(), WriteError> {
    let run = RunSpec { argv: vec!["true".to_owned(), number.to_string()], ..RunSpec::default() };
    let selector = if number.is_multiple_of(5) { "os=linux" } else { "" };
    let spec = TaskSpec { selector: Selector::parse(selector)?, ..TaskSpec::new(Work::Command(run)) };
    // Ids as they are given out, by their time, and among neighbours in another order than times.
    let id = TaskId::mint(number ^ 63, &[7; 10]);
    let new = New {
        id,
        spec: Arc::new(spec),
        priority: priority_of((number % 10) as u8),
        owner: owner((number % 4) as u8),
        caller: "user:ada".to_owned(),
        key: None,
        traceparent: None,
        schedule: None,
        due_at: None,
    };
    desk::submit(tx, new, WallTime(number as i64)).map(drop)
}

fn claim(tx: &mut dyn Tx, turns: &mut Turns, limit: usize, now: WallTime) -> Result<Vec<TaskId>, WriteError> {
    let who = Claimer::of(1);
    let lanes = tx.lanes()?.into_iter().map(|(id, key)| (id, Arc::new(key)));
    let lanes: Vec<(LaneId, Arc<LaneKey>)> = lanes.filter(|(_, key)| who.suits(key)).collect();
    let claimed = desk::claim(tx, &lanes, turns, limit, now, &mut |task| {
        let run = RunId::from_slice(task.id.as_bytes()).expect("sixteen bytes");
        Take::By(Holder::Node { node: node_id(2), run })
    })?;
    Ok(claimed.into_iter().map(|task| task.id).collect())
}

struct Pool {
    runtime: tokio::runtime::Runtime,
    store: SqliteStore,
    dir: TempDir,
    opened: Duration,
}

impl Pool {
    /// So many waiting tasks in a store that was opened anew.
    fn with(waiting: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let dir = TempDir::new().expect("a temporary directory");
        let open = || SqliteStore::open(dir.path(), SqliteOptions::default(), None).expect("it opens");
        let store = open();
        for from in (0..waiting).step_by(5_000) {
            let upto = waiting.min(from + 5_000);
            let put = store.write(LONG, move |tx| (from..upto).try_for_each(|number| submit(tx, number)));
            runtime.block_on(put).expect("submitted");
        }
        runtime.block_on(store.close());
        let begun = Instant::now();
        let store = open();
        let counted = runtime.block_on(store.read(LONG, |view| view.open_tasks(None))).expect("counted");
        assert_eq!(counted, waiting);
        Self { runtime, store, opened: begun.elapsed(), dir }
    }

    /// Median time of a claim without its commit, and all that was claimed, in order.
    fn claims(&self, limit: usize) -> (Duration, Vec<TaskId>) {
        let now = WallTime(2_000_000);
        let work = move |tx: &mut dyn Tx| {
            let (mut turns, mut times, mut all) = (Turns::default(), Vec::new(), Vec::new());
            for _ in 0..CLAIMS {
                let begun = Instant::now();
                let mut claimed = claim(tx, &mut turns, limit, now)?;
                times.push(begun.elapsed());
                all.append(&mut claimed);
                if all.len() as u64 > FEW / 2 {
                    break;
                }
            }
            times.sort();
            Ok::<_, WriteError>((times[times.len() / 2], all))
        };
        // Given up, so that the next finds the same tasks.
        let (put, mut take) = (Arc::new(std::sync::Mutex::new(None)), None);
        let place = Arc::clone(&put);
        let given_up = self.runtime.block_on(self.store.write(LONG, move |tx| {
            *place.lock().expect("no panic") = Some(work(tx)?);
            Err::<(), _>(cortex_store::StoreError::Closed.into())
        }));
        assert!(given_up.is_err());
        std::mem::swap(&mut take, &mut put.lock().expect("no panic"));
        take.expect("it ran")
    }
}

#[test]
fn many_waiting_tasks_are_claimed_in_order_and_as_fast_as_few() {
    let Some(waiting) = std::env::var("CORTEX_WAITING").ok().and_then(|text| text.parse::<u64>().ok()) else {
        return;
    };
    let (few, many) = (Pool::with(FEW), Pool::with(waiting));
    println!("opened with {FEW}: {:?}, with {waiting}: {:?}", few.opened, many.opened);
    let filter = TaskFilter::default();
    let all = many.store.read(LONG, move |view| view.tasks(&filter, usize::MAX));
    let all = many.runtime.block_on(all).expect("they are read");
    assert_eq!(all.len() as u64, waiting);
    let lanes: BTreeMap<LaneId, LaneKey> = many
        .runtime
        .block_on(many.store.read(LONG, |view| view.lanes()))
        .expect("read")
        .into_iter()
        .collect();
    let mut oldest = BTreeMap::new();
    for task in &all {
        let place = oldest.entry(task.lane()).or_insert((task.ready_at, task.id));
        *place = (*place).min((task.ready_at, task.id));
    }
    let ids: Vec<LaneId> = lanes.keys().copied().collect();
    let heads = many.runtime.block_on(many.store.read(LONG, move |view| view.heads(&ids))).expect("read");
    assert_eq!(heads.len(), oldest.len());
    for head in heads {
        assert_eq!(oldest.get(&lanes[&head.lane]), Some(&(Some(head.ready_at), head.task)));
    }
    for limit in [1, 32] {
        // By turns, and the best of each: the machine has other things to do as well.
        let rounds: Vec<_> = (0..5).map(|_| (few.claims(limit), many.claims(limit))).collect();
        let best = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default();
        let of_few = best(rounds.iter().map(|(few, _)| few.0).collect());
        let of_many = best(rounds.iter().map(|(_, many)| many.0).collect());
        let claimed = &rounds[0].1.1;
        let ratio = of_many.as_secs_f64() / of_few.as_secs_f64();
        println!("claim of {limit}: {of_few:?} with {FEW}, {of_many:?} with {waiting}: {ratio:.2}");
        let distinct: BTreeSet<&TaskId> = claimed.iter().collect();
        assert_eq!(distinct.len(), claimed.len());
        // The model looks at every task for each: a few are enough.
        let few = 12.min(claimed.len());
        let expected = Model::default().claim(&all, &Claimer::of(1), few, WallTime(2_000_000));
        assert_eq!(claimed[..few], expected);
    }
    for pool in [few, many] {
        pool.runtime.block_on(pool.store.close());
        drop(pool.dir);
    }
}
