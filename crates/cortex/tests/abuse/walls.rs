//! Rows 35 and 41 to 44: what a command that is allowed meets when it tries more than it may.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{attempt, audited, code_of, develop, others_go_on, rule_of, set_document, tools};
use crate::world::{World, hub};

const SOON: Duration = Duration::from_secs(20);
const MIB: u64 = 1024 * 1024;
/// What walls answer.
const EACCES: i32 = 13;
const EPERM: i32 = 1;
const ENOENT: i32 = 2;

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("set");
}

/// Starts a command and does not wait for it; its id.
fn detach(world: &World, argv: &[&str]) -> String {
    let accepted = world.cortex(&[&["exec", "a", "--detach", "--json"], argv].concat()).expect(0).value();
    accepted["run_id"].as_str().expect("an id").to_owned()
}

/// A command that its node denies; why.
fn denied_there(world: &World, argv: &[&str]) -> String {
    let id = detach(world, &[&["--"], argv].concat());
    let run = world.run_reaches(&id, "denied", SOON);
    assert_eq!(run["output_bytes"], 0, "{run}");
    run["diagnostic"].as_str().expect("a reason").to_owned()
}

#[test]
fn a35_the_program_that_was_judged_is_the_one_that_runs() {
    let world = hub().node("a").start();
    develop(&world, "a");
    let (canary, closed) = (world.path("work/canary"), world.path("closed"));
    fs::create_dir(&closed).expect("a folder");
    let folder = tools(&world, "a", &["tool", "out", "loop"]);
    world.cortex(&["policy", "allow", "a", "--root", &closed.display().to_string(), "--yes"]).expect(0);
    script(&folder.join("good"), "echo good");
    script(&closed.join("bad"), &format!("echo bad; touch {}", canary.display()));
    for relative in ["./tool", "tools/tool", "../tool", "tool/", "a/../tool"] {
        let ended = world.cortex(&["exec", "a", "--json", "--", relative]).expect(5);
        assert_eq!((code_of(&ended).as_str(), rule_of(&ended).as_str()), ("policy_denied", "exec.path"));
    }
    let path = |name: &str| folder.join(name).display().to_string();
    // Not the same spelling, though the same file.
    for other in [format!("{}/../tools/tool", folder.display()), format!("/{}", path("tool")), path("./tool")]
    {
        assert_eq!(rule_of(&world.cortex(&["exec", "a", "--json", "--", &other]).expect(5)), "exec.allow");
    }
    symlink(closed.join("bad"), folder.join("out")).expect("linked");
    symlink("loop", folder.join("loop")).expect("linked");
    assert!(denied_there(&world, &[&path("out")]).contains("(roots.program)"));
    let ended = world.cortex(&["exec", "a", "--", &path("loop")]);
    assert!(ended.code != Some(0) && ended.stderr.contains("was not found"), "{ended:?}");

    symlink(folder.join("good"), folder.join("tool")).expect("linked");
    let stop = AtomicBool::new(false);
    let (mut ran, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (next, targets) = (folder.join("next"), [folder.join("good"), closed.join("bad")]);
            for target in targets.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                symlink(target, &next).expect("linked");
                fs::rename(&next, folder.join("tool")).expect("swapped");
            }
        });
        for _ in 0..60 {
            let ended = world.cortex(&["exec", "a", "--", &path("tool")]);
            match ended.code {
                Some(0) => {
                    assert_eq!(ended.text(), "good\n");
                    ran += 1;
                }
                Some(5) => {
                    assert!(ended.stdout.is_empty() && ended.stderr.contains("program)"), "{}", ended.stderr);
                    refused += 1;
                }
                _ => panic!("{ended:?}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(ran > 0 && refused > 0, "both were met: {ran} {refused}");
    assert!(!canary.exists(), "what was swapped in has run");
    others_go_on(&world);
}

#[test]
fn a35_a_folder_that_became_a_link_between_two_runs_is_not_followed() {
    let world = hub().node("a").start();
    develop(&world, "a");
    fs::write(world.path("expected-warnings"), "no run of this policy can start\n").expect("listed");
    let (work, inner) = (world.path("work"), world.path("work/inner"));
    let inside = inner.display().to_string();
    world.cortex(&["exec", "a", "--cwd", &work.display().to_string(), "--", "mkdir", "inner"]).expect(0);
    world.cortex(&["policy", "allow", "a", "--root", &format!("{inside}:rw"), "--yes"]).expect(0);
    let make = ["exec", "a", "--cwd", &inside, "--", "touch", "made"];
    world.cortex(&make).expect(0);
    // What another policy's run could do, and what the room of this one forbids.
    let secret = world.path("secret");
    fs::create_dir(&secret).expect("a folder");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o777)).expect("open to all");
    fs::rename(&inner, work.join("moved")).expect("moved");
    symlink(&secret, &inner).expect("linked");
    let why = denied_there(&world, &["touch", &secret.join("canary").display().to_string()]);
    assert!(why.contains("(roots.reserved)"), "{why}");
    assert_eq!(fs::read_dir(&secret).expect("a folder").count(), 0);
    // A link inside of a root leads where it leads in the room.
    world.cortex(&["policy", "deny", "a", "--root", &inside]).expect(0);
    world.cortex(&["exec", "a", "--", "touch", &inner.join("canary").display().to_string()]).expect(1);
    assert_eq!(fs::read_dir(&secret).expect("a folder").count(), 0);
    others_go_on(&world);
}

