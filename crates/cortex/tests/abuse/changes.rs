//! Rows 37 to 40 and 100: policies that are damaged, loosened, changed under a run, bounded by the
//! machine's owner, and what two administrators do at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    FakeNode, api, audited, block_on, code_of, develop, http, nodes, others_go_on, rule_of, set_document,
};
use crate::world::{Ended, World, hub};

const SOON: Duration = Duration::from_secs(20);

/// A policy file on a node's disk that does not hold, and what the node does then.
#[test]
fn a37_a_policy_on_the_nodes_disk_that_does_not_hold_allows_nothing() {
    let mut world = hub().node("a").node("b").start();
    fs::write(world.path("expected-warnings"), "the policy on disk does not hold\n").expect("listed");
    let file = world.path("node-a/policy");
    world.cortex(&["policy", "set", "b", "permissive", "--yes"]).expect(0);
    world.cortex(&["exec", "b", "--", "sh", "-c", "true"]).expect(0);
    let older = fs::read(&file).expect("a policy");
    world.cortex(&["policy", "allow", "a", "ls", "--yes"]).expect(0);
    world.cortex(&["exec", "a", "--", "ls", "/usr"]).expect(0);
    let whole = fs::read(&file).expect("a policy");
    assert_ne!(whole, older, "the node has kept the later one");
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8_lossy(&whole[1 + usize::from(whole[0])..]).into_owned();
        assert!(text.contains(from), "{text}");
        [&whole[..=usize::from(whole[0])], text.replacen(from, to, 1).as_bytes()].concat()
    };
    let node_b = fs::read(world.path("node-b/policy")).expect("a policy");
    let damaged: [(&str, Option<Vec<u8>>); 8] = [
        ("removed", None),
        ("empty", Some(Vec::new())),
        ("cut", Some(whole[..whole.len() - 1].to_vec())),
        ("no text", Some(vec![0xff; 4096])),
        ("an unknown version", Some(changed("\"version\":2", "\"version\":3"))),
        ("loosened", Some(changed("\"strict\"", "\"permissive\""))),
        ("another node's", Some(node_b)),
        ("an earlier one", Some(older)),
    ];
    for (what, bytes) in damaged {
        world.stop_node("a");
        match &bytes {
            Some(bytes) => fs::write(&file, bytes).expect("written"),
            None => fs::remove_file(&file).expect("removed"),
        }
        world.start_node("a");
        let refused = world.cortex(&["exec", "a", "--json", "--", "sh", "-c", "true"]).expect(5);
        assert_eq!(
            (code_of(&refused), rule_of(&refused)),
            ("policy_denied".into(), "exec.allow".into()),
            "{what}"
        );
        world.cortex(&["exec", "a", "--", "ls", "/usr"]).expect(0);
        assert_eq!(fs::read(&file).expect("a policy"), whole, "{what}: the hub's word is kept again");
    }
    // While there is no hub there is nobody to command, and the damage changes nothing.
    let said = world.logs().matches("the policy on disk does not hold").count();
    assert_eq!(said, 4, "cut, of an unknown version, loosened, another node's");
    others_go_on(&world);
}

/// Who holds a token that must not loosen a policy; its bearer line.
fn holders(world: &World) -> Vec<(&'static str, String)> {
    let token = |name: &str, arguments: &[&str]| {
        let file = world.path(name).display().to_string();
        world.cortex(&[&["token", "create", name, "--out", &file], arguments].concat()).expect(0);
        fs::read_to_string(file).expect("the token")
    };
    let password = b"four words are enough\n".to_vec();
    let session = world.path("session").display().to_string();
    world.cortex_with_input(&["user", "add", "ada", "--password-file", "-"], password.clone()).expect(0);
    world.cortex(&["user", "grant", "ada", "viewer"]).expect(0);
    world
        .cortex_with_input(&["login", "--user", "ada", "--password-file", "-", "--out", &session], password)
        .expect(0);
    let client = ["--role", "operator", "--client", "--tool", "exec,node_describe,run_get"];
    let holders = [
        ("client", token("client", &client)),
        ("operator", token("operator", &["--role", "operator"])),
        ("viewer", token("viewer", &["--role", "viewer"])),
        ("reader", token("reader", &["--role", "admin", "--rights", "policy:read,nodes:read,runs:start"])),
        ("session", fs::read_to_string(&session).expect("the session")),
    ];
    holders.map(|(name, secret)| (name, format!("authorization: Bearer {}", secret.trim()))).into()
}

