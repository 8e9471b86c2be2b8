//! What was acknowledged and what happened, and whether the pool agrees with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::api::Api;
use crate::history::audited;
use crate::world::World;

/// What is to be expected of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// It runs on a node; its first attempt may be one that fails.
    Command { fails: bool },
    /// It goes to workers over HTTP.
    Payload,
}

/// One world's tasks.
pub(crate) struct History {
    /// Where commands say that they begin, end, and are not alone.
    work: PathBuf,
    /// A file per task, locked by the process of each attempt for as long as that lives.
    locks: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    acknowledged: BTreeMap<String, Expected>,
    round: Vec<(String, Expected)>,
    submitting: Vec<JoinHandle<()>>,
    /// What workers over HTTP have at this moment, as they know it.
    held: BTreeMap<String, u64>,
    claims: Vec<(String, u64)>,
    /// A task was given to somebody while another had it: the lease of that attempt must have ended.
    taken_away: Vec<(String, u64)>,
    finished: Vec<(String, u64)>,
    refused: Vec<(String, u64)>,
}

impl History {
    pub(crate) fn new(world: &World) -> Self {
        let locks = world.path("locks");
        std::fs::create_dir(&locks).expect("a folder for locks");
        Self { work: world.path("worked"), locks, seen: Mutex::default() }
    }

    /// A command that says when it begins and ends, and whether another attempt of its task still
    /// lives. Its first attempt fails if `fails`.
    pub(crate) fn script(&self, fails: bool, ms: usize) -> String {
        let (work, locks) = (self.work.display(), self.locks.display());
        let me = "$CORTEX_TASK_ID $CORTEX_ATTEMPT $CORTEX_RUN_ID";
        let failing = if fails { "[ $CORTEX_ATTEMPT != 1 ] || exit 3; " } else { "" };
        format!(
            "exec 9>{locks}/$CORTEX_TASK_ID; flock -n 9 || echo overlap {me} >> {work}; \
             echo start {me} >> {work}; echo begun; sleep 0.{ms:03}; {failing}echo end {me} >> {work}"
        )
    }

    /// A round begins.
    pub(crate) fn begin(&self) {
        self.seen().round.clear();
    }

    /// Somebody submits for this round.
    pub(crate) fn submitting(&self, thread: JoinHandle<()>) {
        self.seen().submitting.push(thread);
    }

    pub(crate) fn acknowledged(&self, id: &str, expected: Expected) {
        let mut seen = self.seen();
        let known = seen.acknowledged.insert(id.to_owned(), expected);
        assert!(known.is_none(), "task {id} was given to two keys");
        seen.round.push((id.to_owned(), expected));
    }

    /// The tasks of this round, when all are acknowledged.
    pub(crate) fn round(&self) -> Vec<(String, Expected)> {
        let submitting = std::mem::take(&mut self.seen().submitting);
        submitting.into_iter().for_each(|thread| thread.join().expect("all were acknowledged"));
        self.seen().round.clone()
    }

    /// All tasks.
    pub(crate) fn all(&self) -> Vec<String> {
        self.seen().acknowledged.keys().cloned().collect()
    }

    /// A worker was given an attempt.
    pub(crate) fn claimed(&self, id: &str, attempt: u64) {
        let mut seen = self.seen();
        if let Some(other) = seen.held.insert(id.to_owned(), attempt) {
            seen.taken_away.push((id.to_owned(), other));
        }
        seen.claims.push((id.to_owned(), attempt));
    }

    /// A worker is about to report: from here on others may have the task.
    pub(crate) fn gives_up(&self, id: &str, attempt: u64) {
        let mut seen = self.seen();
        if seen.held.get(id) == Some(&attempt) {
            seen.held.remove(id);
        }
    }

    /// A worker was told that its work is done.
    pub(crate) fn finished(&self, id: &str, attempt: u64) {
        self.seen().finished.push((id.to_owned(), attempt));
    }

