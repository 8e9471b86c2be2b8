//! The board's part in a transaction: a table that tells it what was committed, and claims whose turns
//! count only then.

use std::sync::Arc;

use cortex_core::id::{LaneId, TaskId};
use cortex_core::pool::desk::{self, Take};
use cortex_core::pool::figures::Change;
use cortex_core::pool::lane::{Head, LaneKey, Lanes};
use cortex_core::pool::order::Taken;
use cortex_core::pool::{Decided, Evidence, Owner, Table, Task};
use cortex_core::time::WallTime;
use cortex_store::{PoolRead, Tx, WriteError};

use super::Board;

/// A transaction's tasks; see [`Board::over`].
pub struct Noted<'t> {
    pub(super) board: Board,
    /// The transaction, for what is no task.
    pub tx: &'t mut dyn Tx,
    /// Tasks that were put.
    pub(super) puts: usize,
}

impl Table for Noted<'_> {
    type Error = WriteError;

    fn task(&self, id: TaskId) -> Result<Option<Task>, WriteError> {
        Table::task(self.tx, id)
    }

    fn task_by_key(&self, owner: Owner, key: &str) -> Result<Option<Task>, WriteError> {
        Table::task_by_key(self.tx, owner, key)
    }

    fn waiting_for(&self, id: TaskId) -> Result<Vec<TaskId>, WriteError> {
        Table::waiting_for(self.tx, id)
    }

    fn heads(&self, lanes: &[LaneId]) -> Result<Vec<Head>, WriteError> {
        let heads = Table::heads(self.tx, lanes)?;
        let has = |lane: &LaneId| heads.iter().any(|head| head.lane == *lane);
        self.board.state().board.found_empty(lanes.iter().copied().filter(|lane| !has(lane)));
        Ok(heads)
    }

    fn working(&self, key: &str) -> Result<u32, WriteError> {
        Table::working(self.tx, key)
    }

    fn parked(&self, key: &str) -> Result<Vec<TaskId>, WriteError> {
        Table::parked(self.tx, key)
    }

    fn put(&mut self, decided: &Decided) -> Result<(), WriteError> {
        Table::put(self.tx, decided)?;
        self.puts += 1;
        let lane = PoolRead::lane(self.tx, &decided.task.lane())?;
        let (board, task, change) = (self.board.clone(), decided.task.clone(), Change::of(decided));
        self.tx.after_commit(Box::new(move || board.put(lane, &task, change)));
        Ok(())
    }

    fn put_evidence(&mut self, id: TaskId, evidence: &Evidence) -> Result<(), WriteError> {
        Table::put_evidence(self.tx, id, evidence)
    }

    fn lane(&self, key: &LaneKey) -> Result<Option<LaneId>, WriteError> {
        Table::lane(self.tx, key)
    }
}

impl Noted<'_> {
    /// How often a task was put.
    pub const fn puts(&self) -> usize {
        self.puts
    }

    /// Whether something is ready in one of these lanes.
    ///
    /// # Errors
    /// What the store says.
    pub fn has_any(&self, lanes: &Lanes) -> Result<bool, WriteError> {
        let ids: Vec<LaneId> = lanes.iter().map(|(id, _)| *id).collect();
        Ok(!Table::heads(self, &ids)?.is_empty())
    }

    /// Hands out up to `limit` tasks of these lanes, see [`desk::claim`]. The parties whose turn it was
    /// have had it when this is committed, and not when it is not.
    ///
    /// # Errors
    /// What the store says.
    pub fn claim(
        &mut self,
        lanes: &[(LaneId, Arc<LaneKey>)],
        limit: usize,
        now: WallTime,
        take: &mut dyn FnMut(&Task) -> Take,
    ) -> Result<Vec<Task>, WriteError> {
        // Claims of one commit follow each other within it, so each must know of the turns before it.
        let board = self.board.clone();
        let mut turn = Turn { board: board.clone(), taken: Vec::new(), lanes: lanes.to_vec() };
        let claimed = {
            let mut turns = board.turns();
            let claimed = desk::claim(self, lanes, &mut turns, limit, now, take);
            turn.taken = turns.taken();
            claimed?
        };
        // What is not committed is dropped instead.
        self.tx.after_commit(Box::new(move || turn.keep()));
        Ok(claimed)
    }
}

