//! Random histories of a pool: both stores agree on all that can be read after each step, claims come
//! in the model's order, and what must hold holds.

use std::collections::BTreeMap;

use cortex_core::id::{LaneId, Seq, TaskId};
use cortex_core::pool::{Owner, Task, TaskState};
use cortex_core::time::WallTime;
use cortex_store::memory::MemoryStore;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{Read, StoreError, StoreExt, TaskFilter, Tx, WriteError};
use proptest::prelude::*;

use crate::model::{self, Model};
use crate::ops::{Claimer, Done, Op, SOON, Scene, op, owner};

/// Histories to play; more by `CORTEX_ROUNDS`.
fn rounds() -> u32 {
    std::env::var("CORTEX_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(256)
}

/// One transaction: what happens in it, and whether it is given up afterwards.
type Step = (Vec<Op>, bool);

fn history() -> impl Strategy<Value = Vec<Step>> {
    let ops = prop_oneof![5 => prop::collection::vec(op(), 1), 1 => prop::collection::vec(op(), 2..5)];
    prop::collection::vec((ops, prop::bool::weighted(0.1)), 1..40)
}

/// All that can be read of the pool.
#[derive(Debug, PartialEq)]
struct Dump {
    tasks: Vec<Task>,
    more: Vec<String>,
}

fn dump(view: &dyn Read, scene: &Scene) -> Result<Dump, StoreError> {
    let tasks = view.tasks(&TaskFilter::default(), usize::MAX)?;
    let mut more = Vec::new();
    // Of the older ones a few at each step, by turns.
    let some =
        |(place, _): &(usize, &TaskId)| place % 4 == scene.now.0 as usize % 4 || place + 4 > scene.ids.len();
    for (_, id) in scene.ids.iter().enumerate().filter(some) {
        more.push(format!("{:?}", (view.task(*id)?, view.task_steps(*id)?, view.task_evidence(*id)?)));
        more.push(format!("{:?}", view.waiting_for(*id)?));
    }
    let lanes = view.lanes()?;
    let ids: Vec<LaneId> = (0..99).map(LaneId).collect();
    more.push(format!("{:?} {lanes:?}", view.heads(&ids)?));
    let numbers: Result<Vec<_>, _> = tasks.iter().map(|task| view.lane(&task.lane())).collect();
    more.push(format!("{:?}", numbers?));
    for key in ["k0", "k1"] {
        more.push(format!("{} {:?}", view.working(key)?, view.parked(key)?));
    }
    for number in 0..4 {
        let party = owner(number).party();
        for key in ["key-0", "key-1", "key-2"] {
            more.push(format!("{:?}", view.task_by_key(owner(number), key)?.map(|task| task.id)));
        }
        let states = vec![TaskState::Ready, TaskState::Done];
        for states in [vec![], states] {
            let label = Some(("denied_by".to_owned(), "0".to_owned())).filter(|_| number == 1);
            let filter = TaskFilter { states, party: Some(party), label, ..TaskFilter::default() };
            more.push(format!("{:?}", names(&view.tasks(&filter, 5)?)));
        }
        more.push(format!("{}", view.open_tasks(Some(party))?));
    }
    let before = scene.ids.get(scene.ids.len() / 2).copied();
    let states = vec![TaskState::Leased, TaskState::Scheduled, TaskState::Dead];
    let filter = TaskFilter { states, before, ..TaskFilter::default() };
    more.push(format!("{:?}", names(&view.tasks(&filter, 4)?)));
    more.push(format!("{:?}", (view.tasks_due(scene.now, 4)?, view.next_due()?)));
    more.push(format!("{:?}", (view.tasks_expiring(scene.now, 4)?, view.next_expiry()?)));
    more.push(format!("{:?}", (view.leased_tasks()?, view.ended_tasks(9)?, view.task_counts()?)));
    let (_, newest) = view.events_span()?;
    let events = view.events(Seq(newest.0.saturating_sub(9)), usize::MAX)?;
    more.push(format!("{:?}", (view.open_tasks(None)?, events)));
    Ok(Dump { tasks, more })
}

fn names(tasks: &[Task]) -> Vec<TaskId> {
    tasks.iter().map(|task| task.id).collect()
}

/// What came of a transaction, and what it saw at its end.
type Played = (Vec<Done>, Option<Dump>);

/// One transaction.
fn transact(tx: &mut dyn Tx, scene: &Scene, step: &Step) -> Result<Played, WriteError> {
    let (ops, _) = step;
    let mut scene = scene.clone();
    let mut all = Vec::new();
    for op in ops {
        let done = scene.play(tx, op)?;
        scene = done.scene.clone();
        all.push(done);
    }
    let seen = (ops.len() > 1 || scene.ids.len().is_multiple_of(4)).then(|| dump(tx, &scene)).transpose()?;
    Ok((all, seen))
}

struct Both {
    memory: MemoryStore,
    sqlite: SqliteStore,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::TempDir::new().expect("a temporary directory");
        Self {
            memory: MemoryStore::new(None),
            sqlite: SqliteStore::open(dir.path(), SqliteOptions::default(), None).expect("it opens"),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"),
            _dir: dir,
        }
    }

    /// The answer of both, which must be one.
    fn write(&self, scene: &Scene, step: &Step) -> Result<Option<Played>, TestCaseError> {
        let is_given_up = step.1;
        let work = move |tx: &mut dyn Tx, scene: &Scene, step: &Step| {
            let done = transact(tx, scene, step)?;
            if is_given_up { Err(StoreError::Closed.into()) } else { Ok(done) }
        };
        let expected: Result<_, WriteError> = self.memory.write_now(|tx| work(tx, scene, step));
        let (with, what) = (scene.clone(), step.clone());
        let found = self.runtime.block_on(self.sqlite.write(SOON, move |tx| work(tx, &with, &what)));
        match (expected, found) {
            (Ok(expected), Ok(found)) => {
                prop_assert_eq!(format!("{:?}", expected.0), format!("{:?}", found.0));
                prop_assert_eq!(&expected.1, &found.1, "within the transaction");
                Ok(Some(expected))
            }
            (Err(expected), Err(found)) => {
                prop_assert_eq!(format!("{expected:?}"), format!("{found:?}"));
                Ok(None)
            }
            (expected, found) => Err(TestCaseError::fail(format!("memory {expected:?}\nSQLite {found:?}"))),
        }
    }

    fn read(&self, scene: &Scene) -> Result<Dump, TestCaseError> {
        let expected = self.memory.read_now(|view| dump(view, scene)).expect("it reads");
        let with = scene.clone();
        let found = self.runtime.block_on(self.sqlite.read(SOON, move |view| dump(view, &with)));
        prop_assert_eq!(&expected, &found.expect("it reads"), "after the transaction");
        Ok(expected)
    }
}