    /// A worker was told that its attempt is over.
    pub(crate) fn refused(&self, id: &str, attempt: u64) {
        self.seen().refused.push((id.to_owned(), attempt));
    }

    /// All invariants, once everything is done.
    pub(crate) fn check(&self, world: &World, stories: &[Value]) {
        let stories: BTreeMap<&str, &Value> =
            stories.iter().map(|story| (text(story, "id"), story)).collect();
        for story in stories.values() {
            assert_eq!(fault_of(story), None, "{story}");
        }
        let mut done = BTreeMap::<String, usize>::new();
        for event in Api::of(world).events("task.done", stories.len()) {
            *done.entry(text(&event, "subject").to_owned()).or_default() += 1;
        }
        let expected = stories.keys().map(|id| ((*id).to_owned(), 1)).collect();
        assert_eq!(done, expected, "each task that was acknowledged is done once, and no other is there");
        self.check_workers(&stories);
        self.check_commands(world, &stories);
    }

    /// Each attempt was given to one worker, and what was taken is what was answered.
    fn check_workers(&self, stories: &BTreeMap<&str, &Value>) {
        let seen = self.seen();
        let mut claims = BTreeSet::new();
        for (id, attempt) in &seen.claims {
            assert!(claims.insert((id, attempt)), "attempt {attempt} of {id} was given to two");
            let story = stories[id.as_str()];
            assert_eq!(steps(story, "leased", *attempt), 1, "attempt {attempt} is in its timeline: {story}");
        }
        for (id, attempt) in &seen.taken_away {
            assert_eq!(expired(stories[id.as_str()], *attempt), 1, "two had {id}: {}", stories[id.as_str()]);
        }
        let mut finished = BTreeMap::new();
        for (id, attempt) in &seen.finished {
            assert_eq!(finished.insert(id, attempt), None, "{id} was finished twice");
            let story = stories[id.as_str()];
            assert_eq!(steps(story, "done", *attempt), 1, "{story}");
            assert_eq!(story["result"]["output"], format!("{id} {attempt}"), "{story}");
        }
        for (id, attempt) in &seen.refused {
            let story = stories[id.as_str()];
            assert_eq!((steps(story, "done", *attempt), expired(story, *attempt)), (0, 1), "{story}");
        }
        for (id, expected) in &seen.acknowledged {
            if let Expected::Payload = expected {
                let taken = stories[id.as_str()]["result"]["output"].as_str();
                let is_there =
                    finished.get(id).is_some_and(|attempt| taken == Some(&format!("{id} {attempt}")));
                assert!(is_there, "nobody was told that {id} is done: {}", stories[id.as_str()]);
            }
        }
    }

