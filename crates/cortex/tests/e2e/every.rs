//! Every command with `--json`, in its good and in its refused form, against a real hub: what a
//! script reads on standard output is JSON on every line, and the exit status is that of the table.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{Ended, World, hub};

/// They serve until they are ended, or write a script; their own tests run them.
const ELSEWHERE: &[&str] = &["up", "hub start", "join", "node start", "completions"];

struct Every {
    world: World,
    ran: BTreeSet<String>,
}

impl Every {
    /// Runs `LINE --json`; the words before the first flag or capital name the command.
    fn run(&mut self, line: &str, status: i32) -> Ended {
        let (ours, theirs) = line.split_once(" -- ").map_or((line, None), |(a, b)| (a, Some(b)));
        let mut arguments: Vec<&str> = ours.split(' ').chain(["--json"]).collect();
        arguments.extend(theirs.iter().flat_map(|argv| ["--"].into_iter().chain(argv.split(' '))));
        self.ran.insert(ours.to_owned());
        let ended = self.world.cortex(&arguments);
        assert_eq!(ended.code, Some(status), "{line}: {} {}", ended.text(), ended.stderr);
        let lines = ended.lines();
        assert!(!lines.is_empty() || line.starts_with("run ls"), "{line} prints nothing");
        assert!(!ended.text().contains('\x1b') && !ended.stderr.contains('\x1b'), "{line}: escape codes");
        let refused = lines.last().is_some_and(|last| last["error"].is_object());
        assert!(!refused || !lines[0]["error"]["hint"].as_str().unwrap_or_default().is_empty(), "{line}");
        ended
    }

    fn ok(&mut self, line: &str) -> Value {
        self.run(line, 0).lines().pop().unwrap_or_default()
    }

    /// A refusal is one object with a code.
    fn refused(&mut self, line: &str, status: i32, code: &str) {
        let lines = self.run(line, status).lines();
        let last = lines.last().unwrap_or_else(|| panic!("{line} says nothing"));
        assert_eq!(last["error"]["code"], code, "{line}: {last}");
    }
}

fn id(value: &Value) -> String {
    value["id"]
        .as_str()
        .or_else(|| value["run_id"].as_str())
        .unwrap_or_else(|| panic!("no id: {value}"))
        .to_owned()
}

#[test]
fn every_command_speaks_json_in_success_and_in_refusal() {
    let mut every = Every { world: hub().node("a").open_node("b").start(), ran: BTreeSet::new() };
    questions(&mut every);
    changes(&mut every);
    refusals(&mut every);
    let missing: Vec<String> = leaves(&every.world, &[])
        .into_iter()
        .filter(|leaf| !ELSEWHERE.contains(&leaf.as_str()))
        .filter(|leaf| !every.ran.iter().any(|ran| ran == leaf || ran.starts_with(&format!("{leaf} "))))
        .collect();
    assert!(missing.is_empty(), "no line of this test runs {missing:?}");
}

fn questions(every: &mut Every) {
    for line in ["run ls", "node ls", "policy ls", "token ls", "invite ls", "audit ls", "audit export"] {
        every.ok(line);
    }
    for line in [
        "status",
        "version",
        "audit verify",
        "node get a",
        "policy get a",
        "policy test a -- id",
        "audit get 1",
    ] {
        every.ok(line);
    }
    for line in ["config show", "config check", "config env"] {
        every.ok(line);
    }
}

fn changes(every: &mut Every) {
    let ended = every.ok("exec a -- echo one");
    assert_eq!((&ended["type"], &ended["code"]), (&"exit".into(), &0.into()));
    let run = id(&every.ok("exec b --detach -- sleep 300"));
    every.ok(&format!("run get {run}"));
    every.ok(&format!("run cancel {run} --grace 1s"));
    let again = id(&every.ok("exec a -- echo again"));
    every.ok(&format!("run logs {again}"));
    every.ok(&format!("run rerun {again}"));
    every.ok("policy allow a cargo --for 1h --yes");
    every.ok("policy deny a cargo");
    every.ok("policy set a dev --yes");
    every.ok("node label a role=ci");
    every.ok("node rename a c");
    every.ok("node rm c --yes");
    files(every);
    policies(every);
    workspaces(every);
    consents(every);
    people(every);
    locks(every);
    tasks(every);
    let token = id(&every.ok("token create reader --role viewer")["record"]);
    every.ok(&format!("token revoke {token}"));
    let invite = id(&every.ok("invite"));
    every.ok(&format!("invite revoke {invite}"));
}

