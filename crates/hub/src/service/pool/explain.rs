//! Why a task waits: what the hub knows at the moment, put before `core::pool::explain`. Of nodes only
//! those count that the caller sees; and nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::id::{NodeId, TaskId};
use cortex_core::node::Node;
use cortex_core::pool::explain::{Facts, NodeFacts, PauseFacts, Reason, explain};
use cortex_core::pool::pause::Pause;
use cortex_core::pool::{StepKind, Task, TaskState};
use cortex_core::rights::Right;
use cortex_store::{Read, StoreError};

use super::owners::Owners;
use super::{Pool, not_found, sees};
use crate::service::Caller;

/// A task, and why it waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The task.
    pub task: Task,
    /// All reasons, the first one to mend in front.
    pub reasons: Vec<Reason>,
}

/// What the store knows of it.
struct Stored {
    task: Task,
    dependencies: Vec<(TaskId, TaskState)>,
    working: u32,
    /// The rule by which each node denied it.
    denials: BTreeMap<NodeId, String>,
}

impl Pool {
    /// Why a task waits.
    ///
    /// # Errors
    /// `not_found`, `store_unavailable`.
    pub async fn explain(&self, caller: &Caller, id: TaskId) -> Result<Explained, Refusal> {
        let stored = self.context.view(move |view| stored(view, id)).await?;
        let stored = stored.filter(|stored| sees(caller, &stored.task)).ok_or_else(|| not_found(id))?;
        let facts = self.facts(caller, &stored);
        let reasons = explain(&stored.task, &facts);
        Ok(Explained { task: stored.task, reasons })
    }

    fn facts(&self, caller: &Caller, stored: &Stored) -> Facts {
        let task = &stored.task;
        let now = self.context.clock.wall();
        let owner = Owners::new(&self.context, now).get(task.owner);
        let nodes = self.context.directory.nodes().into_iter();
        let nodes = nodes.filter(|node| !node.quarantined && caller.sees(node));
        let pauses = self.board.pauses();
        let told = |pause: &Pause| PauseFacts { what: pause.part.to_string(), by: pause.by.clone() };
        let may = |node: &Node| owner.as_ref().is_ok_and(|owner| owner.has(Right::RunsStart, node));
        Facts {
            now,
            nodes: nodes.map(|node| self.node_facts(&node, may(&node), &stored.denials, &pauses)).collect(),
            pauses: pauses.iter().filter(|pause| pause.part.holds_lane(&task.lane())).map(told).collect(),
            dependencies: stored.dependencies.clone(),
            working: stored.working,
            owner_stopped: owner.as_ref().err().cloned(),
            workers: u32::try_from(self.board.asking(task.spec.work.kind().as_str())).unwrap_or(u32::MAX),
        }
    }

    fn node_facts(
        &self,
        node: &Arc<Node>,
        owner_may: bool,
        denials: &BTreeMap<NodeId, String>,
        pauses: &[Pause],
    ) -> NodeFacts {
        let pause = pauses.iter().find(|pause| pause.part.holds_node(node.id, &node.labels));
        NodeFacts {
            name: node.name.to_string(),
            labels: node.labels.clone(),
            is_online: self.mesh.presence(node.id).is_some(),
            owner_may,
            slots: node.facts.slots,
            busy: u32::try_from(self.board.busy(node.id)).unwrap_or(u32::MAX),
            paused_by: pause.map(|pause| pause.by.clone()),
            denied_by: denials.get(&node.id).cloned(),
        }
    }
}

fn stored(view: &dyn Read, id: TaskId) -> Result<Option<Stored>, StoreError> {
    let Some(task) = view.task(id)? else { return Ok(None) };
    let mut dependencies = Vec::new();
    for id in &task.spec.after {
        let before = view.task(*id)?.filter(|before| before.state != TaskState::Done);
        dependencies.extend(before.map(|before| (before.id, before.state)));
    }
    let working = match &task.spec.concurrency {
        Some(concurrency) => view.working(&concurrency.key)?,
        None => 0,
    };
    let mut denials: BTreeMap<NodeId, String> =
        task.excluded.iter().map(|node| (*node, "its policy".to_owned())).collect();
    if !denials.is_empty() {
        for step in view.task_steps(id)?.into_iter().filter(|step| step.kind == StepKind::Excluded) {
            if let (Some(node), Some(why)) = (step.node, step.detail)
                && let Some(kept) = denials.get_mut(&node)
            {
                *kept = why;
            }
        }
    }
    Ok(Some(Stored { task, dependencies, working, denials }))
}
