//! `cortex task add|ls|get|logs|cancel|retry|bump|explain|stats`, `schedule`, `pause|drain|resume|pauses`,
//! and for workers that are no nodes
//! `claim|extend|finish|fail|release`.

mod add;
mod follow;
mod pause;
mod schedule;
mod show;
mod work;

use cortex_core::stream::Stream;
use cortex_wire::http::{PoolStats, TaskExplained, TaskPriority, TaskStep, TaskStory, TaskView};
use serde_json::json;

use super::{Context, args, run};
use crate::client::{Client, encode};
use crate::error::{Failure, Result};

/// Work that waits for its turn: kept until somebody has done it, on whichever node suits.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex task add -l role=ci --wait -- cargo test\n  cortex task ls --state ready,leased\n  cortex task explain 0198a1c2-0000-7000-8000-000000000000"
)]
pub(crate) struct Task {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    Add(Box<add::Add>),
    /// List tasks, the newest first.
    #[command(before_help = "Example:\n  cortex task ls --state ready,leased --label team=blue")]
    Ls {
        /// Only those in these states, with commas between them.
        #[arg(long)]
        state: Option<String>,
        /// Only those with this label.
        #[arg(long, value_name = "K=V", value_parser = args::label)]
        label: Option<(String, String)>,
        /// Only your own.
        #[arg(long)]
        own: bool,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show one task with its timeline.
    #[command(before_help = "Example:\n  cortex task get 0198a1c2-0000-7000-8000-000000000000 --json")]
    Get {
        /// Its id.
        id: String,
    },
    /// Write the output of its last attempt, byte for byte.
    #[command(before_help = "Example:\n  cortex task logs -f 0198a1c2-0000-7000-8000-000000000000")]
    Logs {
        /// Its id.
        id: String,
        /// The number of another attempt.
        #[arg(long, value_name = "N")]
        attempt: Option<u64>,
        /// Stay until that attempt ends, and show what comes.
        #[arg(short = 'f', long)]
        follow: bool,
        /// Only this stream.
        #[arg(long, value_parser = ["stdout", "stderr"])]
        stream: Option<String>,
    },
    /// Ask for the end of a task; its process is ended as that of a run is.
    #[command(before_help = "Example:\n  cortex task cancel 0198a1c2-0000-7000-8000-000000000000")]
    Cancel {
        /// Its id.
        id: String,
    },
    /// Have a task that came to nothing tried again, or offer one to nodes that have denied it.
    #[command(before_help = "Example:\n  cortex task retry 0198a1c2-0000-7000-8000-000000000000")]
    Retry {
        /// Its id.
        id: String,
    },
    /// Change how soon a task is done.
    #[command(before_help = "Example:\n  cortex task bump 0198a1c2-0000-7000-8000-000000000000 --priority 8")]
    Bump {
        /// Its id.
        id: String,
        /// 0 (last) to 8 (first); 9 is for administrators.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9), default_value_t = 8)]
        priority: u8,
    },
    /// Say why a task waits, and what would change it.
    #[command(before_help = "Example:\n  cortex task explain 0198a1c2-0000-7000-8000-000000000000")]
    Explain {
        /// Its id.
        id: String,
    },
    /// Show how many tasks wait, and what the nodes have of them.
    #[command(before_help = "Example:\n  cortex task stats --json")]
    Stats,
    Schedule(schedule::Schedule),
    Pause(pause::Pause),
    Drain(pause::Drain),
    Resume(pause::Resume),
    /// List the parts of the pool that stand still.
    #[command(before_help = "Example:\n  cortex task pauses")]
    Pauses,
    Claim(work::Claim),
    Extend(work::Extend),
    Finish(work::Finish),
    Fail(work::Fail),
    Release(work::Release),
}

impl Task {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let output = context.output;
        match self.action {
            Action::Add(add) => add.run(context, &mut client).await,
            Action::Ls { state, label, own, limit } => {
                let tasks: Vec<TaskView> = client.list(&list_path(state, label, own), limit).await?;
                output.list(
                    &tasks,
                    &show::HEAD,
                    show::row,
                    "There are no tasks. Next: cortex task add -- COMMAND",
                )
            }
            Action::Get { id } => show::story(output, &story(&mut client, &id).await?),
            Action::Logs { id, attempt, follow, stream } => {
                let story = story(&mut client, &id).await?;
                let run = run_of(&story, attempt)?;
                let only = stream.as_deref().and_then(Stream::parse);
                run::logs(context, &mut client, &run, follow, only).await
            }
            Action::Cancel { id } => {
                let task: TaskView = client.post(&path(&id, "/cancel"), &json!({})).await?;
                said(context, &task, &format!("Asked for its end; the state is {}.", task.state))
            }
            Action::Retry { id } => {
                let task: TaskView = client.post(&path(&id, "/retry"), &json!({})).await?;
                said(context, &task, &format!("It is tried again; the state is {}.", task.state))
            }
            Action::Bump { id, priority } => {
                let task: TaskView = client.post(&path(&id, "/priority"), &TaskPriority { priority }).await?;
                said(context, &task, &format!("Its priority is {}.", task.priority))
            }
            Action::Explain { id } => {
                let explained: TaskExplained = client.get(&path(&id, "/explain")).await?;
                show::explained(output, &explained)
            }
            Action::Stats => {
                let stats: PoolStats = client.get("/pool/stats").await?;
                show::stats(output, &stats)
            }
            Action::Schedule(schedule) => schedule.run(context, &mut client).await,
            Action::Pause(pause) => pause.run(context, &mut client).await,
            Action::Drain(drain) => drain.run(context, &mut client).await,
            Action::Resume(resume) => resume.run(context, &mut client).await,
            Action::Pauses => pause::list(context, &mut client).await,
            Action::Claim(claim) => claim.run(context, &mut client).await,
            Action::Extend(extend) => extend.run(context, &mut client).await,
            Action::Finish(finish) => finish.run(context, &mut client).await,
            Action::Fail(fail) => fail.run(context, &mut client).await,
            Action::Release(release) => release.run(context, &mut client).await,
        }
    }
}