fn policies(every: &mut Every) {
    every.ok("policy diff b strict");
    every.ok("policy history b");
    let before = every.ok("policy get b")["revision"].as_u64().expect("a revision");
    every.ok("policy set b dev --yes");
    every.ok(&format!("policy rollback b {before} --yes"));
    let document = every.world.cortex(&["policy", "profile", "get", "dev"]).expect(0).stdout;
    every.ok("policy profile get dev");
    let file = every.world.path("web.json");
    std::fs::write(&file, document).expect("a file");
    every.ok(&format!("policy profile put web --file {}", file.display()));
    every.ok("policy profile ls");
    every.ok("policy profile rm web");
}

/// On the open node, which has every folder.
fn files(every: &mut Every) {
    let folder = every.world.path("files");
    std::fs::create_dir(&folder).expect("a folder");
    let (source, folder) = (folder.join("source"), folder.display().to_string());
    std::fs::write(&source, "one\n").expect("a file");
    let source = source.display();
    every.ok(&format!("fs write b:{folder}/a {source}"));
    every.refused(&format!("fs write b:{folder}/a {source} --create"), 8, "conflict");
    every.ok(&format!("fs cat b:{folder}/a"));
    every.ok(&format!("fs edit b:{folder}/a --old one --new two"));
    every.refused(&format!("fs edit b:{folder}/a --old one --new two"), 1, "edit_not_found");
    every.ok(&format!("fs stat b:{folder}/a --hash"));
    every.ok(&format!("fs cp b:{folder}/a {folder}/b"));
    every.ok(&format!("fs mv b:{folder}/b {folder}/c"));
    every.ok(&format!("fs mkdir b:{folder}/d/e -p"));
    every.ok(&format!("fs find b:{folder} --type d"));
    every.ok(&format!("fs ls b:{folder} --depth 2 --stream"));
    assert_eq!(every.ok(&format!("fs ls b:{folder}/d/e")), serde_json::json!([]));
    every.ok(&format!("fs grep two b:{folder}"));
    every.refused(&format!("fs rm b:{folder}/d"), 8, "conflict");
    every.refused(&format!("fs rm b:{folder}/d -r"), 2, "invalid_argument");
    every.ok(&format!("fs rm b:{folder}/d -r --dry-run"));
    every.ok(&format!("fs rm b:{folder}/d -r --yes"));
    every.refused(&format!("fs cat b:{folder}/none"), 3, "not_found");
    every.refused(&format!("fs cat b,c:{folder}/a"), 2, "invalid_argument");
    every.ok(&format!("policy test b --file write:{folder}/a"));
    let pushed = every.ok(&format!("push {source} b:{folder}/pushed"));
    assert_eq!((&pushed["type"], &pushed["files"]), (&"done".into(), &1.into()));
    every.refused(&format!("push {source} b:relative"), 2, "invalid_argument");
    every.ok(&format!("pull b:{folder}/pushed {folder}/pulled"));
    every.refused(&format!("pull b:{folder}/none {folder}/pulled"), 3, "not_found");
    let transfer = id(&every.ok("transfer ls")[0]);
    every.ok(&format!("transfer show {transfer}"));
    every.refused("transfer cancel 0198a1c2-0000-7000-8000-000000000000", 3, "not_found");
    skills(every, &folder);
}

