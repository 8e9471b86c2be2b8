//! `cortex exec`: a command on one or many nodes, with its output and exit code here.

pub(super) mod input;
mod patience;

use cortex_core::{Code, Refusal};
use cortex_wire::http::{RunEvent, RunRequest, RunsAccepted};
use http::Method;
use tokio::time::{Duration, Instant, sleep};

use self::patience::Patience;
use super::interrupt::Interrupt;
use super::watch::{Outcome, Show, TRANSPORT, Watch, follow_all, transport_or};
use super::{Context, args, ask};
use crate::client::{Call, Client, Lines, NDJSON, was_sent};
use crate::error::{Failure, Result};

/// Wait before the command is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// Run a command on nodes; output and exit code are the remote ones.
///
/// With one node the exit code is that of the remote program (128 + N when signal N ended it).
/// With several it is 0 when all ended with 0, and 1 otherwise. 5 is denied by policy
/// or by a person, 6 a person who has not answered, 7 node offline, 124 timeout, 255 a lost run or a hub that cannot be reached.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex exec build-2 -- cargo test\n  cortex exec -l role=ci --parallel 4 --timeout 10m -- git fetch\n  tar c src | cortex exec build-2 -i -- tar xv\n  cortex exec build-2 --ask \"run the tests\" -- cargo test"
)]
pub(crate) struct Exec {
    /// Names or ids of nodes, with commas between them.
    #[arg(value_name = "NODE[,NODE]", required_unless_present = "selector", conflicts_with = "selector")]
    nodes: Option<String>,
    /// All online nodes with these labels, such as role=ci,os=linux.
    #[arg(short = 'l', long, value_name = "SEL", value_parser = args::selector)]
    selector: Option<String>,
    /// End the run after that time, such as 90s, 10m or 1h.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    timeout: Option<u64>,
    /// Print the run's id and leave it running.
    #[arg(long)]
    detach: bool,
    /// How many nodes run it at once; all when missing.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    parallel: Option<u32>,
    /// Working directory on the node, an absolute path.
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// Set a variable for the command; may be repeated.
    #[arg(long = "env", value_name = "K=V", value_parser = args::variable)]
    env: Vec<(String, String)>,
    /// Send standard input to the command (one node only).
    #[arg(short = 'i', long = "stdin", conflicts_with_all = ["detach", "selector"])]
    stdin: bool,
    /// Ask a person first, and say what the command is for. Waits for the answer.
    #[arg(long, value_name = "WHY")]
    ask: Option<String>,
    /// Wait at most so long for a person's answer; the question waits on.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms, conflicts_with = "detach")]
    wait: Option<u64>,
    /// The program and its arguments, after `--`. No shell sees them.
    #[arg(last = true, required = true, value_name = "ARGV")]
    argv: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client().map_err(as_transport)?;
        let nodes = self.nodes.as_deref().map(args::nodes).transpose()?.unwrap_or_default();
        if self.stdin && nodes.len() != 1 {
            return Err(Failure::usage(
                "Standard input can go to one node only.",
                "Name one node with `-i`.",
            ));
        }
        let several = nodes.len() != 1;
        let node = nodes.first().cloned().unwrap_or_default();
        let ways = Ways { node, argv: self.argv.clone(), cwd: self.cwd.clone(), several };
        let request = self.request(nodes);
        let result = if self.detach {
            detached(&mut client, context, &request).await
        } else {
            attached(&mut client, context, &request, several, Patience::new(self.wait)).await
        };
        match result {
            Ok(()) => Ok(()),
            Err(failure) => {
                Err(ways.add(ask::with_nearest(as_transport(failure), &client, &ways.node).await))
            }
        }
    }

    fn request(&self, nodes: Vec<String>) -> RunRequest {
        RunRequest {
            nodes,
            selector: self.selector.clone(),
            argv: self.argv.clone(),
            cwd: self.cwd.clone(),
            env: self.env.iter().cloned().collect(),
            timeout_ms: self.timeout,
            stdin: self.stdin,
            parallel: self.parallel.and_then(|n| usize::try_from(n).ok()),
            ask: self.ask.clone(),
        }
    }
}

