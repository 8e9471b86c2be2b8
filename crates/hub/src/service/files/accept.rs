//! How operations on files are accepted: judged, written, handed to their node.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::{FileAsk, Ticket};
use cortex_core::files::entity::{FileEnd, FileState, FileTask, decide};
use cortex_core::files::op::{Content, FileOp};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Attempt, NodeId, OpId, Revision, TaskId};
use cortex_core::limits::PROTOCOL_FILES;
use cortex_core::lock::{Lock, Locks};
use cortex_core::node::Node;
use cortex_core::policy::{Answer, FileQuestion, Rule, judge_files};
use cortex_core::pool::TaskState;
use cortex_core::pool::desk::not_found;
use cortex_core::sandbox::Access;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_core::workspace::{Quoted, Writer};
use cortex_core::{Code, Refusal};
use cortex_store::{StoreError, StoreExt as _, Tx, WriteError};
use tokio::sync::oneshot;

use super::{FileCall, Files, is_streamed, right};
use crate::clock::new_op_id;
use crate::mesh::{Asker, FilePlace, Waiting, refuse_quarantined};
use crate::service::outcome::{Stored, write_once, write_surely};
use crate::service::pool::{had, is_own};
use crate::service::workspaces::Mirrored;
use crate::service::workspaces::locks::check_write;
use crate::service::{Caller, Context, STORE_DEADLINE, store_refusal};
use crate::transfer::Opening;

/// What became of a call.
pub(super) enum Accepted {
    /// A read is on its way; with its content when that has a stream.
    Read(Waiting, Arc<Judged>, Option<Opening>),
    /// A change is on its way, likewise.
    Change(OpId, Waiting, Option<Opening>),
    /// It was asked for before, and has not ended.
    Open(OpId),
    /// It was asked for before, and has ended.
    Ended(OpId, FileEnd),
}

/// A call, judged.
pub(super) struct Judged {
    id: OpId,
    call: FileCall,
    caller: Caller,
    now: WallTime,
    policy_revision: Revision,
    /// Leave for the stream of its content.
    ticket: Option<Ticket>,
    /// blake3 of the policy that judged it.
    policy_hash: Option<[u8; 32]>,
    /// The rule that allows it, or why it is refused.
    verdict: Result<String, Refusal>,
    /// The hub's copy of the folder that answers it.
    copy: Option<Mirrored>,
}

/// What the transaction made of it.
pub(super) enum Written {
    /// It may be sent, under this lock.
    Accepted(Option<Quoted>),
    /// An earlier call with this key is that operation.
    Known(OpId, FileState),
    /// Refused; the audit row is written.
    Refused(Refusal),
}

impl Files {
    pub(super) async fn accept(&self, caller: &Caller, call: FileCall) -> Result<Accepted, Refusal> {
        let (context, id) = (&self.context, new_op_id(&self.context.clock));
        let policy = context.directory.policy(call.node.id, call.node.joined_at);
        let judged = self.judge(caller, &call).and_then(|rule| {
            let place = self.place(id, caller, &call)?;
            Ok((rule, place, is_streamed(&call.op).then(|| self.mesh.ticket(call.node.id)).transpose()?))
        });
        let (verdict, place, opening) = match judged {
            Ok((rule, place, opening)) => (Ok(rule), Some(place), opening),
            Err(refusal) => (Err(refusal), None, None),
        };
        let one = Arc::new(Judged {
            id,
            caller: caller.clone(),
            now: context.clock.wall(),
            policy_revision: policy.revision,
            policy_hash: context.directory.policy_hash(call.node.id),
            ticket: opening.as_ref().map(Opening::ticket),
            call,
            verdict,
            copy: None,
        });
        let written = self.write(&one).await?;
        match (written, place) {
            (Written::Accepted(lock), Some(place)) => {
                if let Some(lock) = lock {
                    context.directory.folders().used(lock, context.clock.now());
                }
                let waiting = self.mesh.file(one.ask(lock), &place);
                let reads = one.call.op.is_read();
                Ok(if reads {
                    Accepted::Read(waiting, one, opening)
                } else {
                    Accepted::Change(id, waiting, opening)
                })
            }
            (Written::Accepted(_), None) => {
                Err(Refusal::new(Code::Internal, "The operation was accepted without a place for it."))
            }
            (Written::Known(id, FileState::Accepted), _) => Ok(Accepted::Open(id)),
            (Written::Known(id, FileState::Ended(end)), _) => Ok(Accepted::Ended(id, end)),
            (Written::Refused(refusal), _) => Err(refusal),
        }
    }

