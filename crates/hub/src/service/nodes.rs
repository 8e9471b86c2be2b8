//! Nodes: listing them costs no query at all (MISSION 2.9); changing them is one transaction
//! with its audit row and event.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::NodeId;
use cortex_core::limits::RECOVERIES_SET_MAX;
use cortex_core::lock::Lock;
use cortex_core::name::{self, Name, Selector};
use cortex_core::node::{Node, Recovery};
use cortex_core::policy::Policy;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use crate::mesh::{Mesh, PresenceView};
use crate::service::{Caller, Context, anew, targets};

/// The use cases of nodes. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    context: Context,
    mesh: Mesh,
}

/// A node with all that is shown of it.
pub struct NodeStatus {
    /// The record.
    pub node: Arc<Node>,
    /// Its policy.
    pub policy: Arc<Policy>,
    /// Its link, when it is here.
    pub presence: Option<PresenceView>,
    /// Its open runs.
    pub runs_open: usize,
    /// The lock that holds on it.
    pub lock: Option<Lock>,
}

/// Which nodes to list, by name.
#[derive(Clone, Debug, Default)]
pub struct NodeFilter {
    /// Only with these labels.
    pub selector: Selector,
    /// Only online (true) or not online (false) ones.
    pub online: Option<bool>,
    /// Only with this text in their name.
    pub text: Option<String>,
    /// Only after this name: the cursor.
    pub after: Option<String>,
}

/// What to change of a record.
#[derive(Clone, Debug, Default)]
pub struct NodeChange {
    /// A new name.
    pub name: Option<Name>,
    /// Labels to set, or with `None` to remove.
    pub labels: BTreeMap<String, Option<String>>,
}

impl Nodes {
    /// The use cases over `context`.
    pub const fn new(context: Context, mesh: Mesh) -> Self {
        Self { context, mesh }
    }

    /// At most `limit` nodes that the caller sees, by name: one pass over memory, no query.
    pub fn list(&self, caller: &Caller, filter: &NodeFilter, limit: usize) -> Vec<NodeStatus> {
        let nodes = self.context.directory.nodes().into_iter();
        let wanted = nodes
            .filter(|node| caller.has(Right::NodesRead, node))
            .filter(|node| filter.after.as_deref().is_none_or(|after| node.name.as_str() > after))
            .filter(|node| filter.text.as_deref().is_none_or(|text| node.name.as_str().contains(text)))
            .filter(|node| filter.selector.matches(&node.labels));
        wanted
            .map(|node| self.status(node))
            .filter(|status| filter.online.is_none_or(|online| status.presence.is_some() == online))
            .take(limit)
            .collect()
    }

    /// A node by name or id. `NodeNotFound` with the nearest names.
    pub fn get(&self, caller: &Caller, text: &str) -> Result<NodeStatus, Refusal> {
        Ok(self.status(targets::find_for(&self.context.directory, caller, Right::NodesRead, text)?))
    }

    /// Renames and labels. Needs `nodes:write` on the node, and for labels on all nodes, since they
    /// decide who may do what where. `Conflict` when the name is taken.
    pub async fn change(
        &self,
        caller: &Caller,
        text: &str,
        change: NodeChange,
    ) -> Result<NodeStatus, Refusal> {
        let id = targets::find_for(&self.context.directory, caller, Right::NodesWrite, text)?.id;
        may_label(caller, &change)?;
        let (again, now) = (caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let (again, before) = writer(tx, &again, id, now)?;
            may_label(&again, &change)?;
            let (after, detail) = changed(&before, change)?;
            if after == before {
                return Ok(after);
            }
            tx.put_node(&after)?;
            record(tx, &after, EventKind::NodeChanged, "node.change", &again, now, Some(detail))?;
            Ok(after)
        };
        let (context, mesh) = (self.context.clone(), self.mesh.clone());
        let after = move |node: &Node| {
            context.directory.put_node(node.clone());
            context.board.wake_all();
            let locks = context.directory.locks();
            // A label may have put the node under a lock.
            if let Some(lock) = locks.on_node(node.id, &node.labels, context.clock.wall()) {
                mesh.cut_runs(|run| run.node == node.id, &format!("lock:{}", lock.id));
                mesh.end_files(|by| (by.node == node.id).then(|| lock.refusal()));
                mesh.end_transfers(|by| (by.node == node.id).then(|| lock.refusal()));
            }
        };
        let node = self.context.commit(work, after).await?;
        Ok(self.status(Arc::new(node)))
    }

    /// How often a node has recovered its identity, and may yet.
    ///
    /// # Errors
    /// `node_not_found`, `conflict` for a node without a recovery key.
    pub fn recoveries(&self, caller: &Caller, text: &str) -> Result<(Arc<Node>, Recovery), Refusal> {
        let node = targets::find_for(&self.context.directory, caller, Right::NodesRead, text)?;
        let recovery = node.recovery.clone().ok_or_else(|| no_recovery(&node))?;
        Ok((node, recovery))
    }