/// Of a folder on the open node.
fn skills(every: &mut Every, folder: &str) {
    assert_eq!(every.ok("skill ls"), serde_json::json!([]));
    every.refused(&format!("skill promote build --from b:{folder}"), 2, "invalid_argument");
    std::fs::write(format!("{folder}/SKILL.md"), "# build").expect("a file");
    let promoted = every.ok(&format!("skill promote build --from b:{folder} --expect 0"));
    assert_eq!((&promoted["revision"], &promoted["already"]), (&1.into(), &false.into()));
    every.refused("skill promote build", 2, "invalid_argument");
    every.refused(&format!("skill promote build --from b:{folder}/none"), 3, "not_found");
    every.refused("skill promote build --workspace none:skills", 3, "not_found");
    every.ok("skill show build");
    every.ok("skill show build --text");
    every.ok("skill show build --files");
    every.refused("skill show build --text none", 3, "not_found");
    every.ok(&format!("skill mount build b:{folder}/mounted"));
    every.refused(&format!("skill mount build b:{folder}/mounted/in"), 8, "conflict");
    every.refused("skill rm build --yes", 8, "conflict");
    every.ok(&format!("skill unmount build b:{folder}/mounted"));
    every.refused(&format!("skill unmount build b:{folder}/mounted"), 3, "not_found");
    every.refused("skill rm build", 2, "invalid_argument");
    every.ok("skill rm build --yes");
    every.refused("skill rm build --yes", 3, "not_found");
}

/// Of folders of the open node.
fn workspaces(every: &mut Every) {
    let [one, two] = ["ws-one", "ws-two"].map(|name| {
        let folder = every.world.path(name);
        std::fs::create_dir(&folder).expect("a folder");
        folder.display().to_string()
    });
    std::fs::write(format!("{one}/ملف"), "text\n").expect("a file");
    assert_eq!(every.ok("workspace ls"), serde_json::json!([]));
    every.refused("workspace create notes --lead b:relative", 2, "invalid_argument");
    every.refused("workspace create notes --lead nobody:/srv/x", 3, "node_not_found");
    every.ok(&format!("workspace create notes --from b:{one} --exclude *.o --wait --timeout 1m"));
    every.refused("workspace create notes", 8, "conflict");
    every.ok(&format!("workspace create site --from {one} --no-ignore-files --bytes-max 1M"));
    every.refused(&format!("workspace create site --from {one}"), 8, "conflict");
    every.refused(&format!("workspace create more --from {one} --bytes-max 1"), 1, "quota");
    every.refused(&format!("workspace create more --from {one}/none"), 2, "invalid_argument");
    every.refused(&format!("workspace create more --from {one}/ملف"), 2, "invalid_argument");
    every.ok("workspace rm site --yes");
    every.ok(&format!("workspace attach notes b:{two} --role follower"));
    every.refused(&format!("workspace attach notes b:{two}"), 8, "conflict");
    every.ok("workspace wait notes --timeout 1m");
    let status = every.ok("workspace status notes");
    assert_eq!((&status["name"], &status["members"][1]["state"]), (&"notes".into(), &"in_sync".into()));
    every.ok("workspace diff notes --stat");
    every.refused("workspace diff notes nobody", 3, "not_found");
    every.ok("workspace history notes");
    every.refused("workspace restore notes 99", 3, "not_found");
    every.ok("workspace restore notes 1");
    every.ok("workspace set notes --ignore-files no");
    every.refused("workspace set notes", 2, "invalid_argument");
    let lock = every.ok("workspace lock notes --ttl 1m")["lock"]["epoch"].as_u64().expect("a number");
    every.refused("workspace lock notes", 4, "locked");
    every.ok(&format!("workspace lock notes --extend {lock}"));
    every.refused("workspace rm notes --yes", 4, "locked");
    every.ok(&format!("workspace unlock notes {lock}"));
    every.refused("workspace unlock notes --break", 8, "conflict");
    every.ok("workspace resync notes");
    every.refused("workspace resync notes --accept x", 2, "invalid_argument");
    every.ok(&format!("workspace detach notes b:{two}"));
    every.ok("workspace rm notes --yes");
    every.refused("workspace status notes", 3, "not_found");
    every.refused("workspace wait notes", 3, "not_found");
}

