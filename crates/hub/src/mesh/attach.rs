//! How a link begins and ends: who may have one, its epoch from the store, the place in the
//! registry. The store is asked once, with a deadline, and only by the link that begins: links
//! that are up never wait for it.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::hub_runs::Decision;
use cortex_core::id::{Epoch, Generation, NodeId};
use cortex_core::limits::{ATTACH_STORE_MS_MAX, BACKOFF_MS_MAX};
use cortex_core::message::{Hello, ToNode, Welcome};
use cortex_core::node::{AuditHead, Node};
use cortex_core::registry::{Attached, Dial};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{StoreExt, Tx, WriteError};

use super::slot::SlotState;
use super::{Inner, Link, Mesh, lock};
use crate::audit_watch::AuditWatch;
use crate::authority::Identity;
use crate::service::audit::{broken_event, has_row};
use crate::service::outcome::write_surely;
use crate::service::write_refusal;

impl Mesh {
    /// Whether the one who showed this certificate may have a link.
    ///
    /// # Errors
    /// `node_revoked`, `cloned_identity`, `unauthenticated` for a key that another has replaced.
    pub fn admit(&self, identity: &Identity) -> Result<Arc<Node>, Refusal> {
        let node = self.inner.context.directory.node(identity.node).ok_or_else(revoked)?;
        refuse_quarantined(&node)?;
        if node.key_hash != identity.key_hash {
            return Err(other_key(&node));
        }
        Ok(node)
    }

    /// A link that has said nothing yet.
    pub fn open_link(&self, node: NodeId) -> Arc<Link> {
        Arc::new(Link::new(self.inner.next_link(), node, self.inner.context.clock.now()))
    }

    /// Hello came: the link gets its epoch and its Welcome, and what runs goes on. A link that was
    /// there before is told to go.
    ///
    /// # Errors
    /// `store_unavailable` within its deadline, `rate_limited`, `node_revoked`,
    /// `cloned_identity`, `stale_epoch`. The link is to be closed with it.
    pub async fn attach(&self, link: &Arc<Link>, hello: Hello) -> Result<(), Refusal> {
        link.set_protocol(hello.protocol);
        let record = {
            let _permit = self.inner.attaches.try_acquire().map_err(|_| {
                Refusal::new(Code::RateLimited, "Too many nodes attach at this moment.")
                    .detail("retry_after_s", "1")
            })?;
            self.inner.record_attach(link.node(), &hello).await?
        };
        self.inner.context.directory.put_attached(&record.node);
        self.inner.take_up(link, hello, record)
    }

    /// The link ended. A link that was displaced before changes nothing.
    pub fn detach(&self, link: &Arc<Link>) {
        let inner = &self.inner;
        let forget = || inner.tickets.link_ended(link.id());
        if !lock(&inner.slots).contains_key(&link.node()) {
            return forget();
        }
        inner.with_slot(link.node(), |slot, state| {
            let gone = {
                let mut present = lock(&inner.present);
                let gone = present.registry.detach(link.node(), link.id());
                if gone {
                    present.links.remove(&link.node());
                }
                gone
            };
            if gone {
                state.link = None;
                inner.came_or_went.send_replace(());
                let now = inner.context.clock.now();
                state.runs.detached(link.id(), now);
                state.files.machine.detached(link.id(), now);
                state.decisions.push(Decision::Event(inner.event(EventKind::NodeOffline, link.node())));
                lock(&inner.left).insert(link.node(), link.heard());
                tracing::info!("node is offline");
            }
            inner.act(slot, state);
        });
        // Behind its place among those that are here: no ticket of it comes after that.
        forget();
    }
}

/// What the store said at attach.
struct Record {
    node: Node,
    epoch: Epoch,
    generation: Generation,
}

