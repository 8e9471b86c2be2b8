//! What the writer knows of the pool without asking the database: lanes by their key, how many
//! tasks there are of what, the fronts of lanes that it has looked up, and tasks that are worked on. True
//! of the connection's transaction: each write can be taken back alone, and what changed is written with
//! the commit.
//!
//! Never here: decisions, and what readers see: they read the tables.

mod front;
mod held;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cortex_core::id::{LaneId, TaskId};
use cortex_core::pool::lane::{Head, LaneKey};
use cortex_core::pool::{Owner, Task, TaskState};
use rusqlite::Connection;

use self::front::Front;
use self::held::Held;
use super::rows::lanes::{self, CountOf, Counted};
use super::rows::tasks::{self, Place};
use crate::StoreError;

pub(super) use self::front::{LOOK_UP, Stands};

/// A lane that has tasks.
#[derive(Clone)]
struct Lane {
    key: Arc<LaneKey>,
    counted: Counted,
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    lanes: BTreeMap<LaneId, Lane>,
    by_key: BTreeMap<Arc<LaneKey>, LaneId>,
    made: LaneId,
    parties: BTreeMap<Owner, u64>,
    states: BTreeMap<TaskState, u64>,
    /// What to set again, last first, when the present write is taken back.
    undo: Vec<Undo>,
    /// What the commit has to write.
    changed: Changed,
    /// Fronts that were looked up.
    fronts: RefCell<BTreeMap<LaneId, Front>>,
    held: Held,
    /// A task may wait for another.
    has_waiters: bool,
    /// Where the tasks stand that the present write has read or written.
    places: RefCell<BTreeMap<TaskId, Place>>,
}

#[derive(Default)]
struct Changed {
    /// Lanes that came or went.
    lanes: BTreeSet<LaneId>,
    /// Lanes of which another number is counted.
    counts: BTreeSet<LaneId>,
    parties: BTreeSet<Owner>,
    states: BTreeSet<TaskState>,
    made: bool,
}

enum Undo {
    Lane(LaneId, Option<Lane>),
    Made(LaneId),
    Party(Owner, u64),
    State(TaskState, u64),
    Front(LaneId),
    Held(TaskId),
}