/// Asked by another token, since nobody answers its own question.
fn consents(every: &mut Every) {
    let asker = every.world.path("asker.token").display().to_string();
    every.ok(&format!("token create asker --role operator --out {asker}"));
    let asks = format!("exec b --token-file {asker} --detach --ask why");
    let ask = |every: &mut Every, word: &str| {
        every.refused(&format!("{asks} -- echo {word}"), 6, "consent_required");
        id(&every.ok("consent ls")[0])
    };
    let (first, second, third) = (ask(every, "one"), ask(every, "two"), ask(every, "three"));
    every.ok(&format!("consent show {first}"));
    every.ok(&format!("consent approve {first} --pattern 1"));
    every.refused(&format!("consent approve {first}"), 8, "conflict");
    every.ok(&format!("consent deny {second} --note no"));
    every.refused(&format!("consent withdraw {third}"), 4, "forbidden");
    every.ok(&format!("consent withdraw {third} --token-file {asker}"));
    let rule = id(&every.ok("consent rules")[0]);
    every.ok(&format!("consent forget {rule}"));
    every.refused(&format!("consent forget {rule}"), 3, "not_found");
}

fn tasks(every: &mut Every) {
    let task = id(&every.ok("task add --label team=blue -- echo one"));
    every.ok("task add --wait -- echo two");
    every.ok("task ls --label team=blue");
    every.ok(&format!("task get {task}"));
    every.ok(&format!("task explain {task}"));
    every.ok("task stats");
    let waits = id(&every.ok("task add -l role=nobody -- true"));
    every.refused(&format!("task logs {waits}"), 3, "not_found");
    every.ok(&format!("task bump {waits} --priority 7"));
    every.ok(&format!("task cancel {waits}"));
    every.refused(&format!("task cancel {task}"), 8, "conflict");
    every.ok(&format!("task retry {waits}"));
    every.refused(&format!("task get {}", "0198a1c2-0000-7000-8000-000000000000"), 3, "not_found");
    every.refused("task add --priority 11 -- true", 2, "invalid_argument");
    every.refused("task add --concurrency many -- true", 2, "invalid_argument");
    let payload = id(&every.ok("task add --kind resize"));
    for (at, report) in ["release", "fail --final"].iter().enumerate() {
        every.ok("task claim --kind resize");
        let attempt = at + 1;
        every.ok(&format!("task extend {payload} {attempt}"));
        let (word, rest) = report.split_once(' ').unwrap_or((report, ""));
        every.ok(format!("task {word} {payload} {attempt} {rest}").trim_end());
    }
    let last = id(&every.ok("task add --kind resize"));
    every.ok("task claim --kind resize --max 2");
    every.ok(&format!("task finish {last} 1"));
    every.ok(&format!("task finish {last} 1"));
    every.refused(&format!("task fail {last} 1"), 8, "stale_attempt");
    every.ok("task schedule add yearly --cron @yearly -- true");
    for line in ["ls", "off yearly", "on yearly", "rm yearly"] {
        every.ok(&format!("task schedule {line}"));
    }
    for line in ["pause kind:resize", "pauses", "resume kind:resize", "drain kind:resize --within 1s"] {
        every.ok(&format!("task {line}"));
    }
}

fn people(every: &mut Every) {
    let (password, session) = (every.world.path("password"), every.world.path("session"));
    std::fs::write(&password, "four words are enough").expect("a file");
    let (password, session) = (password.display(), session.display());
    every.ok(&format!("user add ada --group build --password-file {password}"));
    every.ok("user ls");
    every.ok("user groups ada build night");
    let grant = id(&every.ok("user grant ada viewer"));
    every.ok("user grants");
    every.ok(&format!("user ungrant {grant}"));
    every.ok(&format!("user passwd ada --password-file {password}"));
    every.ok(&format!("login --user ada --password-file {password} --out {session}"));
    every.refused(
        &format!("login --user ada --password-file /dev/null --out {session}"),
        4,
        "unauthenticated",
    );
    every.ok("user rm ada --yes");
    every.run("logout", 2);
}

fn locks(every: &mut Every) {
    let lock = id(&every.ok("lock label:role=nothing --ttl 1h --message quiet"));
    every.ok("lock ls");
    every.ok(&format!("lock rm {lock}"));
    every.ok("node lock b --ttl 1h");
    every.refused("exec b -- echo locked", 4, "locked");
    every.ok("node unlock b");
    every.ok("node recoveries b --set 4");
}

