//! Tasks between the shapes of `cortex_wire::http` and core's own. Values of variables are not shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::id::{NodeId, TaskId};
use cortex_core::name::{Name, Selector, printable};
use cortex_core::pool::{
    Backoff, Concurrency, Evidence, Kind, Priority, Progress, Said, Step, StepKind, Task, TaskResult,
    TaskSpec, Work,
};
use cortex_core::run::RunSpec;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{
    ClaimedTask, LeaseProgress, LeaseReport, PoolNode, PoolStats, TaskBackoff, TaskConcurrency, TaskEvidence,
    TaskExplained, TaskOutcome, TaskProgress, TaskReason, TaskRequest, TaskStep, TaskStory, TaskView,
};
use std::collections::BTreeMap;

use crate::directory::Directory;
use crate::http::view::time;
use crate::service::pool::{Explained, Stats, Story, Submit, words};

/// Names of nodes, those that are gone too.
pub(super) type Names = BTreeMap<NodeId, String>;

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidArgument, message)
}

/// A request as the service takes it. Bounds are checked there.
pub(super) fn submit(request: TaskRequest, traceparent: Option<String>) -> Result<Submit, Refusal> {
    let priority = request.priority.map(Priority::new).transpose()?.unwrap_or_default();
    let due_at = request.not_before.as_deref().map(moment).transpose()?;
    let key = request.key.clone();
    Ok(Submit { spec: spec(request)?, priority, key, traceparent, due_at })
}

fn moment(text: &str) -> Result<WallTime, Refusal> {
    let at = text.parse::<jiff::Timestamp>();
    at.map(|at| WallTime(at.as_millisecond())).map_err(|_| {
        bad(format!("`not_before` is `{}`, which is no moment.", printable(text, 80)))
            .hint("Write it as RFC 3339, such as 2030-01-31T08:00:00Z.")
    })
}

fn spec(request: TaskRequest) -> Result<TaskSpec, Refusal> {
    let after = request.after.iter().map(|text| task_id(text)).collect::<Result<_, _>>()?;
    let selector = |text: &Option<String>| Selector::parse(text.as_deref().unwrap_or_default());
    let plain = TaskSpec {
        selector: selector(&request.selector)?,
        prefer: selector(&request.prefer)?,
        backoff: backoff(request.backoff.as_ref()),
        start_within_ms: request.start_within_ms,
        start_within_pauses: request.start_within_pauses,
        after,
        concurrency: request
            .concurrency
            .clone()
            .map(|concurrency| Concurrency { key: concurrency.key, limit: concurrency.limit }),
        labels: request.labels.clone(),
        ..TaskSpec::new(Work::Command(RunSpec::default()))
    };
    Ok(TaskSpec {
        attempts_max: request.attempts.unwrap_or(plain.attempts_max),
        lease_ms: request.lease_ms.unwrap_or(plain.lease_ms),
        work: work(request)?,
        ..plain
    })
}

fn task_id(text: &str) -> Result<TaskId, Refusal> {
    text.parse()
        .map_err(|_| bad(format!("`after` names `{}`, which is no id of a task.", printable(text, 80))))
}

fn backoff(asked: Option<&TaskBackoff>) -> Backoff {
    let usual = Backoff::default();
    let Some(asked) = asked else { return usual };
    let initial_ms = asked.initial_ms.unwrap_or(usual.initial_ms);
    let longest = usual.max_ms.max(initial_ms);
    let max_ms = asked.max_ms.unwrap_or(longest);
    Backoff {
        // Only a bound was given, and it is below the usual beginning.
        initial_ms: if asked.initial_ms.is_none() { initial_ms.min(max_ms) } else { initial_ms },
        factor_percent: asked.factor_percent.unwrap_or(usual.factor_percent),
        max_ms,
        jitter_percent: asked.jitter_percent.unwrap_or(usual.jitter_percent),
    }
}