/// What a refusal of a command can be answered with.
struct Ways {
    node: String,
    argv: Vec<String>,
    cwd: Option<String>,
    several: bool,
}

impl Ways {
    /// Only ways that lift the rule: leave for a program lifts no denial, and no person does.
    fn add(&self, failure: Failure) -> Failure {
        if failure.code() != Some(Code::PolicyDenied) || self.several {
            return failure;
        }
        let rule = failure.detail("rule").unwrap_or_default().to_owned();
        let rule = rule.split(' ').next().unwrap_or_default();
        let program = self.argv.first().map(String::as_str).unwrap_or_default();
        let (node, shown) = (&self.node, args::show_argv(&[program.to_owned()]));
        match (rule, &self.cwd) {
            ("exec.allow", _) => failure
                .way("allow it", format!("cortex policy allow {node} {shown} --for 1h"))
                .way(
                    "a profile",
                    format!("cortex policy set {node} dev          (shows the difference first)"),
                )
                .way(
                    "ask a person",
                    format!("cortex exec {node} --ask WHY -- {}", args::whole_argv(&self.argv)),
                ),
            ("exec.args", _) => failure
                .way("allow it", format!("cortex policy allow {node} {shown} --any-arguments --for 1h")),
            ("roots.cwd", Some(cwd)) => {
                let root = args::show_argv(&[format!("{cwd}:rw")]);
                failure.way("allow it", format!("cortex policy allow {node} --root {root}"))
            }
            _ => failure,
        }
    }
}

/// For `exec` a hub that cannot be reached is the transport: 255.
fn as_transport(failure: Failure) -> Failure {
    match failure.code() {
        Some(code) if transport_or(code) == TRANSPORT => failure.with_exit(TRANSPORT),
        Some(_) | None => failure,
    }
}

/// A key by which the hub knows a repeated request.
pub(super) fn idempotency_key() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Refusal::new(Code::Internal, format!("No random numbers: {error}.")))?;
    Ok(uuid::Builder::from_random_bytes(random).into_uuid().to_string())
}

fn call(request: &RunRequest, key: &str) -> Result<Call> {
    Ok(Call::json(request)?.header("idempotency-key", key))
}

async fn detached(client: &mut Client, context: &Context, request: &RunRequest) -> Result {
    let accepted: RunsAccepted =
        client.call(Method::POST, "/runs", call(request, &idempotency_key()?)?).await?;
    let output = context.output;
    for run in &accepted.runs {
        if output.json {
            output.json(&RunEvent::Accepted { run_id: run.id.clone(), node: run.node.clone() })?;
        } else {
            output.line(&run.id)?;
            output.say(&format!("{} runs it. Look: cortex run logs -f {}", run.node, run.id));
        }
    }
    let single = accepted.runs.is_empty() && accepted.refused.len() == 1;
    if let Some(refused) = accepted.refused.first().filter(|_| single) {
        return Err(refused.error.clone().into());
    }
    for refused in &accepted.refused {
        if output.json {
            let (node, error) = (refused.node.clone(), refused.error.clone());
            output.json(&RunEvent::Refused { node, error })?;
        } else {
            output.say(&format!("{}: {} {}", refused.node, refused.error.message, refused.error.hint));
        }
    }
    if accepted.refused.is_empty() { Ok(()) } else { Err(Failure::Exit(1)) }
}

async fn attached(
    client: &mut Client,
    context: &Context,
    request: &RunRequest,
    several: bool,
    patience: Patience,
) -> Result {
    let mut interrupt = Interrupt::new()?;
    let mut watch = Watch::new(Show::new(context.output, several, None), !several);
    let key = idempotency_key()?;
    let lines = tokio::select! {
        lines = ask_for_lines(client, context, request, &key, false) => lines?,
        status = interrupt.wait() => {
            context.output.say("Left before the hub had answered; look with `cortex run ls`.");
            return Err(Failure::Exit(status));
        }
    };
    let stdin = request.stdin.then(std::io::stdin);
    let command = Command { context, request, key: &key };
    let left = tokio::select! {
        ended = to_the_end(client, &command, lines, &mut watch, stdin, patience) => ended.map(|()| None)?,
        status = interrupt.wait() => Some(status),
    };
    if let Some(status) = left {
        detach(context, &watch);
        return Err(Failure::Exit(status));
    }
    unheard(&mut watch, &request.nodes);
    conclude(context, &watch, several)
}

