//! What happens to a pool in a history, and how each comes about in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::{Attempt, LaneId, NodeId, RunId, TaskId, TokenId, UserId};
use cortex_core::name::{Labels, Name, Selector};
use cortex_core::pool::desk::{self, New, Report, Submitted, Take};
use cortex_core::pool::lane::LaneKey;
use cortex_core::pool::order::Turns;
use cortex_core::pool::{
    Backoff, Concurrency, Holder, Kind, Lost, Owner, Priority, Said, Task, TaskResult, TaskSpec, TaskState,
    Work,
};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_store::{TaskFilter, Tx, WriteError};
use proptest::prelude::*;

/// Far beyond what any of these takes; a test that meets it has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Something that happens. Tasks are named by their place among those that were ever submitted.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Submit(Submit),
    Claim { who: u8, limit: usize },
    Report { task: usize, how: u8, is_stale: bool },
    Progress { task: usize, done: u64, is_stale: bool },
    Lose { task: usize, how: u8 },
    Cancel(usize),
    Retry(usize),
    Bump { task: usize, priority: u8 },
    Wake,
    Expire { may_wait: bool },
    Remove { limit: usize },
    Pass { ms: u64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Submit {
    pub(crate) owner: u8,
    pub(crate) priority: u8,
    pub(crate) sort: u8,
    pub(crate) concurrency: Option<(u8, u32)>,
    pub(crate) after: Vec<usize>,
    pub(crate) wait_ms: Option<u64>,
    pub(crate) start_within_ms: Option<u64>,
    pub(crate) key: Option<u8>,
    pub(crate) denied_by: Option<u8>,
    pub(crate) copies: u8,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let task = || 0..40_usize;
    let ms = || prop_oneof![Just(0_u64), 1..50_u64, Just(30_000), Just(60_000), Just(400_000)];
    prop_oneof![
        10 => submit().prop_map(Op::Submit),
        8 => (0..4_u8, 1..5_usize).prop_map(|(who, limit)| Op::Claim { who, limit }),
        8 => (task(), 0..7_u8, prop::bool::weighted(0.1))
            .prop_map(|(task, how, is_stale)| Op::Report { task, how, is_stale }),
        2 => (task(), 0..9_u64, prop::bool::weighted(0.1))
            .prop_map(|(task, done, is_stale)| Op::Progress { task, done, is_stale }),
        2 => (task(), 0..4_u8).prop_map(|(task, how)| Op::Lose { task, how }),
        2 => task().prop_map(Op::Cancel),
        1 => task().prop_map(Op::Retry),
        4 => (task(), 0..10_u8).prop_map(|(task, priority)| Op::Bump { task, priority }),
        2 => Just(Op::Wake),
        1 => any::<bool>().prop_map(|may_wait| Op::Expire { may_wait }),
        1 => (0..4_usize).prop_map(|limit| Op::Remove { limit }),
        3 => ms().prop_map(|ms| Op::Pass { ms }),
    ]
}

fn submit() -> impl Strategy<Value = Submit> {
    let concurrency = prop::option::weighted(0.5, (0..2_u8, 1..4_u32));
    let after = prop_oneof![4 => Just(vec![]), 1 => prop::collection::vec(0..40_usize, 1..3)];
    let wait_ms = prop::option::weighted(0.1, 0..100_u64);
    let start_within_ms = prop::option::weighted(0.2, 1..100_u64);
    let key = prop::option::weighted(0.2, 0..3_u8);
    let denied_by = prop::option::weighted(0.15, 0..2_u8);
    (0..4_u8, 3..10_u8, 0..4_u8, concurrency, after, wait_ms, start_within_ms, key, (denied_by, 1..4_u8))
        .prop_map(
            |(
                owner,
                priority,
                sort,
                concurrency,
                after,
                wait_ms,
                start_within_ms,
                key,
                (denied_by, copies),
            )| Submit {
                owner,
                priority: if priority == 3 { 9 } else { priority - 1 },
                sort,
                concurrency,
                after,
                wait_ms,
                start_within_ms,
                key,
                denied_by,
                copies,
            },
        )
}

/// What a history has come to, alike for both stores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scene {
    pub(crate) now: WallTime,
    /// Ids that were ever given out, removed tasks too.
    pub(crate) ids: Vec<TaskId>,
    pub(crate) turns: Turns,
    pub(crate) runs: u64,
    /// All is of few sorts, so that many tasks meet in a lane and want one key.
    pub(crate) is_narrow: bool,
}

