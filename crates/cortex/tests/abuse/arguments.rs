//! Row 32: programs that are allowed, with an argument by which they would start other code.

use serde_json::{Value, json};

use crate::support::{audited, code_of, others_go_on, rule_of, set_document};
use crate::world::hub;

/// Programs of the row and their neighbours; each is allowed, held to the built-in table.
const PROGRAMS: &[&str] = &[
    "awk",
    "bash",
    "env",
    "find",
    "gcc-12",
    "git",
    "less",
    "python3",
    "python3.11",
    "rsync",
    "ssh",
    "tar",
    "timeout",
    "unshare",
    "vi",
    "xargs",
];

/// A command, and the rule that denies it. `@` stands for the canary file.
const DENIED: &[(&[&str], &str)] = &[
    (&["git", "-c", "core.sshCommand=touch @", "fetch"], "exec.args git -c"),
    (&["git", "-C", "/tmp", "-c", "core.sshCommand=touch @", "fetch"], "exec.args git -c"),
    (&["git", "--no-pager", "-c", "alias.x=!touch @", "x"], "exec.args git -c"),
    (&["git", "clone", "-qc", "core.sshCommand=touch @", "h:x"], "exec.args git -c"),
    (&["git", "clone", "--conf=core.sshCommand=touch @", "h:x"], "exec.args git --config-env"),
    (&["git", "--config-env=core.sshCommand=X", "fetch"], "exec.args git --config-env"),
    (&["git", "--exec-path=@", "status"], "exec.args git --exec-path"),
    (&["git", "--exec-p", "@", "status"], "exec.args git --exec-path"),
    (&["git", "fetch", "--upload-pa=touch @", "."], "exec.args git --upload-pack"),
    (&["git", "fetch", "--", "--upload-pack=touch @"], "exec.args git --upload-pack"),
    (&["git", "ls-remote", "ext::sh -c touch% @"], "exec.args git ext::*"),
    (&["git", "rebase", "-ix", "touch @", "x"], "exec.args git -x"),
    (&["find", "/usr", "-exec", "touch", "@", ";"], "exec.args find -exec"),
    (&["find", "/usr", "-execdir", "touch", "@", "+"], "exec.args find -execdir"),
    (&["find", "/usr", "-ok", "touch", "@", ";"], "exec.args find -ok"),
    (&["find", "/usr", "-name", "x", "-o", "-okdir", "touch", "@", ";"], "exec.args find -okdir"),
    (&["find", "--", "/usr", "-exec", "touch", "@", ";"], "exec.args find -exec"),
    (&["find", "/usr", "-fprintf", "@", "x"], "exec.args find -fprintf"),
    (&["tar", "-xf", "x", "--to-command=touch @"], "exec.args tar --to-command"),
    (&["tar", "-xf", "x", "--to-c", "touch @"], "exec.args tar --to-command"),
    (&["tar", "-xf", "x", "--", "--to-command=touch @"], "exec.args tar --to-command"),
    (&["tar", "-cvItouch", "-f", "x", "y"], "exec.args tar -I"),
    (&["tar", "cIf", "touch @", "x", "y"], "exec.args tar -I"),
    (
        &["tar", "-cf", "x", "--checkpoint=1", "--checkpoint-act=exec=touch @"],
        "exec.args tar --checkpoint-action",
    ),
    (&["rsync", "-e", "touch @", "h:x", "."], "exec.args rsync -e"),
    (&["rsync", "-avze", "touch @", "h:x", "."], "exec.args rsync -e"),
    (&["rsync", "-etouch @", "h:x", "."], "exec.args rsync -e"),
    (&["rsync", "--rsh=touch @", "h:x", "."], "exec.args rsync --rsh"),
    (&["rsync", "--rs", "touch @", "h:x", "."], "exec.args rsync --rsh"),
    (&["rsync", "h:x", ".", "--", "--rsh=touch @"], "exec.args rsync --rsh"),
    (&["env", "X=1", "touch", "@"], "exec.args env *"),
    (&["env", "-S", "touch @"], "exec.args env *"),
    (&["env", "--", "touch", "@"], "exec.args env *"),
    (&["xargs", "touch"], "exec.args xargs *"),
    (&["xargs", "-I{}", "touch", "@"], "exec.args xargs *"),
    (&["timeout", "5", "touch", "@"], "exec.args timeout *"),
    (&["python3", "-c", "open('@', 'w')"], "exec.args python3 -c"),
    (&["python3", "-Bc", "open('@', 'w')"], "exec.args python3 -c"),
    (&["python3.11", "-c", "open('@', 'w')"], "exec.args python3.11 -c"),
    (&["python3", "-m", "timeit", "open('@', 'w')"], "exec.args python3 -m"),
    (&["python3", "-", "x"], "exec.args python3 -"),
    (&["python3", "/dev/stdin"], "exec.args python3 /dev/*"),
    (&["python3"], "exec.args python3 standard input"),
    (&["bash", "-xec", "touch @"], "exec.args bash -c"),
    (&["awk", "BEGIN{system(\"touch @\")}"], "exec.args awk *"),
    (&["awk", "--", "BEGIN{system(\"touch @\")}"], "exec.args awk *"),
    (&["awk", "-f", "/dev/stdin"], "exec.args awk *"),
    (&["vi", "-c", "!touch @"], "exec.args vi *"),
    (&["vi", "-esc", "!touch @"], "exec.args vi *"),
    (&["vi", "+!touch @"], "exec.args vi *"),
    (&["vi"], "exec.args vi standard input"),
    (&["unshare"], "exec.args unshare standard input"),
    (&["less", "+!touch @", "/etc/hosts"], "exec.args less +*"),
    (&["ssh", "-oProxyCommand=touch @", "h"], "exec.args ssh -o"),
    (&["ssh", "-o", "ProxyCommand=touch @", "h"], "exec.args ssh -o"),
    (&["ssh", "-4vo", "ProxyCommand=touch @", "h"], "exec.args ssh -o"),
    (&["ssh", "h", "-oProxyCommand=touch @"], "exec.args ssh -o"),
    (&["ssh", "--", "-oProxyCommand=touch @"], "exec.args ssh -o"),
    (&["ssh", "-F", "@", "h"], "exec.args ssh -F"),
    (&["gcc-12", "-wrapper", "touch,@", "x.c"], "exec.args gcc-12 -wrapper"),
];

