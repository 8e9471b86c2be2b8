//! A hub that is killed with 500 leases: nobody begins again.

use std::collections::BTreeMap;
use std::fs::File;

use nix::sys::stat::Mode;
use serde_json::{Value, json};

use super::history::{starts, step};
use crate::SOON;
use crate::api::Api;
use crate::world::{World, hub};

const NODES: &[&str] = &["a", "b", "c"];
/// Tasks of each node at once.
const SLOTS: u32 = 150;
/// Tasks of workers over HTTP.
const PAYLOADS: usize = 50;
const COMMANDS: usize = SLOTS as usize * NODES.len();

fn done(api: &Api) -> u64 {
    let stats = api.surely(|api| api.get("/pool/stats")).body;
    stats["tasks"]["done"].as_u64().unwrap_or(0)
}

fn leases(api: &Api) -> u64 {
    let stats = api.surely(|api| api.get("/pool/stats")).body;
    stats["leases"].as_u64().expect("a count")
}

/// Submits all at once; their ids.
fn submit(api: &Api, tasks: Vec<Value>) -> Vec<String> {
    let answer = api.post("/pool/tasks", &Value::Array(tasks)).expect("an answer");
    let items = answer.body["items"].as_array().expect("answers");
    items.iter().map(|item| item["task"]["id"].as_str().expect("an id").to_owned()).collect()
}

fn worked(world: &World) -> String {
    std::fs::read_to_string(world.path("worked")).unwrap_or_default()
}

/// Each command was begun, and once.
fn check_begun(worked: &str) {
    let mut begun = BTreeMap::<&str, Vec<u64>>::new();
    starts(worked).for_each(|(id, attempt)| begun.entry(id).or_default().push(attempt));
    assert_eq!(begun.len(), COMMANDS);
    assert!(begun.values().all(|attempts| attempts == &[1]), "begun twice: {begun:?}");
}

#[test]
fn five_hundred_leases_outlive_a_hub_that_is_killed_and_nothing_is_begun_twice() {
    let mut world = NODES.iter().fold(hub(), |plan, name| plan.open_node(name)).slots(SLOTS).start();
    let api = Api::of(&world);
    // Commands read from a pipe that says nothing until it is closed; they cost nothing meanwhile.
    let gate = world.path("gate");
    nix::unistd::mkfifo(&gate, Mode::S_IRWXU).expect("a pipe");
    let shut = File::options().read(true).write(true).open(&gate).expect("both ends at once");
    let script = format!(
        "echo start $CORTEX_TASK_ID $CORTEX_ATTEMPT $CORTEX_RUN_ID >> {}; read -r nothing < {}; true",
        world.path("worked").display(),
        gate.display()
    );
    let mut ids = submit(&api, vec![json!({"argv": ["sh", "-c", script]}); COMMANDS]);
    ids.extend(submit(&api, vec![json!({"kind": "job"}); PAYLOADS]));
    let claim = json!({"kinds": ["job"], "max": PAYLOADS});
    let claimed = api.post("/pool/claims", &claim).expect("an answer").body;
    assert_eq!(claimed["items"].as_array().map(Vec::len), Some(PAYLOADS));
    world.eventually("all commands", 3 * SOON, |world| {
        (starts(&worked(world)).count() == COMMANDS).then_some(())
    });
    assert_eq!(leases(&api), ids.len() as u64);

    let ports = world.kill_hub();
    world.start_hub(&ports);
    assert_eq!(leases(&api), ids.len() as u64, "each lease is taken up again");
    for name in NODES {
        world.node_reaches(name, "online", SOON);
    }
    drop(shut);
    for item in claimed["items"].as_array().expect("tasks") {
        let finish = format!("/pool/leases/{}/1/finish", item["id"].as_str().expect("an id"));
        let answer = api.post(&finish, &json!({})).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    world.eventually("the end of all", 3 * SOON, |world| {
        check_begun(&worked(world));
        (done(&api) == ids.len() as u64).then_some(())
    });
    for id in &ids {
        let story = api.get(&format!("/pool/tasks/{id}")).expect("an answer").body;
        assert_eq!((&story["state"], &story["attempt"]), (&"done".into(), &1.into()), "{story}");
        assert_eq!((step(&story, "leased").count(), step(&story, "done").count()), (1, 1), "{story}");
    }
}