impl Inner {
    async fn record_attach(&self, id: NodeId, hello: &Hello) -> Result<Record, Refusal> {
        let (now, directory) = (self.context.clock.wall(), self.context.directory.clone());
        let (facts, ceiling, seen) = (hello.facts.clone(), hello.ceiling.clone(), hello.audit_head);
        let of_this_log = hello.generation;
        let recorded = self.context.store.write(Duration::from_millis(ATTACH_STORE_MS_MAX), move |tx| {
            let epoch = tx.next_epoch(id)?.ok_or_else(revoked)?;
            let mut node = tx.node(id)?.ok_or_else(revoked)?;
            if node.removed_at.is_some() {
                return Err(revoked().into());
            }
            refuse_quarantined(&node)?;
            node.facts = facts;
            node.ceiling = ceiling;
            node.last_seen_at = Some(now);
            let generation = tx.generation()?;
            if let Some(head) = seen.filter(|_| of_this_log == generation) {
                testify(tx, &mut node, head, directory.audit(), now)?;
            }
            tx.put_node(&node)?;
            Ok(Record { node, epoch, generation })
        });
        recorded.await.map_err(write_refusal)
    }

    fn take_up(&self, link: &Arc<Link>, hello: Hello, record: Record) -> Result<(), Refusal> {
        let Record { node, epoch, generation } = record;
        self.with_slot(node.id, |slot, state| {
            // Whoever shuts a node out takes it from the directory first and its link then, under
            // this lock: a link that begins is seen by him, or sees what he did.
            self.still_admitted(node.id)?;
            let (attached, displaced) =
                self.register(link, epoch, Dial { instance: hello.instance, number: hello.dial });
            if let Some(displaced) = displaced {
                let refusal =
                    if matches!(attached, Attached::Cloned { .. }) { cloned(&node) } else { stale() };
                let retry = (!matches!(attached, Attached::Cloned { .. })).then_some(BACKOFF_MS_MAX);
                displaced.close(refusal, retry);
            }
            let result = match attached {
                Attached::Online { .. } => {
                    let policy = self.context.directory.signed_policy(node.id);
                    link.set_epoch(epoch);
                    let (name, audit_head) = (node.name.to_string(), self.context.directory.audit().head());
                    link.send(ToNode::Welcome(Welcome { generation, name, policy, audit_head }));
                    state.link = Some(Arc::clone(link));
                    state.runs.attached(link.id(), hello.runs);
                    let (is_same, now) = (hello.generation >= generation, self.context.clock.now());
                    state.files.machine.attached(link.id(), hello.files, is_same, now);
                    // Behind the place in the registry: whoever hears of it finds the node here.
                    state.decisions.push(Decision::Event(self.event(EventKind::NodeOnline, node.id)));
                    self.context.board.heard(node.id);
                    self.context.board.wake_nodes();
                    tracing::info!(%epoch, "node is online");
                    Ok(())
                }
                Attached::Cloned { .. } => Err(self.quarantine(state, &node)),
                Attached::Stale => Err(stale()),
            };
            self.act(slot, state);
            result
        })
    }

    fn still_admitted(&self, id: NodeId) -> Result<(), Refusal> {
        refuse_quarantined(&*self.context.directory.node(id).ok_or_else(revoked)?)
    }

    /// Takes the place in the registry; returns the link that was there, when it must go.
    fn register(&self, link: &Arc<Link>, epoch: Epoch, dial: Dial) -> (Attached, Option<Arc<Link>>) {
        let mut present = lock(&self.present);
        let now = self.context.clock.now();
        let attached = present.registry.attach(link.node(), link.id(), epoch, dial, now);
        let displaced = match attached {
            Attached::Online { .. } => present.links.insert(link.node(), Arc::clone(link)),
            Attached::Cloned { .. } => present.links.remove(&link.node()),
            Attached::Stale => None,
        };
        drop(present);
        self.timers_changed.notify_one();
        self.came_or_went.send_replace(());
        (attached, displaced)
    }

