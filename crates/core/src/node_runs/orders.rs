//! What the hub asks for: start, input, and the end of a run.

use bytes::Bytes;

use super::local::{Local, Phase};
use super::{Action, NodeRuns, Signal};
use crate::error::{Code, Refusal};
use crate::id::RunId;
use crate::journal::Record;
use crate::limits;
use crate::message::{Start, ToHub};
use crate::run::{EndCause, Ended};
use crate::sandbox::Level;
use crate::stream::Sender;
use crate::time::Timestamp;

impl NodeRuns {
    pub(super) fn handle_start(&mut self, start: Start, now: Timestamp) {
        let run = start.run;
        if let Some(local) = self.runs.get_mut(&run) {
            // Under way or ended: a repeat changes nothing. What the hub lacks it learns from the
            // reports and ends.
            local.recalled = local.forgotten;
            return;
        }
        if self.settled.contains(&run) {
            // It was executed, and its result let go. A hub that asks again lost its memory of
            // that (an older store): silence would leave it waiting for ever.
            let diagnostic = "This command was taken on by this node before, and its result is gone.";
            let ended =
                Ended { diagnostic: Some(diagnostic.to_owned()), ..Ended::new(EndCause::UnknownOutcome) };
            self.hold_ended(run, ended);
            return;
        }
        if self.live() >= limits::RUNS_OPEN_PER_NODE_MAX {
            // A hub keeps this bound itself; the machine does not rest on its word.
            let max = limits::RUNS_OPEN_PER_NODE_MAX;
            let diagnostic = format!("The node has {max} live runs, which is the most it may have.");
            let ended = Ended { diagnostic: Some(diagnostic), ..Ended::new(EndCause::Failed) };
            self.hold_ended(run, ended);
            return;
        }
        let (timeout_ms, walls) = match self.gate_here().judge(&start) {
            Ok(judged) => judged,
            Err(refusal) => {
                self.runs.insert(run, Local::new(Phase::Starting));
                self.ended(run, denied(refusal));
                return;
            }
        };
        let level = if walls.is_some() { self.level() } else { Level::None };
        let deadline = Some(now.plus_ms(timeout_ms));
        let phase = Phase::Journaling(start);
        let walls = walls.map(Box::new);
        self.runs.insert(run, Local { output: Sender::new(), deadline, walls, level, ..Local::new(phase) });
        self.actions.push_back(Action::Journal(Record::Accepted(run)));
    }

    pub(super) fn handle_input(&mut self, run: RunId, offset: u64, data: Bytes, eof: bool) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        let end = offset.saturating_add(data.len() as u64);
        let waiting = end.saturating_sub(local.input_taken);
        let too_early =
            local.phase != Phase::Running && local.input_early.len() >= limits::OUTBOX_INTERACTIVE_MAX;
        let too_much = too_early || waiting > limits::INPUT_BYTES_MAX;
        if !local.is_live() || offset > local.input_upto || too_much {
            let refusal = Refusal::new(
                Code::InvalidArgument,
                format!("Input of run {run} at {offset} does not follow, or is more than may wait."),
            );
            self.send(ToHub::Refused { run: Some(run), refusal });
            return;
        }
        let skip = usize::try_from(local.input_upto - offset).unwrap_or(usize::MAX).min(data.len());
        let fresh = data.slice(skip..);
        local.input_upto += fresh.len() as u64;
        if fresh.is_empty() && !eof {
            return;
        }
        if local.phase == Phase::Running {
            self.actions.push_back(Action::Input { run, data: fresh, eof });
        } else {
            local.input_early.push((fresh, eof));
        }
    }

    pub(super) fn handle_cancel(&mut self, run: RunId, grace_ms: u64, now: Timestamp) {
        self.end_process(run, EndCause::Cancelled, grace_ms.min(limits::KILL_GRACE_MS_MAX), now);
    }

    /// A lock ends a run: by KILL, and without waiting for a hub that is behind with its output.
    pub(super) fn handle_cut(&mut self, run: RunId, now: Timestamp) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        local.cut = true;
        if local.phase == Phase::Running {
            local.cause.get_or_insert(EndCause::Cancelled);
            local.kill_at = None;
            self.actions.push_back(Action::Signal(run, Signal::Kill));
        } else {
            self.end_process(run, EndCause::Cancelled, 0, now);
        }
    }

    pub(super) fn handle_settled(&mut self, run: RunId, now: Timestamp) {
        let Some(local) = self.runs.get(&run) else { return };
        if local.is_live() {
            // A hub never settles what it has not heard the end of.
            self.handle_forget(run, now);
            return;
        }
        self.forget(run);
    }

    pub(super) fn handle_forget(&mut self, run: RunId, now: Timestamp) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if !local.is_live() {
            self.forget(run);
            return;
        }
        local.forgotten = true;
        match local.phase {
            Phase::Running => {
                local.cause.get_or_insert(EndCause::Cancelled);
                self.actions.push_back(Action::Signal(run, Signal::Kill));
            }
            Phase::Starting => {
                local.cause.get_or_insert(EndCause::Cancelled);
                local.kill_at = Some(now);
            }
            Phase::Journaling(_) => self.ended(run, never_begun(EndCause::Cancelled)),
            Phase::Ended(_) => {}
        }
    }

    /// Ends a run as far as it has come. A process is asked, and killed after the grace; a start
    /// that hangs cannot be asked; what waits for its journal row never begins.
    pub(super) fn end_process(&mut self, run: RunId, cause: EndCause, grace_ms: u64, now: Timestamp) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        match local.phase {
            Phase::Starting | Phase::Running => {}
            Phase::Journaling(_) => {
                self.ended(run, never_begun(cause));
                return;
            }
            Phase::Ended(_) => return,
        }
        let kill_at = now.plus_ms(grace_ms);
        if let Some(before) = local.kill_at {
            // Asked again: it may be hurried, not put off.
            local.kill_at = Some(before.min(kill_at));
            return;
        }
        local.cause.get_or_insert(cause);
        local.kill_at = Some(kill_at);
        if local.phase == Phase::Running {
            self.actions.push_back(Action::Signal(run, Signal::Term));
        }
    }
}

/// The end of a run that was refused. Its diagnostic begins with the code, for which the frame has
/// no place of its own.
fn denied(refusal: Refusal) -> Ended {
    let diagnostic = if refusal.code == Code::PolicyDenied {
        refusal.message
    } else {
        format!("{}: {}", refusal.code, refusal.message)
    };
    Ended { diagnostic: Some(diagnostic), ..Ended::new(EndCause::Denied) }
}

fn never_begun(cause: EndCause) -> Ended {
    let diagnostic = "It was ended while it waited for its row in the node's journal: nothing was started.";
    Ended { diagnostic: Some(diagnostic.to_owned()), ..Ended::new(cause) }
}
