//! What the end of a run means for the task that it was an attempt of. Decided in the transaction that
//! settles the run: the one is never known without the other.

use cortex_core::name::printable;
use cortex_core::pool::Lost;
use cortex_core::pool::desk::{self, Report};
use cortex_core::pool::{Holder, TaskResult};
use cortex_core::run::{Run, RunState};
use cortex_core::time::WallTime;
use cortex_store::{PoolRead, Tx, WriteError};

use crate::board::Board;
use crate::clock::random;

/// Reports an attempt whose run has just come to its end. An attempt that was given up before leaves
/// its report beside the task.
pub(crate) fn settle(board: &Board, tx: &mut dyn Tx, run: &Run, now: WallTime) -> Result<(), WriteError> {
    let Some((id, attempt)) = run.task.filter(|_| run.state.is_final()) else { return Ok(()) };
    // A task that was removed for its age has had its end.
    let Some(task) = PoolRead::task(tx, id)? else { return Ok(()) };
    let holder = Holder::Node { node: run.node, run: run.id };
    let table = &mut board.over(tx);
    let Some(report) = report(run, task.cancelled_by.is_some()) else {
        return desk::lose(table, id, attempt, Lost::NodeGone, now).map(drop);
    };
    desk::report(table, id, attempt, holder, report, now).map(drop)
}

/// `None` when nobody saw how it ended.
fn report(run: &Run, cancel_is_asked: bool) -> Option<Report> {
    let failed = |is_final| {
        let chance = u64::from_le_bytes(random());
        Report::Failed { result: result(run), is_final, chance }
    };
    Some(match run.state {
        RunState::Exited if run.code == Some(0) => Report::Done(result(run)),
        RunState::Cancelled | RunState::TimedOut | RunState::Exited if cancel_is_asked => {
            Report::Cancelled(result(run))
        }
        RunState::Exited | RunState::Failed | RunState::TimedOut => failed(false),
        RunState::Cancelled if is_taken_away(run) => Report::GivenBack,
        // Somebody ended the run itself, and does not want it again.
        RunState::Cancelled => failed(true),
        RunState::Denied => {
            let why = run.diagnostic.as_deref().unwrap_or("denied");
            Report::Denied { node: run.node, why: printable(why, 400) }
        }
        RunState::Lost => return None,
        RunState::Queued | RunState::Running | RunState::Disconnected => return None,
    })
}

/// Whether a lock or a tightened policy ended it: then the task waits for better times, or for another
/// node.
fn is_taken_away(run: &Run) -> bool {
    run.cancelled_by.as_deref().is_some_and(|by| by.starts_with("lock") || by.starts_with("policy:"))
}

fn result(run: &Run) -> TaskResult {
    let message = run.diagnostic.as_deref().map(|text| printable(text, 1_000));
    TaskResult { code: run.code, signal: run.signal, output: Vec::new(), message }
}
