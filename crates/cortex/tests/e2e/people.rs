//! People: added, given roles, logged in, and gone again, as an administrator and a user would.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{Ended, World, hub};

/// A command as whoever has this token file.
fn as_of(world: &World, file: &std::path::Path, arguments: &[&str]) -> Ended {
    Ended::of(world.command(arguments).env("CORTEX_TOKEN_FILE", file).spawn().expect("start the command"))
}

#[test]
fn a_person_logs_in_runs_where_its_role_says_and_is_removed_with_all_that_it_had() {
    let world = hub().open_node("a").open_node("b").start();
    world.cortex(&["node", "label", "a", "role=ci"]).expect(0);
    let password = b"four words are enough\n".to_vec();
    let added = world.cortex_with_input(
        &["user", "add", "ada", "--group", "build", "--password-file", "-", "--json"],
        password.clone(),
    );
    assert_eq!(added.expect(0).value()["groups"], json!(["build"]));
    let granted = world.cortex(&["user", "grant", "@build", "operator", "-l", "role=ci", "--json"]);
    let grant = granted.expect(0).value()["id"].as_str().expect("an id").to_owned();

    let session = world.path("ada").join("session.token");
    let file = session.display().to_string();
    let login = ["login", "--user", "ada", "--password-file", "-", "--out", &file, "--json"];
    let wrong = world.cortex_with_input(&login, b"three words are not\n".to_vec()).expect(4);
    assert_eq!(wrong.refusal(), "unauthenticated");
    assert!(!session.exists(), "no session, no file");
    let begun = world.cortex_with_input(&login, password.clone()).expect(0);
    let secret = std::fs::read_to_string(&session).expect("the session");
    assert!(secret.starts_with("cxs_"));
    assert!(!(begun.text() + &begun.stderr).contains(&secret), "the secret is in the file alone");

    let seen = as_of(&world, &session, &["node", "ls", "--json"]).expect(0).value();
    assert_eq!(seen.as_array().map(Vec::len), Some(1), "{seen}");
    assert_eq!(as_of(&world, &session, &["exec", "a", "--", "echo", "here"]).expect(0).text(), "here\n");
    as_of(&world, &session, &["exec", "b", "--", "true"]).expect(3);
    as_of(&world, &session, &["policy", "set", "a", "strict", "--yes"]).expect(4);
    let users = world.cortex(&["user", "ls"]).expect(0).text();
    assert!(users.contains("ada") && users.contains("operator[role=ci]"), "{users}");

    world.cortex(&["user", "ungrant", &grant]).expect(0);
    as_of(&world, &session, &["node", "ls"]).expect(4);
    as_of(&world, &session, &["logout"]).expect(0);
    assert!(!session.exists());
    world.cortex_with_input(&login, password).expect(0);
    world.cortex(&["user", "rm", "ada", "--yes"]).expect(0);
    as_of(&world, &session, &["status"]).expect(4);

    let admin = std::fs::read_to_string(&world.hub().token_file).expect("the administrator's token");
    let over = world.cortex(&["login", "--user", "ada", "--password-file", "/dev/null", "--json"]).expect(8);
    assert_eq!(over.refusal(), "conflict", "an administrator's token is not overwritten");
    assert_eq!(std::fs::read_to_string(&world.hub().token_file).expect("it is there"), admin);
    for text in [world.logs(), world.cortex(&["audit", "export"]).expect(0).text()] {
        assert!(!text.contains(&secret) && !text.contains("four words"), "a secret is shown");
    }
}

#[test]
fn a_token_of_an_ai_client_is_made_with_its_bounds_and_shows_them() {
    let world = hub().open_node("a").open_node("b").start();
    let file = world.path("agent.token");
    let out = file.display().to_string();
    let make =
        ["token", "create", "agent", "--client", "--tool", "exec,run_get", "--node", "a", "--out", &out];
    world.cortex(&make).expect(0);
    assert_eq!(as_of(&world, &file, &["exec", "a", "--", "echo", "hi"]).expect(0).text(), "hi\n");
    as_of(&world, &file, &["exec", "b", "--", "true"]).expect(3);
    let policy = as_of(&world, &file, &["policy", "allow", "a", "sh", "--yes", "--json"]).expect(4);
    assert_eq!(policy.refusal(), "wrong_audience");
    let listed = world.cortex(&["token", "ls"]).expect(0).text();
    assert!(listed.contains("nodes a; tools exec,run_get"), "{listed}");
    world.cortex(&["token", "create", "x", "--client"]).expect(2);
    world.cortex(&["token", "create", "x", "--tool", "exec"]).expect(2);
    world.cortex(&["token", "create", "x", "--client", "--tool", "exec", "--role", "admin"]).expect(2);
}

