//! What nodes are given. A node that is connected claims as many tasks as it has slots, for as long as
//! its link stands: whatever becomes ready is handed to one that has room, and nobody asks again and
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::id::NodeId;
use cortex_core::limits::CLAIM_TASKS_MAX;
use cortex_core::node::Node;
use cortex_core::pool::lane::{LaneKey, Lanes};
use cortex_core::pool::room::in_turn;
use cortex_core::run::Run;
use cortex_store::{Tx, WriteError};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Pool;
use super::deal::{Deal, Place};
use super::owners::let_in_again;
use crate::board::Promise;
use crate::mesh::{Mesh, Reserved};

/// What a node keeps for what it may be given.
struct Kept {
    runs: Vec<Reserved>,
    _promise: Promise,
}

/// A node, and how many tasks it takes.
type Turn = (NodeId, usize);

impl Pool {
    /// Gives nodes what they have room for until `shutdown`. One of these must run.
    ///
    /// # Errors
    /// `store_unavailable`; what was not handed out still waits.
    pub async fn run_nodes(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        let mut seen = self.context.directory.principals();
        loop {
            // Before the look, so that what changes during it is looked at again.
            seen.borrow_and_update();
            self.serve_nodes().await?;
            tokio::select! {
                () = self.board.node_work() => {}
                () = let_in_again(&self.context, &mut seen) => {}
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    /// Hands out until no node with room is left, or nothing that one may have.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn serve_nodes(&self) -> Result<(), Refusal> {
        loop {
            let ready = self.commands();
            if ready.is_empty() {
                return Ok(());
            }
            let places = self.places();
            let turn = in_turn(places.iter().map(|place| place.room(place.free)));
            let turn: Vec<Turn> = turn.into_iter().map(|room| (room.node, room.free)).collect();
            let mut given = 0;
            for part in parts(&turn) {
                given += self.deal(part, &ready).await?;
            }
            if given == 0 {
                return Ok(());
            }
        }
    }

    /// Lanes of commands in which something may be ready, and that no pause holds.
    fn commands(&self) -> Lanes {
        let pauses = self.board.pauses();
        let moves = |key: &LaneKey| !pauses.iter().any(|pause| pause.part.holds_lane(key));
        let ready = self.board.ready().into_iter();
        ready.filter(|(_, key)| key.kind.is_command() && moves(key)).collect()
    }

    /// Gives these nodes what they have room for, in one transaction. Returns how many tasks that was.
    async fn deal(&self, part: &[Turn], ready: &Lanes) -> Result<usize, Refusal> {
        let places = self.places();
        let at: BTreeMap<NodeId, usize> =
            places.iter().enumerate().map(|(at, place)| (place.node.id, at)).collect();
        let turn = part.iter().filter_map(|(node, free)| Some((*at.get(node)?, *free)));
        let turn: Vec<(usize, usize)> = turn.collect();
        let mut deal = Deal::new(&self.context, places, &turn, ready);
        let kept = self.keep_all(&mut deal);
        if kept.is_empty() {
            return Ok(0);
        }
        let mesh = self.mesh.clone();
        fail::fail_point!("hub::before_claim");
        let send = move |given: &Vec<Vec<Run>>| hand_out(&mesh, given, kept);
        let given = self.context.commit(move |tx: &mut dyn Tx| deal.work(tx), send).await?;
        Ok(given.iter().map(Vec::len).sum())
    }

    /// What a node may be given by the very transaction in which up to so many of its tasks end. Nothing
    /// when nothing waits, or it is not to be given more.
    pub(crate) fn next_for(&self, node: NodeId, ends: usize) -> Option<Next> {
        let ready = self.commands();
        if ready.is_empty() {
            return None;
        }
        let node = self.context.directory.node(node)?;
        let is_over_full = self.board.busy(node.id) > node.facts.slots as usize;
        let mut places = vec![Place { node, free: ends }];
        self.keep_free(&mut places);
        if is_over_full || places.is_empty() {
            return None;
        }
        if ready.iter().any(|(_, key)| !key.prefer.is_all()) {
            let here = places[0].node.id;
            places.extend(self.places().into_iter().filter(|place| place.node.id != here));
        }
        let mut deal = Deal::new(&self.context, places, &[(0, ends)], &ready);
        let kept = self.keep_all(&mut deal);
        let (mesh, runtime) = (self.mesh.clone(), Handle::current());
        (!kept.is_empty()).then_some(Next { deal, kept, mesh, runtime })
    }

    /// What the nodes of a deal keep for it. Those that have no room are out.
    fn keep_all(&self, deal: &mut Deal) -> Vec<Kept> {
        let mut kept = Vec::new();
        deal.keep_seats(|node, limit| {
            let room = self.keep(node, limit)?;
            let limit = room.runs.len();
            kept.push(room);
            Some(limit)
        });
        kept
    }

    /// Room for up to so many runs, and slots that nobody else fills; nothing when there is none.
    fn keep(&self, node: NodeId, limit: usize) -> Option<Kept> {
        let runs: Vec<Reserved> = (0..limit).map_while(|_| self.mesh.reserve(node).ok()).collect();
        let promise = (!runs.is_empty()).then(|| self.board.promise(node, runs.len()))?;
        Some(Kept { runs, _promise: promise })
    }

    /// Nodes that have room at this moment, are connected, and that neither a lock nor a pause holds.
    fn places(&self) -> Vec<Place> {
        let place = |node: Arc<Node>| {
            let free = (node.facts.slots as usize).saturating_sub(self.board.busy(node.id));
            (free > 0).then_some(Place { node, free })
        };
        let mut places: Vec<Place> = self.context.directory.nodes().into_iter().filter_map(place).collect();
        self.keep_free(&mut places);
        places
    }

    /// Takes out what is not connected, and what a lock or a pause holds.
    fn keep_free(&self, places: &mut Vec<Place>) {
        let (locks, now) = (self.context.directory.locks(), self.context.clock.wall());
        let pauses = self.board.pauses();
        let stands = |node: &Node| pauses.iter().any(|pause| pause.part.holds_node(node.id, &node.labels));
        places.retain(|Place { node, .. }| {
            let is_free = !node.quarantined && locks.on_node(node.id, &node.labels, now).is_none();
            is_free && !stands(node) && self.mesh.presence(node.id).is_some()
        });
    }
}

/// A claim of a node for the slots of tasks that end in the same transaction.
pub(crate) struct Next {
    deal: Deal,
    kept: Vec<Kept>,
    mesh: Mesh,
    runtime: Handle,
}

impl Next {
    /// Gives the node as many tasks as it has ended in this transaction. They start once that is committed.
    ///
    /// # Errors
    /// What the store says.
    pub(crate) fn give(mut self, tx: &mut dyn Tx, ended: usize) -> Result<(), WriteError> {
        if ended == 0 {
            return Ok(());
        }
        self.deal.keep_seats(|_, limit| Some(limit.min(ended)));
        let Self { deal, kept, mesh, runtime } = self;
        let given = deal.work(tx)?;
        tx.after_commit(Box::new(move || {
            let _runtime = runtime.enter();
            hand_out(&mesh, &given, kept);
        }));
        Ok(())
    }
}

/// Starts what was claimed and is committed: the board counts it by then, and what was promised is over. It has
/// to be before a node hears of it: one that ends at once would count twice, and be given nothing next.
fn hand_out(mesh: &Mesh, given: &[Vec<Run>], kept: Vec<Kept>) {
    if given.iter().any(|runs| !runs.is_empty()) {
        fail::fail_point!("hub::after_claim");
    }
    let kept: Vec<Vec<Reserved>> = kept.into_iter().map(|Kept { runs, .. }| runs).collect();
    for (runs, kept) in given.iter().zip(kept) {
        for (run, room) in runs.iter().zip(kept) {
            mesh.prepare(run.clone());
            mesh.submit(run, room);
        }
    }
}

/// Cut so that one transaction gives so many tasks and no more.
fn parts(mut turn: &[Turn]) -> impl Iterator<Item = &[Turn]> {
    std::iter::from_fn(move || {
        let mut tasks = 0;
        let fits = |(_, free): &&Turn| {
            tasks += free;
            tasks <= CLAIM_TASKS_MAX
        };
        let count = turn.iter().take_while(fits).count().max(1);
        let (part, rest) = turn.split_at_checked(count)?;
        turn = rest;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_gives_so_many_tasks_and_leaves_no_node_out() {
        let turn = |frees: &[usize]| -> Vec<Turn> {
            (1..).zip(frees).map(|(number, free)| (NodeId::mint(1, &[number; 10]), *free)).collect()
        };
        let cut = |frees: &[usize]| -> Vec<Vec<usize>> {
            parts(&turn(frees)).map(|part| part.iter().map(|(_, free)| *free).collect()).collect()
        };
        let most = CLAIM_TASKS_MAX;
        assert_eq!(cut(&[]), Vec::<Vec<usize>>::new());
        assert_eq!(cut(&[most - 3, 2, 1, 1, 1]), [vec![most - 3, 2, 1], vec![1, 1]]);
        assert_eq!(cut(&[most + 1, most, 1]), [vec![most + 1], vec![most], vec![1]]);
    }
}
