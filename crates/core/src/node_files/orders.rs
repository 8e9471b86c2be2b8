//! What the hub asks for, and what ends it before its time.

use super::local::{Local, Phase};
use super::{Action, NodeFiles};
use crate::error::{Code, Refusal};
use crate::files::ask::FileAsk;
use crate::files::entity::unknown_outcome;
use crate::id::{Attempt, LockEpoch, OpId, TaskId, WorkspaceId};
use crate::journal::Record;
use crate::limits;
use crate::node_runs::Gate;
use crate::time::Timestamp;

impl NodeFiles {
    pub(super) fn handle_ask(&mut self, ask: FileAsk, gate: &Gate<'_>, now: Timestamp) {
        let op = ask.id;
        if let Some(local) = self.open.get_mut(&op) {
            // Under way or ended: a repeat changes nothing.
            local.forgotten = false;
            if local.phase.end().is_some() {
                self.tell_end(op);
            }
            return;
        }
        if self.settled.contains(&op) {
            // It was taken on, and what came of it let go. A hub that asks again lost its memory of that
            // (an older store): silence would leave it waiting for ever.
            self.refuse(
                &ask,
                unknown_outcome(op, "this node took it on before, and what came of it is gone"),
            );
            return;
        }
        if self.open.len() >= limits::FILE_OPS_OPEN_PER_NODE_MAX {
            // A hub keeps this bound itself; the machine does not rest on its word. It is remembered, so
            // that one that comes twice is not done after it was refused.
            let max = limits::FILE_OPS_OPEN_PER_NODE_MAX;
            let message =
                format!("The node has {max} open operations on files, which is the most it may have.");
            if !ask.op.is_read() {
                self.remember_settled(op);
            }
            self.answer(op, Err(Refusal::new(Code::Quota, message)));
            return;
        }
        if let Err(refusal) = self.check_fences(ask.attempt, ask.lock) {
            self.refuse(&ask, refusal);
            return;
        }
        if let Some((task, attempt)) = ask.attempt {
            self.fence(task, attempt);
        }
        if let Some((workspace, lock)) = ask.lock {
            self.lock(workspace, lock);
        }
        match gate.judge_files(&ask, &self.reserved) {
            Ok(leave) => {
                let deadline = now.plus_ms(ask.deadline_ms.min(limits::FILE_OP_MS_MAX));
                let waiting = Phase::Waiting(Box::new(ask.clone()), Box::new(leave.clone()));
                let mut local = Local { deadline: Some(deadline), ..Local::new(&ask, waiting) };
                if !local.reads {
                    local.phase = Phase::Journaling(Box::new(ask), Box::new(leave));
                    local.journaled = true;
                    self.actions.push_back(Action::Journal(Record::FileAccepted(local.accepted.clone())));
                }
                self.take_on(local);
                self.start_ready();
            }
            Err(refusal) => self.refuse(&ask, refusal),
        }
    }

    /// What was not taken on. Of one that changes files the refusal is held like an end, so that one that
    /// comes twice is not done after it was refused. There is no need of a row: what comes again after a
    /// restart comes with an old epoch.
    fn refuse(&mut self, ask: &FileAsk, refusal: Refusal) {
        if ask.op.is_read() {
            self.answer(ask.id, Err(refusal));
            return;
        }
        let waiting = Phase::Recovering(None, Err(refusal.clone()));
        self.take_on(Local::new(ask, waiting));
        self.end(ask.id, Err(refusal));
    }

    pub(super) fn handle_cancel(&mut self, op: OpId) {
        let Some(local) = self.open.get(&op) else { return };
        if local.reads {
            // The hub has let it go before it said this.
            self.forget(op);
            return;
        }
        let message = format!("Operation {op} was ended by the hub before anything was changed.");
        self.stop(op, Refusal::new(Code::Timeout, message).hint("Ask again if it is still wanted."));
    }

    pub(super) fn handle_settled(&mut self, op: OpId) {
        let Some(local) = self.open.get(&op).filter(|local| !local.reads) else { return };
        if local.phase.end().is_some() {
            self.settle(op);
        } else {
            // The hub does not know it, or has given it up.
            self.forget(op);
        }
    }

    /// The task is in this attempt: what lower ones asked for ends as far as it has come.
    pub(super) fn fence(&mut self, task: TaskId, attempt: Attempt) {
        if self.attempts.raise(task, attempt) {
            self.actions.push_back(Action::Journal(Record::Attempt(task, attempt)));
            self.stop_stale();
        }
    }

    /// The workspace is under this lock: what was done under lower ones ends likewise.
    pub fn lock(&mut self, workspace: WorkspaceId, lock: LockEpoch) {
        if self.locks.raise(workspace, lock) {
            self.stop_stale();
        }
    }

    fn stop_stale(&mut self) {
        let stale = self.turns.values().filter_map(|op| {
            let local = self.open.get(op)?;
            let refusal = self.check_fences(local.attempt, local.lock).err()?;
            Some((*op, refusal))
        });
        // The last one first: what waits for another one that is stopped does not begin by that.
        let stale: Vec<(OpId, Refusal)> = stale.collect();
        for (op, refusal) in stale.into_iter().rev() {
            self.stop(op, refusal);
        }
        self.end_stale_transfers();
    }

    pub(super) fn check_fences(
        &self,
        attempt: Option<(TaskId, Attempt)>,
        lock: Option<(WorkspaceId, LockEpoch)>,
    ) -> Result<(), Refusal> {
        attempt.map_or(Ok(()), |(task, attempt)| self.attempts.check(task, attempt))?;
        lock.map_or(Ok(()), |(workspace, lock)| self.locks.check(workspace, lock))
    }

    /// Ends it as far as it has come. What is past the point of return goes on, unless it goes step by
    /// step.
    pub(super) fn stop(&mut self, op: OpId, why: Refusal) {
        let Some(local) = self.open.get_mut(&op) else { return };
        match &local.phase {
            Phase::Journaling(..) | Phase::Waiting(..) => self.end(op, Err(why)),
            Phase::Preparing => self.abort(op, why),
            Phase::Committing(_) if local.by_steps => self.abort(op, why),
            Phase::Committing(_) | Phase::Recovering(..) | Phase::Ended(_) => {}
        }
    }

    pub(super) fn abort(&mut self, op: OpId, why: Refusal) {
        let Some(local) = self.open.get_mut(&op) else { return };
        if local.stopped.is_none() {
            local.stopped = Some(why);
            self.actions.push_back(Action::Abort(op));
        }
    }

    /// Nobody is to be told of it: it ends as far as it has come, in silence.
    pub(super) fn forget(&mut self, op: OpId) {
        let Some(local) = self.open.get_mut(&op) else { return };
        local.forgotten = true;
        self.stop(op, Refusal::new(Code::Timeout, "Nobody waits for it any more."));
    }
}