/// Sends the command. When the answer is lost on the way, it is sent again: by its key the hub
/// knows it as the same one.
async fn ask_for_lines(
    client: &mut Client,
    context: &Context,
    request: &RunRequest,
    key: &str,
    mut sent: bool,
) -> Result<Lines> {
    let until = Instant::now() + client.target().reconnect_max;
    loop {
        let call = call(request, key)?.accept(NDJSON);
        let failure = match client.lines(Method::POST, "/runs", call).await {
            Ok(lines) => return Ok(lines),
            Err(failure) => failure,
        };
        if !sent && was_sent(&failure) {
            context.output.say("The connection to the hub broke before its answer. Asking again …");
            sent = true;
        }
        if !sent || !failure.is_transport() || Instant::now() > until {
            return Err(failure);
        }
        sleep(AGAIN).await;
    }
}

/// What was asked for, so that it can be asked for once more.
struct Command<'a> {
    context: &'a Context,
    request: &'a RunRequest,
    key: &'a str,
}

/// Reads the stream; when it breaks, goes on with each run's kept output. While a person is waited for
/// the command is sent again instead: by its key the hub knows the question.
async fn to_the_end(
    client: &mut Client,
    command: &Command<'_>,
    mut lines: Lines,
    watch: &mut Watch,
    mut stdin: Option<std::io::Stdin>,
    mut patience: Patience,
) -> Result {
    let context = command.context;
    let mut sending = None;
    let broke = loop {
        let heard = tokio::select! {
            heard = lines.json::<RunEvent>() => heard,
            () = patience.over(!watch.waiting().is_empty()) => {
                watch.give_up()?;
                if watch.open().is_empty() {
                    return Ok(());
                }
                continue;
            }
        };
        match heard {
            Ok(None) | Err(_)
                if !watch.waiting().is_empty()
                    && heard.as_ref().map_or_else(Failure::is_transport, |_| true) =>
            {
                context
                    .output
                    .say("The connection to the hub broke; the question waits on. Connecting again …");
                sleep(AGAIN).await;
                lines = ask_for_lines(client, context, command.request, command.key, true).await?;
            }
            Ok(Some(event)) => {
                if let (RunEvent::Accepted { run_id, .. }, Some(source)) = (&event, stdin.take()) {
                    sending = Some(input::send(client.another(), run_id.clone(), source));
                }
                single_refusal(&event, watch)?;
                watch.take(event)?;
            }
            Ok(None) => break None,
            Err(failure) if failure.is_transport() => break Some(failure),
            Err(failure) => return Err(failure),
        }
    };
    if !watch.open().is_empty() {
        context.output.say("The connection to the hub broke; the runs go on. Connecting again …");
        follow_all(client, watch).await?;
        context.output.say("Connected again; nothing of the output was lost or doubled.");
    } else if watch.is_empty() {
        return Err(broke.unwrap_or_else(nothing_said).way("look", "cortex run ls".to_owned()));
    }
    if let Some(sending) = sending {
        sending.abort();
    }
    Ok(())
}

/// The refusal of the only node is that of the command.
fn single_refusal(event: &RunEvent, watch: &Watch) -> Result {
    match event {
        RunEvent::Refused { error, .. } if watch.is_single() => Err(error.clone().into()),
        RunEvent::Refused { .. }
        | RunEvent::Accepted { .. }
        | RunEvent::Asked { .. }
        | RunEvent::Output { .. }
        | RunEvent::Lost { .. }
        | RunEvent::State { .. }
        | RunEvent::Exit { .. } => Ok(()),
    }
}

