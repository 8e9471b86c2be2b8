//! A flood of priority 8 before a task of priority 1, in SQLite, while more of the flood comes with each
//! claim and time moves on: when does it start, and what does a claim cost? As many as `CORTEX_WAITING`
//! says, by default a few.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::id::{LaneId, TaskId, TokenId};
use cortex_core::name::Name;
use cortex_core::pool::desk::{self, New, Report, Take};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::order::{Turns, ripe_ms};
use cortex_core::pool::{Holder, Kind, TaskResult, TaskSpec, Work};
use cortex_core::time::WallTime;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{Store, StoreExt, Tx, WriteError};

use crate::ops::{owner, priority_of};

const LONG: Duration = Duration::from_secs(600);
/// Tasks of one claim.
const BATCH: u64 = 256;

fn waiting() -> u64 {
    std::env::var("CORTEX_WAITING").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000)
}

fn id(number: u64) -> TaskId {
    TaskId::mint(number, &[7; 10])
}

fn submit(tx: &mut dyn Tx, number: u64, who: u8, priority: u8, now: WallTime) -> Result<(), WriteError> {
    let kind = Name::parse("resize").and_then(Kind::payload)?;
    let new = New {
        id: id(number),
        spec: Arc::new(TaskSpec::new(Work::Payload { kind, bytes: number.to_be_bytes().to_vec() })),
        priority: priority_of(priority),
        owner: owner(who),
        caller: "user:ada".to_owned(),
        key: None,
        traceparent: None,
        schedule: None,
        due_at: None,
    };
    desk::submit(tx, new, now).map(drop)
}

/// One claim, whose tasks are done at once, and as many of the flood anew.
fn round(
    tx: &mut dyn Tx,
    turns: &mut Turns,
    (limit, next): (u64, u64),
    now: WallTime,
) -> Result<Vec<TaskId>, WriteError> {
    let lanes = tx.lanes()?.into_iter().map(|(id, key)| (id, Arc::new(key)));
    let lanes: Vec<(LaneId, Arc<LaneKey>)> = lanes.collect();
    let holder = Holder::Worker { token: TokenId::mint(9, &[9; 10]) };
    let claimed = desk::claim(tx, &lanes, turns, limit as usize, now, &mut |_| Take::By(holder))?;
    for task in &claimed {
        let done = Report::Done(TaskResult::default());
        desk::report(tx, task.id, task.attempt, holder, done, now)??;
    }
    (0..limit).try_for_each(|more| submit(tx, next + more, 0, 8, now))?;
    Ok(claimed.into_iter().map(|task| task.id).collect())
}

#[test]
fn r14_5_a_one_behind_a_flood_of_eights_starts_within_its_bound_and_a_nine_at_once() {
    let flood = waiting();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dir = tempfile::TempDir::new().expect("a temporary directory");
    let store = SqliteStore::open(dir.path(), SqliteOptions::default(), None).expect("it opens");
    let begun = WallTime(flood as i64);
    for from in (0..flood).step_by(5_000) {
        let upto = flood.min(from + 5_000);
        let put = move |tx: &mut dyn Tx| {
            (from..upto).try_for_each(|number| submit(tx, number, 0, 8, WallTime(number as i64)))
        };
        runtime.block_on(store.write(LONG, put)).expect("submitted");
    }
    // One behind the flood of its own party, one of another party, and in the middle a nine.
    let (own, other, urgent) = (flood, flood + 1, flood + 2);
    let put = move |tx: &mut dyn Tx| {
        submit(tx, own, 0, 1, begun)?;
        submit(tx, other, 2, 1, begun)
    };
    runtime.block_on(store.write(LONG, put)).expect("submitted");
    // Both are ripe when half of the flood has gone.
    let ripe = ripe_ms(priority_of(1));
    let step_ms = (ripe * 2 * BATCH / flood).max(1);
    let (mut turns, mut now, mut next) = (Turns::default(), begun, flood + 3);
    let (mut gone, mut ripe_after, mut urgent_at) = (0, None, None);
    let (mut started, mut times) = (Vec::new(), Vec::new());
    while started.len() < 3 {
        assert!(
            gone <= flood + BATCH + 3,
            "what was there before has gone, and a one still waits: {started:?}"
        );
        if now >= begun.plus_ms(ripe) {
            ripe_after.get_or_insert(gone);
        }
        if urgent_at.is_none() && gone >= flood / 4 {
            urgent_at = Some(gone);
            let put = move |tx: &mut dyn Tx| submit(tx, urgent, 0, 9, now);
            runtime.block_on(store.write(LONG, put)).expect("submitted");
        }
        let (mut with, at) = (turns.clone(), now);
        let limit = BATCH.min(flood);
        let work =
            move |tx: &mut dyn Tx| Ok::<_, WriteError>((round(tx, &mut with, (limit, next), at)?, with));
        let since = Instant::now();
        let (claimed, after) = runtime.block_on(store.write(LONG, work)).expect("claimed");
        times.push(since.elapsed());
        (turns, next) = (after, next + limit);
        for task in claimed {
            if let Some(which) = [own, other, urgent].iter().find(|number| id(**number) == task) {
                started.push((*which, gone, at.0 - begun.0));
            }
            gone += 1;
        }
        now = now.plus_ms(step_ms);
    }
    let of = |number: u64| *started.iter().find(|(which, ..)| *which == number).expect("it started");
    let (ripe_after, urgent_at) = (ripe_after.expect("time went on"), urgent_at.expect("it was submitted"));
    times.sort();
    println!(
        "{flood} eights before it: a one of the same party went after {} others, one of another party {} after \
         it was ripe (at {} s, ripe at {} s), a nine {} after it was submitted; {BATCH} claimed, done and \
         submitted anew in {:?}, the slowest in {:?}",
        of(own).1,
        of(other).1 - ripe_after,
        of(other).2 / 1_000,
        ripe / 1_000,
        of(urgent).1 - urgent_at,
        times[times.len() / 2],
        times[times.len() - 1],
    );
    assert_eq!(of(urgent).1, urgent_at, "a nine is the next");
    assert!(of(other).1 - ripe_after <= 1, "at most one of the flood's party: {:?} {ripe_after}", of(other));
    assert!(of(other).2 >= ripe as i64, "it was not ripe before");
    // All that had waited longer, the nine, the other one, and nothing of what came later.
    assert_eq!(of(own).1, flood + 2);
    runtime.block_on(store.close());
}
