//! Why a task waits (POOL rule 10), in words that name what would change it. Facts of the moment are
//! given; nothing is decided by this.

use super::{Task, TaskState};
use crate::id::TaskId;
use crate::name::{Labels, Selector};
use crate::time::WallTime;

/// What is known of a node that the asker sees.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// It has a link.
    pub is_online: bool,
    /// The owner of the task may start commands there.
    pub owner_may: bool,
    /// Tasks that it works on at once.
    pub slots: u32,
    /// Tasks that it works on.
    pub busy: u32,
    /// It stands still: who said so.
    pub paused_by: Option<String>,
    /// Its policy denied this task, and by which rule.
    pub denied_by: Option<String>,
}

/// A part of the pool that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseFacts {
    /// What: `kind:resize`, `label:role=ci`.
    pub what: String,
    /// Who paused it.
    pub by: String,
}

/// What is known at the moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When that is.
    pub now: WallTime,
    /// Nodes.
    pub nodes: Vec<NodeFacts>,
    /// Pauses that hold on this task.
    pub pauses: Vec<PauseFacts>,
    /// Tasks that it waits for and that are not done.
    pub dependencies: Vec<(TaskId, TaskState)>,
    /// Tasks with its concurrency key that are worked on.
    pub working: u32,
    /// Why its owner's tasks are not handed out at present.
    pub owner_stopped: Option<String>,
    /// Workers that ask for its kind, when it is a payload.
    pub workers: u32,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has ended, or somebody works on it: it does not wait.
    NotWaiting(TaskState),
    /// Not before then.
    ScheduledFor(WallTime),
    /// The last attempt failed; the next one is due then.
    AfterFailure {
        /// When.
        at: WallTime,
        /// Failed attempts so far.
        tries: u32,
    },
    /// Another task must be done first.
    Dependency(TaskId, TaskState),
    /// Its concurrency key is full.
    KeyFull {
        /// Which.
        key: String,
        /// Tasks of it at once.
        limit: u32,
    },
    /// Somebody paused a part of the pool.
    Paused(PauseFacts),
    /// Its owner is locked, or has ended.
    OwnerStopped(String),
    /// No node has the labels.
    NoNodeWith {
        /// What is asked for.
        selector: Selector,
        /// The node that lacks least, and what it lacks.
        nearest: Option<(String, String)>,
    },
    /// Its owner may start commands on none of the nodes that have the labels.
    OwnerMayNot(Vec<String>),
    /// Nodes that could have it are not connected.
    Offline(Vec<String>),
    /// Nodes that could have it stand still, each with who said so.
    NodePaused(Vec<(String, String)>),
    /// The policies of nodes that could have it denied it: which nodes, and by which rule.
    Denied(Vec<(String, String)>),
    /// Nodes that could have it work on as many tasks as they take.
    Busy(Vec<String>),
    /// Nodes that could have it take no tasks.
    NoSlots(Vec<String>),
    /// No worker asks for its kind.
    NoWorker(String),
    /// It can be claimed at any moment.
    Next,
}

impl Reason {
    /// The stable name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotWaiting(_) => "not_waiting",
            Self::ScheduledFor(_) => "scheduled",
            Self::AfterFailure { .. } => "after_failure",
            Self::Dependency(..) => "dependency",
            Self::KeyFull { .. } => "key_full",
            Self::Paused(_) => "paused",
            Self::OwnerStopped(_) => "owner_stopped",
            Self::NoNodeWith { .. } => "no_node",
            Self::OwnerMayNot(_) => "owner_may_not",
            Self::Offline(_) => "offline",
            Self::NodePaused(_) => "node_paused",
            Self::Denied(_) => "denied",
            Self::Busy(_) => "busy",
            Self::NoSlots(_) => "no_slots",
            Self::NoWorker(_) => "no_worker",
            Self::Next => "next",
        }
    }
}