/// What a claim has changed in mind: turns that it took, and lanes that it found empty. Unless it is kept,
/// the turns are given back, and the lanes are looked at again.
struct Turn {
    board: Board,
    taken: Vec<Taken>,
    lanes: Lanes,
}

impl Turn {
    fn keep(mut self) {
        (self.taken, self.lanes) = (Vec::new(), Vec::new());
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.taken.is_empty() {
            self.board.turns().give_back(&self.taken);
        }
        if !self.lanes.is_empty() {
            self.board.state().board.not_claimed(std::mem::take(&mut self.lanes));
        }
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::id::UserId;
    use cortex_core::name::Name;
    use cortex_core::pool::desk::New;
    use cortex_core::pool::{Holder, Kind, Priority, TaskSpec, Work};
    use cortex_store::StoreError;
    use cortex_store::memory::MemoryStore;

    use super::*;
    use crate::clock::Clock;

    const NOW: WallTime = WallTime(1_000);

    fn person(number: u8) -> Owner {
        Owner { token: None, user: Some(UserId::mint(1, &[number; 10])) }
    }

    /// A store with two tasks of each of two people, one after the other.
    fn store(board: &Board) -> MemoryStore {
        let store = MemoryStore::new(None);
        let kind = Name::parse("resize").and_then(Kind::payload).expect("a kind");
        let spec = Arc::new(TaskSpec::new(Work::Payload { kind, bytes: Vec::new() }));
        for (number, who) in (1..).zip([1, 2, 1, 2]) {
            let new = New {
                id: TaskId::mint(number, &[1; 10]),
                spec: Arc::clone(&spec),
                priority: Priority::DEFAULT,
                owner: person(who),
                caller: "user:ada".to_owned(),
                key: None,
                traceparent: None,
                schedule: None,
                due_at: None,
            };
            store.write_now(|tx| desk::submit(&mut board.over(tx), new, NOW).map(drop)).expect("it is kept");
        }
        store
    }

    fn claim(board: &Board, tx: &mut dyn Tx) -> Result<Owner, WriteError> {
        let token = cortex_core::id::TokenId::mint(1, &[1; 10]);
        let mut take = |_: &Task| Take::By(Holder::Worker { token });
        let claimed = board.over(tx).claim(&board.ready(), 1, NOW, &mut take)?;
        Ok(claimed.first().expect("something waits").owner)
    }

    #[test]
    fn a_claim_that_is_not_committed_is_nobodys_turn() {
        let board = Board::new(Clock::default());
        let store = store(&board);
        let lost: Result<(), WriteError> = store.write_now(|tx| {
            assert_eq!(claim(&board, tx)?, person(1));
            assert_eq!(claim(&board, tx)?, person(2), "within a transaction turns are known");
            Err(StoreError::Closed.into())
        });
        assert!(lost.is_err());
        let kept = store.write_now(|tx| claim(&board, tx)).expect("it is kept");
        assert_eq!(kept, person(1), "the first turn was not had");
        assert_eq!(store.write_now(|tx| claim(&board, tx)).expect("it is kept"), person(2));
    }

    #[test]
    fn what_a_claim_found_empty_counts_only_when_it_is_committed() {
        let board = Board::new(Clock::default());
        let store = store(&board);
        let (ready, token) = (board.ready(), cortex_core::id::TokenId::mint(1, &[1; 10]));
        let empty = |tx: &mut dyn Tx| {
            let mut take = |_: &Task| Take::By(Holder::Worker { token });
            let taken = board.over(tx).claim(&board.ready(), 10, NOW, &mut take)?;
            assert_eq!(taken.len(), 4);
            board.over(tx).claim(&ready, 1, NOW, &mut take).map(|more| assert!(more.is_empty()))
        };
        let lost: Result<(), WriteError> = store.write_now(|tx| {
            empty(tx)?;
            assert!(board.ready().is_empty());
            Err(StoreError::Closed.into())
        });
        assert!(lost.is_err());
        assert_eq!(board.ready(), ready, "all of it waits still");
        store.write_now(empty).expect("it is kept");
        assert!(board.ready().is_empty());
    }
}