/// What an operation came to.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) scene: Scene,
    /// What was handed out, in order.
    pub(crate) claimed: Vec<Task>,
    #[expect(dead_code, reason = "it is compared as part of the whole")]
    pub(crate) answer: String,
}

impl Scene {
    fn id(&self, place: usize) -> TaskId {
        self.ids.get(place % self.ids.len().max(1)).copied().unwrap_or_else(|| TaskId::mint(1, &[9; 10]))
    }

    /// One of the tasks that stand there, mostly; sometimes any that ever was.
    fn one_of(&self, tx: &dyn Tx, place: usize, states: &[TaskState]) -> Result<TaskId, WriteError> {
        let filter = TaskFilter { states: states.to_vec(), ..TaskFilter::default() };
        let there = tx.tasks(&filter, usize::MAX)?;
        let found = there.get(place % there.len().max(1)).filter(|_| place % 8 != 7);
        Ok(found.map_or_else(|| self.id(place), |task| task.id))
    }

    /// Does it, in a transaction.
    pub(crate) fn play(mut self, tx: &mut dyn Tx, op: &Op) -> Result<Done, WriteError> {
        let mut claimed = Vec::new();
        let now = self.now;
        let answer = match op {
            Op::Submit(submit) => {
                let mut all = Vec::new();
                for _ in 0..submit.copies {
                    let id = TaskId::mint(1_000 + self.ids.len() as u64, &[3; 10]);
                    let new = self.new_task(id, submit);
                    let submitted = desk::submit(tx, new, now)?;
                    if matches!(submitted, Submitted::New(_)) {
                        self.ids.push(id);
                    }
                    all.push(submitted);
                }
                format!("{all:?}")
            }
            Op::Claim { who, limit } => {
                claimed = self.claim(tx, *who, *limit)?;
                String::new()
            }
            Op::Report { task, how, is_stale } => self.report(tx, *task, *how, *is_stale)?,
            Op::Progress { task, done, is_stale } => self.progress(tx, *task, *done, *is_stale)?,
            Op::Lose { task, how } => {
                let id = self.one_of(tx, *task, &[TaskState::Leased])?;
                let attempt = tx.task(id)?.map_or(Attempt(0), |task| task.attempt);
                let how = [Lost::Expired, Lost::NodeGone, Lost::GivenBack, Lost::Drained][usize::from(*how)];
                format!("{:?}", desk::lose(tx, id, attempt, how, now)?)
            }
            Op::Cancel(task) => {
                let id =
                    self.one_of(tx, *task, &[TaskState::Scheduled, TaskState::Ready, TaskState::Leased])?;
                format!("{:?}", desk::cancel(tx, id, "user:ada".into(), now)?)
            }
            Op::Retry(task) => {
                let id =
                    self.one_of(tx, *task, &[TaskState::Dead, TaskState::Cancelled, TaskState::Expired])?;
                format!("{:?}", desk::retry(tx, id, "user:ada".into(), now)?)
            }
            Op::Bump { task, priority } => {
                let id = self.one_of(tx, *task, &[TaskState::Ready])?;
                format!("{:?}", desk::bump(tx, id, "user:ada".into(), priority_of(*priority), now)?)
            }
            Op::Wake => {
                let due = tx.tasks_due(now, 3)?;
                let woken = due.into_iter().map(|id| desk::wake(tx, id, now)).collect::<Result<Vec<_>, _>>();
                format!("{:?}", woken?)
            }
            Op::Expire { may_wait } => {
                let due = tx.tasks_expiring(now, 3)?;
                let expired = due.into_iter().map(|id| desk::expire(tx, id, *may_wait, now));
                format!("{:?}", expired.collect::<Result<Vec<_>, _>>()?)
            }
            Op::Remove { limit } => {
                let mut gone: Vec<TaskId> = tx.ended_tasks(*limit)?.into_iter().map(|(id, _)| id).collect();
                gone.extend(self.ids.first().copied());
                format!("{:?}", tx.remove_tasks(&gone)?)
            }
            Op::Pass { ms } => {
                self.now = now.plus_ms(*ms);
                String::new()
            }
        };
        Ok(Done { scene: self, claimed, answer })
    }