fn work(request: TaskRequest) -> Result<Work, Refusal> {
    let is_command = !request.argv.is_empty();
    let has_payload = request.payload.is_some() || request.payload_base64.is_some();
    match (is_command, request.kind) {
        (true, None) if !has_payload => Ok(Work::Command(RunSpec {
            argv: request.argv,
            cwd: request.cwd,
            env: request.env.into_iter().collect(),
            timeout_ms: request.run_limit_ms,
            stdin: false,
        })),
        (false, Some(kind)) => {
            if request.cwd.is_some() || !request.env.is_empty() || request.run_limit_ms.is_some() {
                return Err(bad("`cwd`, `env` and `run_limit_ms` are for commands.")
                    .hint("Put what the worker needs into the payload."));
            }
            if request.selector.is_some() || request.prefer.is_some() {
                return Err(bad("`selector` and `prefer` are for commands.")
                    .hint("Name workers of another sort by another `kind`."));
            }
            let bytes = bytes("payload", request.payload, request.payload_base64)?;
            Ok(Work::Payload { kind: Kind::payload(Name::parse(&kind)?)?, bytes })
        }
        (true, None | Some(_)) | (false, None) => {
            Err(bad("A task is either a command with `argv`, or a payload with `kind`.")
                .hint("Give one of them."))
        }
    }
}

fn bytes(field: &str, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, Refusal> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map_err(|_| bad(format!("`{field}_base64` is no base64.")))
        }
        (None, None) => Ok(Vec::new()),
        (Some(_), Some(_)) => Err(bad(format!("`{field}` and `{field}_base64` exclude each other."))),
    }
}

/// Text, or what is none as base64.
fn twins(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

/// A worker's report.
pub(super) fn report(report: LeaseReport) -> Result<TaskResult, Refusal> {
    let output = bytes("output", report.output, report.output_base64)?;
    Ok(TaskResult { code: None, signal: None, output, message: report.message })
}

/// What a worker says of how far it is.
pub(super) fn said(progress: LeaseProgress) -> Said {
    Said { done: progress.done, total: progress.total, note: progress.note }
}

fn progress(progress: &Progress) -> TaskProgress {
    let Said { done, total, note } = progress.said.clone();
    TaskProgress { done, total, note, at: time(progress.at) }
}

fn outcome(result: &TaskResult) -> TaskOutcome {
    let (output, output_base64) = if result.output.is_empty() { (None, None) } else { twins(&result.output) };
    TaskOutcome {
        code: result.code,
        signal: result.signal,
        output,
        output_base64,
        message: result.message.clone(),
    }
}

/// Nodes that this task's view names.
pub(super) fn nodes(task: &Task) -> impl Iterator<Item = NodeId> + '_ {
    task.lease.and_then(|lease| lease.holder.node()).into_iter().chain(task.excluded.iter().copied())
}

/// Nodes that this story names.
pub(super) fn nodes_of_story(story: &Story) -> Vec<NodeId> {
    let steps = story.steps.iter().filter_map(|step| step.node);
    let evidence = story.evidence.iter().filter_map(|evidence| evidence.holder.node());
    nodes(&story.task).chain(steps).chain(evidence).collect()
}

fn name(names: &Names, node: NodeId) -> String {
    names.get(&node).cloned().unwrap_or_else(|| node.to_string())
}