/// All reasons, the first one to mend in front.
pub fn explain(task: &Task, facts: &Facts) -> Vec<Reason> {
    let mut reasons = Vec::new();
    match task.state {
        TaskState::Scheduled => {
            let waits = facts.dependencies.iter().map(|(id, state)| Reason::Dependency(*id, *state));
            reasons.extend(waits);
            let at = task.due_at.filter(|at| facts.dependencies.is_empty() || *at > facts.now);
            reasons.extend(at.map(|at| match task.tries {
                0 => Reason::ScheduledFor(at),
                tries => Reason::AfterFailure { at, tries },
            }));
            return reasons;
        }
        TaskState::Ready => {}
        state @ (TaskState::Leased
        | TaskState::Done
        | TaskState::Dead
        | TaskState::Cancelled
        | TaskState::Expired) => return vec![Reason::NotWaiting(state)],
    }
    reasons.extend(facts.owner_stopped.clone().map(Reason::OwnerStopped));
    reasons.extend(facts.pauses.iter().cloned().map(Reason::Paused));
    if let Some(concurrency) = &task.spec.concurrency
        && facts.working >= concurrency.limit
    {
        reasons.push(Reason::KeyFull { key: concurrency.key.clone(), limit: concurrency.limit });
    }
    let kind = task.spec.work.kind();
    if kind.is_command() {
        reasons.extend(of_nodes(&task.spec.selector, &facts.nodes));
    } else if facts.workers == 0 {
        reasons.push(Reason::NoWorker(kind.as_str().to_owned()));
    }
    if reasons.is_empty() {
        reasons.push(Reason::Next);
    }
    reasons
}

type Test = fn(&NodeFacts) -> bool;
type Tell = fn(&[&NodeFacts]) -> Reason;

fn names(nodes: &[&NodeFacts]) -> Vec<String> {
    nodes.iter().map(|node| node.name.clone()).collect()
}

/// Each with what is said of it.
fn with(nodes: &[&NodeFacts], of: fn(&NodeFacts) -> &Option<String>) -> Vec<(String, String)> {
    nodes.iter().map(|node| (node.name.clone(), of(node).clone().unwrap_or_default())).collect()
}

/// Why no node has it: nothing when one could take it now.
fn of_nodes(selector: &Selector, nodes: &[NodeFacts]) -> Vec<Reason> {
    let suiting: Vec<&NodeFacts> = nodes.iter().filter(|node| selector.matches(&node.labels)).collect();
    if suiting.is_empty() {
        return vec![Reason::NoNodeWith { selector: selector.clone(), nearest: nearest(selector, nodes) }];
    }
    let mut left = suiting;
    let mut reasons = Vec::new();
    let steps: [(Test, Tell); 6] = [
        (|node| !node.owner_may, |out| Reason::OwnerMayNot(names(out))),
        (|node| node.denied_by.is_some(), |out| Reason::Denied(with(out, |node| &node.denied_by))),
        (|node| !node.is_online, |out| Reason::Offline(names(out))),
        (|node| node.paused_by.is_some(), |out| Reason::NodePaused(with(out, |node| &node.paused_by))),
        (|node| node.slots == 0, |out| Reason::NoSlots(names(out))),
        (|node| node.busy >= node.slots, |out| Reason::Busy(names(out))),
    ];
    for (is_out, reason) in steps {
        let (out, rest): (Vec<_>, Vec<_>) = left.into_iter().partition(|node| is_out(node));
        left = rest;
        if !out.is_empty() {
            reasons.push(reason(&out));
        }
    }
    if left.is_empty() { reasons } else { Vec::new() }
}

/// The node that has most of the labels, and what it lacks.
fn nearest(selector: &Selector, nodes: &[NodeFacts]) -> Option<(String, String)> {
    let lacks = nodes.iter().map(|node| (selector.lacking(&node.labels), &node.name));
    let (lacking, name) = lacks.min_by_key(|(lacking, name)| (lacking.len(), (*name).clone()))?;
    Some((name.clone(), lacking.join(",")))
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
