//! The pool at a glance. Figures of all tasks are for who sees all tasks.

use std::collections::BTreeMap;

use cortex_core::Refusal;
use cortex_core::id::LaneId;
use cortex_core::pool::TaskState;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::TokenKind;

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
        let lanes: Vec<LaneId> = self.board.ready().into_iter().map(|(id, _)| id).collect();
        let read = move |view: &dyn cortex_store::Read| Ok((view.task_counts()?, view.heads(&lanes)?));
        let (counts, heads) = self.context.view(read).await?;
        let of = |state: &TaskState| (*state, counts.get(state).copied().unwrap_or(0));
        Ok(Stats {
            tasks: Some(TaskState::ALL.iter().map(of).collect()),
            leases: Some(self.board.leases()),
            oldest_ready_at: heads.iter().map(|head| head.ready_at).min(),
            ..own
        })
    }
}
