//! A person in between: a command that asks, and what comes of each answer, over whole processes.

use std::io::BufReader;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Ended, World, hub};

/// The one who asks: a token of its own, in a file.
fn agent(world: &World) -> String {
    let file = world.path("agent.token").display().to_string();
    world.cortex(&["token", "create", "agent", "--role", "operator", "--out", &file]).expect(0);
    file
}

fn as_agent(world: &World, token_file: &str, arguments: &[&str]) -> Command {
    let mut command = world.command(arguments);
    command.env("CORTEX_TOKEN_FILE", token_file);
    command
}

fn ended(mut command: Command) -> Ended {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    Ended::of(child.expect("cortex starts"))
}

/// A command that waits for a person, and the id of its question.
struct Waiting {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    id: String,
}

impl Waiting {
    fn begin(world: &World, token_file: &str, argv: &[&str]) -> Self {
        let arguments = [&["exec", "a", "--json", "--ask", "to see it work", "--"], argv].concat();
        let mut command = as_agent(world, token_file, &arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("cortex starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let asked = line(&mut lines).expect("a first line");
        assert_eq!(asked["type"], "asked", "{asked}");
        Self { child, lines, id: asked["consent_id"].as_str().expect("an id").to_owned() }
    }

    /// The lines to the end, and the exit code.
    fn end(mut self) -> (Vec<Value>, Option<i32>) {
        let mut all = Vec::new();
        while let Some(line) = line(&mut self.lines) {
            all.push(line);
        }
        (all, self.child.wait().expect("it ends").code())
    }
}

fn line(lines: &mut impl std::io::BufRead) -> Option<Value> {
    let mut text = String::new();
    let read = lines.read_line(&mut text).expect("readable");
    (read > 0).then(|| serde_json::from_str(&text).expect("a line of JSON"))
}

fn printed(lines: &[Value]) -> String {
    lines.iter().filter_map(|line| line["data"].as_str()).collect()
}

#[test]
fn an_approved_command_prints_where_it_was_asked_and_a_denied_one_says_why() {
    let world = hub().node("a").start();
    let agent = agent(&world);

    let waiting = Waiting::begin(&world, &agent, &["echo", "hello"]);
    let list = world.cortex(&["consent", "ls", "--json"]).expect(0).value();
    assert_eq!(
        (&list[0]["id"], &list[0]["reason"]),
        (&Value::from(waiting.id.as_str()), &"to see it work".into())
    );
    let shown = world.cortex(&["consent", "show", &waiting.id]).expect(0).text();
    for part in ["token:agent", "echo hello", "to see it work", "asked"] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let own = ended(as_agent(&world, &agent, &["consent", "approve", &waiting.id]));
    own.expect(4);
    world.cortex(&["consent", "approve", &waiting.id]).expect(0);
    let id = waiting.id.clone();
    let (lines, code) = waiting.end();
    assert_eq!((printed(&lines).as_str(), code), ("hello\n", Some(0)), "{lines:?}");
    let run = lines.last().expect("a last line")["run_id"].as_str().expect("an id").to_owned();
    assert_eq!(world.run_view(&run)["consent"], Value::from(id.as_str()));
    world.cortex(&["consent", "approve", &id]).expect(8);

    let waiting = Waiting::begin(&world, &agent, &["echo", "again"]);
    world.cortex(&["consent", "deny", &waiting.id, "--note", "once is enough"]).expect(0);
    let (lines, code) = waiting.end();
    assert_eq!(code, Some(5), "{lines:?}");
    let error = &lines.last().expect("a last line")["error"];
    assert_eq!(error["code"], "consent_denied");
    assert!(error["message"].as_str().is_some_and(|message| message.contains("once is enough")), "{error}");
}

#[test]
fn a_program_that_the_policy_does_not_allow_runs_once_when_a_person_says_so() {
    let world = hub().node("a").start();
    let agent = agent(&world);
    let refused = ended(as_agent(&world, &agent, &["exec", "a", "--", "seq", "3"])).expect(5);
    assert!(refused.stderr.contains("cortex exec a --ask WHY -- seq 3"), "{}", refused.stderr);
    let waiting = Waiting::begin(&world, &agent, &["seq", "3"]);
    world.cortex(&["consent", "approve", &waiting.id]).expect(0);
    let (lines, code) = waiting.end();
    assert_eq!((printed(&lines).as_str(), code), ("1\n2\n3\n", Some(0)), "{lines:?}");
    ended(as_agent(&world, &agent, &["exec", "a", "--", "seq", "3"])).expect(5);
    world.cortex(&["policy", "deny", "a", "seq"]).expect(0);
    ended(as_agent(&world, &agent, &["exec", "a", "--ask", "please", "--", "seq", "3"])).expect(5);
}

#[test]
fn an_answer_for_a_time_or_for_a_pattern_is_not_asked_twice_and_ends_when_it_is_forgotten() {
    let world = hub().node("a").start();
    let agent = agent(&world);
    let waiting = Waiting::begin(&world, &agent, &["echo", "one"]);
    world.cortex(&["consent", "approve", &waiting.id, "--for", "1h"]).expect(0);
    assert_eq!(waiting.end().1, Some(0));
    let waiting = Waiting::begin(&world, &agent, &["printf", "%s", "two"]);
    world.cortex(&["consent", "approve", &waiting.id, "--pattern", "2"]).expect(0);
    assert_eq!(waiting.end().1, Some(0));

    let ask = |argv: &[&str]| {
        let arguments = [&["exec", "a", "--ask", "again", "--wait", "1s", "--"], argv].concat();
        ended(as_agent(&world, &agent, &arguments))
    };
    assert_eq!(ask(&["echo", "one"]).expect(0).text(), "one\n");
    assert_eq!(ask(&["printf", "%s", "three"]).expect(0).text(), "three");
    let began = Instant::now();
    let other = ask(&["echo", "four"]).expect(6);
    assert!(began.elapsed() >= Duration::from_secs(1), "it waited");
    assert!(
        other.stderr.contains("cortex consent approve") && other.stderr.contains("waits on"),
        "{}",
        other.stderr
    );

    let rules = world.cortex(&["consent", "rules", "--json"]).expect(0).value();
    let rules = rules.as_array().expect("a list");
    assert_eq!(rules.len(), 2);
    let pattern = rules.iter().find(|rule| rule["exact"] == false).expect("the pattern")["id"].clone();
    world.cortex(&["consent", "forget", pattern.as_str().expect("an id")]).expect(0);
    ask(&["printf", "%s", "five"]).expect(6);
}

#[test]
fn a_hub_that_is_killed_while_a_person_is_waited_for_loses_neither_the_question_nor_the_run() {
    let mut world = hub().node("a").start();
    let agent = agent(&world);
    let waiting = Waiting::begin(&world, &agent, &["echo", "survived"]);
    let ports = world.kill_hub();
    world.start_hub(&ports);
    world.node_reaches("a", "online", Duration::from_secs(20));
    world.cortex(&["consent", "approve", &waiting.id]).expect(0);
    let (lines, code) = waiting.end();
    assert_eq!((printed(&lines).as_str(), code), ("survived\n", Some(0)), "{lines:?}");
}