#[test]
fn a38_nobody_but_an_administrator_loosens_a_policy_by_any_way() {
    let world = hub().node("a").start();
    world.cortex(&["policy", "allow", "a", "ls", "--yes"]).expect(0);
    let holders = holders(&world);
    let view = world.cortex(&["policy", "get", "a", "--json"]).expect(0).value();
    let mut document = view["document"].clone();
    document["mode"] = json!("permissive");
    let ways: [(&str, &str, Value); 11] = [
        ("PUT", "/api/v1/policies/a", json!({"profile": "permissive"})),
        ("PUT", "/api/v1/policies/a", json!({ "document": document })),
        ("PUT", "/api/v1/policies/a", json!({"network": "all"})),
        ("PUT", "/api/v1/policies/a", json!({"sandbox": "partial"})),
        ("POST", "/api/v1/policies/a/allow", json!({"program": "sh"})),
        ("POST", "/api/v1/policies/a/allow", json!({"port": 80})),
        (
            "POST",
            "/api/v1/policies/a/allow",
            json!({"root": {"path": "/srv", "access": "write", "exec": true}}),
        ),
        ("POST", "/api/v1/policies/a/rollback", json!({"revision": 1})),
        ("PUT", "/api/v1/profiles/own", json!({ "document": document })),
        ("POST", "/api/v1/invites", json!({"profile": "permissive"})),
        ("POST", "/api/v1/tokens", json!({"name": "more", "role": "admin"})),
    ];
    for (name, bearer) in &holders {
        for (method, path, body) in &ways {
            let headers = [bearer.as_str(), "content-type: application/json"];
            let answer = http(&world, method, path, &headers, body.to_string().as_bytes());
            let code = if *name == "client" { "wrong_audience" } else { "forbidden" };
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (403, code),
                "{name} {method} {path}: {}",
                answer.text
            );
        }
    }
    assert_eq!(world.cortex(&["policy", "get", "a", "--json"]).expect(0).value(), view, "nothing changed");
    // One who may is told in the audit log, with what changed.
    world.cortex(&["policy", "allow", "a", "cat", "--yes"]).expect(0);
    let rows = world.cortex(&["audit", "export"]).expect(0).lines();
    let row = rows.iter().rfind(|row| row["action"] == "policy.allow").expect("a row");
    assert!(row["detail"].as_str().is_some_and(|detail| detail.contains("cat")), "{row}");
    assert_eq!((&row["actor"], &row["outcome"]), (&json!("token:admin"), &json!("allowed")));
    others_go_on(&world);
}

/// Rows of the audit log about a node's policy or a run, oldest first.
fn rows(world: &World, of: impl Fn(&Value) -> bool) -> Vec<Value> {
    world.cortex(&["audit", "export"]).expect(0).lines().into_iter().filter(of).collect()
}

