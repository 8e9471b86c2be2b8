//! What happened, and the invariants that are read from it (RELIABILITY I1, I3-I5, I7-I9).

#![expect(clippy::wildcard_enum_match_arm, reason = "each check reads only the kinds that it is about")]

mod files;
mod pool;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use cortex_core::event::EventKind;
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::FileTask;
use cortex_core::id::{Attempt, NodeId, OpId, RunId, TaskId};
use cortex_core::pool::{Holder, TaskState};
use cortex_core::run::{Run, RunState};
use cortex_core::stream::Positions;

pub(crate) use files::{Change, Word};
pub(crate) use pool::Put;

/// One thing that happened in the world, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Happened {
    /// A fault began: from here on a run may be lost.
    Fault(String),
    /// The caller was told that its run is accepted.
    Accepted {
        node: usize,
        run: RunId,
    },
    /// The caller was told that the policy of a node has this revision.
    PolicySet {
        node: usize,
        revision: u64,
    },
    /// A node judges whether it executes a run, by the policy of this revision; 0 is none.
    Judged {
        node: usize,
        run: RunId,
        revision: u64,
    },
    /// A process was started. Whether its journal row was durable by then.
    Spawned {
        node: usize,
        run: RunId,
        journaled: bool,
    },
    /// Follows each start of a process: whether the store held an audit row that allows it.
    Audited {
        run: RunId,
        before: bool,
    },
    /// A process ended, after this much output.
    Exited {
        node: usize,
        run: RunId,
        output: Positions,
        code: Option<i32>,
    },
    /// A process died with its node process.
    Killed {
        node: usize,
        run: RunId,
    },
    NodeCrashed {
        node: usize,
    },
    HubCrashed,
    HubStarted,
    /// A heartbeat of the node came to the hub.
    Heard {
        node: usize,
    },
    /// The hub counts the node as here.
    Online {
        node: usize,
        epoch: u64,
        life: u64,
    },
    /// The node took a Welcome.
    Welcomed {
        node: usize,
        epoch: u64,
    },
    /// A frame of another epoch came to a node.
    StaleFrame {
        node: usize,
        epoch: u64,
        effect: bool,
    },
    /// A frame of a link that another had superseded had an effect at the hub.
    LateFrame {
        node: usize,
    },
    /// A node contradicted itself.
    Rude {
        node: usize,
    },
    /// Output went to the log; whether it was the right bytes at the right place.
    Appended {
        run: RunId,
        good: bool,
    },
    Marked {
        node: usize,
        run: RunId,
    },
    /// A lock ended a run: what of its output had not come is given up.
    Cut {
        run: RunId,
    },
    /// The end of a run was committed.
    Settled {
        node: usize,
        run: RunId,
    },
    /// The hub took a node for broken.
    LinkBroken {
        node: usize,
    },
    /// Somebody was told that a task is kept.
    Kept {
        task: TaskId,
    },
    /// Somebody was told that the end of a task is asked for.
    CancelKept {
        task: TaskId,
    },
    /// Somebody has a task that ended tried again, in the transaction that follows.
    Retried {
        task: TaskId,
    },
    /// An attempt is reported, in the transaction that follows; whether with something to keep.
    Reported {
        task: TaskId,
        attempt: Attempt,
        holder: Holder,
        brings: bool,
    },
    /// A task was put and is committed.
    Put(Arc<Put>),
    /// A worker is told that its lease has its whole length again.
    Extended {
        task: TaskId,
        attempt: Attempt,
    },
    /// The hub finds that a lease is over.
    Over {
        task: TaskId,
        attempt: Attempt,
    },
    /// The hub gives a run up.
    GivenUp {
        run: RunId,
    },
    /// A worker has a payload that it will have done.
    Worked {
        task: TaskId,
        attempt: Attempt,
    },
    /// A claim did not keep to the order, or to the room that there was.
    Misordered {
        task: TaskId,
        why: &'static str,
    },
    /// An operation on files is accepted; one that changes them is stored.
    FileAccepted {
        node: usize,
        op: OpId,
        reads: bool,
    },
    /// The end of an operation was committed.
    FileEnded {
        op: OpId,
        word: Word,
    },
    /// A caller is told what became of an operation.
    FileTold {
        op: OpId,
        word: Word,
    },
    /// A caller is told what is at a path; it asked then.
    FileRead {
        node: usize,
        path: String,
        etag: Option<ContentId>,
        since: u64,
    },
    /// A node hears of an attempt.
    AttemptHeard {
        node: usize,
        task: TaskId,
        attempt: Attempt,
    },
    /// A clerk has a change in hand. Whether its journal row was durable by then.
    FileBegun {
        node: usize,
        op: OpId,
        journaled: bool,
    },
    /// A clerk was told that its change may take effect.
    FileCommitted {
        node: usize,
        op: OpId,
        attempt: Option<(TaskId, Attempt)>,
    },
    /// A path was changed.
    FileEffect {
        node: usize,
        op: OpId,
        attempt: Option<(TaskId, Attempt)>,
        first: bool,
        /// What was there was not what it was prepared on.
        clobbers: bool,
        change: Change,
    },
    /// What was not synced went with the power.
    FileUndone {
        node: usize,
        op: OpId,
        changes: Vec<Change>,
    },
    /// A driver could not do what a machine asked for.
    Broken(String),
}

