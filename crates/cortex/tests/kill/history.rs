//! What was acknowledged, and whether the world agrees with it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Child;

use serde_json::Value;

use crate::SOON;
use crate::api::Api;
use crate::world::{Ended, World};

/// Lines that a counter prints.
const LINES: usize = 12;
/// Final states.
const FINAL: &[&str] = &["exited", "failed", "cancelled", "timed_out", "lost", "denied"];

/// One world's commands.
pub(crate) struct History {
    script: String,
    sleeper: String,
    executed: std::path::PathBuf,
    acknowledged: Vec<String>,
}

impl History {
    pub(crate) fn new(world: &World) -> Self {
        let executed = world.path("executed");
        let mark = format!("echo $CORTEX_RUN_ID >> {}", executed.display());
        let count = format!("i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i; sleep 0.03; done");
        Self {
            script: format!("{mark}; {count}"),
            sleeper: format!("{mark}; exec sleep 300"),
            executed,
            acknowledged: Vec::new(),
        }
    }

    /// Starts the client of a counter.
    pub(crate) fn launch(&self, world: &World) -> Child {
        let arguments = ["exec", "a", "--detach", "--json", "--", "sh", "-c", &self.script];
        world.command(&arguments).spawn().expect("start the command")
    }

    /// Remembers what a client was told.
    pub(crate) fn note(&mut self, ended: &Ended) {
        if ended.code == Some(0) {
            let id = ended.value()["run_id"].as_str().expect("an id").to_owned();
            self.acknowledged.push(id);
        }
    }

    /// Starts a counter; it need not be acknowledged.
    pub(crate) fn start(&mut self, world: &World) {
        let ended = Ended::of(self.launch(world));
        self.note(&ended);
    }

    /// Starts a counter that must be acknowledged.
    pub(crate) fn start_surely(&mut self, world: &World) {
        let ended = Ended::of(self.launch(world)).expect(0);
        self.note(&ended);
    }

    /// Starts a run that ends only when it is told to.
    pub(crate) fn start_sleeper(&mut self, world: &World) -> String {
        let arguments = ["exec", "a", "--detach", "--json", "--", "sh", "-c", &self.sleeper];
        self.note(&world.cortex(&arguments).expect(0));
        self.acknowledged.last().expect("it was acknowledged").clone()
    }

    /// Waits until every run that the hub knows has ended.
    pub(crate) fn settle(&self, world: &World, context: &str) {
        world.eventually(&format!("the end of all runs ({context})"), SOON, |world| {
            runs(world).iter().all(is_final).then_some(())
        });
    }

    /// All invariants, after everything has settled.
    pub(crate) fn check(&self, world: &World) {
        let runs: BTreeMap<String, Value> =
            runs(world).into_iter().map(|run| (text(&run["id"]), run)).collect();
        for id in &self.acknowledged {
            assert!(runs.contains_key(id), "run {id} was acknowledged and is not there");
        }
        self.check_executed(&runs, world);
        let ends = ends(world, runs.len());
        for (id, run) in &runs {
            assert_eq!(ends.get(id), Some(&1), "run {id} ends once: {run}");
            if run["argv"][2] == self.script.as_str() {
                check_output(world, id, run);
            }
        }
    }

    /// At most once per run, and never without an audit row.
    fn check_executed(&self, runs: &BTreeMap<String, Value>, world: &World) {
        let executed = std::fs::read_to_string(&self.executed).expect("something was executed");
        let audited = audited(world);
        let mut seen = BTreeMap::<&str, usize>::new();
        executed.lines().for_each(|id| *seen.entry(id).or_default() += 1);
        for (id, times) in seen {
            assert_eq!(times, 1, "run {id} was executed {times} times");
            assert!(runs.contains_key(id), "run {id} was executed and is not kept");
            assert!(audited.contains(id), "run {id} was executed without an audit row");
        }
    }
}

/// Runs whose start is in the audit log.
pub(crate) fn audited(world: &World) -> BTreeSet<String> {
    let rows = world.cortex(&["audit", "export"]).expect(0).lines();
    let starts = rows.iter().filter(|row| row["action"] == "run.start" && row["outcome"] == "allowed");
    starts.filter_map(|row| row["run"].as_str().map(str::to_owned)).collect()
}

fn check_output(world: &World, id: &str, run: &Value) {
    let output = world.cortex(&["run", "logs", id]).expect(0).text();
    let whole: String = (1..=LINES).map(|n| format!("{n}\n")).collect();
    if run["state"] == "exited" && run["code"] == 0 {
        assert_eq!(output, whole, "the output of {id}");
    } else {
        assert!(whole.starts_with(&output), "the output of {id} has a hole: {output:?}");
    }
}

fn runs(world: &World) -> Vec<Value> {
    let list = world.cortex(&["run", "ls", "--json", "--limit", "100000"]).expect(0).value();
    list.as_array().expect("a list").clone()
}

fn is_final(run: &Value) -> bool {
    FINAL.iter().any(|state| run["state"] == *state)
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// How often each run has ended, by the log of events.
fn ends(world: &World, runs: usize) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    for event in Api::of(world).events("run.ended", runs) {
        *ends.entry(text(&event["run"])).or_default() += 1;
    }
    ends
}