impl Ledger {
    /// As it is stored.
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let mut ledger = Self { made: lanes::made(conn)?, ..Self::default() };
        (ledger.parties, ledger.states) = (lanes::parties(conn)?, lanes::states(conn)?);
        ledger.has_waiters = tasks::has_waiters(conn)?;
        for (id, key, counted) in lanes::all(conn)? {
            ledger.set_lane(id, Some(Lane { key: Arc::new(key), counted }));
        }
        ledger.changed = Changed::default();
        Ok(ledger)
    }

    /// A write begins: what was before it stays.
    pub(super) fn begin(&mut self) {
        self.undo.clear();
        self.places.borrow_mut().clear();
    }

    /// Takes the present write back.
    pub(super) fn roll_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Lane(id, lane) => self.set_lane(id, lane),
                Undo::Made(made) => self.made = made,
                Undo::Party(party, open) => drop(set(&mut self.parties, party, open)),
                Undo::State(state, tasks) => drop(set(&mut self.states, state, tasks)),
                Undo::Front(lane) => drop(self.fronts.borrow_mut().remove(&lane)),
                Undo::Held(task) => self.held.forget(task),
            }
        }
        self.places.borrow_mut().clear();
    }

    /// Writes what changed since the last time.
    pub(super) fn flush(&mut self, conn: &Connection) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut self.changed);
        for id in changed.lanes {
            lanes::set(conn, id, self.lanes.get(&id).map(|lane| &*lane.key))?;
        }
        for id in changed.counts {
            let counted = self.lanes.get(&id).map(|lane| lane.counted).unwrap_or_default();
            lanes::set_count(conn, CountOf::Lane(id), counted)?;
        }
        for party in changed.parties {
            let open = self.open_of(party);
            lanes::set_count(conn, CountOf::Party(party), Counted { tasks: open, open })?;
        }
        for state in changed.states {
            let tasks = self.states.get(&state).copied().unwrap_or(0);
            lanes::set_count(conn, CountOf::State(state), Counted { tasks, open: 0 })?;
        }
        if changed.made {
            lanes::set_made(conn, self.made)?;
        }
        Ok(())
    }

    pub(super) fn lane(&self, key: &LaneKey) -> Option<LaneId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn lane_key(&self, id: LaneId) -> Option<Arc<LaneKey>> {
        self.lanes.get(&id).map(|lane| Arc::clone(&lane.key))
    }

    /// Lanes with tasks that have not ended.
    pub(super) fn open_lanes(&self) -> Vec<(LaneId, LaneKey)> {
        let open = self.lanes.iter().filter(|(_, lane)| lane.counted.open > 0);
        open.map(|(id, lane)| (*id, LaneKey::clone(&lane.key))).collect()
    }

    pub(super) fn open_of(&self, party: Owner) -> u64 {
        self.parties.get(&party).copied().unwrap_or(0)
    }

    pub(super) const fn states(&self) -> &BTreeMap<TaskState, u64> {
        &self.states
    }

    /// Remembers where a task stands that was read.
    pub(super) fn saw(&self, id: TaskId, place: Place) {
        self.places.borrow_mut().insert(id, place);
    }

    /// A task that is worked on, when it is in mind.
    pub(super) fn held(&self, id: TaskId) -> Option<&Task> {
        self.held.get(id).map(|(task, _)| task)
    }

    /// Whether a task may wait for another.
    pub(super) const fn has_waiters(&self) -> bool {
        self.has_waiters
    }

    /// Where a task stands, by memory or by a look-up.
    pub(super) fn place(&self, conn: &Connection, id: TaskId) -> Result<Option<Place>, StoreError> {
        let seen = self.places.borrow().get(&id).copied();
        match seen.or_else(|| self.held.get(id).map(|(_, place)| *place)) {
            Some(place) => Ok(Some(place)),
            None => tasks::place(conn, id),
        }
    }

    pub(super) fn head(&self, conn: &Connection, lane: LaneId) -> Result<Option<Head>, StoreError> {
        let mut fronts = self.fronts.borrow_mut();
        let head = match fronts.get(&lane).and_then(Front::head) {
            Some(head) => head,
            None => {
                let front = Front::found(tasks::front(conn, lane)?);
                let head = front.head().flatten();
                // What is no lane is not remembered: there is no end of such numbers.
                if self.lanes.contains_key(&lane) {
                    fronts.insert(lane, front);
                }
                head
            }
        };
        Ok(head.map(|(ready_at, task)| Head { lane, ready_at, task }))
    }

    /// The lane that a task belongs to; it gets a number when it has none.
    pub(super) fn enter(&mut self, task: &Task, old: Option<Place>) -> LaneId {
        if let Some(old) = old
            && let Some(lane) = self.lanes.get(&old.lane)
            && lane.key.priority == task.priority
            && lane.key.excluded == task.excluded
        {
            return old.lane;
        }
        let key = task.lane();
        if let Some(id) = self.lane(&key) {
            return id;
        }
        self.undo.push(Undo::Made(self.made));
        self.made = self.made.next();
        self.changed.made = true;
        let (id, lane) = (self.made, Lane { key: Arc::new(key), counted: Counted { tasks: 0, open: 0 } });
        self.undo.push(Undo::Lane(id, None));
        self.set_lane(id, Some(lane));
        self.fronts.borrow_mut().insert(id, Front::empty());
        self.undo.push(Undo::Front(id));
        id
    }

    /// A task was written, or is new.
    pub(super) fn written(&mut self, task: &Task, old: Option<Place>, new: Place) {
        self.moved(task.id, task.owner.party(), old, Some(new));
        self.undo.push(Undo::Held(task.id));
        self.held.written(task, new);
        self.has_waiters |= !task.spec.after.is_empty();
    }

    /// A task is gone.
    pub(super) fn removed(&mut self, id: TaskId, party: Owner, old: Place) {
        self.moved(id, party, Some(old), None);
        self.held.forget(id);
    }

    /// A task stands elsewhere than before, is new, or is gone.
    fn moved(&mut self, id: TaskId, party: Owner, old: Option<Place>, new: Option<Place>) {
        if let Some(new) = new {
            self.count(party, new, true);
            self.stands(id, new);
            self.places.borrow_mut().insert(id, new);
        }
        if let Some(old) = old {
            self.count(party, old, false);
            if new.is_none_or(|new| (new.lane, new.standing) != (old.lane, old.standing)) {
                self.went(id, old);
            }
        }
        if new.is_none() {
            self.places.borrow_mut().remove(&id);
        }
    }

    fn count(&mut self, party: Owner, place: Place, is_more: bool) {
        let by = |number: u64| if is_more { number + 1 } else { number.saturating_sub(1) };
        let tasks = by(self.states.get(&place.state).copied().unwrap_or(0));
        let old = set(&mut self.states, place.state, tasks);
        self.undo.push(Undo::State(place.state, old));
        self.changed.states.insert(place.state);
        if !place.state.is_final() {
            let open = by(self.open_of(party));
            let old = set(&mut self.parties, party, open);
            self.undo.push(Undo::Party(party, old));
            self.changed.parties.insert(party);
        }
        let Some(old) = self.lanes.get(&place.lane).cloned() else { return };
        let open = if place.state.is_final() { old.counted.open } else { by(old.counted.open) };
        let counted = Counted { tasks: by(old.counted.tasks), open };
        let lane = Lane { key: Arc::clone(&old.key), counted };
        self.undo.push(Undo::Lane(place.lane, Some(old)));
        self.set_lane(place.lane, (counted.tasks > 0).then_some(lane));
    }

    /// A task stands in its lane.
    fn stands(&mut self, id: TaskId, place: Place) {
        let Some(ready_at) = place.standing else { return };
        self.undo.push(Undo::Front(place.lane));
        if let Some(front) = self.fronts.get_mut().get_mut(&place.lane) {
            front.stands((ready_at, id));
        }
    }

    /// A task stands in its lane no more.
    fn went(&mut self, id: TaskId, place: Place) {
        let Some(ready_at) = place.standing else { return };
        self.undo.push(Undo::Front(place.lane));
        if let Some(front) = self.fronts.get_mut().get_mut(&place.lane) {
            front.went((ready_at, id));
        }
    }

    fn set_lane(&mut self, id: LaneId, lane: Option<Lane>) {
        self.changed.counts.insert(id);
        match lane {
            Some(lane) => {
                if let Some(there) = self.lanes.get_mut(&id) {
                    there.counted = lane.counted;
                    return;
                }
                self.changed.lanes.insert(id);
                self.by_key.insert(Arc::clone(&lane.key), id);
                self.lanes.insert(id, lane);
            }
            None => {
                self.changed.lanes.insert(id);
                if let Some(old) = self.lanes.remove(&id) {
                    self.by_key.remove(&old.key);
                }
                self.fronts.get_mut().remove(&id);
            }
        }
    }
}

/// Sets a number, where none is not listed, and hands back what was there.
fn set<K: Ord>(numbers: &mut BTreeMap<K, u64>, key: K, number: u64) -> u64 {
    let old = if number == 0 { numbers.remove(&key) } else { numbers.insert(key, number) };
    old.unwrap_or(0)
}
