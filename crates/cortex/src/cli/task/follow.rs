//! Staying with a task until it has ended: the output of each attempt as it comes, and its exit code.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::Code;
use cortex_core::pool::TaskState;
use cortex_wire::error::surface;
use cortex_wire::http::{TaskOutcome, TaskStory, TaskView};

use super::{path, starts};
use crate::cli::interrupt::Interrupt;
use crate::cli::watch::{Patience, TRANSPORT, status_of};
use crate::cli::{Context, run};
use crate::client::Client;
use crate::error::{Failure, Result};

/// How long the hub may wait for news, seconds.
const WAIT_S: u64 = 50;

/// Follows it to its end. The exit code is that of its last attempt.
pub(super) async fn follow(context: &Context, client: &mut Client, id: &str) -> Result {
    let mut interrupt = Interrupt::new()?;
    let story = tokio::select! {
        story = to_the_end(context, client, id) => story,
        status = interrupt.wait() => Err(Failure::Exit(status)),
    };
    let story = match story {
        Ok(story) => story,
        Err(Failure::Exit(status)) => {
            let words = "Left; the task goes on.";
            context
                .output
                .say(&format!("{words} Look: cortex task get {id}, end it: cortex task cancel {id}"));
            return Err(Failure::Exit(status));
        }
        Err(failure @ Failure::Refused(_)) => return Err(failure),
    };
    conclude(context, &story.task)
}

async fn to_the_end(context: &Context, client: &mut Client, id: &str) -> Result<TaskStory> {
    let mut shown = BTreeSet::new();
    let mut after = 0;
    loop {
        let story = news(client, id, after).await?;
        after = story.task.steps;
        for start in starts(&story) {
            let Some(run) = start.run_id.clone().filter(|run| shown.insert(run.clone())) else { continue };
            let node = start.node.as_deref().unwrap_or("a node");
            context.output.say(&format!("Attempt {} on {node}.", start.attempt));
            match run::logs(context, client, &run, true, None).await {
                // The output of a node that one does not see is not shown; the task goes on.
                Err(failure) if matches!(failure.code(), Some(Code::NotFound | Code::Forbidden)) => {
                    context.output.say("Its output is not for you to see.");
                }
                other => other?,
            }
        }
        if TaskState::parse(&story.task.state).is_some_and(TaskState::is_final) {
            return Ok(story);
        }
    }
}

/// The task once there is news of it. A hub that is away for a while is waited for.
async fn news(client: &mut Client, id: &str, after: u32) -> Result<TaskStory> {
    let mut patience = Patience::new(client.target().reconnect_max);
    loop {
        match client.get(&path(id, &format!("?wait_s={WAIT_S}&after={after}"))).await {
            Err(failure) if failure.is_transport() && patience.wait(false).await => {}
            other => return other,
        }
    }
}

fn conclude(context: &Context, task: &TaskView) -> Result {
    let output = context.output;
    if output.json {
        output.json(task)?;
    } else {
        if let Some(bytes) = task.result.as_ref().and_then(bytes) {
            output.bytes(&bytes)?;
        }
        if task.state != "done" {
            output.say(&ending(task));
        }
    }
    match status(task) {
        0 => Ok(()),
        status => Err(Failure::Exit(status)),
    }
}

/// What a worker gave.
fn bytes(result: &TaskOutcome) -> Option<Vec<u8>> {
    match (&result.output, &result.output_base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(text)) => STANDARD.decode(text).ok(),
        (None, None) => None,
    }
}

fn ending(task: &TaskView) -> String {
    let message = task.result.as_ref().and_then(|result| result.message.as_deref());
    let why = message.map(|message| format!(" {}", cortex_core::name::printable(message, 300)));
    format!("The task is {} after {} attempt(s).{}", task.state, task.attempt, why.unwrap_or_default())
}

/// The exit code of a task that has ended.
fn status(task: &TaskView) -> u8 {
    let (code, signal) = task.result.as_ref().map_or((None, None), |result| (result.code, result.signal));
    match task.state.as_str() {
        "done" => 0,
        "expired" => surface(Code::Timeout).exit,
        "cancelled" => 1,
        _ if code.is_none() && signal.is_none() && task.kind == "command" => TRANSPORT,
        _ => status_of("exited", code, signal).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_command_and_tells_other_ends_apart() {
        let of = |state: &str, code, signal| {
            let result = TaskOutcome { code, signal, ..TaskOutcome::default() };
            let (state, kind) = (state.to_owned(), "command".to_owned());
            status(&TaskView { state, kind, result: Some(result), ..TaskView::default() })
        };
        assert_eq!(of("done", Some(0), None), 0);
        assert_eq!(of("dead", Some(3), None), 3);
        assert_eq!(of("dead", None, Some(9)), 137);
        assert_eq!(of("dead", None, None), 255);
        assert_eq!(of("expired", None, None), 124);
        assert_eq!(of("cancelled", None, Some(15)), 1);
        let payload = TaskView { state: "dead".into(), kind: "resize".into(), ..TaskView::default() };
        assert_eq!(status(&payload), 1);
    }
}
