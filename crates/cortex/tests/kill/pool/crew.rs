//! Those who submit and those who work, over HTTP, whatever happens to the hub meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::history::{Expected, History};
use crate::SOON;
use crate::api::{Answer, Api};
use crate::world::World;

/// The nodes of a world.
pub(crate) const NODES: &[&str] = &["a", "b"];
/// Those who submit, each its part of a round at once.
const SUBMITTERS: usize = 4;
/// Commands, and payloads, of each.
const COMMANDS: usize = 3;
const PAYLOADS: usize = 2;
/// Workers that are no nodes.
const WORKERS: usize = 2;
/// What they ask for.
const KIND: &str = "job";

/// All of them in one world.
pub(crate) struct Crew {
    api: Api,
    history: Arc<History>,
    round: usize,
    batches: AtomicUsize,
    what: String,
    workers: Vec<Hired>,
}

impl Crew {
    pub(crate) fn new(world: &World) -> Self {
        let (api, history) = (Api::of(world), Arc::new(History::new(world)));
        let workers = (0..WORKERS).map(|_| Hired::new(&api, &history)).collect();
        Self { api, history, round: 0, batches: AtomicUsize::new(0), what: String::new(), workers }
    }

    /// A round begins.
    pub(crate) fn begin(&mut self, what: &str) {
        self.round += 1;
        self.what = format!("round {}: {what}", self.round);
        self.history.begin();
    }

    /// Begins to submit twenty tasks of this round; [`Self::settle_commands`] waits until all are
    /// acknowledged.
    pub(crate) fn submit(&self) {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        for submitter in 0..SUBMITTERS {
            let (api, history) = (self.api.clone(), Arc::clone(&self.history));
            self.history.submitting(std::thread::spawn(move || {
                let (body, expected) = tasks(&history, &format!("{batch}-{submitter}"));
                // The same keys each time: what was kept and not answered is not kept twice.
                let answer = api.surely(|api| api.post("/pool/tasks", &body));
                assert_eq!(answer.status, 202, "{answer:?}");
                let items = answer.body["items"].as_array().expect("answers").iter();
                for (item, expected) in items.zip(expected) {
                    let id = item["task"]["id"].as_str().unwrap_or_else(|| panic!("refused: {item}"));
                    history.acknowledged(id, expected);
                }
            }));
        }
    }

    /// Waits until the commands of this round are done. When only the hub was away, no command was
    /// begun again for that.
    pub(crate) fn settle_commands(&self, world: &World, is_of_hub: bool) {
        for (id, expected) in self.history.round() {
            if let Expected::Command { fails } = expected {
                let task = self.done(world, &id);
                let attempts = task["attempt"].as_u64();
                let first = 1 + u64::from(fails);
                assert!(
                    !is_of_hub || attempts == Some(first),
                    "{}: it was begun again: {task}\n{}",
                    self.what,
                    world.logs()
                );
            }
        }
    }

    /// Waits until everything is done, and checks it. Returns how many tasks there were.
    pub(crate) fn settle_and_check(mut self, world: &World) -> usize {
        std::mem::take(&mut self.workers).into_iter().for_each(Hired::leave);
        let all = self.history.all();
        for id in &all {
            self.give_back_unheard(id);
        }
        let last = Hired::new(&self.api, &self.history);
        let stories: Vec<Value> = all.iter().map(|id| self.done(world, id)).collect();
        last.leave();
        self.history.check(world, &stories);
        all.len()
    }