    fn new_task(&self, id: TaskId, submit: &Submit) -> New {
        let mut submit = submit.clone();
        if self.is_narrow {
            (submit.owner, submit.sort, submit.wait_ms) = (submit.owner % 2, submit.sort % 2, None);
            submit.priority = 5 + submit.priority % 2;
            submit.concurrency = submit.concurrency.map(|(_, limit)| (0, limit)).or(Some((0, 2)));
        }
        let submit = &submit;
        New {
            id,
            spec: Arc::new(spec(self, submit)),
            priority: priority_of(submit.priority),
            owner: owner(submit.owner),
            caller: format!("user:{}", submit.owner),
            key: submit.key.map(|key| format!("key-{key}")),
            traceparent: None,
            schedule: None,
            due_at: submit.wait_ms.map(|ms| self.now.plus_ms(ms)),
        }
    }

    fn claim(&mut self, tx: &mut dyn Tx, who: u8, limit: usize) -> Result<Vec<Task>, WriteError> {
        let who = Claimer::of(who);
        let lanes: Vec<(LaneId, Arc<LaneKey>)> =
            tx.lanes()?.into_iter().map(|(id, key)| (id, Arc::new(key))).collect();
        let lanes: Vec<_> = lanes.into_iter().filter(|(_, key)| who.suits(key)).collect();
        let (mut turns, now, runs) = (self.turns.clone(), self.now, &mut self.runs);
        let claimed = desk::claim(tx, &lanes, &mut turns, limit, now, &mut |task| match &who {
            Claimer::Node { node, name, .. } if is_denied(task, name) => {
                Take::Exclude { node: *node, why: "rule 1".to_owned() }
            }
            Claimer::Node { node, .. } => {
                *runs += 1;
                Take::By(Holder::Node { node: *node, run: RunId::mint(*runs, &[5; 10]) })
            }
            Claimer::Worker { token } => Take::By(Holder::Worker { token: *token }),
        })?;
        self.turns = turns;
        Ok(claimed)
    }

    fn progress(
        &self,
        tx: &mut dyn Tx,
        task: usize,
        done: u64,
        is_stale: bool,
    ) -> Result<String, WriteError> {
        let id = self.one_of(tx, task, &[TaskState::Leased])?;
        let Some(task) = tx.task(id)? else { return Ok("gone".to_owned()) };
        let holder = task.lease.map_or(Holder::Worker { token: worker() }, |lease| lease.holder);
        let attempt = Attempt(task.attempt.0.saturating_sub(u64::from(is_stale)));
        let note = done.is_multiple_of(2).then(|| format!("page {done}"));
        let said = Said { done, total: (!done.is_multiple_of(3)).then_some(10), note };
        match desk::progress(tx, id, attempt, holder, said, self.now) {
            Ok(task) => Ok(format!("{task:?}")),
            // Nothing was put then.
            Err(WriteError::Refused(refusal)) => Ok(format!("{refusal:?}")),
            Err(error) => Err(error),
        }
    }