fn nothing_said() -> Failure {
    Refusal::new(Code::UnknownOutcome, "The hub ended the stream before it had accepted the command.").into()
}

fn detach(context: &Context, watch: &Watch) {
    let open = watch.open();
    let output = context.output;
    for (node, consent_id) in watch.waiting() {
        output.say(&format!("{node}: the question waits on, and the command starts with the answer. Take it back with `cortex consent withdraw {consent_id}`."));
    }
    if open.is_empty() {
        return output.say("Left.");
    }
    output.say("Detached; the command goes on.");
    for (run_id, node, _) in open {
        output.say(&format!("  {node}: look again with `cortex run logs -f {run_id}`, end it with `cortex run cancel {run_id}`"));
    }
}

/// Nodes that were named and of which nothing was heard before the stream broke.
fn unheard(watch: &mut Watch, named: &[String]) {
    if watch.count() >= named.len() {
        return;
    }
    for node in named {
        if !watch.knows(node) {
            let refusal =
                Refusal::new(Code::HubUnreachable, "The connection broke before it was started there.");
            watch.refused(node, cortex_wire::error::Problem::new(&refusal, ""));
        }
    }
}

fn conclude(context: &Context, watch: &Watch, several: bool) -> Result {
    let outcomes = watch.outcomes();
    if !several {
        let status = outcomes.first().map_or(TRANSPORT, |outcome| outcome.status);
        return if status == 0 { Ok(()) } else { Err(Failure::Exit(status)) };
    }
    if !context.output.json {
        context.output.say(&summary(outcomes));
    }
    if outcomes.iter().all(|outcome| outcome.status == 0) { Ok(()) } else { Err(Failure::Exit(1)) }
}

/// `3 ok, 1 failed (build-2: exit 101)`.
fn summary(outcomes: &[Outcome]) -> String {
    let failed: Vec<String> = outcomes
        .iter()
        .filter(|outcome| outcome.status != 0)
        .map(|outcome| format!("{}: {}", outcome.node, outcome.text))
        .collect();
    let good = outcomes.len() - failed.len();
    if failed.is_empty() {
        return format!("{good} ok");
    }
    format!("{good} ok, {} failed ({})", failed.len(), failed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(node: &str, status: u8) -> Outcome {
        Outcome { node: node.to_owned(), status, text: format!("exit {status}"), problem: None }
    }

    #[test]
    fn a_denial_shows_the_ways_that_lift_its_rule_and_no_others() {
        let argv = ["git", "-c", "x y"].map(str::to_owned).to_vec();
        let ways = Ways { node: "n1".to_owned(), argv, cwd: Some("/srv/a b".to_owned()), several: false };
        let shown = |rule: &str| {
            let refusal = Refusal::new(Code::PolicyDenied, "No.").detail("rule", rule);
            match ways.add(refusal.into()) {
                Failure::Refused(refused) => {
                    refused.ways.into_iter().map(|(_, command)| command).collect::<Vec<_>>()
                }
                Failure::Exit(code) => panic!("{code}"),
            }
        };
        assert_eq!(shown("exec.allow").len(), 3);
        assert_eq!(shown("exec.args git -c"), ["cortex policy allow n1 git --any-arguments --for 1h"]);
        assert_eq!(shown("roots.cwd"), ["cortex policy allow n1 --root '/srv/a b:rw'"]);
        for rule in ["exec.always_denied", "exec.deny", "env.allow", "limits.timeout", "local.exec.allow", ""]
        {
            assert_eq!(shown(rule), Vec::<String>::new(), "{rule}");
        }
    }

    #[test]
    fn the_summary_names_those_that_failed() {
        let outcomes = [outcome("a", 0), outcome("build-2", 101), outcome("c", 0), outcome("d", 0)];
        assert_eq!(summary(&outcomes), "3 ok, 1 failed (build-2: exit 101)");
        assert_eq!(summary(&outcomes[2..]), "2 ok");
    }
}