#[test]
fn a39_a_run_keeps_its_policy_until_a_tightening_is_to_end_it() {
    let world = hub().node("a").start();
    develop(&world, "a");
    let hash_of = |world: &World| {
        let changes =
            rows(world, |row| row["action"].as_str().is_some_and(|action| action.starts_with("policy.")));
        changes.last().expect("a change")["policy_hash"].as_str().expect("a hash").to_owned()
    };
    let hash = hash_of(&world);
    let beat = world.path("work/beat");
    let script = format!("while :; do date > {}; sleep 0.05; done", beat.display());
    let run = world.cortex(&["exec", "a", "--detach", "--json", "--", "sh", "-c", &script]).expect(0).value();
    let run = run["run_id"].as_str().expect("an id").to_owned();
    let beats = |world: &World| {
        fs::remove_file(&beat).ok();
        world.eventually("the run writes", SOON, |_| beat.exists().then_some(()));
    };
    beats(&world);
    // The program, the folder and the program that it starts are all taken from others, not from it.
    set_document(&world, "a", |document| document["roots"] = json!([]));
    world.cortex(&["policy", "deny", "a", "sh"]).expect(0);
    let refused = world.cortex(&["exec", "a", "--json", "--", "sh", "-c", "true"]).expect(5);
    assert_eq!(rule_of(&refused), "exec.deny");
    beats(&world);
    assert_eq!(world.run_view(&run)["state"], "running");
    let started = rows(&world, |row| row["run"] == json!(run) && row["action"] == "run.start");
    assert_eq!((started.len(), &started[0]["policy_hash"]), (1, &json!(hash)), "{started:?}");
    let later = hash_of(&world);
    assert_ne!(later, hash);
    let denied = audited(&world, "exec.deny");
    assert_eq!(denied.last().expect("a row")["policy_hash"], json!(later), "the refusal names the later one");

    world.cortex(&["policy", "deny", "a", "sleep", "--kill"]).expect(0);
    let ended = world.run_reaches(&run, "cancelled", SOON);
    assert!(ended["cancelled_by"].as_str().is_some_and(|by| by.starts_with("policy:")), "{ended}");
    fs::remove_file(&beat).ok();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!beat.exists(), "nothing of it is left");
    others_go_on(&world);
}