    /// Says how often a node may recover its identity from here on. Needs `nodes:write` there.
    ///
    /// # Errors
    /// `node_not_found`, `forbidden`, `invalid_argument`, `conflict` for a node without a recovery
    /// key.
    pub async fn allow_recoveries(
        &self,
        caller: &Caller,
        text: &str,
        left: u32,
    ) -> Result<(Arc<Node>, Recovery), Refusal> {
        let id = targets::find_for(&self.context.directory, caller, Right::NodesWrite, text)?.id;
        if left > RECOVERIES_SET_MAX {
            let message = format!("`left` must be at most {RECOVERIES_SET_MAX}.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        let (again, now) = (caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let (again, mut node) = writer(tx, &again, id, now)?;
            let mut recovery = node.recovery.take().ok_or_else(|| no_recovery(&node))?;
            let detail = format!("recoveries left {} -> {left}", recovery.left);
            recovery.left = left;
            node.recovery = Some(recovery.clone());
            tx.put_node(&node)?;
            record(tx, &node, EventKind::NodeChanged, "node.recoveries", &again, now, Some(detail))?;
            Ok((Arc::new(node), recovery))
        };
        let directory = self.context.directory.clone();
        let after = move |(node, _): &(Arc<Node>, Recovery)| directory.put_node(Node::clone(node));
        self.context.commit(work, after).await
    }

    /// Removes a node: its record leaves the lists, its certificate is refused from here on, and
    /// its link is closed. Needs `nodes:write` there.
    pub async fn remove(&self, caller: &Caller, text: &str) -> Result<(), Refusal> {
        let id = targets::find_for(&self.context.directory, caller, Right::NodesWrite, text)?.id;
        let (again, now) = (caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let (again, node) = writer(tx, &again, id, now)?;
            let node = Node { removed_at: Some(now), ..node };
            tx.put_node(&node)?;
            record(tx, &node, EventKind::NodeRemoved, "node.remove", &again, now, None)?;
            Ok(node)
        };
        let (directory, mesh) = (self.context.directory.clone(), self.mesh.clone());
        let after = move |node: &Node| {
            directory.put_node(node.clone());
            let message = format!("The node {} was removed from this hub.", node.name);
            mesh.close_node(node.id, Refusal::new(Code::NodeRevoked, message));
        };
        self.context.commit(work, after).await?;
        Ok(())
    }

    fn status(&self, node: Arc<Node>) -> NodeStatus {
        let locks = self.context.directory.locks();
        NodeStatus {
            policy: self.context.directory.policy(node.id, node.joined_at),
            presence: self.mesh.presence(node.id),
            runs_open: self.mesh.runs_open_on(node.id),
            lock: locks.on_node(node.id, &node.labels, self.context.clock.wall()).cloned(),
            node,
        }
    }
}

fn no_recovery(node: &Node) -> Refusal {
    Refusal::new(Code::Conflict, format!("{} has no recovery key.", node.name))
        .hint("Remove it with `cortex node rm`, and join it again with a new invite.")
}

/// The caller and a live node as this transaction finds them: the one may still change the other.
fn writer(tx: &dyn Tx, caller: &Caller, id: NodeId, now: WallTime) -> Result<(Caller, Node), WriteError> {
    let (caller, node) = (anew(tx, caller, now)?, live(tx, id)?);
    caller.on(Right::NodesWrite, &node)?;
    Ok((caller, node))
}

fn may_label(caller: &Caller, change: &NodeChange) -> Result<(), Refusal> {
    if change.labels.is_empty() || caller.everywhere(Right::NodesWrite) {
        return Ok(());
    }
    let message = "Labels decide who may do what where: setting them needs nodes:write on all nodes.";
    Err(Refusal::new(Code::Forbidden, message))
}

/// The stored record of a node that is not removed.
pub(super) fn live(tx: &dyn Tx, id: NodeId) -> Result<Node, WriteError> {
    let node = tx.node(id)?.filter(|node| node.removed_at.is_none());
    Ok(node.ok_or_else(|| Refusal::new(Code::NodeNotFound, "The node was removed.".to_owned()))?)
}

fn changed(before: &Node, change: NodeChange) -> Result<(Node, String), Refusal> {
    let mut node = before.clone();
    let mut words = Vec::new();
    if let Some(name) = change.name
        && name != node.name
    {
        words.push(format!("name {} -> {name}", node.name));
        node.name = name;
    }
    for (key, value) in change.labels {
        if let Some(value) = value {
            name::check_label(&key, &value)?;
            words.push(format!("+{key}={value}"));
            node.labels.insert(key, value);
        } else if node.labels.remove(&key).is_some() {
            words.push(format!("-{key}"));
        }
    }
    name::check_labels(&node.labels)?;
    Ok((node, words.join(", ")))
}

fn record(
    tx: &mut dyn Tx,
    node: &Node,
    kind: EventKind,
    action: &str,
    caller: &Caller,
    now: WallTime,
    detail: Option<String>,
) -> Result<(), WriteError> {
    let event = Event::new(kind, now).node(node.id).actor(caller.actor()).subject(node.name.as_str());
    tx.append_event(&Event { detail: detail.clone(), ..event })?;
    let row = AuditRow::new(now, caller.actor(), action, Outcome::Allowed);
    let (node_id, token) = (Some(node.id), Some(caller.token.id));
    let detail = Some(detail.unwrap_or_else(|| node.name.to_string()));
    tx.append_audit(&AuditRow { node: node_id, detail, token, ..row })?;
    Ok(())
}