#[test]
fn a_locked_person_has_its_runs_ended_within_a_second_and_is_told() {
    let world = hub().open_node("a").start();
    let password = b"four words are enough\n".to_vec();
    world.cortex_with_input(&["user", "add", "ada", "--password-file", "-"], password.clone()).expect(0);
    world.cortex(&["user", "grant", "ada", "operator"]).expect(0);
    let session = world.path("ada.session");
    let file = session.display().to_string();
    let login = ["login", "--user", "ada", "--password-file", "-", "--out", &file];
    world.cortex_with_input(&login, password.clone()).expect(0);
    let start = |file: Option<&std::path::Path>| {
        let arguments = ["exec", "a", "--detach", "--json", "--", "sleep", "300"];
        let ended = file.map_or_else(|| world.cortex(&arguments), |file| as_of(&world, file, &arguments));
        let run = ended.expect(0).value()["run_id"].as_str().expect("an id").to_owned();
        world.run_reaches(&run, "running", Duration::from_secs(10));
        run
    };
    let (hers, another) = (start(Some(&session)), start(None));
    world.cortex(&["lock", "user:ada", "--message", "on leave"]).expect(0);
    let begun = Instant::now();
    let view = world.run_reaches(&hers, "cancelled", Duration::from_secs(10));
    println!("a lock on a person ended its run in {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(view["cancelled_by"].as_str().is_some_and(|by| by.starts_with("lock:")), "{view}");
    assert_eq!(world.run_view(&another)["state"], "running", "those of others go on");
    let told = as_of(&world, &session, &["node", "ls", "--json"]).expect(4);
    assert_eq!(told.refusal(), "locked");
    assert!(told.text().contains("on leave"), "{}", told.text());
    // A new session is none either, and neither says whether the password was right.
    let again = world.cortex_with_input(&[&login[..], &["--json"]].concat(), password).expect(4);
    assert_eq!(again.refusal(), "locked");
    world.cortex(&["run", "cancel", &another]).expect(0);
}

#[test]
fn an_invite_gives_its_node_an_owner_and_a_bound_that_no_policy_exceeds() {
    let world = hub().start();
    world
        .cortex_with_input(
            &["user", "add", "ada", "--password-file", "-"],
            b"four words are enough\n".to_vec(),
        )
        .expect(0);
    world.cortex(&["invite", "--owner", "nobody-there"]).expect(3);
    world.cortex(&["invite", "--profile", "dev", "--max-profile", "ci"]).expect(2);
    let (_, file) = world.invite(&["--owner", "ada", "--profile", "ci", "--max-profile", "ci"]);
    let shown = world.cortex(&["invite", "ls", "--json"]).expect(0).value();
    assert_eq!((&shown[0]["max_profile"], shown[0]["owner"].is_string()), (&json!("ci"), true), "{shown}");
    world.join_only(&file, "build-1").expect(0);
    for beyond in [
        &["policy", "set", "build-1", "dev", "--yes", "--json"][..],
        &["policy", "set", "build-1", "permissive", "--yes", "--json"],
        &["policy", "allow", "build-1", "seq", "--for", "1h", "--yes", "--json"],
        &["policy", "allow", "build-1", "--port", "443", "--yes", "--json"],
    ] {
        let refused = world.cortex(beyond).expect(5).value();
        assert_eq!(refused["error"]["details"]["rule"], "invite.ceiling", "{beyond:?}: {refused}");
    }
    world.cortex(&["policy", "deny", "build-1", "cargo"]).expect(0);
    world.cortex(&["policy", "set", "build-1", "strict", "--yes"]).expect(0);
    let text = world.cortex(&["node", "get", "build-1"]).expect(0).text();
    assert!(text.lines().any(|line| line.starts_with("lock ") && line.trim_end().ends_with('-')), "{text}");
    world.cortex(&["node", "lock", "build-1", "--message", "a new disk"]).expect(0);
    let text = world.cortex(&["node", "get", "build-1"]).expect(0).text();
    assert!(text.contains("This node is locked by token:admin: a new disk ("), "{text}");
}
