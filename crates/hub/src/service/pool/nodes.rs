//! What nodes are given. A node that is connected claims as many tasks as it has slots, for as long as
//! its link stands: whatever becomes ready is handed to one that has room, and nobody asks again and
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::id::TaskId;
use cortex_core::limits::CLAIM_TASKS_MAX;
use cortex_core::lock::Locks;
use cortex_core::node::Node;
use cortex_core::policy::Rule;
use cortex_core::pool::desk::Take;
use cortex_core::pool::lane::{LaneKey, Lanes, unlocked};
use cortex_core::pool::room::{Room, in_turn, is_for};
use cortex_core::pool::{Holder, Owner, Task};
use cortex_core::rights::Right;
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_store::{Tx, WriteError};
use tokio_util::sync::CancellationToken;

use super::Pool;
use super::owners::{Owners, let_in_again};
use crate::board::Board;
use crate::clock::new_run_id;
use crate::mesh::Reserved;
use crate::service::runs::attempts::{self, Attempt};
use crate::service::{Caller, Context};

/// One claim of one node.
struct Claim {
    context: Context,
    board: Board,
    node: Arc<Node>,
    lanes: Lanes,
    owners: BTreeMap<Owner, Arc<Caller>>,
    limit: usize,
    now: WallTime,
}

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
            let pauses = self.board.pauses();
            let moves = |key: &LaneKey| !pauses.iter().any(|pause| pause.part.holds_lane(key));
            let ready: Lanes =
                self.board.ready().into_iter().filter(|(_, key)| key.kind.is_command()).collect();
            let ready: Lanes = ready.into_iter().filter(|(_, key)| moves(key)).collect();
            if ready.is_empty() {
                return Ok(());
            }
            let nodes = self.nodes_here();
            let mut given = 0;
            for room in in_turn(self.rooms(&nodes)) {
                let Some(node) = nodes.iter().find(|node| node.id == room.node) else { continue };
                given += self.claim_for(node, room.free, &nodes, &ready).await?;
            }
            if given == 0 {
                return Ok(());
            }
        }
    }

    /// Nodes that are connected, and that neither a lock nor a pause holds on.
    fn nodes_here(&self) -> Vec<Arc<Node>> {
        let (locks, now) = (self.context.directory.locks(), self.context.clock.wall());
        let pauses = self.board.pauses();
        let stands = |node: &Node| pauses.iter().any(|pause| pause.part.holds_node(node.id, &node.labels));
        let mut nodes = self.context.directory.nodes();
        nodes.retain(|node| {
            let is_free = !node.quarantined && locks.on_node(node.id, &node.labels, now).is_none();
            is_free && !stands(node) && self.mesh.presence(node.id).is_some()
        });
        nodes
    }

    /// The room that nodes have at this moment.
    fn rooms<'n>(&self, nodes: &'n [Arc<Node>]) -> Vec<Room<'n>> {
        let free = |node: &Node| (node.facts.slots as usize).saturating_sub(self.board.busy(node.id));
        nodes.iter().map(|node| Room { node: node.id, labels: &node.labels, free: free(node) }).collect()
    }

    /// Returns how many tasks the node got.
    async fn claim_for(
        &self,
        node: &Arc<Node>,
        free: usize,
        nodes: &[Arc<Node>],
        ready: &Lanes,
    ) -> Result<usize, Refusal> {
        let now = self.context.clock.wall();
        let mut owners = Owners::new(&self.context, now);
        let (mut known, mut lanes) = (BTreeMap::new(), Lanes::new());
        let here = Room { node: node.id, labels: &node.labels, free };
        let rooms = self.rooms(nodes);
        for (id, key) in ready.iter().filter(|(_, key)| key.suits(node.id, &node.labels)) {
            let Ok(owner) = owners.get(key.owner) else { continue };
            let may = |other: &Arc<Node>| owner.has(Right::RunsStart, other);
            let others = nodes.iter().zip(&rooms).filter(|(other, _)| may(other)).map(|(_, room)| *room);
            if may(node) && is_for(key, here, others) {
                lanes.push((*id, Arc::clone(key)));
                known.insert(key.owner, Arc::clone(&owner));
            }
        }
        if lanes.is_empty() {
            return Ok(0);
        }
        self.claim_of_lanes(node, free, lanes, known, now).await
    }

    async fn claim_of_lanes(
        &self,
        node: &Arc<Node>,
        free: usize,
        lanes: Lanes,
        owners: BTreeMap<Owner, Arc<Caller>>,
        now: WallTime,
    ) -> Result<usize, Refusal> {
        let rooms: Vec<Reserved> =
            (0..free.min(CLAIM_TASKS_MAX)).map_while(|_| self.mesh.reserve(node.id).ok()).collect();
        if rooms.is_empty() {
            return Ok(0);
        }
        let promise = self.board.promise(node.id, rooms.len());
        let claim = Claim {
            context: self.context.clone(),
            board: self.board.clone(),
            node: Arc::clone(node),
            lanes,
            owners,
            limit: rooms.len(),
            now,
        };
        let mesh = self.mesh.clone();
        fail::fail_point!("hub::before_claim");
        let send = move |runs: &Vec<Run>| {
            if !runs.is_empty() {
                fail::fail_point!("hub::after_claim");
            }
            for (run, room) in runs.iter().zip(rooms) {
                mesh.prepare(run.clone());
                mesh.submit(run, room);
            }
            drop(promise);
        };
        Ok(self.context.commit(move |tx: &mut dyn Tx| claim.work(tx), send).await?.len())
    }
}

impl Claim {
    /// The claim, in its transaction: the tasks, and a run for each.
    fn work(&self, tx: &mut dyn Tx) -> Result<Vec<Run>, WriteError> {
        let locks = Locks::new(tx.locks()?);
        let is_here =
            tx.node(self.node.id)?.is_some_and(|node| node.removed_at.is_none() && !node.quarantined);
        if !is_here || locks.on_node(self.node.id, &self.node.labels, self.now).is_some() {
            return Ok(Vec::new());
        }
        let lanes = unlocked(&self.lanes, &locks, self.now);
        let mut attempts: BTreeMap<TaskId, Attempt> = BTreeMap::new();
        let mut take = |task: &Task| self.take(task, &mut attempts);
        let tasks = self.board.over(tx).claim(&lanes, self.limit, self.now, &mut take)?;
        let mut runs = Vec::new();
        for attempt in tasks.iter().filter_map(|task| attempts.remove(&task.id)) {
            attempts::put(tx, &attempt)?;
            runs.push(attempt.run);
        }
        Ok(runs)
    }

    fn take(&self, task: &Task, attempts: &mut BTreeMap<TaskId, Attempt>) -> Take {
        let Some(owner) = self.owners.get(&task.owner) else { return Take::Stop };
        let run = new_run_id(&self.context.clock);
        match attempts::judge(&self.context, owner, &self.node, task, run, self.now) {
            Ok(attempt) => {
                attempts.insert(task.id, attempt);
                Take::By(Holder::Node { node: self.node.id, run })
            }
            Err(refusal) => {
                let why = Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned();
                Take::Exclude { node: self.node.id, why }
            }
        }
    }
}
