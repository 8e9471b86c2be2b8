//! Attempts that are runs: what the end of a run means for its task, and what a run is worth whose hub
//! was away. Called in the transaction that settles the run: the one is never known without the other.

use super::desk::{self, Report};
use super::{Holder, Lost, Table, Task, TaskResult};
use crate::name::printable;
use crate::run::{Ended, Run, RunState};
use crate::time::WallTime;

/// Bytes of a reason that a person reads.
const REASON_BYTES_MAX: usize = 400;
/// Bytes of what a run says of its own end.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// Reports the attempt that a run was, when that has just come to its end; `chance` is any number. An
/// attempt that was over before leaves its report beside the task. Says whether it was not over: then its
/// node has a slot more.
pub fn settle<T: Table + ?Sized>(
    table: &mut T,
    run: &Run,
    chance: u64,
    now: WallTime,
) -> Result<bool, T::Error> {
    let Some((id, attempt)) = run.task.filter(|_| run.state.is_final()) else { return Ok(false) };
    // A task that was removed for its age has had its end.
    let Some(task) = table.task(id)? else { return Ok(false) };
    let had_it = desk::has(&task, attempt, holder(run));
    match report(run, task.cancelled_by.is_some(), chance) {
        Some(report) => desk::report_on(table, task, attempt, holder(run), report, now).map(drop),
        None => desk::lose(table, id, attempt, Lost::NodeGone, now).map(drop),
    }?;
    Ok(had_it)
}

/// A node says how a run ended that was given up before: that stays, and what it brought is kept
/// beside the task.
pub fn came_late<T: Table + ?Sized>(
    table: &mut T,
    run: &Run,
    ended: &Ended,
    now: WallTime,
) -> Result<(), T::Error> {
    let Some((id, attempt)) = run.task.filter(|_| run.state == RunState::Lost) else { return Ok(()) };
    let message = ended.diagnostic.as_deref().map(|text| printable(text, MESSAGE_BYTES_MAX));
    let result = TaskResult { code: ended.code, signal: ended.signal, output: Vec::new(), message };
    desk::keep_late(table, id, attempt, holder(run), result, now)
}

const fn holder(run: &Run) -> Holder {
    Holder::Node { node: run.node, run: run.id }
}

/// `None` when nobody saw how it ended.
fn report(run: &Run, cancel_is_asked: bool, chance: u64) -> Option<Report> {
    let failed = |is_final| Report::Failed { result: result(run), is_final, chance };
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
            Report::Denied { node: run.node, why: printable(why, REASON_BYTES_MAX) }
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
    let message = run.diagnostic.as_deref().map(|text| printable(text, MESSAGE_BYTES_MAX));
    TaskResult { code: run.code, signal: run.signal, output: Vec::new(), message }
}

/// What a hub that starts owes a run that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// It goes on.
    Nothing,
    /// Somebody asked for the end of its task, and the run may not have heard of it.
    Cancel,
    /// Its attempt is over: the task was given to others, and the run is to be given up.
    End,
}

/// What is owed to an open run whose task is this.
pub fn owed(run: &Run, task: Option<&Task>) -> Owed {
    let Some((_, attempt)) = run.task else { return Owed::Nothing };
    let holds = |task: &&Task| {
        task.attempt == attempt && task.lease.is_some_and(|lease| lease.holder.run() == Some(run.id))
    };
    match task.filter(holds) {
        None => Owed::End,
        Some(task) if task.cancelled_by.is_some() => Owed::Cancel,
        Some(_) => Owed::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Attempt, NodeId, Revision, RunId, TaskId};
    use crate::run::RunSpec;

    fn run(state: RunState, code: Option<i32>) -> Run {
        let (id, node) = (RunId::mint(1, &[1; 10]), NodeId::mint(1, &[2; 10]));
        let run = Run::accepted(id, node, RunSpec::default(), "token:a".to_owned(), Revision(1), WallTime(0));
        Run { state, code, task: Some((TaskId::mint(1, &[3; 10]), Attempt(2))), ..run }
    }

    #[test]
    fn each_end_of_a_run_is_a_report_and_none_when_nobody_saw_it() {
        let of = |state, code, cancel_is_asked| report(&run(state, code), cancel_is_asked, 0);
        assert!(
            matches!(of(RunState::Exited, Some(0), true), Some(Report::Done(_))),
            "it was done all the same"
        );
        assert!(matches!(of(RunState::Exited, Some(3), true), Some(Report::Cancelled(_))));
        assert!(matches!(of(RunState::Exited, Some(3), false), Some(Report::Failed { is_final: false, .. })));
        assert!(matches!(of(RunState::TimedOut, None, false), Some(Report::Failed { is_final: false, .. })));
        assert!(matches!(of(RunState::Cancelled, None, false), Some(Report::Failed { is_final: true, .. })));
        assert!(matches!(of(RunState::Denied, None, false), Some(Report::Denied { .. })));
        for state in [RunState::Lost, RunState::Queued, RunState::Running, RunState::Disconnected] {
            assert_eq!(of(state, None, false), None);
        }
    }

    #[test]
    fn a_run_whose_task_does_not_know_it_is_owed_its_end_and_one_of_a_person_nothing() {
        let run = run(RunState::Running, None);
        assert_eq!(owed(&run, None), Owed::End);
        assert_eq!(owed(&Run { task: None, ..run }, None), Owed::Nothing);
    }

    #[test]
    fn what_a_lock_or_a_policy_ended_is_given_back() {
        for (by, given_back) in [("lock:x", true), ("policy:x", true), ("token:a", false)] {
            let run = Run { cancelled_by: Some(by.to_owned()), ..run(RunState::Cancelled, None) };
            assert_eq!(report(&run, false, 0) == Some(Report::GivenBack), given_back, "{by}");
        }
    }
}
