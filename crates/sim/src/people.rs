//! People and programs that give the pool its work: they submit tasks, some with a key that they send
//! twice, cancel, retry and bump them, and ask again when nobody answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cortex_core::error::Code;
use cortex_core::id::{TaskId, TokenId, UserId};
use cortex_core::name::Selector;
use cortex_core::pool::desk::New;
use cortex_core::pool::{Backoff, Concurrency, Owner, Priority, TaskSpec, Work};
use cortex_core::run::RunSpec;

use crate::check::Happened;
use crate::hub::{Answer, Hub, Job, LEAKED, PoolJob, Steer};
use crate::net::{Context, Wake};
use crate::random::Random;
use crate::worker;

/// How long an answer is waited for.
const PATIENCE_MS: u64 = 4_000;

/// What an endless command has as its argument: it ends when it is told to.
pub(crate) const ENDLESS: &str = "endless";

#[derive(Clone, Debug)]
enum What {
    Submit(New),
    Steer(TaskId, Steer),
}

#[derive(Clone, Debug)]
struct Request {
    what: What,
    answered: bool,
}

#[derive(Default)]
pub(crate) struct People {
    requests: Vec<Request>,
    /// Tasks that somebody was told of.
    known: Vec<(TaskId, Owner)>,
    /// Those of them that end only when they are told to.
    endless: BTreeSet<TaskId>,
    keys: BTreeMap<(Owner, String), (Arc<TaskSpec>, TaskId)>,
    used: Vec<New>,
    /// What the hub should not have answered.
    pub(crate) wrong: Vec<String>,
}

impl People {
    /// Somebody submits a task.
    pub(crate) fn submit(&mut self, hub: &mut Hub, cx: &mut Context) {
        let again = !self.used.is_empty() && cx.random.chance(15);
        let new = if again { self.again(&mut cx.random) } else { self.fresh(cx) };
        let request = self.request(What::Submit(new.clone()));
        self.ask(request, hub, cx);
        if new.key.is_some() {
            self.used.push(new);
            if cx.random.chance(25) {
                // An impatient client sends it a second time.
                self.ask(request, hub, cx);
            }
        }
    }

    /// A key that was used before, with the same body or with another one.
    fn again(&self, random: &mut Random) -> New {
        let mut new = self.used[random.index(self.used.len())].clone();
        if random.chance(40) {
            let mut spec = (*new.spec).clone();
            spec.labels.insert("another".to_owned(), "body".to_owned());
            new.spec = Arc::new(spec);
        }
        new
    }

    /// Somebody steers a task that was submitted before.
    pub(crate) fn steer(&mut self, how: Steer, hub: &mut Hub, cx: &mut Context) {
        if self.known.is_empty() {
            return;
        }
        let (task, _) = self.known[cx.random.index(self.known.len())];
        if matches!(how, Steer::Retry) && self.endless.contains(&task) {
            return;
        }
        let request = self.request(What::Steer(task, how));
        self.ask(request, hub, cx);
    }

    fn request(&mut self, what: What) -> usize {
        self.requests.push(Request { what, answered: false });
        self.requests.len() - 1
    }

    /// Sends a request, and looks later whether it was answered.
    pub(crate) fn ask(&mut self, request: usize, hub: &mut Hub, cx: &mut Context) {
        let job = match &self.requests[request].what {
            What::Submit(new) => PoolJob::Submit { request, new: new.clone() },
            What::Steer(task, how) => PoolJob::Steer { request, task: *task, how: *how },
        };
        hub.submit(Job::Pool(job), cx);
        cx.after(PATIENCE_MS, Wake::Person { request });
    }

    /// The time of a request is over: what may be sent twice is sent again.
    pub(crate) fn impatient(&mut self, request: usize, hub: &mut Hub, cx: &mut Context) {
        let Request { what, answered } = &self.requests[request];
        let may_be_sent_twice = match what {
            What::Submit(new) => new.key.is_some(),
            What::Steer(..) => true,
        };
        if !answered && may_be_sent_twice {
            self.ask(request, hub, cx);
        }
    }

    pub(crate) fn answered(&mut self, request: usize, answer: &Answer, cx: &mut Context) {
        let what = self.requests[request].what.clone();
        match (what, answer) {
            (_, Answer::Unavailable) => return,
            (What::Submit(new), Answer::Task(task)) => {
                cx.note(Happened::Kept { task: *task });
                self.learn(&new, *task);
                if is_endless(&new.spec) && self.endless.insert(*task) {
                    let end = self.request(What::Steer(*task, Steer::Cancel));
                    let wait = cx.random.between(500, 25_000);
                    cx.after(wait, Wake::Person { request: end });
                }
            }
            (What::Steer(task, Steer::Cancel), Answer::Task(_)) => cx.note(Happened::CancelKept { task }),
            (What::Steer(..), Answer::Task(_)) => {}
            (What::Submit(new), Answer::Refused(Code::Conflict)) => {
                let known = new.key.clone().and_then(|key| self.keys.get(&(new.owner.party(), key)));
                if known.is_none_or(|(spec, _)| *spec == new.spec) && self.first_of(&new) {
                    self.wrong.push(format!("I1: {:?} was refused as used for another task", new.key));
                }
            }
            (What::Steer(..), Answer::Refused(Code::Conflict)) => {}
            (what, Answer::Refused(code)) => {
                self.wrong.push(format!("I1: {what:?} was refused {}", code.as_str()));
            }
        }
        self.requests[request].answered = true;
    }