/// An invariant that does not hold, by its name in RELIABILITY, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the world looks like after it was left in peace.
pub(crate) struct Peace {
    pub(crate) runs: Vec<Run>,
    pub(crate) ends: Vec<(RunId, EventKind)>,
    pub(crate) logs: BTreeMap<RunId, (Positions, bool)>,
    pub(crate) nodes: Vec<NodeId>,
    pub(crate) tasks: BTreeMap<TaskId, TaskState>,
    pub(crate) files: BTreeMap<OpId, FileTask>,
    /// What is on the disk of each node.
    pub(crate) disks: Vec<BTreeMap<String, ContentId>>,
    /// Reports of each task that came too late.
    pub(crate) evidence: BTreeMap<TaskId, Vec<(Attempt, Holder)>>,
    /// Sentences about what has not come to rest.
    pub(crate) restless: Vec<String>,
}

pub(crate) fn check(history: &[(u64, Happened)], peace: &Peace) -> Vec<Violation> {
    let mut found: Vec<String> = peace.restless.clone();
    found.extend(once_per_node(history));
    found.extend(fenced(history));
    found.extend(judged_by_what_was_acknowledged(history));
    found.extend(output_is_honest(history));
    found.extend(ends_once(history, peace));
    found.extend(pool::check(history, peace));
    found.extend(files::check(history, peace));
    let places = Places::of(history);
    for run in &peace.runs {
        found.extend(log_of(run, &places, peace));
    }
    found.into_iter().map(Violation).collect()
}

fn once_per_node(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut started, mut ended) = (BTreeSet::new(), BTreeSet::new());
    for (at, happened) in history {
        match happened {
            Happened::Exited { node, run, .. } | Happened::Killed { node, run }
                if !ended.insert((*node, *run)) =>
            {
                found.push(format!("driver: the process of {run} ended twice on node {node} (at {at} ms)"));
            }
            Happened::Spawned { node, run, journaled } => {
                if !started.insert((*node, *run)) {
                    found.push(format!("I4: {run} was executed twice on node {node} (at {at} ms)"));
                }
                if !journaled {
                    found.push(format!("I4: {run} was executed before its journal row (at {at} ms)"));
                }
            }
            Happened::Audited { run, before: false } => {
                found.push(format!("I7: {run} was executed without an audit row before it (at {at} ms)"));
            }
            _ => {}
        }
    }
    found
}

/// A run that was accepted after a policy was acknowledged is judged by that policy or a later one.
fn judged_by_what_was_acknowledged(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut acknowledged, mut needed) = (BTreeMap::new(), BTreeMap::new());
    for (at, happened) in history {
        match happened {
            Happened::PolicySet { node, revision } => drop(acknowledged.insert(*node, *revision)),
            Happened::Accepted { node, run } => {
                needed.insert(*run, acknowledged.get(node).copied().unwrap_or(0));
            }
            Happened::Judged { node, run, revision } if Some(revision) < needed.get(run) => {
                found.push(format!(
                    "I3: node {node} judged {run} by the old policy revision {revision} (at {at} ms)"
                ));
            }
            _ => {}
        }
    }
    found
}

fn fenced(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let (mut online, mut welcomed) = (BTreeMap::new(), BTreeMap::new());
    let mut stale = BTreeSet::new();
    for (at, happened) in history {
        match happened {
            Happened::StaleFrame { node, effect, epoch } => {
                stale.insert(*node);
                if *effect {
                    found.push(format!(
                        "I3: a frame of epoch {epoch} had an effect on node {node} (at {at} ms)"
                    ));
                }
            }
            Happened::Online { node, epoch, .. } if online.insert(*node, *epoch) >= Some(*epoch) => {
                found.push(format!("I3: node {node} came online with the old epoch {epoch} (at {at} ms)"));
            }
            Happened::Welcomed { node, epoch } if welcomed.insert(*node, *epoch) >= Some(*epoch) => {
                found.push(format!("I3: node {node} took the old epoch {epoch} (at {at} ms)"));
            }
            Happened::Rude { node } => drop(stale.insert(*node)),
            Happened::LateFrame { node } => {
                found.push(format!("I3: a frame of an old link of node {node} had an effect (at {at} ms)"));
            }
            Happened::LinkBroken { node } if !stale.contains(node) => {
                found.push(format!("I5: an honest node {node} was taken for broken (at {at} ms)"));
            }
            Happened::Broken(why) => found.push(format!("driver: {why} (at {at} ms)")),
            _ => {}
        }
    }
    found
}