    /// No command was begun twice under one number, or beside another one of its task, or without
    /// a lease and an audit row; and what is done was carried through.
    fn check_commands(&self, world: &World, stories: &BTreeMap<&str, &Value>) {
        let (worked, audited) =
            (std::fs::read_to_string(&self.work).expect("something was done"), audited(world));
        let mut starts = BTreeMap::<&str, Vec<u64>>::new();
        let mut ends = BTreeSet::new();
        for line in worked.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, id, attempt, run] = words[..] else { panic!("no line of a command: {line}") };
            let attempt: u64 = attempt.parse().expect("a number");
            match what {
                "start" => {
                    let story = stories.get(id).unwrap_or_else(|| panic!("nobody has submitted {line}"));
                    let is_given =
                        step(story, "leased").any(|step| step["attempt"] == attempt && step["run_id"] == run);
                    assert!(is_given, "{line} had no lease: {story}");
                    assert!(audited.contains(run), "{line} has no audit row");
                    starts.entry(id).or_default().push(attempt);
                }
                "end" => assert!(ends.insert((id, attempt)), "twice: {line}"),
                _ => panic!("{line}: another attempt was alive: {}", stories[id]),
            }
        }
        for (id, attempts) in &starts {
            let grows = attempts.windows(2).all(|two| two[0] < two[1]);
            assert!(grows, "the attempts of {id} were begun as {attempts:?}: {}", stories[id]);
        }
        for (id, expected) in &self.seen().acknowledged {
            if let Expected::Command { .. } = expected {
                let story = stories[id.as_str()];
                let last = story["attempt"].as_u64().expect("a number");
                assert!(ends.contains(&(id.as_str(), last)), "{id} is done and was not: {story}");
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a task that is done: attempts grow, each lease ends before the next one begins,
/// and the last attempt is the one that is done, once.
fn fault_of(story: &Value) -> Option<String> {
    let (mut last, mut live, mut done) = (0, None, 0);
    for step in story["timeline"].as_array().expect("steps") {
        let attempt = step["attempt"].as_u64().expect("a number");
        match text(step, "step") {
            "leased" if live.is_some() => return Some(format!("{attempt} had a lease beside {live:?}")),
            "leased" if attempt <= last => return Some(format!("attempt {attempt} after {last}")),
            "leased" => (last, live) = (attempt, Some(attempt)),
            what @ ("released" | "failed" | "done") => {
                if live.take() != Some(attempt) {
                    return Some(format!("{what} by {attempt}, which had no lease"));
                }
                done += usize::from(what == "done");
            }
            "submitted" | "scheduled" | "ready" | "stale_report" => {}
            other => return Some(format!("it was {other}")),
        }
    }
    let end = (done, live, text(story, "state"), story["attempt"].as_u64());
    (end != (1, None, "done", Some(last))).then(|| format!("it ended as {end:?} after {last}"))
}

#[test]
fn two_leases_two_ends_and_a_number_that_does_not_grow_are_found_in_a_timeline() {
    let story = |steps: &[(&str, u64)]| {
        let steps = steps.iter().map(|(step, attempt)| json!({"step": step, "attempt": attempt}));
        json!({"state": "done", "attempt": 2, "timeline": steps.collect::<Vec<_>>()})
    };
    let fault = |steps: &[(&str, u64)]| fault_of(&story(steps)).unwrap_or_default();
    let begun = [("submitted", 0), ("ready", 0), ("leased", 1)];
    let with = |rest: &[(&'static str, u64)]| fault(&[&begun, rest].concat());
    assert_eq!(with(&[("released", 1), ("leased", 2), ("stale_report", 1), ("done", 2)]), "");
    for (rest, found) in [
        (&[("leased", 2), ("done", 2)][..], "beside"),
        (&[("failed", 1), ("leased", 1), ("done", 1)], "after 1"),
        (&[("released", 1), ("leased", 2), ("done", 1)], "no lease"),
        (&[("released", 1), ("leased", 2), ("done", 2), ("done", 2)], "no lease"),
        (&[("released", 1), ("leased", 2)], "it ended as"),
        (&[("dead", 1)], "it was dead"),
    ] {
        assert!(with(rest).contains(found), "{rest:?}: {}", with(rest));
    }
}

/// The attempts that were begun, in their order, by what commands said.
pub(super) fn starts(worked: &str) -> impl Iterator<Item = (&str, u64)> {
    worked.lines().filter_map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let ["start", id, attempt, _] = words[..] else { return None };
        Some((id, attempt.parse().expect("a number")))
    })
}

/// The steps of a kind.
pub(super) fn step<'s>(story: &'s Value, what: &'s str) -> impl Iterator<Item = &'s Value> {
    story["timeline"].as_array().expect("steps").iter().filter(move |step| step["step"] == what)
}

/// How often its timeline has this step of an attempt.
fn steps(story: &Value, what: &str, attempt: u64) -> usize {
    step(story, what).filter(|step| step["attempt"] == attempt).count()
}

/// How often the lease of an attempt ran out.
fn expired(story: &Value, attempt: u64) -> usize {
    let released = step(story, "released").filter(|step| step["attempt"] == attempt);
    released.filter(|step| step["detail"] == "lease_expired").count()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_else(|| panic!("no {name}: {value}"))
}