    /// Nobody works at this moment. What workers have all the same was given to one who did not hear of
    /// it: they give it back, and do not wait for the end of its lease.
    fn give_back_unheard(&self, id: &str) {
        let task = self.api.surely(|api| api.get(&format!("/pool/tasks/{id}"))).body;
        if task["state"] == "leased" && task["worker"].is_string() {
            let released = format!("/pool/leases/{id}/{}/release", task["attempt"]);
            let answer = self.api.surely(|api| api.post(&released, &json!({})));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }

    /// Waits for the end of a task, and has its story.
    fn done(&self, world: &World, id: &str) -> Value {
        let until = Instant::now() + 2 * SOON;
        let path = format!("/pool/tasks/{id}?wait_s=5");
        loop {
            let answer = self.api.surely(|api| api.get(&path));
            if answer.body["state"] == "done" {
                return answer.body;
            }
            let story = || format!("{}: task {id} is not done: {answer:?}\n{}", self.what, world.logs());
            assert!(answer.status == 200 && Instant::now() < until, "{}", story());
            assert!(self.workers.iter().all(Hired::is_at_work), "{}: a worker has failed", self.what);
        }
    }
}

/// The tasks of one who submits, and what is to be expected of each.
fn tasks(history: &History, key: &str) -> (Value, Vec<Expected>) {
    let commands = (0..COMMANDS).map(|number| {
        let fails = number == 0;
        let script = history.script(fails, 40 * number);
        let task = json!({
            "argv": ["sh", "-c", script], "key": format!("{key}-c{number}"), "attempts": 50,
            "backoff": {"initial_ms": 50, "factor_percent": 100},
        });
        (task, Expected::Command { fails })
    });
    let payloads = (0..PAYLOADS).map(|number| {
        // The shortest lease that there is: an answer to a claim that is lost is left to it.
        let task = json!({
            "kind": KIND, "payload": if number == 0 { "release" } else { "fail" }, "lease_ms": 10_000,
            "key": format!("{key}-p{number}"), "attempts": 50,
            "backoff": {"initial_ms": 20, "factor_percent": 100},
        });
        (task, Expected::Payload)
    });
    let (tasks, expected): (Vec<Value>, Vec<Expected>) = commands.chain(payloads).unzip();
    (Value::Array(tasks), expected)
}

/// A worker in its thread.
struct Hired {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Hired {
    fn new(api: &Api, history: &Arc<History>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let worker = Worker { api: api.clone(), history: Arc::clone(history), stop: Arc::clone(&stop) };
        Self { stop, thread: std::thread::spawn(move || worker.run()) }
    }

    fn is_at_work(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Has it finish what it works on, and go.
    fn leave(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it has not failed");
    }
}

/// One who works on payloads.
struct Worker {
    api: Api,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(&self) {
        let claim = json!({"kinds": [KIND], "max": 2, "wait_s": 1});
        while !self.stop.load(Ordering::Relaxed) {
            // Never asked again for one answer: what was given and not heard of is left to its lease.
            let Some(answer) = self.api.post("/pool/claims", &claim).filter(|answer| answer.status == 200)
            else {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            };
            let items = answer.body["items"].as_array().expect("tasks");
            let number = |item: &Value| item["attempt"].as_u64().expect("a number");
            let name = |item: &Value| item["id"].as_str().expect("an id").to_owned();
            let claimed: Vec<(String, u64)> = items.iter().map(|item| (name(item), number(item))).collect();
            claimed.iter().for_each(|(id, attempt)| self.history.claimed(id, *attempt));
            for ((id, attempt), item) in claimed.iter().zip(items) {
                self.work(id, *attempt, item["payload"].as_str().expect("text"));
            }
        }
    }

    /// The first attempt is given back or fails; another one reports in the name of the first, and is
    /// done.
    fn work(&self, id: &str, attempt: u64, payload: &str) {
        let extended = self.report(id, attempt, "extend", &json!({}));
        assert!(extended.status == 200 || is_stale(&extended), "{extended:?}");
        if attempt == 1 {
            self.history.gives_up(id, attempt);
            let body = json!({});
            let ended = self.report(id, attempt, if payload == "fail" { "fail" } else { "release" }, &body);
            // The second time that it is said, when the first answer was lost.
            assert!(ended.status == 200 || is_stale(&ended), "{ended:?}");
            return;
        }
        if payload == "release" {
            let stale = self.report(id, 1, "finish", &json!({"output": "of the first"}));
            // One whose claim was never heard of is not known to have had it.
            assert!(is_stale(&stale), "a stale report was taken: {stale:?}");
        }
        self.history.gives_up(id, attempt);
        let output = format!("{id} {attempt}");
        let finished = self.report(id, attempt, "finish", &json!({"output": output}));
        match finished.status {
            200 => self.history.finished(id, attempt),
            _ if is_stale(&finished) => self.history.refused(id, attempt),
            _ => panic!("{finished:?}"),
        }
    }

    fn report(&self, id: &str, attempt: u64, what: &str, body: &Value) -> Answer {
        self.api.surely(|api| api.post(&format!("/pool/leases/{id}/{attempt}/{what}"), body))
    }
}

fn is_stale(answer: &Answer) -> bool {
    answer.refusal() == Some("stale_attempt")
}