    /// The rule that allows it, as things are at this moment, whoever answers it.
    fn allowed(&self, caller: &Caller, call: &FileCall) -> Result<(String, Arc<Node>), Refusal> {
        let directory = &self.context.directory;
        let node = directory.node(call.node.id).ok_or_else(|| removed(&call.node))?;
        self.context.still(caller)?.on(right(&call.op), &node)?;
        refuse_quarantined(&node)?;
        let (policy, site) = (directory.policy(node.id, node.joined_at), directory.site(node.id));
        let name = node.name.as_str();
        let question = FileQuestion { op: &call.op, node: name, site: &site, reserved: &[], consent: false };
        match judge_files(&policy.document, &question)? {
            Answer::Allowed { rule } => Ok((rule.to_string(), Arc::clone(&node))),
            Answer::Ask { rule } => Err(asks(&rule, name)),
        }
    }

    /// The rule that allows it at the node.
    fn judge(&self, caller: &Caller, call: &FileCall) -> Result<String, Refusal> {
        let (rule, node) = self.allowed(caller, call)?;
        let name = node.name.as_str();
        match self.mesh.protocol(node.id) {
            None => Err(offline(&node)),
            Some(protocol) if protocol < PROTOCOL_FILES => {
                let message = format!(
                    "{name} speaks version {protocol} of the protocol; operations on files need {PROTOCOL_FILES}."
                );
                Err(Refusal::new(Code::VersionUnsupported, message)
                    .hint(format!("Install the hub's version of `cortex` on {name}.")))
            }
            Some(_) => Ok(rule),
        }
    }

    fn place(&self, op: OpId, caller: &Caller, call: &FileCall) -> Result<FilePlace, Refusal> {
        let (token, user) = (Some(caller.token.id), caller.token.user);
        self.mesh.file_place(op, Asker { token, user, node: call.node.id, attempt: call.attempt })
    }

    pub(super) async fn write(&self, one: &Arc<Judged>) -> Result<Written, Refusal> {
        let (context, judged) = (self.context.clone(), Arc::clone(one));
        let work = move |tx: &mut dyn Tx| put(tx, &judged, &context);
        match write_once(&self.context.store, STORE_DEADLINE, work).await {
            Stored::Done(written) => Ok(written),
            Stored::Refused(refusal) => Err(refusal),
            Stored::Not(error) => Err(store_refusal(error)),
            Stored::Open(outcome) => {
                if !one.call.op.is_read() {
                    self.settle_late(one.id, outcome);
                }
                Err(store_refusal(StoreError::Timeout(STORE_DEADLINE)))
            }
        }
    }

    /// Has the refusal of a read by its node kept: nothing else is kept of reads. The answer waits for
    /// nothing.
    pub(super) fn tell_denied(&self, one: &Arc<Judged>, answer: &Result<FileAnswer, Refusal>) {
        let Err(refusal) = answer else { return };
        let (store, refusal) = (Arc::clone(&self.context.store), refusal.clone());
        let (one, now) = (Arc::clone(one), self.context.clock.wall());
        drop(self.mesh.spawn(async move {
            let written = store.write(STORE_DEADLINE, move |tx| {
                let reason = Rule::of(&refusal).unwrap_or(refusal.code.as_str());
                let row = one.audit(Outcome::Denied, reason);
                let by = "refused by the node";
                let detail = row.detail.map_or_else(|| by.to_owned(), |detail| format!("{detail}, {by}"));
                tx.append_audit(&AuditRow { at: now, detail: Some(detail), ..row })?;
                tx.append_event(&one.denied(reason, now))?;
                Ok(())
            });
            if let Err(error) = written.await {
                tracing::error!(%error, "the refusal of a node is not in the audit log");
            }
        }));
    }

