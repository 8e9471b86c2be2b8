//! How runs are accepted: judged, written, sent. All nodes of a request share one write.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::consent::Consent;
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{Revision, RunId};
use cortex_core::limits::IDEMPOTENCY_KEY_BYTES_MAX;
use cortex_core::lock::{Lock, Locks};
use cortex_core::node::Node;
use cortex_core::policy::Rule;
use cortex_core::rights::Right;
use cortex_core::run::{self, Run};
use cortex_core::stream::Positions;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::{Code, Refusal};
use cortex_store::{StoreError, Tx, WriteError};
use tokio::sync::oneshot;

use super::asked::{self, Approval, Leave, Verdict};
use super::{Begun, Caller, Runs, STORE_DEADLINE, StartRuns, store_refusal};
use crate::clock::new_run_id;
use crate::mesh::{Reserved, refuse_quarantined};
use crate::service::Context;
use crate::service::outcome::{Stored, write_once, write_surely};

/// One node of a request, judged.
#[derive(Clone)]
pub(super) struct Judged {
    pub(super) run: Run,
    pub(super) name: String,
    /// Whether a person asks, by a session.
    in_person: bool,
    /// blake3 of the policy that judged it.
    policy_hash: Option<[u8; 32]>,
    /// What is to be done, or why not.
    pub(super) verdict: Result<Verdict, Refusal>,
    /// The answer of a person that starts it, to be written with it.
    pub(super) approval: Option<Arc<Approval>>,
}

/// What the transaction made of it.
pub(super) enum Written {
    /// A new run.
    Accepted(Run),
    /// The run of an earlier request with this key.
    Known(Run),
    /// A person is asked, or was by an earlier request.
    Asked(Box<Consent>),
    /// Refused; the audit row is written.
    Refused(Refusal),
}

impl Runs {
    pub(super) async fn accept(
        &self,
        caller: &Caller,
        request: StartRuns,
        leave: &Leave,
    ) -> Vec<(Arc<Node>, Result<Begun, Refusal>)> {
        let refuse_all = |refusal: Refusal| {
            request.nodes.iter().map(|node| (Arc::clone(node), Err(refusal.clone()))).collect::<Vec<_>>()
        };
        if let Err(refusal) = check(&request).and_then(|()| leave.check()) {
            return refuse_all(refusal);
        }
        let mut rooms = BTreeMap::new();
        let judge = |node| self.judge(caller, &request, leave, node, &mut rooms);
        let judged: Vec<Judged> = request.nodes.iter().map(judge).collect();
        for one in judged.iter().filter(|one| one.starts()) {
            self.mesh.prepare(one.run.clone());
        }
        let ids: Vec<RunId> = judged.iter().map(|one| one.run.id).collect();
        match self.write(caller, judged).await {
            Ok(written) => {
                let answers = written.into_iter().zip(ids).map(|(one, id)| self.send(one, id, &mut rooms));
                request.nodes.iter().cloned().zip(answers).collect()
            }
            Err(refusal) => {
                ids.iter().for_each(|id| self.mesh.withdraw(*id));
                refuse_all(refusal)
            }
        }
    }

    fn judge(
        &self,
        caller: &Caller,
        request: &StartRuns,
        leave: &Leave,
        node: &Arc<Node>,
        rooms: &mut BTreeMap<RunId, Reserved>,
    ) -> Judged {
        let now = self.context.clock.wall();
        let policy = self.context.directory.policy(node.id, node.joined_at);
        let id = leave.run().unwrap_or_else(|| new_run_id(&self.context.clock));
        let mut run = new_run(caller, request, node, policy.revision, id, now);
        let verdict = self
            .starter(caller, node)
            .and_then(|()| {
                asked::judge(&self.context.directory, &policy.document, leave, &run, node.name.as_str())
            })
            .and_then(|verdict| {
                if self.mesh.presence(node.id).is_none() {
                    return Err(Refusal::new(Code::NodeOffline, format!("{} is offline.", node.name)));
                }
                if matches!(verdict, Verdict::Start { .. }) {
                    rooms.insert(run.id, self.mesh.reserve(node.id)?);
                }
                Ok(verdict)
            });
        if let Ok(Verdict::Start { lasting, .. }) = &verdict {
            run.consent = lasting.as_ref().map(|rule| rule.id).or_else(|| leave.consent());
        }
        let (name, policy_hash) = (node.name.to_string(), self.context.directory.policy_hash(node.id));
        let in_person = caller.token.kind == TokenKind::Session;
        Judged { run, name, in_person, policy_hash, verdict, approval: leave.approval() }
    }

    /// Refuses a caller that may not start runs there at this moment: both may have changed since the
    /// request, whose nodes `parallel` holds back for as long as those before them run.
    fn starter(&self, caller: &Caller, node: &Node) -> Result<(), Refusal> {
        let node = self.context.directory.node(node.id).ok_or_else(|| removed(&node.name))?;
        self.context.still(caller)?.on(Right::RunsStart, &node)?;
        refuse_quarantined(&node)
    }

