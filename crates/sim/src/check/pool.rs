//! The invariants of the work pool, read from what happened: every task ends once, one lease at a time,
//! no attempt twice, nothing of an old one, no key beyond its limit, no lease taken before its time.

#![expect(clippy::wildcard_enum_match_arm, reason = "each check reads only the kinds that it is about")]

use std::collections::{BTreeMap, BTreeSet};

use cortex_core::id::{Attempt, NodeId, RunId, TaskId};
use cortex_core::limits::{EVIDENCE_MAX, GRACE_MS, RESTART_GRACE_MS};
use cortex_core::pool::{Decided, Holder, StepKind, TaskState};

use super::{Happened, Peace};

/// A task as it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    task: TaskId,
    state: TaskState,
    attempt: Attempt,
    holder: Option<Holder>,
    lease_ms: u64,
    /// Its concurrency key, and how many of it at once.
    key: Option<(String, u32)>,
    steps: Vec<(StepKind, Option<String>)>,
}

impl Put {
    pub(crate) fn of(decided: &Decided) -> Self {
        let task = &decided.task;
        let key = task.spec.concurrency.as_ref().map(|key| (key.key.clone(), key.limit));
        Self {
            task: task.id,
            state: task.state,
            attempt: task.attempt,
            holder: task.lease.map(|lease| lease.holder),
            lease_ms: task.spec.lease_ms,
            key,
            steps: decided.steps.iter().map(|step| (step.kind, step.detail.clone())).collect(),
        }
    }

    fn was_lost_by(&self, how: &str) -> bool {
        let is = |(kind, detail): &(StepKind, Option<String>)| {
            *kind == StepKind::Released && detail.as_deref() == Some(how)
        };
        self.steps.iter().any(is)
    }
}

/// A lease as the history knows it.
#[derive(Clone, Copy, Debug)]
struct Given {
    attempt: Attempt,
    holder: Holder,
    at: u64,
    ms: u64,
}

/// What is known of a node at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    heard: u64,
    crashed: Option<u64>,
}

#[derive(Default)]
struct Story {
    found: Vec<String>,
    states: BTreeMap<TaskId, TaskState>,
    leases: BTreeMap<TaskId, Given>,
    numbers: BTreeMap<TaskId, Attempt>,
    /// The last report that was taken to the desk, and whether anything else came between.
    report: Option<(TaskId, Attempt, Holder)>,
    retried: BTreeSet<TaskId>,
    good_runs: BTreeSet<RunId>,
    good_work: BTreeSet<(TaskId, Attempt)>,
    keys: BTreeMap<TaskId, String>,
    late: BTreeMap<(TaskId, Attempt), Holder>,
    extended: BTreeMap<(TaskId, Attempt), u64>,
    over: BTreeMap<(TaskId, Attempt), u64>,
    hub_started: u64,
    nodes: BTreeMap<usize, Seen>,
}

pub(super) fn check(history: &[(u64, Happened)], peace: &Peace) -> Vec<String> {
    let mut story = Story::default();
    for (at, happened) in history {
        story.read(*at, happened, peace);
    }
    story.ends(history, peace);
    story.found
}

impl Story {
    fn say(&mut self, at: u64, what: &str) {
        self.found.push(format!("{what} (at {at} ms)"));
    }

    fn read(&mut self, at: u64, happened: &Happened, peace: &Peace) {
        match happened {
            Happened::Put(put) => self.put(at, put),
            Happened::Over { task, attempt } => self.over(at, *task, *attempt, peace),
            Happened::GivenUp { run } => self.given_up(at, *run, peace),
            Happened::Reported { task, attempt, holder, brings } => {
                let is_held =
                    self.leases.get(task).is_some_and(|l| l.attempt == *attempt && l.holder == *holder);
                // The answer to the end of the work was lost, and is given again.
                let is_repeated = self.states.get(task) == Some(&TaskState::Done)
                    && self.numbers.get(task) == Some(attempt);
                if *brings && !is_held && !is_repeated {
                    self.late.insert((*task, *attempt), *holder);
                }
                self.report = Some((*task, *attempt, *holder));
            }
            Happened::Retried { task } => drop(self.retried.insert(*task)),
            Happened::Worked { task, attempt } => drop(self.good_work.insert((*task, *attempt))),
            Happened::Exited { run, code: Some(0), .. } => drop(self.good_runs.insert(*run)),
            Happened::Extended { task, attempt } => drop(self.extended.insert((*task, *attempt), at)),
            Happened::HubStarted => self.hub_started = at,
            Happened::Heard { node } | Happened::Online { node, .. } => {
                self.nodes.entry(*node).or_default().heard = at;
            }
            Happened::NodeCrashed { node } => self.nodes.entry(*node).or_default().crashed = Some(at),
            Happened::Misordered { task, why } => self.say(at, &format!("order: {task}: {why}")),
            _ => {}
        }
    }

    fn put(&mut self, at: u64, put: &Put) {
        let (id, before) = (put.task, self.states.insert(put.task, put.state));
        let held = self.leases.get(&id).copied();
        if let Some(before) = before.filter(|before| before.is_final() && *before != put.state)
            && !self.retried.remove(&id)
        {
            let (was, is) = (before.as_str(), put.state.as_str());
            self.say(at, &format!("I1: {id} had ended as {was} and is {is}"));
        }
        match (put.state, put.holder) {
            (TaskState::Leased, Some(holder)) => self.leased(at, put, held, holder),
            (TaskState::Leased, None) => self.say(at, &format!("I2: {id} is leased to nobody")),
            _ => {
                self.leases.remove(&id);
                self.keys.remove(&id);
                if let Some(held) = held {
                    self.let_go(at, put, held);
                }
            }
        }
        if put.state == TaskState::Done && before != Some(TaskState::Done) {
            self.done(at, put, held);
        }
    }

