//! How a transfer is accepted: each of its nodes is judged, and all are written, before one is asked.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{Attempt, LockEpoch, Revision, TaskId, TransferId};
use cortex_core::limits::PROTOCOL_FILES;
use cortex_core::lock::{Lock, Locks};
use cortex_core::node::Node;
use cortex_core::policy::{Answer, Rule, TransferQuestion, judge_transfer, spoken_transfer};
use cortex_core::time::WallTime;
use cortex_core::workspace::{Quoted, Writer};
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::drive::Drive;
use super::open::Transfer;
use super::shown::Stage;
use super::{Asking, Inner, Kind, Order};
use crate::mesh::{Asker, MovingPlace, Wishing, refuse_quarantined};
use crate::service::files::accept::{asks, fence, offline, removed};
use crate::service::workspaces::locks::check_write;
use crate::service::{Caller, Context};

/// A transfer at one node, judged.
struct Judged {
    node: Arc<Node>,
    policy_revision: Revision,
    /// blake3 of the policy that judged it.
    policy_hash: Option<[u8; 32]>,
    /// The rule that allows it, or why it is refused.
    verdict: Result<String, Refusal>,
}

/// What all of them have in common.
struct Batch {
    id: TransferId,
    order: Order,
    caller: Caller,
    attempt: Option<(TaskId, Attempt)>,
    lock: Option<LockEpoch>,
    now: WallTime,
}

impl Inner {
    /// Judges the nodes, which are told by their seats, writes what came of it, and begins with those that
    /// may be asked.
    pub(super) async fn accept(
        self: &Arc<Self>,
        caller: &Caller,
        transfer: &Arc<Transfer>,
        nodes: Vec<(usize, Arc<Node>)>,
        asking: Asking,
    ) -> Result<(), Refusal> {
        let (token, user) = (Some(caller.token.id), caller.token.user);
        // From before they are written on: whatever ends one of them finds it.
        let place = |node: &Arc<Node>| {
            let by = Asker { token, user, node: node.id, attempt: asking.attempt };
            self.mesh.moving(transfer.id, by)
        };
        let places: Vec<(MovingPlace, Wishing)> = nodes.iter().map(|(_, node)| place(node)).collect();
        let judged: Vec<Judged> =
            nodes.iter().map(|(_, node)| self.judged(caller, node, &transfer.order)).collect();
        let batch = Batch {
            id: transfer.id,
            order: transfer.order.clone(),
            caller: caller.clone(),
            attempt: asking.attempt,
            lock: asking.lock,
            now: transfer.at,
        };
        let context = self.context.clone();
        let work = move |tx: &mut dyn Tx| put(tx, &context, &batch, &judged);
        let written = self.context.commit(work, |_| ()).await?;
        let unknown = transfer.shown().rows.into_iter().enumerate();
        for (seat, refusal) in unknown.filter_map(|(seat, row)| Some((seat, row.error?))) {
            self.end_row(transfer, seat, Stage::Failed, Err(refusal)).await;
        }
        for (((seat, node), (place, wishing)), written) in nodes.into_iter().zip(places).zip(written) {
            match written {
                Ok(()) => {
                    let drive = Drive {
                        inner: Arc::clone(self),
                        transfer: Arc::clone(transfer),
                        seat,
                        node,
                        place,
                        caller: caller.clone(),
                        asking: asking.clone(),
                    };
                    drop(self.mesh.spawn(drive.run(wishing)));
                }
                Err(refusal) => self.end_row(transfer, seat, Stage::Failed, Err(refusal)).await,
            }
        }
        if transfer.order.kind() == Kind::Push {
            drop(self.mesh.spawn(Arc::clone(self).watch(Arc::clone(transfer))));
        }
        Ok(())
    }

    fn judged(&self, caller: &Caller, node: &Arc<Node>, order: &Order) -> Judged {
        let directory = &self.context.directory;
        let policy_revision = directory.policy(node.id, node.joined_at).revision;
        Judged {
            policy_revision,
            policy_hash: directory.policy_hash(node.id),
            verdict: self.judge(caller, node, order),
            node: Arc::clone(node),
        }
    }

    /// The rule that allows it, as things are at this moment.
    pub(super) fn judge(&self, caller: &Caller, node: &Node, order: &Order) -> Result<String, Refusal> {
        let directory = &self.context.directory;
        let node = directory.node(node.id).ok_or_else(|| removed(node))?;
        self.context.still(caller)?.on(order.right(), &node)?;
        refuse_quarantined(&node)?;
        let (policy, site) = (directory.policy(node.id, node.joined_at), directory.site(node.id));
        let (name, writes) = (node.name.as_str(), order.kind() == Kind::Push);
        let path = order.path().ok_or_else(no_folder)?;
        let question =
            TransferQuestion { path, writes, node: name, site: &site, reserved: &[], consent: false };
        let rule = match judge_transfer(&policy.document, &question)? {
            Answer::Allowed { rule } => rule.to_string(),
            Answer::Ask { rule } => return Err(asks(&rule, name)),
        };
        match self.mesh.protocol(node.id) {
            None => Err(offline(&node)),
            Some(protocol) if protocol < PROTOCOL_FILES => {
                let message = format!(
                    "{name} speaks version {protocol} of the protocol; transfers need {PROTOCOL_FILES}."
                );
                Err(Refusal::new(Code::VersionUnsupported, message)
                    .hint(format!("Install the hub's version of `cortex` on {name}.")))
            }
            Some(_) => Ok(rule),
        }
    }