    async fn write(&self, caller: &Caller, judged: Vec<Judged>) -> Result<Vec<Written>, Refusal> {
        let accepted: Vec<RunId> = judged.iter().filter(|one| one.starts()).map(|one| one.run.id).collect();
        let (context, caller) = (self.context.clone(), caller.clone());
        let work = move |tx: &mut dyn Tx| {
            // Of this very transaction: a lock that is committed before it holds on these runs.
            let locks = Locks::new(tx.locks()?);
            let caller = context.still(&caller);
            judged.iter().map(|one| put(tx, one, &caller, &locks, &context)).collect()
        };
        match write_once(&self.context.store, STORE_DEADLINE, work).await {
            Stored::Done(written) => Ok(written),
            Stored::Refused(refusal) => Err(refusal),
            Stored::Not(error) => Err(store_refusal(error)),
            Stored::Open(outcome) => {
                self.settle_late(accepted, outcome);
                Err(store_refusal(StoreError::Timeout(STORE_DEADLINE)))
            }
        }
    }

    fn send(
        &self,
        written: Written,
        id: RunId,
        rooms: &mut BTreeMap<RunId, Reserved>,
    ) -> Result<Begun, Refusal> {
        match (written, rooms.remove(&id)) {
            (Written::Accepted(run), Some(room)) => {
                self.mesh.submit(&run, room);
                Ok(Begun::Run(Box::new(run)))
            }
            (Written::Accepted(run) | Written::Known(run), _) => {
                self.mesh.withdraw(id);
                let now = self.mesh.live(run.id).map_or(run, |live| super::snapshot(&live));
                Ok(Begun::Run(Box::new(now)))
            }
            (Written::Asked(consent), _) => {
                self.mesh.withdraw(id);
                Ok(Begun::Asked(consent))
            }
            (Written::Refused(refusal), _) => {
                self.mesh.withdraw(id);
                Err(refusal)
            }
        }
    }

    /// The store had begun with these runs and did not say whether it keeps them. Their caller was
    /// told so, and they were not sent: when it keeps them they are settled as lost. There are as
    /// many of these as one commit takes, at most.
    fn settle_late(&self, ids: Vec<RunId>, outcome: oneshot::Receiver<Vec<Written>>) {
        let (store, clock, stop) =
            (Arc::clone(&self.context.store), self.context.clock, self.mesh.stopping());
        let task = async move {
            let stored = tokio::select! {
                stored = outcome => stored.is_ok(),
                () = stop.cancelled() => false,
            };
            if !stored || ids.is_empty() {
                return;
            }
            let lose = || {
                let (ids, now) = (ids.clone(), clock.wall());
                move |tx: &mut dyn Tx| lose_all(tx, &ids, now)
            };
            // What is left when the hub stops is taken up again at its next start.
            let _stored = write_surely(&store, &stop, "the loss of runs that were not sent", lose).await;
        };
        drop(self.mesh.spawn(task));
    }
}

fn removed(name: &impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::NodeNotFound, format!("The node {name} was removed."))
}

fn check(request: &StartRuns) -> Result<(), Refusal> {
    request.spec.check()?;
    if request.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX) {
        let message = format!("The idempotency key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes.");
        return Err(Refusal::new(Code::InvalidArgument, message));
    }
    Ok(())
}

impl Judged {
    const fn starts(&self) -> bool {
        matches!(self.verdict, Ok(Verdict::Start { .. }))
    }

    /// Whether a run of the same name of a caller is the same caller's: a name that ended is given again,
    /// and who has it then inherits nothing. A person is the same one in another session.
    fn asked_it(&self, known: &Run) -> bool {
        known.token == self.run.token || (self.in_person && known.user == self.run.user)
    }
}

