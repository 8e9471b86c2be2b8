//! Workers that are no nodes: they ask for payloads, work, and report by the number of the attempt. Some
//! go silent, some come back with what they did long after it was given to others.

use std::collections::BTreeMap;

use cortex_core::id::{Attempt, TaskId, TokenId};
use cortex_core::name::Name;
use cortex_core::pool::desk::Report;
use cortex_core::pool::{Kind, Said, TaskResult};

use crate::check::Happened;
use crate::faults::FAULTS_MS;
use crate::hub::{Hub, Job, PoolJob};
use crate::net::{Context, Wake};
use crate::random::Random;

/// What is to come to a worker.
#[derive(Clone, Debug)]
pub(crate) enum WorkerWake {
    /// It asks for work.
    Ask,
    /// The hub gave it these.
    Given(Vec<(TaskId, Attempt)>),
    /// It gets on with one.
    Step { task: TaskId, attempt: Attempt },
    /// The hub answered its report.
    Heard { task: TaskId, attempt: Attempt },
}

#[derive(Clone, Debug)]
struct Held {
    /// When its work is over.
    until: u64,
    /// It says that it is at it.
    extends: bool,
    report: Report,
}

pub(crate) struct Worker {
    index: usize,
    token: TokenId,
    kinds: Vec<Kind>,
    /// It says how far it is.
    tells: bool,
    held: BTreeMap<(TaskId, Attempt), Held>,
}

/// Wait before a report is sent again that nobody answered.
const AGAIN_MS: u64 = 2_500;

/// When a worker says that it is at it: in time, or just not.
const fn extend_ms(random: &mut Random) -> u64 {
    random.between(4_000, 10_500)
}

/// A kind of payloads, by its number.
pub(crate) fn kind(number: usize) -> Kind {
    let name = Name::parse(["resize", "index", "mail"][number % 3]);
    name.and_then(Kind::payload).unwrap_or_else(|_| Kind::command())
}

impl Worker {
    pub(crate) fn new(index: usize, tells: bool) -> Self {
        let token = TokenId::new(uuid::Uuid::from_u128(100 + index as u128));
        // The last of the kinds is nobody's.
        let kinds = if index == 0 { vec![kind(0), kind(1)] } else { vec![kind(index)] };
        Self { index, token, kinds, tells, held: BTreeMap::new() }
    }

    pub(crate) fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    pub(crate) fn handle(&mut self, wake: WorkerWake, hub: &mut Hub, cx: &mut Context) {
        match wake {
            WorkerWake::Ask => {
                if hub.up {
                    let max = 1 + cx.random.index(3);
                    hub.ask((self.index, self.token), &self.kinds, max, cx);
                }
                let wait = cx.random.between(200, 3_000);
                self.after(wait, WorkerWake::Ask, cx);
            }
            WorkerWake::Given(tasks) => {
                tasks.into_iter().for_each(|(task, attempt)| self.take(task, attempt, cx))
            }
            WorkerWake::Step { task, attempt } => self.step(task, attempt, hub, cx),
            WorkerWake::Heard { task, attempt } => drop(self.held.remove(&(task, attempt))),
        }
    }

    fn take(&mut self, task: TaskId, attempt: Attempt, cx: &mut Context) {
        let Some((held, first)) = plan(cx) else { return };
        if matches!(held.report, Report::Done(_)) {
            cx.note(Happened::Worked { task, attempt });
        }
        self.held.insert((task, attempt), held);
        self.after(first, WorkerWake::Step { task, attempt }, cx);
    }

    fn step(&mut self, task: TaskId, attempt: Attempt, hub: &mut Hub, cx: &mut Context) {
        let Some(held) = self.held.get(&(task, attempt)).cloned() else { return };
        if held.until > cx.now {
            if held.extends && hub.up {
                if hub.extend(self.token, task, attempt, cx).is_err() {
                    // It was taken away: what it brings is of no use, and is told all the same.
                    self.held.insert((task, attempt), Held { extends: false, ..held.clone() });
                } else if self.tells && cx.random.chance(50) {
                    let said = Said { done: cx.now, total: Some(held.until), note: None };
                    let token = self.token;
                    hub.submit(Job::Pool(PoolJob::Progress { token, task, attempt, said }), cx);
                }
            }
            let wait = extend_ms(&mut cx.random).min(held.until - cx.now).max(1);
            self.after(wait, WorkerWake::Step { task, attempt }, cx);
            return;
        }
        if hub.up {
            let (worker, token, report) = (self.index, self.token, held.report);
            hub.submit(Job::Pool(PoolJob::Report { worker, token, task, attempt, report }), cx);
        }
        self.after(AGAIN_MS, WorkerWake::Step { task, attempt }, cx);
    }

    fn after(&self, ms: u64, wake: WorkerWake, cx: &mut Context) {
        cx.after(ms, Wake::Worker { worker: self.index, wake });
    }
}

/// What a worker does with a task, and when it looks at it first; `None`: it is never heard of again.
fn plan(cx: &mut Context) -> Option<(Held, u64)> {
    let peace = cx.now >= FAULTS_MS;
    let random = &mut cx.random;
    let done = Report::Done(TaskResult::default());
    let quick = random.between(100, 4_000);
    let (ms, extends, report) = match random.between(0, 99) {
        0..=6 if !peace => return None,
        // Silent until long after, and then there it is again.
        7..=16 if !peace => (random.between(12_000, 40_000), false, done),
        17..=28 => (random.between(8_000, 25_000), true, done),
        29..=40 => (quick, false, failed(random, false)),
        41..=43 => (quick, false, failed(random, true)),
        44..=51 => (quick, false, Report::GivenBack),
        _ => (quick, false, done),
    };
    let first = if extends { extend_ms(random).min(ms) } else { ms };
    Some((Held { until: cx.now + ms, extends, report }, first))
}

fn failed(random: &mut Random, is_final: bool) -> Report {
    Report::Failed { result: TaskResult::default(), is_final, chance: random.next() }
}