fn ceiling(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[test]
fn a40_the_owners_ceiling_holds_whatever_the_hub_says() {
    let mut world = hub().node("a").node("b").start();
    // Below level full a node adds that the walls of such a ceiling cannot be had.
    let expected = "the ceiling cannot be read\nno run of this policy can start\n";
    fs::write(world.path("expected-warnings"), expected).expect("listed");
    world.cortex(&["policy", "set", "b", "permissive", "--yes"]).expect(0);
    let file = world.path("node-b/ceiling.json");
    let under = |world: &mut World, text: &str, mode: u32| {
        world.stop_node("b");
        ceiling(&file, text, mode);
        world.start_node("b");
    };
    let denied = |world: &World, argv: &[&str], rule: &str| {
        let tested =
            world.cortex(&[&["policy", "test", "b", "--json", "--"], argv].concat()).expect(5).value();
        assert_eq!((&tested["rule"], &tested["by"]), (&json!(rule), &json!("local")), "{argv:?}");
        let ended = world.cortex(&[&["exec", "b", "--json", "--"], argv].concat()).expect(5);
        assert_eq!(
            (code_of(&ended), rule_of(&ended)),
            ("policy_denied".to_owned(), rule.to_owned()),
            "{argv:?}"
        );
    };
    under(&mut world, "{\"deny\":[\"id\"],\"timeout_ms_max\":60000}", 0o600);
    denied(&world, &["id"], "local.exec.deny");
    denied(&world, &["/usr/bin/id"], "local.exec.deny");
    world.cortex(&["exec", "b", "--", "sh", "-c", "true"]).expect(0);
    assert_eq!(
        rule_of(&world.cortex(&["exec", "b", "--json", "--timeout", "2m", "--", "true"]).expect(5)),
        "local.limits.timeout"
    );

    under(
        &mut world,
        "{\"programs\":[{\"name\":\"git\",\"args\":\"known\"},{\"name\":\"true\",\"args\":\"known\"}]}",
        0o600,
    );
    denied(&world, &["sh", "-c", "true"], "local.exec.allow");
    denied(&world, &["git", "-c", "core.pager=id", "log"], "local.exec.args git -c");
    world.cortex(&["exec", "b", "--", "true"]).expect(0);

    // Walls under PERMISSIVE, when the owner bounds files.
    under(&mut world, "{\"roots\":[],\"network\":\"none\"}", 0o600);
    let secret = world.path("secret");
    ceiling(&secret, "secret", 0o644);
    let ended = world.cortex(&["exec", "b", "--", "cat", &secret.display().to_string()]);
    assert!(ended.code != Some(0) && ended.stdout.is_empty(), "{ended:?}");

    under(&mut world, "{\"mode\":\"strict\"}", 0o600);
    denied(&world, &["true"], "local.mode");
    world.cortex(&["policy", "set", "b", "strict", "--yes"]).expect(0);
    world.cortex(&["exec", "b", "--", "true"]).expect(0);
    // One that others may write is not the owner's word; nor is one that says nothing known.
    for (text, mode) in
        [("{}", 0o622), ("{}", 0o660), ("{", 0o600), ("{\"denny\":[]}", 0o600), ("", 0o600), ("[]", 0o600)]
    {
        under(&mut world, text, mode);
        denied(&world, &["true"], "local.unreadable");
    }
    under(&mut world, "{}", 0o600);
    world.cortex(&["exec", "b", "--", "true"]).expect(0);
    others_go_on(&world);
}

/// There is no approval of nodes: what a second administrator can do for a node is to keep it, to
/// change it, and to give it more. Removed is removed, whoever came first.
#[test]
fn a100_a_node_that_one_removes_while_others_keep_it_is_gone() {
    let world = hub().node("a").start();
    let second = world.path("second").display().to_string();
    world.cortex(&["token", "create", "second", "--role", "admin", "--out", &second]).expect(0);
    let second = format!("authorization: Bearer {}", fs::read_to_string(second).expect("the token").trim());
    let ways: [(&str, &str, Value); 7] = [
        ("PATCH", "/api/v1/nodes/N", json!({"labels": {"kept": "yes"}})),
        ("PATCH", "/api/v1/nodes/N", json!({"name": "N-kept"})),
        ("PUT", "/api/v1/nodes/N/recoveries", json!({"left": 9})),
        ("PUT", "/api/v1/policies/N", json!({"profile": "permissive"})),
        ("POST", "/api/v1/policies/N/allow", json!({"program": "sh"})),
        ("POST", "/api/v1/locks", json!({"target": "node:N"})),
        ("POST", "/api/v1/runs", json!({"nodes": ["N"], "argv": ["true"]})),
    ];
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut before = 0;
    for round in 0..12 {
        let name = format!("n{round}");
        let (_link, id) = {
            let link = runtime
                .block_on(async { FakeNode::join(&world, &name, "strict").await.attach(&world).await });
            (link, world.cortex(&["node", "get", &name, "--json"]).expect(0).value()["id"].clone())
        };
        let of = |text: &str| text.replace('N', &name);
        let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
            let others: Vec<_> = ways
                .iter()
                .map(|(method, path, body)| {
                    let headers = [second.as_str(), "content-type: application/json"];
                    let body = of(&body.to_string());
                    let path = of(path);
                    let world = &world;
                    scope.spawn(move || {
                        let answer = http(world, method, &path, &headers, body.as_bytes());
                        (answer.status, answer.code())
                    })
                })
                .collect();
            // By its id: whoever renames it does not save it.
            let path = format!("/api/v1/nodes/{}", id.as_str().expect("an id"));
            let removed = api(&world, "DELETE", &path, &Value::Null);
            assert!(removed.status == 204 || removed.status == 200, "{}", removed.text);
            others.into_iter().map(|other| other.join().expect("an answer")).collect()
        });
        for (status, code) in &answers {
            let fine = *status < 300
                || *status == 404
                || code == "node_offline"
                || code == "conflict"
                || code == "locked"
                || code == "node_revoked";
            assert!(fine, "{answers:?}");
        }
        before += answers.iter().filter(|(status, _)| *status < 300).count();
        assert_eq!(nodes(&world), ["a"], "{answers:?}");
        for path in [of("/api/v1/nodes/N"), of("/api/v1/policies/N"), of("/api/v1/nodes/N-kept")] {
            assert_eq!(api(&world, "GET", &path, &Value::Null).code(), "node_not_found", "{path}");
        }
        // What a run of it comes to is the hub's to tell, and comes later.
        let by_people = |row: &Value| row["actor"].as_str().is_some_and(|actor| actor.starts_with("token:"));
        let of_node = rows(&world, |row| row["node"] == id && row["outcome"] == "allowed" && by_people(row));
        let removals = of_node.iter().filter(|row| row["action"] == "node.remove").count();
        let last = of_node.last().expect("rows");
        assert_eq!(
            (removals, &last["action"]),
            (1, &json!("node.remove")),
            "nothing was done to it after: {last}"
        );
    }
    assert!(before > 0, "some came before the removal");
    // Two who remove the same one: one does, and the other hears that there is none.
    block_on(FakeNode::join(&world, "twice", "strict"));
    let mut both: Vec<u16> = std::thread::scope(|scope| {
        let each =
            [0, 1].map(|_| scope.spawn(|| api(&world, "DELETE", "/api/v1/nodes/twice", &Value::Null).status));
        each.into_iter().map(|one| one.join().expect("an answer")).collect()
    });
    both.sort_unstable();
    assert_eq!(both[1], 404, "{both:?}");
    others_go_on(&world);
}