    /// The store had begun with it and did not say whether it keeps it. Its caller was told so, and it was
    /// not sent: when it is kept, that is its end.
    fn settle_late(&self, op: OpId, outcome: oneshot::Receiver<Written>) {
        let (store, clock, stop) =
            (Arc::clone(&self.context.store), self.context.clock, self.mesh.stopping());
        let task = async move {
            let stored = tokio::select! {
                stored = outcome => matches!(stored, Ok(Written::Accepted(_))),
                () = stop.cancelled() => false,
            };
            if !stored {
                return;
            }
            let end = || {
                let now = clock.wall();
                move |tx: &mut dyn Tx| not_sent(tx, op, now)
            };
            // What is left when the hub stops is taken up at its next start, and its node does not know it.
            let _stored = write_surely(&store, &stop, "the end of an operation that was not sent", end).await;
        };
        drop(self.mesh.spawn(task));
    }
}

impl Judged {
    /// A read that a copy answers.
    pub(super) fn of_copy(files: &Files, caller: &Caller, call: FileCall, copy: Mirrored) -> Self {
        let context = &files.context;
        let verdict = files.allowed(caller, &call).map(|(rule, _)| rule);
        Self {
            id: new_op_id(&context.clock),
            caller: caller.clone(),
            now: context.clock.wall(),
            policy_revision: context.directory.policy(call.node.id, call.node.joined_at).revision,
            policy_hash: context.directory.policy_hash(call.node.id),
            ticket: None,
            call,
            verdict,
            copy: Some(copy),
        }
    }

    fn ask(&self, lock: Option<Quoted>) -> FileAsk {
        FileAsk {
            id: self.id,
            op: self.call.op.clone(),
            caller: self.caller.actor(),
            policy_revision: self.policy_revision,
            traceparent: self.call.traceparent.clone(),
            consent: None,
            attempt: self.call.attempt,
            deadline_ms: self.call.deadline_ms,
            lock: lock.map(|lock| (lock.workspace, lock.epoch)),
            ticket: self.ticket,
        }
    }

    fn task(&self) -> FileTask {
        let (call, caller) = (&self.call, &self.caller);
        let of = (call.node.id, caller.actor());
        FileTask {
            token: Some(caller.token.id),
            key: call.key.clone(),
            attempt: call.attempt,
            ..FileTask::accepted(self.id, of.0, &call.op, of.1, self.policy_revision, self.now)
        }
    }

    fn node(&self) -> NodeId {
        self.call.node.id
    }

    /// The event of a rule that refused it.
    fn denied(&self, reason: &str, now: WallTime) -> Event {
        let event = Event::new(EventKind::FileDenied, now).node(self.node()).actor(self.caller.actor());
        let op = &self.call.op;
        event.subject(op.path().as_str()).detail(format!("{} {reason}", op.verb()))
    }

    /// Its row, with what is said of it and never its content.
    fn audit(&self, outcome: Outcome, reason: &str) -> AuditRow {
        let (call, caller) = (&self.call, &self.caller);
        let mut argv = call.op.spoken();
        argv.extend(bytes(&call.op).map(|bytes| format!("bytes={bytes}")));
        let kept = (!call.op.is_read() && outcome == Outcome::Allowed).then(|| format!("op {}", self.id));
        let of = call.attempt.map(|(task, attempt)| format!("task {task}, attempt {attempt}"));
        let dry = (call.op.is_read() && right(&call.op) == cortex_core::rights::Right::FilesWrite)
            .then(|| "dry run".to_owned());
        let lock = call.lock.map(|epoch| format!("lock {epoch}"));
        let copy = self.copy.map(|copy| format!("the hub's copy at revision {}", copy.revision));
        let detail: Vec<String> = kept.into_iter().chain(of).chain(dry).chain(lock).chain(copy).collect();
        AuditRow {
            reason: Some(reason.to_owned()),
            node: Some(self.node()),
            policy_revision: Some(self.policy_revision),
            policy_hash: self.policy_hash,
            argv,
            detail: (!detail.is_empty()).then(|| detail.join(", ")),
            token: Some(caller.token.id),
            ..AuditRow::new(self.now, caller.actor(), call.op.verb().action(), outcome)
        }
    }