    fn leased(&mut self, at: u64, put: &Put, held: Option<Given>, holder: Holder) {
        let id = put.task;
        if let Some(held) = held {
            if held.attempt != put.attempt || held.holder != holder {
                self.say(at, &format!("I2: {id} has two leases, {} and {}", held.attempt, put.attempt));
            }
            return;
        }
        let last = self.numbers.insert(id, put.attempt);
        if last.is_some_and(|last| last >= put.attempt) {
            self.say(at, &format!("I2: attempt {} of {id} was handed out twice", put.attempt));
        }
        self.leases.insert(id, Given { attempt: put.attempt, holder, at, ms: put.lease_ms });
        if let Some((key, limit)) = &put.key {
            self.keys.insert(id, key.clone());
            let working = self.keys.values().filter(|other| *other == key).count();
            if working > *limit as usize {
                self.say(at, &format!("I3: {working} tasks of the key {key} with the limit {limit}"));
            }
        }
    }

    /// A task is done by the report of the attempt that has it, and that attempt did it.
    fn done(&mut self, at: u64, put: &Put, held: Option<Given>) {
        let id = put.task;
        let Some(held) = held else {
            self.say(at, &format!("I3: {id} is done and nobody had it"));
            return;
        };
        if self.report != Some((id, held.attempt, held.holder)) {
            let (report, attempt) = (self.report, held.attempt);
            self.say(at, &format!("I3: {id} is done in attempt {attempt} by the report {report:?}"));
        }
        let did_it = match held.holder {
            Holder::Node { run, .. } => self.good_runs.contains(&run),
            Holder::Worker { .. } => self.good_work.contains(&(id, held.attempt)),
        };
        if !did_it {
            self.say(at, &format!("I1: {id} is done and attempt {} did not do it", held.attempt));
        }
    }

    /// A lease is over only when nobody was heard of for its whole length, and the hub was there.
    fn over(&mut self, at: u64, task: TaskId, attempt: Attempt, peace: &Peace) {
        let Some(held) = self.leases.get(&task).copied().filter(|held| held.attempt == attempt) else {
            return;
        };
        let heard = self.seen(held.holder, peace).map_or(0, |seen| seen.heard);
        let extended = self.extended.get(&(task, attempt)).copied().unwrap_or(0);
        let since = held.at.max(self.hub_started).max(extended).max(heard);
        if at < since + held.ms {
            self.say(
                at,
                &format!("I2: the lease of {task}, attempt {attempt}, is over after {} ms", at - since),
            );
        }
        self.over.insert((task, attempt), at);
    }

    /// A run is given up only when its node was away for its grace, or ended with it.
    fn given_up(&mut self, at: u64, run: RunId, peace: &Peace) {
        let of_run = self.leases.iter().find(|(_, held)| held.holder.run() == Some(run));
        let Some((task, held)) = of_run.map(|(task, held)| (*task, *held)) else { return };
        let seen = self.seen(held.holder, peace).unwrap_or_default();
        let was_here = seen.heard > self.hub_started;
        let end = if was_here { seen.heard + GRACE_MS } else { self.hub_started + RESTART_GRACE_MS };
        if at < end && seen.crashed.is_none_or(|crashed| crashed < held.at) {
            self.say(
                at,
                &format!("I2: {task} was taken from a node that was here, or had time to come back"),
            );
        }
    }

    fn seen(&self, holder: Holder, peace: &Peace) -> Option<Seen> {
        let node: NodeId = holder.node()?;
        let place = peace.nodes.iter().position(|known| *known == node)?;
        self.nodes.get(&place).copied()
    }

    fn let_go(&mut self, at: u64, put: &Put, held: Given) {
        let id = (put.task, held.attempt);
        let over = self.over.get(&id).copied().filter(|over| *over >= self.hub_started);
        if put.was_lost_by("lease_expired") && self.extended.get(&id).copied() > over {
            self.say(
                at,
                &format!("I2: {}, attempt {}, was taken after it was extended", put.task, held.attempt),
            );
        }
    }

    /// What was acknowledged is there, and what came too late is kept beside the task.
    fn ends(&mut self, history: &[(u64, Happened)], peace: &Peace) {
        for (at, happened) in history {
            match happened {
                Happened::Kept { task } if !peace.tasks.contains_key(task) => {
                    self.say(*at, &format!("I1: the acknowledged task {task} is gone"));
                }
                Happened::CancelKept { task } if peace.tasks.get(task) == Some(&TaskState::Leased) => {
                    self.say(*at, &format!("I8: {task} was cancelled and is still worked on"));
                }
                _ => {}
            }
        }
        for ((task, attempt), holder) in std::mem::take(&mut self.late) {
            let kept = peace.evidence.get(&task).map(Vec::as_slice).unwrap_or_default();
            if kept.len() < EVIDENCE_MAX && !kept.contains(&(attempt, holder)) {
                self.found.push(format!("I3: what attempt {attempt} of {task} brought too late is not kept"));
            }
        }
        for (task, state) in &peace.tasks {
            if self.states.get(task) != Some(state) {
                let known = self.states.get(task).map(|state| state.as_str());
                self.found.push(format!("I1: {task} is {} in the store and was {known:?}", state.as_str()));
            }
        }
    }
}