fn epoch(world: &World) -> (Value, Value) {
    let node = world.cortex(&["node", "get", "a", "--json"]).expect(0).value();
    (node["state"].clone(), node["epoch"].clone())
}

#[test]
fn a41_what_takes_all_it_can_get_is_bounded_and_the_node_goes_on() {
    let world = hub().node("a").start();
    develop(&world, "a");
    let limits =
        json!({"memory_bytes": 64 * MIB, "processes": 64, "output_bytes": MIB, "file_bytes": 8 * MIB});
    set_document(&world, "a", |document| document["limits"] = limits);
    let before = epoch(&world);
    let sh = |text: &str| world.cortex(&["exec", "a", "--", "sh", "-c", text]);
    let bomb = detach(&world, &["--", "sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 100"]);
    world.eventually("the bomb begins", SOON, |world| {
        (world.run_view(&bomb)["state"] != "queued").then_some(())
    });
    for _ in 0..10 {
        others_go_on(&world);
    }
    let balloon = sh("head -c 300000000 /dev/zero | tail -n 1 | wc -c");
    assert!(!balloon.text().starts_with("300000000"), "{balloon:?}");
    others_go_on(&world);

    let printer = detach(&world, &["--", "sh", "-c", "exec yes"]);
    let printed = world.run_reaches(&printer, "exited", SOON);
    assert_eq!((&printed["output_bytes"], &printed["signal"]), (&json!(MIB), &json!(9)), "{printed}");
    assert!(printed["diagnostic"].as_str().is_some_and(|why| why.contains("wrote more than")), "{printed}");

    let file = sh("head -c 100000000 /dev/zero > $HOME/big; wc -c < $HOME/big");
    assert_eq!(file.text().trim(), (8 * MIB).to_string(), "{file:?}");
    let full = world.cortex(&["node", "get", "a", "--json"]).expect(0).value()["sandbox"] == "full";
    if full {
        let many = "i=0; while [ $i -lt 1000000 ]; do : > /tmp/$i || exit 9; i=$((i+1)); done; echo all";
        assert_eq!(sh(many).text(), "", "a million files were made");
    }
    let score = |pid: &str| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).expect("it lives");
    let node: i32 = score(&world.node_pid("a").to_string()).trim().parse().expect("a number");
    let of_run: i32 = sh("cat /proc/self/oom_score_adj").text().trim().parse().expect("a number");
    assert!(of_run > node, "a run goes before its node: {of_run} {node}");

    // Its shell may have ended before, for it could not fork either.
    let cancelled = world.cortex(&["run", "cancel", &bomb, "--grace", "100ms"]);
    assert!([Some(0), Some(8)].contains(&cancelled.code), "{cancelled:?}");
    world.eventually("the end of the bomb", SOON, |world| {
        (!["queued", "running"].iter().any(|state| world.run_view(&bomb)["state"] == *state)).then_some(())
    });
    assert_eq!(epoch(&world), before, "its link was never cut");
    others_go_on(&world);
}