    /// Whether an operation of the same name of a caller is the same caller's: a name that ended is given
    /// again, and who has it then inherits nothing. A person is the same one in another session.
    fn asked_it(&self, tx: &dyn Tx, known: &FileTask) -> Result<bool, WriteError> {
        let own = &self.caller.token;
        if known.token == Some(own.id) {
            return Ok(true);
        }
        if own.kind != TokenKind::Session || own.user.is_none() {
            return Ok(false);
        }
        let other = known.token.map(|token| tx.token(token)).transpose()?.flatten();
        Ok(other.is_some_and(|other| other.kind == TokenKind::Session && other.user == own.user))
    }
}

/// Bytes of content that a change brings.
fn bytes(op: &FileOp) -> Option<u64> {
    match op {
        FileOp::Write { content: Content::Inline(bytes), .. } => Some(bytes.len() as u64),
        FileOp::Write { content: Content::Streamed { len, .. }, .. } => *len,
        FileOp::Edit { edits, .. } => Some(edits.iter().map(|edit| edit.new.len() as u64).sum()),
        FileOp::List { .. }
        | FileOp::Stat { .. }
        | FileOp::Read { .. }
        | FileOp::Find { .. }
        | FileOp::Grep { .. }
        | FileOp::MakeDir { .. }
        | FileOp::Remove { .. }
        | FileOp::Move { .. }
        | FileOp::Copy { .. } => None,
    }
}

fn put(tx: &mut dyn Tx, one: &Judged, context: &Context) -> Result<Written, WriteError> {
    // Of this very transaction: a lock that is committed before it holds on this.
    let locks = Locks::new(tx.locks()?);
    let node = tx.node(one.node())?.filter(|node| node.removed_at.is_none());
    if let Some(refusal) = locked(&locks, one, node.as_ref()) {
        return refuse(tx, one, refusal);
    }
    if let Some(known) = known(tx, one)? {
        return Ok(known);
    }
    let standing = one.verdict.clone().and_then(|rule| {
        let node = node.as_ref().ok_or_else(|| removed(&one.call.node))?;
        refuse_quarantined(node)?;
        context.still(&one.caller)?.on(right(&one.call.op), node)?;
        Ok(rule)
    });
    let rule = match standing {
        Ok(rule) => rule,
        Err(refusal) => return refuse(tx, one, refusal),
    };
    if let Some((task, attempt)) = one.call.attempt
        && let Err(refusal) = fence(tx, &one.caller, task, attempt)?
    {
        return refuse(tx, one, refusal);
    }
    let lock = match under_lock(tx, one)? {
        Ok(lock) => lock,
        Err(refusal) => return refuse(tx, one, refusal),
    };
    tx.append_audit(&one.audit(Outcome::Allowed, &rule))?;
    if !one.call.op.is_read() {
        tx.put_file_op(&one.task())?;
    }
    Ok(Written::Accepted(lock))
}

/// The lock of a workspace under which it changes what it changes. What is only read, nobody's lock stops.
fn under_lock(tx: &dyn Tx, one: &Judged) -> Result<Result<Option<Quoted>, Refusal>, WriteError> {
    let op = &one.call.op;
    if op.is_read() {
        return Ok(Ok(None));
    }
    let written = op.paths().filter(|(_, access)| *access == Access::Write);
    let paths: Vec<&FilePath> = written.map(|(path, _)| path).collect();
    let actor = one.caller.actor();
    let writer = Writer { actor: &actor, epoch: one.call.lock };
    Ok(check_write(tx, one.node(), &paths, writer)?)
}

/// The lock that stops the caller, or else the node.
fn locked(locks: &Locks, one: &Judged, node: Option<&Node>) -> Option<Refusal> {
    let token = &one.caller.token;
    let on_caller = locks.on_caller(token.id, token.user, one.now);
    let on_node = || node.and_then(|node| locks.on_node(node.id, &node.labels, one.now));
    on_caller.or_else(on_node).map(Lock::refusal)
}