fn path(id: &str, what: &str) -> String {
    format!("/pool/tasks/{}{what}", encode(id))
}

async fn story(client: &mut Client, id: &str) -> Result<TaskStory> {
    client.get(&path(id, "")).await
}

fn said(context: &Context, task: &TaskView, sentence: &str) -> Result {
    if context.output.json {
        return context.output.json(task);
    }
    context.output.say(sentence);
    Ok(())
}

fn list_path(state: Option<String>, label: Option<(String, String)>, own: bool) -> String {
    let label = label.map(|(key, value)| format!("{key}={value}"));
    let own = own.then(|| "true".to_owned());
    let filters = [("state", state), ("label", label), ("own", own)];
    let query: Vec<String> =
        filters.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(&value?)))).collect();
    if query.is_empty() { "/pool/tasks".to_owned() } else { format!("/pool/tasks?{}", query.join("&")) }
}

/// Steps at which a node was given the task, oldest first.
fn starts(story: &TaskStory) -> impl DoubleEndedIterator<Item = &TaskStep> {
    story.timeline.iter().filter(|step| step.step == "leased" && step.run_id.is_some())
}

/// The run of that attempt, or of the last.
fn run_of(story: &TaskStory, attempt: Option<u64>) -> Result<String> {
    let wanted = |step: &&TaskStep| attempt.is_none_or(|attempt| step.attempt == attempt);
    let found = starts(story).rev().find(wanted).and_then(|step| step.run_id.clone());
    found.ok_or_else(|| {
        let id = &story.task.id;
        let (message, hint) = match (attempt, story.task.kind == "command") {
            (Some(attempt), true) => (
                format!("Task {id} has no attempt {attempt} on a node."),
                format!("Look at its attempts with `cortex task get {id}`."),
            ),
            (None, true) => (
                format!("Task {id} has not started: it is {}.", story.task.state),
                format!("Ask why with `cortex task explain {id}`."),
            ),
            (_, false) => (
                format!("Task {id} is no command, and has no output of one."),
                format!("Look at its result with `cortex task get {id}`."),
            ),
        };
        Failure::new(cortex_core::Code::NotFound, message, hint)
    })
}