fn put(
    tx: &mut dyn Tx,
    one: &Judged,
    caller: &Result<Caller, Refusal>,
    locks: &Locks,
    context: &Context,
) -> Result<Written, WriteError> {
    let node = tx.node(one.run.node)?.filter(|node| node.removed_at.is_none());
    if let Some(approval) = &one.approval {
        if let Some(refusal) = asked::approve(tx, one, approval, node.as_ref(), locks, context)? {
            return Ok(Written::Refused(refusal));
        }
    } else if let Some(refusal) = locked(locks, one, node.as_ref()) {
        return refuse(tx, one, refusal);
    }
    if let Some(known) = known(tx, &one.run)? {
        if !one.asked_it(&known) {
            let message = format!(
                "The idempotency key was used on {} by an earlier {}, which is another one.",
                one.name, known.caller
            );
            let refusal = Refusal::new(Code::Conflict, message).hint("Use a new key.");
            return refuse(tx, one, refusal);
        }
        if known.spec == one.run.spec {
            return Ok(Written::Known(known));
        }
        let refusal = Refusal::new(
            Code::Conflict,
            format!("The idempotency key was used on {} for another command, run {}.", one.name, known.id),
        )
        .hint("Use a new key for a new command.");
        return refuse(tx, one, refusal);
    }
    if one.approval.is_none()
        && let Some(known) = asked::known(tx, one)?
    {
        return Ok(known);
    }
    // An approval has asked for itself.
    if one.approval.is_none()
        && one.verdict.is_ok()
        && let Err(refusal) = standing(node.as_ref(), caller, one)
    {
        return refuse(tx, one, refusal);
    }
    let rule = match &one.verdict {
        Ok(Verdict::Start { rule, lasting }) => {
            if let Some(refusal) = lasting.as_ref().map(|rule| asked::ended(tx, rule)).transpose()?.flatten()
            {
                return refuse(tx, one, refusal);
            }
            rule
        }
        Ok(Verdict::Ask { rule, reason }) => return asked::ask(tx, one, rule, reason, context),
        Err(refusal) => return refuse(tx, one, refusal.clone()),
    };
    let run = &one.run;
    let detail = asked::allowed_by(one);
    tx.append_audit(&AuditRow { detail, ..audit(one, Outcome::Allowed, rule) })?;
    tx.put_run(run)?;
    let event = Event::new(EventKind::RunAccepted, run.accepted_at).node(run.node).run(run.id);
    tx.append_event(&event.actor(run.caller.clone()))?;
    Ok(Written::Accepted(run.clone()))
}

/// A node that was removed or shut out after the judgement gets nothing any more (ABUSE 100), and a
/// caller that has lost its right starts nothing there.
fn standing(node: Option<&Node>, caller: &Result<Caller, Refusal>, one: &Judged) -> Result<(), Refusal> {
    let node = node.ok_or_else(|| removed(&one.name))?;
    refuse_quarantined(node)?;
    caller.as_ref().map_err(Refusal::clone)?.on(Right::RunsStart, node)
}

/// The lock that stops the caller, or else the node.
fn locked(locks: &Locks, one: &Judged, node: Option<&Node>) -> Option<Refusal> {
    let (run, now) = (&one.run, one.run.accepted_at);
    let on_caller = run.token.and_then(|token| locks.on_caller(token, run.user, now));
    let on_node = || node.and_then(|node| locks.on_node(node.id, &node.labels, now));
    on_caller.or_else(on_node).map(Lock::refusal)
}

fn known(tx: &dyn Tx, run: &Run) -> Result<Option<Run>, WriteError> {
    match &run.idempotency_key {
        Some(key) => Ok(tx.run_by_key(&run.caller, run.node, key)?),
        None => Ok(None),
    }
}

pub(super) fn refuse(tx: &mut dyn Tx, one: &Judged, refusal: Refusal) -> Result<Written, WriteError> {
    let reason = Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned();
    tx.append_audit(&AuditRow { run: None, ..audit(one, Outcome::Denied, &reason) })?;
    if matches!(refusal.code, Code::PolicyDenied | Code::SandboxUnavailable | Code::ConsentRequired) {
        let event = Event::new(EventKind::RunDenied, one.run.accepted_at).node(one.run.node);
        tx.append_event(&event.actor(one.run.caller.clone()).detail(reason))?;
    }
    Ok(Written::Refused(refusal))
}

pub(super) fn audit(one: &Judged, outcome: Outcome, reason: &str) -> AuditRow {
    let run = &one.run;
    AuditRow {
        reason: Some(reason.to_owned()),
        node: Some(run.node),
        run: Some(run.id),
        policy_revision: Some(run.policy_revision),
        policy_hash: one.policy_hash,
        argv: run.spec.argv.clone(),
        token: run.token,
        consent: run.consent,
        ..AuditRow::new(run.accepted_at, run.caller.clone(), "run.start", outcome)
    }
}

fn lose_all(tx: &mut dyn Tx, ids: &[RunId], now: WallTime) -> Result<(), WriteError> {
    for id in ids {
        let Some(before) = tx.run(*id)? else { continue };
        let diagnostic = "The hub's store answered too late; the command was not sent.".to_owned();
        let command = run::Command::Lose { diagnostic, output: Positions::default() };
        let Ok((after, events)) = run::decide(&before, command, now) else { continue };
        tx.put_run(&after)?;
        for event in &events {
            tx.append_event(event)?;
        }
    }
    Ok(())
}

fn new_run(
    caller: &Caller,
    request: &StartRuns,
    node: &Node,
    policy_revision: Revision,
    id: RunId,
    now: WallTime,
) -> Run {
    let accepted = Run::accepted(id, node.id, request.spec.clone(), caller.actor(), policy_revision, now);
    Run {
        idempotency_key: request.key.clone(),
        traceparent: request.traceparent.clone(),
        token: Some(caller.token.id),
        user: caller.token.user,
        ..accepted
    }
}