/// What an earlier call with this key has come to. One that the hub itself gave up, since it cannot have
/// been done, is out of the way: the repeat takes its place.
fn known(tx: &mut dyn Tx, one: &Judged) -> Result<Option<Written>, WriteError> {
    let Some(key) = one.call.key.as_deref().filter(|_| !one.call.op.is_read()) else { return Ok(None) };
    let Some(known) = tx.file_op_by_key(&one.caller.actor(), one.node(), key)? else { return Ok(None) };
    if !one.asked_it(tx, &known)? {
        let message = format!(
            "The idempotency key was used on {} by an earlier {}, which is another one.",
            one.call.node.name, known.caller
        );
        let refusal = Refusal::new(Code::Conflict, message).hint("Use a new key.");
        return refuse(tx, one, refusal).map(Some);
    }
    if let Err(refusal) = known.check_repeat(&one.call.op) {
        return refuse(tx, one, refusal).map(Some);
    }
    if known.end().is_some_and(was_never_done) && one.verdict.is_ok() {
        tx.remove_file_ops(&[known.id])?;
        return Ok(None);
    }
    Ok(Some(Written::Known(known.id, known.state)))
}

/// Whether the node never took it on, for certain.
fn was_never_done(end: &FileEnd) -> bool {
    matches!(end, Err(refusal) if matches!(refusal.code, Code::NodeOffline | Code::StoreUnavailable))
}

/// Whether this attempt of the task has its lease, and the caller works on it or owns it. To a stranger the
/// task is not there (ABUSE 64).
pub(in crate::service) fn fence(
    tx: &dyn Tx,
    caller: &Caller,
    id: TaskId,
    attempt: Attempt,
) -> Result<Result<(), Refusal>, WriteError> {
    let Some(task) = tx.task(id)? else { return Ok(Err(not_found(id))) };
    if !is_own(caller, &task) && !had(tx, id, attempt, caller.token.id)? {
        return Ok(Err(not_found(id)));
    }
    if task.state == TaskState::Leased && task.attempt == attempt {
        return Ok(Ok(()));
    }
    let message = format!(
        "Attempt {attempt} of task {id} has ended; the task is {} at attempt {}. Nothing was done.",
        task.state.as_str(),
        task.attempt
    );
    Ok(Err(Refusal::new(Code::StaleAttempt, message).detail("attempt", task.attempt.to_string())))
}

fn refuse(tx: &mut dyn Tx, one: &Judged, refusal: Refusal) -> Result<Written, WriteError> {
    let reason = Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned();
    tx.append_audit(&one.audit(Outcome::Denied, &reason))?;
    if matches!(refusal.code, Code::PolicyDenied | Code::PathOutsideRoots | Code::SandboxUnavailable) {
        tx.append_event(&one.denied(&reason, one.now))?;
    }
    Ok(Written::Refused(refusal))
}

fn not_sent(tx: &mut dyn Tx, op: OpId, now: WallTime) -> Result<(), WriteError> {
    let Some(task) = tx.file_op(op)? else { return Ok(()) };
    let message = "The hub's store answered too late; the operation was not sent.";
    let Ok((ended, events)) = decide(&task, Err(Refusal::new(Code::StoreUnavailable, message)), now) else {
        return Ok(());
    };
    for event in &events {
        tx.append_event(event)?;
    }
    tx.put_file_op(&ended)
}

/// Nobody can be asked about it.
pub(in crate::service) fn asks(rule: &Rule, node: &str) -> Refusal {
    let message = format!(
        "The policy of {node} wants a person to allow this (rule {rule}), and nobody can be asked about files."
    );
    Refusal::new(Code::PolicyDenied, message)
        .hint("Ask an administrator to change `sensitive`, or do it by a command with `cortex exec`, which asks a person.")
        .detail("rule", rule.as_str())
}

pub(in crate::service) fn offline(node: &Node) -> Refusal {
    Refusal::new(
        Code::NodeOffline,
        format!("{} is offline; nothing was sent, and nothing waits for it.", node.name),
    )
}

pub(in crate::service) fn removed(node: &Node) -> Refusal {
    Refusal::new(Code::NodeNotFound, format!("The node {} was removed.", node.name))
}
