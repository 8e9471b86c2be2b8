//! `cortex run ls|get|logs|cancel|rerun`.

use cortex_core::run::RunState;
use cortex_core::stream::Stream;
use cortex_core::words::count;
use cortex_wire::http::{RunCancel, RunView, RunsAccepted};
use serde_json::json;

use super::exec::input;
use super::interrupt::Interrupt;
use super::watch::{Show, Watch, follow_all, follow_bytes};
use super::{Context, args};
use crate::client::{Client, encode};
use crate::duration;
use crate::error::{Failure, Result};
use crate::output;

/// Look at runs: every exec is one, and is kept.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex run ls --node build-2\n  cortex run logs -f 0198a1c2-0000-7000-8000-000000000000"
)]
pub(crate) struct Run {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List runs, the newest first.
    #[command(before_help = "Example:\n  cortex run ls --node build-2 --state running")]
    Ls {
        /// Only those of this node.
        #[arg(long)]
        node: Option<String>,
        /// Only those in this state.
        #[arg(long)]
        state: Option<String>,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one run.
    #[command(before_help = "Example:\n  cortex run get 0198a1c2-0000-7000-8000-000000000000 --json")]
    Get {
        /// Its id.
        id: String,
    },
    /// Write its output, byte for byte: its standard output here, its standard error to this one.
    #[command(before_help = "Example:\n  cortex run logs -f 0198a1c2-0000-7000-8000-000000000000")]
    Logs {
        /// Its id.
        id: String,
        /// Stay until it ends, and show what comes.
        #[arg(short = 'f', long)]
        follow: bool,
        /// Only this stream.
        #[arg(long, value_parser = ["stdout", "stderr"])]
        stream: Option<String>,
    },
    /// End a run: TERM, then KILL after the grace.
    #[command(before_help = "Example:\n  cortex run cancel 0198a1c2-0000-7000-8000-000000000000 --grace 10s")]
    Cancel {
        /// Its id.
        id: String,
        /// Time between TERM and KILL.
        #[arg(long, value_parser = args::span_ms, value_name = "SPAN")]
        grace: Option<u64>,
    },
    /// Start the same command on the same node once more, with its directory, variables and time
    /// limit. What it read from standard input is not kept.
    #[command(
        before_help = "Examples:\n  cortex run rerun 0198a1c2-0000-7000-8000-000000000000\n  cortex run rerun -i 0198a1c2-0000-7000-8000-000000000000 < input.txt"
    )]
    Rerun {
        /// Its id.
        id: String,
        /// Send standard input to it; otherwise its standard input is at its end.
        #[arg(short = 'i', long)]
        stdin: bool,
    },
}

impl Run {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let output = context.output;
        match self.action {
            Action::Ls { node, state, limit } => {
                let runs: Vec<RunView> = client.list(&list_path(node, state), limit).await?;
                output.list(&runs, &HEAD, row, "There are no runs. Next: cortex exec NODE -- COMMAND")
            }
            Action::Get { id } => {
                let run: RunView = client.get(&path(&id)).await?;
                output.facts(&run, &facts(&run))
            }
            Action::Logs { id, follow, stream } => {
                let only = stream.as_deref().and_then(Stream::parse);
                logs(context, &mut client, &id, follow, only).await
            }
            Action::Cancel { id, grace } => {
                let cancelled: RunView =
                    client.post(&format!("{}/cancel", path(&id)), &RunCancel { grace_ms: grace }).await?;
                if output.json {
                    return output.json(&cancelled);
                }
                output.say(&format!("Asked for its end; the state is {}.", cancelled.state));
                Ok(())
            }
            Action::Rerun { id, stdin } => rerun(context, &mut client, &id, stdin).await,
        }
    }
}

fn path(id: &str) -> String {
    format!("/runs/{}", encode(id))
}

fn list_path(node: Option<String>, state: Option<String>) -> String {
    let filters = [("node", node), ("state", state)];
    let query: Vec<String> =
        filters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?)))).collect();
    if query.is_empty() { "/runs".to_owned() } else { format!("/runs?{}", query.join("&")) }
}

const HEAD: [&str; 6] = ["ID", "NODE", "STATE", "ACCEPTED", "TOOK", "COMMAND"];

fn end_of(run: &RunView) -> String {
    match (run.state.as_str(), run.code, run.signal) {
        ("exited", Some(code), _) => format!("exited {code}"),
        (state, _, Some(signal)) => format!("{state} (signal {signal})"),
        (state, _, None) => state.to_owned(),
    }
}

fn row(run: &RunView) -> Vec<String> {
    let took = run.duration_ms.map_or("-".to_owned(), duration::show);
    let accepted = args::age(Some(&run.accepted_at));
    vec![run.id.clone(), run.node.clone(), end_of(run), accepted, took, args::show_argv(&run.argv)]
}