/// What was handed out is what the model hands out, and nobody had it.
fn check_claims(
    model: &mut Model,
    before: &[Task],
    scene: &Scene,
    op: &Op,
    done: &Done,
) -> Result<(), TestCaseError> {
    let Op::Claim { who, limit } = op else { return Ok(()) };
    let expected = model.claim(before, &Claimer::of(*who), *limit, scene.now);
    prop_assert_eq!(names(&done.claimed), expected);
    for task in &done.claimed {
        let old = before.iter().find(|old| old.id == task.id).expect("it was there");
        prop_assert_eq!((old.state, task.attempt), (TaskState::Ready, old.attempt.next()));
    }
    Ok(())
}

fn check_counts(both: &Both, tasks: &[Task]) -> Result<(), TestCaseError> {
    let (states, open) = model::counts(tasks);
    let parties: Vec<Owner> = (0..4).map(|number| owner(number).party()).collect();
    let found = both.memory.read_now(|view| {
        let open: Result<BTreeMap<_, _>, _> =
            parties.iter().map(|party| Ok((*party, view.open_tasks(Some(*party))?))).collect();
        Ok((view.task_counts()?, open?))
    });
    let (found_states, mut found_open) = found.expect("it reads");
    found_open.retain(|_, count| *count > 0);
    prop_assert_eq!((states, open), (found_states, found_open));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..ProptestConfig::with_cases(rounds())
    })]

    #[test]
    fn both_stores_hand_out_what_the_rule_says_and_agree_on_all(history in history(), is_narrow in any::<bool>()) {
        let both = Both::new();
        let mut scene = Scene { now: WallTime(1_000), is_narrow, ..Scene::default() };
        let mut model = Model::default();
        let mut before = Vec::new();
        for step in &history {
            if let Some((all, _)) = both.write(&scene, step)? {
                // Within a transaction of several nothing was read between them.
                if let ([op], [done]) = (step.0.as_slice(), all.as_slice()) {
                    check_claims(&mut model, &before, &scene, op, done)?;
                } else {
                    all.iter().for_each(|done| model.took(&done.claimed));
                }
                scene = all.last().map_or(scene, |done| done.scene.clone());
            }
            let after = both.read(&scene)?;
            let lanes = both.memory.read_now(|view| view.lanes()).expect("it reads");
            model::check(&after.tasks, &lanes).map_err(TestCaseError::fail)?;
            check_counts(&both, &after.tasks)?;
            before = after.tasks;
        }
    }
}
