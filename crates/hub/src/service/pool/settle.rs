//! The ends of runs that are attempts of tasks, in the transactions that settle them; `core::pool::attempt`
//! says what they mean.

use cortex_core::pool::attempt;
use cortex_core::run::{Ended, Run};
use cortex_core::time::WallTime;
use cortex_store::{Tx, WriteError};

use crate::board::Board;
use crate::clock::random;

/// See [`attempt::settle`].
pub(crate) fn settle(board: &Board, tx: &mut dyn Tx, run: &Run, now: WallTime) -> Result<bool, WriteError> {
    let chance = u64::from_le_bytes(random());
    attempt::settle(&mut board.over(tx), run, chance, now)
}

/// See [`attempt::came_late`].
pub(crate) fn came_late(
    board: &Board,
    tx: &mut dyn Tx,
    run: &Run,
    ended: &Ended,
    now: WallTime,
) -> Result<(), WriteError> {
    attempt::came_late(&mut board.over(tx), run, ended, now)
}