#[test]
fn a32_an_argument_that_runs_code_is_denied_in_every_spelling() {
    let world = hub().node("a").start();
    let canary = world.path("canary").display().to_string();
    world.cortex(&["policy", "set", "a", "dev", "--yes"]).expect(0);
    let commands: Vec<(Vec<String>, &str)> = DENIED
        .iter()
        .map(|(argv, rule)| (argv.iter().map(|word| word.replace('@', &canary)).collect(), *rule))
        .collect();
    let denied = |command: &[String], rule: &str| {
        let argv: Vec<&str> = command.iter().map(String::as_str).collect();
        let tested = world.cortex(&[&["policy", "test", "a", "--json", "--"], &argv[..]].concat()).expect(5);
        assert_eq!(tested.value()["rule"], rule, "{argv:?}");
        let ended = world.cortex(&[&["exec", "a", "--json", "--"], &argv[..]].concat()).expect(5);
        assert_eq!((code_of(&ended).as_str(), rule_of(&ended).as_str()), ("policy_denied", rule), "{argv:?}");
    };
    let unlisted = ["awk", "bash", "env", "find", "python3", "rsync", "ssh", "tar", "vi", "xargs"];
    for (argv, _) in commands.iter().filter(|(argv, _)| unlisted.contains(&argv[0].as_str())) {
        denied(argv, "exec.allow");
    }
    set_document(&world, "a", |document| {
        let programs = document["programs"].as_array_mut().expect("a list");
        programs.retain(|program| !PROGRAMS.iter().any(|name| program["name"] == *name));
        programs.extend(PROGRAMS.iter().map(|name| json!({"name": name, "args": "known"})));
        programs.sort_by_key(|program| program["name"].as_str().unwrap_or_default().to_owned());
    });
    for (argv, rule) in &commands {
        denied(argv, rule);
        assert_eq!(audited(&world, rule).last().map(|row| row["argv"].clone()), Some(json!(argv)), "{rule}");
    }
    // What they would read is no other way in.
    for program in ["vi", "unshare", "python3", "bash"] {
        let typed = format!(":!touch {canary}\ntouch {canary}\n").into_bytes();
        let ended = world.cortex_with_input(&["exec", "a", "-i", "--json", "--", program], typed).expect(5);
        assert_eq!(rule_of(&ended), format!("exec.args {program} standard input"));
    }
    // Nor is a person asked for them.
    for argv in [&["vi", "-c", "!id"][..], &["git", "-c", "core.pager=id", "log"], &["python3", "-c", "1"]] {
        let asked = [&["exec", "a", "--json", "--ask", "please", "--"], argv].concat();
        assert_eq!(code_of(&world.cortex(&asked).expect(5)), "policy_denied", "{argv:?}");
    }
    assert!(!world.path("canary").exists(), "code was run");
    assert_eq!(world.cortex(&["run", "ls", "--json"]).expect(0).value(), json!([]), "nothing was begun");
    // The programs themselves are allowed.
    for argv in
        [&["git", "--version"][..], &["find", "/usr", "-maxdepth", "0"], &["env"], &["tar", "--version"]]
    {
        let tested: Value =
            world.cortex(&[&["policy", "test", "a", "--json", "--"], argv].concat()).expect(0).value();
        assert_eq!(tested["rule"], "exec.allow", "{argv:?}");
    }
    others_go_on(&world);
}
