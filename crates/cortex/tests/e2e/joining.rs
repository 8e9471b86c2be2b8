//! Invites: one machine each, and each wrong one has its own answer.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use serde_json::Value;

use crate::world::{Process, hub, program};

#[test]
fn r12_7_used_expired_revoked_and_truncated_invites_have_their_own_codes() {
    let world = hub().start();
    let (created, used) = world.invite(&[]);
    world.join_only(&used, "first").expect(0);
    assert_eq!(world.join_only(&used, "second").expect(4).refusal(), "invite_used");

    let (_, expired) = world.invite(&["--ttl", "1ms"]);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(world.join_only(&expired, "late").expect(4).refusal(), "invite_expired");

    let (revoked, file) = world.invite(&[]);
    world.cortex(&["invite", "revoke", revoked["id"].as_str().expect("an id")]).expect(0);
    assert_eq!(world.join_only(&file, "gone").expect(4).refusal(), "invite_unknown");

    let text = created["invite"].as_str().expect("an invite");
    let cut = world.path("cut");
    std::fs::write(&cut, &text[..text.len() - 4]).expect("write");
    assert_eq!(world.join_only(&cut, "cut").expect(2).refusal(), "invite_malformed");
    let long = world.path("long");
    std::fs::write(&long, text.repeat((1 << 20) / text.len())).expect("write");
    assert_eq!(world.join_only(&long, "long").expect(2).refusal(), "too_large");

    let names = world.cortex(&["node", "ls", "--json"]).expect(0).value();
    assert_eq!(names.as_array().map(Vec::len), Some(1), "only the first is there: {names}");
}

#[test]
fn an_invite_of_another_hub_never_shows_its_secret_to_this_one() {
    let (world, other) = (hub().start(), hub().start());
    let (created, file) = other.invite(&[]);
    assert_eq!(world.join_only(&file, "a").expect(4).refusal(), "wrong_authority");
    let invite = created["invite"].as_str().expect("an invite");
    let secret = invite.rsplit('.').next().expect("its last part");
    assert!(!world.logs().contains(secret));
    // It was not spent: it still joins where it belongs.
    other.join_only(&file, "a").expect(0);
}

#[test]
fn r12_7_of_a_hundred_machines_with_one_invite_one_joins() {
    let world = hub().start();
    let (_, file) = world.invite(&[]);
    // Ten at once, ten times over: the machine is small, and the race is the same.
    let codes: Vec<(Option<i32>, String)> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..10)
            .map(|racer| {
                let (world, file) = (&world, &file);
                scope.spawn(move || {
                    (0..10)
                        .map(|round| {
                            let ended = world.join_only(file, &format!("n{racer}-{round}"));
                            let code = if ended.code == Some(0) { String::new() } else { ended.refusal() };
                            (ended.code, code)
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        racers.into_iter().flat_map(|racer| racer.join().expect("a racer")).collect()
    });
    assert_eq!(codes.len(), 100);
    assert_eq!(codes.iter().filter(|(code, _)| *code == Some(0)).count(), 1, "{codes:?}");
    let refused = |code: &str| code == "invite_used" || code == "rate_limited";
    assert!(codes.iter().all(|(status, code)| *status == Some(0) || refused(code)), "{codes:?}");
    assert_eq!(world.cortex(&["node", "ls", "--json"]).expect(0).value().as_array().map(Vec::len), Some(1));
}

#[test]
fn an_invite_waits_until_its_machine_is_online() {
    let world = hub().start();
    let mut waiting =
        world.command(&["invite", "--json", "--wait", "--label", "role=ci"]).spawn().expect("start");
    let mut lines = BufReader::new(waiting.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut next = || -> Value { serde_json::from_str(&lines.next().expect("a line")).expect("JSON") };
    let file = world.path("waited");
    std::fs::write(&file, next()["invite"].as_str().expect("an invite")).expect("write");
    let file = file.display().to_string();
    let data_dir = world.path("node-late").display().to_string();
    let mut command = program(&world.path(""));
    command.args([
        "join",
        &world.hub().grpc,
        "--invite-file",
        &file,
        "--name",
        "late",
        "--data-dir",
        &data_dir,
    ]);
    let node = Process::start(&mut command, &world.path("late.log"));
    let record = next();
    assert_eq!((record["name"].as_str(), record["state"].as_str()), (Some("late"), Some("online")));
    assert_eq!(record["labels"]["role"], "ci");
    assert!(waiting.wait().expect("it ends").success());
    node.stop();
}

#[test]
fn a_watched_list_tells_each_change() {
    let mut world = hub().node("a").start();
    let mut watching = world.command(&["node", "ls", "-w", "--json"]).spawn().expect("start");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut state = || -> Value {
        let node: Value = serde_json::from_str(&lines.next().expect("a line")).expect("JSON");
        node["state"].clone()
    };
    assert_eq!(state(), "online");
    world.stop_node("a");
    assert_eq!(state(), "offline");
    world.start_node("a");
    assert_eq!(state(), "online");
    watching.kill().expect("end our own child");
    watching.wait().expect("it ends");
}

#[test]
fn a_removed_node_does_not_come_back_and_its_name_is_free() {
    let mut world = hub().node("a").start();
    let old = world.cortex(&["node", "get", "a", "--json"]).expect(0).value()["id"].clone();
    world.cortex(&["node", "rm", "a", "--yes"]).expect(0);
    world.cortex(&["node", "get", "a"]).expect(3);
    world.kill_node("a");
    std::fs::remove_dir_all(world.path("node-a")).expect("another machine");
    world.join("a", "strict");
    let new = world.cortex(&["node", "get", "a", "--json"]).expect(0).value()["id"].clone();
    assert_ne!(old, new);
}