#[test]
fn a42_what_leaves_its_session_and_hears_no_signal_ends_with_its_run() {
    let world = hub().node("a").start();
    develop(&world, "a");
    let program = attempt(&world, "a");
    for how in ["deadline", "end", "cancel"] {
        let beat = world.path("work").join(how);
        let haunt = format!("haunt:{}", beat.display());
        let timeout = if how == "deadline" { "1s" } else { "60s" };
        let stay = if how == "end" { "stay:1" } else { "stay:50" };
        let run = detach(&world, &["--timeout", timeout, "--", &program, &haunt, stay]);
        world.eventually("the ghost writes", SOON, |_| beat.exists().then_some(()));
        if how == "cancel" {
            world.cortex(&["run", "cancel", &run, "--grace", "100ms"]).expect(0);
        }
        let state = match how {
            "deadline" => "timed_out",
            "cancel" => "cancelled",
            _ => "exited",
        };
        world.run_reaches(&run, state, SOON);
        world.eventually("the ghost is gone", SOON, |_| {
            fs::remove_file(&beat).ok();
            std::thread::sleep(Duration::from_millis(200));
            (!beat.exists()).then_some(())
        });
    }
    others_go_on(&world);
}

/// What each attempt came to, by what was attempted.
fn attempts(world: &World, program: &str, what: &[String]) -> Vec<(String, i32)> {
    let argv: Vec<&str> = what.iter().map(String::as_str).collect();
    let ended = world.cortex(&[&["exec", "a", "--", program], &argv[..]].concat()).expect(0);
    let text = ended.text();
    let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    let all: Vec<_> =
        lines.filter_map(|(what, errno)| Some((what.to_owned(), errno.parse().ok()?))).collect();
    assert_eq!(all.len(), what.len(), "{ended:?}");
    all
}

#[test]
fn a43_keys_processes_sockets_and_the_clouds_credentials_are_out_of_reach() {
    let world = hub().node("a").start();
    // A policy that gives what may not be given is told when it comes.
    fs::write(world.path("expected-warnings"), "no run of this policy can start\n").expect("listed");
    develop(&world, "a");
    let program = attempt(&world, "a");
    let network =
        world.cortex(&["policy", "get", "a", "--json"]).expect(0).value()["document"]["network"].clone();
    assert_eq!(network, json!({"ports": [53, 443]}), "not the port of the metadata address");
    // Sockets that lie in a folder of the run, open to all.
    let sockets = ["docker.sock", "agent.sock"].map(|name| world.path("tools").join(name));
    let _listeners = sockets.each_ref().map(|path| {
        let listener = UnixListener::bind(path).expect("bound");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("open to all");
        listener
    });
    let own = |name: &str| world.path("node-a").join(name).display().to_string();
    let (node, hub) = (world.node_pid("a"), world.hub().pid());
    let mut what: Vec<String> = ["node.key", "recovery.key", "node.json", "policy", "journal"]
        .iter()
        .map(|name| format!("read:{}", own(name)))
        .collect();
    what.push(format!("read:{}", world.path("hub/admin.token").display()));
    what.push(format!("read:{}", world.hub().token_file));
    for pid in [node, hub] {
        what.extend(
            ["environ", "mem", "maps", "fd", "root/etc/passwd"]
                .map(|part| format!("read:/proc/{pid}/{part}")),
        );
    }
    what.extend(["/var/run/docker.sock", "/run/docker.sock"].map(|path| format!("unix:{path}")));
    what.extend(sockets.iter().map(|path| format!("unix:{}", path.display())));
    what.push("tcp:169.254.169.254/80".to_owned());
    what.push(format!("write:{}", own("ceiling.json")));
    let shut = |all: Vec<(String, i32)>| {
        for (what, errno) in all {
            let refused = [EACCES, EPERM, ENOENT].contains(&errno);
            let absent = errno == 111 && what.contains("docker.sock") && !what.contains("tools");
            assert!(refused || absent, "{what}: {errno}");
        }
    };
    shut(attempts(&world, &program, &what));
    // The address itself is no more than a port: that port is what is shut.
    let open = attempts(&world, &program, &["tcp:169.254.169.254/443".to_owned()]);
    assert!(![EACCES, EPERM].contains(&open[0].1), "{open:?}");

    // Whoever gives a run the folder in which the node lives does not give it the node.
    let everything = format!("{}:rw", world.path("node-a").parent().expect("the world").display());
    world.cortex(&["policy", "allow", "a", "--root", &everything, "--yes"]).expect(0);
    let argv: Vec<&str> = what.iter().filter(|what| what.contains("node-a")).map(String::as_str).collect();
    let ended = world.cortex(&[&["exec", "a", "--", &program], &argv[..]].concat());
    match ended.code {
        Some(0) => {
            for line in ended.text().lines() {
                assert!(!line.ends_with(" 0"), "{line}");
            }
        }
        // Below level full a part of a folder cannot be covered.
        _ => assert!(ended.code == Some(5) && ended.stderr.contains("roots.reserved"), "{ended:?}"),
    }
    let itself = format!("{}:r", world.path("node-a").display());
    world.cortex(&["policy", "deny", "a", "--root", &everything]).expect(0);
    world.cortex(&["policy", "allow", "a", "--root", &itself, "--yes"]).expect(0);
    assert!(denied_there(&world, &["true"]).contains("(roots.reserved)"));
    world.cortex(&["policy", "deny", "a", "--root", &itself]).expect(0);

    set_document(&world, "a", |document| document["network"] = json!("none"));
    shut(attempts(
        &world,
        &program,
        &["tcp:169.254.169.254/80".to_owned(), "tcp:169.254.169.254/443".to_owned()],
    ));
    others_go_on(&world);
}

