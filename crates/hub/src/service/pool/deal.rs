//! One claim for several nodes, in one transaction. They are asked in their turn, each with the room that
//! those before it have left, and each is refused on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::id::{LaneId, NodeId, TaskId};
use cortex_core::limits::{CLAIM_PASSED_MAX, CLAIM_TASKS_MAX};
use cortex_core::lock::Locks;
use cortex_core::node::Node;
use cortex_core::policy::Rule;
use cortex_core::pool::desk::Take;
use cortex_core::pool::lane::{LaneKey, Lanes, unlocked};
use cortex_core::pool::room::{Room, is_for};
use cortex_core::pool::{Holder, Owner, Task};
use cortex_core::rights::Right;
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_store::{Tx, WriteError};

use super::owners::Owners;
use crate::board::{Board, Noted};
use crate::clock::new_run_id;
use crate::service::runs::attempts::{self, Attempt};
use crate::service::{Caller, Context};

/// A node that has room, and how much.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) node: Arc<Node>,
    pub(super) free: usize,
}

impl Place {
    /// With so many slots free.
    pub(super) fn room(&self, free: usize) -> Room<'_> {
        Room { node: self.node.id, labels: &self.node.labels, free }
    }
}

/// A lane that some of the nodes may have, and the places of those that are asked before others.
struct Offer {
    id: LaneId,
    key: Arc<LaneKey>,
    preferred: Vec<usize>,
}

/// One node's part.
struct Seat {
    /// Which of the places.
    place: usize,
    /// Which of the offers it may have for all that is known.
    offers: Vec<usize>,
    /// How many tasks it takes.
    limit: usize,
}

/// The claim, with what is known before its transaction.
pub(super) struct Deal {
    context: Context,
    board: Board,
    places: Vec<Place>,
    offers: Vec<Offer>,
    owners: BTreeMap<Owner, Arc<Caller>>,
    /// Those that may be given something, in their turn.
    seats: Vec<Seat>,
    now: WallTime,
}

impl Deal {
    /// `places` are all nodes that have room; `turn` says which of them are asked, and for how many tasks.
    pub(super) fn new(context: &Context, places: Vec<Place>, turn: &[(usize, usize)], ready: &Lanes) -> Self {
        let now = context.clock.wall();
        let mut owners = Owners::new(context, now);
        let limit = |place: usize, free: usize| free.min(places[place].free).min(CLAIM_TASKS_MAX);
        let seat = |(place, free): &(usize, usize)| Seat {
            place: *place,
            offers: Vec::new(),
            limit: limit(*place, *free),
        };
        let mut seats: Vec<Seat> = turn.iter().map(seat).collect();
        let (mut offers, mut known) = (Vec::new(), BTreeMap::new());
        for (id, key) in ready {
            let Ok(owner) = owners.get(key.owner) else { continue };
            let may = |place: usize| {
                let node = &places[place].node;
                key.suits(node.id, &node.labels) && owner.has(Right::RunsStart, node)
            };
            let mut is_wanted = false;
            for seat in seats.iter_mut().filter(|seat| may(seat.place)) {
                seat.offers.push(offers.len());
                is_wanted = true;
            }
            if !is_wanted {
                continue;
            }
            let prefers = |place: &usize| key.prefer.matches(&places[*place].node.labels) && may(*place);
            let preferred = match key.prefer.is_all() {
                true => Vec::new(),
                false => (0..places.len()).filter(prefers).collect(),
            };
            offers.push(Offer { id: *id, key: Arc::clone(key), preferred });
            known.insert(key.owner, owner);
        }
        seats.retain(|seat| !seat.offers.is_empty());
        let board = context.board.clone();
        Self { context: context.clone(), board, places, offers, owners: known, seats, now }
    }

    /// Keeps those for which `keep` says how many tasks its node takes.
    pub(super) fn keep_seats(&mut self, mut keep: impl FnMut(NodeId, usize) -> Option<usize>) {
        let places = &self.places;
        self.seats.retain_mut(|seat| {
            let kept = keep(places[seat.place].node.id, seat.limit);
            seat.limit = kept.unwrap_or(0);
            kept.is_some()
        });
    }

    /// The claim, in its transaction: for each seat a run of each task that its node is given. Seats that
    /// are not reached are left out at the end: so much is passed over in one transaction and no more.
    pub(super) fn work(&self, tx: &mut dyn Tx) -> Result<Vec<Vec<Run>>, WriteError> {
        let locks = Locks::new(tx.locks()?);
        let mut free: Vec<usize> = self.places.iter().map(|place| place.free).collect();
        let (mut given, mut passed) = (Vec::with_capacity(self.seats.len()), 0);
        for seat in &self.seats {
            let mut table = self.board.over(tx);
            let runs = self.serve(&mut table, seat, &locks, &mut free)?;
            passed += table.puts().saturating_sub(runs.len());
            given.push(runs);
            if passed > CLAIM_PASSED_MAX {
                break;
            }
        }
        Ok(given)
    }

    fn serve(
        &self,
        table: &mut Noted<'_>,
        seat: &Seat,
        locks: &Locks,
        free: &mut [usize],
    ) -> Result<Vec<Run>, WriteError> {
        let lanes = unlocked(&self.lanes(seat, free), locks, self.now);
        if !table.has_any(&lanes)? {
            return Ok(Vec::new());
        }
        let node = &self.places[seat.place].node;
        let is_here =
            table.tx.node(node.id)?.is_some_and(|node| node.removed_at.is_none() && !node.quarantined);
        if !is_here || locks.on_node(node.id, &node.labels, self.now).is_some() {
            // Nobody waits for it to take what it would be asked first for.
            free[seat.place] = 0;
            return Ok(Vec::new());
        }
        let mut judged: BTreeMap<TaskId, Attempt> = BTreeMap::new();
        let mut take = |task: &Task| self.take(node, task, &mut judged);
        let tasks = table.claim(&lanes, seat.limit, self.now, &mut take)?;
        free[seat.place] = free[seat.place].saturating_sub(tasks.len());
        let mut runs = Vec::with_capacity(tasks.len());
        for attempt in tasks.iter().filter_map(|task| judged.remove(&task.id)) {
            attempts::put(table.tx, &attempt)?;
            runs.push(attempt.run);
        }
        Ok(runs)
    }

    /// What is for this node with the room that is left.
    fn lanes(&self, seat: &Seat, free: &[usize]) -> Lanes {
        let room = |place: usize| self.places[place].room(free[place]);
        let offers = seat.offers.iter().map(|offer| &self.offers[*offer]);
        let is_for = |offer: &&Offer| {
            is_for(&offer.key, room(seat.place), offer.preferred.iter().map(|place| room(*place)))
        };
        offers.filter(is_for).map(|offer| (offer.id, Arc::clone(&offer.key))).collect()
    }

    fn take(&self, node: &Arc<Node>, task: &Task, judged: &mut BTreeMap<TaskId, Attempt>) -> Take {
        let Some(owner) = self.owners.get(&task.owner) else { return Take::Stop };
        let run = new_run_id(&self.context.clock);
        match attempts::judge(&self.context, owner, node, task, run, self.now) {
            Ok(attempt) => {
                judged.insert(task.id, attempt);
                Take::By(Holder::Node { node: node.id, run })
            }
            Err(refusal) => {
                let why = Rule::of(&refusal).unwrap_or(refusal.code.as_str()).to_owned();
                Take::Exclude { node: node.id, why }
            }
        }
    }
}