    /// The lock of a workspace under which it changes what it changes at this node, at this moment.
    pub(super) fn under_lock(
        &self,
        caller: &Caller,
        node: &Node,
        order: &Order,
        epoch: Option<LockEpoch>,
    ) -> Result<Option<Quoted>, Refusal> {
        let Some(path) = order.written() else { return Ok(None) };
        let actor = caller.actor();
        self.context.directory.folders().check(node.id, &[&path], Writer { actor: &actor, epoch })
    }
}

/// Writes a row of the audit log for each node, and what is told of it.
fn put(
    tx: &mut dyn Tx,
    context: &Context,
    batch: &Batch,
    judged: &[Judged],
) -> Result<Vec<Result<(), Refusal>>, WriteError> {
    // Of this very transaction: a lock that is committed before it holds on this.
    let locks = Locks::new(tx.locks()?);
    let token = &batch.caller.token;
    let on_caller = locks.on_caller(token.id, token.user, batch.now).map(Lock::refusal);
    let fenced = match batch.attempt {
        Some((task, attempt)) => fence(tx, &batch.caller, task, attempt)?,
        None => Ok(()),
    };
    let (written_path, actor) = (batch.order.written(), batch.caller.actor());
    let mut written = Vec::new();
    for one in judged {
        let node = tx.node(one.node.id)?.filter(|node| node.removed_at.is_none());
        let on_node =
            node.as_ref().and_then(|node| locks.on_node(node.id, &node.labels, batch.now)).map(Lock::refusal);
        let standing = match on_caller.clone().or(on_node) {
            Some(refusal) => Err(refusal),
            None => one.verdict.clone().and_then(|rule| {
                let node = node.as_ref().ok_or_else(|| removed(&one.node))?;
                refuse_quarantined(node)?;
                context.still(&batch.caller)?.on(batch.order.right(), node)?;
                fenced.clone().map(|()| rule)
            }),
        };
        let standing = match (standing, &written_path) {
            (Ok(rule), Some(path)) => {
                let writer = Writer { actor: &actor, epoch: batch.lock };
                check_write(tx, one.node.id, &[path], writer)?.map(|_lock| rule)
            }
            (standing, _) => standing,
        };
        match standing {
            Ok(rule) => {
                tx.append_audit(&batch.audit(one, Outcome::Allowed, &rule))?;
                let kind = EventKind::TransferStarted;
                let detail = format!("{} {}", batch.order.kind().as_str(), batch.order.place());
                tx.append_event(&batch.event(one, kind).subject(batch.id.to_string()).detail(detail))?;
                written.push(Ok(()));
            }
            Err(refusal) => {
                let reason = Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned();
                tx.append_audit(&batch.audit(one, Outcome::Denied, &reason))?;
                let by_rule = [Code::PolicyDenied, Code::PathOutsideRoots, Code::SandboxUnavailable];
                if by_rule.contains(&refusal.code) {
                    let detail = format!("{} {reason}", batch.order.kind().as_str());
                    let event = batch.event(one, EventKind::FileDenied);
                    tx.append_event(&event.subject(batch.order.place()).detail(detail))?;
                }
                written.push(Err(refusal));
            }
        }
    }
    Ok(written)
}

impl Batch {
    fn event(&self, one: &Judged, kind: EventKind) -> Event {
        Event::new(kind, self.now).node(one.node.id).actor(self.caller.actor())
    }

    /// A row of the audit log, with what is moved and never its content.
    fn audit(&self, one: &Judged, outcome: Outcome, reason: &str) -> AuditRow {
        let kind = self.order.kind();
        let path = self.order.path();
        let mut argv = path.map_or_else(Vec::new, |path| spoken_transfer(path, kind == Kind::Push));
        let mut detail = vec![format!("transfer {}", self.id)];
        if let Order::Push(push) = &self.order {
            argv.extend([push.root.to_string(), push.entries.to_string(), push.bytes.to_string()]);
            let said = [(push.delete, "delete"), (push.force, "force"), (push.dry_run, "dry run")];
            detail.extend(said.into_iter().filter(|(said, _)| *said).map(|(_, word)| word.to_owned()));
        }
        detail.extend(self.attempt.map(|(task, attempt)| format!("task {task}, attempt {attempt}")));
        detail.extend(self.lock.map(|epoch| format!("lock {epoch}")));
        let action = format!("{}.start", kind.as_str());
        AuditRow {
            reason: Some(reason.to_owned()),
            node: Some(one.node.id),
            policy_revision: Some(one.policy_revision),
            policy_hash: one.policy_hash,
            argv,
            detail: Some(detail.join(", ")),
            token: Some(self.caller.token.id),
            ..AuditRow::new(self.now, self.caller.actor(), action, outcome)
        }
    }
}

fn no_folder() -> Refusal {
    Refusal::new(Code::Internal, "An import was taken for a push.")
}