fn refusals(every: &mut Every) {
    let nobody = "0198a1c2-0000-7000-8000-000000000000";
    every.refused("exec nobody -- true", 3, "node_not_found");
    every.run("exec b,nobody -- true", 1);
    every.refused("exec -l role=none -- true", 3, "node_not_found");
    every.refused("node get nobody", 3, "node_not_found");
    every.refused("policy get nobody", 3, "node_not_found");
    every.refused(&format!("run get {nobody}"), 3, "not_found");
    every.refused(&format!("run logs {nobody}"), 3, "not_found");
    every.refused(&format!("token revoke {nobody}"), 3, "not_found");
    every.refused("audit get 999999", 3, "not_found");
    every.refused("policy set b nonsense --yes", 2, "invalid_argument");
    every.refused("node rename b a/b", 2, "invalid_argument");
    every.refused("node frobnicate", 2, "invalid_argument");
    every.refused("node rm b", 2, "invalid_argument");
    every.world.cortex(&["policy", "set", "b", "strict", "--yes"]).expect(0);
    every.refused("exec b -- curl", 5, "policy_denied");
    every.run("policy test b -- curl", 5);
    every.world.stop_node("b");
    every.world.node_reaches("b", "offline", std::time::Duration::from_secs(20));
    every.refused("exec b -- true", 7, "node_offline");
}

/// The commands below one, by its help.
fn leaves(world: &World, path: &[&str]) -> Vec<String> {
    let help = world.cortex(&[path, &["--help"]].concat()).expect(0).text();
    let commands = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let names = commands.lines().take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    let below: Vec<String> =
        names.flat_map(|name| leaves(world, &[path, &[name.as_str()]].concat())).collect();
    if below.is_empty() { vec![path.join(" ")] } else { below }
}

#[test]
fn an_empty_list_is_brackets_for_scripts_and_the_next_command_for_people() {
    let world = hub().start();
    for (list, next) in [
        (["node", "ls"], "cortex invite"),
        (["run", "ls"], "cortex exec"),
        (["task", "ls"], "cortex task add"),
        (["workspace", "ls"], "cortex workspace create"),
        (["policy", "ls"], "cortex invite"),
        (["invite", "ls"], "cortex invite"),
    ] {
        assert_eq!(world.cortex(&[&list[..], &["--json"]].concat()).expect(0).text(), "[]\n", "{list:?}");
        let people = world.cortex(&list).expect(0);
        assert!(people.stdout.is_empty() && people.stderr.contains(next), "{list:?}: {}", people.stderr);
    }
}

#[test]
fn words_of_every_script_and_long_argument_lists_arrive_as_they_are() {
    let world = hub().node("a").start();
    for text in ["مرحبا بالعالم", "🦀 é\u{301}", "a\"b'c\\ $HOME `id`", "two\nlines"] {
        let ended = world.cortex(&["exec", "a", "--", "printf", "%s", text]).expect(0);
        assert_eq!(ended.text(), text);
    }
    let many: Vec<String> = (0..800).map(|n| format!("argument-{n}-{}", "x".repeat(40))).collect();
    let mut arguments = vec!["exec", "a", "--", "echo"];
    arguments.extend(many.iter().map(String::as_str));
    assert_eq!(world.cortex(&arguments).expect(0).text().trim_end(), many.join(" "));
    let longest = "y".repeat(120 * 1024);
    let ended = world.cortex(&["exec", "a", "--json", "--", "echo", &longest, &longest]);
    let last = ended.lines().pop().expect("an answer");
    assert!(ended.code == Some(0) || last["error"]["code"] == "too_large", "{:?}: {last}", ended.code);
}

#[test]
fn a_node_name_with_a_newline_is_refused_and_not_repeated_raw() {
    let world = hub().node("a").start();
    for arguments in [["node", "rename", "a", "b\nc"], ["node", "rename", "a", "b\u{1b}[31mc"]] {
        let ended = world.cortex(&arguments).expect(2);
        assert!(!ended.stderr.contains("b\nc") && !ended.stderr.contains('\x1b'), "{}", ended.stderr);
    }
    world.cortex(&["exec", "a\nb", "--", "true"]).expect(3);
}