/// A task.
pub(super) fn task(task: &Task, names: &Names) -> TaskView {
    let spec = &task.spec;
    let holder = task.lease.map(|lease| lease.holder);
    let node = holder.and_then(|holder| holder.node());
    let backoff = &spec.backoff;
    let view = TaskView {
        id: task.id.to_string(),
        state: task.state.as_str().to_owned(),
        kind: spec.work.kind().as_str().to_owned(),
        selector: spec.selector.to_string(),
        prefer: spec.prefer.to_string(),
        priority: task.priority.get(),
        attempt: task.attempt.0,
        tries: task.tries,
        attempts: spec.attempts_max,
        backoff: TaskBackoff {
            initial_ms: Some(backoff.initial_ms),
            factor_percent: Some(backoff.factor_percent),
            max_ms: Some(backoff.max_ms),
            jitter_percent: Some(backoff.jitter_percent),
        },
        start_within_ms: spec.start_within_ms,
        start_within_pauses: spec.start_within_pauses,
        lease_ms: spec.lease_ms,
        after: spec.after.iter().map(ToString::to_string).collect(),
        waits_for: task.waits_for,
        concurrency: spec
            .concurrency
            .as_ref()
            .map(|concurrency| TaskConcurrency { key: concurrency.key.clone(), limit: concurrency.limit }),
        labels: spec.labels.clone(),
        key: task.idempotency_key.clone(),
        caller: task.caller.clone(),
        schedule: task.schedule.map(|id| id.to_string()),
        node: node.map(|node| name(names, node)),
        node_id: node.map(|node| node.to_string()),
        run_id: holder.and_then(|holder| holder.run()).map(|run| run.to_string()),
        worker: holder.and_then(|holder| holder.worker()).map(|token| token.to_string()),
        leased_at: task.lease.map(|lease| time(lease.since)),
        progress: task.progress.as_ref().map(progress),
        submitted_at: time(task.submitted_at),
        due_at: task.due_at.map(time),
        ready_at: task.ready_at.map(time),
        expires_at: task.expires_at.map(time),
        ended_at: task.ended_at.map(time),
        cancelled_by: task.cancelled_by.clone(),
        excluded: task.excluded.iter().map(|node| name(names, *node)).collect(),
        result: task.result.as_ref().map(outcome),
        steps: task.steps,
        ..TaskView::default()
    };
    match &spec.work {
        Work::Command(run) => TaskView {
            argv: run.argv.clone(),
            cwd: run.cwd.clone(),
            env_names: run.env.iter().map(|(name, _)| name.clone()).collect(),
            run_limit_ms: run.timeout_ms,
            ..view
        },
        Work::Payload { bytes, .. } => TaskView { payload_bytes: Some(bytes.len() as u64), ..view },
    }
}

/// A task with what happened to it.
pub(super) fn story(story: &Story, names: &Names, directory: &Directory) -> TaskStory {
    let mut view = task(&story.task, names);
    let last = story.steps.iter().rev().find(|step| step.kind == StepKind::Leased);
    if let Some(last) = last.filter(|_| view.node.is_none() && view.worker.is_none()) {
        view.node = last.node.map(|node| name(names, node));
        view.node_id = last.node.map(|node| node.to_string());
        view.run_id = last.run.map(|run| run.to_string());
        view.worker = last.actor.clone().filter(|_| last.node.is_none());
    }
    let (payload, payload_base64) = match &story.task.spec.work {
        Work::Command(_) => (None, None),
        Work::Payload { bytes, .. } => twins(bytes),
    };
    TaskStory {
        task: view,
        payload,
        payload_base64,
        timeline: story.steps.iter().map(|step| shown_step(step, names, directory)).collect(),
        evidence: story.evidence.iter().map(|evidence| shown_evidence(evidence, names)).collect(),
    }
}

fn shown_step(step: &Step, names: &Names, directory: &Directory) -> TaskStep {
    // A worker's claim names its token, of which people know the name.
    let worker = |actor: &String| {
        let token = actor.parse().ok().and_then(|id| directory.token_of(id));
        token.map_or_else(|| actor.clone(), |token| format!("token:{}", token.name))
    };
    let is_claim = step.kind == StepKind::Leased;
    TaskStep {
        at: time(step.at),
        step: step.kind.as_str().to_owned(),
        attempt: step.attempt.0,
        node: step.node.map(|node| name(names, node)),
        run_id: step.run.map(|run| run.to_string()),
        actor: step.actor.as_ref().map(|actor| if is_claim { worker(actor) } else { actor.clone() }),
        detail: step.detail.clone(),
    }
}

fn shown_evidence(evidence: &Evidence, names: &Names) -> TaskEvidence {
    TaskEvidence {
        at: time(evidence.at),
        attempt: evidence.attempt.0,
        node: evidence.holder.node().map(|node| name(names, node)),
        run_id: evidence.holder.run().map(|run| run.to_string()),
        worker: evidence.holder.worker().map(|token| token.to_string()),
        result: outcome(&evidence.result),
    }
}

/// Why a task waits.
pub(super) fn explained(explained: &Explained) -> TaskExplained {
    let reasons = explained.reasons.iter().map(|reason| {
        let (message, hint) = words(reason, time);
        TaskReason { reason: reason.as_str().to_owned(), message, hint }
    });
    TaskExplained {
        id: explained.task.id.to_string(),
        state: explained.task.state.as_str().to_owned(),
        reasons: reasons.collect(),
    }
}