/// Ports on which a process listens.
fn listens(pid: u32) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").flatten();
    let sockets: Vec<String> = links
        .filter_map(|link| fs::read_link(link.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables =
        ["tcp", "tcp6"].map(|name| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default());
    let rows =
        tables.iter().flat_map(|table| table.lines()).map(|row| row.split_whitespace().collect::<Vec<_>>());
    // 0A is a listener.
    rows.filter(|row| {
        row.get(3) == Some(&"0A") && row.get(9).is_some_and(|inode| sockets.iter().any(|s| s == inode))
    })
    .map(|row| row[1].to_owned())
    .collect()
}

#[test]
fn a44_a_command_that_reaches_the_hubs_ports_has_no_token() {
    let world = hub().node("a").start();
    develop(&world, "a");
    let program = attempt(&world, "a");
    let http = world.hub().http.trim_start_matches("http://").replace(':', "/");
    let grpc = world.hub().grpc.replace(':', "/");
    let (ask_http, ask_grpc) = (format!("ask:{http}"), format!("ask:{grpc}"));
    assert_eq!(listens(world.hub().pid()).len(), 2, "this is how listeners are found");
    assert_eq!(listens(world.node_pid("a")), Vec::<String>::new(), "a node has no port of its own");
    for network in ["none", "443", "53,443"] {
        world.cortex(&["policy", "set", "a", "--network", network, "--yes"]).expect(0);
        let all = attempts(&world, &program, &[ask_http.clone(), ask_grpc.clone()]);
        assert!(all.iter().all(|(_, errno)| *errno == EACCES), "{network}: {all:?}");
    }
    world.cortex(&["policy", "set", "a", "--network", "all", "--yes"]).expect(0);
    let token = world.hub().token_file.clone();
    let ended = world
        .cortex(&["exec", "a", "--", &program, &ask_http, &ask_grpc, &format!("read:{token}")])
        .expect(0);
    let text = ended.text();
    assert!(text.contains("answer HTTP/1.1 401 "), "{text}");
    // The other port speaks TLS and to certificates of nodes.
    assert_eq!(text.matches("answer HTTP").count(), 1, "{text}");
    assert!(text.contains(&format!("{ask_http} 0")), "{text}");
    let key = text.lines().find(|line| line.starts_with("read:")).expect("a line");
    assert!(!key.ends_with(" 0"), "its token is not there to read: {key}");
    assert!(!audited(&world, "unauthenticated").is_empty(), "it is told");
    others_go_on(&world);
}
