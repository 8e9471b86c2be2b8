//! No secret in any output: tokens and invites are looked for in every log and argument list.

use crate::world::hub;

#[test]
fn tokens_and_invites_are_in_no_log_no_argument_and_no_audit_row() {
    let world = hub().node("a").start();
    let admin = std::fs::read_to_string(&world.hub().token_file).expect("the admin token");
    let made = world.cortex(&["token", "create", "canary", "--json"]).expect(0).value();
    let (invite, _) = world.invite(&["--label", "role=ci"]);
    let invite = invite["invite"].as_str().expect("an invite");
    let secrets = [
        admin.trim().to_owned(),
        made["token"].as_str().expect("a token").to_owned(),
        invite.rsplit('.').next().expect("its last part").to_owned(),
    ];
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
    world.cortex(&["exec", "a", "--", "curl"]).expect(5);
    let of = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).expect("its arguments");
    let arguments = [of(world.hub().pid()), of(world.node_pid("a"))].concat();
    let outputs = [
        ("the logs", world.logs()),
        ("the arguments of hub and node", String::from_utf8_lossy(&arguments).into_owned()),
        ("the audit log", world.cortex(&["audit", "export"]).expect(0).text()),
        ("the list of tokens", world.cortex(&["token", "ls", "--json"]).expect(0).text()),
        ("the list of invites", world.cortex(&["invite", "ls", "--json"]).expect(0).text()),
        ("the nodes", world.cortex(&["node", "ls", "--json"]).expect(0).text()),
    ];
    for secret in &secrets {
        assert!(secret.len() >= 32, "a secret that can be guessed");
        for (what, text) in &outputs {
            assert!(!text.contains(secret.as_str()), "a secret is in {what}");
        }
    }
}

#[test]
fn the_stores_files_hold_no_secret_and_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = hub().node("a").start();
    let made = world.cortex(&["token", "create", "canary", "--json"]).expect(0).value();
    let (invite, _) = world.invite(&[]);
    let secret = made["token"].as_str().expect("a token");
    let invite = invite["invite"].as_str().and_then(|text| text.rsplit('.').next()).expect("its last part");
    let token_mode = std::fs::metadata(&world.hub().token_file).expect("the token").permissions().mode();
    assert_eq!(token_mode & 0o777, 0o600);
    for entry in std::fs::read_dir(world.path("hub")).expect("the data directory").flatten() {
        if entry.path().is_file() && entry.file_name() != "admin.token" {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!holds(secret) && !holds(invite), "{} holds a secret", entry.path().display());
        }
    }
}