/// A task for the worker that has it now.
pub(super) fn claimed(task: &Task) -> ClaimedTask {
    let (payload, payload_base64) = match &task.spec.work {
        Work::Command(_) => (None, None),
        Work::Payload { bytes, .. } => twins(bytes),
    };
    ClaimedTask {
        id: task.id.to_string(),
        attempt: task.attempt.0,
        kind: task.spec.work.kind().as_str().to_owned(),
        payload,
        payload_base64,
        lease_ms: task.spec.lease_ms,
        tries: task.tries,
        attempts: task.spec.attempts_max,
        priority: task.priority.get(),
        labels: task.spec.labels.clone(),
        caller: task.caller.clone(),
        traceparent: task.traceparent.clone(),
    }
}

/// The pool at a glance.
pub(super) fn stats(stats: &Stats) -> PoolStats {
    let counts = |counts: &BTreeMap<cortex_core::pool::TaskState, u64>| {
        counts.iter().map(|(state, count)| (state.as_str().to_owned(), *count)).collect()
    };
    let nodes = stats.nodes.iter().map(|node| PoolNode {
        node: node.name.clone(),
        online: node.is_online,
        slots: node.slots,
        busy: u32::try_from(node.busy).unwrap_or(u32::MAX),
    });
    PoolStats {
        tasks: stats.tasks.as_ref().map(counts),
        leases: stats.leases.map(|leases| leases as u64),
        oldest_ready_at: stats.oldest_ready_at.map(time),
        nodes: nodes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> TaskRequest {
        TaskRequest { argv: vec!["true".into()], ..TaskRequest::default() }
    }

    #[test]
    fn a_task_is_a_command_or_a_payload_and_says_which_when_it_is_neither() {
        let both = TaskRequest { kind: Some("resize".into()), ..command() };
        let kind = || TaskRequest { kind: Some("resize".into()), ..TaskRequest::default() };
        for (request, word) in [
            (TaskRequest::default(), "either"),
            (both, "either"),
            (TaskRequest { payload: Some("a".into()), ..command() }, "either"),
            (TaskRequest { cwd: Some("/".into()), ..kind() }, "for commands"),
            (TaskRequest { selector: Some("a=b".into()), ..kind() }, "for commands"),
            (TaskRequest { payload_base64: Some("?".into()), ..kind() }, "no base64"),
            (
                TaskRequest { payload: Some("a".into()), payload_base64: Some("YQ==".into()), ..kind() },
                "exclude",
            ),
            (TaskRequest { kind: Some("command".into()), ..TaskRequest::default() }, "command"),
            (TaskRequest { not_before: Some("tomorrow".into()), ..command() }, "no moment"),
            (TaskRequest { after: vec!["1".into()], ..command() }, "no id"),
            (TaskRequest { priority: Some(10), ..command() }, "priority"),
        ] {
            let refusal = submit(request, None).expect_err(word);
            assert!(refusal.message.contains(word), "{word}: {}", refusal.message);
        }
        let read =
            submit(TaskRequest { payload_base64: Some("/w==".into()), ..kind() }, None).expect("bytes");
        assert!(matches!(read.spec.work, Work::Payload { bytes, .. } if bytes == [0xff]));
    }

    #[test]
    fn what_is_not_said_of_the_waits_is_as_usual_and_fits_the_rest() {
        let of = |initial_ms, max_ms| {
            let asked = TaskBackoff { initial_ms, max_ms, ..TaskBackoff::default() };
            let backoff = backoff(Some(&asked));
            (backoff.initial_ms, backoff.max_ms)
        };
        assert_eq!(backoff(None), Backoff::default());
        assert_eq!(of(None, None), (5_000, 300_000));
        assert_eq!(of(None, Some(100)), (100, 100));
        assert_eq!(of(Some(400_000), None), (400_000, 400_000));
        assert_eq!(of(Some(9), Some(8)), (9, 8), "a contradiction is not mended, but refused");
    }
}