fn facts(run: &RunView) -> Vec<(&'static str, String)> {
    let bytes = |bytes, what: &str| count(bytes, &format!("byte {what}"), &format!("bytes {what}"));
    let bytes = format!("{}, {}", bytes(run.stdout_bytes, "out"), bytes(run.stderr_bytes, "err"));
    let task =
        run.task_id.as_ref().zip(run.attempt).map(|(task, attempt)| format!("{task}, attempt {attempt}"));
    vec![
        ("id", run.id.clone()),
        ("node", run.node.clone()),
        ("state", end_of(run)),
        ("command", args::whole_argv(&run.argv)),
        ("cwd", args::or_dash(run.cwd.as_deref())),
        ("task", args::or_dash(task.as_deref())),
        ("caller", run.caller.clone()),
        ("policy", format!("revision {}", run.policy_revision)),
        ("sandbox", args::or_dash(run.sandbox.as_deref())),
        ("accepted", run.accepted_at.clone()),
        ("started", args::or_dash(run.started_at.as_deref())),
        ("ended", args::or_dash(run.ended_at.as_deref())),
        ("took", run.duration_ms.map_or("-".to_owned(), duration::show)),
        ("output", bytes),
        ("cancelled by", args::or_dash(run.cancelled_by.as_deref())),
        ("diagnostic", args::or_dash(run.diagnostic.as_deref())),
    ]
}

/// Writes the output of a run: what there is, or all to its end.
pub(super) async fn logs(
    context: &Context,
    client: &mut Client,
    id: &str,
    follow: bool,
    only: Option<Stream>,
) -> Result {
    let run: RunView = client.get(&path(id)).await?;
    let mut interrupt = Interrupt::new()?;
    let mut watch = Watch::new(Show::new(context.output, false, only), true);
    watch.add(&run.id, &run.node);
    let over = RunState::parse(&run.state).is_some_and(RunState::is_final);
    let streams = only.map_or_else(|| vec![Stream::Stdout, Stream::Stderr], |only| vec![only]);
    // In one place the two streams keep their common order, which only lines tell.
    let apart = !context.output.json && (only.is_some() || output::goes_apart());
    let shown = async {
        if apart && (follow || over) {
            follow_bytes(client, &mut watch, &run, &streams).await
        } else if follow || over {
            follow_all(client, &mut watch).await
        } else {
            so_far(client, &mut watch, &run).await
        }
    };
    tokio::select! {
        result = shown => result,
        status = interrupt.wait() => Err(Failure::Exit(status)),
    }
}

/// What there is of a run that goes on: one stream after the other, up to where they are.
async fn so_far(client: &Client, watch: &mut Watch, run: &RunView) -> Result {
    for (stream, bytes) in [(Stream::Stdout, run.stdout_bytes), (Stream::Stderr, run.stderr_bytes)] {
        if bytes > 0 {
            let at = format!("{}/output?stream={}", path(&run.id), stream.as_str());
            let mut body = client.another().body(&at).await?;
            let mut offset = 0;
            while let Some(piece) = body.piece().await? {
                watch.output(&run.id, &run.node, stream, offset, &piece)?;
                offset += piece.len() as u64;
            }
        }
    }
    Ok(())
}

async fn rerun(context: &Context, client: &mut Client, id: &str, stdin: bool) -> Result {
    let before: RunView = client.get(&path(id)).await?;
    if stdin && !before.stdin {
        return Err(Failure::usage(
            format!("Run {id} has no standard input, and neither has the same command once more."),
            "Leave `-i` out, or start the command anew with `cortex exec -i`.",
        ));
    }
    let accepted: RunsAccepted = client.post(&format!("{}/rerun", path(id)), &json!({})).await?;
    if let Some(refused) = accepted.refused.into_iter().next() {
        return Err(refused.error.into());
    }
    let output = context.output;
    for run in &accepted.runs {
        if output.json {
            output.json(&json!({"type": "accepted", "run_id": run.id, "node": run.node}))?;
        } else {
            output.line(&run.id)?;
            output.say(&format!("{} runs it again. Look: cortex run logs -f {}", run.node, run.id));
        }
        if stdin {
            feed(client, &run.id, std::io::stdin()).await?;
        } else if run.stdin {
            output.say("What the first run read is not kept: standard input is at its end. `-i` sends some.");
            feed(client, &run.id, std::io::empty()).await?;
        }
    }
    Ok(())
}

/// Sends all of `source` to the run. A run that ended before it read all is no trouble.
async fn feed(client: &Client, id: &str, source: impl std::io::Read + Send + 'static) -> Result {
    let mut interrupt = Interrupt::new()?;
    let mut sending = input::send(client.another(), id.to_owned(), source);
    tokio::select! {
        _ended = &mut sending => Ok(()),
        status = interrupt.wait() => {
            sending.abort();
            Err(Failure::Exit(status))
        }
    }
}
