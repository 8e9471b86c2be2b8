//! Runs outlive the command that started them.

use std::time::Duration;

use crate::world::{World, hub};

fn detached(world: &World, argv: &[&str]) -> String {
    let ended = world.cortex(&[&["exec", "a", "--detach", "--json", "--"], argv].concat()).expect(0);
    let accepted = ended.value();
    assert_eq!((accepted["type"].as_str(), accepted["node"].as_str()), (Some("accepted"), Some("a")));
    accepted["run_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_detached_run_is_found_again_with_its_exact_bytes() {
    let world = hub().open_node("a").start();
    let id = detached(&world, &["sh", "-c", "printf 'a\\0b'; printf 'e' >&2; exit 7"]);
    let run = world.run_reaches(&id, "exited", Duration::from_secs(10));
    assert_eq!(
        (run["code"].as_i64(), run["output_bytes"].as_u64(), run["signal"].is_null()),
        (Some(7), Some(4), true)
    );
    for name in ["id", "node", "state", "code", "signal", "started_at", "ended_at", "output_bytes"] {
        assert!(run.get(name).is_some(), "{name} is missing in {run}");
    }
    let logs = world.cortex(&["run", "logs", &id]).expect(0);
    assert_eq!((logs.stdout.as_slice(), logs.stderr.as_str()), (&b"a\0b"[..], "e"));
    assert_eq!(world.cortex(&["run", "logs", &id, "--stream", "stderr"]).expect(0).stdout.len(), 0);
}

#[test]
fn the_logs_of_a_run_that_goes_on_can_be_read_and_followed() {
    let world = hub().open_node("a").start();
    let go = world.path("go");
    let script = format!("echo begun; until [ -e {} ]; do sleep 0.05; done; echo done", go.display());
    let id = detached(&world, &["sh", "-c", &script]);
    world.eventually("the first output", Duration::from_secs(10), |world| {
        (world.cortex(&["run", "logs", &id]).expect(0).text() == "begun\n").then_some(())
    });
    let follower = world.command(&["run", "logs", "-f", &id]).spawn().expect("start");
    std::fs::write(&go, "").expect("let it go on");
    let output = follower.wait_with_output().expect("the follower ends with the run");
    assert_eq!(output.stdout, b"begun\ndone\n");
}

#[test]
fn a_cancelled_run_ends_with_all_its_processes() {
    let world = hub().open_node("a").start();
    let alive = world.path("alive");
    // The child ignores TERM and has left its group; it must end all the same.
    let script = format!(
        "trap '' TERM; (trap '' TERM; setsid sh -c 'trap \"\" TERM; while :; do date > {}; sleep 0.1; done') & sleep 300",
        alive.display()
    );
    let id = detached(&world, &["sh", "-c", &script]);
    world.eventually("the child", Duration::from_secs(10), |_| alive.exists().then_some(()));
    world.cortex(&["run", "cancel", &id, "--grace", "200ms"]).expect(0);
    let run = world.run_reaches(&id, "cancelled", Duration::from_secs(15));
    assert_eq!(run["cancelled_by"], "token:admin");
    std::fs::remove_file(&alive).expect("forget the sign of life");
    std::thread::sleep(Duration::from_millis(500));
    assert!(!alive.exists(), "a process of the run still lives");
}

#[test]
fn a_run_can_be_run_again() {
    let world = hub().node("a").start();
    world.cortex(&["exec", "a", "--", "echo", "again"]).expect(0);
    let first = world.cortex(&["run", "ls", "--json"]).expect(0).value()[0]["id"].clone();
    let again = world.cortex(&["run", "rerun", first.as_str().expect("an id"), "--json"]).expect(0).value();
    let id = again["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&id, "exited", Duration::from_secs(10));
    assert_eq!(world.cortex(&["run", "logs", &id]).expect(0).text(), "again\n");
}

#[test]
fn a_run_that_is_run_again_has_its_variables_and_says_that_its_input_is_gone() {
    let world = hub().open_node("a").start();
    let script = "echo $WORD; cat; echo end";
    let first = ["exec", "a", "-i", "--env", "WORD=hello", "--", "sh", "-c", script];
    let first = world.cortex_with_input(&first, b"read once\n".to_vec()).expect(0);
    assert_eq!(first.text(), "hello\nread once\nend\n");
    let id = world.cortex(&["run", "ls", "--json"]).expect(0).value()[0]["id"].clone();
    let id = id.as_str().expect("an id").to_owned();
    let again = world.cortex(&["run", "rerun", &id]).expect(0);
    assert!(again.stderr.contains("is not kept") && again.stderr.contains("`-i`"), "{}", again.stderr);
    let again = again.text().trim().to_owned();
    world.run_reaches(&again, "exited", Duration::from_secs(10));
    assert_eq!(world.cortex(&["run", "logs", &again]).expect(0).text(), "hello\nend\n");
    let fed = world.cortex_with_input(&["run", "rerun", "-i", &id, "--json"], b"more\n".to_vec());
    let fed = fed.expect(0).value()["run_id"].as_str().expect("an id").to_owned();
    world.run_reaches(&fed, "exited", Duration::from_secs(10));
    assert_eq!(world.cortex(&["run", "logs", &fed]).expect(0).text(), "hello\nmore\nend\n");
}

#[test]
fn every_command_and_refusal_has_its_audit_row() {
    let world = hub().node("a").start();
    world.cortex(&["exec", "a", "--", "id"]).expect(0);
    world.cortex(&["exec", "a", "--", "curl"]).expect(5);
    let rows = world.cortex(&["audit", "export"]).expect(0).lines();
    let of = |program: &str| rows.iter().find(|row| row["argv"][0] == program).expect("its row").clone();
    assert_eq!(of("id")["outcome"], "allowed");
    assert_eq!(
        (of("curl")["outcome"].as_str(), of("curl")["actor"].as_str()),
        (Some("denied"), Some("token:admin"))
    );
    let seq = of("curl")["seq"].to_string();
    assert_eq!(world.cortex(&["audit", "get", &seq, "--json"]).expect(0).value(), of("curl"));
}