/// The right bytes in the right place, and a mark only where a node process took output with it.
fn output_is_honest(history: &[(u64, Happened)]) -> Vec<String> {
    let mut found = Vec::new();
    let mut crashed: BTreeMap<usize, usize> = BTreeMap::new();
    let mut spawned: BTreeMap<RunId, usize> = BTreeMap::new();
    let cut = cut(history);
    for (index, (at, happened)) in history.iter().enumerate() {
        match happened {
            Happened::NodeCrashed { node } => drop(crashed.insert(*node, index)),
            Happened::Spawned { run, .. } => drop(spawned.insert(*run, index)),
            Happened::Appended { run, good: false } => {
                found.push(format!(
                    "I5: wrong bytes, or at the wrong place, in the log of {run} (at {at} ms)"
                ));
            }
            Happened::Marked { node, run } if crashed.get(node) < spawned.get(run) && !cut.contains(run) => {
                found.push(format!("I5: output of {run} was marked lost without a cause (at {at} ms)"));
            }
            _ => {}
        }
    }
    found
}

fn cut(history: &[(u64, Happened)]) -> BTreeSet<RunId> {
    let of = |(_, happened): &(u64, Happened)| match happened {
        Happened::Cut { run } => Some(*run),
        _ => None,
    };
    history.iter().filter_map(of).collect()
}

fn ends_once(history: &[(u64, Happened)], peace: &Peace) -> Vec<String> {
    let mut found = Vec::new();
    let stored: BTreeMap<RunId, &Run> = peace.runs.iter().map(|run| (run.id, run)).collect();
    let mut ended: BTreeMap<RunId, usize> = BTreeMap::new();
    for (run, _) in &peace.ends {
        *ended.entry(*run).or_default() += 1;
    }
    for (_, happened) in history {
        if let Happened::Accepted { run, .. } = happened
            && !stored.contains_key(run)
        {
            found.push(format!("I1: the accepted run {run} is gone"));
        }
    }
    let calm = !history.iter().any(|(_, happened)| matches!(happened, Happened::Fault(_)));
    for run in &peace.runs {
        let ends = ended.get(&run.id).copied().unwrap_or(0);
        if ends != 1 {
            found.push(format!("I1: {} ended {ends} times and is {}", run.id, run.state.as_str()));
        }
        if calm && run.state == RunState::Lost {
            found.push(format!("I1: {} was lost in a world without faults", run.id));
        }
    }
    found
}

/// Where in the history runs got how far.
#[derive(Default)]
struct Places {
    spawned: BTreeMap<RunId, usize>,
    settled: BTreeMap<RunId, usize>,
    exited: BTreeMap<RunId, Positions>,
    hub_crashed: Option<usize>,
    node_crashed: Option<usize>,
    cut: BTreeSet<RunId>,
}

impl Places {
    fn of(history: &[(u64, Happened)]) -> Self {
        let mut places = Self { cut: cut(history), ..Self::default() };
        for (index, (_, happened)) in history.iter().enumerate() {
            match happened {
                Happened::Spawned { run, .. } => _ = places.spawned.entry(*run).or_insert(index),
                Happened::Settled { run, .. } => _ = places.settled.entry(*run).or_insert(index),
                Happened::Exited { run, output, .. } => _ = places.exited.entry(*run).or_insert(*output),
                Happened::HubCrashed => places.hub_crashed = Some(index),
                Happened::NodeCrashed { .. } => places.node_crashed = Some(index),
                _ => {}
            }
        }
        places
    }
}

/// The log of a run against what its process wrote, unless somebody crashed at the wrong moment.
fn log_of(run: &Run, places: &Places, peace: &Peace) -> Option<String> {
    let (end, marked) = peace.logs.get(&run.id).copied().unwrap_or_default();
    let id = run.id;
    // What was written at the hub and not synced when the power went is shorter than the run says.
    let cut_short = places.hub_crashed > places.settled.get(&id).copied();
    if end.total() > run.output.total() || (end != run.output && !cut_short) {
        return Some(format!("I5: the log of {id} ends at {end:?}, the run at {:?}", run.output));
    }
    if !matches!(run.state, RunState::Exited | RunState::Cancelled | RunState::TimedOut) {
        return None;
    }
    let spawned = places.spawned.get(&id).copied();
    let exited = places.exited.get(&id).copied();
    if spawned.is_none() {
        return (run.state == RunState::Exited).then(|| format!("I1: {id} exited and was never started"));
    }
    if exited != Some(run.output) {
        return Some(format!("I5: the process of {id} wrote {exited:?}, the run says {:?}", run.output));
    }
    let node_crashed = places.node_crashed > spawned;
    (marked && !node_crashed && !places.cut.contains(&id))
        .then(|| format!("I5: {id} has a mark and nothing was lost"))
}