    fn report(&self, tx: &mut dyn Tx, task: usize, how: u8, is_stale: bool) -> Result<String, WriteError> {
        let id = self.one_of(tx, task, &[TaskState::Leased])?;
        let Some(task) = tx.task(id)? else { return Ok("gone".to_owned()) };
        let holder = task.lease.map_or(Holder::Worker { token: worker() }, |lease| lease.holder);
        let attempt = Attempt(task.attempt.0.saturating_sub(u64::from(is_stale)));
        let result = TaskResult {
            code: Some(i32::from(how)),
            signal: None,
            output: vec![how, 0],
            message: (how > 2).then(|| "a word".to_owned()),
        };
        let report = match how {
            0..=2 => Report::Done(result),
            3 => Report::Failed { result, is_final: false, chance: 1 },
            4 => Report::Failed { result, is_final: true, chance: 0 },
            5 => Report::Cancelled(result),
            _ => match holder {
                Holder::Node { node, .. } => Report::Denied { node, why: "rule 2".to_owned() },
                Holder::Worker { .. } => Report::GivenBack,
            },
        };
        Ok(format!("{:?}", desk::report(tx, id, attempt, holder, report, self.now)?))
    }
}

/// Who asks for work.
pub(crate) enum Claimer {
    Node { node: NodeId, name: String, labels: Labels },
    Worker { token: TokenId },
}

impl Claimer {
    pub(crate) fn of(number: u8) -> Self {
        let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        match number {
            0 => Self::Node { node: node_id(1), name: "0".to_owned(), labels: Labels::new() },
            1 => Self::Node { node: node_id(2), name: "1".to_owned(), labels: label("os", "linux") },
            2 => Self::Node { node: node_id(3), name: "2".to_owned(), labels: label("os", "linux") },
            _ => Self::Worker { token: worker() },
        }
    }

    pub(crate) fn suits(&self, lane: &LaneKey) -> bool {
        match self {
            Self::Node { node, labels, .. } => lane.suits(*node, labels),
            Self::Worker { .. } => !lane.kind.is_command(),
        }
    }
}

pub(crate) fn is_denied(task: &Task, name: &str) -> bool {
    task.spec.labels.get("denied_by").is_some_and(|denied| denied == name)
}

fn worker() -> TokenId {
    TokenId::mint(9, &[9; 10])
}

pub(crate) fn owner(number: u8) -> Owner {
    let user = |number: u8| Some(UserId::mint(1, &[number; 10]));
    let token = |number: u8| Some(TokenId::mint(1, &[number; 10]));
    match number {
        0 => Owner { token: None, user: user(1) },
        1 => Owner { token: token(1), user: user(1) },
        2 => Owner { token: None, user: user(2) },
        _ => Owner { token: token(2), user: None },
    }
}

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::mint(1, &[number; 10])
}

pub(crate) fn priority_of(number: u8) -> Priority {
    Priority::new(number).expect("one of ten")
}

fn spec(scene: &Scene, submit: &Submit) -> TaskSpec {
    let kind = Name::parse("resize").and_then(Kind::payload).expect("a kind");
    let work = if submit.sort == 3 {
        Work::Payload { kind, bytes: vec![0, 1, 255] }
    } else {
        let env = vec![("A".to_owned(), "1".to_owned())];
        Work::Command(RunSpec { argv: vec!["true".to_owned(), String::new()], env, ..RunSpec::default() })
    };
    let selector = if submit.sort == 1 { "os=linux" } else { "" };
    let concurrency = submit.concurrency.map(|(key, limit)| Concurrency { key: format!("k{key}"), limit });
    let labels: BTreeMap<String, String> =
        submit.denied_by.map(|name| ("denied_by".to_owned(), name.to_string())).into_iter().collect();
    TaskSpec {
        selector: Selector::parse(selector).expect("a selector"),
        attempts_max: 2,
        backoff: Backoff { initial_ms: 20, max_ms: 100, ..Backoff::default() },
        start_within_ms: submit.start_within_ms,
        start_within_pauses: submit.sort == 2,
        after: submit.after.iter().filter(|_| !scene.ids.is_empty()).map(|place| scene.id(*place)).collect(),
        concurrency,
        labels,
        ..TaskSpec::new(work)
    }
}
