//! Runs that are attempts of tasks: judged as a command of the task's owner is, at the moment when
//! the task is handed out, and written in the transaction of the claim.
//!
//! Never here: a question to a person. Nobody waits for the answer; a policy that asks for one keeps
//! the task away.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::RunId;
use cortex_core::node::Node;
use cortex_core::pool::{Task, Work};
use cortex_core::rights::Right;
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::asked::{self, Leave, Verdict};
use crate::service::{Caller, Context};

/// An attempt that may start.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) run: Run,
    /// The rule of the policy that allows it.
    rule: String,
    policy_hash: Option<[u8; 32]>,
}

/// Judges the next attempt of a task on a node, as its owner's.
///
/// # Errors
/// What keeps the task away from this node: `policy_denied`, `forbidden`, `consent_required`.
pub(crate) fn judge(
    context: &Context,
    owner: &Caller,
    node: &Arc<Node>,
    task: &Task,
    id: RunId,
    now: WallTime,
) -> Result<Attempt, Refusal> {
    let Work::Command(spec) = &task.spec.work else {
        return Err(Refusal::new(Code::Internal, "A payload is nothing that a node runs."));
    };
    owner.on(Right::RunsStart, node)?;
    let policy = context.directory.policy(node.id, node.joined_at);
    let accepted = Run::accepted(id, node.id, spec.clone(), task.caller.clone(), policy.revision, now);
    let run = Run {
        traceparent: task.traceparent.clone(),
        token: task.owner.token,
        user: task.owner.user,
        task: Some((task.id, task.attempt.next())),
        ..accepted
    };
    match asked::judge(&context.directory, &policy.document, &Leave::Policy, &run, node.name.as_str())? {
        Verdict::Start { rule, lasting } => {
            let consent = lasting.map(|rule| rule.id);
            let policy_hash = context.directory.policy_hash(node.id);
            Ok(Attempt { run: Run { consent, ..run }, rule, policy_hash })
        }
        Verdict::Ask { rule, .. } => {
            let message =
                format!("A person would be asked on {} (rule {rule}), and a task asks nobody.", node.name);
            Err(Refusal::new(Code::ConsentRequired, message).detail("rule", rule))
        }
    }
}

/// Writes the run of a claimed task: the audit row first.
pub(crate) fn put(tx: &mut dyn Tx, attempt: &Attempt) -> Result<(), WriteError> {
    let run = &attempt.run;
    let detail = run.task.map(|(task, number)| format!("task {task}, attempt {number}"));
    tx.append_audit(&AuditRow {
        reason: Some(attempt.rule.clone()),
        node: Some(run.node),
        run: Some(run.id),
        policy_revision: Some(run.policy_revision),
        policy_hash: attempt.policy_hash,
        argv: run.spec.argv.clone(),
        token: run.token,
        consent: run.consent,
        detail,
        ..AuditRow::new(run.accepted_at, run.caller.clone(), "run.start", Outcome::Allowed)
    })?;
    tx.put_run(run)?;
    let event = Event::new(EventKind::RunAccepted, run.accepted_at).node(run.node).run(run.id);
    tx.append_event(&event.actor(run.caller.clone()))?;
    Ok(())
}