    /// Shuts out an identity that two machines use: in memory at once, in the store as soon as
    /// that answers.
    fn quarantine(&self, state: &mut SlotState, node: &Node) -> Refusal {
        tracing::warn!(node = %node.name, node_id = %node.id, "two machines use one identity; it is quarantined");
        state.link = None;
        state.runs.abandon("Two machines use this node's identity; what became of the command is not known.");
        state.files.machine.abandon("two machines use its node's identity");
        self.context.directory.quarantine(node.id);
        if let Some(me) = self.me.upgrade() {
            let id = node.id;
            self.tasks.spawn(async move { me.record_quarantine(id).await });
        }
        cloned(node)
    }

    async fn record_quarantine(&self, id: NodeId) {
        let stored = write_surely(&self.context.store, &self.stop, "the quarantine of a node", || {
            let now = self.context.clock.wall();
            move |tx: &mut dyn Tx| match tx.node(id)? {
                Some(node) if !node.quarantined && node.removed_at.is_none() => put_quarantine(tx, node, now),
                Some(_) | None => Ok(()),
            }
        });
        if stored.await.is_none() {
            tracing::error!(node_id = %id, "the quarantine is not stored");
        }
    }

    fn event(&self, kind: EventKind, node: NodeId) -> Event {
        let event = Event::new(kind, self.context.clock.wall()).node(node);
        match self.context.directory.node(node) {
            Some(record) => event.actor(format!("node:{}", record.name)),
            None => event,
        }
    }
}

/// A node saw this row of the audit log. A row that is not there is told, and never kept as if it
/// were: the node shows it again.
fn testify(
    tx: &mut dyn Tx,
    node: &mut Node,
    head: AuditHead,
    watch: &AuditWatch,
    now: WallTime,
) -> Result<(), WriteError> {
    if has_row(tx, head)? {
        node.audit_seen = node.audit_seen.filter(|seen| seen.seq > head.seq).or(Some(head));
        return Ok(());
    }
    let why = format!("The node {} saw row {}, which is not in the audit log.", node.name, head.seq);
    watch.contradict(node.id, head);
    if watch.doubt(&why) {
        tracing::error!(code = %Code::AuditBroken, node_id = %node.id, why, "the audit log is broken");
        tx.append_event(&broken_event(&why, now).node(node.id))?;
    }
    Ok(())
}

/// Shuts a node out for good, with its row and its event.
pub(crate) fn put_quarantine(tx: &mut dyn Tx, node: Node, now: WallTime) -> Result<(), WriteError> {
    let actor = format!("node:{}", node.name);
    let row = AuditRow::new(now, actor.as_str(), "node.quarantine", Outcome::Denied);
    let reason = Some(Code::ClonedIdentity.as_str().to_owned());
    tx.append_audit(&AuditRow { node: Some(node.id), reason, ..row })?;
    let event = Event::new(EventKind::NodeQuarantined, now).node(node.id).actor(actor);
    tx.append_event(&event.subject(node.name.as_str()))?;
    tx.put_node(&Node { quarantined: true, ..node })
}

fn revoked() -> Refusal {
    Refusal::new(Code::NodeRevoked, "This node was removed from the hub, or the hub never knew it.")
}

/// `cloned_identity` for a node that is shut out because two machines use its identity.
pub(crate) fn refuse_quarantined(node: &Node) -> Result<(), Refusal> {
    if node.quarantined { Err(cloned(node)) } else { Ok(()) }
}

fn cloned(node: &Node) -> Refusal {
    let message = format!("Two machines use the identity of {}; it is shut out.", node.name);
    Refusal::new(Code::ClonedIdentity, message)
}

/// For a certificate of another key than the record's. After a recovery that is the key of before: its
/// answer was lost, or it is shown by a copy. Asked to recover, the one is let in and the other found out.
fn other_key(node: &Node) -> Refusal {
    if node.recovery.as_ref().is_none_or(|recovery| recovery.last.is_none()) {
        return revoked();
    }
    Refusal::new(Code::Unauthenticated, "The node recovered since, and has another key.")
        .hint("Wait: the node recovers by its second key. Look with `cortex node recoveries NODE`.")
}

fn stale() -> Refusal {
    Refusal::new(Code::StaleEpoch, "A newer link of this node has taken over.")
}
