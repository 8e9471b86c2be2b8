//! The pool at a glance. Figures of all tasks are for who sees all tasks.

use std::collections::BTreeMap;
use std::time::Duration;

use cortex_core::Refusal;
use cortex_core::id::LaneId;
use cortex_core::pool::TaskState;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;
use cortex_store::{Read, StoreError, StoreExt as _};

use super::Pool;
use crate::service::Caller;

/// A node's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeShare {
    /// Its name.
    pub name: String,
    /// It has a link.
    pub is_online: bool,
    /// Tasks that it works on at once.
    pub slots: u32,
    /// Tasks that it works on.
    pub busy: usize,
}

/// What is kept, for figures that are for nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Tasks by state, all states named.
    pub tasks: BTreeMap<TaskState, u64>,
    /// How long the ready task has waited that waits longest, milliseconds; 0 when none does.
    pub oldest_ready_ms: u64,
}

/// Longest wait of whoever watches the hub for what the store knows.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// The figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Tasks by state, all states named; for who sees all.
    pub tasks: Option<BTreeMap<TaskState, u64>>,
    /// Leases, likewise.
    pub leases: Option<usize>,
    /// Since when the ready task waits that waits longest, likewise.
    pub oldest_ready_at: Option<WallTime>,
    /// Nodes that the caller sees figures of.
    pub nodes: Vec<NodeShare>,
}

impl Pool {
    /// How the pool stands, as far as the caller sees it.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn stats(&self, caller: &Caller) -> Result<Stats, Refusal> {
        let nodes = self.context.directory.nodes().into_iter();
        let seen = nodes.filter(|node| caller.has(Right::StatsRead, node));
        let nodes = seen.map(|node| NodeShare {
            name: node.name.to_string(),
            is_online: self.mesh.presence(node.id).is_some(),
            slots: node.facts.slots,
            busy: self.board.busy(node.id),
        });
        let own = Stats { tasks: None, leases: None, oldest_ready_at: None, nodes: nodes.collect() };
        if !caller.everywhere(Right::TasksRead) || caller.token.kind == TokenKind::Client {
            return Ok(own);
        }
        let lanes = self.ready_lanes();
        let (tasks, oldest_ready_at) = self.context.view(move |view| counted(view, &lanes)).await?;
        Ok(Stats { tasks: Some(tasks), leases: Some(self.board.leases()), oldest_ready_at, ..own })
    }

    /// What is kept, unless the store does not say so at once: then nothing, and not what was before.
    /// Costs a look at each lane in which something may be ready, however many tasks there are.
    pub async fn kept(&self) -> Option<Kept> {
        let (lanes, now) = (self.ready_lanes(), self.context.clock.wall());
        let read = self.context.store.read(KEPT_WITHIN, move |view| counted(view, &lanes)).await;
        let (tasks, oldest) = read.ok()?;
        let waited = oldest.map_or(0, |at| u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0));
        Some(Kept { tasks, oldest_ready_ms: waited })
    }

    fn ready_lanes(&self) -> Vec<LaneId> {
        self.board.ready().into_iter().map(|(id, _)| id).collect()
    }
}

type Counted = (BTreeMap<TaskState, u64>, Option<WallTime>);

/// Tasks by state, and since when the one waits that waits longest.
fn counted(view: &dyn Read, lanes: &[LaneId]) -> Result<Counted, StoreError> {
    let (counts, heads) = (view.task_counts()?, view.heads(lanes)?);
    let of = |state: &TaskState| (*state, counts.get(state).copied().unwrap_or(0));
    Ok((TaskState::ALL.iter().map(of).collect(), heads.iter().map(|head| head.ready_at).min()))
}