/// Rows that somebody took out, changed, moved or cut off an export.
#[test]
fn a99_an_export_that_was_changed_does_not_verify() {
    let world = hub().node("a").start();
    for _ in 0..3 {
        world.cortex(&["exec", "a", "--", "true"]).expect(0);
    }
    let whole = world.cortex(&["audit", "verify", "--json"]).expect(0).value();
    assert_eq!(whole["ok"], true, "{whole}");
    let text = world.cortex(&["audit", "export"]).expect(0).text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() >= 6, "{text}");
    let rows: u64 =
        serde_json::from_str::<Value>(lines[lines.len() - 1]).expect("JSON")["seq"].as_u64().expect("it");
    let head = format!(
        "{rows}:{}",
        serde_json::from_str::<Value>(lines[lines.len() - 1]).expect("JSON")["hash"].as_str().expect("it")
    );
    let file = world.path("export.ndjson");
    let verify = |lines: &[String], head: &str| -> Ended {
        fs::write(&file, lines.join("\n") + "\n").expect("written");
        world.cortex(&["audit", "verify", "--json", "--file", &file.display().to_string(), "--head", head])
    };
    let own: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    verify(&own, &head).expect(0);
    let mut without = own.clone();
    without.remove(2);
    let mut moved = own.clone();
    moved.swap(2, 3);
    let mut changed = own.clone();
    changed[4] = changed[4]
        .replace("\"a\"", "\"b\"")
        .replace("allowed", "denied")
        .replace("token:admin", "token:nobody");
    assert_ne!(changed, own);
    let mut twice = own.clone();
    twice.insert(3, own[3].clone());
    let cut = own[..own.len() - 1].to_vec();
    let begun_late = own[1..].to_vec();
    for (what, lines) in [
        ("without", without),
        ("moved", moved),
        ("changed", changed),
        ("twice", twice),
        ("cut", cut),
        ("begun late", begun_late),
    ] {
        let ended = verify(&lines, &head);
        assert_eq!(ended.code, Some(1), "{what}: {} {}", ended.text(), ended.stderr);
        assert!(
            ended.text().contains("audit_broken") || ended.text().contains("\"ok\":false"),
            "{what}: {}",
            ended.text()
        );
    }
    // A file that is none.
    let mut nothing = world.command(&["audit", "verify", "--file", "-"]);
    nothing.stdin(Stdio::null());
    let ended = Ended::of(nothing.spawn().expect("start"));
    assert_ne!(ended.code, Some(101), "{}", ended.stderr);
}