    /// Whether no other body was ever sent with its key.
    fn first_of(&self, new: &New) -> bool {
        let same = |other: &&New| other.key == new.key && other.owner.party() == new.owner.party();
        self.used.iter().filter(same).all(|other| other.spec == new.spec)
    }

    fn learn(&mut self, new: &New, task: TaskId) {
        if let Some(key) = &new.key {
            let place = (new.owner.party(), key.clone());
            let (spec, first) = self.keys.entry(place).or_insert_with(|| (Arc::clone(&new.spec), task));
            if *spec != new.spec {
                self.wrong.push(format!("I1: the key of {first} was taken for another task"));
            } else if *first != task {
                self.wrong.push(format!("I1: one key made two tasks, {first} and {task}"));
            }
        }
        if !self.known.iter().any(|(known, _)| *known == task) {
            self.known.push((task, new.owner));
        }
    }

    fn fresh(&self, cx: &mut Context) -> New {
        let wall = cx.wall();
        let random = &mut cx.random;
        let owner = owner(random.index(3));
        let mut spec = TaskSpec::new(work(random));
        let endless = is_endless(&spec);
        spec.attempts_max = u32::try_from(random.between(1, 4)).unwrap_or(1);
        let initial_ms = random.between(1, 1_500);
        spec.backoff = Backoff { initial_ms, factor_percent: 150, max_ms: 3_000, jitter_percent: 20 };
        spec.lease_ms = [10_000, 12_000, 15_000][random.index(3)];
        spec.selector = selector(["", "", "", "", "site=a", "site=b", "gpu=1", "site=z"][random.index(8)]);
        spec.prefer = selector(["", "", "", "gpu=1", "site=b"][random.index(5)]);
        if random.chance(15) {
            spec.start_within_ms = Some(random.between(300, 12_000));
            spec.start_within_pauses = random.chance(50);
        }
        if random.chance(35) && !endless {
            let key = ["press", "door"][random.index(2)].to_owned();
            spec.concurrency = Some(Concurrency { key, limit: 1 + u32::from(random.chance(40)) });
        }
        let own: Vec<TaskId> =
            self.known.iter().filter(|(_, of)| of.party() == owner.party()).map(|(id, _)| *id).collect();
        for _ in 0..2 {
            if !own.is_empty() && random.chance(12) {
                spec.after.push(own[random.index(own.len())]);
            }
        }
        New {
            id: TaskId::mint(1, &random.bytes()),
            spec: Arc::new(spec),
            priority: priority(random),
            owner,
            caller: "token:sim".to_owned(),
            key: (endless || random.chance(55)).then(|| format!("key-{}", random.next())),
            traceparent: None,
            schedule: None,
            due_at: random.chance(12).then(|| wall.plus_ms(random.between(100, 12_000))),
        }
    }
}

pub(crate) fn priority(random: &mut Random) -> Priority {
    Priority::new(u8::try_from(random.between(0, 9)).unwrap_or(5)).unwrap_or_default()
}

fn owner(number: usize) -> Owner {
    match number {
        0 => Owner { token: Some(LEAKED), user: None },
        1 => Owner { token: Some(TokenId::new(uuid::Uuid::from_u128(2))), user: None },
        _ => Owner { token: None, user: Some(UserId::new(uuid::Uuid::from_u128(3))) },
    }
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_default()
}

fn work(random: &mut Random) -> Work {
    if random.chance(30) {
        return Work::Payload { kind: worker::kind(random.index(3)), bytes: vec![1] };
    }
    let program = if random.chance(95) { "echo" } else { "nmap" };
    let fate = ["ok", "ok", "ok", "ok", "ok", "flaky", "flaky", "fail", ENDLESS][random.index(9)];
    let argv = vec![program.to_owned(), fate.to_owned()];
    let timeout_ms = (fate != ENDLESS && random.chance(10)).then(|| random.between(100, 3_000));
    Work::Command(RunSpec { argv, timeout_ms, ..RunSpec::default() })
}

fn is_endless(spec: &TaskSpec) -> bool {
    match &spec.work {
        Work::Command(run) => run.argv.get(1).is_some_and(|fate| fate == ENDLESS),
        Work::Payload { .. } => false,
    }
}
