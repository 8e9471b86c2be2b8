//! The pool's part of each write of a child, and what must be found of it: each write submits a task,
//! hands one out and, when some are being worked on, finishes one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cortex_core::id::{LaneId, RunId, TaskId, UserId};
use cortex_core::name::Name;
use cortex_core::pool::desk::{self, New, Report, Take};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::order::Turns;
use cortex_core::pool::{
    Holder, Kind, Owner, Priority, Step, StepKind, Task, TaskResult, TaskSpec, TaskState, Work,
};
use cortex_core::time::WallTime;
use cortex_store::{Read, StoreError, TaskFilter, Tx, WriteError};

use crate::support::{node_id, run_id};

/// Tasks that are worked on at once.
const WORKING: usize = 5;
const NOW: WallTime = WallTime(1_000);

fn task_id(number: u64) -> TaskId {
    TaskId::mint(number, &[4; 10])
}

pub(crate) fn write(tx: &mut dyn Tx, number: u64) -> Result<(), WriteError> {
    let kind = Name::parse("resize").and_then(Kind::payload)?;
    let new = New {
        id: task_id(number),
        spec: Arc::new(TaskSpec::new(Work::Payload { kind, bytes: number.to_le_bytes().to_vec() })),
        priority: Priority::new((number % 3) as u8)?,
        owner: Owner { token: None, user: Some(UserId::mint(number % 2, &[1; 10])) },
        caller: "user:ada".to_owned(),
        key: Some(number.to_string()),
        traceparent: None,
        schedule: None,
        due_at: None,
    };
    desk::submit(tx, new, NOW)?;
    let lanes = tx.lanes()?.into_iter().map(|(id, key)| (id, Arc::new(key)));
    let lanes: Vec<(LaneId, Arc<LaneKey>)> = lanes.collect();
    let holder = Holder::Node { node: node_id(1), run: run_id(number) };
    desk::claim(tx, &lanes, &mut Turns::default(), 1, NOW, &mut |_| Take::By(holder))?;
    let leased = tx.leased_tasks()?;
    let Some(oldest) = leased.first().filter(|_| leased.len() > WORKING) else { return Ok(()) };
    let Some(lease) = oldest.lease else { return Ok(()) };
    let report = Report::Done(TaskResult::default());
    Ok(desk::report(tx, oldest.id, oldest.attempt, lease.holder, report, NOW)?.map(drop)?)
}

/// What is found of the pool.
pub(crate) struct Found {
    tasks: Vec<(Task, Vec<Step>)>,
    counts: BTreeMap<TaskState, u64>,
    open: u64,
    heads: BTreeSet<TaskId>,
}

impl Found {
    pub(crate) fn read(view: &dyn Read) -> Result<Self, StoreError> {
        let tasks = view.tasks(&TaskFilter::default(), usize::MAX)?.into_iter();
        let tasks: Result<_, StoreError> =
            tasks.map(|task| view.task_steps(task.id).map(|steps| (task, steps))).collect();
        let lanes: Vec<LaneId> = view.lanes()?.into_iter().map(|(id, _)| id).collect();
        let heads = view.heads(&lanes)?.into_iter().map(|head| head.task).collect();
        Ok(Self { tasks: tasks?, counts: view.task_counts()?, open: view.open_tasks(None)?, heads })
    }

    /// Each write is there as a whole, once, and no other is.
    pub(crate) fn check(&self, numbers: &BTreeSet<u64>) {
        let ids: BTreeSet<TaskId> = self.tasks.iter().map(|(task, _)| task.id).collect();
        assert_eq!(ids, numbers.iter().map(|number| task_id(*number)).collect(), "one task of each write");
        let (mut claims, mut counts) = (Vec::new(), BTreeMap::<TaskState, u64>::new());
        let mut oldest = BTreeMap::new();
        for (task, steps) in &self.tasks {
            let kinds: Vec<StepKind> = steps.iter().map(|step| step.kind).collect();
            let all = [StepKind::Submitted, StepKind::Ready, StepKind::Leased, StepKind::Done];
            let count = match task.state {
                TaskState::Ready => 2,
                TaskState::Leased => 3,
                TaskState::Scheduled
                | TaskState::Done
                | TaskState::Dead
                | TaskState::Cancelled
                | TaskState::Expired => 4,
            };
            assert_eq!((kinds.as_slice(), task.steps as usize), (&all[..count], count), "{task:?}");
            claims.extend(
                steps.iter().filter(|step| step.kind == StepKind::Leased).filter_map(|step| step.run),
            );
            *counts.entry(task.state).or_default() += 1;
            if task.state == TaskState::Ready {
                let first = oldest.entry(task.lane()).or_insert(task.id);
                *first = task.id.min(*first);
            }
        }
        claims.sort();
        let expected: Vec<RunId> = numbers.iter().map(|number| run_id(*number)).collect();
        assert_eq!(claims, expected, "each write handed out one task, once");
        let leased = counts.get(&TaskState::Leased).copied().unwrap_or(0);
        assert_eq!(leased, numbers.len().min(WORKING) as u64, "and finished one, once there were enough");
        assert_eq!(counts, self.counts, "counted as they are");
        let open = self.tasks.iter().filter(|(task, _)| !task.state.is_final()).count();
        assert_eq!(open as u64, self.open);
        assert_eq!(oldest.into_values().collect::<BTreeSet<_>>(), self.heads);
    }
}
