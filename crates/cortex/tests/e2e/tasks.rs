//! The work pool with real nodes: tasks run where they may, come back when a node is gone, and are done
//! once.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Ended, World, hub};

/// Longer than anything here takes, and shorter than a lease.
const SOON: Duration = Duration::from_secs(40);

impl World {
    pub(crate) fn add(&self, arguments: &[&str]) -> Value {
        self.cortex(&[&["task", "add", "--json"], arguments].concat()).expect(0).value()
    }

    /// Adds a task and stays to its end.
    fn add_and_wait(&self, arguments: &[&str]) -> Ended {
        self.cortex(&[&["task", "add", "--wait"], arguments].concat())
    }

    pub(crate) fn task(&self, task: &Value) -> Value {
        self.cortex(&["task", "get", id(task), "--json"]).expect(0).value()
    }

    pub(crate) fn task_reaches(&self, task: &Value, state: &str) -> Value {
        self.eventually(&format!("state {state} of task {}", id(task)), SOON, |world| {
            let task = world.task(task);
            (task["state"] == state).then_some(task)
        })
    }

    /// Why it waits: the first reason, and its sentence.
    fn why(&self, task: &Value) -> (String, String) {
        let told = self.cortex(&["task", "explain", id(task), "--json"]).expect(0).value();
        let text = |name: &str| told["reasons"][0][name].as_str().unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }

    pub(crate) fn lines_of(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

pub(crate) fn id(task: &Value) -> &str {
    task["id"].as_str().unwrap_or_else(|| panic!("no id: {task}"))
}

pub(crate) fn steps(task: &Value) -> Vec<&str> {
    task["timeline"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect()
}

#[test]
fn a_task_runs_on_the_node_with_its_label_and_its_output_and_result_are_read_back() {
    let world = hub().open_node("a").open_node("b").start();
    world.cortex(&["node", "label", "b", "role=ci"]).expect(0);
    let script = "printf \"$CORTEX_TASK_ID $CORTEX_ATTEMPT $GREETING\\0\"; echo oops >&2";
    let task = world.add(&["-l", "role=ci", "--env", "GREETING=hello-canary", "--", "sh", "-c", script]);
    let done = world.task_reaches(&task, "done");
    assert_eq!((done["node"].as_str(), done["result"]["code"].as_i64()), (Some("b"), Some(0)), "{done}");
    let logs = world.cortex(&["task", "logs", id(&task)]).expect(0);
    let expected = format!("{} 1 hello-canary\0", id(&task));
    assert_eq!((logs.text(), logs.stderr.as_str()), (expected, "oops\n"));
    let run =
        world.cortex(&["run", "get", done["run_id"].as_str().expect("a run"), "--json"]).expect(0).value();
    assert_eq!((run["node"].as_str(), run["caller"].as_str()), (Some("b"), Some("token:admin")));
    // Values of variables are said nowhere.
    let shown = world.cortex(&["task", "get", id(&task)]).expect(0).text();
    let told =
        [shown.clone(), done.to_string(), world.logs(), world.cortex(&["audit", "export"]).expect(0).text()];
    assert!(told.iter().all(|text| !text.contains("hello-canary")));
    assert!(shown.lines().all(|line| line.starts_with("command") || line.chars().count() <= 80), "{shown}");
    for part in ["state         done", "on b", "submitted", "leased"] {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
}

#[test]
fn waiting_for_a_task_shows_its_output_and_leaves_with_its_exit_code() {
    let world = hub().open_node("a").start();
    let good = world.add_and_wait(&["--", "sh", "-c", "echo out; echo err >&2"]).expect(0);
    assert_eq!(good.text(), "out\n");
    assert!(good.stderr.contains("err\n") && good.stderr.contains("Attempt 1 on a."), "{}", good.stderr);
    let script = "echo attempt $CORTEX_ATTEMPT; exit 7";
    let bad =
        world.add_and_wait(&["--attempts", "2", "--backoff", "100ms", "--", "sh", "-c", script]).expect(7);
    assert_eq!(bad.text(), "attempt 1\nattempt 2\n");
    assert!(bad.stderr.contains("dead after 2 attempt"), "{}", bad.stderr);
    let lines = world.cortex(&["task", "add", "--wait", "--json", "--", "echo", "hi"]).expect(0).lines();
    assert_eq!((&lines[0]["kind"], &lines[lines.len() - 1]["state"]), (&"command".into(), &"done".into()));
    assert!(lines.iter().any(|line| line["type"] == "output" && line["data"] == "hi\n"), "{lines:?}");
}

#[test]
fn a_failing_task_is_tried_again_after_its_wait_and_dies_after_its_attempts() {
    let world = hub().open_node("a").start();
    let log = world.path("log").display().to_string();
    let script = format!("date +%s%N >> {log}; exit 3");
    let task = world.add(&["--attempts", "3", "--backoff", "400ms", "--", "sh", "-c", &script]);
    let dead = world.task_reaches(&task, "dead");
    assert_eq!((dead["tries"].as_u64(), dead["result"]["code"].as_i64()), (Some(3), Some(3)));
    let at: Vec<u64> = world.lines_of("log").iter().map(|line| line.parse().expect("a time")).collect();
    assert_eq!(at.len(), 3);
    let waited = |n: usize| Duration::from_nanos(at[n] - at[n - 1]);
    // Up to a fifth of a wait is left to chance, and the second one is twice the first.
    assert!(waited(1) >= Duration::from_millis(320) && waited(2) >= Duration::from_millis(640), "{at:?}");
    assert_eq!(steps(&dead).iter().filter(|step| **step == "failed").count(), 3);
    let second = world.cortex(&["task", "logs", id(&task), "--attempt", "2"]).expect(0);
    assert!(second.stdout.is_empty());
    world.cortex(&["task", "logs", id(&task), "--attempt", "9"]).expect(3);
    // Dead tasks are found and tried again.
    let list = world.cortex(&["task", "ls", "--state", "dead", "--json"]).expect(0).value();
    assert_eq!(list[0]["id"], task["id"]);
    world.cortex(&["task", "retry", id(&task)]).expect(0);
    world.task_reaches(&task, "dead");
    assert_eq!(world.lines_of("log").len(), 6);
}

#[test]
fn a_denied_task_says_by_whom_and_runs_once_it_is_allowed() {
    let world = hub().node("a").start();
    let task = world.add(&["--", "curl", "--version"]);
    world.eventually("the denial", SOON, |world| (world.why(&task).0 == "denied").then_some(()));
    let (_, message) = world.why(&task);
    assert!(message.contains("a (rule exec.allow)"), "{message}");
    let people = world.cortex(&["task", "explain", id(&task)]).expect(0).text();
    assert!(people.contains("cortex policy allow a") && people.contains("cortex task"), "{people}");
    assert!(people.lines().all(|line| line.chars().count() <= 80), "{people}");
    world.cortex(&["policy", "allow", "a", "curl", "--yes"]).expect(0);
    world.cortex(&["task", "retry", id(&task)]).expect(0);
    let ended = world.eventually("an attempt", SOON, |world| {
        let task = world.task(&task);
        (task["attempt"].as_u64() == Some(1)).then_some(task)
    });
    assert_eq!(ended["excluded"], Value::Array(Vec::new()));
    let waits = world.add(&["-l", "gpu=a100", "--", "true"]);
    let (reason, message) = world.why(&waits);
    assert_eq!(reason, "no_node");
    assert!(message.contains("a, which lacks gpu=a100"), "{message}");
}

#[test]
fn a_cancel_ends_the_process_and_so_does_the_run_limit() {
    let world = hub().open_node("a").start();
    let alive = world.path("alive");
    let script = format!("while :; do date > {}; sleep 0.1; done", alive.display());
    let task = world.add(&["--", "sh", "-c", &script]);
    world.eventually("its process", SOON, |_| alive.exists().then_some(()));
    world.cortex(&["task", "cancel", id(&task)]).expect(0);
    let cancelled = world.task_reaches(&task, "cancelled");
    assert_eq!(cancelled["cancelled_by"], "token:admin");
    std::fs::remove_file(&alive).expect("forget the sign of life");
    std::thread::sleep(Duration::from_millis(500));
    assert!(!alive.exists(), "its process lives on");
    let limited = world.add(&["--attempts", "1", "--run-limit", "300ms", "--", "sleep", "300"]);
    let dead = world.task_reaches(&limited, "dead");
    let run = world.run_view(dead["run_id"].as_str().expect("a run"));
    assert_eq!(run["state"], "timed_out");
}

#[test]
fn dependencies_keys_and_concurrency_keys_hold() {
    let world = hub().open_node("a").start();
    let log = world.path("order").display().to_string();
    let say = |what: &str| format!("echo {what} >> {log}");
    let go = world.path("go");
    let first = format!("until [ -e {} ]; do sleep 0.05; done; {}", go.display(), say("first"));
    let first = world.add(&["--", "sh", "-c", &first]);
    let second = world.add(&["--after", id(&first), "--", "sh", "-c", &say("second")]);
    assert_eq!(second["state"], "scheduled");
    assert_eq!(world.why(&second).0, "dependency");
    std::fs::write(&go, "").expect("let it go on");
    world.task_reaches(&second, "done");
    assert_eq!(world.lines_of("order"), ["first", "second"]);

    let nightly = ["--key", "nightly", "--", "sh", "-c", "true"];
    let (once, again) = (world.add(&nightly), world.add(&nightly));
    assert_eq!(once["id"], again["id"]);
    let other = world.cortex(&["task", "add", "--json", "--key", "nightly", "--", "false"]).expect(8);
    assert_eq!(other.refusal(), "conflict");

    // Each says that it is there, looks whether another one is, and goes.
    let (inside, both) = (world.path("inside"), world.path("both"));
    let (inside, both) = (inside.display(), both.display());
    let alone = format!("mkdir {inside} || touch {both}; sleep 0.2; rmdir {inside}");
    let tasks: Vec<Value> =
        (0..5).map(|_| world.add(&["--concurrency", "deploy=1", "--", "sh", "-c", &alone])).collect();
    for task in &tasks {
        world.task_reaches(task, "done");
    }
    assert!(!world.path("both").exists(), "two were worked on at once");
}

#[test]
fn a_task_whose_node_is_killed_comes_back_on_another_and_is_done_once() {
    let mut world = hub().open_node("a").open_node("b").start();
    world.cortex(&["node", "label", "a", "first=yes"]).expect(0);
    let log = world.path("log").display().to_string();
    let script = format!(
        "echo begun $CORTEX_ATTEMPT >> {log}; if [ $CORTEX_ATTEMPT = 1 ]; then sleep 300; fi; echo done $CORTEX_ATTEMPT >> {log}"
    );
    let task = world.add(&["--prefer", "first=yes", "--", "sh", "-c", &script]);
    world.eventually("its first attempt", SOON, |world| (world.lines_of("log") == ["begun 1"]).then_some(()));
    assert_eq!(world.task(&task)["node"], "a");
    world.kill_node("a");
    let began = Instant::now();
    let done = world.task_reaches(&task, "done");
    println!("it was done {:?} after its node was killed", began.elapsed());
    assert_eq!((done["node"].as_str(), done["attempt"].as_u64()), (Some("b"), Some(2)), "{done}");
    assert_eq!(done["tries"], 1, "a node that is gone counts as a try");
    assert!(steps(&done).contains(&"released"), "{done}");
    world.start_node("a");
    world.node_reaches("a", "online", SOON);
    assert_eq!(world.lines_of("log"), ["begun 1", "begun 2", "done 2"]);
    assert_eq!(world.task(&task)["state"], "done");
}

#[test]
fn tasks_and_their_leases_outlive_a_hub_that_is_killed() {
    let mut world = hub().open_node("a").start();
    let log = world.path("log").display().to_string();
    let go = world.path("go");
    let script = format!(
        "echo begun >> {log}; until [ -e {} ]; do sleep 0.05; done; echo done >> {log}",
        go.display()
    );
    let running = world.add(&["--", "sh", "-c", &script]);
    world.eventually("its process", SOON, |world| (world.lines_of("log") == ["begun"]).then_some(()));
    let waiting = world.add(&["-l", "role=later", "--", "true"]);
    let payload = world.add(&["--kind", "resize"]);
    let claimed = world.cortex(&["task", "claim", "--kind", "resize", "--json"]).expect(0).value();
    assert_eq!(claimed[0]["id"], payload["id"]);
    let addresses = world.kill_hub();
    world.start_hub(&addresses);
    world.node_reaches("a", "online", SOON);
    assert_eq!(world.task(&waiting)["state"], "ready");
    world.cortex(&["task", "finish", id(&payload), "1"]).expect(0);
    std::fs::write(&go, "").expect("let it go on");
    let done = world.task_reaches(&running, "done");
    assert_eq!((done["attempt"].as_u64(), world.lines_of("log").len()), (Some(1), 2), "{done}");
    world.cortex(&["node", "label", "a", "role=later"]).expect(0);
    world.task_reaches(&waiting, "done");
}

#[test]
fn a_worker_from_the_command_line_claims_extends_fails_and_finishes() {
    let world = hub().start();
    let file = world.path("job");
    std::fs::write(&file, [0xff, 0x00]).expect("a payload");
    let file = file.display().to_string();
    let job = ["--kind", "resize", "--payload-file", &file, "--backoff", "100ms"];
    let task = world.add(&job);
    let claim = ["task", "claim", "--kind", "resize", "--wait", "20s", "--json"];
    let claimed = world.cortex(&claim).expect(0).value();
    assert_eq!(
        (claimed[0]["attempt"].as_u64(), claimed[0]["payload_base64"].as_str()),
        (Some(1), Some("/wA="))
    );
    world.cortex(&["task", "extend", id(&task), "1", "--lease", "1m"]).expect(0);
    world.cortex(&["task", "fail", id(&task), "1", "--message", "no such file"]).expect(0);
    let again = world.cortex(&claim).expect(0).value();
    assert_eq!(again[0]["attempt"], 2);
    let late = world.cortex(&["task", "finish", id(&task), "1", "--json"]).expect(8);
    assert_eq!(late.refusal(), "stale_attempt");
    world.cortex(&["task", "release", id(&task), "2"]).expect(0);
    world.cortex(&claim).expect(0);
    let result = world.path("result");
    std::fs::write(&result, "small.png").expect("a result");
    let result = result.display().to_string();
    world.cortex(&["task", "finish", id(&task), "3", "--output-file", &result]).expect(0);
    let done = world.task(&task);
    assert_eq!((&done["state"], &done["result"]["output"]), (&"done".into(), &"small.png".into()));
    assert_eq!(done["evidence"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.cortex(&["task", "claim", "--kind", "resize", "--json"]).expect(0).text(), "[]\n");
    world.cortex(&["task", "finish", id(&task), "9"]).expect(3);
    world.cortex(&["task", "logs", id(&task)]).expect(3);
}
